//! Who is at a server: the only state that its connections share. Locked when one comes, goes, or is looked up;
//! never on the way of a message.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_channel::oneshot;
use link_core::{
    Address, Admission, AdmissionConfig, Admitted, CloseReason, ConnectionId, Overload, Proof, Refusal,
    UnixMillis,
};

use super::connected_client::ConnectedClient;
use crate::outbox::Outbox;

#[derive(Debug)]
pub(super) struct Registry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    admission: Admission,
    /// Every connection whose task lives.
    connections: HashMap<ConnectionId, Entry>,
    /// Addresses whose last connection has ended, while the program has yet to be told of that.
    untold: HashMap<Address, ConnectionId>,
    next_id: u64,
    /// Set once the server closes; nobody comes in any more.
    closing: bool,
}

#[derive(Debug)]
struct Entry {
    /// Who is told when it is to end.
    host: Outbox,
    /// Whether the program has been told of its end.
    told: bool,
    /// Whoever has its address next, and waits until the program has been told of its end.
    successor: Option<oneshot::Sender<Infallible>>,
    /// Once it is let in.
    peer: Option<ConnectedClient>,
}

/// Ready (by an error, since nothing is sent) when the program has been told of a connection's end.
pub(super) type Told = oneshot::Receiver<Infallible>;

impl Registry {
    pub(super) fn new(config: AdmissionConfig) -> Self {
        Self(Mutex::new(Inner {
            admission: Admission::new(config),
            connections: HashMap::new(),
            untold: HashMap::new(),
            next_id: 0,
            closing: false,
        }))
    }

    /// A transport was accepted; `host` is told when it is to end. `None` while the server closes.
    pub(super) fn arrive(&self, ip: IpAddr, host: &Outbox) -> Option<Result<ConnectionId, Overload>> {
        let mut inner = self.lock();
        if inner.closing {
            return None;
        }
        let id = ConnectionId::new(inner.next_id);
        if let Err(overload) = inner.admission.arrive(id, Some(ip)) {
            return Some(Err(overload));
        }
        inner.next_id = inner.next_id.saturating_add(1);
        let entry = Entry { host: host.clone(), told: false, successor: None, peer: None };
        inner.connections.insert(id, entry);
        Some(Ok(id))
    }

    pub(super) fn screen(&self, proof: Proof, wall: UnixMillis) -> Result<(), Refusal> {
        self.lock().admission.screen(proof, wall)
    }

    pub(super) fn set_whitelist(&self, whitelist: Option<BTreeSet<Address>>) {
        self.lock().admission.set_whitelist(whitelist);
    }

    /// Gives the peer its address. If another connection has it, that one is evicted. The program has to hear of the end of
    /// whoever had it last before it hears of the new one: the receiver is ready then.
    pub(super) fn admit(&self, peer: &ConnectedClient) -> Result<Option<Told>, Refusal> {
        let mut inner = self.lock();
        let admitted = inner.admission.admit(peer.address(), peer.id())?;
        if let Some(entry) = inner.connections.get_mut(&peer.id()) {
            entry.peer = Some(peer.clone());
        }
        let (last, replaced) = match admitted {
            Admitted::Fresh => (inner.untold.get(&peer.address()).copied(), None),
            Admitted::Replaces(old) => (Some(old), inner.disconnect(old)),
        };
        // Whoever waited for that one before has ended since, or it would have the address.
        let last = last.and_then(|last| inner.connections.get_mut(&last)).filter(|last| !last.told);
        let told = last.map(|last| {
            let (successor, told) = oneshot::channel();
            last.successor = Some(successor);
            told
        });
        drop(inner);
        if let Some(replaced) = replaced {
            replaced.evict(CloseReason::Replaced);
        }
        Ok(told)
    }

    /// A connection that had been admitted has ended: its address is free, and lookups do not find it. The program has yet
    /// to be told.
    pub(super) fn end(&self, peer: &ConnectedClient) {
        let mut inner = self.lock();
        let holds = inner.admission.holder(&peer.address()) == Some(peer.id());
        inner.admission.release(peer.id());
        if let Some(entry) = inner.connections.get_mut(&peer.id()) {
            entry.peer = None;
        }
        // One that was replaced is waited for already.
        if holds {
            inner.untold.insert(peer.address(), peer.id());
        }
    }

    /// The program has been told of a connection's end.
    pub(super) fn told(&self, id: ConnectionId) {
        let mut inner = self.lock();
        if let Some(entry) = inner.connections.get_mut(&id) {
            entry.told = true;
            let successor = entry.successor.take();
            drop(inner);
            // Wakes it, which is not to happen under the lock.
            drop(successor);
        }
    }

    /// A connection has ended, the program has been told, and its task is done.
    pub(super) fn release(&self, id: ConnectionId, address: Option<Address>) {
        let mut inner = self.lock();
        inner.admission.release(id);
        let entry = inner.connections.remove(&id);
        if let Some(address) = address
            && inner.untold.get(&address) == Some(&id)
        {
            inner.untold.remove(&address);
        }
        drop(inner);
        // It may hold somebody who waits, and is woken by that: not under the lock.
        drop(entry);
    }

    /// Ends a connection.
    pub(super) fn evict(&self, id: ConnectionId, reason: CloseReason) {
        // The lock is gone before its task is woken.
        let connection = self.lock().disconnect(id);
        if let Some(connection) = connection {
            connection.evict(reason);
        }
    }

    /// Ends all of them, and lets nobody in any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        drop(inner);
        self.evict_all(&CloseReason::ShuttingDown);
    }

    /// Ends whoever is still there, though its last words have not left: it takes too little for too long.
    pub(super) fn abandon(&self) {
        self.evict_all(&CloseReason::SlowPeer);
    }

    fn evict_all(&self, reason: &CloseReason) {
        let inner = self.lock();
        let ids = inner.connections.keys();
        let all: Vec<_> = ids.filter_map(|id| inner.disconnect(*id)).collect();
        drop(inner);
        for connection in all {
            connection.evict(reason.clone());
        }
    }

    pub(super) fn peers(&self) -> Vec<ConnectedClient> {
        let inner = self.lock();
        inner
            .connections
            .values()
            .filter_map(|entry| entry.peer.as_ref())
            .filter(|peer| peer.is_connected())
            .cloned()
            .collect()
    }

    pub(super) fn peer(&self, address: &Address) -> Option<ConnectedClient> {
        let inner = self.lock();
        let id = inner.admission.holder(address)?;
        inner.connections.get(&id)?.peer.clone().filter(ConnectedClient::is_connected)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// From here on this connection is nobody any more, however long its task takes to notice. The outbox is for telling it
    /// so, without the lock.
    fn disconnect(&self, id: ConnectionId) -> Option<Outbox> {
        let entry = self.connections.get(&id)?;
        if let Some(peer) = &entry.peer {
            peer.disconnected();
        }
        Some(entry.host.clone())
    }
}
