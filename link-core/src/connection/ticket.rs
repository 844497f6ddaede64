//! The right to decide once about one client.

use alloc::sync::Arc;

use crate::{handshake::Proof, identity::Address, time::UnixMillis};

/// The right to decide once, by [`Connection::decide`](crate::Connection::decide), whether a client gets in.
///
/// It cannot be cloned. Dropping it is a refusal, which takes effect at the connection's next input.
#[derive(Debug)]
pub struct Ticket {
    proof: Arc<Proof>,
}

/// What the connection keeps of a ticket, to know it again and to notice that it is gone.
#[derive(Debug)]
pub(super) struct Stub {
    proof: Arc<Proof>,
}

impl Ticket {
    pub(super) fn issue(proof: Proof) -> (Self, Stub) {
        let proof = Arc::new(proof);
        (Self { proof: proof.clone() }, Stub { proof })
    }

    /// The address that asks, proved.
    pub fn address(&self) -> Address {
        self.proof.address
    }

    /// The time that it signed. A proof is known again by its address and this.
    pub fn timestamp(&self) -> UnixMillis {
        self.proof.timestamp
    }

    /// What was proved.
    pub fn proof(&self) -> Proof {
        *self.proof
    }
}

impl Stub {
    pub(super) fn belongs_to(&self, ticket: &Ticket) -> bool {
        Arc::ptr_eq(&self.proof, &ticket.proof)
    }

    pub(super) fn is_ticket_gone(&self) -> bool {
        Arc::strong_count(&self.proof) == 1
    }

    pub(super) fn address(&self) -> Address {
        self.proof.address
    }
}
