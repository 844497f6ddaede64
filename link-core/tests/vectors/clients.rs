//! A client's conversations.

use link_core::{CloseReason, Role, Status};

use super::{
    conversations::{EARLY, GREETING, MALFORMED, answer, client, live_client, proof},
    talk::{Options, Talk},
    wallets::{CLIENT, OTHER},
};
use crate::support::{WALL, authenticate, heartbeat};

pub(super) fn talks() -> Vec<Talk> {
    let sections = [before_the_answer(), answers(), early_wishes(), afterwards()];
    sections.into_iter().flatten().chain(Status::ALL.into_iter().flat_map(told)).collect()
}

fn before_the_answer() -> Vec<Talk> {
    vec![
        client("client: a heartbeat before the answer is answered")
            .after(10)
            .text(&heartbeat(WALL))
            .text(&answer(0)),
        client("client: a message before the answer ends it").text(EARLY),
        client("client: something else than JSON before the answer ends it").text("hello"),
    ]
}

fn answers() -> Vec<Talk> {
    let expecting = |name, address| {
        Talk::open(Role::Client, name, Options { expected_servers: vec![address], ..Options::default() })
    };
    vec![
        client("client: a stale answer").text(&answer(5001)),
        client("client: a malformed answer").text(MALFORMED),
        client("client: its own proof sent back").text(&proof(0)),
        expecting("client: its own address, expected", CLIENT.address()).text(&proof(0)),
        expecting("client: not an expected server", OTHER.address()).text(&answer(0)),
    ]
}

fn early_wishes() -> Vec<Talk> {
    vec![
        client("client: local close before the answer").end(CloseReason::Local),
        client("client: may not send before the answer").send(EARLY),
    ]
}

fn afterwards() -> Vec<Talk> {
    vec![
        live_client("client: what only looks like a status")
            .text("HTTP/1.1 409 Conflict\r\n")
            .text("\"HTTP/1.1 409 Conflict\"")
            .text(r#""HTTP/1.1 409\u0020Conflict\r\n\r\n""#),
        live_client("client: a second authenticate is passed over").text(&authenticate(&OTHER, WALL)),
        live_client("client: server closes").close(None),
        live_client("client: a step of the wall clock ends nothing")
            .clock(1000)
            .after(1000)
            .time()
            .text(GREETING),
    ]
}

/// A status in both spellings, before the answer and after it.
fn told(status: Status) -> [Talk; 4] {
    let code = status.code();
    [
        client(&format!("client: refused with {code}")).text(status.text()),
        client(&format!("client: refused with {code}, quoted")).text(status.quoted_text()),
        live_client(&format!("client: dropped with {code}")).text(status.quoted_text()),
        live_client(&format!("client: dropped with {code}, unquoted")).text(status.text()),
    ]
}
