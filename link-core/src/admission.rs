//! A server's memory across connections: who may come in, who is in, and which proofs were used.
//!
//! As pure as the rest. All of it is bounded: by the limits here, and by the number of open connections.

use alloc::collections::{BTreeMap, BTreeSet};
use core::{net::IpAddr, ops::RangeInclusive, time::Duration};

use crate::{error::Refusal, handshake::Proof, identity::Address, time::UnixMillis};

/// One connection of a server. The caller numbers them, and never uses a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// With this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A server's policy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdmissionConfig {
    /// The addresses that may connect; `None` for any. Default `None`.
    pub whitelist: Option<BTreeSet<Address>>,
    /// Whether a new connection replaces one with the same address, rather than being refused. Default true.
    pub replace_existing: bool,
    /// How far a signed timestamp may lie from this server's clock: the same window as the connections'
    /// [`auth_window`](crate::Config::auth_window). Default 5 s.
    pub auth_window: Duration,
    /// How many connections may be unauthenticated at once. Default 4096.
    pub max_unauthenticated: usize,
    /// How many of them may come from one IP address (for IPv6: one /64 network). Default 1024.
    pub max_unauthenticated_per_ip: usize,
    /// How many used proofs are remembered at most, about 200 bytes each. Default 262,144.
    ///
    /// A proof is kept while it could be accepted again, twice the window at most, and of each address the 16
    /// newest; in the place of its older ones an address has a mark, which counts as one, and nothing of it up to
    /// there is accepted any more. When the memory is full, an address that has proofs in it gives up its own oldest,
    /// and any other one is refused as [`Busy`](Refusal::Busy) until there is room: with 0, everybody is. The default
    /// holds more logins than two cores can verify in that time.
    pub max_remembered_proofs: usize,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            whitelist: None,
            replace_existing: true,
            auth_window: crate::config::DEFAULT_AUTH_TIMEOUT,
            max_unauthenticated: 4096,
            max_unauthenticated_per_ip: 1024,
            max_remembered_proofs: 1 << 18,
        }
    }
}

/// A connection that cannot even be heard: too many are unauthenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Overload {
    /// In all.
    #[error("too many connections are waiting to authenticate")]
    Unauthenticated,
    /// From its IP address.
    #[error("too many connections from this IP address are waiting to authenticate")]
    UnauthenticatedFromIp,
}

impl Overload {
    /// A short name that stays the same: for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unauthenticated => "too_many_unauthenticated",
            Self::UnauthenticatedFromIp => "too_many_unauthenticated_from_ip",
        }
    }
}

/// What an admission did to the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// Nobody had it.
    Fresh,
    /// This connection had it, and is to be closed as [`Replaced`](crate::CloseReason::Replaced).
    Replaces(ConnectionId),
}

/// Decides about connections, in the order of their life: [`arrive`](Self::arrive), [`screen`](Self::screen),
/// (the application's own check,) [`admit`](Self::admit), [`release`](Self::release).
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    /// Every connection between `arrive` and `release`, with what it holds.
    connections: BTreeMap<ConnectionId, Holding>,
    unauthenticated: usize,
    unauthenticated_from: BTreeMap<Network, usize>,
    connected: BTreeMap<Address, ConnectionId>,
    used: UsedProofs,
}

#[derive(Debug, Clone, Copy)]
enum Holding {
    /// A place among the unauthenticated.
    Place(Option<Network>),
    Address(Address),
}

impl Admission {
    /// A server that has seen nobody yet.
    pub fn new(config: AdmissionConfig) -> Self {
        Self {
            config,
            connections: BTreeMap::new(),
            unauthenticated: 0,
            unauthenticated_from: BTreeMap::new(),
            connected: BTreeMap::new(),
            used: UsedProofs::default(),
        }
    }

    /// A transport was accepted, from `ip` if that is known. It takes a place among the unauthenticated.
    ///
    /// # Errors
    /// When there is no place left; the connection then holds nothing.
    pub fn arrive(&mut self, id: ConnectionId, ip: Option<IpAddr>) -> Result<(), Overload> {
        if self.unauthenticated >= self.config.max_unauthenticated {
            return Err(Overload::Unauthenticated);
        }
        let network = ip.map(Network::of);
        if let Some(network) = network {
            let count = self.unauthenticated_from.entry(network).or_insert(0);
            if *count >= self.config.max_unauthenticated_per_ip {
                if *count == 0 {
                    self.unauthenticated_from.remove(&network);
                }
                return Err(Overload::UnauthenticatedFromIp);
            }
            *count = count.saturating_add(1);
        }
        self.unauthenticated = self.unauthenticated.saturating_add(1);
        self.connections.insert(id, Holding::Place(network));
        Ok(())
    }

    /// Changes the whitelist; `None` is anybody. Who is connected stays, listed or not.
    pub fn set_whitelist(&mut self, whitelist: Option<BTreeSet<Address>>) {
        self.config.whitelist = whitelist;
    }

    /// Judges a proved address before the application is asked: is it on the whitelist, and was the proof used
    /// before? From here on it is used up, whatever the application says. (Proofs of addresses that are not
    /// on the whitelist are not remembered, so that strangers cannot fill the memory.)
    ///
    /// # Errors
    /// The refusal to answer with. After [`Refusal::Busy`], the proof is not used up.
    pub fn screen(&mut self, proof: Proof, wall: UnixMillis) -> Result<(), Refusal> {
        let Proof { address, timestamp } = proof;
        if self.config.whitelist.as_ref().is_some_and(|whitelist| !whitelist.contains(&address)) {
            return Err(Refusal::NotWhitelisted);
        }
        self.used.note(timestamp, address, wall, &self.config)
    }

    /// Gives the address to the connection, which gives its place among the unauthenticated back.
    ///
    /// # Errors
    /// [`Refusal::AlreadyConnected`] when somebody has the address and is not to be replaced;
    /// [`Refusal::Denied`] when the connection was released already.
    pub fn admit(&mut self, address: Address, id: ConnectionId) -> Result<Admitted, Refusal> {
        if !self.connections.contains_key(&id) {
            return Err(Refusal::Denied);
        }
        let holder = self.connected.get(&address).copied().filter(|holder| *holder != id);
        if holder.is_some() && !self.config.replace_existing {
            return Err(Refusal::AlreadyConnected);
        }
        self.release(id);
        if let Some(holder) = holder {
            // From here on it holds nothing, so that its end cannot touch its successor.
            self.connections.remove(&holder);
        }
        self.connections.insert(id, Holding::Address(address));
        self.connected.insert(address, id);
        Ok(holder.map_or(Admitted::Fresh, Admitted::Replaces))
    }

    /// The connection has ended. Frees what it holds, and nothing that another one holds: a replaced
    /// connection's end never touches its successor.
    pub fn release(&mut self, id: ConnectionId) {
        match self.connections.remove(&id) {
            None => {}
            Some(Holding::Place(network)) => {
                self.unauthenticated = self.unauthenticated.saturating_sub(1);
                if let Some(network) = network
                    && let Some(count) = self.unauthenticated_from.get_mut(&network)
                {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.unauthenticated_from.remove(&network);
                    }
                }
            }
            Some(Holding::Address(address)) => {
                self.connected.remove(&address);
            }
        }
    }

    /// The connection that has this address now.
    pub fn holder(&self, address: &Address) -> Option<ConnectionId> {
        self.connected.get(address).copied()
    }

    /// How many addresses are connected.
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    /// How many connections are unauthenticated.
    pub const fn unauthenticated(&self) -> usize {
        self.unauthenticated
    }

    /// How many used proofs are remembered, each mark of an address counted as one.
    pub fn remembered_proofs(&self) -> usize {
        self.used.entries.len()
    }
}

/// Where a connection comes from, as far as the limits care: an IPv4 address, or an IPv6 /64 network, which is
/// what one household has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    V4([u8; 4]),
    V6(u64),
}

impl Network {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// How many proofs of one address are remembered one by one.
///
/// Few, so that one wallet cannot fill the memory; more than an honest program that dials again and again signs in
/// one window out of order.
const MAX_PROOFS_OF_ONE: usize = 16;

/// The proofs that could be accepted once more. Not the signatures' bytes: one signature has several spellings.
///
/// Where there is no room, the address that wants some gives up its own oldest ones: they are folded into one mark,
/// up to which nothing of this address is accepted any more. So who signs many times, or times that lie ahead, hurts
/// itself alone, and who logs in with one time after the other is never hurt.
#[derive(Debug, Default)]
struct UsedProofs {
    /// What is remembered, by address. An address's mark, if it has one, comes before all its proofs.
    entries: BTreeMap<(Address, UnixMillis), Entry>,
    /// The same, the oldest first.
    by_age: BTreeSet<(UnixMillis, Address)>,
    /// Nothing signed up to this time is accepted any more: proofs this old have been forgotten, so a replay of
    /// one could not be told from a first use. It moves by age alone, and so lies in the past beyond the window
    /// unless the wall clock was set back; then everybody is refused until it has passed.
    forgotten: Option<UnixMillis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Proof,
    /// Stands for everything of its address that was signed up to its time.
    Mark,
}

impl UsedProofs {
    /// Notes a proof, if this is its first use and there is room.
    fn note(
        &mut self,
        timestamp: UnixMillis,
        address: Address,
        wall: UnixMillis,
        config: &AdmissionConfig,
    ) -> Result<(), Refusal> {
        self.forget_until(wall, config.auth_window);
        if self.forgotten.is_some_and(|forgotten| timestamp <= forgotten) {
            return Err(Refusal::Replayed);
        }
        let own = (address, UnixMillis::default())..=(address, UnixMillis::MAX);
        let oldest = self.entries.range(own.clone()).next().map(|(key, entry)| (*key, *entry));
        let marked = oldest.is_some_and(|((_, time), entry)| entry == Entry::Mark && timestamp < time);
        if marked || self.entries.contains_key(&(address, timestamp)) {
            return Err(Refusal::Replayed);
        }
        let full = self.entries.len() >= config.max_remembered_proofs;
        if full && oldest.is_none() {
            // All room is taken by others. Nothing is noted, so the same proof may come again.
            return Err(Refusal::Busy);
        }
        self.entries.insert((address, timestamp), Entry::Proof);
        self.by_age.insert((timestamp, address));
        let proofs = self.entries.range(own.clone()).filter(|(_, entry)| **entry == Entry::Proof).count();
        if full || proofs > MAX_PROOFS_OF_ONE {
            self.fold(own, full);
        }
        Ok(())
    }

    /// Puts a mark in the place of an address's oldest proof, instead of the mark before it. With `free`, there is an
    /// entry less afterwards in any case, for which the address must have two.
    fn fold(&mut self, own: RangeInclusive<(Address, UnixMillis)>, free: bool) {
        let Some((oldest, entry)) = self.entries.range_mut(own.clone()).next() else { return };
        if !free && *entry == Entry::Proof {
            *entry = Entry::Mark;
            return;
        }
        let (address, time) = *oldest;
        self.entries.remove(&(address, time));
        self.by_age.remove(&(time, address));
        if let Some((_, entry)) = self.entries.range_mut(own).next() {
            *entry = Entry::Mark;
        }
    }

    /// Forgets what could not be accepted again, by its age, and remembers up to where.
    fn forget_until(&mut self, wall: UnixMillis, window: Duration) {
        while let Some((oldest, address)) = self.by_age.first().copied()
            && wall.since(oldest) > window
        {
            self.by_age.pop_first();
            self.entries.remove(&(address, oldest));
            self.forgotten = self.forgotten.max(Some(oldest));
        }
    }
}
