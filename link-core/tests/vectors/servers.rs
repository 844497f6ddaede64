//! A server's conversations.

use link_core::{CloseReason, Refusal, Role, Status, Violation};

use super::{
    conversations::{EARLY, GREETING, LATE, MALFORMED, answer, asked_server, live_server, proof, server},
    talk::{Options, Talk},
    wallets::{CLIENT, OTHER},
};
use crate::support::{WALL, authenticate, heartbeat};

pub(super) fn talks() -> Vec<Talk> {
    let sections = [
        decisions(),
        first_frames(),
        before_authentication(),
        messages(),
        endings(),
        silence(),
        vec![message_limit()],
        heartbeats(),
    ];
    sections.into_iter().flatten().collect()
}

fn decisions() -> Vec<Talk> {
    vec![
        asked_server("server: the answer is signed with the time of the decision").after(3000).admit(),
        asked_server("server: decision does not come in time").after(5580).time(),
        asked_server("server: refused by the whitelist").refuse(Refusal::NotWhitelisted),
        asked_server("server: refused by the application").refuse(Refusal::Denied),
        asked_server("server: refused as a replay").refuse(Refusal::Replayed),
        asked_server("server: refused because the address is connected").refuse(Refusal::AlreadyConnected),
        asked_server("server: refused for now, since the memory is full").refuse(Refusal::Busy),
    ]
}

fn first_frames() -> Vec<Talk> {
    let foreign = proof(0).replace(CLIENT.address().as_str(), OTHER.address().as_str());
    vec![
        server("server: first frame is not JSON").text("hello"),
        server("server: first frame is a message").text(GREETING),
        server("server: first frame is a heartbeat").text(&heartbeat(WALL)),
        server("server: first frame is null").text("null"),
        server("server: first frame is a malformed proof").text(MALFORMED),
        server("server: first frame is a stale proof").text(&proof(-5001)),
        server("server: first frame is somebody else's signature").text(&foreign),
        server("server: proof in a binary frame").binary(proof(0).as_bytes()).admit(),
        server("server: first frame is binary and not UTF-8").binary(&[0xff, 0xfe]),
    ]
}

fn before_authentication() -> Vec<Talk> {
    vec![
        server("server: control frames before the proof change nothing")
            .ping(&[1])
            .pong(&[2])
            .after(20)
            .text(&proof(0)),
        asked_server("server: a heartbeat while deciding is passed over, a message ends it")
            .text(&heartbeat(WALL))
            .text(EARLY),
        asked_server("server: a second proof while deciding ends it").text(&proof(0)),
        server("server: client closes before its proof").close(None),
        server("server: transport lost before the proof").lost(),
        server("server: closes for shutdown before the proof").end(CloseReason::ShuttingDown),
    ]
}

fn messages() -> Vec<Talk> {
    vec![
        live_server("server: a second authenticate is passed over")
            .text(&authenticate(&OTHER, WALL))
            .text(MALFORMED),
        live_server("server: any JSON value is a message")
            .text("null")
            .text("[1]")
            .text("\"text\"")
            .text(r#"{"type":"disconnect"}"#)
            .text(r#"{"type":"error"}"#)
            .text("{}")
            .text(Status::Conflict.quoted_text()),
        live_server("server: not JSON is reported and the connection stays")
            .text("hello")
            .text(Status::Conflict.text())
            .binary(&[0xff])
            .text(GREETING),
        live_server("server: what an application may not send")
            .send("[1]")
            .send("not json")
            .send(r#"{"type":"heartbeat"}"#)
            .send(r#"{"type":"authenticate"}"#)
            .send(r#"{"type":"disconnect"}"#)
            .send(r#"{"type":"error"}"#)
            .send(r#"{"untyped":1}"#),
    ]
}

fn endings() -> Vec<Talk> {
    vec![
        live_server("server: replaced").end(CloseReason::Replaced).text(LATE),
        live_server("server: closes for shutdown").end(CloseReason::ShuttingDown),
        live_server("server: client reads too slowly").end(CloseReason::SlowPeer),
        live_server("server: text that is not UTF-8").broke(Violation::NotUtf8),
        live_server("server: not the WebSocket protocol").broke(Violation::WebSocket),
        live_server("server: transport lost").lost(),
    ]
}

/// The idle guard, a client's too. No heartbeats, so that every wake-up is its own.
fn silence() -> Vec<Talk> {
    let without_heartbeats = |role, name| {
        Talk::open(role, name, Options { heartbeat_interval_ms: Some(0), ..Options::default() }).after(20)
    };
    let asked = |name| without_heartbeats(Role::Server, name).text(&proof(0));
    let live = |name| asked(name).admit();
    vec![
        live("server: idle client, without heartbeats")
            .after(1000)
            .text(r#"{"type":"last"}"#)
            .after(5579)
            .time()
            .after(1)
            .time(),
        live("server: reads paused")
            .after(1000)
            .pause_reading()
            .after(60_000)
            .time()
            .resume_reading()
            .after(4580)
            .time()
            .after(1000)
            .time(),
        asked("server: reads paused while deciding")
            .pause_reading()
            .after(100)
            .admit()
            .after(60_000)
            .time()
            .text(r#"{"type":"under way"}"#)
            .resume_reading()
            .after(5480)
            .time(),
        live("server: overslept by more than a time-out").after(10_581).time().after(5999).time(),
        live("server: overslept by exactly a time-out").after(10_580).time(),
        without_heartbeats(Role::Client, "client: silent server, without heartbeats")
            .text(&answer(0))
            .after(4999)
            .time()
            .after(1)
            .time(),
    ]
}

/// A message of 31 bytes, of 32, of 33.
fn message_limit() -> Talk {
    let options = Options { max_message_size: Some(32), ..Options::default() };
    Talk::open(Role::Server, "server: message limit", options)
        .after(20)
        .text(&proof(0))
        .admit()
        .text(r#"{"type":"x","pad":"0123456789"}"#)
        .text(r#"{"type":"x","pad":"01234567890"}"#)
        .text(r#"{"type":"x","pad":"012345678901"}"#)
}

fn heartbeats() -> Vec<Talk> {
    let beat = heartbeat(1);
    vec![
        live_server("server: a late wake-up sends one ping, and the pace starts again")
            .after(4300)
            .time()
            .after(999)
            .time()
            .after(1)
            .time(),
        live_server("server: a slightly late wake-up does not shift the pace")
            .after(1040)
            .time()
            .after(960)
            .time(),
        live_server(
            "server: a pong slower than the interval is measured; \
             a pong for a later ping gives the awaited one up",
        )
        .after(1000)
        .time()
        .after(1000)
        .time()
        .after(200)
        .pong_to(0)
        .text(&beat)
        .after(800)
        .time()
        .after(1000)
        .time()
        .after(5)
        .pong_to(4)
        .pong(&[0, 0, 0, 0, 0, 0, 2])
        .pong(&[0])
        .pong_to(3)
        .text(&beat)
        .pong_to(2)
        .text(&beat)
        .after(995)
        .time()
        .after(7)
        .pong_to(4)
        .text(&beat),
        live_server("server: the answer to only the latest of several pings")
            .after(1000)
            .time()
            .after(1000)
            .time()
            .after(9)
            .pong_to(1)
            .text(&beat)
            .after(991)
            .time()
            .after(11)
            .pong_to(2)
            .text(&beat),
    ]
}
