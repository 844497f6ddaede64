//! What a server counts.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join;
use link_driver::{Address, CloseReason, Runtime, ServerStats};
use serde_json::json;

use crate::support::{
    raw::{self, RawPeer},
    *,
};

fn counts<const N: usize>(counts: [(&'static str, u64); N]) -> BTreeMap<&'static str, u64> {
    counts.into()
}

/// Every accepted connection is in one place.
fn checked(stats: ServerStats) -> ServerStats {
    let ended: u64 = stats.rejected.values().chain(stats.disconnected.values()).sum();
    assert_eq!(stats.accepted, stats.unauthenticated + stats.authenticated + ended, "{stats:?}");
    stats
}

pub async fn a_fresh_server_has_counted_nothing<R: Runtime>() {
    let server = server::<R>().bind().await.unwrap();
    assert_eq!(server.stats(), ServerStats::default());
    assert_eq!(server.stats().round_trips.mean(), None);
    server.close().soon::<R>().await;
}

pub async fn messages_and_bytes_are_counted_both_ways<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().heartbeat_interval(Duration::from_millis(50))).await;
    let builder = client(&echo.handle);
    let (mut client, peer) = meet(&mut echo, builder).await;
    let mut bytes = 0;
    for number in 0..10 {
        client.try_send(numbered_and_long(number, number * 100)).unwrap();
        bytes += client.message().await.as_str().len() as u64;
    }
    peer.try_send(json!({})).unwrap();
    client.message().await;
    // The last turn is counted when it ends, which may be after its messages have arrived.
    until::<R>(|| echo.handle.stats().messages_sent == 11).await;
    let stats = checked(echo.handle.stats());
    assert_eq!((stats.messages_received, stats.bytes_received), (10, bytes), "heartbeats are none of them");
    assert_eq!((stats.messages_sent, stats.bytes_sent), (11, bytes + 2));
    assert_eq!((stats.accepted, stats.authenticated, stats.unauthenticated), (1, 1, 0));

    until::<R>(|| echo.handle.stats().round_trips.count >= 3).await;
    let trips = echo.handle.stats().round_trips;
    let mean = trips.mean().unwrap();
    assert!(trips.shortest <= mean && mean <= trips.longest && trips.longest < PATIENCE, "{trips:?}");
    assert!(trips.shortest > Duration::ZERO && trips.total >= trips.longest, "{trips:?}");
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn each_connection_is_counted_in_one_place_by_how_it_ended<R: Runtime>() {
    let (listed, stranger) = (wallet(), wallet());
    let whitelist: [Address; 1] = [listed.address()];
    let mut server = server::<R>().whitelist(whitelist).max_unauthenticated(2, 2).bind().await.unwrap();
    let at = server.local_address().unwrap();

    let refused = client(&server).wallet(stranger).connect();
    let (refused, _) = join(refused, server.rejected()).soon::<R>().await;
    assert!(refused.is_err());
    let rubbish = script(move || raw::answer_to(at, b"rubbish\r\n\r\n"));
    join(rubbish, server.rejected()).soon::<R>().await;

    // The program is told of an end before the socket, and with it the place, is gone.
    until::<R>(|| server.stats().unauthenticated == 0).await;
    // Two strangers take all places; a third one is turned away, and told so.
    let strangers = script(move || (RawPeer::open(at), RawPeer::open(at)));
    let told = async {
        server.connected().await;
        server.connected().await;
    };
    let (strangers, ()) = join(strangers, told).soon::<R>().await;
    let third = script(move || raw::answer_to(at, b""));
    assert!(third.soon::<R>().await.starts_with("HTTP/1.1 503 "));
    let stats = checked(server.stats());
    assert_eq!((stats.accepted, stats.unauthenticated, stats.authenticated), (4, 2, 0));
    assert_eq!(stats.turned_away, counts([("too_many_unauthenticated", 1)]));
    drop(strangers);
    until::<R>(|| server.stats().unauthenticated == 0).await;

    let builder = client(&server).wallet(listed.clone());
    let first = builder.start().unwrap();
    let first_peer = server
        .hears(|event| match event {
            link_driver::ServerEvent::Authenticated(peer) => Some(peer),
            _ => None,
        })
        .await;
    let builder = client(&server).wallet(listed).connect();
    let disconnected = server.hears(|event| match event {
        link_driver::ServerEvent::Disconnected(peer, reason) => Some((peer, reason)),
        _ => None,
    });
    let (second, replaced) = join(builder, disconnected).soon::<R>().await;
    assert_eq!(replaced, (first_peer, CloseReason::Replaced));
    second.unwrap().close().soon::<R>().await;
    until::<R>(|| server.stats().authenticated == 0).await;
    drop(first);

    let handle = server.handle();
    server.close().soon::<R>().await;
    let stats = checked(handle.stats());
    assert_eq!((stats.accepted, stats.unauthenticated, stats.authenticated), (6, 0, 0));
    assert_eq!(stats.rejected, counts([("lost", 2), ("not_whitelisted", 1), ("websocket", 1)]));
    assert_eq!(stats.disconnected, counts([("peer_closed", 1), ("replaced", 1)]));
}
