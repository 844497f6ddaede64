//! A server that serves: a handler for each client, in the connection's own task.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::{FutureExt as _, future::join};
use link_driver::{
    ClientEvent, CloseReason, Overload, Runtime, SendError, ServerError, ServerEvent, Session,
};

use crate::support::{
    raw::{self, RawPeer},
    *,
};

pub async fn a_handler_for_each_client_echoes<R: Runtime>() {
    let server = server::<R>().bind().await.unwrap();
    let handle = server.handle();
    let serving = server.serve(|mut session| async move {
        while let Some(message) = session.next().await {
            session.send(&message).await?;
        }
        Ok::<_, SendError>(())
    });
    R::spawn(serving);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(&handle).connect().soon::<R>().await.unwrap());
    }
    for number in 0..100 {
        for client in &clients {
            client.try_send(numbered(number)).unwrap();
        }
    }
    for client in &mut clients {
        for number in 0..100 {
            assert_eq!(number_of(&client.message().await), number);
        }
    }
    assert_eq!(handle.broadcast(numbered(100)), Ok(3));
    for mut client in clients {
        assert_eq!(number_of(&client.message().await), 100);
        client.close().soon::<R>().await;
    }
    handle.close().soon::<R>().await;
}

pub async fn the_end_of_a_handler_closes_its_connection_once_everything_is_out<R: Runtime>() {
    let server = server::<R>().bind().await.unwrap();
    let handle = server.handle();
    let serving = server.serve(|mut session| async move {
        let message = session.next().await.unwrap();
        for _ in 0..number_of(&message) {
            session.try_send(&message).unwrap();
        }
    });
    let mut line = client(&handle).max_reconnect_attempts(0).connect().soon::<R>().await.unwrap();
    line.try_send(numbered(1000)).unwrap();
    for _ in 0..1000 {
        line.message().await;
    }
    assert_eq!(line.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    until::<R>(|| handle.clients().is_empty()).await;
    serving.close().soon::<R>().await;
}

pub async fn a_handler_that_fails_or_panics_ends_its_own_connection_only<R: Runtime>() {
    let server = server::<R>().bind().await.unwrap();
    let handle = server.handle();
    let serving = server.serve(|mut session| async move {
        while let Some(message) = session.next().await {
            match number_of(&message) {
                1 => return Err("on purpose"),
                // Without a line on stderr.
                2 => std::panic::resume_unwind(Box::new("on purpose")),
                _ => session.try_send(&message).unwrap(),
            }
        }
        Ok(())
    });
    let mut bystander = client(&handle).connect().soon::<R>().await.unwrap();
    for number in [1, 2] {
        let mut line = client(&handle).max_reconnect_attempts(0).connect().soon::<R>().await.unwrap();
        line.try_send(numbered(number)).unwrap();
        assert_eq!(line.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    }
    bystander.try_send(numbered(3)).unwrap();
    assert_eq!(number_of(&bystander.message().await), 3);
    bystander.close().soon::<R>().await;
    serving.close().soon::<R>().await;
}

pub async fn what_is_not_about_one_session_is_told_beside_the_handlers<R: Runtime>() {
    let friend = wallet();
    let builder = server::<R>().whitelist([friend.address()]).max_unauthenticated(1, 1);
    let mut lobby = Lobby::new(builder.bind().await.unwrap());
    let at = lobby.handle.local_address().unwrap();
    let stranger = wallet();
    let address = stranger.address();
    let refused = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&raw::authenticate(&stranger, raw::unix_millis()));
        peer.until_the_end()
    });
    let (told, _) = join(lobby.serving.next(), refused).soon::<R>().await;
    let Some(ServerEvent::Rejected(rejected)) = told else { panic!("{told:?}") };
    assert_eq!(rejected.address, Some(address));

    until::<R>(|| lobby.handle.stats().unauthenticated == 0).await;
    let (_has_the_place, _) = script(move || (raw::dial(at), raw::dial(at))).soon::<R>().await;
    match lobby.serving.next().soon::<R>().await {
        Some(ServerEvent::Error(ServerError::TurnedAway { overload, .. })) => {
            assert_eq!(overload, Overload::Unauthenticated);
        }
        other => panic!("{other:?}"),
    }
    let handle = lobby.handle.clone();
    let (_, told) = join(handle.close(), async {
        loop {
            match lobby.serving.next().await {
                Some(ServerEvent::Rejected(_)) => {}
                other => return other,
            }
        }
    })
    .soon::<R>()
    .await;
    assert!(matches!(told, Some(ServerEvent::Close)), "{told:?}");
    assert!(lobby.serving.next().soon::<R>().await.is_none());
}

pub async fn a_session_works_from_another_task_and_ends_with_its_connection_and_says_how<R: Runtime>() {
    let mut lobby = Lobby::new(server::<R>().bind().await.unwrap());
    let builder = client(&lobby.handle);
    let (client, mut session) = lobby.meet(builder).await;
    assert_eq!(session.address(), client.address());
    assert_eq!(session.client(), &lobby.handle.client(&client.address()).unwrap());
    assert_eq!(session.close_reason(), None);
    for number in 0..200 {
        client.try_send(numbered(number)).unwrap();
    }
    client.close().soon::<R>().await;
    // What was sent before the end is still read, though the connection is gone.
    for number in 0..200 {
        assert_eq!(number_of(&session.next().soon::<R>().await.unwrap()), number);
    }
    assert_eq!(session.next().soon::<R>().await, None);
    assert_eq!(session.close_reason(), Some(&CloseReason::PeerClosed { code: Some(1000) }));
    assert_eq!(session.try_send(numbered(0)), Err(SendError::Closed));
    drop(session);
    lobby.serving.close().soon::<R>().await;
}

pub async fn dropping_a_session_ends_the_connection<R: Runtime>() {
    let mut lobby = Lobby::new(server::<R>().bind().await.unwrap());
    let builder = client(&lobby.handle).max_reconnect_attempts(0);
    let (mut client, session) = lobby.meet(builder).await;
    session.try_send(numbered(1)).unwrap();
    drop(session);
    assert_eq!(number_of(&client.message().await), 1, "what was sent before comes first");
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    until::<R>(|| lobby.handle.clients().is_empty()).await;
    client.close().soon::<R>().await;
    lobby.serving.close().soon::<R>().await;
}

pub async fn dropping_a_session_whose_client_is_stuck_ends_it_as_well<R: Runtime>() {
    // The client talks, and nobody took its messages; then the program lets go.
    let mut lobby = Lobby::new(server::<R>().bind().await.unwrap());
    let builder = client(&lobby.handle).max_send_queue(64 << 10).max_reconnect_attempts(0);
    let (mut client, session) = lobby.meet(builder).await;
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.try_send(message)).await;
    drop(session);
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1000) });
    until::<R>(|| lobby.handle.clients().is_empty()).await;
    lobby.serving.close().soon::<R>().await;
}

pub async fn a_slow_session_stalls_nobody_else<R: Runtime>() {
    let short = Duration::from_secs(1);
    let builder = server::<R>().idle_timeout(short).heartbeat_interval(short / 5);
    let mut lobby = Lobby::new(builder.bind().await.unwrap());
    let builder = client(&lobby.handle).max_send_queue(256 << 10).idle_timeout(PATIENCE * 2);
    let (slow_client, mut slow) = lobby.meet(builder).await;
    let builder = client(&lobby.handle);
    let (mut quick_client, mut quick) = lobby.meet(builder).await;

    let sent = send_until_stuck::<R>(16 << 10, short * 2, |message| slow_client.try_send(message)).await;
    for number in 0..50 {
        quick_client.try_send(numbered(number)).unwrap();
        let message = quick.next().soon::<R>().await.unwrap();
        quick.try_send(&message).unwrap();
        assert_eq!(number_of(&quick_client.message().await), number);
    }
    // New ones come in as well.
    let builder = client(&lobby.handle);
    let (third_client, third) = lobby.meet(builder).await;

    assert_eq!(slow.close_reason(), None, "its client is not judged idle");
    for number in 0..sent {
        assert_eq!(number_of(&slow.next().soon::<R>().await.unwrap()), number);
    }
    for client in [slow_client, quick_client, third_client] {
        client.close().soon::<R>().await;
    }
    drop((slow, quick, third));
    lobby.serving.close().soon::<R>().await;
}

pub async fn a_handler_that_waits_for_something_else_takes_what_came_meanwhile_in_order<R: Runtime>() {
    // More than one turn brings, and more than may wait: the rest is read as soon as there is room.
    const MANY: usize = 2_000;
    let server = server::<R>().bind().await.unwrap();
    let handle = server.handle();
    let serving = server.serve(|mut session| async move {
        pause::<R>(A_WHILE).await;
        for number in 0..MANY {
            assert_eq!(number_of(&session.next().await.unwrap()), number);
        }
        session.try_send(numbered(MANY)).unwrap();
        pending::<()>().await;
    });
    let mut line = client(&handle).connect().soon::<R>().await.unwrap();
    for number in 0..MANY {
        line.try_send(numbered(number)).unwrap();
    }
    assert_eq!(number_of(&line.message().await), MANY);
    line.close().soon::<R>().await;
    serving.close().soon::<R>().await;
}

pub async fn closing_the_server_ends_its_sessions_and_waits_for_their_handlers<R: Runtime>() {
    let mut lobby = Lobby::new(server::<R>().bind().await.unwrap());
    let builder = client(&lobby.handle).max_reconnect_attempts(0);
    let (mut client, mut session) = lobby.meet(builder).await;
    let closed = lobby.handle.close();
    let ended = async {
        assert_eq!(session.next().await, None);
        assert_eq!(session.close_reason(), Some(&CloseReason::ShuttingDown));
        drop(session);
    };
    join(closed, ended).soon::<R>().await;
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
    lobby.serving.soon::<R>().await;
}

pub async fn a_replaced_session_ends_and_does_not_hold_up_its_successor<R: Runtime>() {
    let mut lobby = Lobby::new(server::<R>().bind().await.unwrap());
    let same = wallet();
    let builder = client(&lobby.handle).wallet(same.clone()).max_send_queue(64 << 10);
    let (old_client, mut old) = lobby.meet(builder).await;
    // It is read by nobody, and more of its messages are waiting than it has room for.
    send_until_stuck::<R>(900, A_WHILE, |message| old_client.try_send(message)).await;
    let builder = client(&lobby.handle).wallet(same);
    let (new_client, new) = lobby.meet(builder).await;
    assert_eq!(lobby.handle.client(&new_client.address()).as_ref(), Some(new.client()));
    assert_eq!(old.close_reason(), Some(&CloseReason::Replaced));
    while old.next().soon::<R>().await.is_some() {}
    assert!(new.client().is_connected());
    drop(old);
    assert!(new.client().is_connected(), "the old session's end is not the new one's");
    new_client.try_send(numbered(1)).unwrap();
    old_client.close().soon::<R>().await;
    new_client.close().soon::<R>().await;
    drop(new);
    lobby.serving.close().soon::<R>().await;
}

pub async fn who_was_asked_for_events_does_not_serve<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    assert!(server.next().now_or_never().is_none());
    let served = catch_unwind(AssertUnwindSafe(|| server.serve(|_session: Session| async {})));
    let said = served.unwrap_err().downcast::<&str>().unwrap();
    assert!(said.contains("call `serve` before `next`"), "{said}");
}

pub async fn only_who_is_let_in_becomes_a_session<R: Runtime>() {
    let friend = wallet();
    let mut lobby = Lobby::new(server::<R>().whitelist([friend.address()]).bind().await.unwrap());
    let at = lobby.handle.local_address().unwrap();
    let strangers = script(move || {
        drop(raw::dial(at));
        let mut peer = RawPeer::open(at);
        peer.send(&raw::authenticate(&wallet(), raw::unix_millis()));
        peer.until_the_end()
    });
    strangers.soon::<R>().await;
    let builder = client(&lobby.handle).wallet(friend.clone());
    let (mut client, session) = lobby.meet(builder).await;
    assert_eq!(session.address(), friend.address());
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    drop(session);
    client.close().soon::<R>().await;
    lobby.serving.close().soon::<R>().await;
}
