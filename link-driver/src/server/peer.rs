//! A program's hold on one client of its server.

use std::{
    any::Any,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use link_core::{Address, ConnectionId, IntoMessage, SendError};

use crate::outbox::Outbox;

/// What a program attaches to a client while it authenticates.
pub(crate) type Data = Arc<dyn Any + Send + Sync>;

/// One authenticated connection of a client. Cloning it is cheap, and it stays valid after the end, when sending
/// is an error.
///
/// A client that comes back is another `Peer` with the same [`address`](Self::address).
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    id: ConnectionId,
    address: Address,
    remote_address: SocketAddr,
    data: Option<Data>,
    outbox: Outbox,
    connected: AtomicBool,
}

impl Peer {
    pub(crate) fn new(
        id: ConnectionId,
        address: Address,
        remote_address: SocketAddr,
        data: Option<Data>,
        outbox: Outbox,
    ) -> Self {
        Self(Arc::new(Inner { id, address, remote_address, data, outbox, connected: AtomicBool::new(false) }))
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

    /// Whether the connection is there.
    pub fn is_connected(&self) -> bool {
        self.0.connected.load(Ordering::Acquire)
    }

    /// Queues a message for it, and returns at once. What is queued is sent in order; what waits when the
    /// connection ends is lost, which is what `Disconnected` means.
    ///
    /// # Errors
    /// When the connection has ended, the message is none, or too much waits for this client already.
    pub fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        if !self.is_connected() {
            return Err(SendError::Closed);
        }
        self.0.outbox.send(message)
    }

    /// Ends the connection. From here on it counts as not connected, and nothing that it says is taken any more; what it has
    /// said before is still to be had.
    ///
    /// What was sent before still arrives, however slow the line is: the client is waited for as long as it takes some of it at
    /// least once in a [`send_timeout`](super::ServerBuilder::send_timeout) (once in 30 s, where that is off).
    pub fn close(&self) {
        self.set_connected(false);
        self.0.outbox.close();
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.0.connected.store(connected, Ordering::Release);
    }
}

/// The same connection, not only the same client.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Peer {}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({} from {})", self.0.address, self.0.remote_address)
    }
}
