//! How a server says no, to the byte, and how a client understands it. (`WIRE.md`, the table of texts.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use link_core::{
    AdmissionConfig, CloseReason, Frame, Overload, Proof, Refusal, Role, Status, UnixMillis, Violation,
    close_code,
};
use support::*;

/// The table of `WIRE.md`, each text as it is before authentication and after it.
const TEXTS: [(Status, u16, &str, &str); 4] = [
    (
        Status::Unauthorized,
        401,
        "HTTP/1.1 401 Unauthorized\r\n\r\n",
        "\"HTTP/1.1 401 Unauthorized\\r\\n\\r\\n\"",
    ),
    (Status::Forbidden, 403, "HTTP/1.1 403 Forbidden\r\n\r\n", "\"HTTP/1.1 403 Forbidden\\r\\n\\r\\n\""),
    (
        Status::RequestTimeout,
        408,
        "HTTP/1.1 408 Request Timeout\r\n\r\n",
        "\"HTTP/1.1 408 Request Timeout\\r\\n\\r\\n\"",
    ),
    (Status::Conflict, 409, "HTTP/1.1 409 Conflict\r\n\r\n", "\"HTTP/1.1 409 Conflict\\r\\n\\r\\n\""),
];

fn raw(code: u16) -> &'static str {
    TEXTS.iter().find(|(_, c, ..)| *c == code).unwrap().2
}

fn quoted(code: u16) -> &'static str {
    TEXTS.iter().find(|(_, c, ..)| *c == code).unwrap().3
}

fn name(code: u16) -> &'static str {
    TEXTS.iter().find(|(_, c, ..)| *c == code).unwrap().0.name()
}

/// A refusal as it has to come out: the text, the close frame, the end.
fn refusal(code: u16, text: &str, reason: CloseReason) -> [Did; 4] {
    let frame = close_frame(4000 + code, name(code));
    [sent(text), Did::Sent(frame), Did::ClosedTransport, Did::Closed(reason)]
}

#[test]
fn the_texts_are_the_table_s_to_the_byte() {
    assert_eq!(Status::ALL, TEXTS.map(|(status, ..)| status));
    for (status, code, raw, quoted) in TEXTS {
        assert_eq!((status.code(), status.text(), status.quoted_text()), (code, raw, quoted));
        assert_eq!(quoted, serde_json::to_string(raw).unwrap(), "quoted is what JSON makes of raw");
        assert_eq!(format!("HTTP/1.1 {status}\r\n\r\n"), raw);
        assert_eq!([Status::from_text(raw), Status::from_text(quoted)], [Some(status); 2]);
    }
}

#[test]
fn before_authentication_a_server_refuses_with_the_raw_text() {
    let proof = || authenticate(client_wallet(), WALL);
    let forged = proof().replace(&WALL.to_string(), &(WALL + 1).to_string());
    for (json, violation) in [
        (authenticate(client_wallet(), WALL - 5001), Violation::StaleProof),
        (authenticate(client_wallet(), WALL + 5001), Violation::StaleProof),
        (forged, Violation::BadSignature),
        (r#"{"type":"authenticate"}"#.into(), Violation::MalformedProof),
    ] {
        let mut server = Peer::server(server_config());
        server.hears(json);
        server.assert_ended(&refusal(401, raw(401), violation.into()));
    }
    for (no, code) in [
        (Refusal::Replayed, 401),
        (Refusal::NotWhitelisted, 403),
        (Refusal::Denied, 403),
        (Refusal::AlreadyConnected, 409),
    ] {
        let mut server = Peer::asked(server_config());
        server.decides(Err(no)).unwrap();
        server.assert_ended(&refusal(code, raw(code), no.into()));
    }
    for mut server in [Peer::server(server_config()), Peer::asked(server_config())] {
        server.waits(secs(6));
        server.assert_ended(&refusal(408, raw(408), CloseReason::AuthenticationTimeout(secs(5))));
    }
}

#[test]
fn after_authentication_a_server_drops_with_the_quoted_text() {
    let mut server = Peer::authenticated_server();
    server.closes(CloseReason::Replaced);
    server.assert_ended(&refusal(409, quoted(409), CloseReason::Replaced));

    let mut config = server_config();
    config.heartbeat_interval = secs(0);
    let mut server = Peer::authenticated(Role::Server, config);
    server.waits(secs(6));
    server.assert_ended(&refusal(408, quoted(408), CloseReason::Idle(secs(5))));
}

#[test]
fn a_client_recognises_both_spellings_in_both_phases() {
    for (status, _, raw, quoted) in TEXTS {
        for text in [raw, quoted] {
            let mut waiting = Peer::client(client_config());
            waiting.hears(text);
            assert_eq!(waiting.ending(), Some(&CloseReason::RefusedByServer(status)), "{text:?} before");

            let mut live = Peer::authenticated_client();
            live.hears(text);
            let reason = match status {
                Status::Conflict => CloseReason::Replaced,
                other => CloseReason::RefusedByServer(other),
            };
            assert_eq!(reason.status(), Some(status));
            assert!(live.heard().is_empty(), "a refusal is no message");
            let frame = live.did[0].clone();
            live.assert_ended(&[frame, Did::ClosedTransport, Did::Closed(reason)]);
        }
    }
}

#[test]
fn a_refused_client_learns_why_through_the_whole_line() {
    let house = House::new(AdmissionConfig::default());
    let mut world = Pair::of(Peer::client(client_config()), Peer::server(server_config()), house);
    world.application = Application::Says(Err(Refusal::Denied));
    world.drive();
    assert_eq!(world.client.ending(), Some(&CloseReason::RefusedByServer(Status::Forbidden)));
    assert_eq!(world.server.ending(), Some(&CloseReason::Refused(Refusal::Denied)));

    let mut world = Pair::authenticated();
    world.server.closes(CloseReason::Replaced);
    world.drive();
    assert_eq!(world.client.ending(), Some(&CloseReason::Replaced));
}

#[test]
fn what_only_looks_like_a_refusal_is_none() {
    for text in [
        "HTTP/1.1 409 Conflict",
        "HTTP/1.1 409 Conflict\r\n",
        "HTTP/1.1 409 Conflict\n\n",
        "HTTP/1.1 409 conflict\r\n\r\n",
        "HTTP/1.1 500 Internal Server Error\r\n\r\n",
        " HTTP/1.1 409 Conflict\r\n\r\n",
        "HTTP/1.1 409 Conflict\r\n\r\n ",
        "",
    ] {
        assert_eq!(Status::from_text(text), None, "{text:?}");
        let mut live = Peer::authenticated_client();
        live.hears(text);
        assert_eq!(live.did, [Did::Error(Violation::NotJson)], "{text:?}");
        let mut waiting = Peer::client(client_config());
        waiting.hears(text);
        assert_eq!(waiting.ending(), Some(&Violation::NotJson.into()), "{text:?}");
    }
    let almost = r#""HTTP/1.1 409 Conflict""#;
    let mut live = Peer::authenticated_client();
    live.hears(almost);
    assert_eq!(live.heard(), [almost], "JSON like any other");
}

#[test]
fn a_client_cannot_refuse_a_server() {
    for (_, _, raw, quoted) in TEXTS {
        let mut server = Peer::authenticated_server();
        server.hears(raw);
        server.hears(quoted);
        assert_eq!(server.did, [Did::Error(Violation::NotJson), Did::Heard(quoted.into())]);
    }
    // Nor does a client of ours ever send such a text.
    for reason in [
        CloseReason::Replaced,
        CloseReason::Idle(secs(5)),
        CloseReason::AuthenticationTimeout(secs(5)),
        CloseReason::Violation(Violation::StaleProof),
        CloseReason::Refused(Refusal::Denied),
    ] {
        for mut client in [Peer::client(client_config()), Peer::authenticated_client()] {
            client.took();
            client.closes(reason.clone());
            assert_eq!(client.said(), Vec::<&str>::new(), "{reason}");
        }
    }
}

#[test]
fn a_first_frame_that_is_not_json_or_not_an_authenticate_is_answered_with_no_text() {
    let not_json: [Frame; 6] = [
        text(""),
        text("hello"),
        text("{"),
        text(r#"{"type":"authenticate"} x"#),
        text(r#"{type:"authenticate"}"#),
        binary([0x80]),
    ];
    let other: [Frame; 11] = [
        text("null"),
        text("1"),
        text("[]"),
        text("{}"),
        text(r#""authenticate""#),
        text(r#"["authenticate"]"#),
        text(r#"{"type":null}"#),
        text(r#"{"type":["authenticate"]}"#),
        text(r#"{"type":"Authenticate"}"#),
        text(r#"{"type":"hello"}"#),
        text(heartbeat(WALL)),
    ];
    let rows = not_json
        .map(|frame| (frame, Violation::NotJson))
        .into_iter()
        .chain(other.map(|frame| (frame, Violation::UnexpectedMessage)));
    for (frame, violation) in rows {
        assert_eq!(violation.status(), None);
        let mut server = Peer::server(server_config());
        server.receives(frame);
        server.assert_ended(&[
            Did::Sent(close_frame(1008, "protocol violation")),
            Did::ClosedTransport,
            Did::Closed(violation.into()),
        ]);
    }
}

#[test]
fn a_client_that_talks_on_while_the_server_decides_is_closed_without_a_text() {
    let proof = authenticate(client_wallet(), WALL);
    for (json, violation) in [
        (r#"{"type":"hello"}"#, Violation::UnexpectedMessage),
        ("null", Violation::UnexpectedMessage),
        ("not json", Violation::NotJson),
        (&proof, Violation::UnexpectedMessage),
    ] {
        let mut server = Peer::asked(server_config());
        server.hears(json);
        server.assert_ended(&[
            Did::Sent(close_frame(1008, "protocol violation")),
            Did::ClosedTransport,
            Did::Closed(violation.into()),
        ]);
    }
}

#[test]
fn a_server_that_says_something_else_before_its_answer_is_left() {
    for (json, violation) in [
        (r#"{"type":"hello"}"#, Violation::UnexpectedMessage),
        ("null", Violation::UnexpectedMessage),
        ("welcome", Violation::NotJson),
        (r#"{"type":"authenticate"}"#, Violation::MalformedProof),
    ] {
        let mut client = Peer::client(client_config());
        client.hears(json);
        assert_eq!(client.ending(), Some(&violation.into()), "{json}");
        assert_eq!(client.heard(), Vec::<&str>::new(), "{json}");
    }
}

#[test]
fn each_ending_has_its_close_frame() {
    let timeout = secs(5);
    for (reason, expected) in [
        (CloseReason::Local, Some((close_code::NORMAL, ""))),
        (CloseReason::ShuttingDown, Some((close_code::GOING_AWAY, "shutting down"))),
        (CloseReason::SlowPeer, Some((close_code::POLICY, "reads too slowly"))),
        (CloseReason::Replaced, Some((4409, "409 Conflict"))),
        (CloseReason::Idle(timeout), Some((4408, "408 Request Timeout"))),
        (CloseReason::AuthenticationTimeout(timeout), Some((4408, "408 Request Timeout"))),
        (Refusal::Denied.into(), Some((4403, "403 Forbidden"))),
        (Refusal::Replayed.into(), Some((4401, "401 Unauthorized"))),
        (Refusal::Busy.into(), Some((close_code::TRY_AGAIN_LATER, "try again later"))),
        (Violation::NotUtf8.into(), Some((close_code::NOT_UTF8, "protocol violation"))),
        (Violation::WebSocket.into(), Some((close_code::PROTOCOL, "protocol violation"))),
        (Violation::MessageTooLarge { limit: 1 }.into(), Some((close_code::TOO_BIG, "message too large"))),
        (CloseReason::Lost, None),
        (CloseReason::PeerClosed { code: Some(1001) }, None),
    ] {
        for role in [Role::Client, Role::Server] {
            let config = if role == Role::Client { client_config() } else { server_config() };
            // A client that was replaced knows it from the server, and only answers.
            let answers = role == Role::Client && reason == CloseReason::Replaced;
            let expected = if answers { Some((close_code::NORMAL, "")) } else { expected };
            let mut peer = Peer::authenticated(role, config);
            peer.closes(reason.clone());
            let frames: Vec<_> =
                peer.did.iter().filter(|did| matches!(did, Did::Sent(Frame::Close(_)))).cloned().collect();
            let wanted: Vec<_> =
                expected.iter().map(|(code, why)| Did::Sent(close_frame(*code, why))).collect();
            assert_eq!(frames, wanted, "{role:?}: {reason}");
            assert_eq!(peer.ending(), Some(&reason), "{role:?}");
        }
    }
}

#[test]
fn a_close_frame_of_the_peer_ends_every_phase_and_its_code_is_only_reported() {
    type Phase = fn() -> Peer;
    let phases: [Phase; 5] = [
        || Peer::server(server_config()),
        || Peer::asked(server_config()),
        || Peer::client(client_config()),
        Peer::authenticated_server,
        Peer::authenticated_client,
    ];
    for phase in phases {
        for (frame, code) in [(Frame::Close(None), None), (close_frame(4409, "409 Conflict"), Some(4409))] {
            let mut peer = phase();
            peer.took();
            peer.receives(frame);
            peer.assert_ended(&[Did::ClosedTransport, Did::Closed(CloseReason::PeerClosed { code })]);
        }
        let mut peer = phase();
        peer.took();
        peer.loses_its_transport();
        peer.assert_ended(&[Did::ClosedTransport, Did::Closed(CloseReason::Lost)]);
    }
}

#[test]
fn a_violation_below_the_protocol_ends_every_phase_with_its_code() {
    for violation in [Violation::WebSocket, Violation::NotUtf8, Violation::MessageTooLarge { limit: 7 }] {
        for mut peer in [
            Peer::server(server_config()),
            Peer::asked(server_config()),
            Peer::client(client_config()),
            Peer::authenticated_server(),
            Peer::authenticated_client(),
        ] {
            peer.took();
            peer.connection.handle_violation(violation, peer.now);
            peer.drain();
            assert_eq!(peer.said(), Vec::<&str>::new());
            let Did::Sent(Frame::Close(Some(close))) = &peer.did[0] else { panic!("{:?}", peer.did) };
            assert_eq!(close.code, violation.close_code());
            assert_eq!(peer.ending(), Some(&violation.into()));
        }
    }
}

#[test]
fn only_what_may_end_otherwise_is_worth_another_try() {
    let timeout = secs(5);
    for (reason, retryable, refusal) in [
        (CloseReason::Lost, true, false),
        (CloseReason::PeerClosed { code: None }, true, false),
        (CloseReason::AuthenticationTimeout(timeout), true, false),
        (CloseReason::Idle(timeout), true, false),
        (CloseReason::SlowPeer, true, false),
        (CloseReason::RefusedByServer(Status::RequestTimeout), true, false),
        (CloseReason::RefusedByServer(Status::Unauthorized), false, true),
        (CloseReason::RefusedByServer(Status::Forbidden), false, true),
        (CloseReason::RefusedByServer(Status::Conflict), false, true),
        (CloseReason::Replaced, false, true),
        (CloseReason::Local, false, false),
        (CloseReason::ShuttingDown, false, false),
        (Violation::Reflected.into(), false, false),
        (Violation::UnexpectedServer(stranger().address()).into(), false, false),
        (Violation::BadSignature.into(), false, false),
        (Violation::WebSocket.into(), true, false),
    ] {
        assert_eq!((reason.is_retryable(), reason.is_refusal()), (retryable, refusal), "{reason}");
    }
}

#[test]
fn a_close_of_the_peer_is_told_with_its_code_if_it_gave_one() {
    for (code, told) in [(None, "closed by the peer"), (Some(1001), "closed by the peer with code 1001")] {
        assert_eq!(CloseReason::PeerClosed { code }.to_string(), told);
    }
}

#[test]
fn each_reason_has_a_label_of_its_own_that_stays_the_same() {
    // Metrics and alerts of users hang on these: a change here is a breaking one.
    let server = wallet(7).address();
    let time = core::time::Duration::from_secs(5);
    let labels = [
        (CloseReason::Local, "local"),
        (CloseReason::ShuttingDown, "shutting_down"),
        (CloseReason::PeerClosed { code: Some(1000) }, "peer_closed"),
        (CloseReason::Lost, "lost"),
        (CloseReason::AuthenticationTimeout(time), "authentication_timeout"),
        (CloseReason::Idle(time), "idle"),
        (CloseReason::Replaced, "replaced"),
        (Refusal::Replayed.into(), "replayed"),
        (Refusal::NotWhitelisted.into(), "not_whitelisted"),
        (Refusal::Denied.into(), "denied"),
        (Refusal::AlreadyConnected.into(), "already_connected"),
        (Refusal::Busy.into(), "busy"),
        (CloseReason::RefusedByServer(Status::Conflict), "refused_by_server"),
        (Violation::NotJson.into(), "not_json"),
        (Violation::UnexpectedMessage.into(), "unexpected_message"),
        (Violation::MalformedProof.into(), "malformed_proof"),
        (Violation::StaleProof.into(), "stale_proof"),
        (Violation::BadSignature.into(), "bad_signature"),
        (Violation::Reflected.into(), "reflected"),
        (Violation::UnexpectedServer(server).into(), "unexpected_server"),
        (Violation::MessageTooLarge { limit: 1 }.into(), "message_too_large"),
        (Violation::NotUtf8.into(), "not_utf8"),
        (Violation::WebSocket.into(), "websocket"),
        (Violation::Tls.into(), "tls"),
        (CloseReason::SlowPeer, "slow_peer"),
    ];
    for (reason, label) in &labels {
        assert_eq!(reason.label(), *label, "{reason}");
    }
    let distinct: std::collections::BTreeSet<_> = labels.iter().map(|(_, label)| label).collect();
    assert_eq!(distinct.len(), labels.len());
    assert_eq!(Overload::Unauthenticated.label(), "too_many_unauthenticated");
    assert_eq!(Overload::UnauthenticatedFromIp.label(), "too_many_unauthenticated_from_ip");
}

#[test]
fn a_whitelist_refuses_with_403() {
    let mut config = AdmissionConfig::default();
    config.whitelist = Some([stranger().address()].into());
    let house = House::new(config);
    let mut world = Pair::of(Peer::client(client_config()), Peer::server(server_config()), house);
    world.drive();
    assert_eq!(world.server.ending(), Some(&Refusal::NotWhitelisted.into()));
    assert_eq!(world.server.said(), [raw(403)]);
    assert_eq!(world.client.ending(), Some(&CloseReason::RefusedByServer(Status::Forbidden)));
}

#[test]
fn a_second_connection_is_refused_with_409_where_nobody_is_replaced() {
    let mut config = AdmissionConfig::default();
    config.replace_existing = false;
    let house = House::new(config);
    let mut first = Pair::of(Peer::client(client_config()), Peer::server(server_config()), house);
    first.drive();
    assert!(first.client.connection.is_authenticated());

    first.advance(millis(1));
    let mut second = first.connect_again();
    second.drive();
    assert_eq!(second.server.ending(), Some(&Refusal::AlreadyConnected.into()));
    assert_eq!(second.server.said(), [raw(409)]);
    assert_eq!(second.client.ending(), Some(&CloseReason::RefusedByServer(Status::Conflict)));
    first.advance(secs(3));
    assert_eq!(first.server.ending(), None);
}

#[test]
fn a_full_memory_of_proofs_says_no_status_and_the_client_dials_again() {
    let mut config = AdmissionConfig::default();
    config.max_remembered_proofs = 1;
    let house = House::new(config);
    let other = Proof { address: stranger().address(), timestamp: UnixMillis::new(WALL).unwrap() };
    house.admission.borrow_mut().screen(other, other.timestamp).unwrap();
    let mut world = Pair::of(Peer::client(client_config()), Peer::server(server_config()), house);
    world.drive();
    assert_eq!(world.server.ending(), Some(&Refusal::Busy.into()));
    assert_eq!(world.server.said(), Vec::<&str>::new());
    let reason = world.client.ending().unwrap();
    assert_eq!(reason, &CloseReason::PeerClosed { code: Some(1013) });
    assert!(reason.is_retryable() && !reason.is_refusal());
}

#[test]
fn the_same_authenticate_again_is_refused_with_401() {
    let first = Pair::authenticated();
    let mut second = first.connect_again();
    second.drive();
    assert_eq!(second.server.ending(), Some(&Refusal::Replayed.into()));
    assert_eq!(second.server.said(), [raw(401)]);
    let admission = first.house.admission.borrow();
    assert_eq!(admission.holder(&client_wallet().address()), Some(first.id), "its owner stays");
}
