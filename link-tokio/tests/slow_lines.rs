//! Lines that are slow, stuck or broken in one direction, in memory and in virtual time: loopback is too fast to show what
//! becomes of the messages that wait when a connection is closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use link_driver::{
    Client, ClientBuilder, ClientEvent, CloseReason, ConnectedClient, Runtime, SendError, Server,
    ServerBuilder, ServerEvent, new_wallet,
};
use link_tokio::{Tokio, TokioAsyncReadCompatExt};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    sync::mpsc,
    time::{sleep, timeout},
};

/// tokio's tasks and timers, with streams in memory.
struct InMemory;

type Compat<S> = link_tokio::Compat<S>;

impl Runtime for InMemory {
    type Stream = Compat<DuplexStream>;
    type Listener = mpsc::UnboundedReceiver<DuplexStream>;
    type Timer = <Tokio as Runtime>::Timer;

    async fn connect(_: &str, _: u16) -> io::Result<Self::Stream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn bind(_: SocketAddr) -> io::Result<Self::Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn local_address(_: &Self::Listener) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        match listener.recv().await {
            Some(stream) => Ok((stream.compat(), (Ipv4Addr::LOCALHOST, 2).into())),
            None => std::future::pending().await,
        }
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        Tokio::spawn(task);
    }

    fn timer() -> Self::Timer {
        Tokio::timer()
    }

    fn now() -> Instant {
        Tokio::now()
    }
}

/// Bytes that a slow direction passes on at a time, ten times a second.
const PIECE: usize = 4 << 10;
/// Bytes that come through twice a second where hardly anything does.
const DROP: usize = 64;
/// Bytes that wait between two ends.
const PIPE: usize = 16 << 10;
/// No test takes longer than that in virtual time, unless something is stuck.
const SOON: Duration = Duration::from_secs(600);

/// How a direction passes bytes on.
#[derive(Clone)]
enum Pace {
    Fast,
    Slow,
    /// Fast, until it is stuck for good.
    Until(Arc<AtomicBool>),
    /// Fast, until hardly anything comes through.
    DripsAfter(Arc<AtomicBool>),
}

async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, pace: Pace) {
    let mut piece = [0; PIECE];
    loop {
        let drips = matches!(&pace, Pace::DripsAfter(drips) if drips.load(Ordering::Relaxed));
        let most = if drips { DROP } else { PIECE };
        let Ok(read @ 1..) = from.read(&mut piece[..most]).await else { break };
        match &pace {
            Pace::Fast => {}
            Pace::Slow => sleep(Duration::from_millis(100)).await,
            Pace::Until(stuck) if stuck.load(Ordering::Relaxed) => std::future::pending().await,
            Pace::DripsAfter(_) if drips => sleep(Duration::from_millis(500)).await,
            Pace::Until(_) | Pace::DripsAfter(_) => {}
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}

/// A client and a server with a line between them that passes on what each of them sends at that pace.
async fn meet(
    server: ServerBuilder<InMemory>,
    client: ClientBuilder<InMemory>,
    from_client: Pace,
    from_server: Pace,
) -> (Client<InMemory>, Server<InMemory>, ConnectedClient) {
    let (accept, listener) = mpsc::unbounded_channel();
    let mut server = server.listen(listener).unwrap();
    let client = over_a_line(client, accept, from_client, from_server);
    let authenticated = async {
        loop {
            if let Some(ServerEvent::Authenticated(peer)) = server.next().await {
                return peer;
            }
        }
    };
    let (client, peer) = tokio::join!(client.connect(), authenticated);
    (client.unwrap(), server, peer)
}

/// A client with a line to whoever accepts the other end, which passes on what each of them sends at that pace.
fn over_a_line(
    client: ClientBuilder<InMemory>,
    accept: mpsc::UnboundedSender<DuplexStream>,
    from_client: Pace,
    from_server: Pace,
) -> ClientBuilder<InMemory> {
    client.max_reconnect_attempts(0).connector(move |_| {
        let ((near, one), (other, far)) = (tokio::io::duplex(PIPE), tokio::io::duplex(PIPE));
        let ((up, to_client), (down, to_server)) = (tokio::io::split(one), tokio::io::split(other));
        tokio::spawn(pass_on(up, to_server, from_client.clone()));
        tokio::spawn(pass_on(down, to_client, from_server.clone()));
        accept.send(far).unwrap();
        std::future::ready(Ok(near.compat()))
    })
}

/// A message of 10 KiB with a number.
fn long(number: u32) -> serde_json::Value {
    json!({ "type": "long", "number": number, "fill": "x".repeat(10 << 10) })
}

/// The numbers of the messages that a server gets, and how the connection ends.
async fn heard_by_server(server: &mut Server<InMemory>) -> (Vec<u64>, CloseReason) {
    let mut numbers = Vec::new();
    loop {
        match timeout(SOON, server.next()).await.expect("nothing is stuck").expect("it is open") {
            ServerEvent::Message(_, message) => {
                numbers.push(message.json::<serde_json::Value>().unwrap()["number"].as_u64().unwrap());
            }
            ServerEvent::Disconnected(_, reason) => return (numbers, reason),
            _ => {}
        }
    }
}

/// The same, of a client.
async fn heard_by_client(client: &mut Client<InMemory>) -> (Vec<u64>, CloseReason) {
    let mut numbers = Vec::new();
    loop {
        match timeout(SOON, client.next()).await.expect("nothing is stuck").expect("it is open") {
            ClientEvent::Message(message) => {
                numbers.push(message.json::<serde_json::Value>().unwrap()["number"].as_u64().unwrap());
            }
            ClientEvent::Disconnected { reason, .. } => return (numbers, reason),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sent_before_it_closed_arrives_however_slow_the_line_is() {
    let (client, mut server, _peer) =
        meet(Server::builder(), Client::builder(), Pace::Slow, Pace::Fast).await;
    for number in 0..100 {
        client.try_send(long(number)).unwrap();
    }
    let (_, (numbers, reason)) = tokio::join!(client.close(), heard_by_server(&mut server));
    assert_eq!(numbers, Vec::from_iter(0..100));
    assert_eq!(reason, CloseReason::PeerClosed { code: Some(1000) });
    server.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_sent_before_it_closed_a_connection_arrives_however_slow_the_line_is() {
    let (mut client, server, peer) = meet(Server::builder(), Client::builder(), Pace::Fast, Pace::Slow).await;
    for number in 0..100 {
        peer.try_send(long(number)).unwrap();
    }
    peer.close();
    let (numbers, reason) = heard_by_client(&mut client).await;
    assert_eq!(numbers, Vec::from_iter(0..100));
    assert_eq!(reason, CloseReason::PeerClosed { code: Some(1000) });
    server.close().await;
}

#[tokio::test(start_paused = true)]
async fn two_sides_that_close_with_much_to_say_do_not_wait_for_one_another() {
    let (client, server, peer) = meet(Server::builder(), Client::builder(), Pace::Fast, Pace::Fast).await;
    for number in 0..200 {
        peer.try_send(long(number)).unwrap();
        client.try_send(long(number)).unwrap();
    }
    peer.close();
    let began = tokio::time::Instant::now();
    timeout(SOON, client.close()).await.expect("it closes");
    timeout(SOON, server.close()).await.expect("it closes");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "one waits for the other until its patience is over: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn two_sides_that_close_while_their_programs_are_behind_do_not_wait_for_one_another() {
    let (client, server, peer) = meet(Server::builder(), Client::builder(), Pace::Fast, Pace::Fast).await;
    // More than may wait for a program.
    for number in 0..200 {
        peer.try_send(long(number)).unwrap();
        client.try_send(long(number)).unwrap();
    }
    sleep(Duration::from_secs(2)).await;
    peer.close();
    client.disconnect();
    let began = tokio::time::Instant::now();
    while server.stats().authenticated > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "one waits for the other until its patience is over: {took:?}");
    server.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_stuck_can_be_closed_though_no_send_timeout_is_set() {
    let stuck = Arc::new(AtomicBool::new(false));
    let server = Server::builder()
        .send_timeout(Duration::ZERO)
        .idle_timeout(Duration::ZERO)
        .heartbeat_interval(Duration::ZERO);
    let client = Client::builder().idle_timeout(Duration::ZERO).heartbeat_interval(Duration::ZERO);
    let (_client, mut server, peer) = meet(server, client, Pace::Fast, Pace::Until(stuck.clone())).await;
    stuck.store(true, Ordering::Relaxed);
    for number in 0..100 {
        peer.try_send(long(number)).unwrap();
    }
    // It is stuck by now.
    sleep(Duration::from_secs(60)).await;
    peer.close();
    let (_, reason) = heard_by_server(&mut server).await;
    assert_eq!(reason, CloseReason::Local);
    server.close().await;
}

/// A stream that cannot be written to from some moment on, and then has much to be read at once.
struct Broken {
    inner: DuplexStream,
    broken: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
}

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Broken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken.load(Ordering::Relaxed) {
            self.held.store(false, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_said_before_writing_to_it_failed_is_heard_however_long_it_is() {
    let (accept, listener) = mpsc::unbounded_channel();
    let mut server =
        Server::<InMemory>::builder().heartbeat_interval(Duration::ZERO).listen(listener).unwrap();
    let (broken, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let client = Client::<InMemory>::builder()
        .max_reconnect_attempts(0)
        .heartbeat_interval(Duration::ZERO)
        .connector({
            let (broken, held) = (broken.clone(), held.clone());
            move |_| {
                // As much as the system holds for a peer that does not read.
                let (near, far) = tokio::io::duplex(2 << 20);
                accept.send(far).unwrap();
                let stream = Broken { inner: near, broken: broken.clone(), held: held.clone() };
                std::future::ready(Ok(stream.compat()))
            }
        });
    let authenticated = async {
        loop {
            if let Some(ServerEvent::Authenticated(peer)) = server.next().await {
                return peer;
            }
        }
    };
    let (client, peer) = tokio::join!(client.connect(), authenticated);
    let mut client = client.unwrap();
    held.store(true, Ordering::Relaxed);
    peer.try_send(json!({ "type": "long", "number": 1, "fill": "x".repeat(900 << 10) })).unwrap();
    // It lies there, whole.
    sleep(Duration::from_secs(1)).await;
    broken.store(true, Ordering::Relaxed);
    client.try_send(json!({ "type": "lost" })).unwrap();
    let (numbers, reason) = heard_by_client(&mut client).await;
    assert_eq!(numbers, [1]);
    assert_eq!(reason, CloseReason::Lost);
    server.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_let_in_at_once_though_the_old_line_is_stuck_and_its_handler_hears_of_that_at_once()
{
    for closes_before in [false, true] {
        let (accept, listener) = mpsc::unbounded_channel();
        let beat = Duration::from_secs(20);
        let server = Server::<InMemory>::builder()
            .heartbeat_interval(beat)
            .idle_timeout(3 * beat)
            .listen(listener)
            .unwrap();
        let handle = server.handle();
        let (began, mut beginnings) = mpsc::unbounded_channel();
        let (ended, mut ends) = mpsc::unbounded_channel();
        let serving = server.serve(move |mut session| {
            let (began, ended) = (began.clone(), ended.clone());
            async move {
                began.send(session.client().clone()).unwrap();
                while session.next().await.is_some() {}
                ended.send(session.close_reason().cloned()).unwrap();
            }
        });
        let wallet = new_wallet().unwrap();
        let client = |pace: Pace| {
            let builder = Client::builder().wallet(wallet.clone());
            over_a_line(builder, accept.clone(), pace.clone(), pace).connect()
        };
        let stuck = Arc::new(AtomicBool::new(false));
        let first = client(Pace::Until(stuck.clone())).await.unwrap();
        let peer = beginnings.recv().await.unwrap();
        stuck.store(true, Ordering::Relaxed);
        if closes_before {
            (0..20).for_each(|number| peer.try_send(long(number)).unwrap());
            peer.close();
        }
        // Somewhere between two beats.
        sleep(Duration::from_millis(3_700)).await;
        let comes_back = tokio::time::Instant::now();
        let second = client(Pace::Fast).await.unwrap();
        assert_ne!(beginnings.recv().await.unwrap().id(), peer.id());
        // All that was sent before the close has been handed over, and is on its way for as long as it takes.
        let reason = if closes_before { CloseReason::Local } else { CloseReason::Replaced };
        assert_eq!(ends.recv().await, Some(Some(reason)));
        assert_eq!(tokio::time::Instant::now(), comes_back, "{closes_before}");
        drop(first);
        tokio::join!(second.close(), handle.close());
        drop(serving);
    }
}

/// What a client that still takes some of what was said to it each second, for hours, does to a server that is closed.
#[tokio::test(start_paused = true)]
async fn a_closed_server_waits_for_a_dripping_client_ten_seconds_and_tells_its_end_last() {
    let drips = Arc::new(AtomicBool::new(false));
    let pace = Pace::DripsAfter(drips.clone());
    let (client, mut server, peer) = meet(
        Server::builder().idle_timeout(Duration::ZERO),
        Client::builder().idle_timeout(Duration::ZERO),
        Pace::Fast,
        pace,
    )
    .await;
    drips.store(true, Ordering::Relaxed);
    (0..100).for_each(|number| peer.try_send(long(number)).unwrap());
    sleep(Duration::from_secs(1)).await;
    let handle = server.handle();
    let began = tokio::time::Instant::now();
    let events = async {
        let mut told = Vec::new();
        while let Some(event) = timeout(SOON, server.next()).await.expect("it ends") {
            told.push(event);
        }
        told
    };
    let (told, ()) = tokio::join!(events, handle.close());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let [.., ServerEvent::Disconnected(_, reason), ServerEvent::Close] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(*reason, CloseReason::SlowPeer);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn the_future_of_a_server_that_serves_ends_though_a_client_drips() {
    let drips = Arc::new(AtomicBool::new(false));
    let (accept, listener) = mpsc::unbounded_channel();
    let server = Server::<InMemory>::builder().idle_timeout(Duration::ZERO).listen(listener).unwrap();
    let (handle, pace) = (server.handle(), Pace::DripsAfter(drips.clone()));
    let (ended, mut end) = mpsc::unbounded_channel();
    let serving = server.serve(move |mut session| {
        drips.store(true, Ordering::Relaxed);
        (0..100).for_each(|number| session.try_send(long(number)).unwrap());
        let ended = ended.clone();
        async move {
            while session.next().await.is_some() {}
            ended.send(session.close_reason().cloned()).unwrap();
        }
    });
    let client =
        over_a_line(Client::<InMemory>::builder().idle_timeout(Duration::ZERO), accept, Pace::Fast, pace)
            .start()
            .unwrap();
    sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    let (closed, served) = (timeout(SOON, handle.close()), timeout(SOON, serving));
    let (closed, served) = tokio::join!(closed, served);
    closed.and(served).expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(end.recv().await, Some(Some(CloseReason::SlowPeer)));
    drop(client);
}

/// Sessions that a handler has given away: it ends at once, or it does not end when its server is closed.
#[tokio::test(start_paused = true)]
async fn a_session_in_another_task_hears_of_the_end_however_much_it_has_not_read() {
    for handler_ends in [true, false] {
        let (accept, listener) = mpsc::unbounded_channel();
        let server = Server::<InMemory>::builder().listen(listener).unwrap();
        let handle = server.handle();
        let (gives, mut given) = mpsc::unbounded_channel();
        let serving = server.serve(move |session| {
            let gives = gives.clone();
            async move {
                gives.send(session).unwrap();
                sleep(Duration::from_secs(1)).await;
                if !handler_ends {
                    std::future::pending::<()>().await;
                }
            }
        });
        let client = over_a_line(Client::<InMemory>::builder(), accept, Pace::Fast, Pace::Fast);
        let client = client.connect().await.unwrap();
        let mut session = given.recv().await.unwrap();
        (0..400).for_each(|number| client.try_send(json!({ "number": number })).unwrap());
        sleep(Duration::from_secs(2)).await;
        if !handler_ends {
            handle.close().await;
        }
        let mut messages = 0;
        while let Some(message) = timeout(SOON, session.next()).await.expect("it hears of the end") {
            assert_eq!(message.json::<serde_json::Value>().unwrap()["number"], messages);
            messages += 1;
        }
        let expected = if handler_ends { CloseReason::Local } else { CloseReason::ShuttingDown };
        assert_eq!(session.close_reason(), Some(&expected));
        // As much as was read.
        assert!((128..400).contains(&messages), "{messages}");
        drop((session, client, serving));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_has_not_taken_is_bounded_by_a_mebibyte_and_one_message_wherever_it_waits() {
    let (accept, listener) = mpsc::unbounded_channel();
    let server = Server::<InMemory>::builder().idle_timeout(Duration::ZERO).listen(listener).unwrap();
    let handle = server.handle();
    let (takes, taking) = mpsc::unbounded_channel::<()>();
    let taking = Arc::new(tokio::sync::Mutex::new(taking));
    let serving = server.serve(move |mut session| {
        let taking = taking.clone();
        async move {
            while taking.lock().await.recv().await.is_some() {
                session.next().await;
            }
        }
    });
    let client =
        over_a_line(Client::<InMemory>::builder().max_send_queue(usize::MAX), accept, Pace::Fast, Pace::Fast);
    let client = client.connect().await.unwrap();
    let message = json!({ "fill": "x".repeat(400 << 10) });
    let length = serde_json::to_string(&message).unwrap().len() as u64;
    (0..50).for_each(|_| client.try_send(&message).unwrap());
    for taken in 0..20 {
        sleep(Duration::from_secs(1)).await;
        let unread = handle.stats().messages_received - taken;
        assert!((2..=3).contains(&unread), "{unread} of {length} bytes, after {taken}");
        takes.send(()).unwrap();
    }
    drop(takes);
    tokio::join!(client.close(), handle.close());
    drop(serving);
}

/// What it finds that `whoever_waits_for_room_hears_of_the_end` cannot: the handler is in the very task that it waits for.
#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_for_room_hears_of_the_end_and_costs_nothing_meanwhile() {
    for end in ["the client leaves", "it takes nothing", "it is replaced"] {
        let (accept, listener) = mpsc::unbounded_channel();
        let server =
            Server::<InMemory>::builder().heartbeat_interval(Duration::ZERO).idle_timeout(Duration::ZERO);
        let server = server.max_send_queue(64 << 10).listen(listener).unwrap();
        let handle = server.handle();
        let (ended, mut ends) = mpsc::unbounded_channel();
        let serving = server.serve(move |session| {
            let ended = ended.clone();
            async move {
                let mut polls = 0;
                let error = loop {
                    let mut sending = std::pin::pin!(session.send(long(0)));
                    let sent = std::future::poll_fn(|cx| {
                        polls += 1;
                        assert!(polls < 1_000, "it is polled again and again");
                        sending.as_mut().poll(cx)
                    });
                    if let Err(error) = sent.await {
                        break error;
                    }
                };
                ended.send(error).unwrap();
            }
        });
        let wallet = new_wallet().unwrap();
        let stuck = Arc::new(AtomicBool::new(false));
        let client = |pace: Pace| {
            let builder = Client::builder().wallet(wallet.clone()).idle_timeout(Duration::ZERO);
            over_a_line(builder, accept.clone(), Pace::Fast, pace).connect()
        };
        let first = client(Pace::Until(stuck.clone())).await.unwrap();
        stuck.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(5)).await;
        assert!(ends.try_recv().is_err(), "{end}");
        let mut others = Vec::new();
        match end {
            "the client leaves" => first.disconnect(),
            "it is replaced" => others.push(client(Pace::Fast).await.unwrap()),
            _ => {}
        }
        let told = timeout(Duration::from_secs(60), ends.recv()).await.expect(end);
        assert_eq!(told, Some(SendError::Closed), "{end}");
        drop((first, others));
        handle.close().await;
        drop(serving);
    }
}
