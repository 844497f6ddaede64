//! The main road: a server and a client, what each tells its program, and in which order.

use std::net::Ipv4Addr;

use futures_util::{
    StreamExt,
    future::{join, join_all},
};
use link_driver::{Client, ClientEvent, CloseReason, Protection, Runtime, SendError, Server, ServerEvent};
use serde_json::{Value, json};

use crate::support::*;

pub async fn ten_lines_make_an_echo_server<R: Runtime>() {
    let mut server = Server::<R>::builder().host(Ipv4Addr::LOCALHOST).port(0).bind().await.unwrap();
    let handle = server.handle();
    R::spawn(async move {
        while let Some(event) = server.next().await {
            if let ServerEvent::Message(client, message) = event {
                client.try_send(&message).unwrap();
            }
        }
    });

    let port = handle.local_address().unwrap().port();
    let mut client = Client::<R>::builder().host("127.0.0.1").port(port).connect().soon::<R>().await.unwrap();
    client.try_send(json!({ "type": "greeting", "text": "hello" })).unwrap();
    let echo = client.message().await;
    assert_eq!(echo.kind(), Some("greeting"));
    assert_eq!(echo.json::<Value>().unwrap()["text"], "hello");
    client.close().soon::<R>().await;
    handle.close().soon::<R>().await;
}

pub async fn a_server_tells_its_story_in_order<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let (line, peer) = {
        let builder = client(&server);
        let connecting = builder.connect();
        let story = async {
            let Some(ServerEvent::Connected { id, remote_address }) = server.told().await else { panic!() };
            let Some(ServerEvent::Authenticated(peer)) = server.told().await else { panic!() };
            assert!(is_loopback(remote_address));
            assert_eq!((peer.id(), peer.remote_address()), (id, remote_address));
            assert!(peer.is_connected());
            peer
        };
        let (line, peer) = join(connecting, story).soon::<R>().await;
        (line.unwrap(), peer)
    };
    assert_eq!(peer.address(), line.address());
    for number in 0..3 {
        line.try_send(numbered(number)).unwrap();
    }
    for number in 0..3 {
        let (from, message) = server.message().await;
        assert_eq!((from, number_of(&message)), (peer.clone(), number));
    }
    line.close().soon::<R>().await;
    let (from, reason) = server.disconnected().await;
    assert_eq!((&from, reason), (&peer, CloseReason::PeerClosed { code: Some(1000) }));
    assert!(!peer.is_connected());
    assert_eq!(peer.try_send(numbered(3)), Err(SendError::Closed), "a peer stays a valid handle");

    server.handle().close().soon::<R>().await;
    assert!(matches!(server.told().await, Some(ServerEvent::Close)));
    assert!(server.told().await.is_none(), "`Close` is the last event");
}

pub async fn a_client_tells_its_story_in_order<R: Runtime>() {
    let echo = Echo::start(server::<R>()).await;
    let mut client = client(&echo.handle).connect().soon::<R>().await.unwrap();
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    let address = echo.handle.address();
    match client.told().await {
        Some(ClientEvent::Authenticated { server, protection, .. }) => {
            assert_eq!((server, protection), (address, Protection::Transport));
        }
        other => panic!("{other:?}"),
    }
    client.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&client.message().await), 1);
    client.disconnect();
    let gone = ClientEvent::Disconnected { reason: CloseReason::Local, unsent: Vec::new() };
    assert_eq!(client.told().await, Some(gone));
    assert_eq!(client.told().await, None, "a program that disconnects hears no more");
    echo.handle.close().soon::<R>().await;
}

pub async fn handles_say_who_is_where<R: Runtime>() {
    let (servers, clients) = (wallet(), wallet());
    let mut server = server::<R>().wallet(servers.clone()).bind().await.unwrap();
    let at = server.local_address().unwrap();
    assert_eq!(server.address(), servers.address());
    assert_eq!(server.url().unwrap(), format!("ws://{at}"));
    assert!(is_loopback(at) && at.port() != 0);

    let builder = client(&server).wallet(clients.clone());
    let (client, peer) = meet(&mut server, builder).await;
    assert_eq!(client.address(), clients.address());
    assert_eq!(peer.address(), clients.address());
    assert_eq!(client.server(), Some(servers.address()));
    assert!(client.is_authenticated());

    let handle = client.handle();
    client.close().soon::<R>().await;
    assert_eq!(handle.server(), None);
    assert!(!handle.is_authenticated());
    assert_eq!(handle.try_send(numbered(0)), Err(SendError::NotAuthenticated));
    server.close().soon::<R>().await;
}

pub async fn both_are_streams<R: Runtime>() {
    let server = server::<R>().bind().await.unwrap();
    let builder = client(&server);
    let handle = server.handle();
    let events = async {
        let mut names = Vec::new();
        let mut events = server.boxed();
        while let Some(event) = events.next().await {
            match event {
                ServerEvent::Connected { .. } => names.push("connected"),
                ServerEvent::Authenticated(_) => names.push("authenticated"),
                ServerEvent::Message(..) => names.push("message"),
                ServerEvent::Disconnected(..) => {
                    names.push("disconnected");
                    break;
                }
                _ => {}
            }
        }
        names
    };
    let line = async {
        let client = builder.connect().await.unwrap();
        client.try_send(numbered(0)).unwrap();
        client.disconnect();
        client
            .filter(|event| std::future::ready(!matches!(event, ClientEvent::Heartbeat { .. })))
            .count()
            .await
    };
    let (names, count) = join(events, line).soon::<R>().await;
    assert_eq!(names, ["connected", "authenticated", "message", "disconnected"]);
    assert_eq!(count, 3, "connected, authenticated, disconnected");
    handle.close().soon::<R>().await;
}

pub async fn a_server_knows_who_is_there<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let mut lines = Vec::new();
    for _ in 0..3 {
        let builder = client(&server);
        lines.push(meet(&mut server, builder).await);
    }
    let mut there: Vec<_> = server.clients().iter().map(|peer| peer.address()).collect();
    let mut expected: Vec<_> = lines.iter().map(|(client, _)| client.address()).collect();
    there.sort_unstable();
    expected.sort_unstable();
    assert_eq!(there, expected);

    for (number, (client, peer)) in lines.iter_mut().enumerate() {
        assert_eq!(server.client(&client.address()).as_ref(), Some(&*peer));
        server.handle().try_send(&client.address(), numbered(number)).unwrap();
        assert_eq!(number_of(&client.message().await), number);
    }
    assert_eq!(server.client(&wallet().address()), None);
    assert_eq!(server.handle().try_send(&wallet().address(), numbered(0)), Err(SendError::Closed));

    let (gone, peer) = lines.remove(1);
    let address = gone.address();
    gone.close().soon::<R>().await;
    assert_eq!(server.disconnected().await.0, peer);
    assert_eq!(server.client(&address), None);
    assert_eq!(server.clients().len(), 2);
    assert_eq!(server.handle().try_send(&address, numbered(0)), Err(SendError::Closed));
    for (client, _) in lines {
        client.close().soon::<R>().await;
    }
    server.close().soon::<R>().await;
}

pub async fn a_client_that_comes_back_is_another_peer<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let same = wallet();
    let builder = client(&server).wallet(same.clone());
    let (first, before) = meet(&mut server, builder).await;
    first.close().soon::<R>().await;
    assert_eq!(server.disconnected().await.0, before);
    let builder = client(&server).wallet(same);
    let (second, after) = meet(&mut server, builder).await;
    assert_eq!(before.address(), after.address());
    assert_ne!(before, after);
    assert_ne!(before.id(), after.id());
    assert_eq!(before.try_send(numbered(0)), Err(SendError::Closed));
    assert_eq!(after.try_send(numbered(0)), Ok(()));
    second.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_peer_can_be_closed<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server).max_reconnect_attempts(0);
    let (mut client, peer) = meet(&mut server, builder).await;
    for number in 0..100 {
        peer.try_send(numbered(number)).unwrap();
    }
    peer.close();
    for number in 0..100 {
        assert_eq!(number_of(&client.message().await), number, "what was sent before comes first");
    }
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    assert_eq!(server.disconnected().await, (peer, CloseReason::Local));
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_thousand_clients_at_once<R: Runtime>() {
    const CLIENTS: usize = 1000;
    // Both ends of each line are in this process; and other tests have theirs.
    let files = rlimit::increase_nofile_limit(4 * CLIENTS as u64).unwrap();
    assert!(files >= 3 * CLIENTS as u64, "the system allows {files} open files only; see `ulimit -Hn`");
    let echo = Echo::start(server::<R>().auth_timeout(PATIENCE).idle_timeout(PATIENCE)).await;
    let connecting =
        (0..CLIENTS).map(|_| client(&echo.handle).auth_timeout(PATIENCE).idle_timeout(PATIENCE).connect());
    let mut clients: Vec<_> =
        join_all(connecting).soon::<R>().await.into_iter().map(|client| client.unwrap()).collect();
    assert_eq!(echo.handle.clients().len(), CLIENTS);

    for (number, client) in clients.iter().enumerate() {
        client.try_send(numbered(number)).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(number_of(&client.message().await), number);
    }
    assert_eq!(echo.handle.broadcast(numbered(CLIENTS)), Ok(CLIENTS));
    for client in &mut clients {
        assert_eq!(number_of(&client.message().await), CLIENTS);
    }
    join_all(clients.into_iter().map(Client::close)).soon::<R>().await;
    let handle = echo.handle.clone();
    until::<R>(|| handle.clients().is_empty()).await;
    echo.handle.close().soon::<R>().await;
}
