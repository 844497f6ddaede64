//! `disconnect()` ends everything, in every phase of a client's life.

use std::time::Duration;

use futures_util::future::join;
use link_driver::{Client, ClientEvent, CloseReason, Runtime};

use crate::support::{
    raw::{self, RawPeer},
    *,
};

/// It is over: nothing more is told, and the task is gone.
async fn is_over<R: Runtime>(mut client: Client<R>) {
    assert_eq!(client.told().await, None);
    assert!(!client.is_authenticated());
    client.close().soon::<R>().await;
}

pub async fn while_it_dials<R: Runtime>() {
    // It accepts, by its backlog, and never upgrades.
    let (listener, at) = raw::listen();
    let client = client_at::<R>(at).start().unwrap();
    let mut stream = script(move || listener.accept().unwrap().0).soon::<R>().await;
    client.disconnect();
    is_over(client).await;
    // What it had begun to say ends there.
    let said = script(move || raw::all_of(&mut stream)).soon::<R>().await;
    assert!(said.starts_with("GET / HTTP/1.1\r\n") || said.is_empty(), "{said:?}");
}

pub async fn while_it_waits_to_dial_again<R: Runtime>() {
    let hour = Duration::from_secs(3600);
    let builder = client_at::<R>(place_of_its_own());
    let mut client = builder.reconnect_delay(hour).max_reconnect_delay(hour).start().unwrap();
    assert!(matches!(client.told().await, Some(ClientEvent::Error(_))));
    assert!(matches!(client.told().await, Some(ClientEvent::Reconnecting { attempt: 1, .. })));
    client.disconnect();
    is_over(client).await;
}

pub async fn before_it_is_authenticated<R: Runtime>() {
    let (listener, at) = raw::listen();
    let mut client = client_at::<R>(at).start().unwrap();
    let accept = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate();
        (peer, listener)
    });
    let (mut peer, listener) = accept.soon::<R>().await;
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    client.disconnect();
    assert_eq!(client.disconnected().await, (CloseReason::Local, vec![]));
    is_over(client).await;
    assert_eq!(script(move || peer.until_the_end()).soon::<R>().await, (vec![], Some(1000)));
    never_dialled_again::<R>(listener).await;
}

pub async fn while_it_is_authenticated<R: Runtime>() {
    let (listener, at) = raw::listen();
    let admit = script(move || (RawPeer::admit(&listener, &wallet()).0, listener));
    let ((mut peer, listener), client) = join(admit, client_at::<R>(at).connect()).soon::<R>().await;
    let mut client = client.unwrap();
    client.disconnect();
    client.disconnect();
    assert_eq!(client.disconnected().await, (CloseReason::Local, vec![]));
    is_over(client).await;
    assert_eq!(script(move || peer.until_the_end()).soon::<R>().await, (vec![], Some(1000)));
    never_dialled_again::<R>(listener).await;
}

pub async fn while_connect_is_waiting<R: Runtime>() {
    // The future is all there is of it: dropping it is disconnecting.
    let (listener, at) = raw::listen();
    let connecting = within::<R, _>(A_WHILE, client_at::<R>(at).connect());
    let accept = script(move || RawPeer::accept(&listener));
    let (mut peer, gone) = join(accept, connecting).soon::<R>().await;
    assert!(gone.is_none());
    let end = script(move || {
        peer.authenticate();
        peer.until_the_end()
    });
    assert_eq!(end.soon::<R>().await, (vec![], Some(1000)));
}

pub async fn when_it_is_over_already<R: Runtime>() {
    let mut client = client_at::<R>(place_of_its_own()).max_reconnect_attempts(0).start().unwrap();
    assert!(matches!(client.told().await, Some(ClientEvent::Error(_))));
    assert!(matches!(client.told().await, Some(ClientEvent::ConnectionFailed(_))));
    client.disconnect();
    is_over(client).await;
}

async fn never_dialled_again<R: Runtime>(listener: std::net::TcpListener) {
    listener.set_nonblocking(true).unwrap();
    pause::<R>(A_WHILE / 3).await;
    assert!(listener.accept().is_err(), "it came back");
}

pub async fn after_an_earlier_failure_it_is_no_failure<R: Runtime>() {
    // The first dial fails, the second one is let in; then the program has had enough.
    let place = place_of_its_own();
    let mut client = client_at::<R>(place).start().unwrap();
    client.hears(|event| matches!(event, ClientEvent::Error(_)).then_some(())).await;
    let server = server::<R>().host(place.ip()).port(place.port());
    let mut server = server.bind().await.unwrap();
    server.authenticated().await;
    client.hears(|event| matches!(event, ClientEvent::Authenticated { .. }).then_some(())).await;
    client.disconnect();
    let mut told = Vec::new();
    while let Some(event) = client.told().await {
        told.push(event);
    }
    assert_eq!(told, [ClientEvent::Disconnected { reason: CloseReason::Local, unsent: vec![] }]);
    server.close().soon::<R>().await;
}
