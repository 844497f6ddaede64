//! Dropping a server leaves nothing behind: no task, no socket, no timer, at whatever moment it is dropped. They are
//! counted; and what the program still holds of it, its handles and peers, keeps none of them.

use std::{
    cell::RefCell,
    future::pending,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    pin::pin,
    time::Duration,
};

use futures_channel::mpsc;
use futures_util::{
    StreamExt as _,
    future::{Either, join, join_all, select},
};
use link_driver::{Client, ClientEvent, CloseReason, Runtime, Server, ServerEvent};

use crate::{
    support::{
        counted::{Alive, Counted, counted},
        raw::{self, RawPeer},
        *,
    },
    tls::Authority,
};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn between_any_two_steps_of_its_life<R: Runtime>() {
    counted!(C);
    let kept = RefCell::new(Vec::new());
    let live = || async {
        let mut server = server::<C<R>>().bind().await.unwrap();
        guest::<R>(server.place(), None);
        let peer = server.authenticated().await;
        kept.borrow_mut().push((server.handle(), peer));
        let (peer, message) = server.message().await;
        peer.try_send(&message).unwrap();
        server.disconnected().await;
        server.close().await;
    };
    let polls = C::<R>::dropped_after_each_poll(live).await;
    assert!(polls >= 3, "{polls}");
    assert!(
        kept.into_inner().iter().all(|(handle, peer)| handle.clients().is_empty() && !peer.is_connected())
    );
}

pub async fn between_any_two_steps_of_its_life_over_tls<R: Runtime>() {
    counted!(C);
    let authority = Authority::new();
    let live = || async {
        let mut server = authority.server::<C<R>>("127.0.0.1").bind().await.unwrap();
        guest::<R>(server.place(), Some(&authority));
        server.authenticated().await;
        let (peer, message) = server.message().await;
        peer.try_send(&message).unwrap();
        server.disconnected().await;
        server.close().await;
    };
    let polls = C::<R>::dropped_after_each_poll(live).await;
    assert!(polls >= 3, "{polls}");
}

pub async fn between_any_two_steps_of_its_life_with_a_handler<R: Runtime>() {
    counted!(C);
    let live = || async {
        let (ended, end) = mpsc::unbounded();
        let server = server::<C<R>>().bind().await.unwrap();
        guest::<R>(server.place(), None);
        let serving = server.serve(move |mut session| {
            let ended = ended.clone();
            async move {
                let message = session.next().await.unwrap();
                session.try_send(&message).unwrap();
                assert_eq!(session.next().await, None);
                let _ = ended.unbounded_send(());
            }
        });
        let mut end = end;
        end.next().await.unwrap();
        drop(serving);
        C::<R>::is_empty().await;
    };
    let polls = C::<R>::dropped_after_each_poll(live).await;
    assert!(polls >= 3, "{polls}");
}

/// A client with a life of its own: it says something, hears it again, and goes.
fn guest<R: Runtime>(at: SocketAddr, authority: Option<&Authority>) {
    let mut builder = client_at::<R>(at).max_reconnect_attempts(0);
    if let Some(authority) = authority {
        builder = builder.tls(true).tls_ca(authority.ca());
    }
    let mut client = builder.start().unwrap();
    R::spawn(async move {
        while let Some(event) = client.next().await {
            match event {
                ClientEvent::Authenticated { .. } => client.try_send(numbered(1)).unwrap(),
                ClientEvent::Message(_) => client.disconnect(),
                _ => {}
            }
        }
    });
}

pub async fn before_anybody_asked_it_for_anything<R: Runtime>() {
    counted!(C);
    let server = server::<C<R>>().bind().await.unwrap();
    let waiting = dial_thrice(server.place()).await;
    assert_eq!(C::<R>::alive(), connections(0));
    leaves_nothing(server).await;
    are_at_their_end::<R>(waiting).await;
}

pub async fn with_connections_that_never_upgrade<R: Runtime>() {
    counted!(C);
    let server = server::<C<R>>().auth_timeout(HOUR).bind().await.unwrap();
    let mut silent = dial_thrice(server.place()).await;
    silent[1].write_all(b"GET / HTTP/1.1\r\nHost: lo").unwrap();
    leaves_nothing(with(server, 3).await).await;
    are_at_their_end::<R>(silent).await;
}

pub async fn with_connections_in_the_middle_of_tls<R: Runtime>() {
    counted!(C);
    let authority = Authority::new();
    let server = authority.server::<C<R>>("127.0.0.1").auth_timeout(HOUR).bind().await.unwrap();
    let mut silent = dial_thrice(server.place()).await;
    // The beginning of a `ClientHello`.
    silent[1].write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
    leaves_nothing(with(server, 3).await).await;
    are_at_their_end::<R>(silent).await;
}

pub async fn with_strangers<R: Runtime>() {
    counted!(C);
    let mut server = server::<C<R>>().auth_timeout(HOUR).bind().await.unwrap();
    let at = server.place();
    let opening = script(move || [RawPeer::open(at), RawPeer::open(at)]);
    let strangers = while_it_runs(&mut server, opening.soon::<R>()).await;
    // They answer nothing, not even the close.
    leaves_nothing(with(server, 2).await).await;
    drop(strangers);
}

pub async fn with_clients_whose_check_never_ends<R: Runtime>() {
    counted!(C);
    let (asked, mut questions) = futures_channel::mpsc::unbounded();
    let builder = server::<C<R>>().auth_timeout(HOUR).on_authenticate(move |_| {
        let asked = asked.clone();
        let (dropped, is_dropped) = Dropped::new();
        async move {
            asked.unbounded_send(is_dropped).unwrap();
            pending::<()>().await;
            drop(dropped);
            true
        }
    });
    let mut server = builder.bind().await.unwrap();
    let at = server.place();
    let proving = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&raw::authenticate(&wallet(), raw::unix_millis()));
        peer
    });
    let is_asked = futures_util::StreamExt::next(&mut questions);
    let (peer, is_dropped) = while_it_runs(&mut server, join(proving, is_asked).soon::<R>()).await;
    leaves_nothing(with(server, 1).await).await;
    is_dropped.expect("it was asked").soon::<R>().await;
    drop(peer);
}

pub async fn with_authenticated_clients<R: Runtime>() {
    counted!(C);
    let mut server = server::<C<R>>().bind().await.unwrap();
    let at = server.place();
    let login = script(move || [RawPeer::login(at, &wallet()), RawPeer::login(at, &wallet())]);
    let silent = while_it_runs(&mut server, login.soon::<R>()).await;
    let honest = while_it_runs(&mut server, client_at::<R>(at).connect().soon::<R>()).await.unwrap();
    leaves_nothing(with(server, 3).await).await;
    drop(silent);
    honest.close().soon::<R>().await;
}

pub async fn with_a_client_that_never_reads<R: Runtime>() {
    counted!(C);
    // Nobody else is to notice.
    let builder = server::<C<R>>().send_timeout(Duration::ZERO).idle_timeout(Duration::ZERO);
    let mut server = builder.bind().await.unwrap();
    let (_never_reads, peer) = logged_in(&mut server).await;
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| peer.try_send(message)).await;
    leaves_nothing(with(server, 1).await).await;
}

pub async fn while_nobody_takes_its_events<R: Runtime>() {
    counted!(C);
    let mut server = server::<C<R>>().event_capacity(1).bind().await.unwrap();
    let client = flooded::<C<R>, R>(&mut server).await;
    C::<R>::quiet().await;
    leaves_nothing(server).await;
    client.close().soon::<R>().await;
}

pub async fn after_it_was_closed_by_a_handle<R: Runtime>() {
    counted!(C);
    let mut server = server::<C<R>>().event_capacity(1).bind().await.unwrap();
    let client = flooded::<C<R>, R>(&mut server).await;
    server.handle().close().soon::<R>().await;
    leaves_nothing(server).await;
    client.close().soon::<R>().await;
}

async fn flooded<C: Runtime, R: Runtime>(server: &mut Server<C>) -> Client<R> {
    let connecting = client_at::<R>(server.place()).max_reconnect_attempts(0).connect();
    let (client, _) = join(connecting, server.authenticated()).soon::<R>().await;
    let client = client.unwrap();
    for number in 0..200 {
        client.try_send(numbered(number)).unwrap();
    }
    client
}

pub async fn with_sessions_that_are_held<R: Runtime>() {
    counted!(C);
    let mut lobby = Lobby::new(server::<C<R>>().bind().await.unwrap());
    let (_silent, mut first) = in_session(&mut lobby).await;
    let (_silent_too, second) = in_session(&mut lobby).await;
    let (_silent_as_well, mut third) = in_session(&mut lobby).await;
    C::<R>::reaches(connections(3)).await;
    drop(second);
    C::<R>::reaches(connections(2)).await;
    drop(lobby);
    for session in [&mut first, &mut third] {
        assert_eq!(session.next().soon::<R>().await, None);
        assert_eq!(session.close_reason(), Some(&CloseReason::ShuttingDown));
    }
    // Nothing but the program's own futures is left, and no longer than it lets them go on.
    C::<R>::has_no_streams().await;
    drop((first, third));
    C::<R>::is_empty().await;
}

pub async fn with_a_session_that_has_more_to_read_than_it_can_hold<R: Runtime>() {
    counted!(C);
    let mut lobby = Lobby::new(server::<C<R>>().bind().await.unwrap());
    let (_talking, mut read) = talkative(&mut lobby).await;
    let (_talking_too, mut unread) = talkative(&mut lobby).await;
    pause::<R>(A_WHILE).await;
    drop(lobby);
    // The socket is gone, and the messages that it brought are not.
    C::<R>::has_no_streams().await;
    let mut messages = 0;
    while let Some(message) = read.next().soon::<R>().await {
        messages += 1;
        assert_eq!(number_of(&message), messages);
    }
    assert!(messages > 1, "{messages}");
    assert_eq!(number_of(&unread.next().soon::<R>().await.unwrap()), 1);
    drop((read, unread));
    C::<R>::is_empty().await;
}

pub async fn with_handlers_that_never_end<R: Runtime>() {
    counted!(C);
    let server = server::<C<R>>().bind().await.unwrap();
    let (handle, at) = (server.handle(), server.place());
    let serving = server.serve(|session| async move {
        let _held = session;
        pending::<()>().await;
    });
    // They have more to say than anybody holds for a handler that takes nothing.
    let talking = script(move || {
        let mut peers = [RawPeer::open(at), RawPeer::open(at)];
        peers.iter_mut().for_each(|peer| peer.proves_itself(&wallet()));
        peers.iter_mut().for_each(say_a_lot);
        peers
    });
    let talking = talking.soon::<R>().await;
    until::<R>(|| handle.clients().len() == 2).await;
    pause::<R>(A_WHILE).await;
    drop(serving);
    // They have five seconds.
    C::<R>::is_empty().await;
    drop(talking);
}

/// A session whose client says a lot, from 1 on, and reads nothing.
async fn talkative<C: Runtime>(lobby: &mut Lobby<C>) -> (RawPeer, Held) {
    let (mut peer, session) = in_session(lobby).await;
    let talk = script(move || {
        say_a_lot(&mut peer);
        peer
    });
    (talk.soon::<C>().await, session)
}

fn say_a_lot(peer: &mut RawPeer) {
    (1..100).for_each(|number| peer.send(&numbered(number)));
}

pub async fn whose_next_event_nobody_waits_for_any_more<R: Runtime>() {
    counted!(C);
    let mut server = server::<C<R>>().bind().await.unwrap();
    server.next().not_for_a_while::<R>().await;
    let (_silent, peer) = logged_in(&mut server).await;
    for _ in 0..3 {
        assert!(within::<R, _>(Duration::ZERO, server.told()).await.is_none());
    }
    // It goes on as if nothing had been.
    peer.close();
    assert_eq!(server.disconnected().await.0, peer);
    C::<R>::reaches(connections(0)).await;
    drop(within::<R, _>(Duration::ZERO, server.next()).await);
    leaves_nothing(server).await;
}

pub async fn whose_close_nobody_waits_for_any_more<R: Runtime>() {
    counted!(C);
    let short = Duration::from_millis(100);
    // The client does not answer, so that it takes a while.
    let mut server_a = server::<C<R>>().bind().await.unwrap();
    let (_silent, peer) = logged_in(&mut server_a).await;
    assert!(within::<R, _>(short, server_a.close()).await.is_none());
    C::<R>::is_empty().await;
    assert!(!peer.is_connected());

    // By a handle, and then it goes on to tell the end.
    let mut server_b = server::<C<R>>().bind().await.unwrap();
    let (_silent, peer) = logged_in(&mut server_b).await;
    assert!(within::<R, _>(short, server_b.handle().close()).await.is_none());
    assert_eq!(server_b.disconnected().await.0, peer);
    assert!(matches!(server_b.told().await, Some(ServerEvent::Close)));
    C::<R>::is_empty().await;
    assert!(server_b.told().await.is_none());

    // Without a poll.
    let server_c = server::<C<R>>().bind().await.unwrap();
    drop(server_c.close());
    C::<R>::is_empty().await;
}

/// What a server with so many connections has.
const fn connections(number: usize) -> Alive {
    Alive { tasks: 1 + number, streams: number, listeners: 1, timers: number }
}

/// The server, once it has so many connections.
async fn with<R: Runtime, Tag: 'static>(
    mut server: Server<Counted<R, Tag>>,
    number: usize,
) -> Server<Counted<R, Tag>> {
    while_it_runs(&mut server, Counted::<R, Tag>::reaches(connections(number))).await;
    server
}

/// Takes the server's events while something else goes on.
async fn while_it_runs<R: Runtime, T>(server: &mut Server<R>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Either::Left((done, _)) = select(work.as_mut(), pin!(server.next())).await {
            return done;
        }
    }
}

/// Drops it, and nothing is there any more; though a handle and every peer is.
#[track_caller]
fn leaves_nothing<R: Runtime, Tag: 'static>(server: Server<Counted<R, Tag>>) -> impl Future<Output = ()> {
    let (handle, peers) = (server.handle(), server.clients());
    drop(server);
    let empty = Counted::<R, Tag>::is_empty();
    async move {
        empty.await;
        assert!(handle.clients().is_empty());
        assert!(!peers.iter().any(|peer| peer.is_connected()));
        handle.close().soon::<R>().await;
    }
}

/// A client that says and reads no more.
async fn logged_in<R: Runtime>(server: &mut Server<R>) -> (RawPeer, link_driver::ConnectedClient) {
    let at = server.place();
    let login = script(move || RawPeer::login(at, &wallet()));
    join(login, server.authenticated()).soon::<R>().await
}

async fn in_session<R: Runtime>(lobby: &mut Lobby<R>) -> (RawPeer, Held) {
    let at = lobby.handle.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    join(login, lobby.accept()).soon::<R>().await
}

async fn dial_thrice(at: SocketAddr) -> Vec<TcpStream> {
    script(move || (0..3).map(|_| raw::dial(at)).collect()).await
}

/// The other side has really let go of them: with a reset, where something was not read.
async fn are_at_their_end<R: Runtime>(streams: Vec<TcpStream>) {
    let ends = streams.into_iter().map(|mut stream| {
        script(move || match stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        })
    });
    join_all(ends).soon::<R>().await;
}
