//! Heartbeats: their pace, what they carry, and the round trip that only a ping's payload measures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::time::Duration;

use link_core::{Bytes, Config, Frame, Role};
use support::*;

fn without_idle_guard(mut config: Config) -> Config {
    config.idle_timeout = Duration::ZERO;
    config
}

fn pulsing_server() -> Peer {
    Peer::authenticated(Role::Server, without_idle_guard(server_config()))
}

fn pulsing_client() -> Peer {
    Peer::authenticated(Role::Client, without_idle_guard(client_config()))
}

fn round_trip(server: &mut Peer) -> Option<Duration> {
    server.took();
    server.connection.round_trip()
}

#[test]
fn a_server_sends_a_ping_and_a_heartbeat_with_its_time_each_interval() {
    let mut server = pulsing_server();
    assert_eq!(server.due_in(), Some(secs(1)));
    server.waits(millis(999));
    assert_eq!(server.did, []);
    for n in 1..=3 {
        server.waits(millis(if n == 1 { 1 } else { 1000 }));
        let [Did::Sent(Frame::Ping(_)), Did::Sent(Frame::Text(text))] = &server.took()[..] else {
            panic!("beat {n}")
        };
        assert_eq!(**text, heartbeat(WALL + n * 1000));
    }
}

#[test]
fn a_client_sends_pings_only() {
    let mut client = pulsing_client();
    client.waits(secs(3));
    assert_eq!(client.pings().len(), 3);
    assert_eq!(client.said(), Vec::<&str>::new());
}

#[test]
fn nothing_beats_before_authentication() {
    for mut peer in
        [Peer::server(server_config()), Peer::asked(server_config()), Peer::client(client_config())]
    {
        peer.took();
        peer.waits(millis(4_900));
        assert_eq!(peer.did, []);
    }
}

#[test]
fn a_client_answers_a_heartbeat_with_its_own_time_and_tells_the_application() {
    let mut client = Peer::authenticated_client();
    client.clocks_move(millis(70));
    client.hears(heartbeat(1));
    assert_eq!(client.did, [sent(heartbeat(WALL + 70)), Did::Heartbeat(None)]);
}

#[test]
fn a_client_answers_whatever_a_heartbeat_carries() {
    for json in [r#"{"type":"heartbeat"}"#, r#"{"ts":"soon","type":"heartbeat","x":[]}"#] {
        let mut client = Peer::authenticated_client();
        client.hears(json);
        assert_eq!(client.did, [sent(heartbeat(WALL)), Did::Heartbeat(None)], "{json}");
    }
}

#[test]
fn a_server_does_not_answer_the_answer_and_tells_of_it_once() {
    let mut server = pulsing_server();
    server.waits(secs(1));
    server.took();
    for told in [1, 0, 0] {
        server.hears(heartbeat(1));
        assert_eq!(server.took(), vec![Did::Heartbeat(None); told], "one answer to each that was asked for");
    }
    server.waits(secs(1));
    server.took();
    server.hears(heartbeat(1));
    assert_eq!(server.took(), [Did::Heartbeat(None)]);
}

#[test]
fn a_heartbeat_that_nobody_asked_for_is_nothing_to_tell() {
    let mut server = Peer::authenticated_server();
    server.hears(heartbeat(1));
    assert_eq!(server.did, []);
}

#[test]
fn two_peers_beat_along_for_a_minute_and_nobody_is_dropped() {
    let mut world = Pair::authenticated();
    world.latency = millis(40);
    world.advance(millis(60_500));
    let beats = |peer: &Peer| peer.did.iter().filter(|did| matches!(did, Did::Heartbeat(_))).count();
    assert_eq!((beats(&world.client), beats(&world.server)), (60, 60));
    assert_eq!((world.client.ending(), world.server.ending()), (None, None));
}

#[test]
fn the_round_trip_is_the_time_from_a_ping_to_its_pong() {
    let mut world = Pair::authenticated();
    world.latency = millis(150);
    world.advance(secs(2));
    let last = Did::Heartbeat(Some(millis(300)));
    assert_eq!(world.server.did.iter().rfind(|did| matches!(did, Did::Heartbeat(_))), Some(&last));
    world.advance(secs(1));
    assert_eq!(world.client.did.iter().rfind(|did| matches!(did, Did::Heartbeat(_))), Some(&last));
}

#[test]
fn a_round_trip_longer_than_the_interval_is_measured_whole() {
    let mut world = Pair::authenticated();
    world.latency = millis(1_700);
    world.advance(secs(30));
    assert_eq!((world.client.ending(), world.server.ending()), (None, None));
    for side in [&world.client, &world.server] {
        let measured: Vec<_> = side
            .did
            .iter()
            .filter_map(|did| match did {
                Did::Heartbeat(Some(round_trip)) => Some(*round_trip),
                _ => None,
            })
            .collect();
        assert!(measured.len() > 10);
        assert!(measured.iter().all(|round_trip| *round_trip == millis(3_400)), "{measured:?}");
    }
}

#[test]
fn no_clock_but_the_monotonic_one_has_a_say_in_the_round_trip() {
    let mut server = pulsing_server();
    server.waits(secs(1));
    let ping = server.pings()[0].clone();
    server.clocks_move(millis(20));
    server.wall_clock_steps(-86_400_000);
    server.receives(Frame::Pong(ping));
    assert_eq!(round_trip(&mut server), Some(millis(20)));
}

#[test]
fn a_peer_that_answers_only_the_latest_ping_is_measured_by_the_next_one() {
    let mut server = pulsing_server();
    server.waits(secs(3));
    let pings = server.pings();
    assert_eq!(pings.len(), 3);
    server.clocks_move(millis(100));
    server.receives(Frame::Pong(pings[2].clone()));
    assert_eq!(round_trip(&mut server), None, "which of the three was under way for how long is not known");

    server.waits(millis(900));
    let ping = server.pings()[0].clone();
    server.clocks_move(millis(250));
    server.receives(Frame::Pong(ping));
    assert_eq!(round_trip(&mut server), Some(millis(250)));
}

#[test]
fn each_ping_has_a_payload_of_its_own() {
    let mut server = pulsing_server();
    server.waits(secs(50));
    let mut pings = server.pings();
    pings.sort_unstable();
    pings.dedup();
    assert_eq!(pings.len(), 50);
}

#[test]
fn a_pong_that_answers_no_ping_measures_nothing() {
    let mut server = pulsing_server();
    let not_yet: Vec<Bytes> = (0_u64..3).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    for payload in not_yet {
        server.receives(Frame::Pong(payload));
    }
    assert_eq!(round_trip(&mut server), None, "before the first ping");

    server.waits(secs(1));
    let ping = server.pings()[0].clone();
    let forged: [Bytes; 7] = [
        Bytes::new(),
        Bytes::from_static(b"pong"),
        ping.slice(1..),
        [&ping[..], b"\0"].concat().into(),
        Bytes::copy_from_slice(&u64::MAX.to_be_bytes()),
        Bytes::copy_from_slice(&1_u64.to_be_bytes()),
        Bytes::from(vec![0xff; 125]),
    ];
    server.clocks_move(millis(10));
    for payload in forged {
        assert_ne!(payload, ping);
        server.receives(Frame::Pong(payload));
        assert_eq!(round_trip(&mut server), None);
    }
    server.clocks_move(millis(20));
    server.receives(Frame::Pong(ping.clone()));
    assert_eq!(round_trip(&mut server), Some(millis(30)), "the true one still counts");
    server.clocks_move(millis(400));
    server.receives(Frame::Pong(ping));
    assert_eq!(round_trip(&mut server), Some(millis(30)), "and counts once");
}

#[test]
fn a_pong_for_an_older_ping_measures_nothing() {
    let mut server = pulsing_server();
    server.waits(secs(1));
    let first = server.pings()[0].clone();
    server.receives(Frame::Pong(first.clone()));
    assert_eq!(round_trip(&mut server), Some(Duration::ZERO));
    server.waits(secs(1));
    server.clocks_move(millis(5));
    server.receives(Frame::Pong(first));
    assert_eq!(round_trip(&mut server), Some(Duration::ZERO));
}

#[test]
fn a_zero_interval_switches_the_heartbeat_off() {
    for role in [Role::Server, Role::Client] {
        let config = if role == Role::Server { server_config() } else { client_config() };
        let mut config = without_idle_guard(config);
        config.heartbeat_interval = Duration::ZERO;
        let mut peer = Peer::authenticated(role, config);
        assert_eq!(peer.due_in(), None);
        peer.sleeps(secs(100));
        assert_eq!(peer.did, []);
    }
}

#[test]
fn a_client_whose_own_heartbeat_is_off_still_answers_the_server_s() {
    let mut config = client_config();
    config.heartbeat_interval = Duration::ZERO;
    let mut client = Peer::authenticated(Role::Client, config);
    client.hears(heartbeat(1));
    assert_eq!(client.said(), [heartbeat(WALL)]);
}

#[test]
fn a_late_call_sends_one_ping_and_not_a_burst() {
    // Also when the next one is due at that very moment.
    for late in [secs(2), secs(100)] {
        let mut server = pulsing_server();
        server.sleeps(late);
        assert_eq!((server.pings().len(), server.said().len()), (1, 1));
        assert_eq!(server.due_in(), Some(secs(1)));
        server.times_out();
        assert_eq!(server.pings().len(), 1, "nor does a second call");
    }
}

#[test]
fn a_call_that_is_a_little_late_does_not_shift_the_pace() {
    let mut server = pulsing_server();
    server.sleeps(millis(1_300));
    assert_eq!((server.pings().len(), server.due_in()), (1, Some(millis(700))));
}

#[test]
fn an_early_or_repeated_call_does_nothing() {
    let mut server = pulsing_server();
    for _ in 0..9 {
        server.sleeps(millis(110));
    }
    assert_eq!((server.did.len(), server.due_in()), (0, Some(millis(10))));
    server.sleeps(millis(10));
    server.times_out();
    server.times_out();
    assert_eq!(server.pings().len(), 1);
}

#[test]
fn what_the_application_sends_does_not_move_the_heartbeat() {
    let mut server = pulsing_server();
    for _ in 0..10 {
        server.waits(millis(100));
        server.sends(r#"{"type":"busy"}"#).unwrap();
    }
    assert_eq!(server.pings().len(), 1);
}
