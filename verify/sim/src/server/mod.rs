//! A server: real `Connection`s, a real `Admission`, and what a driver does between them and an application.

mod policy;

use core::{net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use link_core::{
    Address, Admission, AdmissionConfig, CloseReason, Config, ConnectionId, Event, Message, Ticket,
};

use crate::{
    agenda::{Due, Eviction, Process},
    application::{Application, Desk, Wish},
    canary::Canary,
    clock::Clock,
    env::Env,
    host::Host,
    inbox::{Inbox, Told},
    network::{End, Holder, Side, WireId},
    oracle::{Invariant, RegistryBook},
    plan::{ADVERSARY_WALLET, ServerPlan, wallet},
    sometimes::Mark,
};

pub(crate) struct Server {
    number: usize,
    pub(crate) clock: Clock,
    pub(crate) config: Arc<Config>,
    pub(crate) admission: AdmissionConfig,
    application: Box<dyn Application>,
    event_capacity: usize,
    life: Option<Life>,
    inbox: Inbox,
    /// Connections that have something to do.
    dirty: BTreeSet<WireId>,
}

/// A server from its start to its death.
struct Life {
    admission: Admission,
    book: RegistryBook,
    attended: BTreeMap<WireId, Attended>,
    /// Connections of which nothing is left, but for a verdict that may still come.
    graveyard: BTreeMap<WireId, (Host, Ticket)>,
    closing: bool,
}

/// One connection, and what is known about it.
struct Attended {
    host: Host,
    stage: Stage,
    /// Neither evicted nor ended.
    connected: bool,
    evicting: bool,
    /// It ended before the application had heard of its predecessor's end, and keeps the address until then.
    predecessor: Option<WireId>,
    /// A ticket whose verdict is still to come, after the end.
    late: Option<Ticket>,
}

enum Stage {
    Unknown,
    /// Policy is being asked.
    Proved(Ticket),
    /// Let in, and registered; the application has yet to hear of the end of the one whose place it takes.
    Succeeding(Ticket, WireId),
    /// Let in, and registered.
    Admitted,
    Authenticated(Address),
    Ended,
}

const fn id(wire: WireId) -> ConnectionId {
    ConnectionId::new(wire.0)
}

impl Life {
    fn new(config: &AdmissionConfig) -> Self {
        Self {
            admission: Admission::new(config.clone()),
            book: RegistryBook::default(),
            attended: BTreeMap::new(),
            graveyard: BTreeMap::new(),
            closing: false,
        }
    }

    fn release(&mut self, wire: WireId, canary: Option<Canary>) {
        self.book.released(id(wire));
        if canary != Some(Canary::LeaksAddresses) {
            self.admission.release(id(wire));
        }
        if canary == Some(Canary::FreesTheAddress)
            && let Some(Attended { stage: Stage::Authenticated(address), .. }) = self.attended.get(&wire)
            && let Some(holder) = self.admission.holder(address)
        {
            self.admission.release(holder);
        }
    }
}

impl Server {
    pub(crate) fn new(number: usize, plan: ServerPlan, clock: Clock) -> Self {
        let life = Some(Life::new(&plan.admission));
        Self {
            number,
            clock,
            config: Arc::new(plan.config),
            admission: plan.admission,
            application: plan.application,
            event_capacity: plan.event_capacity.max(1),
            life,
            inbox: Inbox::default(),
            dirty: BTreeSet::new(),
        }
    }

    pub(crate) const fn process(&self) -> Process {
        Process::Server(self.number)
    }

    pub(crate) fn address(&self) -> Address {
        self.config.wallet.address()
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Who it takes the client on a wire for.
    pub(crate) fn peer_on(&self, wire: WireId) -> Option<Address> {
        match self.life.as_ref()?.attended.get(&wire)?.stage {
            Stage::Authenticated(address) => Some(address),
            _ => None,
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.closing)
    }

    /// Whether somebody is there, authenticated.
    pub(crate) fn has_sessions(&self) -> bool {
        self.hosts().any(Host::is_authenticated)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.life.iter().flat_map(|life| life.attended.values()).map(|attended| &attended.host)
    }

    /// A transport was accepted, and has become a WebSocket. `false` when it is turned away.
    pub(crate) fn accept(&mut self, wire: WireId, ip: IpAddr, env: &mut Env<'_>) -> bool {
        let process = self.process();
        let Some(life) = self.life.as_mut().filter(|life| !life.closing) else { return false };
        let arrived = life.admission.arrive(id(wire), Some(ip));
        life.book.arrived(id(wire), arrived);
        if arrived.is_err() {
            env.marks.reach(Mark::Overload);
            return false;
        }
        let end = End { wire, side: Side::Server };
        let now = self.clock.now(env.now);
        let host = Host::new(end, process, self.config.clone(), self.event_capacity, now, env.canary);
        let attended = Attended {
            host,
            stage: Stage::Unknown,
            connected: true,
            evicting: false,
            predecessor: None,
            late: None,
        };
        life.attended.insert(wire, attended);
        self.wake(wire, env);
        true
    }

    /// Something happened to a connection.
    pub(crate) fn wake(&mut self, wire: WireId, env: &mut Env<'_>) {
        self.dirty.insert(wire);
        self.work(env);
    }

    pub(crate) fn timer_fired(&mut self, wire: WireId, env: &mut Env<'_>) {
        if let Some(attended) = self.attended(wire) {
            attended.host.timer_fired(env);
        }
        self.wake(wire, env);
    }

    fn attended(&mut self, wire: WireId) -> Option<&mut Attended> {
        self.life.as_mut()?.attended.get_mut(&wire)
    }

    /// Gives every connection that has something to do its turn, until none has.
    pub(crate) fn work(&mut self, env: &mut Env<'_>) {
        self.serve_application(env);
        let stuck = env.is_planted(Canary::WaitsForTheStuck)
            && self.hosts().any(|host| host.is_stalled() && !host.is_closed());
        while let Some(wire) = self.dirty.pop_first() {
            let is_stuck = self.attended(wire).is_some_and(|attended| attended.host.is_stalled());
            if stuck && !is_stuck {
                continue;
            }
            let Self { life, clock, inbox, .. } = self;
            let Some(attended) = life.as_mut().and_then(|life| life.attended.get_mut(&wire)) else {
                continue;
            };
            let events = attended.host.turn(clock, inbox, env);
            for event in events {
                self.attend(wire, event, env);
                self.dirty.insert(wire);
            }
            self.serve_application(env);
            self.settle(wire, env);
        }
    }

    fn attend(&mut self, wire: WireId, event: Event, env: &mut Env<'_>) {
        let Some(life) = &mut self.life else { return };
        let Some(attended) = life.attended.get_mut(&wire) else { return };
        match event {
            Event::AdmissionRequested { ticket } => self.ask(wire, ticket, env),
            Event::Authenticated { address, .. } => {
                life.book.authenticated(id(wire), address, &mut env.oracle);
                attended.stage = Stage::Authenticated(address);
                let client = env.network.holder(attended.host.end.other());
                let stranger = address != wallet(ADVERSARY_WALLET).address();
                env.marks.reach_if(client == Holder::Adversary && stranger, Mark::RelayedProofAccepted);
                if let Holder::Client(client) = client {
                    let other = env.is_not(Process::Client(client), address);
                    env.marks.reach_if(other, Mark::ServerDeceived);
                }
                self.inbox.push(&mut attended.host, Told::Authenticated(address));
                if env.is_planted(Canary::ClosesForNoReason) {
                    env.plan_in(
                        Duration::from_secs(2),
                        Due::Eviction { server: self.number, wire, of: Eviction::Kicked },
                    );
                }
            }
            Event::Message(message) => {
                if let Stage::Authenticated(address) = attended.stage {
                    self.inbox.push(&mut attended.host, Told::Message(address, message));
                }
            }
            Event::Closed { reason } => self.ended(wire, reason, env),
            _ => {}
        }
    }

    /// A connection is to end for a reason that does not come from its peer.
    pub(crate) fn evict(&mut self, wire: WireId, of: Eviction, env: &mut Env<'_>) {
        let Self { life, clock, .. } = self;
        let Some(life) = life else { return };
        let Some(attended) = life.attended.get_mut(&wire) else { return };
        attended.connected = false;
        attended.evicting = true;
        life.book.evicted(id(wire));
        let reason = match of {
            Eviction::Replaced => CloseReason::Replaced,
            Eviction::Kicked => CloseReason::Local,
            Eviction::ShuttingDown => CloseReason::ShuttingDown,
        };
        attended.host.close(reason, clock, env);
        self.wake(wire, env);
    }

    fn ended(&mut self, wire: WireId, reason: CloseReason, env: &mut Env<'_>) {
        let canary = env.canary;
        let Some(life) = &mut self.life else { return };
        let Some(attended) = life.attended.get_mut(&wire) else { return };
        attended.connected = false;
        life.book.evicted(id(wire));
        match core::mem::replace(&mut attended.stage, Stage::Ended) {
            Stage::Authenticated(address) => {
                if !(env.is_planted(Canary::ForgetsToTell) && reason == CloseReason::Replaced) {
                    self.inbox.push(&mut attended.host, Told::Disconnected(address, reason));
                }
                attended.stage = Stage::Authenticated(address);
                life.release(wire, canary);
                if let Some(attended) = life.attended.get_mut(&wire) {
                    attended.stage = Stage::Ended;
                }
            }
            Stage::Succeeding(ticket, predecessor) => {
                env.marks.reach(Mark::EndedWhileSucceeding);
                attended.predecessor = Some(predecessor);
                attended.late = Some(ticket);
            }
            Stage::Proved(ticket) => {
                attended.late = Some(ticket);
                life.release(wire, canary);
            }
            _ => life.release(wire, canary),
        }
    }

    /// Lets the application take what waits for it.
    fn serve_application(&mut self, env: &mut Env<'_>) {
        let process = self.process();
        while let Some((wire, told)) = self.inbox.next(process, env) {
            let end = End { wire, side: Side::Server };
            match &told {
                Told::Authenticated(peer) => env.oracle.tell_authenticated(process, end, *peer),
                Told::Message(peer, _) => env.oracle.tell_message(process, end, Some(*peer)),
                Told::Disconnected(..) => env.oracle.tell_disconnected(process, end),
            }
            if let Some(attended) = self.attended(wire) {
                attended.host.note_taken();
            }
            self.consult(env, |application, desk| match &told {
                Told::Authenticated(peer) => application.authenticated(*peer, desk),
                Told::Message(peer, message) => application.message(*peer, message, desk),
                Told::Disconnected(peer, reason) => application.disconnected(*peer, reason, desk),
            });
            if let Told::Disconnected(..) = told {
                self.succeed(wire, env);
            }
            // It may be over.
            self.dirty.insert(wire);
        }
        if !self.inbox.is_full(self.event_capacity) {
            for (wire, attended) in self.life.iter().flat_map(|life| &life.attended) {
                if attended.host.wants_to_read() {
                    self.dirty.insert(*wire);
                }
            }
        }
    }

    /// Forgets a connection of which nothing is left.
    fn settle(&mut self, wire: WireId, env: &mut Env<'_>) {
        if self.dirty.contains(&wire) {
            return;
        }
        let Some(life) = &mut self.life else { return };
        let over = life
            .attended
            .get(&wire)
            .is_some_and(|attended| attended.host.is_over() && attended.predecessor.is_none());
        if !over {
            return;
        }
        // Whoever waits for a connection that never got as far as the application waits no longer.
        self.succeed(wire, env);
        let Some(life) = &mut self.life else { return };
        if let Some(attended) = life.attended.remove(&wire) {
            env.oracle.settle(attended.host.end);
            env.release(attended.host.end);
            if let Some(ticket) = attended.late {
                life.graveyard.insert(wire, (attended.host, ticket));
            }
        }
    }

    /// Asks the application, and does what it wishes.
    fn consult(&mut self, env: &mut Env<'_>, ask: impl FnOnce(&mut dyn Application, &mut Desk<'_, '_>)) {
        let Some(life) = &self.life else { return };
        let here = life.attended.values().filter(|attended| attended.connected);
        let peers: Arc<[Address]> = here
            .filter_map(|attended| match attended.stage {
                Stage::Authenticated(address) => Some(address),
                _ => None,
            })
            .collect();
        let mut desk = Desk {
            now: self.clock.now(env.now),
            calm: env.calm,
            peers,
            choices: &mut env.choices,
            wishes: Vec::new(),
        };
        ask(&mut *self.application, &mut desk);
        for wish in desk.wishes {
            self.grant(wish, env);
        }
    }

    fn grant(&mut self, wish: Wish, env: &mut Env<'_>) {
        match wish {
            Wish::Send(to, message) => {
                if let Some((wire, attended)) = self.peer(to) {
                    attended.host.queue(message, env);
                    self.dirty.insert(wire);
                }
            }
            Wish::Broadcast(message) => self.broadcast(&message, env),
            Wish::Close(peer) => {
                let Self { life, clock, dirty, .. } = self;
                let Some(life) = life else { return };
                for (wire, attended) in &mut life.attended {
                    if attended.connected && matches!(attended.stage, Stage::Authenticated(at) if at == peer)
                    {
                        attended.host.close(CloseReason::Local, clock, env);
                        dirty.insert(*wire);
                    }
                }
            }
            Wish::Disconnect => {}
        }
    }

    fn peer(&mut self, address: Address) -> Option<(WireId, &mut Attended)> {
        let life = self.life.as_mut()?;
        let holder = WireId(life.admission.holder(&address)?.get());
        let attended = life.attended.get_mut(&holder)?;
        let there = attended.connected && matches!(attended.stage, Stage::Authenticated(_));
        there.then_some((holder, attended))
    }

    fn broadcast(&mut self, message: &Message, env: &mut Env<'_>) {
        let number = self.number;
        let Some(life) = &mut self.life else { return };
        let there = life
            .attended
            .iter_mut()
            .filter(|(_, attended)| attended.connected && matches!(attended.stage, Stage::Authenticated(_)));
        let mut reached = BTreeSet::new();
        let (mut stuck, mut others) = (false, false);
        for (wire, attended) in there {
            let stalled = attended.host.is_stalled();
            (stuck, others) = (stuck || stalled, others || !stalled);
            reached.insert(id(*wire));
            attended.host.queue(message.clone(), env);
            self.dirty.insert(*wire);
        }
        if env.is_planted(Canary::SkipsTheNewest) {
            reached.pop_last();
        }
        env.marks.reach_if(stuck && others, Mark::BroadcastPastAStuckPeer);
        env.oracle.check(Invariant::BroadcastsAreExact, reached == *life.book.present(), || {
            format!("server {number} broadcasts to {reached:?}, and {:?} are there", life.book.present())
        });
    }

    pub(crate) fn tick(&mut self, env: &mut Env<'_>) {
        self.consult(env, |application, desk| application.tick(desk));
        self.work(env);
    }

    /// Ends all connections in an orderly way, and lets nobody in any more.
    pub(crate) fn shut_down(&mut self, env: &mut Env<'_>) {
        let Some(life) = &mut self.life else { return };
        life.closing = true;
        let wires: Vec<_> = life.attended.keys().copied().collect();
        for wire in wires {
            self.evict(wire, Eviction::ShuttingDown, env);
        }
    }

    /// Dies, with all that it knew. The ends of its wires are the caller's.
    pub(crate) fn die(&mut self, env: &mut Env<'_>) -> Vec<End> {
        self.dirty.clear();
        self.inbox.clear();
        env.oracle.forget_process(self.process());
        let life = self.life.take();
        life.into_iter()
            .flat_map(|life| life.attended.into_values())
            .map(|attended| attended.host.end)
            .collect()
    }

    /// Starts without memory.
    pub(crate) fn start(&mut self) {
        self.life.get_or_insert_with(|| Life::new(&self.admission));
    }

    /// What must be true whenever nothing is left to be done at a moment.
    pub(crate) fn audit(&self, env: &mut Env<'_>) {
        let Some(life) = &self.life else { return };
        for attended in life.attended.values() {
            attended.host.audit(&self.clock, env);
        }
        let messages = self.inbox.messages();
        let bound = life.attended.len().saturating_add(1).saturating_mul(self.config.max_turn_frames);
        env.oracle.check(
            Invariant::MemoryIsBounded,
            messages <= self.event_capacity.saturating_add(bound),
            || format!("{messages} messages wait for the application of server {}", self.number),
        );
        life.book.audit(&life.admission, self.admission.max_remembered_proofs, &mut env.oracle);
    }

    /// Whether proofs were forgotten in this life.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.book.has_forgotten())
    }
}
