//! Who is at a server, by books of the oracle's own.

use std::collections::{BTreeMap, BTreeSet};

use link_core::{
    Address, Admission, AdmissionConfig, Admitted, ConnectionId, Overload, Proof, Refusal, UnixMillis,
};

use super::{Invariant, Oracle};

/// What one life of one server must remember.
#[derive(Debug, Default)]
pub(crate) struct RegistryBook {
    used: BTreeSet<(Address, u64)>,
    /// The latest time of a proof that was ever too old to be accepted again.
    aged: Option<u64>,
    places: BTreeSet<ConnectionId>,
    holders: BTreeMap<Address, ConnectionId>,
    addresses: BTreeMap<ConnectionId, Address>,
    /// Those that are authenticated and were neither evicted nor ended.
    present: BTreeSet<ConnectionId>,
}

impl RegistryBook {
    pub(crate) fn arrived(&mut self, id: ConnectionId, outcome: Result<(), Overload>) {
        if outcome.is_ok() {
            self.places.insert(id);
        }
    }

    pub(crate) fn screened(
        &mut self,
        proof: Proof,
        wall: UnixMillis,
        config: &AdmissionConfig,
        outcome: Result<(), Refusal>,
        oracle: &mut Oracle,
    ) {
        let Proof { address, timestamp } = proof;
        let old = |signed: u64| {
            let signed = UnixMillis::saturating(signed);
            signed < wall && signed.distance(wall) > config.auth_window
        };
        let aged = self.used.iter().map(|(_, signed)| *signed).filter(|signed| old(*signed)).max();
        self.aged = self.aged.max(aged);
        self.check_overflow(proof, config, outcome, oracle);
        if outcome.is_ok() {
            let first = self.used.insert((address, timestamp.get()));
            oracle.check(Invariant::ProofsAreUsedOnce, first, || {
                format!("the proof of {} at {timestamp} was accepted a second time", address.short())
            });
        }
    }

    /// What others sign may fill the memory, and no more: nobody else is taken for a replay by it, and nobody who has a
    /// place in it has to wait.
    fn check_overflow(
        &self,
        proof: Proof,
        config: &AdmissionConfig,
        outcome: Result<(), Refusal>,
        oracle: &mut Oracle,
    ) {
        let Proof { address, timestamp } = proof;
        let newest = self.used.iter().filter(|(other, _)| *other == address).map(|(_, signed)| *signed).max();
        let just = match outcome {
            Err(Refusal::Replayed) => self.is_aged(proof) || newest >= Some(timestamp.get()),
            Err(Refusal::Busy) => {
                let kept = self.used.iter().filter(|(_, signed)| Some(*signed) > self.aged).count();
                kept >= config.max_remembered_proofs && newest <= self.aged && !self.was_used(proof)
            }
            _ => true,
        };
        oracle.check(Invariant::OverflowHurtsItsOwn, just, || {
            format!("the proof of {} at {timestamp} was refused: {outcome:?}", address.short())
        });
    }

    pub(crate) fn admitted(
        &mut self,
        address: Address,
        id: ConnectionId,
        outcome: Result<Admitted, Refusal>,
        oracle: &mut Oracle,
    ) {
        let Ok(admitted) = outcome else { return };
        let known = self.places.remove(&id);
        let before = self.holders.insert(address, id);
        let expected = match before {
            Some(holder) => Admitted::Replaces(holder),
            None => Admitted::Fresh,
        };
        oracle.check(Invariant::NewestHoldsTheAddress, known && admitted == expected, || {
            format!("{id:?} was admitted as {admitted:?}, not {expected:?}")
        });
        self.addresses.insert(id, address);
        if let Some(before) = before {
            self.present.remove(&before);
        }
    }

    pub(crate) fn authenticated(&mut self, id: ConnectionId, peer: Address, oracle: &mut Oracle) {
        let newest = self.holders.get(&peer) == Some(&id);
        let registered = self.addresses.get(&id) == Some(&peer);
        oracle.check(Invariant::NewestHoldsTheAddress, registered, || {
            format!("{id:?} is authenticated as {}, for which it was not admitted", peer.short())
        });
        // It may have been replaced between its admission and this.
        if newest {
            self.present.insert(id);
        }
    }

    /// It is nobody any more, however long it takes to notice.
    pub(crate) fn evicted(&mut self, id: ConnectionId) {
        self.present.remove(&id);
    }

    pub(crate) fn released(&mut self, id: ConnectionId) {
        self.places.remove(&id);
        self.present.remove(&id);
        if let Some(address) = self.addresses.remove(&id)
            && self.holders.get(&address) == Some(&id)
        {
            self.holders.remove(&address);
        }
    }

    pub(crate) fn was_used(&self, proof: Proof) -> bool {
        self.used.contains(&(proof.address, proof.timestamp.get()))
    }

    /// Whether it is as old as one that is forgotten by its age.
    pub(crate) fn is_aged(&self, proof: Proof) -> bool {
        self.aged >= Some(proof.timestamp.get())
    }

    pub(crate) const fn has_forgotten(&self) -> bool {
        self.aged.is_some()
    }

    pub(crate) const fn present(&self) -> &BTreeSet<ConnectionId> {
        &self.present
    }

    /// Compares the code's books with these.
    pub(crate) fn audit(&self, admission: &Admission, max_remembered: usize, oracle: &mut Oracle) {
        for (address, id) in &self.holders {
            match admission.holder(address) {
                Some(holder) if holder == *id => {}
                None => oracle.fail(Invariant::SuccessorsSurvive, || {
                    format!("{} is not free: {id:?} has it", address.short())
                }),
                Some(holder) => oracle.fail(Invariant::NewestHoldsTheAddress, || {
                    format!("{} belongs to {id:?}, not {holder:?}", address.short())
                }),
            }
        }
        let (connected, waiting) = (admission.connected(), admission.unauthenticated());
        oracle.check(Invariant::NewestHoldsTheAddress, connected == self.holders.len(), || {
            format!("{connected} addresses are connected, not {}", self.holders.len())
        });
        oracle.check(Invariant::MemoryIsBounded, waiting == self.places.len(), || {
            format!("{waiting} places are taken, not {}", self.places.len())
        });
        let remembered = admission.remembered_proofs();
        oracle.check(Invariant::MemoryIsBounded, remembered <= max_remembered, || {
            format!("{remembered} proofs are remembered, and the limit is {max_remembered}")
        });
    }
}
