//! The other face of a server: `accept()`, with a session for each client.

use std::time::Duration;

use futures_util::future::join;
use link_driver::{AcceptError, ClientEvent, CloseReason, Runtime, SendError, Server, Session};

use crate::support::{
    raw::{self, RawPeer},
    *,
};

/// Connects a client, and hands out the server's session with it.
async fn meet<R: Runtime>(
    server: &mut Server<R>,
    builder: link_driver::ClientBuilder<R>,
) -> (link_driver::Client<R>, Session) {
    let (client, session) = join(builder.connect(), server.accept()).soon::<R>().await;
    (client.expect("let in"), session.expect("a session"))
}

pub async fn a_task_for_each_client_echoes<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let handle = server.handle();
    R::spawn(async move {
        while let Ok(mut session) = server.accept().await {
            R::spawn(async move {
                while let Some(message) = session.next().await {
                    if session.send(&message).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(&handle).connect().soon::<R>().await.unwrap());
    }
    for number in 0..100 {
        for client in &clients {
            client.send(&numbered(number)).unwrap();
        }
    }
    for client in &mut clients {
        for number in 0..100 {
            assert_eq!(number_of(&client.message().await), number);
        }
    }
    for client in clients {
        client.close().soon::<R>().await;
    }
    handle.close().soon::<R>().await;
}

pub async fn a_session_ends_with_its_connection_and_says_how<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server);
    let (client, mut session) = meet(&mut server, builder).await;
    assert_eq!(session.address(), client.address());
    assert_eq!(session.peer(), &server.client(&client.address()).unwrap());
    assert_eq!(session.close_reason(), None);
    for number in 0..200 {
        client.send(&numbered(number)).unwrap();
    }
    client.close().soon::<R>().await;
    // What was sent before the end is still read, though the connection is gone.
    for number in 0..200 {
        assert_eq!(number_of(&session.next().soon::<R>().await.unwrap()), number);
    }
    assert_eq!(session.next().soon::<R>().await, None);
    assert_eq!(session.close_reason(), Some(&CloseReason::PeerClosed { code: Some(1000) }));
    assert_eq!(session.send(&numbered(0)), Err(SendError::Closed));
    server.close().soon::<R>().await;
}

pub async fn dropping_a_session_ends_the_connection<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server).max_reconnect_attempts(0);
    let (mut client, session) = meet(&mut server, builder).await;
    session.send(&numbered(1)).unwrap();
    drop(session);
    assert_eq!(number_of(&client.message().await), 1, "what was sent before comes first");
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    let handle = server.handle();
    until::<R>(|| handle.clients().is_empty()).await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn dropping_a_session_whose_client_is_stuck_ends_it_as_well<R: Runtime>() {
    // The client talks, and nobody took its messages; then the program lets go.
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server).max_send_queue(64 << 10).max_reconnect_attempts(0);
    let (mut client, session) = meet(&mut server, builder).await;
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.send(message)).await;
    drop(session);
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    let handle = server.handle();
    until::<R>(|| handle.clients().is_empty()).await;
    server.close().soon::<R>().await;
}

pub async fn a_slow_session_stalls_nobody_else<R: Runtime>() {
    let short = Duration::from_secs(1);
    let builder = server::<R>().client_timeout(short).heartbeat_interval(short / 5);
    let mut server = builder.bind().await.unwrap();
    let builder = client(&server).max_send_queue(256 << 10).server_timeout(PATIENCE * 2);
    let (slow_client, mut slow) = meet(&mut server, builder).await;
    let builder = client(&server);
    let (mut quick_client, mut quick) = meet(&mut server, builder).await;

    let sent = send_until_stuck::<R>(16 << 10, short * 2, |message| slow_client.send(message)).await;
    for number in 0..50 {
        quick_client.send(&numbered(number)).unwrap();
        let message = quick.next().soon::<R>().await.unwrap();
        quick.send(&message).unwrap();
        assert_eq!(number_of(&quick_client.message().await), number);
    }
    // New ones come in as well.
    let builder = client(&server);
    let (third_client, _third) = meet(&mut server, builder).await;

    assert_eq!(slow.close_reason(), None, "its client is not judged idle");
    for number in 0..sent {
        assert_eq!(number_of(&slow.next().soon::<R>().await.unwrap()), number);
    }
    for client in [slow_client, quick_client, third_client] {
        client.close().soon::<R>().await;
    }
    server.close().soon::<R>().await;
}

pub async fn a_server_is_a_stream_or_a_source_of_sessions_and_not_both<R: Runtime>() {
    let mut server_a = server::<R>().bind().await.unwrap();
    assert!(within::<R, _>(Duration::from_millis(1), server_a.next()).await.is_none());
    let error = server_a.accept().soon::<R>().await.unwrap_err();
    assert_eq!(error, AcceptError::UsedAsStream);
    // The stream goes on.
    let builder = client(&server_a);
    let (line, _) = crate::support::meet(&mut server_a, builder).await;
    line.close().soon::<R>().await;
    server_a.close().soon::<R>().await;

    let mut server_b = server::<R>().bind().await.unwrap();
    assert!(within::<R, _>(Duration::from_millis(1), server_b.accept()).await.is_none());
    assert!(server_b.next().soon::<R>().await.is_none());
    let builder = client(&server_b);
    let (line, _session) = meet(&mut server_b, builder).await;
    line.close().soon::<R>().await;
    server_b.close().soon::<R>().await;
}

pub async fn closing_the_server_ends_its_sessions<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server).max_reconnect_attempts(0);
    let (mut client, mut session) = meet(&mut server, builder).await;
    let handle = server.handle();
    handle.close().soon::<R>().await;
    assert_eq!(session.next().soon::<R>().await, None);
    assert_eq!(session.close_reason(), Some(&CloseReason::ShuttingDown));
    assert_eq!(server.accept().soon::<R>().await.unwrap_err(), AcceptError::Closed);
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
}

pub async fn a_replaced_session_ends_and_does_not_hold_up_its_successor<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let same = wallet();
    let builder = client(&server).wallet(same.clone()).max_send_queue(64 << 10);
    let (old_client, mut old) = meet(&mut server, builder).await;
    // It is read by nobody, and more of its messages are waiting than it has room for.
    send_until_stuck::<R>(900, A_WHILE, |message| old_client.send(message)).await;
    let builder = client(&server).wallet(same);
    let (new_client, new) = meet(&mut server, builder).await;
    assert_eq!(server.client(&new_client.address()).as_ref(), Some(new.peer()));
    assert_eq!(old.close_reason(), Some(&CloseReason::Replaced));
    while old.next().soon::<R>().await.is_some() {}
    assert!(new.is_connected());
    drop(old);
    assert!(new.is_connected(), "the old session's end is not the new one's");
    new_client.send(&numbered(1)).unwrap();
    old_client.close().soon::<R>().await;
    new_client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn only_who_is_let_in_becomes_a_session<R: Runtime>() {
    let friend = wallet();
    let mut server = server::<R>().whitelist([friend.address()]).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let strangers = script(move || {
        drop(raw::dial(at));
        let mut peer = RawPeer::open(at);
        peer.send(&raw::authenticate(&wallet(), raw::unix_millis()));
        peer.until_the_end()
    });
    let builder = client(&server).wallet(friend.clone());
    let accepting = server.accept();
    let coming = async {
        strangers.await;
        builder.connect().await
    };
    let (session, client) = join(accepting, coming).soon::<R>().await;
    assert_eq!(session.unwrap().address(), friend.address());
    let mut client = client.unwrap();
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_program_that_is_slow_to_accept_gets_sessions_in_the_order_of_their_lines<R: Runtime>() {
    let mut server = server::<R>().event_capacity(1).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let builder = client(&server);
    let (first, session) = join(builder.connect(), server.accept()).soon::<R>().await;
    let strangers = script(move || (RawPeer::open(at), RawPeer::open(at), RawPeer::open(at)));
    let (mut filler, mut old, mut new) = strangers.soon::<R>().await;
    until::<R>(|| server.stats().unauthenticated == 3).await;

    // One session fills the queue, and a second one waits for room when its client is back with another line.
    let wallet = wallet();
    let address = wallet.address();
    let login = script(move || {
        filler.send(&raw::authenticate(&self::wallet(), raw::unix_millis()));
        filler.text();
        old.send(&raw::authenticate(&wallet, raw::unix_millis()));
        old.text();
        (filler, old, wallet)
    });
    let (filler, old, wallet) = login.soon::<R>().await;
    let proof = raw::authenticate(&wallet, raw::unix_millis() + 1);
    let back = script(move || {
        new.send(&proof);
        new.text();
        new
    });
    pause::<R>(A_WHILE).await;
    assert_eq!(server.client(&address), None, "the session before has yet to be handed out");
    let taken = async {
        let filling = server.accept().await.unwrap();
        let before = server.accept().await.unwrap();
        let after = server.accept().await.unwrap();
        assert_eq!([before.address(), after.address()], [address; 2]);
        assert!(before.close_reason().is_some() && after.close_reason().is_none());
        (filling, after)
    };
    let (new, taken) = join(back, taken).soon::<R>().await;
    drop((first, session, filler, old, new, taken));
    server.close().soon::<R>().await;
}
