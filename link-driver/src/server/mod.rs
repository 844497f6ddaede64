//! A server: accepts clients, knows who is there, and tells the program what they say.
//!
//! - `builder`: the options, and binding.
//! - `accept`: the task that accepts connections; `guest`: the way of each, from TCP to the loop.
//! - `attendant`: between one connection and the program: admission, registration, events.
//! - `registry`: who is there; the only state that connections share.
//! - `stats`: what is counted, for metrics.
//! - `serve`: a handler for each client, in the connection's own task; `session`: what it is given.
//! - `connected_client`: a program's hold on one client.

mod accept;
mod attendant;
mod builder;
mod connected_client;
mod guest;
mod registry;
mod serve;
mod session;
mod stats;

use std::{
    fmt,
    future::poll_fn,
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_channel::oneshot;
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use link_core::{Address, CloseReason, ConnectionId, IntoMessage, Message, Overload, SendError, Violation};

use crate::{
    event_queue::{self, Events},
    runtime::Runtime,
    socket::WebSocket,
    transport::Transport,
};
use accept::Shared;
pub use builder::{BindError, Candidate, ServerBuilder, Verdict};
pub use connected_client::ConnectedClient;
pub use serve::{Outcome, Serving};
pub use session::Session;
pub use stats::{RoundTrips, ServerStats};

/// The target of everything that a server logs.
const LOG: &str = "link::server";

/// A server: [`serve`](Self::serve) has a handler for each client; or it is a stream of the events of all of them, for a program
/// that wants one place for everything.
///
/// Until it is used the one way or the other, nobody is accepted. Dropping it closes the listener and every connection.
///
/// What needs no `&mut` is on its [`handle`](Self::handle), which can be cloned.
pub struct Server<R: Runtime> {
    handle: ServerHandle<R>,
    face: Face,
}

enum Face {
    Undecided(oneshot::Sender<accept::Face>),
    Events(Events<ServerEvent>),
    Closed,
}

/// Something that happened at a server.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A transport was accepted and speaks WebSocket. Nobody knows yet who it is.
    Connected {
        /// Which connection.
        id: ConnectionId,
        /// Where it comes from.
        remote_address: SocketAddr,
    },
    /// A client has proved its address and was let in.
    Authenticated(ConnectedClient),
    /// A client sent a message.
    Message(ConnectedClient, Message),
    /// A client answered a heartbeat. Missed, rather than queued, when the program is behind.
    Heartbeat(ConnectedClient, Option<Duration>),
    /// An authenticated client is gone.
    Disconnected(ConnectedClient, CloseReason),
    /// A connection ended before it was authenticated. (Boxed, so that the many messages need not be as large.)
    Rejected(Box<Rejected>),
    /// Something went wrong that ends nothing.
    Error(ServerError),
    /// The server is closed. The last event.
    Close,
}

/// A connection that ended before it was authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// Which connection.
    pub id: ConnectionId,
    /// Where it came from.
    pub remote_address: SocketAddr,
    /// The address that it had proved, if it came that far.
    pub address: Option<Address>,
    /// Why.
    pub reason: CloseReason,
}

/// Something went wrong that ends nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A client did something wrong, and goes on.
    #[error("{} {violation}", .client.address())]
    Violation {
        /// Who.
        client: ConnectedClient,
        /// What.
        violation: Violation,
    },
    /// Connections were turned away, since too many are unauthenticated. Told at most once a second.
    #[error("{remote_address} and {others} others were turned away: {overload}")]
    TurnedAway {
        /// Where the last of them came from.
        remote_address: SocketAddr,
        /// Why.
        overload: Overload,
        /// How many there were beside it since the last time.
        others: u64,
    },
    /// The system did not give a connection, for want of file descriptors perhaps. The server tries again.
    #[error("cannot accept a connection")]
    Accept(#[source] io::Error),
}

/// Why a stream was not taken. It has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The server is closed.
    #[error("the server is closed")]
    Closed,
    /// Too many connections are unauthenticated already.
    #[error(transparent)]
    Overload(#[from] Overload),
}

/// The server has no listener of its own: it was [started](ServerBuilder::start) without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this server has no listener, so it has no address to connect to")]
pub struct NoListener;

impl<R: Runtime> Server<R> {
    /// The options, with their defaults.
    pub fn builder() -> ServerBuilder<R> {
        ServerBuilder::new()
    }

    /// A handle for the rest of the program.
    pub fn handle(&self) -> ServerHandle<R> {
        self.handle.clone()
    }

    /// The wallet address of the server.
    pub fn address(&self) -> Address {
        self.handle.address()
    }

    /// As [`ServerHandle::local_address`].
    ///
    /// # Errors
    /// When it has no listener of its own.
    pub fn local_address(&self) -> Result<SocketAddr, NoListener> {
        self.handle.local_address()
    }

    /// As [`ServerHandle::url`].
    ///
    /// # Errors
    /// When it has no listener of its own.
    pub fn url(&self) -> Result<String, NoListener> {
        self.handle.url()
    }

    /// As [`ServerHandle::clients`].
    pub fn clients(&self) -> Vec<ConnectedClient> {
        self.handle.clients()
    }

    /// As [`ServerHandle::client`].
    pub fn client(&self, address: &Address) -> Option<ConnectedClient> {
        self.handle.client(address)
    }

    /// As [`ServerHandle::stats`].
    pub fn stats(&self) -> ServerStats {
        self.handle.stats()
    }

    /// As [`ServerHandle::broadcast`].
    ///
    /// # Errors
    /// As [`ServerHandle::broadcast`].
    pub fn broadcast(&self, message: impl IntoMessage) -> Result<usize, SendError> {
        self.handle.broadcast(message)
    }

    /// Closes the listener and every connection, as [`ServerHandle::close`]. Events that nobody has taken yet are dropped.
    pub async fn close(mut self) {
        self.face = Face::Closed;
        self.handle.close().await;
    }

    fn decide(&mut self, inner: accept::Face, outer: Face) {
        if let Face::Undecided(decision) = std::mem::replace(&mut self.face, outer) {
            // If the task has ended, the receiver says so by ending too.
            let _ = decision.send(inner);
        }
    }
}

/// The events. After [`Close`](ServerEvent::Close) it ends.
impl<R: Runtime> Stream for Server<R> {
    type Item = ServerEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ServerEvent>> {
        if let Face::Undecided(_) = self.face {
            let (sender, receiver) = event_queue::channel(self.handle.shared.event_capacity);
            self.decide(accept::Face::Events(sender), Face::Events(receiver));
        }
        match &mut self.face {
            Face::Events(events) => events.poll_next(cx),
            _ => Poll::Ready(None),
        }
    }
}

impl<R: Runtime> Server<R> {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<ServerEvent> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<R: Runtime> Drop for Server<R> {
    fn drop(&mut self) {
        self.handle.shared.shut_down();
    }
}

impl<R: Runtime> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address()).field("url", &self.url().ok()).finish()
    }
}

/// A hold on a server, for every part of the program.
pub struct ServerHandle<R: Runtime> {
    shared: Arc<Shared>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> ServerHandle<R> {
    /// The wallet address of the server.
    pub fn address(&self) -> Address {
        self.shared.config.wallet.address()
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When it has no listener of its own.
    pub fn local_address(&self) -> Result<SocketAddr, NoListener> {
        self.shared.local_address.ok_or(NoListener)
    }

    /// Where a client finds it, such as `ws://127.0.0.1:3793`. A server that listens everywhere names the
    /// loopback.
    ///
    /// # Errors
    /// When it has no listener of its own.
    pub fn url(&self) -> Result<String, NoListener> {
        let mut address = self.local_address()?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        Ok(format!("{}://{address}", if self.shared.speaks_tls() { "wss" } else { "ws" }))
    }

    /// Takes a stream that is already upgraded to a WebSocket, such as one of an HTTP server that has Link at one of its
    /// paths. ([`upgrade_response`](crate::upgrade_response) says what it answers to the request.) From here on the
    /// connection is like every other one.
    ///
    /// The stream has to hand out first whatever was read ahead of it. It should have `TCP_NODELAY` set, and its
    /// `poll_close` should end the sending direction only. What secures it is the affair of who upgraded it.
    ///
    /// Its authentication deadline begins now, also while it waits for the server to be polled for the first time, or for
    /// the program to catch up with its events.
    ///
    /// # Errors
    /// When the server is closed, or has no place for another one that is not authenticated.
    pub fn attach<S>(&self, stream: S, remote_address: SocketAddr) -> Result<ConnectionId, AttachError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.attach_websocket(WebSocket::server(stream), remote_address)
    }

    /// Takes a WebSocket that somebody else has opened, whatever it is: axum's, say, as [`Framed`](crate::Framed). From here on
    /// the connection is like every other one, as far as its [`Transport`] can promise it.
    ///
    /// Its authentication deadline begins now, as that of a stream which is [attached](Self::attach).
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_websocket<T>(
        &self,
        websocket: T,
        remote_address: SocketAddr,
    ) -> Result<ConnectionId, AttachError>
    where
        T: Transport + Send + 'static,
    {
        accept::attach::<R, T>(&self.shared, websocket, remote_address)
    }

    /// The clients that are connected, in no particular order.
    pub fn clients(&self) -> Vec<ConnectedClient> {
        self.shared.registry.peers()
    }

    /// The client with this address, if it is connected.
    pub fn client(&self, address: &Address) -> Option<ConnectedClient> {
        self.shared.registry.peer(address)
    }

    /// Changes who may connect, from here on: these addresses. Clients that are connected stay, listed or not.
    pub fn set_whitelist(&self, addresses: impl IntoIterator<Item = Address>) {
        self.shared.registry.set_whitelist(Some(addresses.into_iter().collect()));
    }

    /// From here on anybody may connect, as far as [`on_authenticate`](ServerBuilder::on_authenticate) says so.
    pub fn remove_whitelist(&self) {
        self.shared.registry.set_whitelist(None);
    }

    /// What was counted so far: connections by state and by how they ended, messages, round trips.
    pub fn stats(&self) -> ServerStats {
        self.shared.counters.snapshot()
    }

    /// Sends a message to the client with this address, waiting for room.
    ///
    /// # Errors
    /// As [`ConnectedClient::send`]; [`SendError::Closed`] when it is not connected.
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, nothing was queued.
    pub async fn send(&self, address: &Address, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        self.client(address).ok_or(SendError::Closed)?.send(message).await
    }

    /// Sends a message to the client with this address, without waiting.
    ///
    /// # Errors
    /// As [`ConnectedClient::try_send`]; [`SendError::Closed`] when it is not connected.
    pub fn try_send(&self, address: &Address, message: impl IntoMessage) -> Result<(), SendError> {
        self.client(address).ok_or(SendError::Closed)?.try_send(message)
    }

    /// Sends a message to everybody who is connected, and says to how many. The text is written once and shared.
    ///
    /// A client that reads so slowly that its bound is full is dropped, as
    /// [`SlowPeer`](CloseReason::SlowPeer); it never delays the others.
    ///
    /// # Errors
    /// When the message cannot be sent to anybody.
    pub fn broadcast(&self, message: impl IntoMessage) -> Result<usize, SendError> {
        let message = message.into_message()?;
        let (size, limit) = (message.as_str().len(), self.shared.config.max_message_size);
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        let mut reached = 0usize;
        for peer in self.clients() {
            match peer.try_send(&message) {
                Ok(()) => reached = reached.saturating_add(1),
                Err(SendError::Full { .. }) => self.shared.registry.evict(peer.id(), CloseReason::SlowPeer),
                Err(_) => {}
            }
        }
        Ok(reached)
    }

    /// Closes the listener and every connection, each with a reason, and waits until they are gone. What was sent before still
    /// arrives, as long as each client takes some of it at least once a second, and has taken all of it within five seconds; who has
    /// not is cut off then, as [`SlowPeer`](CloseReason::SlowPeer). So it takes about six seconds at the most, and ten where a task
    /// of the program's own keeps a connection from noticing.
    ///
    /// Their last events can still be read from the server afterwards. Calling it again waits as well.
    pub async fn close(&self) {
        self.shared.shut_down();
        let gone = self.shared.gone.clone();
        // An error means that the task is gone, which is what is waited for.
        let _ = gone.await;
    }
}

impl<R: Runtime> Clone for ServerHandle<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), runtime: PhantomData }
    }
}

impl<R: Runtime> fmt::Debug for ServerHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("address", &self.address())
            .field("url", &self.url().ok())
            .finish()
    }
}
