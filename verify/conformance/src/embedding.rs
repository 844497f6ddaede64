//! Within a larger program: listeners, streams and connections that somebody else has made.

use std::{
    error::Error as _,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::{AsyncReadExt, AsyncWriteExt, future::join};
use link_driver::{
    AttachError, BindError, Client, ClientBuilder, CloseReason, ConnectError, DialError, FailureCause,
    NoListener, Overload, Runtime, ServerHandle, http, upgrade_response,
};

use crate::{
    support::{
        raw::{self, RawPeer},
        *,
    },
    tls::Authority,
};

const SHORT: Duration = Duration::from_millis(200);

async fn listener<R: Runtime>() -> (R::Listener, SocketAddr) {
    let listener = R::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let at = R::local_address(&listener).unwrap();
    (listener, at)
}

pub async fn a_server_takes_a_listener_that_somebody_else_bound<R: Runtime>() {
    let (listener, at) = listener::<R>().await;
    // Of the options, only host and port mean nothing.
    let mut server = server::<R>().host([127, 9, 9, 9]).port(1).listen(listener).unwrap();
    assert_eq!(server.local_address(), Ok(at));
    assert_eq!(server.url(), Ok(format!("ws://{at}")));
    let builder = client(&server);
    let (client, peer) = meet(&mut server, builder).await;
    client.try_send(numbered(1)).unwrap();
    assert_eq!(server.message().await.0, peer);
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

/// A small HTTP server of the program's own: takes one connection, and does the upgrade by itself.
async fn upgrade_by_hand<R: Runtime>(listener: &mut R::Listener) -> (R::Stream, SocketAddr) {
    let (mut stream, remote_address) = R::accept(listener).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let mut request = http::Request::builder();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let response = upgrade_response(&request.body("whatever").unwrap()).unwrap();
    let mut answer = format!("HTTP/1.1 {}\r\n", response.status());
    for (name, value) in response.headers() {
        answer += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    (stream, remote_address)
}

/// Connects a client, and attaches its stream.
async fn attach<R: Runtime>(
    handle: &ServerHandle<R>,
    listener: &mut R::Listener,
    client: ClientBuilder<R>,
) -> Client<R> {
    let client = client.start().unwrap();
    let (stream, remote_address) = upgrade_by_hand::<R>(listener).soon::<R>().await;
    handle.attach(stream, remote_address).unwrap();
    client
}

pub async fn a_server_without_a_listener_lives_from_streams_that_others_have_upgraded<R: Runtime>() {
    let (mut listener, at) = listener::<R>().await;
    let mut server = server::<R>().start().unwrap();
    assert_eq!((server.url(), server.local_address()), (Err(NoListener), Err(NoListener)));
    let handle = server.handle();
    let mut lines = Vec::new();
    for number in 0..3 {
        let builder = client_at(at).expect_server(handle.address());
        let attaching = attach::<R>(&handle, &mut listener, builder);
        let (mut client, peer) = join(attaching, server.authenticated()).soon::<R>().await;
        assert_eq!(peer.address(), client.address());
        assert!(is_loopback(peer.remote_address()));
        peer.try_send(numbered(number)).unwrap();
        assert_eq!(number_of(&client.message().await), number);
        client.try_send(numbered(number)).unwrap();
        assert_eq!(number_of(&server.message().await.1), number);
        lines.push(client);
    }
    assert_eq!(handle.broadcast(numbered(9)), Ok(3));
    for client in &mut lines {
        assert_eq!(number_of(&client.message().await), 9);
    }
    server.close().soon::<R>().await;
    for mut client in lines {
        assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
    }
}

pub async fn an_attached_stream_waits_until_the_server_is_polled<R: Runtime>() {
    let (mut listener, at) = listener::<R>().await;
    let server = server::<R>().start().unwrap();
    let mut client = attach::<R>(&server.handle(), &mut listener, client_at(at)).await;
    until::<R>(|| server.clients().is_empty()).await;
    assert!(client.server().is_none());
    // It is there for a handler as well as for who takes the events.
    let mut lobby = Lobby::new(server);
    let session = lobby.accept().soon::<R>().await;
    assert_eq!(session.address(), client.address());
    session.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&client.message().await), 1);
    client.close().soon::<R>().await;
    drop(session);
    lobby.serving.close().soon::<R>().await;
}

pub async fn an_attached_stranger_is_gone_by_the_deadline<R: Runtime>() {
    let (mut listener, at) = listener::<R>().await;
    let mut server = server::<R>().auth_timeout(SHORT).start().unwrap();
    let silent = script(move || RawPeer::open(at).until_the_end());
    let handle = server.handle();
    let attaching = async {
        let (stream, remote_address) = upgrade_by_hand::<R>(&mut listener).await;
        handle.attach(stream, remote_address).unwrap();
    };
    let ((), rejected) = join(attaching, server.rejected()).soon::<R>().await;
    assert_eq!(rejected, (None, CloseReason::AuthenticationTimeout(SHORT)));
    let (said, code) = silent.soon::<R>().await;
    assert_eq!((said, code), (vec!["HTTP/1.1 408 Request Timeout\r\n\r\n".to_owned()], Some(4408)));
    server.close().soon::<R>().await;
}

pub async fn an_attached_stream_that_nobody_asks_for_is_gone_by_the_deadline_too<R: Runtime>() {
    let (mut listener, at) = listener::<R>().await;
    let server = server::<R>().auth_timeout(SHORT).max_unauthenticated(1, 1).start().unwrap();
    let ended = script(move || raw::all_of(RawPeer::open(at).stream()));
    let (stream, remote_address) = upgrade_by_hand::<R>(&mut listener).soon::<R>().await;
    server.handle().attach(stream, remote_address).unwrap();
    assert_eq!((server.stats().accepted, server.stats().unauthenticated), (1, 1));
    // Nobody ever polls the server.
    assert_eq!(ended.soon::<R>().await, "");
    until::<R>(|| server.stats().unauthenticated == 0).await;
    assert_eq!(server.stats().rejected, [("authentication_timeout", 1)].into());
    // Its place is free again.
    let next = script(move || raw::all_of(RawPeer::open(at).stream()));
    let (stream, remote_address) = upgrade_by_hand::<R>(&mut listener).soon::<R>().await;
    server.handle().attach(stream, remote_address).unwrap();
    server.close().soon::<R>().await;
    next.soon::<R>().await;
}

/// A stream of the program's that panics when it is read.
struct Mine;

impl AsyncRead for Mine {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        panic!("on purpose");
    }
}

impl AsyncWrite for Mine {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub async fn a_stream_that_panics_ends_its_own_connection_only<R: Runtime>() {
    let mut server = server::<R>().max_unauthenticated(1, 1).bind().await.unwrap();
    let builder = client(&server);
    let (client, _) = meet(&mut server, builder).await;
    server.handle().attach(Mine, ([127, 0, 0, 1], 1).into()).unwrap();
    assert_eq!(server.rejected().await, (None, CloseReason::Lost));
    until::<R>(|| server.stats().unauthenticated == 0).await;
    assert_eq!(server.stats().rejected, [("lost", 1)].into());
    client.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&server.message().await.1), 1);
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_server_without_a_listener_takes_no_certificate<R: Runtime>() {
    let authority = Authority::new();
    let outcome = authority.server::<R>("127.0.0.1").start();
    assert!(matches!(outcome, Err(BindError::TlsWithoutListener)), "{outcome:?}");
}

pub async fn attached_streams_count_among_the_unauthenticated<R: Runtime>() {
    let (mut listener, at) = listener::<R>().await;
    let server = server::<R>().max_unauthenticated(1, 1).start().unwrap();
    let peers = script(move || {
        let first = RawPeer::open(at);
        (first, RawPeer::open(at))
    });
    let attaching = async {
        let (stream, remote_address) = upgrade_by_hand::<R>(&mut listener).await;
        server.handle().attach(stream, remote_address).unwrap();
        let (stream, remote_address) = upgrade_by_hand::<R>(&mut listener).await;
        assert_eq!(
            server.handle().attach(stream, remote_address),
            Err(AttachError::Overload(Overload::Unauthenticated))
        );
    };
    drop(join(peers, attaching).soon::<R>().await);
    server.close().soon::<R>().await;
}

pub async fn a_closed_server_takes_no_stream<R: Runtime>() {
    let (mut listener, at) = listener::<R>().await;
    let server = server::<R>().start().unwrap();
    let handle = server.handle();
    // One waits, and is let go when the server closes before anybody has polled it.
    let waiting = script(move || {
        let mut peer = RawPeer::open(at);
        raw::all_of(peer.stream())
    });
    let (stream, remote_address) = upgrade_by_hand::<R>(&mut listener).soon::<R>().await;
    handle.attach(stream, remote_address).unwrap();
    server.close().soon::<R>().await;
    assert_eq!(waiting.soon::<R>().await, "");

    let late = script(move || raw::dial(at));
    let (stream, remote_address) = R::accept(&mut listener).soon::<R>().await.unwrap();
    assert_eq!(handle.attach(stream, remote_address), Err(AttachError::Closed));
    drop(late.await);
}

pub async fn extra_headers_are_in_the_request<R: Runtime>() {
    let (listener, at) = raw::listen();
    let head = script(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut piece) = (Vec::new(), [0; 1024]);
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut piece).unwrap();
            head.extend(&piece[..read]);
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    });
    let builder = client_at::<R>(at)
        .header("Authorization", "Bearer abc")
        .header("X-Twice", "one")
        .header("X-Twice", "two")
        .header("Host", "link.example")
        .max_reconnect_attempts(0);
    let (head, outcome) = join(head, builder.connect()).soon::<R>().await;
    for line in ["authorization: bearer abc", "x-twice: one", "x-twice: two", "host: link.example"] {
        assert_eq!(head.lines().filter(|known| known == &line).count(), 1, "{line} in {head}");
    }
    assert_eq!(head.matches("host:").count(), 1, "{head}");
    assert!(matches!(failure(outcome), (FailureCause::Dial(DialError::Upgrade { .. }), _)));
}

pub async fn a_header_that_cannot_be_sent_is_an_error_at_once<R: Runtime>() {
    for (name, value, said) in [
        ("", "value", "invalid header name"),
        ("two words", "value", "invalid header name"),
        ("X-Secret", "line\r\nbreak", "invalid header value"),
        ("Sec-WebSocket-Key", "abc", "the WebSocket handshake sets this header itself"),
        ("upgrade", "h2c", "the WebSocket handshake sets this header itself"),
        ("Connection", "close", "the WebSocket handshake sets this header itself"),
        ("sec-websocket-protocol", "chat", "the WebSocket handshake sets this header itself"),
        ("Content-Length", "12", "the WebSocket handshake sets this header itself"),
        ("Transfer-Encoding", "chunked", "the WebSocket handshake sets this header itself"),
        ("Host", "link.éxample", "Punycode"),
    ] {
        let outcome = Client::<R>::builder().header(name, value).start();
        let Err(error @ ConnectError::Header { .. }) = outcome else { panic!("{name}: {outcome:?}") };
        let text = error.to_string();
        assert!(text.contains(said) && text.contains(&format!("{name:?}")), "{text}");
        assert!(!text.contains(value), "{text}");
    }
    let twice = Client::<R>::builder().header("Host", "a").header("host", "b").start();
    assert!(matches!(twice, Err(ConnectError::Header { .. })));
}

/// A stream of a kind that only the program knows, which counts what it writes.
struct Tunnel<S> {
    stream: S,
    written: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.written.fetch_add(written, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A proxy for one connection after the other, by HTTP CONNECT, to wherever it is asked for.
fn proxy(connections: usize) -> SocketAddr {
    let (listener, at) = raw::listen();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut near, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                near.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
            let mut far = TcpStream::connect(target).unwrap();
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let (mut from_near, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = io::copy(&mut from_near, &mut to_far);
                let _ = to_far.shutdown(std::net::Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = io::copy(&mut far, &mut near);
                let _ = near.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    at
}

/// A client that goes through the proxy, and what counts its dials and its bytes.
fn through<R: Runtime>(
    builder: ClientBuilder<R>,
    proxy: SocketAddr,
) -> (ClientBuilder<R>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (dials, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (dialled, wrote) = (dials.clone(), written.clone());
    let builder = builder.connector(move |destination| {
        dialled.fetch_add(1, Ordering::Relaxed);
        let written = wrote.clone();
        async move {
            let mut stream = R::connect(&proxy.ip().to_string(), proxy.port()).await?;
            let request = format!("CONNECT {}:{} HTTP/1.1\r\n\r\n", destination.host, destination.port);
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            let mut answer = [0; b"HTTP/1.1 200 OK\r\n\r\n".len()];
            stream.read_exact(&mut answer).await?;
            Ok(Tunnel { stream, written })
        }
    });
    (builder, dials, written)
}

pub async fn a_connector_is_asked_each_time_and_its_stream_is_used<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let (builder, dials, written) = through(client(&server), proxy(2));
    let (mut client, peer) = meet(&mut server, builder).await;
    client.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&server.message().await.1), 1);
    assert_eq!(dials.load(Ordering::Relaxed), 1);
    assert!(written.load(Ordering::Relaxed) > 300, "the request and the proof went through it");

    // It comes back the same way.
    peer.close();
    assert_eq!(server.disconnected().await.0, peer);
    server.authenticated().await;
    assert_eq!(dials.load(Ordering::Relaxed), 2);
    client.hears(|event| matches!(event, link_driver::ClientEvent::Reconnecting { .. }).then_some(())).await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn tls_goes_over_a_connectors_stream_as_well<R: Runtime>() {
    let authority = Authority::new();
    let mut server = authority.server::<R>("127.0.0.1").bind().await.unwrap();
    let secure = client(&server).tls(true).tls_ca(authority.ca());
    let (builder, _, written) = through(secure, proxy(1));
    let (mut client, peer) = meet(&mut server, builder).await;
    peer.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&client.message().await), 1);
    assert!(written.load(Ordering::Relaxed) > 300);
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

/// A stream that takes all that is written and sends it when it has been asked to twice, as TLS may.
struct Reluctant<S> {
    stream: S,
    kept: Vec<u8>,
    asked: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Reluctant<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reluctant<S> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, kept, asked } = &mut *self;
        while !kept.is_empty() {
            if !std::mem::replace(asked, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, kept))?;
            kept.drain(..written);
        }
        *asked = false;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

pub async fn what_a_stream_holds_back_leaves_as_soon_as_it_can<R: Runtime>() {
    // Without heartbeats, which would take it along.
    let mut server = server::<R>().heartbeat_interval(Duration::ZERO).bind().await.unwrap();
    let reluctant = client(&server).heartbeat_interval(Duration::ZERO).connector(|destination| async move {
        let stream = R::connect(&destination.host, destination.port).await?;
        Ok(Reluctant { stream, kept: Vec::new(), asked: false })
    });
    let (client, _) = meet(&mut server, reluctant).await;
    // Short, and so long that it is written before its turn is over.
    for (number, bytes) in [(1, 10), (2, 100_000), (3, 10)] {
        client.try_send(numbered_and_long(number, bytes)).unwrap();
        assert_eq!(number_of(&server.message().await.1), number);
    }
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

fn on_purpose() -> io::Error {
    panic!("on purpose")
}

pub async fn what_a_connector_says_or_does_not_say_is_told<R: Runtime>() {
    let refusing = Client::<R>::builder()
        .connector(|_| async { Err::<R::Stream, _>(io::Error::other("the proxy is closed on Sundays")) })
        .max_reconnect_attempts(0);
    let (cause, _) = failure(refusing.connect().soon::<R>().await);
    // What the connector said is the cause of that, and is not said twice.
    let said = cause.source().map(ToString::to_string);
    assert_eq!(cause.to_string(), "cannot connect to localhost:3793");
    assert_eq!(said.as_deref(), Some("the proxy is closed on Sundays"));

    let panicking = Client::<R>::builder()
        .connector(|_| async { Err::<R::Stream, _>(on_purpose()) })
        .max_reconnect_attempts(0);
    let (cause, _) = failure(panicking.connect().soon::<R>().await);
    let said = cause.source().map(ToString::to_string);
    assert_eq!(said.as_deref(), Some("the program's connector panicked"));

    let silent = Client::<R>::builder()
        .connector(|_| std::future::pending::<io::Result<R::Stream>>())
        .connect_timeout(SHORT)
        .max_reconnect_attempts(0);
    let (cause, _) = failure(silent.connect().soon::<R>().await);
    assert!(matches!(cause, FailureCause::Dial(DialError::Timeout { .. })), "{cause}");

    // And it is dropped with the client.
    let (guard, dropped) = Dropped::new();
    let guard = Arc::new(std::sync::Mutex::new(Some(guard)));
    let client = Client::<R>::builder()
        .connector(move |_| {
            let guard = guard.lock().unwrap().take();
            async move {
                let _guard = guard;
                std::future::pending::<io::Result<R::Stream>>().await
            }
        })
        .start()
        .unwrap();
    until::<R>(|| true).await;
    drop(client);
    dropped.soon::<R>().await;
}
