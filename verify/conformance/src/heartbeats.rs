//! Heartbeats and round trips, both ways.

use std::time::Duration;

use futures_util::future::join;
use link_driver::{ClientEvent, Runtime, ServerEvent};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{
    raw::{self, RawPeer, unix_millis},
    *,
};

const QUICK: Duration = Duration::from_millis(20);

pub async fn both_sides_learn_the_round_trip<R: Runtime>() {
    let mut server = server::<R>().heartbeat_interval(QUICK).bind().await.unwrap();
    let builder = client(&server).heartbeat_interval(QUICK);
    let (mut client, peer) = meet(&mut server, builder).await;
    let at_the_server = async {
        loop {
            match server.next().await.unwrap() {
                ServerEvent::Heartbeat(from, Some(round_trip)) => {
                    assert_eq!(from, peer);
                    return round_trip;
                }
                ServerEvent::Heartbeat(_, None) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let at_the_client = async {
        loop {
            if let ClientEvent::Heartbeat { round_trip: Some(round_trip) } = client.next().await.unwrap() {
                return round_trip;
            }
        }
    };
    let (one, other) = join(at_the_server, at_the_client).soon::<R>().await;
    for round_trip in [one, other] {
        assert!(round_trip > Duration::ZERO && round_trip < PATIENCE, "{round_trip:?}");
    }
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_server_sends_a_ping_and_a_heartbeat_each_interval<R: Runtime>() {
    let mut server = server::<R>().heartbeat_interval(QUICK).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let seen = script(move || {
        let began = unix_millis();
        let mut peer = RawPeer::login(at, &wallet());
        let (mut pings, mut beats) = (Vec::new(), Vec::new());
        while pings.len() < 5 || beats.len() < 5 {
            match peer.frame() {
                Message::Ping(payload) => pings.push(payload),
                Message::Text(text) => {
                    let beat: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(beat["type"], "heartbeat");
                    assert_eq!(beat.as_object().unwrap().len(), 2, "{beat}");
                    beats.push(beat["ts"].as_u64().unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(beats.is_sorted() && beats[0] >= began && beats[4] <= unix_millis(), "{beats:?}");
        pings.dedup();
        assert!(pings.len() >= 5, "each ping can be told from the others");
    });
    join(seen, server.authenticated()).soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_client_answers_pings_and_heartbeats_even_before_it_is_authenticated<R: Runtime>() {
    let (listener, at) = raw::listen();
    let connecting = client_at::<R>(at).heartbeat_interval(Duration::ZERO).connect();
    let seen = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate().unwrap();
        for authenticated in [false, true] {
            peer.send(&json!({ "type": "heartbeat", "ts": 1 }));
            peer.send_frame(Message::Ping(b"12345".as_slice().into()));
            let (mut pong, mut beat) = (None, None);
            while pong.is_none() || beat.is_none() {
                match peer.frame() {
                    Message::Pong(payload) => pong = Some(payload),
                    Message::Text(text) => beat = Some(serde_json::from_str::<Value>(&text).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(pong.unwrap(), b"12345".as_slice());
            let beat = beat.unwrap();
            assert_eq!(beat["type"], "heartbeat");
            assert!(beat["ts"].as_u64().unwrap().abs_diff(unix_millis()) < 20_000, "its own time: {beat}");
            if !authenticated {
                peer.send(&raw::authenticate(&wallet(), unix_millis()));
            }
        }
        peer
    });
    let (peer, client) = join(seen, connecting).soon::<R>().await;
    drop(peer);
    client.unwrap().close().soon::<R>().await;
}

pub async fn a_zero_interval_switches_heartbeats_off<R: Runtime>() {
    // And so does an hour, for as long as a test watches.
    for interval in [Duration::ZERO, Duration::from_secs(3600)] {
        let mut server = server::<R>().heartbeat_interval(interval).bind().await.unwrap();
        let builder = client(&server).heartbeat_interval(interval);
        let (mut client, _) = meet(&mut server, builder).await;
        assert_eq!(client.told().await, Some(ClientEvent::Connected));
        assert!(matches!(client.told().await, Some(ClientEvent::Authenticated { .. })));
        client.next().not_for_a_while::<R>().await;
        server.next().not_for_a_while::<R>().await;
        client.close().soon::<R>().await;
        server.close().soon::<R>().await;

        // Not even a ping.
        let (listener, at) = raw::listen();
        let connecting = client_at::<R>(at).heartbeat_interval(interval).connect();
        let seen = script(move || RawPeer::admit(&listener, &wallet()).0);
        let (mut peer, client) = join(seen, connecting).soon::<R>().await;
        let frame = script(move || {
            peer.stream().set_read_timeout(Some(A_WHILE)).unwrap();
            peer.try_frame()
        });
        assert!(frame.soon::<R>().await.is_none());
        client.unwrap().close().soon::<R>().await;
    }
}

pub async fn a_client_pings_each_interval<R: Runtime>() {
    let (listener, at) = raw::listen();
    let connecting = client_at::<R>(at).heartbeat_interval(QUICK).connect();
    let seen = script(move || {
        let (mut peer, _) = RawPeer::admit(&listener, &wallet());
        for _ in 0..5 {
            // A v1 client sends no heartbeats of its own, only answers.
            assert!(matches!(peer.frame(), Message::Ping(_)));
        }
        peer
    });
    let (peer, client) = join(seen, connecting).soon::<R>().await;
    drop(peer);
    client.unwrap().close().soon::<R>().await;
}

pub async fn a_program_that_is_behind_misses_heartbeats_and_nothing_else<R: Runtime>() {
    let mut server = server::<R>().heartbeat_interval(QUICK).event_capacity(1).bind().await.unwrap();
    let builder = client(&server).heartbeat_interval(QUICK);
    let (mut client, peer) = meet(&mut server, builder).await;
    // Nobody takes the server's events meanwhile, while twenty heartbeats go to and fro.
    for _ in 0..20 {
        loop {
            if let Some(ClientEvent::Heartbeat { .. }) = client.next().soon::<R>().await {
                break;
            }
        }
    }
    for number in 0..10 {
        client.try_send(numbered(number)).unwrap();
    }
    for number in 0..10 {
        let (from, message) = server.message().await;
        assert_eq!((from, number_of(&message)), (peer.clone(), number));
    }
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}
