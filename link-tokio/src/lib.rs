//! Link on tokio: two programs that know each other only by wallet address get an authenticated, live line over a
//! WebSocket, with heartbeats, time-outs, reconnection, and a server that knows who is there.
//!
//! # A server
//!
//! ```no_run
//! use link_tokio::{Server, ServerEvent};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut server = Server::builder().bind().await?; // port 3793, a fresh wallet
//! while let Some(event) = server.next().await {
//!     if let ServerEvent::Message(client, message) = event {
//!         client.try_send(&message).ok(); // a client that has gone meanwhile is no reason to stop
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # A client
//!
//! ```
//! use link_tokio::{Client, ClientEvent, Server, ServerEvent};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut server = Server::builder().host([127, 0, 0, 1]).port(0).bind().await?;
//! # let port = server.local_address()?.port();
//! # tokio::spawn(async move {
//! #     while let Some(event) = server.next().await {
//! #         if let ServerEvent::Message(client, message) = event { client.try_send(&message).unwrap(); }
//! #     }
//! # });
//! let mut client = Client::builder().host("localhost").port(port).connect().await?;
//! client.send(serde_json::json!({ "type": "greeting", "text": "hello" })).await?;
//! while let Some(event) = client.next().await {
//!     if let ClientEvent::Message(message) = event {
//!         println!("{message}");
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # A handler for each client
//!
//! It runs inside the connection's own task, which makes a server like this as fast as the bare socket:
//!
//! ```no_run
//! # use link_tokio::{SendError, Server};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().bind().await?;
//! server
//!     .serve(|mut session| async move {
//!         while let Some(message) = session.next().await {
//!             session.send(&message).await?;
//!         }
//!         Ok::<_, SendError>(())
//!     })
//!     .await;
//! # Ok(())
//! # }
//! ```
//!
//! # Who may come in
//!
//! A [`whitelist`](ServerBuilder::whitelist), and a check of the program's own, which may attach data to the client:
//!
//! ```no_run
//! # use link_tokio::{Server, Verdict};
//! # async fn name_of(_: link_tokio::Address) -> Option<String> { None }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .on_authenticate(|candidate| async move {
//!         match name_of(candidate.address).await {
//!             Some(name) => Verdict::allow_with(name),
//!             None => Verdict::deny(),
//!         }
//!     })
//!     .bind()
//!     .await?;
//! for client in server.clients() {
//!     println!("{} is {:?}", client.address().short(), client.data::<String>());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What happens when one side is slow
//!
//! A slow *program* is felt by its peer: once its events fill the queue, its connections are no longer read. (A peer
//! is not judged idle for that.) With [`serve`](Server::serve), a slow handler is felt by its own client only. A slow *peer*
//! fills its own bound ([`max_send_queue`](ServerBuilder::max_send_queue)): then [`ConnectedClient::send`] says so, and
//! [`broadcast`](ServerHandle::broadcast) drops the peer rather than delay the others. One that takes nothing at
//! all for as long as the [`send_timeout`](ServerBuilder::send_timeout) is dropped as well.
//!
//! # Further
//!
//! The [`manual`] has a page each on [choosing a runtime](manual::choosing_a_runtime),
//! [embedding](manual::embedding) (other listeners, an HTTP server's routes, proxies, headers),
//! [observability](manual::observability) (logs and counters), [features](manual::features) and
//! [writing a runtime](manual::writing_a_runtime).
//!
//! # What is where
//!
//! Everything here is `link-driver` on this runtime: the types are named for [`Tokio`], the rest is re-exported. What
//! decides is in `link-core`, which can be driven from an event loop of one's own.

#![forbid(unsafe_code)]

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

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
use tokio::net::{TcpListener, TcpStream};
/// Turn a stream of tokio's into one of `futures_io`, which [`ServerHandle::attach`](link_driver::ServerHandle::attach) and
/// [`ClientBuilder::connector`](link_driver::ClientBuilder::connector) take.
pub use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// tokio, as a [`Runtime`]. Everything must be called from within a tokio runtime with its I/O and time drivers
/// enabled, as `#[tokio::main]` makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokio {}

/// [`link_driver::Server`] on tokio.
pub type Server = link_driver::Server<Tokio>;
/// [`link_driver::ServerBuilder`] on tokio.
pub type ServerBuilder = link_driver::ServerBuilder<Tokio>;
/// [`link_driver::ServerHandle`] on tokio.
pub type ServerHandle = link_driver::ServerHandle<Tokio>;
/// [`link_driver::Serving`] on tokio.
pub type Serving = link_driver::Serving<Tokio>;
/// [`link_driver::Client`] on tokio.
pub type Client = link_driver::Client<Tokio>;
/// [`link_driver::ClientBuilder`] on tokio.
pub type ClientBuilder = link_driver::ClientBuilder<Tokio>;

/// The same, over WebSockets of async-tungstenite in the place of Link's own. What they cannot promise is said by
/// [`AsyncTungstenite`](link_driver::AsyncTungstenite).
#[cfg(feature = "async-tungstenite")]
pub mod on_async_tungstenite {
    use link_driver::OnAsyncTungstenite;

    use super::Tokio;

    /// [`link_driver::Server`].
    pub type Server = link_driver::Server<OnAsyncTungstenite<Tokio>>;
    /// [`link_driver::Client`].
    pub type Client = link_driver::Client<OnAsyncTungstenite<Tokio>>;
}

impl Runtime for Tokio {
    type Stream = Compat<TcpStream>;
    type Listener = TcpListener;
    type Timer = Timer;

    async fn connect(host: &str, port: u16) -> io::Result<Self::Stream> {
        let stream = TcpStream::connect((host, port)).await?;
        // It fails where the peer has reset the connection already: whoever reads it will learn of that.
        let _ = stream.set_nodelay(true);
        Ok(stream.compat())
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
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
        Ok((stream.compat(), remote_address))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        // The driver's tasks end by themselves, so nobody keeps their handles.
        drop(tokio::spawn(task));
    }

    fn timer() -> Timer {
        Timer { sleep: None, armed: false }
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// A tokio timer that can be armed again.
#[derive(Debug)]
pub struct Timer {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Whether there is a deadline that has not been told yet.
    armed: bool,
}

impl link_driver::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        let deadline = deadline.into();
        self.armed = true;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { sleep, armed } = &mut *self;
        match sleep {
            Some(sleep) if *armed => ready!(sleep.as_mut().poll(cx)),
            _ => return Poll::Pending,
        }
        *armed = false;
        Poll::Ready(())
    }
}
