//! A server's memory across connections, against a model that keeps everything in lists and maps and looks through them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use link_core::{
    Address, Admission, AdmissionConfig, Admitted, ConnectionId, Overload, PrivateKey, Proof, Refusal,
    UnixMillis,
};

static ADDRESSES: LazyLock<[Address; 4]> = LazyLock::new(|| {
    [11, 12, 13, 14].map(|seed| PrivateKey::from_bytes([seed; 32]).unwrap().public_key().address())
});

#[derive(Debug, Arbitrary)]
struct Policy {
    /// Bit by bit, who is on the whitelist; none when it is zero.
    whitelist: u8,
    replace_existing: bool,
    window: u8,
    max_unauthenticated: u8,
    max_unauthenticated_per_ip: u8,
    max_remembered_proofs: u8,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Arrives(Ip),
    Screens { who: u8, signed: i8 },
    Admits { who: u8, id: u8 },
    Releases { id: u8 },
    TimePasses(u8),
    ClockStepsBack(u8),
}

/// Few addresses, so that they meet.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Ip {
    Unknown,
    V4(u8),
    /// The same, as a system writes it that listens for both kinds at once.
    Mapped(u8),
    V6 {
        network: u8,
        host: u8,
    },
}

/// Runs the steps that `input` says on both, and compares everything that can be seen.
pub fn admission(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(policy) = Policy::arbitrary(&mut input) else { return };
    let config = policy.config();
    let mut ours = Admission::new(config.clone());
    let mut model = Model::new(config);
    let mut wall = 1_000_000u64;
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { return };
        match step {
            Step::Arrives(ip) => {
                // A number is never used twice.
                let id = model.arrivals;
                model.arrivals += 1;
                assert_eq!(ours.arrive(ConnectionId::new(id), ip.address()), model.arrive(id, ip));
            }
            Step::Screens { who, signed } => {
                let address = ADDRESSES[usize::from(who % 4)];
                let timestamp = wall.saturating_add_signed(i64::from(signed));
                let proof = Proof { address, timestamp: UnixMillis::saturating(timestamp) };
                let verdict = ours.screen(proof, UnixMillis::saturating(wall));
                assert_eq!(verdict, model.screen(address, timestamp, wall), "at {wall}: {proof:?}");
                model.replays(address, timestamp, verdict);
            }
            Step::Admits { who, id } => {
                let (address, id) = (ADDRESSES[usize::from(who % 4)], u64::from(id) % (model.arrivals + 1));
                assert_eq!(ours.admit(address, ConnectionId::new(id)), model.admit(address, id));
            }
            Step::Releases { id } => {
                let id = u64::from(id) % (model.arrivals + 1);
                ours.release(ConnectionId::new(id));
                model.release(id);
            }
            Step::TimePasses(by) => wall += u64::from(by),
            Step::ClockStepsBack(by) => {
                wall -= u64::from(by);
                model.trusts_the_clock = false;
            }
        }
        model.compare(&ours);
    }
}

impl Policy {
    fn config(&self) -> AdmissionConfig {
        let mut config = AdmissionConfig::default();
        let listed = ADDRESSES.iter().enumerate().filter(|(place, _)| self.whitelist >> place & 1 == 1);
        config.whitelist =
            (self.whitelist & 15 > 0).then(|| listed.map(|(_, address)| *address).collect::<BTreeSet<_>>());
        config.replace_existing = self.replace_existing;
        config.auth_window = Duration::from_millis(self.window.into());
        config.max_unauthenticated = usize::from(self.max_unauthenticated % 8);
        config.max_unauthenticated_per_ip = usize::from(self.max_unauthenticated_per_ip % 8);
        config.max_remembered_proofs = usize::from(self.max_remembered_proofs % 32);
        config
    }
}

impl Ip {
    fn address(self) -> Option<IpAddr> {
        let v4 = |last: u8| Ipv4Addr::new(192, 0, 2, last % 4);
        match self {
            Self::Unknown => None,
            Self::V4(last) => Some(v4(last).into()),
            Self::Mapped(last) => Some(v4(last).to_ipv6_mapped().into()),
            Self::V6 { network, host } => Some(
                Ipv6Addr::new(
                    0x2001,
                    0xdb8,
                    0,
                    u16::from(network % 4),
                    u16::from(host),
                    0,
                    0,
                    u16::from(host),
                )
                .into(),
            ),
        }
    }

    /// What counts as one place: an IPv4 address, or the first half of an IPv6 one.
    fn network(self) -> Option<String> {
        match self {
            Self::Unknown => None,
            Self::V4(last) | Self::Mapped(last) => Some(format!("v4 {}", last % 4)),
            Self::V6 { network, .. } => Some(format!("v6 {}", network % 4)),
        }
    }
}

struct Model {
    config: AdmissionConfig,
    /// The number that the next one gets.
    arrivals: u64,
    /// Those who wait, and where they come from.
    waiting: BTreeMap<u64, Option<String>>,
    /// Those who were let in. One that was replaced is in neither map.
    inside: BTreeMap<u64, Address>,
    /// Those that are known one by one.
    proofs: Vec<(u64, Address)>,
    /// Up to where nothing of an address counts any more, since it wanted more room than it had.
    marks: BTreeMap<Address, u64>,
    /// The latest time of a proof or mark that was forgotten by its age.
    forgotten: Option<u64>,
    /// Everything that was ever accepted.
    accepted: BTreeSet<(u64, Address)>,
    trusts_the_clock: bool,
}

impl Model {
    fn new(config: AdmissionConfig) -> Self {
        Self {
            config,
            arrivals: 0,
            waiting: BTreeMap::new(),
            inside: BTreeMap::new(),
            proofs: vec![],
            marks: BTreeMap::new(),
            forgotten: None,
            accepted: BTreeSet::new(),
            trusts_the_clock: true,
        }
    }

    fn arrive(&mut self, id: u64, ip: Ip) -> Result<(), Overload> {
        if self.waiting.len() >= self.config.max_unauthenticated {
            return Err(Overload::Unauthenticated);
        }
        let network = ip.network();
        let neighbours = self.waiting.values().filter(|other| **other == network).count();
        if network.is_some() && neighbours >= self.config.max_unauthenticated_per_ip {
            return Err(Overload::UnauthenticatedFromIp);
        }
        self.waiting.insert(id, network);
        Ok(())
    }

    fn screen(&mut self, address: Address, timestamp: u64, wall: u64) -> Result<(), Refusal> {
        if self.config.whitelist.as_ref().is_some_and(|listed| !listed.contains(&address)) {
            return Err(Refusal::NotWhitelisted);
        }
        let window = u64::try_from(self.config.auth_window.as_millis()).unwrap();
        // What could not be accepted any more is forgotten.
        let old = |signed: u64| signed < wall && wall - signed > window;
        let times = self.proofs.iter().map(|(signed, _)| *signed).chain(self.marks.values().copied());
        self.forgotten = self.forgotten.max(times.filter(|signed| old(*signed)).max());
        self.proofs.retain(|(signed, _)| !old(*signed));
        self.marks.retain(|_, mark| !old(*mark));
        if self.forgotten.is_some_and(|forgotten| timestamp <= forgotten) {
            // An honest client is refused for it only when the clock was set back, whatever the others do.
            let could_be_honest = timestamp.abs_diff(wall) <= window;
            assert!(!could_be_honest || !self.trusts_the_clock, "refused for nothing");
            return Err(Refusal::Replayed);
        }
        let mark = self.marks.get(&address).copied();
        if mark.is_some_and(|mark| timestamp <= mark) || self.proofs.contains(&(timestamp, address)) {
            return Err(Refusal::Replayed);
        }
        let full = self.remembered() >= self.config.max_remembered_proofs;
        if full && mark.is_none() && self.of(address).is_empty() {
            return Err(Refusal::Busy);
        }
        self.proofs.push((timestamp, address));
        // At most sixteen of one address, and no more in all than there is room for: the last comer makes it.
        while self.of(address).len() > 16 || self.remembered() > self.config.max_remembered_proofs {
            let oldest = self.of(address).into_iter().min().unwrap();
            self.proofs.retain(|proof| *proof != (oldest, address));
            self.marks.insert(address, oldest);
        }
        Ok(())
    }

    /// The times of an address that are known one by one.
    fn of(&self, address: Address) -> Vec<u64> {
        self.proofs.iter().filter(|(_, other)| *other == address).map(|(signed, _)| *signed).collect()
    }

    fn remembered(&self) -> usize {
        self.proofs.len() + self.marks.len()
    }

    /// Whatever the memory holds: no proof is taken twice.
    fn replays(&mut self, address: Address, timestamp: u64, verdict: Result<(), Refusal>) {
        if verdict.is_ok() {
            assert!(self.accepted.insert((timestamp, address)), "a replay was taken");
        }
    }

    fn admit(&mut self, address: Address, id: u64) -> Result<Admitted, Refusal> {
        if !self.waiting.contains_key(&id) && !self.inside.contains_key(&id) {
            return Err(Refusal::Denied);
        }
        let holder = self.holder(&address).filter(|holder| *holder != id);
        match holder {
            Some(_) if !self.config.replace_existing => return Err(Refusal::AlreadyConnected),
            Some(holder) => drop(self.inside.remove(&holder)),
            None => {}
        }
        self.waiting.remove(&id);
        self.inside.insert(id, address);
        Ok(holder.map_or(Admitted::Fresh, |holder| Admitted::Replaces(ConnectionId::new(holder))))
    }

    fn release(&mut self, id: u64) {
        self.waiting.remove(&id);
        self.inside.remove(&id);
    }

    fn holder(&self, address: &Address) -> Option<u64> {
        let mut holders = self.inside.iter().filter(|(_, inside)| *inside == address);
        let holder = holders.next().map(|(id, _)| *id);
        assert_eq!(holders.next(), None, "two have one address");
        holder
    }

    fn compare(&self, ours: &Admission) {
        assert_eq!(ours.unauthenticated(), self.waiting.len());
        assert_eq!(ours.connected(), self.inside.len());
        assert_eq!(ours.remembered_proofs(), self.remembered());
        assert!(ours.remembered_proofs() <= self.config.max_remembered_proofs);
        for address in &*ADDRESSES {
            assert_eq!(ours.holder(address).map(|id| id.get()), self.holder(address));
        }
    }
}
