//! Decisions: after a proof the server asks once, waits, and takes one answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use link_core::{
    Admission, AdmissionConfig, CloseReason, Connection, ConnectionId, Event, Frame, Misuse, Output, Proof,
    Refusal, Ticket, UnixMillis, Violation,
};
use support::*;

const CUT: CloseReason = CloseReason::Refused(Refusal::Denied);

/// The ticket of another connection than the one under test.
fn foreign() -> Ticket {
    Peer::asked(server_config()).tickets.remove(0)
}

#[test]
fn a_server_asks_once_and_waits() {
    let mut server = Peer::server(server_config());
    server.hears(authenticate(client_wallet(), WALL));
    server.waits(secs(4));
    assert_eq!(server.did, [Did::Asked(client_wallet().address())]);
    assert!(!server.connection.is_authenticated() && !server.connection.is_closed());
}

#[test]
fn a_decision_is_taken_even_before_the_question_s_neighbours_are_drained() {
    let mut server = Peer::server(server_config());
    server.connection.handle_frame(text(authenticate(client_wallet(), WALL)), server.now);
    server.connection.handle_frame(Frame::Ping("".into()), server.now);
    let Some(Output::Event(Event::AdmissionRequested { ticket })) = server.connection.poll_output() else {
        panic!("no question");
    };
    assert_eq!(server.connection.decide(ticket, Ok(()), server.now), Ok(()));
    assert!(server.connection.is_authenticated());
}

#[test]
fn a_question_that_nobody_has_drained_yet_is_not_taken_for_a_dropped_one() {
    let mut server = Peer::server(server_config());
    server.connection.handle_frame(text(authenticate(client_wallet(), WALL)), server.now);
    for _ in 0..3 {
        server.connection.handle_timeout(server.now);
        server.connection.handle_frame(Frame::Ping("".into()), server.now);
    }
    server.drain();
    assert_eq!(server.decides(Ok(())), Ok(()));
}

#[test]
fn a_ticket_is_late_once_the_connection_has_ended() {
    type Ending = fn(&mut Peer);
    let endings: [Ending; 6] = [
        |server| server.waits(secs(6)),
        |server| server.loses_its_transport(),
        |server| server.receives(Frame::Close(None)),
        |server| server.closes(CloseReason::ShuttingDown),
        |server| server.hears("not json"),
        |server| server.connection.handle_violation(link_core::Violation::WebSocket, server.now),
    ];
    for ending in endings {
        for verdict in [Ok(()), Err(Refusal::AlreadyConnected)] {
            let mut server = Peer::asked(server_config());
            ending(&mut server);
            server.drain();
            assert!(server.connection.is_closed());
            let before = server.did.clone();
            assert_eq!(server.decides(verdict), Err(Misuse::LateTicket));
            assert_eq!(server.did, before, "a late answer is ignored");
            assert_eq!(server.connection.peer(), None);
        }
    }
}

#[test]
fn the_authentication_deadline_goes_on_while_the_application_thinks() {
    let mut server = Peer::server(server_config());
    server.waits(secs(3));
    server.hears(authenticate(client_wallet(), server.wall()));
    assert_eq!(server.due_in(), Some(millis(2_700)), "it counts from the socket, not from the proof");
    server.waits(millis(2_699));
    assert_eq!(server.ending(), None);
    server.waits(millis(1));
    assert_eq!(server.ending(), Some(&CloseReason::AuthenticationTimeout(secs(5))));
    assert_eq!(server.said(), ["HTTP/1.1 408 Request Timeout\r\n\r\n"]);
}

#[test]
fn a_ticket_of_another_connection_decides_nothing_here() {
    let mut server = Peer::asked(server_config());
    for verdict in [Ok(()), Err(Refusal::Denied)] {
        let result = server.connection.decide(foreign(), verdict, server.now);
        assert_eq!(result, Err(Misuse::ForeignTicket));
        server.drain();
        assert_eq!(server.did, []);
    }
    assert_eq!(server.decides(Ok(())), Ok(()), "its own still does");

    let mut silent = Peer::server(server_config());
    assert_eq!(silent.connection.decide(foreign(), Ok(()), silent.now), Err(Misuse::ForeignTicket));
    let mut client = Peer::client(client_config());
    assert_eq!(client.connection.decide(foreign(), Ok(()), client.now), Err(Misuse::ForeignTicket));
    for mut live in [Peer::authenticated_server(), Peer::authenticated_client()] {
        assert!(live.connection.decide(foreign(), Err(Refusal::Denied), live.now).is_err());
        live.drain();
        assert_eq!(live.did, []);
        assert!(live.connection.is_authenticated());
    }
    silent.drain();
    assert_eq!(silent.did, []);
}

#[test]
fn a_dropped_ticket_is_a_refusal_at_the_next_input_whatever_that_is() {
    type Input = fn(&mut Connection, link_core::Now);
    let inputs: [Input; 7] = [
        |connection, now| connection.handle_timeout(now),
        |connection, now| connection.handle_frame(Frame::Ping("".into()), now),
        |connection, now| connection.handle_frame(text(heartbeat(WALL)), now),
        |connection, now| connection.handle_frame(text(r#"{"type":"early"}"#), now),
        |connection, now| connection.handle_reads_paused(now),
        |connection, now| connection.close(CloseReason::ShuttingDown, now),
        |connection, now| connection.handle_transport_closed(now),
    ];
    for input in inputs {
        let mut server = Peer::asked(server_config());
        server.tickets.clear();
        server.drain();
        assert_eq!(server.did, [], "nothing happens without an input");
        input(&mut server.connection, server.now);
        server.drain();
        server.assert_ended(&[
            sent("HTTP/1.1 403 Forbidden\r\n\r\n"),
            Did::Sent(close_frame(4403, "403 Forbidden")),
            Did::ClosedTransport,
            Did::Closed(CUT),
        ]);
    }
}

#[test]
fn a_ticket_that_is_dropped_with_its_undrained_event_is_a_refusal_too() {
    let mut server = Peer::server(server_config());
    server.hears(authenticate(client_wallet(), WALL));
    drop(std::mem::take(&mut server.tickets));
    server.times_out();
    assert_eq!(server.ending(), Some(&CUT));
}

#[test]
fn a_second_proof_while_the_server_decides_is_not_asked_about() {
    for second in [client_wallet(), stranger()] {
        let mut server = Peer::asked(server_config());
        server.hears(authenticate(second, WALL));
        assert!(server.connection.is_closed());
        assert_eq!(server.tickets.len(), 1);
        assert_eq!(server.decides(Ok(())), Err(Misuse::LateTicket));
        assert_eq!(server.connection.peer(), None);
    }
}

#[test]
fn the_answer_is_about_the_address_that_was_proved() {
    let mut server = Peer::server(server_config());
    server.hears(authenticate(stranger(), WALL));
    server.decides(Ok(())).unwrap();
    assert_eq!(server.connection.peer(), Some(stranger().address()));
}

#[test]
fn a_decision_may_outlast_the_window_of_the_proof() {
    let mut config = server_config();
    config.auth_timeout = secs(60);
    let mut server = Peer::asked(config);
    server.waits(secs(30));
    assert_eq!(server.decides(Ok(())), Ok(()));
    assert!(server.connection.is_authenticated());
}

#[test]
fn the_whitelist_is_asked_before_the_memory_and_a_stranger_leaves_no_trace_in_it() {
    let mut config = AdmissionConfig::default();
    config.whitelist = Some([client_wallet().address()].into());
    let mut admission = Admission::new(config);
    let wall = UnixMillis::new(WALL).unwrap();
    let proof = |address| Proof { address, timestamp: wall };
    for _ in 0..2 {
        let refused = admission.screen(proof(stranger().address()), wall);
        assert_eq!(refused, Err(Refusal::NotWhitelisted), "and not `Replayed` the second time");
    }
    assert_eq!(admission.remembered_proofs(), 0);
    assert_eq!(admission.screen(proof(client_wallet().address()), wall), Ok(()));
    assert_eq!(admission.remembered_proofs(), 1);
}

#[test]
fn a_proof_is_used_up_even_when_the_application_says_no() {
    let mut world = Pair::new();
    world.application = Application::Says(Err(Refusal::Denied));
    world.drive();
    let mut again = world.connect_again();
    again.drive();
    assert_eq!(again.server.ending(), Some(&Refusal::Replayed.into()));
    assert_eq!(again.house.admission.borrow().connected(), 0);
    assert_eq!(again.id, ConnectionId::new(2));
}

#[test]
fn what_is_not_json_is_called_so_while_the_server_decides() {
    let endings: [(Frame, Violation); 4] = [
        (text("not json"), Violation::NotJson),
        (binary(b"\xff"), Violation::NotJson),
        (text(r#"{"type":"greeting"}"#), Violation::UnexpectedMessage),
        (text(authenticate(client_wallet(), WALL)), Violation::UnexpectedMessage),
    ];
    for (frame, violation) in endings {
        let mut server = Peer::asked(server_config());
        server.receives(frame.clone());
        assert_eq!(server.ending(), Some(&violation.into()), "{frame:?}");
    }
}
