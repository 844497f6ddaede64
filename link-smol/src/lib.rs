//! Link on smol: two programs that know each other only by wallet address get an authenticated, live line over a
//! WebSocket, with heartbeats, time-outs, reconnection, and a server that knows who is there.
//!
//! ```
//! use link_smol::{Client, ClientEvent, Server, ServerEvent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! smol::block_on(async {
//!     let mut server = Server::builder().host([127, 0, 0, 1]).port(0).bind().await?;
//!     let url = server.url()?;
//!     smol::spawn(async move {
//!         while let Some(event) = server.next().await {
//!             if let ServerEvent::Message(client, message) = event {
//!                 client.try_send(&message).ok();
//!             }
//!         }
//!     })
//!     .detach();
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
//! The tasks of servers and clients run on smol's global executor ([`smol::spawn`]), which starts a thread by itself
//! (or as many as `SMOL_THREADS` says).
//!
//! Everything here is [`link_driver`] on this runtime: the types are named for [`Smol`], the rest is re-exported. What
//! the crate page of `link-tokio` says about sessions, admission and slow sides holds here as well, name for name; the [`manual`]
//! has a page each on embedding, observability, features, and moving between runtimes.

#![forbid(unsafe_code)]

use std::{
    future::Future,
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
use smol::net::{TcpListener, TcpStream};

/// smol, as a [`Runtime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smol {}

/// [`link_driver::Server`] on smol.
pub type Server = link_driver::Server<Smol>;
/// [`link_driver::ServerBuilder`] on smol.
pub type ServerBuilder = link_driver::ServerBuilder<Smol>;
/// [`link_driver::ServerHandle`] on smol.
pub type ServerHandle = link_driver::ServerHandle<Smol>;
/// [`link_driver::Serving`] on smol.
pub type Serving = link_driver::Serving<Smol>;
/// [`link_driver::Client`] on smol.
pub type Client = link_driver::Client<Smol>;
/// [`link_driver::ClientBuilder`] on smol.
pub type ClientBuilder = link_driver::ClientBuilder<Smol>;

/// The same, over WebSockets of async-tungstenite in the place of Link's own. What they cannot promise is said by
/// [`AsyncTungstenite`](link_driver::AsyncTungstenite).
#[cfg(feature = "async-tungstenite")]
pub mod on_async_tungstenite {
    use link_driver::OnAsyncTungstenite;

    use super::Smol;

    /// [`link_driver::Server`].
    pub type Server = link_driver::Server<OnAsyncTungstenite<Smol>>;
    /// [`link_driver::Client`].
    pub type Client = link_driver::Client<OnAsyncTungstenite<Smol>>;
}

impl Runtime for Smol {
    type Stream = TcpStream;
    type Listener = TcpListener;
    type Timer = Timer;

    async fn connect(host: &str, port: u16) -> io::Result<Self::Stream> {
        let stream = TcpStream::connect((host, port)).await?;
        // It fails where the peer has reset the connection already: whoever reads it will learn of that.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        smol::net::resolve((host, port)).await
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
        Ok((stream, remote_address))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        // The driver's tasks end by themselves, so nobody keeps their handles.
        smol::spawn(task).detach();
    }

    fn timer() -> Timer {
        Timer(smol::Timer::never())
    }
}

/// A smol timer that can be armed again.
#[derive(Debug)]
pub struct Timer(smol::Timer);

impl link_driver::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.set_at(deadline);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Once it is over, smol's timer is pending for ever.
        ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(())
    }
}
