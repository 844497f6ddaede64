//! Silence: each side gives the other up when nothing is heard of it for too long.

use std::{io::Read, time::Duration};

use futures_util::future::join;
use link_driver::{ClientEvent, CloseReason, Runtime};
use serde_json::json;
use tungstenite::Message;

use crate::support::{
    raw::{self, RawPeer},
    *,
};

const SHORT: Duration = Duration::from_millis(250);

pub async fn a_silent_client_is_told_408_in_quotes_and_dropped<R: Runtime>() {
    // Without heartbeats, so that the WebSocket layer of the silent one has nothing to answer.
    let builder = server::<R>().idle_timeout(SHORT).heartbeat_interval(Duration::ZERO);
    let mut server = builder.bind().await.unwrap();
    let at = server.local_address().unwrap();
    let seen = script(move || RawPeer::login(at, &wallet()).until_the_end());
    let story = async {
        let peer = server.authenticated().await;
        assert_eq!(server.disconnected().await, (peer, CloseReason::Idle(SHORT)));
    };
    let (seen, ()) = join(seen, story).soon::<R>().await;
    assert_eq!(seen, (vec![r#""HTTP/1.1 408 Request Timeout\r\n\r\n""#.into()], Some(4408)));
    server.close().soon::<R>().await;
}

pub async fn a_client_that_answers_no_heartbeat_is_dropped<R: Runtime>() {
    let builder = server::<R>().idle_timeout(SHORT).heartbeat_interval(SHORT / 10);
    let mut server = builder.bind().await.unwrap();
    let at = server.local_address().unwrap();
    let seen = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        let mut all = Vec::new();
        peer.stream().read_to_end(&mut all).unwrap();
        String::from_utf8_lossy(&all).into_owned()
    });
    let story = async {
        let peer = server.authenticated().await;
        assert_eq!(server.disconnected().await, (peer, CloseReason::Idle(SHORT)));
    };
    let (seen, ()) = join(seen, story).soon::<R>().await;
    assert!(seen.matches(r#""type":"heartbeat""#).count() > 1, "{seen:?}");
    assert!(seen.contains(r#""HTTP/1.1 408 Request Timeout\r\n\r\n""#), "{seen:?}");
    server.close().soon::<R>().await;
}

pub async fn any_frame_is_a_sign_of_life<R: Runtime>() {
    let timeout = Duration::from_millis(800);
    let builder = server::<R>().idle_timeout(timeout).heartbeat_interval(Duration::ZERO);
    let mut echo = Echo::start(builder).await;
    let at = echo.handle.local_address().unwrap();
    let living = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        let signs = [
            Message::Pong(b"unasked".as_slice().into()),
            Message::Ping(b"".as_slice().into()),
            Message::text(json!({ "type": "heartbeat", "ts": 0 }).to_string()),
            Message::text("not JSON"),
        ];
        for sign in signs.into_iter().cycle().take(16) {
            peer.send_frame(sign);
            std::thread::sleep(timeout / 8);
        }
        peer
    });
    let (peer, _) = join(living, echo.authenticated()).soon::<R>().await;
    drop(peer);
    // It lived twice as long as silence may last.
    let reason = echo
        .hears(|event| match event {
            link_driver::ServerEvent::Disconnected(_, reason) => Some(reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, CloseReason::Lost);
    echo.handle.close().soon::<R>().await;
}

pub async fn a_zero_idle_timeout_switches_the_servers_guard_off<R: Runtime>() {
    // An interval of an hour rounds the deadline up, beyond what a test watches.
    let hour = Duration::from_secs(3600);
    for (timeout, interval) in [(Duration::ZERO, Duration::ZERO), (SHORT / 5, hour)] {
        let builder = server::<R>()
            .idle_timeout(timeout)
            .idle_check_interval(interval)
            .heartbeat_interval(Duration::ZERO);
        let mut server = builder.bind().await.unwrap();
        let at = server.local_address().unwrap();
        let login = script(move || RawPeer::login(at, &wallet()));
        let (silent, _) = join(login, server.authenticated()).soon::<R>().await;
        // Longer than the default interval of a second.
        server.next().not_within::<R>(Duration::from_millis(1200)).await;
        drop(silent);
        assert_eq!(server.disconnected().await.1, CloseReason::Lost);
        server.close().soon::<R>().await;
    }
}

pub async fn an_honest_client_outlives_the_timeout_by_its_heartbeats<R: Runtime>() {
    let timeout = Duration::from_millis(600);
    let builder = server::<R>().idle_timeout(timeout).heartbeat_interval(Duration::from_millis(30));
    let mut echo = Echo::start(builder).await;
    let builder = client(&echo.handle).idle_timeout(timeout).heartbeat_interval(Duration::from_millis(30));
    let (mut client, _) = meet(&mut echo, builder).await;
    let mut beats = 0;
    while beats < 40 {
        match client.next().soon::<R>().await {
            Some(ClientEvent::Heartbeat { .. }) => beats += 1,
            Some(ClientEvent::Connected | ClientEvent::Authenticated { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    client.close().soon::<R>().await;
    assert_eq!(echo.disconnected().await.1, CloseReason::PeerClosed { code: Some(1000) });
    echo.handle.close().soon::<R>().await;
}

pub async fn a_client_notices_a_silent_server_and_dials_again<R: Runtime>() {
    let (listener, at) = raw::listen();
    // Whatever the client sends, nobody reads it, and nobody answers.
    let silent = script(move || {
        let first = RawPeer::admit(&listener, &wallet());
        let second = RawPeer::admit(&listener, &wallet());
        (first, second)
    });
    let mut client = client_at::<R>(at)
        .idle_timeout(SHORT)
        .heartbeat_interval(SHORT / 10)
        .connect()
        .soon::<R>()
        .await
        .unwrap();
    assert_eq!(client.disconnected().await, (CloseReason::Idle(SHORT), vec![]));
    assert!(matches!(client.told().await, Some(ClientEvent::Reconnecting { attempt: 1, .. })));
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    assert!(matches!(client.told().await, Some(ClientEvent::Authenticated { .. })));
    let peers = silent.soon::<R>().await;
    client.close().soon::<R>().await;
    drop(peers);
}

pub async fn a_zero_idle_timeout_switches_the_clients_guard_off<R: Runtime>() {
    let (listener, at) = raw::listen();
    let builder = client_at::<R>(at).idle_timeout(Duration::ZERO).heartbeat_interval(Duration::ZERO);
    let silent = script(move || RawPeer::admit(&listener, &wallet()));
    let (silent, client) = join(silent, builder.connect()).soon::<R>().await;
    let mut client = client.unwrap();
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    assert!(matches!(client.told().await, Some(ClientEvent::Authenticated { .. })));
    client.next().not_for_a_while::<R>().await;
    drop(silent);
    assert_eq!(client.disconnected().await.0, CloseReason::Lost);
    client.close().soon::<R>().await;
}
