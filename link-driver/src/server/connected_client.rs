//! A program's hold on one client of its server.

use std::{
    any::Any,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use event_listener::Event;
use link_core::{Address, CloseReason, ConnectionId, IntoMessage, Protection, SendError};

use crate::outbox::Outbox;

const NEW: u8 = 0;
const CONNECTED: u8 = 1;
const GONE: u8 = 2;

/// What a program attaches to a client while it authenticates.
pub(crate) type Data = Arc<dyn Any + Send + Sync>;

/// One authenticated connection of a client. Cloning it is cheap, and it stays valid after the end, when sending
/// is an error.
///
/// A client that comes back is another `ConnectedClient` with the same [`address`](Self::address).
#[derive(Clone)]
pub struct ConnectedClient(Arc<Inner>);

struct Inner {
    id: ConnectionId,
    address: Address,
    remote_address: SocketAddr,
    data: Option<Data>,
    outbox: Outbox,
    /// One of the three below, which come in this order and never go back.
    stage: AtomicU8,
    protection: OnceLock<Protection>,
    close_reason: OnceLock<CloseReason>,
    /// Notified once there is a reason.
    closed: Event,
}

impl ConnectedClient {
    pub(crate) fn new(
        id: ConnectionId,
        address: Address,
        remote_address: SocketAddr,
        data: Option<Data>,
        outbox: Outbox,
    ) -> Self {
        Self(Arc::new(Inner {
            id,
            address,
            remote_address,
            data,
            outbox,
            stage: AtomicU8::new(NEW),
            protection: OnceLock::new(),
            close_reason: OnceLock::new(),
            closed: Event::new(),
        }))
    }

    /// Its wallet address, proved.
    pub fn address(&self) -> Address {
        self.0.address
    }

    /// Where its connection comes from.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.remote_address
    }

    /// Which connection this is; never used twice by a server.
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// What `on_authenticate` attached to it, if that was a `T`.
    pub fn data<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.data.as_deref()?.downcast_ref()
    }

    /// What protects the messages.
    pub fn protection(&self) -> Protection {
        self.0.protection.get().copied().unwrap_or(Protection::Transport)
    }

    /// Whether the connection is there.
    pub fn is_connected(&self) -> bool {
        self.0.stage.load(Ordering::Acquire) == CONNECTED
    }

    /// Queues a message for it, waiting while [`max_send_queue`](super::ServerBuilder::max_send_queue) bytes wait for this client
    /// already. What is queued is sent in order; what waits when the connection ends is lost, which is what `Disconnected` means.
    ///
    /// A loop over the events of many clients should not wait for one of them: see [`try_send`](Self::try_send).
    ///
    /// # Errors
    /// When the connection has ended, or the value is not a message.
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, nothing was queued.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        if !self.is_connected() {
            return Err(SendError::Closed);
        }
        self.0.outbox.send(message).await
    }

    /// Queues a message for it, without waiting; it may go before those that wait in [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send); and [`SendError::Full`] when too much waits for this client already.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        if !self.is_connected() {
            return Err(SendError::Closed);
        }
        self.0.outbox.try_send(message)
    }

    /// Waits until the connection has ended, and says why.
    ///
    /// # Cancel safety
    /// It can be dropped and called again.
    pub async fn closed(&self) -> CloseReason {
        loop {
            let closed = self.0.closed.listen();
            match self.0.close_reason.get() {
                Some(reason) => return reason.clone(),
                None => closed.await,
            }
        }
    }

    /// Why the connection has ended; `None` while it has not.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.0.close_reason.get()
    }

    /// Ends the connection. From here on it counts as not connected, and nothing that it says is taken any more; what it has
    /// said before is still to be had.
    ///
    /// What was sent before still arrives, however slow the line is: the client is waited for as long as it takes some of it at
    /// least once in a [`send_timeout`](super::ServerBuilder::send_timeout) (once in 30 s, where that is off).
    pub fn close(&self) {
        self.disconnected();
        self.0.outbox.close();
    }

    /// Both sides are verified.
    pub(crate) fn begin(&self, protection: Protection) {
        let _ = self.0.protection.set(protection);
        // Somebody may have ended it before it began.
        let _ = self.0.stage.compare_exchange(NEW, CONNECTED, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The connection has ended.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.disconnected();
        let _ = self.0.close_reason.set(reason);
        self.0.closed.notify(usize::MAX);
    }

    /// It is to end, or has: from here on it counts as not connected.
    pub(crate) fn disconnected(&self) {
        self.0.stage.store(GONE, Ordering::Release);
    }
}

/// The same connection, not only the same client.
impl PartialEq for ConnectedClient {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ConnectedClient {}

impl fmt::Debug for ConnectedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectedClient({} from {})", self.0.address, self.0.remote_address)
    }
}
