//! What must be true, whatever happens: the invariants, and who is watched for them.
//!
//! The oracle keeps books of its own, from what goes in and what comes out, and never asks the code under test what
//! it thinks.

mod ending;
mod invariant;
mod reconnect;
mod registry;
mod watched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use link_core::{Address, ByteString};

pub use invariant::{Failure, Invariant};
pub(crate) use reconnect::ReconnectBook;
pub(crate) use registry::RegistryBook;
pub use watched::MEMORY_PER_CONNECTION;
pub(crate) use watched::Watched;

use crate::{
    agenda::Process,
    clock::Moment,
    network::{End, Side, WireId},
};

/// What is known of all processes together.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) now: Moment,
    failure: Option<Failure>,
    /// Every (address, time) that a wallet of this world has signed.
    signed: BTreeSet<(Address, u64)>,
    /// What the applications were told, by end.
    told: BTreeMap<End, Told>,
    wires: BTreeMap<WireId, Letters>,
    doors: BTreeMap<End, Door>,
    /// Messages delivered since the faults stopped: who heard whom.
    pub(crate) heard: BTreeSet<(Process, Address)>,
    /// The latest time that was signed.
    latest: u64,
}

/// What an application knows about a connection of its own.
#[derive(Debug)]
struct Told {
    process: Process,
    peer: Option<Address>,
    gone: bool,
}

/// A connection of a server before it is authenticated.
#[derive(Debug, Default)]
struct Door {
    proved: Option<Address>,
    passed_policy: bool,
    asked: bool,
    /// It ended before it was authenticated.
    shut: bool,
}

/// What was sent on a wire and has not arrived.
#[derive(Debug, Default)]
struct Letters {
    /// Somebody on the path changes things, so nothing can be said.
    tampered: bool,
    to_client: VecDeque<ByteString>,
    to_server: VecDeque<ByteString>,
}

impl Letters {
    fn to(&mut self, side: Side) -> &mut VecDeque<ByteString> {
        match side {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }
}

impl Oracle {
    /// Something is not as it must be. The first one counts.
    pub(crate) fn fail(&mut self, invariant: Invariant, detail: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(Failure { invariant, at: self.now, detail: detail() });
        }
    }

    pub(crate) fn check(&mut self, invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, detail);
        }
    }

    pub(crate) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(crate) fn into_failure(self) -> Option<Failure> {
        self.failure
    }

    pub(crate) fn note_signature(&mut self, address: Address, timestamp: u64) {
        self.signed.insert((address, timestamp));
        self.latest = self.latest.max(timestamp);
    }

    pub(crate) const fn latest_signature(&self) -> u64 {
        self.latest
    }

    pub(crate) fn was_signed(&self, address: &Address, timestamp: u64) -> bool {
        self.signed.contains(&(*address, timestamp))
    }

    pub(crate) fn note_wire(&mut self, wire: WireId, tampered: bool) {
        self.wires.insert(wire, Letters { tampered, ..Letters::default() });
    }

    pub(crate) fn note_tampering(&mut self, wire: WireId) {
        self.wires.entry(wire).or_default().tampered = true;
    }

    pub(crate) fn forget_wire(&mut self, wire: WireId) {
        self.wires.remove(&wire);
    }

    /// An application's message was taken, to be sent.
    pub(crate) fn note_sent(&mut self, from: End, text: ByteString) {
        if let Some(letters) = self.wires.get_mut(&from.wire) {
            letters.to(from.side.other()).push_back(text);
        }
    }

    /// A connection delivers a message: the next one that was sent, and no other.
    fn note_delivered(&mut self, at: End, text: &ByteString) {
        let Some(letters) = self.wires.get_mut(&at.wire) else { return };
        let expected = letters.to(at.side).pop_front();
        if !letters.tampered && expected.as_ref() != Some(text) {
            self.fail(Invariant::MessagesInOrder, || format!("{at} got {text:?}, not {expected:?}"));
        }
    }

    fn note_proved(&mut self, end: End, address: Address) {
        self.doors.entry(end).or_default().proved = Some(address);
    }

    fn note_shut(&mut self, end: End) {
        self.doors.entry(end).or_default().shut = true;
    }

    /// The whitelist and the memory of proofs have let it pass.
    pub(crate) fn note_passed_policy(&mut self, end: End) {
        self.doors.entry(end).or_default().passed_policy = true;
    }

    /// The application is asked whether it wants an address.
    pub(crate) fn ask(&mut self, end: End, address: &str) {
        let door = self.doors.entry(end).or_default();
        let proved = door.proved.is_some_and(|proved| proved.as_str() == address);
        let in_turn = door.passed_policy && !core::mem::replace(&mut door.asked, true);
        self.check(Invariant::AddressesAreProved, proved, || {
            format!("the application is asked about {address} at {end}, which has not proved it")
        });
        self.check(Invariant::PolicyIsAskedOnce, in_turn, || {
            format!("the application is asked about {end} again, or before the rest of policy")
        });
    }

    /// The application learns of a peer.
    pub(crate) fn tell_authenticated(&mut self, process: Process, end: End, peer: Address) {
        let shut = self.doors.get(&end).is_some_and(|door| door.shut);
        self.check(Invariant::LateVerdictsChangeNothing, !shut, || {
            format!("{process} hears that {end} is authenticated, which ended before")
        });
        let rival = self.told.iter().find(|(other, told)| {
            **other != end && told.process == process && told.peer == Some(peer) && !told.gone
        });
        if let Some(rival) = rival.map(|(other, _)| *other) {
            self.fail(Invariant::ToldInPairs, || {
                format!("{process} hears of {} at {end} before it hears of the end of {rival}", peer.short())
            });
        }
        let told = self.told.entry(end).or_insert(Told { process, peer: None, gone: false });
        if told.peer.replace(peer).is_some() {
            self.fail(Invariant::ToldInPairs, || {
                format!("{process} hears twice that {end} is authenticated")
            });
        }
    }

    /// The application gets a message.
    pub(crate) fn tell_message(&mut self, process: Process, end: End, from: Option<Address>) {
        let known = self.told.get(&end).is_some_and(|told| told.peer.is_some() && !told.gone);
        self.check(Invariant::NothingBeforeAuthentication, known, || {
            format!("{process} gets a message from {end}, of which it knows nobody")
        });
        self.heard.extend(from.map(|peer| (process, peer)));
    }

    /// The application learns that a peer is gone.
    pub(crate) fn tell_disconnected(&mut self, process: Process, end: End) {
        let known = self.told.get_mut(&end).filter(|told| told.peer.is_some() && !told.gone);
        match known {
            Some(told) => told.gone = true,
            None => self.fail(Invariant::ToldInPairs, || {
                format!("{process} hears that {end} is gone, which was not there")
            }),
        }
    }

    /// A connection is over and everything was told about it.
    pub(crate) fn settle(&mut self, end: End) {
        self.doors.remove(&end);
        let open = self.told.remove(&end).is_some_and(|told| told.peer.is_some() && !told.gone);
        self.check(Invariant::ToldInPairs, !open, || format!("nobody was told that {end} is gone"));
    }

    /// A process dies with all that it knew.
    pub(crate) fn forget_process(&mut self, process: Process) {
        self.told.retain(|_, told| told.process != process);
    }

    /// An end is gone with the process that held it.
    pub(crate) fn forget_end(&mut self, end: End) {
        self.doors.remove(&end);
    }
}
