//! The guards against silence: the authentication deadline, and both sides' watch over an idle peer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::time::Duration;

use link_core::{CloseReason, Config, Frame, Role, Status};
use support::*;

/// Nothing but the idle guard has a deadline here.
fn quiet(mut config: Config) -> Config {
    config.heartbeat_interval = Duration::ZERO;
    config
}

fn quiet_server() -> Peer {
    Peer::authenticated(Role::Server, quiet(server_config()))
}

fn quiet_client() -> Peer {
    Peer::authenticated(Role::Client, quiet(client_config()))
}

/// A quiet connection of either role whose idle deadline is not rounded.
fn exact(role: Role) -> Peer {
    let mut config = quiet(if role == Role::Server { server_config() } else { client_config() });
    config.idle_check_interval = Duration::ZERO;
    Peer::authenticated(role, config)
}

const ROLES: [Role; 2] = [Role::Server, Role::Client];
const IDLE: CloseReason = CloseReason::Idle(Duration::from_secs(5));

#[test]
fn a_silent_client_is_dropped_after_the_time_out_rounded_up_to_the_check_interval() {
    let mut server = quiet_server();
    // Since 7.3 s, so due at 12.3 s, and looked at in the 13th second.
    assert_eq!(server.due_in(), Some(millis(5_700)));
    server.sleeps(millis(5_699));
    assert_eq!(server.ending(), None);
    server.sleeps(millis(1));
    assert_eq!(server.ending(), Some(&IDLE));
}

#[test]
fn a_silent_server_is_left_after_the_time_out_exactly() {
    let mut client = quiet_client();
    assert_eq!(client.due_in(), Some(secs(5)));
    client.sleeps(millis(4_999));
    assert_eq!(client.ending(), None);
    client.sleeps(millis(1));
    let frame = close_frame(4408, "408 Request Timeout");
    client.assert_ended(&[Did::Sent(frame), Did::ClosedTransport, Did::Closed(IDLE)]);
}

#[test]
fn a_deadline_is_rounded_up_to_whole_check_intervals_of_the_clock() {
    for (timeout, step, due_in) in [
        (secs(5), secs(0), millis(5_000)),
        (secs(5), secs(1), millis(5_700)),
        (secs(5), millis(100), millis(5_000)),
        (secs(5), millis(250), millis(5_200)),
        (secs(5), secs(10), millis(12_700)),
        (millis(1), secs(1), millis(700)),
        (millis(700), secs(1), millis(700)),
        (millis(701), secs(1), millis(1_700)),
    ] {
        for role in ROLES {
            let mut config = quiet(if role == Role::Server { server_config() } else { client_config() });
            (config.idle_timeout, config.idle_check_interval) = (timeout, step);
            let peer = Peer::authenticated(role, config);
            assert_eq!(peer.due_in(), Some(due_in), "idle: {role:?}, {timeout:?} by {step:?}");

            let mut config = if role == Role::Server { server_config() } else { client_config() };
            (config.auth_timeout, config.auth_check_interval) = (timeout, step);
            let peer = Peer::new(role, config);
            assert_eq!(peer.due_in(), Some(due_in), "authentication: {role:?}, {timeout:?} by {step:?}");
        }
    }
}

#[test]
fn connections_of_one_second_share_their_wake_up() {
    let mut wake_ups: Vec<_> = (0..10)
        .map(|n| {
            let mut now = start();
            // From 7.3 to 7.93 s.
            now.mono = now.mono.after(millis(n * 70));
            let server = Peer::started(Role::Server, server_config(), now);
            server.connection.poll_timeout()
        })
        .collect();
    wake_ups.dedup();
    assert_eq!(wake_ups, [Some(at(millis(5_700)))]);
}

#[test]
fn a_zero_time_out_switches_the_guard_off() {
    for role in ROLES {
        let mut config = quiet(if role == Role::Server { server_config() } else { client_config() });
        config.idle_timeout = Duration::ZERO;
        let mut peer = Peer::authenticated(role, config);
        assert_eq!(peer.due_in(), None, "{role:?}");
        peer.sleeps(secs(1_000_000));
        assert_eq!(peer.did, [], "{role:?}");
    }
    let mut config = server_config();
    config.auth_timeout = Duration::ZERO;
    let mut server = Peer::server(config);
    assert_eq!(server.due_in(), None);
    server.sleeps(secs(1_000_000));
    assert_eq!(server.did, []);
}

#[test]
fn every_frame_counts_as_a_sign_of_life() {
    let frames: [Frame; 9] = [
        text(r#"{"type":"hello"}"#),
        text("null"),
        text(heartbeat(WALL)),
        text("not json"),
        text(authenticate(stranger(), WALL)),
        binary(r#"{"type":"hello"}"#),
        binary([0xff]),
        Frame::Ping("".into()),
        Frame::Pong("unasked".into()),
    ];
    for role in ROLES {
        for frame in &frames {
            let mut peer = exact(role);
            for _ in 0..3 {
                peer.sleeps(millis(4_999));
                peer.receives(frame.clone());
                assert_eq!(peer.due_in(), Some(secs(5)), "{role:?}: {frame:?}");
            }
            peer.sleeps(millis(4_999));
            assert_eq!(peer.ending(), None, "{role:?}: {frame:?}");
            peer.sleeps(millis(1));
            assert_eq!(peer.ending(), Some(&IDLE), "{role:?}: {frame:?}");
        }
    }
}

#[test]
fn what_this_side_sends_is_no_sign_of_the_peer_s_life() {
    for role in ROLES {
        let config = if role == Role::Server { server_config() } else { client_config() };
        let mut peer = Peer::authenticated(role, config);
        for _ in 0..12 {
            peer.waits(millis(500));
            let _ = peer.sends(r#"{"type":"hello"}"#);
        }
        assert_eq!(peer.ending(), Some(&IDLE), "{role:?}: heartbeats and messages of our own do not count");
    }
}

#[test]
fn nothing_but_the_proof_stops_the_authentication_deadline() {
    let mut server = Peer::server(server_config());
    for _ in 0..5 {
        server.waits(secs(1));
        server.receives(Frame::Ping("".into()));
        server.receives(Frame::Pong("".into()));
    }
    assert_eq!(server.due_in(), Some(millis(700)));
    server.waits(millis(700));
    assert_eq!(server.ending(), Some(&CloseReason::AuthenticationTimeout(secs(5))));
}

#[test]
fn when_the_line_is_dead_both_sides_notice() {
    let mut world = Pair::authenticated();
    world.advance(secs(3));
    world.latency = secs(3600);
    world.advance(secs(7));
    assert_eq!((world.client.ending(), world.server.ending()), (Some(&IDLE), Some(&IDLE)));
}

#[test]
fn an_idle_client_learns_why_it_was_dropped() {
    let mut world = Pair::with(quiet(client_config()), quiet(server_config()));
    world.drive();
    // The client does not judge the server here.
    world.client.connection.handle_reads_paused(world.client.now);
    world.advance(secs(6));
    assert_eq!(world.server.ending(), Some(&IDLE));
    assert_eq!(world.client.ending(), Some(&CloseReason::RefusedByServer(Status::RequestTimeout)));
}

#[test]
fn while_reads_are_paused_nobody_is_judged_idle() {
    for role in ROLES {
        let mut peer = exact(role);
        peer.waits(secs(4));
        peer.connection.handle_reads_paused(peer.now);
        assert_eq!(peer.due_in(), None, "{role:?}");
        peer.sleeps(secs(1000));
        assert_eq!(peer.did, [], "{role:?}");

        peer.connection.handle_reads_resumed(peer.now);
        assert_eq!(peer.due_in(), Some(secs(5)), "{role:?}: the whole time-out from here");
        peer.sleeps(secs(5));
        assert_eq!(peer.ending(), Some(&IDLE), "{role:?}");
    }
}

#[test]
fn a_frame_that_was_under_way_does_not_end_a_pause() {
    for role in ROLES {
        let mut peer = exact(role);
        peer.connection.handle_reads_paused(peer.now);
        peer.receives(Frame::Ping("".into()));
        assert_eq!(peer.due_in(), None, "{role:?}");
        peer.waits(secs(60));
        assert_eq!(peer.did, [], "{role:?}");
    }
}

#[test]
fn a_pause_that_began_before_authentication_holds_after_it() {
    let mut server = Peer::asked(quiet(server_config()));
    server.connection.handle_reads_paused(server.now);
    server.decides(Ok(())).unwrap();
    let mut client = Peer::client(quiet(client_config()));
    client.connection.handle_reads_paused(client.now);
    client.hears(authenticate(server_wallet(), WALL));
    for mut peer in [server, client] {
        assert_eq!(peer.due_in(), None);
        peer.waits(secs(60));
        assert_eq!(peer.ending(), None);
        peer.connection.handle_reads_resumed(peer.now);
        peer.waits(secs(6));
        assert_eq!(peer.ending(), Some(&IDLE));
    }
    // And one that was over by then does not.
    let mut server = Peer::asked(quiet(server_config()));
    server.connection.handle_reads_paused(server.now);
    server.connection.handle_reads_resumed(server.now);
    server.decides(Ok(())).unwrap();
    assert_eq!(server.due_in(), Some(millis(5_700)));
}

#[test]
fn heartbeats_go_on_while_reads_are_paused() {
    let mut server = Peer::authenticated_server();
    server.connection.handle_reads_paused(server.now);
    server.waits(secs(20));
    assert_eq!((server.pings().len(), server.ending()), (20, None));
}

#[test]
fn resuming_what_was_not_paused_only_gives_the_peer_its_time_again() {
    let mut client = quiet_client();
    client.waits(secs(3));
    client.connection.handle_reads_resumed(client.now);
    assert_eq!(client.due_in(), Some(secs(5)));
}

#[test]
fn a_caller_that_slept_longer_than_the_time_out_does_not_blame_the_peer() {
    for role in ROLES {
        let mut peer = exact(role);
        // Due after 5 s; this call comes a whole time-out and a millisecond later than that.
        peer.sleeps(millis(10_001));
        assert_eq!(peer.did, [], "{role:?}");
        assert_eq!(peer.due_in(), Some(secs(5)), "{role:?}: its time-out once more");
        peer.sleeps(secs(5));
        assert_eq!(peer.ending(), Some(&IDLE), "{role:?}: and no more than once");
    }
}

#[test]
fn a_caller_that_is_late_by_no_more_than_the_time_out_does_judge() {
    for role in ROLES {
        for late in [0, 1, 4_999, 5_000] {
            let mut peer = exact(role);
            peer.sleeps(millis(5_000 + late));
            assert_eq!(peer.ending(), Some(&IDLE), "{role:?}, {late} ms late");
        }
    }
}

#[test]
fn a_frame_that_a_late_caller_feeds_first_saves_the_peer() {
    for role in ROLES {
        let mut peer = exact(role);
        peer.clocks_move(millis(7_000));
        peer.receives(Frame::Pong("".into()));
        peer.times_out();
        assert_eq!((peer.did.len(), peer.due_in()), (0, Some(secs(5))), "{role:?}");
    }
}

#[test]
fn a_sleeping_caller_is_no_excuse_before_authentication() {
    let mut server = Peer::server(server_config());
    server.sleeps(secs(3600));
    assert_eq!(server.ending(), Some(&CloseReason::AuthenticationTimeout(secs(5))));
}

#[test]
fn a_clock_that_was_read_in_another_order_brings_no_deadline_forward() {
    let mut client = quiet_client();
    client.waits(secs(3));
    client.receives(Frame::Pong("".into()));
    let mut earlier = client.now;
    earlier.mono = at(secs(1));
    client.connection.handle_frame(Frame::Pong("".into()), earlier);
    client.connection.handle_timeout(earlier);
    client.drain();
    assert_eq!((client.did.len(), client.due_in()), (0, Some(secs(5))));
}

#[test]
fn the_idle_time_counts_from_authentication_and_not_from_the_socket() {
    let mut config = quiet(server_config());
    config.idle_check_interval = Duration::ZERO;
    let mut server = Peer::asked(config);
    server.waits(secs(4));
    server.decides(Ok(())).unwrap();
    assert_eq!(server.due_in(), Some(secs(5)));
}
