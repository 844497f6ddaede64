//! Link on async-std: two programs that know each other only by wallet address get an authenticated, live line over
//! a WebSocket, with heartbeats, time-outs, reconnection, and a server that knows who is there.
//!
//! **async-std is discontinued upstream** (RUSTSEC-2025-0052): take this crate to keep a program that uses it
//! going, and `link-smol` or `link-tokio` for a new one. The face is the same, so moving is a matter of names.
//!
//! ```
//! use link_async_std::{Client, ClientEvent, Server, ServerEvent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! async_std::task::block_on(async {
//!     let mut server = Server::builder().host([127, 0, 0, 1]).port(0).bind().await?;
//!     let url = server.url()?;
//!     async_std::task::spawn(async move {
//!         while let Some(event) = server.next().await {
//!             if let ServerEvent::Message(client, message) = event {
//!                 client.try_send(&message).ok();
//!             }
//!         }
//!     });
//!
//!     let mut client = Client::builder().url(&url).connect().await?;
//!     client.send(serde_json::json!({ "type": "greeting", "text": "hello" })).await?;
//!     while let Some(event) = client.next().await {
//!         if let ClientEvent::Message(message) = event {
//!             println!("{message}");
//!             break;
//!         }
//!     }
//!     client.close().await;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! Everything here is [`link_driver`] on this runtime: the types are named for [`AsyncStd`], the rest is re-exported.
//! What the crate page of `link-tokio` says about sessions, admission and slow sides holds here as well, name for name; the
//! [`manual`] has a page each on embedding, observability, features, and moving between runtimes.

#![forbid(unsafe_code)]

use std::{
    fmt,
    future::Future,
    io,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use async_std::net::{TcpListener, TcpStream, ToSocketAddrs};
use futures_io::{AsyncRead, AsyncWrite};
pub use link_driver::{
    Address, AttachError, BindError, ByteString, Bytes, Candidate, ClientError, ClientEvent, ClientHandle,
    Close, CloseReason, Config, ConnectError, ConnectedClient, ConnectionFailure, ConnectionId,
    DEFAULT_EVENT_CAPACITY, DEFAULT_MAX_SEND_QUEUE, DEFAULT_PORT, DEFAULT_SEND_TIMEOUT, Destination,
    DialError, ErrorChain, FailureCause, Frame, Framed, GiveUp, Incoming, IntoMessage, InvalidAddress,
    InvalidMessage, InvalidPrivateKey, InvalidProxy, InvalidSignature, Message, NoListener, NoRandomness,
    NotUpgraded, Outcome, Overload, PrivateKey, Protection, Proxy, ProxyError, PublicKey, Refusal, Rejected,
    RoundTrips, Runtime, SendError, ServerError, ServerEvent, ServerStats, Session, Signature, SocksReply,
    StartSendError, Status, Transport, UnixMillis, Verdict, Violation, Wallet, http, manual, new_wallet,
    upgrade_response,
};
#[cfg(feature = "async-tungstenite")]
pub use link_driver::{AsyncTungstenite, OnAsyncTungstenite};
#[cfg(feature = "tls")]
pub use link_driver::{TlsError, rustls};

/// async-std, as a [`Runtime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncStd {}

/// [`link_driver::Server`] on async-std.
pub type Server = link_driver::Server<AsyncStd>;
/// [`link_driver::ServerBuilder`] on async-std.
pub type ServerBuilder = link_driver::ServerBuilder<AsyncStd>;
/// [`link_driver::ServerHandle`] on async-std.
pub type ServerHandle = link_driver::ServerHandle<AsyncStd>;
/// [`link_driver::Serving`] on async-std.
pub type Serving = link_driver::Serving<AsyncStd>;
/// [`link_driver::Client`] on async-std.
pub type Client = link_driver::Client<AsyncStd>;
/// [`link_driver::ClientBuilder`] on async-std.
pub type ClientBuilder = link_driver::ClientBuilder<AsyncStd>;

/// The same, over WebSockets of async-tungstenite in the place of Link's own. What they cannot promise is said by
/// [`AsyncTungstenite`](link_driver::AsyncTungstenite).
#[cfg(feature = "async-tungstenite")]
pub mod on_async_tungstenite {
    use link_driver::OnAsyncTungstenite;

    use super::AsyncStd;

    /// [`link_driver::Server`].
    pub type Server = link_driver::Server<OnAsyncTungstenite<AsyncStd>>;
    /// [`link_driver::Client`].
    pub type Client = link_driver::Client<OnAsyncTungstenite<AsyncStd>>;
}

impl Runtime for AsyncStd {
    type Stream = Stream;
    type Listener = TcpListener;
    type Timer = Timer;

    async fn connect(host: &str, port: u16) -> io::Result<Self::Stream> {
        let stream = TcpStream::connect((host, port)).await?;
        // It fails where the peer has reset the connection already: whoever reads it will learn of that.
        let _ = stream.set_nodelay(true);
        Ok(Stream(stream))
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs().await?.collect())
    }

    async fn bind(address: SocketAddr) -> io::Result<Self::Listener> {
        TcpListener::bind(address).await
    }

    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        let (stream, remote_address) = listener.accept().await?;
        // It fails where the peer has reset the connection already: whoever reads it will learn of that.
        let _ = stream.set_nodelay(true);
        Ok((Stream(stream), remote_address))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        // The driver's tasks end by themselves, so nobody keeps their handles.
        drop(async_std::task::spawn(task));
    }

    fn timer() -> Timer {
        Timer(None)
    }
}

/// An async-std stream whose `close` ends our direction. That of `TcpStream` does nothing, so the peer would hear of
/// the end only when the socket is dropped.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}

/// An async-std timer that can be armed again. Its kind cannot be, so each time makes a new one; the driver arms
/// seldom.
pub struct Timer(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl link_driver::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        let wait = deadline.saturating_duration_since(Instant::now());
        self.0 = Some(Box::pin(async_std::task::sleep(wait)));
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.0 else { return Poll::Pending };
        ready!(sleep.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timer")
    }
}
