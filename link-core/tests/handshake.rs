//! The handshake: two messages, one each way. (`WIRE.md`, 'Handshake'.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::time::Duration;

use link_core::{CloseReason, Config, Misuse, Protection, Role, Status, UnixMillis, Violation, Wallet};
use support::*;

/// A wallet of the reference, and what the reference signs with it at `WALL`.
fn vector() -> (Wallet, String) {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/wallet-v1.json")).unwrap();
    let row = &vectors["wallets"][0];
    let signatures = row["signatures"].as_array().unwrap();
    let signed = signatures.iter().find(|signed| signed["message"] == "1795372174071").unwrap();
    let wallet = Wallet::from_private_key(row["private_key"].as_str().unwrap().parse().unwrap());
    (wallet, signed["signature"].as_str().unwrap().into())
}

const VECTOR_ADDRESS: &str = "xe_61db6997734714592fa3524Ee39a118A412Aaf0E";

#[test]
fn a_client_speaks_first_with_exactly_the_bytes_of_the_reference() {
    let (wallet, signature) = vector();
    let client = Peer::client(Config::client(wallet));
    let expected = format!(
        r#"{{"type":"authenticate","address":"{VECTOR_ADDRESS}","timestamp":1795372174071,"signature":"{signature}"}}"#
    );
    assert_eq!(client.did, [sent(expected)]);
}

#[test]
fn a_server_keeps_silent_until_a_client_has_proved_itself_and_answers_with_the_same_four_fields() {
    let (wallet, signature) = vector();
    let mut server = Peer::server(Config::server(wallet));
    assert_eq!(server.did, []);

    let client = client_wallet().address();
    server.hears(authenticate(client_wallet(), WALL));
    assert_eq!(server.took(), [Did::Asked(client)], "nothing is said before the decision");

    server.decides(Ok(())).unwrap();
    let expected = format!(
        r#"{{"type":"authenticate","address":"{VECTOR_ADDRESS}","timestamp":1795372174071,"signature":"{signature}"}}"#
    );
    assert_eq!(server.did, [sent(expected), Did::Authenticated(client)]);
}

#[test]
fn the_answer_is_signed_with_the_time_of_the_decision() {
    let mut server = Peer::asked(server_config());
    server.clocks_move(millis(1234));
    server.decides(Ok(())).unwrap();
    assert_eq!(server.said(), [authenticate(server_wallet(), WALL + 1234)]);
}

#[test]
fn both_sides_know_each_other_when_it_is_done() {
    let mut world = Pair::new();
    for side in [&world.client, &world.server] {
        assert!(!side.connection.is_authenticated() && !side.connection.is_closed());
        assert_eq!((side.connection.peer(), side.connection.protection()), (None, None));
    }
    world.drive();

    let (client, server) = (client_wallet().address(), server_wallet().address());
    assert_eq!(world.client.did.last(), Some(&Did::Authenticated(server)));
    assert_eq!(world.server.did.last(), Some(&Did::Authenticated(client)));
    assert_eq!(world.client.connection.peer(), Some(server));
    assert_eq!(world.server.connection.peer(), Some(client));
    assert_eq!(
        (world.client.connection.role(), world.server.connection.role()),
        (Role::Client, Role::Server)
    );
    for side in [&world.client, &world.server] {
        assert!(side.connection.is_authenticated());
        assert_eq!(side.connection.protection(), Some(Protection::Transport));
    }
}

#[test]
fn a_client_may_send_only_after_the_answer() {
    let mut world = Pair::new();
    let hello = r#"{"type":"hello"}"#;
    assert_eq!(world.client.sends(hello), Err(Misuse::NotAuthenticated));
    world.application = Application::Thinks;
    world.drive();
    assert_eq!(world.client.sends(hello), Err(Misuse::NotAuthenticated), "the server is still thinking");
    world.application = Application::Says(Ok(()));
    world.drive();
    assert_eq!(world.client.sends(hello), Ok(()));
    world.drive();
    assert_eq!(world.server.heard(), [hello], "what was refused is not sent later");
}

#[test]
fn a_server_may_send_only_after_its_answer() {
    let mut server = Peer::server(server_config());
    let hello = r#"{"type":"hello"}"#;
    assert_eq!(server.sends(hello), Err(Misuse::NotAuthenticated));
    server.hears(authenticate(client_wallet(), WALL));
    assert_eq!(server.sends(hello), Err(Misuse::NotAuthenticated));
    server.decides(Ok(())).unwrap();
    assert_eq!(server.sends(hello), Ok(()));
}

#[test]
fn what_a_server_sends_right_after_its_answer_arrives_behind_it() {
    let mut world = Pair::new();
    world.application = Application::Thinks;
    world.drive();
    let (ticket, now) = (world.server.tickets.remove(0), world.server.now);
    // Several inputs before anything is drained, as a caller may do.
    world.server.connection.decide(ticket, Ok(()), now).unwrap();
    for n in 0..3 {
        world.server.connection.send(message(&format!(r#"{{"type":"early","n":{n}}}"#)), now).unwrap();
    }
    world.server.drain();
    world.client.took();
    world.drive();
    let early = |n| Did::Heard(format!(r#"{{"type":"early","n":{n}}}"#));
    let server = server_wallet().address();
    assert_eq!(world.client.did, [Did::Authenticated(server), early(0), early(1), early(2)]);
}

#[test]
fn a_client_answers_a_heartbeat_that_comes_before_the_answer() {
    let mut client = Peer::client(client_config());
    client.took();
    client.clocks_move(millis(250));
    client.hears(heartbeat(1));
    assert_eq!(client.took(), [sent(heartbeat(WALL + 250))], "with its own time, and no event");
    client.hears(authenticate(server_wallet(), WALL));
    assert_eq!(client.did, [Did::Authenticated(server_wallet().address())]);
}

#[test]
fn a_server_that_is_deciding_passes_over_the_answer_to_a_heartbeat_and_control_frames() {
    let mut server = Peer::asked(server_config());
    server.hears(heartbeat(WALL));
    server.receives(link_core::Frame::Ping("ping".into()));
    server.receives(link_core::Frame::Pong("pong".into()));
    assert_eq!(server.did, []);
    server.decides(Ok(())).unwrap();
    assert!(server.connection.is_authenticated());
}

#[test]
fn a_second_authenticate_is_passed_over() {
    for role in [Role::Client, Role::Server] {
        let config = if role == Role::Client { client_config() } else { server_config() };
        let mut peer = Peer::authenticated(role, config);
        let before = peer.connection.peer();
        for wallet in [stranger(), client_wallet(), server_wallet()] {
            peer.hears(authenticate(wallet, WALL));
        }
        peer.hears(r#"{"type":"authenticate"}"#);
        assert_eq!(peer.did, [], "{role:?}");
        assert_eq!(peer.connection.peer(), before, "{role:?}");
    }
}

#[test]
fn text_in_binary_frames_counts_as_text() {
    let mut server = Peer::server(server_config());
    server.receives(binary(authenticate(client_wallet(), WALL)));
    server.decides(Ok(())).unwrap();
    server.took();
    server.receives(binary(r#"{"type":"hello"}"#));
    server.receives(binary(heartbeat(WALL)));
    // Bytes that are no text are no JSON either.
    server.receives(binary([0xff, 0xfe]));
    let hello = Did::Heard(r#"{"type":"hello"}"#.into());
    assert_eq!(server.did, [hello, Did::Error(Violation::NotJson)], "the heartbeat was not asked for");

    let mut client = Peer::client(client_config());
    client.receives(binary(authenticate(server_wallet(), WALL)));
    assert!(client.connection.is_authenticated());
}

#[test]
fn order_of_the_fields_and_spaces_and_further_fields_do_not_matter() {
    let (address, signature) = (client_wallet().address(), client_wallet().sign(&WALL.to_string()));
    let upper = signature.to_string().to_uppercase();
    let texts = [
        format!(
            r#"{{"signature":"{signature}","timestamp":{WALL},"address":"{address}","type":"authenticate"}}"#
        ),
        format!(
            "\r\n\t {{ \"type\" : \"authenticate\" , \"timestamp\" : {WALL} ,\n\"address\":\"{address}\",\"signature\":\"{signature}\" }} \n"
        ),
        format!(
            r#"{{"type":"authenticate","v":[1,{{"x":null}}],"address":"{address}","timestamp":{WALL},"signature":"{signature}","name":"\ud83d\ude00"}}"#
        ),
        format!(
            r#"{{"\u0074ype":"\u0061uthenticate","address":"\u0078{}","timestamp":{WALL},"signature":"{upper}"}}"#,
            &address.as_str()[1..]
        ),
    ];
    for text in texts {
        let mut server = Peer::server(server_config());
        server.hears(text.clone());
        assert_eq!(server.did, [Did::Asked(address)], "{text}");
    }
}

#[test]
fn a_ticket_says_what_was_proved() {
    let mut server = Peer::server(server_config());
    server.hears(authenticate(client_wallet(), WALL - 3));
    let ticket = &server.tickets[0];
    assert_eq!(ticket.address(), client_wallet().address());
    assert_eq!(ticket.timestamp(), UnixMillis::new(WALL - 3).unwrap());
    assert_eq!((ticket.proof().address, ticket.proof().timestamp), (ticket.address(), ticket.timestamp()));
}

/// What a signed time `offset` milliseconds from the reader's clock comes to on both sides.
fn verdicts(offset: i64, window: Duration) -> [bool; 2] {
    let timestamp = WALL.saturating_add_signed(offset);
    let mut config = server_config();
    config.auth_window = window;
    let mut server = Peer::server(config);
    server.hears(authenticate(client_wallet(), timestamp));
    let mut config = client_config();
    config.auth_window = window;
    let mut client = Peer::client(config);
    client.hears(authenticate(server_wallet(), timestamp));

    let stale = CloseReason::Violation(Violation::StaleProof);
    for side in [&server, &client] {
        assert!(side.ending().is_none_or(|reason| *reason == stale), "{offset}: {:?}", side.did);
    }
    [!server.tickets.is_empty(), client.connection.is_authenticated()]
}

#[test]
fn a_signed_time_may_lie_as_far_from_the_clock_as_the_window_and_no_further() {
    let second = secs(1);
    for (offset, window, accepted) in [
        (0, 5 * second, true),
        (-5000, 5 * second, true),
        (5000, 5 * second, true),
        (-5001, 5 * second, false),
        (5001, 5 * second, false),
        (-86_400_000, 5 * second, false),
        (86_400_000, 5 * second, false),
        (-1000, second, true),
        (-1001, second, false),
        (1001, second, false),
        // Zero is the narrowest window, not none.
        (0, Duration::ZERO, true),
        (1, Duration::ZERO, false),
        (-1, Duration::ZERO, false),
    ] {
        assert_eq!(verdicts(offset, window), [accepted; 2], "{offset} in {window:?}");
    }
}

#[test]
fn clocks_within_the_window_of_each_other_agree_and_clocks_beyond_it_do_not() {
    for (client_is_ahead_by, agree) in [(4_900, true), (-4_900, true), (5_100, false), (-5_100, false)] {
        let mut now = start();
        now.wall = UnixMillis::new(WALL.saturating_add_signed(client_is_ahead_by)).unwrap();
        let client = Peer::started(Role::Client, client_config(), now);
        let house = House::new(link_core::AdmissionConfig::default());
        let mut world = Pair::of(client, Peer::server(server_config()), house);
        world.drive();
        assert_eq!(world.client.connection.is_authenticated(), agree, "{client_is_ahead_by}");
        assert_eq!(world.server.connection.is_authenticated(), agree, "{client_is_ahead_by}");
        if !agree {
            let refused = CloseReason::RefusedByServer(Status::Unauthorized);
            assert_eq!(world.client.ending(), Some(&refused), "{client_is_ahead_by}");
        }
    }
}

#[test]
fn a_step_of_the_wall_clock_fails_a_handshake_but_never_a_live_connection() {
    let mut client = Peer::client(client_config());
    client.wall_clock_steps(-60_000);
    client.hears(authenticate(server_wallet(), WALL));
    assert_eq!(client.ending(), Some(&CloseReason::Violation(Violation::StaleProof)));

    let mut world = Pair::authenticated();
    for step in [-3_600_000, 86_400_000, -86_400_000 * 365] {
        world.client.wall_clock_steps(step);
        world.server.wall_clock_steps(-step);
        world.advance(secs(20));
        world.client.sends(r#"{"type":"still"}"#).unwrap();
        world.drive();
    }
    assert_eq!(world.server.heard().len(), 3);
    assert_eq!((world.client.ending(), world.server.ending()), (None, None));
}

#[test]
fn a_client_gives_a_server_that_does_not_answer_the_authentication_time_out_and_no_more() {
    let mut client = Peer::client(client_config());
    client.took();
    client.waits(millis(4_999));
    assert_eq!(client.did, []);
    client.waits(millis(1));
    let reason = CloseReason::AuthenticationTimeout(secs(5));
    assert!(reason.is_retryable());
    let frame = close_frame(4408, "408 Request Timeout");
    client.assert_ended(&[Did::Sent(frame), Did::ClosedTransport, Did::Closed(reason)]);
}

#[test]
fn a_client_does_not_wait_longer_for_a_server_that_only_beats() {
    let mut client = Peer::client(client_config());
    for _ in 0..4 {
        client.waits(secs(1));
        client.hears(heartbeat(WALL));
        client.receives(link_core::Frame::Ping("ping".into()));
    }
    client.waits(secs(1));
    assert_eq!(client.ending(), Some(&CloseReason::AuthenticationTimeout(secs(5))));
}

#[test]
fn without_an_authentication_time_out_a_client_waits_for_ever() {
    let mut config = client_config();
    config.auth_timeout = Duration::ZERO;
    let mut client = Peer::client(config);
    assert_eq!(client.due_in(), None);
    client.sleeps(secs(1_000_000));
    assert_eq!(client.ending(), None);
}

#[test]
fn latency_does_not_matter_while_it_is_within_the_time_out() {
    let mut world = Pair::new();
    world.latency = millis(2_400);
    world.advance(secs(5));
    assert!(world.client.connection.is_authenticated());
    assert!(world.server.connection.is_authenticated());
}

#[test]
fn a_signature_of_somebody_else_or_over_another_time_proves_nothing() {
    let (theirs, ours) = (stranger().sign(&WALL.to_string()), client_wallet().sign(&(WALL + 1).to_string()));
    let address = client_wallet().address();
    for signature in [theirs, ours] {
        let mut server = Peer::server(server_config());
        server.hears(format!(
            r#"{{"type":"authenticate","address":"{address}","timestamp":{WALL},"signature":"{signature}"}}"#
        ));
        assert_eq!(server.ending(), Some(&CloseReason::Violation(Violation::BadSignature)));
    }
}
