//! The end: what `close()` and dropping do, on both sides, and that nothing that was sent is lost by them.

use std::time::Duration;

use futures_util::future::join;
use link_driver::{ClientEvent, CloseReason, Runtime, SendError, ServerEvent};

use crate::support::{
    raw::{self, RawPeer},
    *,
};

pub async fn a_closed_server_frees_its_port_and_tells_every_client<R: Runtime>() {
    let place = place_of_its_own();
    let mut first = server::<R>().host(place.ip()).port(place.port()).bind().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, _) = meet(&mut first, client_at(place).max_reconnect_attempts(0)).await;
        clients.push(client);
    }
    let login = script(move || RawPeer::login(place, &wallet()));
    let (mut peer, _) = join(login, first.authenticated()).soon::<R>().await;
    let seen = script(move || peer.until_the_end());

    first.close().soon::<R>().await;
    for mut client in clients {
        assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
        client.close().soon::<R>().await;
    }
    assert_eq!(seen.soon::<R>().await, (vec![], Some(1001)));

    let second = server::<R>().host(place.ip()).port(place.port()).bind().await.unwrap();
    assert_eq!(second.local_address().unwrap(), place);
    second.close().soon::<R>().await;
}

pub async fn close_is_the_last_event_after_every_clients_end<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let mut lines = Vec::new();
    for _ in 0..3 {
        let builder = client(&server).max_reconnect_attempts(0);
        lines.push(meet(&mut server, builder).await);
    }
    let at = server.local_address().unwrap();
    let stranger = script(move || RawPeer::open(at));
    let (stranger, _) = join(stranger, server.connected()).soon::<R>().await;

    let handle = server.handle();
    let story = async {
        let (mut gone, mut rejected) = (Vec::new(), 0);
        loop {
            match server.told().await {
                Some(ServerEvent::Disconnected(peer, CloseReason::ShuttingDown)) => gone.push(peer.id()),
                Some(ServerEvent::Rejected(it)) if it.reason == CloseReason::ShuttingDown => rejected += 1,
                Some(ServerEvent::Close) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(server.told().await.is_none());
        gone.sort_unstable();
        assert_eq!(gone, lines.iter().map(|(_, peer)| peer.id()).collect::<Vec<_>>());
        assert_eq!(rejected, 1);
    };
    join(handle.close(), story).soon::<R>().await;
    assert!(handle.clients().is_empty());
    assert_eq!(handle.broadcast(numbered(0)), Ok(0));
    drop(stranger);
}

pub async fn close_ends_those_who_are_not_authenticated_yet<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let opening = script(move || (raw::dial(at), RawPeer::open(at)));
    let ((mut tcp, mut upgraded), _) = join(opening, server.connected()).soon::<R>().await;
    let seen = script(move || (raw::all_of(&mut tcp), upgraded.until_the_end()));
    let (answer, close) = join(seen, server.close()).soon::<R>().await.0;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer:?}");
    assert_eq!(close, (vec![], Some(1001)));
}

pub async fn close_finishes_though_nobody_takes_the_events<R: Runtime>() {
    // By a handle, while the server is held and its queue is full.
    let mut server_a = server::<R>().event_capacity(1).bind().await.unwrap();
    let builder = client(&server_a);
    let (line, _) = meet(&mut server_a, builder).await;
    for number in 0..1000 {
        line.try_send(numbered(number)).unwrap();
    }
    let handle = server_a.handle();
    handle.close().soon::<R>().await;
    handle.close().soon::<R>().await;
    line.close().soon::<R>().await;
    drop(server_a);

    // Before anybody ever asked it for an event; who asks then is told of the end.
    let mut server_b = server::<R>().bind().await.unwrap();
    let at = server_b.local_address().unwrap();
    let waiting = script(move || raw::dial(at)).soon::<R>().await;
    let handle = server_b.handle();
    handle.close().soon::<R>().await;
    assert!(matches!(server_b.told().await, Some(ServerEvent::Close)));
    assert!(server_b.told().await.is_none());
    drop(waiting);

    let server_c = server::<R>().bind().await.unwrap();
    server_c.close().soon::<R>().await;
}

pub async fn everybody_may_wait_for_the_close<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server);
    let (line, _) = meet(&mut server, builder).await;
    let (one, other) = (server.handle(), server.handle());
    join(join(one.close(), other.close()), server.close()).soon::<R>().await;
    line.close().soon::<R>().await;
}

pub async fn close_does_not_wait_for_who_never_reads<R: Runtime>() {
    let mut server = server::<R>().max_send_queue(64 << 10).idle_timeout(PATIENCE * 2).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    let (never_reads, peer) = join(login, server.authenticated()).soon::<R>().await;
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| peer.try_send(message)).await;
    let began = R::now();
    server.close().soon::<R>().await;
    assert!(R::now() - began < Duration::from_secs(10));
    drop(never_reads);
}

pub async fn dropping_a_server_ends_everything<R: Runtime>() {
    let place = place_of_its_own();
    let mut first = server::<R>().host(place.ip()).port(place.port()).bind().await.unwrap();
    let (mut line, peer) = meet(&mut first, client_at(place).max_reconnect_attempts(0)).await;
    drop(first);
    assert_eq!(line.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
    until::<R>(|| !peer.is_connected()).await;
    assert_eq!(peer.try_send(numbered(0)), Err(SendError::Closed));
    let again = async {
        loop {
            match server::<R>().host(place.ip()).port(place.port()).bind().await {
                Ok(server) => return server,
                Err(_) => pause::<R>(Duration::from_millis(5)).await,
            }
        }
    };
    let second = again.soon::<R>().await;
    second.close().soon::<R>().await;
    line.close().soon::<R>().await;
}

pub async fn dropping_a_client_ends_its_line<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server);
    let (line, peer) = meet(&mut server, builder).await;
    let handle = line.handle();
    drop(line);
    assert_eq!(server.disconnected().await, (peer, CloseReason::PeerClosed { code: Some(1000) }));
    until::<R>(|| !handle.is_authenticated()).await;
    handle.close().soon::<R>().await;
    // And it does not come back.
    server.next().not_for_a_while::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn what_a_client_sent_goes_out_before_it_closes<R: Runtime>() {
    const MANY: usize = 1000;
    for bytes in [0, 3 << 10] {
        let mut server = server::<R>().bind().await.unwrap();
        let builder = client(&server);
        let (line, peer) = meet(&mut server, builder).await;
        for number in 0..MANY {
            line.try_send(numbered_and_long(number, bytes)).unwrap();
        }
        let story = async {
            for number in 0..MANY {
                assert_eq!(number_of(&server.message().await.1), number);
            }
            let code = Some(1000);
            assert_eq!(server.disconnected().await, (peer.clone(), CloseReason::PeerClosed { code }));
        };
        join(line.close(), story).soon::<R>().await;
        server.close().soon::<R>().await;
    }
}

pub async fn what_a_server_sent_goes_out_before_it_closes<R: Runtime>() {
    const MANY: usize = 1000;
    for bytes in [0, 3 << 10] {
        let mut server = server::<R>().bind().await.unwrap();
        let builder = client(&server).max_reconnect_attempts(0);
        let (mut line, peer) = meet(&mut server, builder).await;
        for number in 0..MANY {
            peer.try_send(numbered_and_long(number, bytes)).unwrap();
        }
        let story = async {
            for number in 0..MANY {
                assert_eq!(number_of(&line.message().await), number);
            }
            assert_eq!(line.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
        };
        join(server.close(), story).soon::<R>().await;
        line.close().soon::<R>().await;
    }
}

pub async fn a_server_that_closes_goes_on_sending_to_who_had_stopped_reading_for_a_moment<R: Runtime>() {
    let mut server = server::<R>().idle_timeout(Duration::ZERO).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let (go_on, stopped) = std::sync::mpsc::channel();
    let reader = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        stopped.recv().unwrap();
        peer.until_the_end()
    });
    let peer = server.authenticated().await;
    let sent = send_until_stuck::<R>(16 << 10, A_WHILE, |message| peer.try_send(message)).await;
    let story = async {
        go_on.send(()).unwrap();
        reader.soon::<R>().await
    };
    let ((), (texts, code)) = join(server.close(), story).await;
    assert_eq!(
        texts.iter().filter(|text| text.contains("number")).count(),
        sent,
        "of those that were accepted"
    );
    assert_eq!(code, Some(1001));
}

pub async fn after_disconnect_nothing_more_is_taken<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server);
    let (line, peer) = meet(&mut server, builder).await;
    line.try_send(numbered(0)).unwrap();
    line.disconnect();
    assert_eq!(line.try_send(numbered(1)), Err(SendError::NotAuthenticated));
    assert!(!line.is_authenticated());
    assert_eq!(number_of(&server.message().await.1), 0);
    assert_eq!(server.disconnected().await, (peer, CloseReason::PeerClosed { code: Some(1000) }));
    line.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_client_that_closes_does_not_wait_for_a_server_that_does_not_answer<R: Runtime>() {
    let (listener, at) = raw::listen();
    let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
    let (silent, line) = join(admit, client_at::<R>(at).connect()).soon::<R>().await;
    let began = R::now();
    line.unwrap().close().soon::<R>().await;
    assert!(R::now() - began < Duration::from_secs(5));
    drop(silent);
}

pub async fn a_connection_that_is_cut_is_lost<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    let (peer_end, peer) = join(login, server.authenticated()).soon::<R>().await;
    drop(peer_end);
    assert_eq!(server.disconnected().await, (peer, CloseReason::Lost));
    server.close().soon::<R>().await;

    let (listener, at) = raw::listen();
    let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
    let connecting = client_at::<R>(at).max_reconnect_attempts(0).connect();
    let (server_end, line) = join(admit, connecting).soon::<R>().await;
    drop(server_end);
    let mut line = line.unwrap();
    assert_eq!(line.disconnected().await.0, CloseReason::Lost);
    assert!(matches!(line.told().await, Some(ClientEvent::ConnectionFailed(_))));
    assert_eq!(line.told().await, None);
}

pub async fn what_a_peer_said_before_it_closed_is_read<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let talk = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        for number in 0..500 {
            peer.send(&numbered(number));
        }
        peer.close(4999);
    });
    let story = async {
        server.authenticated().await;
        for number in 0..500 {
            assert_eq!(number_of(&server.message().await.1), number);
        }
        assert_eq!(server.disconnected().await.1, CloseReason::PeerClosed { code: Some(4999) });
    };
    join(talk, story).soon::<R>().await;
    server.close().soon::<R>().await;
}
