//! `conversations-v1.json`: what one side does, input by input.

use link_core::{CloseReason, Role};

use super::{
    clients, document, servers,
    talk::{Options, Talk},
    wallets::{CLIENT, SERVER},
};
use crate::support::{WALL, authenticate, heartbeat};

pub(crate) fn document() -> String {
    let talks = [whole(), deadlines(), servers::talks(), clients::talks()].into_iter().flatten();
    let stories: Vec<_> = talks.map(|talk| talk.told()).collect();
    document::document("One side of one connection, input by input", None, "conversations", &stories)
}

// --- What both sides are told --------------------------------------------------------------------------------

pub(super) const GREETING: &str = r#"{"type":"greeting"}"#;
pub(super) const EARLY: &str = r#"{"type":"early"}"#;
pub(super) const LATE: &str = r#"{"type":"late"}"#;
/// An `authenticate` only by its type.
pub(super) const MALFORMED: &str = r#"{"type":"authenticate"}"#;

/// The client's `authenticate`, signed `late` milliseconds after the clocks started.
pub(super) fn proof(late: i64) -> String {
    authenticate(&CLIENT, WALL.saturating_add_signed(late))
}

/// The server's.
pub(super) fn answer(late: i64) -> String {
    authenticate(&SERVER, WALL.saturating_add_signed(late))
}

pub(super) fn server(name: &str) -> Talk {
    Talk::open(Role::Server, name, Options::default())
}

pub(super) fn client(name: &str) -> Talk {
    Talk::open(Role::Client, name, Options::default())
}

/// A server whose client has proved its address and waits.
pub(super) fn asked_server(name: &str) -> Talk {
    server(name).after(20).text(&proof(0))
}

pub(super) fn live_server(name: &str) -> Talk {
    asked_server(name).after(1).admit()
}

pub(super) fn live_client(name: &str) -> Talk {
    client(name).after(20).text(&answer(10))
}

// --- The conversations that show both sides ------------------------------------------------------------------

fn whole() -> Vec<Talk> {
    vec![
        live_server("server: handshake, messages both ways, heartbeat, round trip, peer closes")
            .send(r#"{"type":"greeting","text":"hello"}"#)
            .after(5)
            .text(r#"{"type":"greeting","text":"hello to you"}"#)
            .after(994)
            .time()
            .after(1)
            .time()
            .after(30)
            .pong_to(0)
            .text(&heartbeat(WALL + 1051))
            .after(970)
            .time()
            .after(10)
            .pong_to(1)
            .after(5)
            .close(Some(1000)),
        live_client("client: handshake, messages both ways, heartbeat, round trip, local close")
            .send(r#"{"type":"greeting","text":"hello to you"}"#)
            .text(r#"{"type":"greeting","text":"hello"}"#)
            .after(1000)
            .time()
            .after(25)
            .pong_to(0)
            .ping(&[0; 8])
            .text(&heartbeat(WALL + 1030))
            .after(5)
            .end(CloseReason::Local)
            .text(LATE)
            .time(),
    ]
}

fn deadlines() -> Vec<Talk> {
    vec![
        server("server: nothing comes; 408 on the next whole check interval")
            .after(5000)
            .time()
            .after(599)
            .time()
            .after(1)
            .time(),
        client("client: no answer; gives up on the exact deadline").after(4999).time().after(1).time(),
    ]
}
