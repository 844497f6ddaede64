//! Who is at a server: the only state that its connections share. Locked when one comes, goes, or is looked up;
//! never on the way of a message.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_channel::oneshot;
use link_core::{
    Address, Admission, AdmissionConfig, Admitted, CloseReason, ConnectionId, Overload, Proof, Refusal,
    UnixMillis,
};

use super::peer::Peer;

#[derive(Debug)]
pub(super) struct Registry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    admission: Admission,
    connections: HashMap<ConnectionId, Entry>,
    next_id: u64,
    /// Set once the server closes; nobody comes in any more.
    closing: bool,
}

#[derive(Debug)]
struct Entry {
    /// Taken when the connection is told to end.
    evict: Option<oneshot::Sender<Eviction>>,
    /// Once it is let in.
    peer: Option<Peer>,
}

/// A connection is to end for a reason that does not come from its peer.
#[derive(Debug)]
pub(super) struct Eviction {
    pub(super) reason: CloseReason,
    /// Dropped by the evicted when the program has been told of its end.
    pub(super) told: oneshot::Sender<()>,
}

impl Registry {
    pub(super) fn new(config: AdmissionConfig) -> Self {
        Self(Mutex::new(Inner {
            admission: Admission::new(config),
            connections: HashMap::new(),
            next_id: 0,
            closing: false,
        }))
    }

    /// A transport was accepted. `None` while the server closes.
    pub(super) fn arrive(&self, ip: IpAddr) -> Option<Result<Arrival, Overload>> {
        let mut inner = self.lock();
        if inner.closing {
            return None;
        }
        let id = ConnectionId(inner.next_id);
        if let Err(overload) = inner.admission.arrive(id, Some(ip)) {
            return Some(Err(overload));
        }
        inner.next_id = inner.next_id.saturating_add(1);
        let (evict, evicted) = oneshot::channel();
        inner.connections.insert(id, Entry { evict: Some(evict), peer: None });
        Some(Ok(Arrival { id, evicted }))
    }

    pub(super) fn screen(&self, proof: Proof, wall: UnixMillis) -> Result<(), Refusal> {
        self.lock().admission.screen(proof, wall)
    }

    /// Gives the peer its address. If another connection has it, that one is evicted, and the receiver is
    /// ready when the program has been told.
    pub(super) fn admit(&self, peer: &Peer) -> Result<Option<oneshot::Receiver<()>>, Refusal> {
        let mut inner = self.lock();
        let admitted = inner.admission.admit(peer.address(), peer.id())?;
        if let Some(entry) = inner.connections.get_mut(&peer.id()) {
            entry.peer = Some(peer.clone());
        }
        Ok(match admitted {
            Admitted::Fresh => None,
            Admitted::Replaces(old) => inner.evict(old, CloseReason::Replaced),
        })
    }

    /// A connection has ended.
    pub(super) fn release(&self, id: ConnectionId) {
        let mut inner = self.lock();
        inner.admission.release(id);
        inner.connections.remove(&id);
    }

    /// Ends a connection.
    pub(super) fn evict(&self, id: ConnectionId, reason: CloseReason) {
        self.lock().evict(id, reason);
    }

    /// Ends all of them, and lets nobody in any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        let ids: Vec<_> = inner.connections.keys().copied().collect();
        for id in ids {
            inner.evict(id, CloseReason::ShuttingDown);
        }
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let inner = self.lock();
        inner
            .connections
            .values()
            .filter_map(|entry| entry.peer.as_ref())
            .filter(|peer| peer.is_connected())
            .cloned()
            .collect()
    }

    pub(super) fn peer(&self, address: &Address) -> Option<Peer> {
        let inner = self.lock();
        let id = inner.admission.holder(address)?;
        inner.connections.get(&id)?.peer.clone().filter(Peer::is_connected)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that may go on to authenticate.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) id: ConnectionId,
    pub(super) evicted: oneshot::Receiver<Eviction>,
}

impl Inner {
    fn evict(&mut self, id: ConnectionId, reason: CloseReason) -> Option<oneshot::Receiver<()>> {
        let entry = self.connections.get_mut(&id)?;
        if let Some(peer) = &entry.peer {
            // From here on it is nobody any more, however long its task takes to notice.
            peer.set_connected(false);
        }
        let (told, gone) = oneshot::channel();
        entry.evict.take()?.send(Eviction { reason, told }).ok()?;
        Some(gone)
    }
}
