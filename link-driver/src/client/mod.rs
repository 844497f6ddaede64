//! A client: keeps a line to one server, and dials again by itself when it is lost.
//!
//! - `builder`: the options, and starting.
//! - `dial`: from a host name to an open WebSocket.
//! - `proxy`: through which proxy, and how.
//! - `attendant`: between one connection and the program.
//! - `run`: the task that dials, drives, and waits, as [`link_core::Reconnect`] says.

mod attendant;
mod builder;
mod dial;
mod proxy;
mod run;

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_channel::oneshot;
use futures_core::Stream;
use futures_util::future;
use link_core::{Address, CloseReason, GiveUp, IntoMessage, Message, Protection, SendError, Violation};

use crate::{event_queue::Events, outbox::Outbox, runtime::Runtime};
pub use builder::{ClientBuilder, ConnectError};
pub use dial::{Destination, DialError};
pub use proxy::{InvalidProxy, Proxy, ProxyError, SocksReply};

/// The target of everything that a client logs.
const LOG: &str = "link::client";

/// A client, as a stream of its events. Dropping it disconnects.
///
/// What needs no `&mut` is on its [`handle`](Self::handle) too, which can be cloned.
pub struct Client<R: Runtime> {
    handle: ClientHandle,
    events: Events<ClientEvent>,
    runtime: PhantomData<fn() -> R>,
}

/// Something that happened to a client's line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The WebSocket is open. The server has yet to prove who it is.
    Connected,
    /// Both sides are verified; messages may be sent.
    #[non_exhaustive]
    Authenticated {
        /// The server's address.
        server: Address,
        /// What protects the messages from here on.
        protection: Protection,
    },
    /// The server sent a message.
    Message(Message),
    /// The server sent a heartbeat. Missed, rather than queued, when the program is behind.
    Heartbeat {
        /// The time from our last answered ping to its pong, if there was one.
        round_trip: Option<Duration>,
    },
    /// An open WebSocket has ended.
    Disconnected {
        /// How.
        reason: CloseReason,
        /// Messages that were accepted and of which no byte was written to the socket (or to TLS), in the order in which
        /// they were sent: none of them arrived. The message before them may have been written in part. It is not handed
        /// back, since it was begun. Those before it were written whole; whether they arrived, v1 cannot say.
        unsent: Vec<Message>,
    },
    /// It will dial again.
    Reconnecting {
        /// Attempt number, from 1.
        attempt: u32,
        /// How long from now.
        delay: Duration,
    },
    /// It gives up. The last event, unless the program disconnected.
    ConnectionFailed(ConnectionFailure),
    /// Something went wrong that it gets over.
    Error(ClientError),
}

/// Why a client gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct ConnectionFailure {
    /// What happened last.
    #[source]
    pub cause: FailureCause,
    /// Why that was the last.
    pub reason: GiveUp,
}

/// The last thing that went wrong before a client gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureCause {
    /// No connection came to be.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A connection ended like this.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// Something went wrong that a client gets over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection came to be this time.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server did something wrong, and goes on.
    #[error("the server {0}")]
    Violation(Violation),
}

impl<R: Runtime> Client<R> {
    /// The options, with their defaults.
    pub fn builder() -> ClientBuilder<R> {
        ClientBuilder::new()
    }

    /// The next event; `None` after the last.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// A handle for the rest of the program.
    pub fn handle(&self) -> ClientHandle {
        self.handle.clone()
    }

    /// The wallet address of this client.
    pub fn address(&self) -> Address {
        self.handle.address()
    }

    /// As [`ClientHandle::server`].
    pub fn server(&self) -> Option<Address> {
        self.handle.server()
    }

    /// As [`ClientHandle::is_authenticated`].
    pub fn is_authenticated(&self) -> bool {
        self.handle.is_authenticated()
    }

    /// As [`ClientHandle::send`].
    ///
    /// # Errors
    /// As [`ClientHandle::send`].
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, nothing was queued.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.handle.send(message).await
    }

    /// As [`ClientHandle::try_send`].
    ///
    /// # Errors
    /// As [`ClientHandle::try_send`].
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.handle.try_send(message)
    }

    /// As [`ClientHandle::disconnect`].
    pub fn disconnect(&self) {
        self.handle.disconnect();
    }

    /// Sends what was queued, disconnects, and waits until the connection is gone. What was queued is sent for as long as
    /// the server takes some of it at least once in a [`send_timeout`](ClientBuilder::send_timeout) (once in 30 s, where that
    /// is off); then a server that does not answer has one second more. Events that nobody has taken yet are dropped.
    pub async fn close(self) {
        let handle = self.handle.clone();
        drop(self);
        handle.close().await;
    }
}

/// The events. After the last one, it ends.
impl<R: Runtime> Stream for Client<R> {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        self.events.poll_next(cx)
    }
}

impl<R: Runtime> Drop for Client<R> {
    fn drop(&mut self) {
        self.handle.disconnect();
    }
}

impl<R: Runtime> fmt::Debug for Client<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address()).field("server", &self.server()).finish()
    }
}

/// A hold on a client, for every part of the program.
#[derive(Clone)]
pub struct ClientHandle {
    shared: Arc<Shared>,
}

/// What a client's task and its handles share.
struct Shared {
    address: Address,
    /// The line, while it is authenticated.
    line: Mutex<Option<OpenLine>>,
    /// Taken when the program disconnects: dropping it is the signal.
    stop: Mutex<Option<oneshot::Sender<Infallible>>>,
    /// Why it has given up.
    failure: OnceLock<ConnectionFailure>,
    /// Ready when the task has ended.
    gone: future::Shared<oneshot::Receiver<Infallible>>,
}

#[derive(Clone)]
struct OpenLine {
    server: Address,
    outbox: Outbox,
}

impl Shared {
    fn line(&self) -> std::sync::MutexGuard<'_, Option<OpenLine>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientHandle {
    /// The wallet address of this client.
    pub fn address(&self) -> Address {
        self.shared.address
    }

    /// The server's address, while the line is authenticated.
    pub fn server(&self) -> Option<Address> {
        self.shared.line().as_ref().map(|line| line.server)
    }

    /// Whether messages may be sent.
    pub fn is_authenticated(&self) -> bool {
        self.shared.line().is_some()
    }

    /// Queues a message for the server, waiting while [`max_send_queue`](ClientBuilder::max_send_queue) bytes wait already.
    ///
    /// # Errors
    /// When the line is not authenticated at the moment (nothing is kept for later) or ends meanwhile, or the value is not a
    /// message.
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, nothing was queued.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        let outbox = self.outbox()?;
        outbox.send(message).await
    }

    /// Queues a message for the server, without waiting; it may go before those that wait in [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send); and [`SendError::Full`] when too much waits already.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        let line = self.shared.line();
        line.as_ref().ok_or(SendError::NotAuthenticated)?.outbox.try_send(message)
    }

    fn outbox(&self) -> Result<Outbox, SendError> {
        let line = self.shared.line();
        line.as_ref().map(|line| line.outbox.clone()).ok_or(SendError::NotAuthenticated)
    }

    /// Waits until the client has ended for good: as the program wished, or, as an error, because it has given up.
    ///
    /// # Errors
    /// Why it has given up.
    ///
    /// # Cancel safety
    /// It can be dropped and called again.
    pub async fn closed(&self) -> Result<(), ConnectionFailure> {
        // An error means that the task is gone, which is what is waited for.
        let _ = self.shared.gone.clone().await;
        self.shared.failure.get().cloned().map_or(Ok(()), Err)
    }

    /// Ends the line, after what was sent before, and everything else in every phase: no dialling, no waiting.
    pub fn disconnect(&self) {
        // From here on `send` refuses: what was accepted goes out, and nothing more is.
        *self.shared.line() = None;
        drop(self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// [Disconnects](Self::disconnect), and waits until the connection is gone.
    ///
    /// While the events are neither taken nor the [`Client`] dropped, that may be for ever.
    pub async fn close(&self) {
        self.disconnect();
        // An error means that the task is gone, which is what is waited for.
        let _ = self.shared.gone.clone().await;
    }
}

impl fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandle")
            .field("address", &self.address())
            .field("server", &self.server())
            .finish()
    }
}
