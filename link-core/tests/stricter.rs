//! `WIRE.md`, 'Where we are stricter, on purpose': each of its points, as far as it lies in the core.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::time::Duration;

use link_core::{
    Admission, AdmissionConfig, Admitted, CloseReason, ConnectionId, GiveUp, Misuse, Next, Overload,
    Reconnect, ReconnectPolicy, Refusal, Role, Status, Violation,
};
use support::*;

// --- 1 -------------------------------------------------------------------------------------------------------

/// What comes of an `authenticate` on both sides, the window being as wide as can be.
fn judged_without_a_window(json: &str) -> [Option<CloseReason>; 2] {
    let mut config = server_config();
    config.auth_window = Duration::MAX;
    let mut server = Peer::server(config);
    server.hears(json);
    assert_eq!(server.tickets.is_empty(), server.connection.is_closed(), "{json}");
    let mut config = client_config();
    config.auth_window = Duration::MAX;
    let mut client = Peer::client(config);
    client.hears(json);
    assert_eq!(client.connection.is_authenticated(), !client.connection.is_closed(), "{json}");
    [server.ending().cloned(), client.ending().cloned()]
}

#[test]
fn stricter_01_a_timestamp_must_be_a_json_integer() {
    const MALFORMED: Option<Violation> = Some(Violation::MalformedProof);
    const NOT_JSON: Option<Violation> = Some(Violation::NotJson);
    for (written, signed, expected) in [
        ("1795372174071", "1795372174071", None),
        ("0", "0", None),
        ("9007199254740991", "9007199254740991", None),
        // JSON, but no integer from 0 to 2^53-1.
        ("1.7e12", "1700000000000", MALFORMED),
        ("1.795372174071e12", "1795372174071", MALFORMED),
        ("1795372174071e0", "1795372174071", MALFORMED),
        ("1795372174071E+0", "1795372174071", MALFORMED),
        ("1700000000000.0", "1700000000000", MALFORMED),
        ("1700000000000.5", "1700000000000.5", MALFORMED),
        (r#""1795372174071""#, "1795372174071", MALFORMED),
        (r#""any text that a wallet ever signed""#, "any text that a wallet ever signed", MALFORMED),
        (r#""""#, "", MALFORMED),
        (r#""NaN""#, "NaN", MALFORMED),
        ("[1795372174071]", "1795372174071", MALFORMED),
        (r#"["1795372174071"]"#, "1795372174071", MALFORMED),
        ("[]", "", MALFORMED),
        ("{}", "[object Object]", MALFORMED),
        (r#"{"toString":1}"#, "1", MALFORMED),
        (r#"{"$serde_json::private::Number":"1795372174071"}"#, "1795372174071", MALFORMED),
        (r#"{"$serde_json::private::RawValue":"1795372174071"}"#, "1795372174071", MALFORMED),
        ("null", "null", MALFORMED),
        ("true", "true", MALFORMED),
        ("-1", "-1", MALFORMED),
        ("-0", "0", MALFORMED),
        ("0.0", "0", MALFORMED),
        ("0e0", "0", MALFORMED),
        ("9007199254740992", "9007199254740992", MALFORMED),
        ("18446744073709551615", "18446744073709551615", MALFORMED),
        ("18446744073709551616", "18446744073709552000", MALFORMED),
        ("1e400", "Infinity", MALFORMED),
        ("-1e400", "-Infinity", MALFORMED),
        // A duplicate key, whichever of the two is the good one.
        (r#"1795372174071,"timestamp":1795372174071"#, "1795372174071", MALFORMED),
        (r#"1,"timestamp":1795372174071"#, "1795372174071", MALFORMED),
        (r#"1795372174071,"\u0074imestamp":1"#, "1795372174071", MALFORMED),
        (r#"1795372174071,"address":"x""#, "1795372174071", MALFORMED),
        (r#"1795372174071,"signature":"x""#, "1795372174071", MALFORMED),
        (r#"1795372174071,"type":"authenticate""#, "1795372174071", MALFORMED),
        // Not even JSON.
        ("01795372174071", "1795372174071", NOT_JSON),
        ("+1795372174071", "1795372174071", NOT_JSON),
        ("0x1a2", "418", NOT_JSON),
        ("1795372174071.", "1795372174071", NOT_JSON),
        ("1_795", "1795", NOT_JSON),
        ("NaN", "NaN", NOT_JSON),
        ("Infinity", "Infinity", NOT_JSON),
        ("", "", NOT_JSON),
    ] {
        let json = authenticate_as(client_wallet(), written, signed);
        let json_of_server = authenticate_as(server_wallet(), written, signed);
        let expected = expected.map(CloseReason::Violation);
        assert_eq!(judged_without_a_window(&json)[0], expected, "a server, of {written}");
        assert_eq!(judged_without_a_window(&json_of_server)[1], expected, "a client, of {written}");
    }
    let missing = authenticate(client_wallet(), WALL).replace(&format!(r#""timestamp":{WALL},"#), "");
    assert_eq!(judged_without_a_window(&missing)[0], Some(Violation::MalformedProof.into()));
}

// --- 2 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_02_no_frame_brings_a_peer_down() {
    let (address, signature) =
        (client_wallet().address(), client_wallet().sign(&WALL.to_string()).to_string());
    let with = |signature: &str| {
        format!(
            r#"{{"type":"authenticate","address":"{address}","timestamp":{WALL},"signature":{signature}}}"#
        )
    };
    let quoted = |signature: &str| with(&format!("\"{signature}\""));
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let (zero, one) = (format!("{:064}", 0), format!("{:064}", 1));
    let frames = [
        ("null".into(), Violation::UnexpectedMessage),
        ("[null]".into(), Violation::UnexpectedMessage),
        (with("null"), Violation::MalformedProof),
        (with("0"), Violation::MalformedProof),
        (with("{}"), Violation::MalformedProof),
        (with(r#""\ud800""#), Violation::MalformedProof),
        (quoted("").replace(r#","signature":"""#, ""), Violation::MalformedProof),
        (quoted(""), Violation::BadSignature),
        (quoted("00"), Violation::BadSignature),
        (quoted(&signature[..128]), Violation::BadSignature),
        (quoted(&signature[..129]), Violation::BadSignature),
        (quoted(&format!("zz{}", &signature[2..])), Violation::BadSignature),
        (quoted(&format!("é{}", &signature[2..])), Violation::BadSignature),
        (quoted(&format!("éé{}", &signature[2..])), Violation::BadSignature),
        (quoted(&" ".repeat(130)), Violation::BadSignature),
        (quoted(&"0".repeat(130)), Violation::BadSignature),
        (quoted(&"f".repeat(130)), Violation::BadSignature),
        (quoted(&format!("{zero}{one}00")), Violation::BadSignature),
        (quoted(&format!("{one}{zero}00")), Violation::BadSignature),
        (quoted(&format!("{order}{one}00")), Violation::BadSignature),
        (quoted(&format!("{one}{order}00")), Violation::BadSignature),
        (quoted(&format!("{one}{one}00")), Violation::BadSignature),
        // No point of the curve has this x coordinate.
        (quoted(&format!("{:064}{one}00", 5)), Violation::BadSignature),
        (quoted(&format!("{}02", &signature[..128])), Violation::BadSignature),
        (quoted(&format!("{}03", &signature[..128])), Violation::BadSignature),
        (quoted(&format!("{}1b", &signature[..128])), Violation::BadSignature),
        (quoted(&format!("{}ff", &signature[..128])), Violation::BadSignature),
    ];
    for (json, violation) in frames {
        let mut server = Peer::server(server_config());
        server.hears(json.clone());
        assert_eq!(server.ending(), Some(&violation.into()), "{json}");
        let mut client = Peer::client(client_config());
        client.hears(json.clone());
        assert_eq!(client.ending(), Some(&violation.into()), "{json}");
        // Once they know each other, none of these does anything at all to the line.
        for mut live in [Peer::authenticated_server(), Peer::authenticated_client()] {
            live.hears(json.clone());
            assert!(live.connection.is_authenticated(), "{json}");
        }
    }
    // Reserved bits are found below, and end this one connection.
    let mut server = Peer::authenticated_server();
    server.connection.handle_violation(Violation::WebSocket, server.now);
    server.drain();
    assert_eq!(server.ending(), Some(&Violation::WebSocket.into()));
}

// --- 3 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_03_the_same_authenticate_works_once_and_evicts_nobody() {
    let mut owner = Pair::authenticated();
    let mut replay = owner.connect_again();
    replay.drive();
    assert_eq!(replay.admitted, Some(Err(Refusal::Replayed)));
    assert_eq!(replay.server.ending(), Some(&Refusal::Replayed.into()));
    owner.advance(secs(10));
    assert_eq!((owner.client.ending(), owner.server.ending()), (None, None));

    // A moment later the same wallet may come again, with a proof of its own.
    let mut newer = owner.connect_again();
    newer.drive();
    assert_eq!(newer.admitted, Some(Ok(Admitted::Replaces(owner.id))));
}

#[test]
fn stricter_03_a_proof_is_known_by_its_address_and_time_for_as_long_as_it_could_be_accepted() {
    // Signed as far ahead as can be: it could be accepted for twice the window.
    let json = authenticate(client_wallet(), WALL + 5_000);
    let mut admission = Admission::new(AdmissionConfig::default());
    for (after, expected) in [
        (0, Some(Ok(()))),
        (1, Some(Err(Refusal::Replayed))),
        (5_000, Some(Err(Refusal::Replayed))),
        (10_000, Some(Err(Refusal::Replayed))),
        // From here on the connection itself finds it stale.
        (10_001, None),
    ] {
        let mut server = Peer::server(server_config());
        server.wall_clock_steps(after);
        server.hears(json.clone());
        let screened = server.tickets.first().map(|ticket| admission.screen(ticket.proof(), server.now.wall));
        assert_eq!(screened, expected, "{after} ms later");
    }
}

// --- 4 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_04_a_client_takes_no_stale_answer() {
    for offset in [-86_400_000, -5_001, 5_001] {
        let mut client = Peer::client(client_config());
        client.hears(authenticate(server_wallet(), WALL.saturating_add_signed(offset)));
        assert_eq!(client.ending(), Some(&Violation::StaleProof.into()), "{offset}");
    }
}

#[test]
fn stricter_04_a_client_talks_only_to_a_server_that_it_expects() {
    let (server, other, own) = (server_wallet().address(), stranger().address(), client_wallet().address());
    let unexpected = |address| Some(CloseReason::Violation(Violation::UnexpectedServer(address)));
    let reflected = Some(CloseReason::Violation(Violation::Reflected));
    for (expected, answers, ending) in [
        (vec![], server_wallet(), None),
        (vec![server], server_wallet(), None),
        (vec![other, server], server_wallet(), None),
        (vec![other], server_wallet(), unexpected(server)),
        (vec![server], stranger(), unexpected(other)),
        // Its own address is an echo of its own proof, unless exactly that was expected.
        (vec![], client_wallet(), reflected.clone()),
        (vec![server], client_wallet(), reflected.clone()),
        (vec![server, own], client_wallet(), None),
        (vec![own], server_wallet(), unexpected(server)),
    ] {
        let mut config = client_config();
        config.expected_servers = expected.clone();
        let mut client = Peer::client(config);
        client.hears(authenticate(answers, WALL));
        assert_eq!(client.ending().cloned(), ending, "{answers:?} where {expected:?} is expected");
        assert_eq!(client.connection.peer(), ending.is_none().then(|| answers.address()));
    }
}

#[test]
fn stricter_04_the_client_s_own_authenticate_sent_back_is_refused() {
    let mut client = Peer::client(client_config());
    let own = client.said()[0].to_owned();
    client.took();
    client.hears(own);
    client.assert_ended(&[
        Did::Sent(close_frame(1008, "protocol violation")),
        Did::ClosedTransport,
        Did::Closed(Violation::Reflected.into()),
    ]);
}

#[test]
fn stricter_04_nothing_of_the_application_passes_before_the_server_is_verified() {
    let mut client = Peer::client(client_config());
    assert_eq!(client.sends(r#"{"type":"secret"}"#), Err(Misuse::NotAuthenticated));
    client.hears(r#"{"type":"order"}"#);
    assert_eq!(client.heard(), Vec::<&str>::new());
    assert!(client.connection.is_closed());
}

#[test]
fn stricter_04_a_second_authenticate_never_changes_an_identity() {
    let mut client = Peer::authenticated_client();
    client.hears(authenticate(stranger(), WALL));
    assert_eq!((client.did.len(), client.connection.peer()), (0, Some(server_wallet().address())));
    let mut server = Peer::authenticated_server();
    server.hears(authenticate(stranger(), WALL));
    assert_eq!((server.did.len(), server.connection.peer()), (0, Some(client_wallet().address())));
}

// --- 5 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_05_checks_come_in_their_order_and_the_application_s_is_the_last() {
    let (address, old) = (client_wallet().address(), WALL - 60_000);
    let bad = "00".repeat(65);
    let all_wrong = format!(r#"{{"type":"authenticate","address":7,"timestamp":{old},"signature":"{bad}"}}"#);
    let old_and_forged =
        format!(r#"{{"type":"authenticate","address":"{address}","timestamp":{old},"signature":"{bad}"}}"#);
    let forged =
        format!(r#"{{"type":"authenticate","address":"{address}","timestamp":{WALL},"signature":"{bad}"}}"#);
    for (json, violation) in [
        (all_wrong, Violation::MalformedProof),
        (old_and_forged, Violation::StaleProof),
        (forged, Violation::BadSignature),
    ] {
        let mut server = Peer::server(server_config());
        server.hears(json);
        assert_eq!(server.ending(), Some(&violation.into()));
        assert!(server.tickets.is_empty(), "nobody is asked about an address that nobody proved");
    }
    // The whitelist before the application: its yes does not help.
    let mut config = AdmissionConfig::default();
    config.whitelist = Some([stranger().address()].into());
    let mut world =
        Pair::of(Peer::client(client_config()), Peer::server(server_config()), House::new(config));
    world.drive();
    assert_eq!(world.server.ending(), Some(&Refusal::NotWhitelisted.into()));
}

#[test]
fn stricter_05_the_application_is_asked_at_most_once_a_connection_and_a_late_answer_is_ignored() {
    let mut server = Peer::asked(server_config());
    server.hears(authenticate(stranger(), WALL));
    assert_eq!(server.tickets.len(), 1);
    let before = server.did.clone();
    assert_eq!(server.decides(Ok(())), Err(Misuse::LateTicket));
    assert_eq!(server.did, before);

    let mut live = Peer::authenticated_server();
    live.hears(authenticate(client_wallet(), WALL + 1));
    live.hears(authenticate(stranger(), WALL + 1));
    assert!(live.tickets.is_empty());
}

// --- 6 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_06_a_socket_that_timed_out_cannot_log_in_any_more() {
    let mut server = Peer::server(server_config());
    server.waits(secs(6));
    let before = server.took();
    assert!(matches!(before.last(), Some(Did::Closed(CloseReason::AuthenticationTimeout(_)))));
    server.hears(authenticate(client_wallet(), server.wall()));
    assert_eq!((server.did.len(), server.tickets.len()), (0, 0));
}

#[test]
fn stricter_06_a_replaced_connection_delivers_nothing_and_its_end_does_not_touch_its_successor() {
    let mut first = Pair::authenticated();
    first.advance(millis(1));
    let mut second = first.connect_again();
    second.drive();
    assert_eq!(second.admitted, Some(Ok(Admitted::Replaces(first.id))));
    first.server.closes(CloseReason::Replaced);

    // What was under way, and what comes of somebody who does not listen.
    first.client.sends(r#"{"type":"late"}"#).unwrap();
    first.drive();
    first.server.hears(r#"{"type":"later"}"#);
    assert_eq!(first.server.heard(), Vec::<&str>::new());
    assert_eq!(first.client.ending(), Some(&CloseReason::Replaced));

    second.house.admission.borrow_mut().release(first.id);
    let holder = second.house.admission.borrow().holder(&client_wallet().address());
    assert_eq!(holder, Some(second.id));
    second.client.sends(r#"{"type":"here"}"#).unwrap();
    second.advance(secs(10));
    assert_eq!(second.server.heard(), [r#"{"type":"here"}"#]);
    assert_eq!(second.server.ending(), None);
}

#[test]
fn stricter_06_nothing_counts_after_any_ending() {
    for reason in
        [CloseReason::Local, CloseReason::ShuttingDown, CloseReason::SlowPeer, CloseReason::Replaced]
    {
        for mut peer in [
            Peer::server(server_config()),
            Peer::asked(server_config()),
            Peer::client(client_config()),
            Peer::authenticated_server(),
            Peer::authenticated_client(),
        ] {
            peer.closes(reason.clone());
            let did = peer.did.clone();
            peer.assert_ended(&did);
        }
    }
}

// --- 7 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_07_messages_are_limited_and_more_so_before_authentication() {
    let json = |size: usize| format!(r#"{{"type":"x","p":"{}"}}"#, "p".repeat(size - 19));
    let mut server = Peer::server(server_config());
    server.hears(json(4_097));
    assert_eq!(server.ending(), Some(&Violation::MessageTooLarge { limit: 4_096 }.into()));

    let mut live = Peer::authenticated_server();
    live.hears(json(1 << 20));
    assert_eq!((live.heard().len(), live.ending()), (1, None));
    live.hears(json((1 << 20) + 1));
    assert_eq!(live.ending(), Some(&Violation::MessageTooLarge { limit: 1 << 20 }.into()));
}

#[test]
fn stricter_07_unauthenticated_connections_are_limited_in_all_and_per_ip_address() {
    let config = AdmissionConfig::default();
    let (all, per_ip) = (config.max_unauthenticated, config.max_unauthenticated_per_ip);
    let mut admission = Admission::new(config);
    let mut next = 0;
    let mut arrive = |admission: &mut Admission, ip: [u8; 4]| {
        next += 1;
        admission.arrive(ConnectionId::new(next), Some(ip.into()))
    };
    for _ in 0..per_ip {
        assert_eq!(arrive(&mut admission, [192, 0, 2, 1]), Ok(()));
    }
    assert_eq!(arrive(&mut admission, [192, 0, 2, 1]), Err(Overload::UnauthenticatedFromIp));
    for n in per_ip..all {
        assert_eq!(arrive(&mut admission, [10, 0, (n / 256) as u8, n as u8]), Ok(()));
    }
    assert_eq!(arrive(&mut admission, [192, 0, 2, 2]), Err(Overload::Unauthenticated));
    assert_eq!(admission.unauthenticated(), all);
}

#[test]
fn stricter_07_a_peer_that_does_not_read_is_dropped_with_a_reason() {
    let mut server = Peer::authenticated_server();
    server.closes(CloseReason::SlowPeer);
    server.assert_ended(&[
        Did::Sent(close_frame(1008, "reads too slowly")),
        Did::ClosedTransport,
        Did::Closed(CloseReason::SlowPeer),
    ]);
}

// --- 8 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_08_a_refusal_is_not_retried_and_an_open_socket_does_not_reset_the_count() {
    for status in [Status::Unauthorized, Status::Forbidden, Status::Conflict] {
        let mut client = Peer::client(client_config());
        client.hears(status.text());
        let mut reconnect = Reconnect::new(ReconnectPolicy::default(), 1);
        reconnect.dialled();
        reconnect.ended(client.ending().unwrap(), client.now);
        assert_eq!(reconnect.next(client.now), Next::GiveUp(GiveUp::Final), "{status}");
    }
    let mut replaced = Peer::authenticated_client();
    replaced.hears(Status::Conflict.quoted_text());
    let mut reconnect = Reconnect::new(ReconnectPolicy::default(), 1);
    reconnect.dialled();
    reconnect.authenticated(start());
    replaced.clocks_move(secs(3600));
    reconnect.ended(replaced.ending().unwrap(), replaced.now);
    assert_eq!(reconnect.next(replaced.now), Next::GiveUp(GiveUp::Final), "being replaced");

    let mut reconnect = Reconnect::new(ReconnectPolicy::default(), 1);
    let mut now = start();
    let mut dials = 0;
    while !matches!(reconnect.next(now), Next::GiveUp(_)) {
        reconnect.dialled();
        dials += 1;
        assert!(dials < 100, "it dials for ever");
        reconnect.ended(&CloseReason::Lost, now);
        now.mono = now.mono.after(secs(30));
    }
    assert_eq!(dials, 6, "once, and five attempts");
}

#[test]
fn stricter_08_disconnecting_ends_everything_in_every_phase() {
    for phase in 0..4 {
        let mut reconnect = Reconnect::new(ReconnectPolicy::default(), 1);
        let now = start();
        if phase > 0 {
            reconnect.dialled();
        }
        if phase > 1 {
            reconnect.authenticated(now);
        }
        if phase > 2 {
            reconnect.ended(&CloseReason::Lost, now);
        }
        reconnect.disconnect();
        assert_eq!(reconnect.next(now), Next::GiveUp(GiveUp::Disconnected), "phase {phase}");
    }
}

// --- 9 -------------------------------------------------------------------------------------------------------

#[test]
fn stricter_09_a_client_leaves_a_silent_server_and_dials_again() {
    let mut client = Peer::authenticated_client();
    let mut reconnect = Reconnect::new(ReconnectPolicy::default(), 1);
    reconnect.dialled();
    reconnect.authenticated(client.now);
    client.waits(secs(5));
    assert_eq!(client.ending(), Some(&CloseReason::Idle(secs(5))));
    reconnect.ended(client.ending().unwrap(), client.now);
    assert!(matches!(reconnect.next(client.now), Next::Dial | Next::WaitUntil(_)));
}

// --- 10 ------------------------------------------------------------------------------------------------------

#[test]
fn stricter_10_a_closing_server_gives_each_connection_a_reason() {
    for mut server in
        [Peer::server(server_config()), Peer::asked(server_config()), Peer::authenticated_server()]
    {
        server.closes(CloseReason::ShuttingDown);
        server.assert_ended(&[
            Did::Sent(close_frame(1001, "shutting down")),
            Did::ClosedTransport,
            Did::Closed(CloseReason::ShuttingDown),
        ]);
    }
    let mut world = Pair::authenticated();
    world.server.closes(CloseReason::ShuttingDown);
    world.drive();
    assert_eq!(world.client.ending(), Some(&CloseReason::PeerClosed { code: Some(1001) }));
}

// --- 11 ------------------------------------------------------------------------------------------------------

#[test]
fn stricter_11_upper_case_signatures_are_taken_and_high_s_and_longer_ones_are_not() {
    let signature = server_wallet().sign(&WALL.to_string()).to_string();
    let high = high_s(&signature);
    assert_eq!(high_s(&high), signature);
    for (spelling, taken) in [
        (signature.clone(), true),
        (signature.to_uppercase(), true),
        (high.clone(), false),
        (high.to_uppercase(), false),
        (format!("{signature}0"), false),
        (format!("{signature}00"), false),
        (format!("{signature} "), false),
        (format!(" {signature}"), false),
        (format!("0x{signature}"), false),
    ] {
        let json = authenticate(server_wallet(), WALL).replace(&signature, &spelling);
        let ending = (!taken).then_some(CloseReason::Violation(Violation::BadSignature));
        for role in [Role::Server, Role::Client] {
            let config = if role == Role::Server { server_config() } else { client_config() };
            let mut peer = Peer::new(role, config);
            peer.hears(json.clone());
            assert_eq!(peer.ending().cloned(), ending, "{role:?}: {spelling}");
        }
    }
}

#[test]
fn stricter_11_an_address_has_one_spelling_on_the_wire() {
    let address = client_wallet().address();
    let (digits, json) = (&address.as_str()[3..], authenticate(client_wallet(), WALL));
    for other in [
        format!("xe_{}", digits.to_lowercase()),
        format!("xe_{}", digits.to_uppercase()),
        format!("XE_{digits}"),
        format!("{address} "),
        digits.to_owned(),
        String::new(),
    ] {
        let mut server = Peer::server(server_config());
        server.hears(json.replace(address.as_str(), &other));
        assert_eq!(server.ending(), Some(&Violation::BadSignature.into()), "{other:?}");
    }
}
