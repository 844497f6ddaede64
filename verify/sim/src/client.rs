//! A client: a real `Reconnect`, and one real `Connection` at a time.

use core::time::Duration;
use std::sync::Arc;

use link_core::{Address, CloseReason, Config, Event, Next, Now, Reconnect, ReconnectPolicy};

use crate::{
    agenda::{Due, Process},
    application::{Application, Desk, Wish},
    canary::Canary,
    clock::Clock,
    env::Env,
    host::Host,
    inbox::{Inbox, Told},
    network::{End, Holder, Side, WireId},
    oracle::ReconnectBook,
    plan::ClientPlan,
    sometimes::Mark,
};

pub(crate) struct Client {
    number: usize,
    pub(crate) clock: Clock,
    pub(crate) config: Arc<Config>,
    policy: ReconnectPolicy,
    pub(crate) server: usize,
    application: Box<dyn Application>,
    connect_timeout: Duration,
    event_capacity: usize,
    reconnect: Reconnect,
    book: ReconnectBook,
    phase: Phase,
    inbox: Inbox,
    dials: u64,
    /// It was told to disconnect, and is to stay so.
    pub(crate) left: bool,
    dead: bool,
}

enum Phase {
    /// Waits for its time to dial, or for nothing any more.
    Idle,
    Dialling(u64),
    Open(Box<Session>),
}

struct Session {
    host: Host,
    peer: Option<Address>,
    ended: Option<CloseReason>,
}

impl Client {
    pub(crate) fn new(number: usize, plan: ClientPlan, clock: Clock, seed: u64) -> Self {
        Self {
            number,
            clock,
            config: Arc::new(plan.config),
            policy: plan.reconnect,
            server: plan.server,
            application: plan.application,
            connect_timeout: plan.connect_timeout,
            event_capacity: plan.event_capacity.max(1),
            reconnect: Reconnect::new(plan.reconnect, seed),
            book: ReconnectBook::new(plan.reconnect),
            phase: Phase::Idle,
            inbox: Inbox::default(),
            dials: 0,
            left: false,
            dead: false,
        }
    }

    pub(crate) const fn process(&self) -> Process {
        Process::Client(self.number)
    }

    pub(crate) fn address(&self) -> Address {
        self.config.wallet.address()
    }

    pub(crate) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) const fn max_delay(&self) -> Duration {
        self.policy.max_delay
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        match &self.phase {
            Phase::Open(session) => Some(&session.host),
            _ => None,
        }
    }

    /// Who it takes its server for.
    pub(crate) fn peer(&self) -> Option<Address> {
        match &self.phase {
            Phase::Open(session) => session.peer,
            _ => None,
        }
    }

    pub(crate) const fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn has_session(&self) -> bool {
        self.host().is_some_and(Host::is_authenticated)
    }

    pub(crate) fn has_given_up(&self, env: &Env<'_>) -> bool {
        let idle = matches!(self.phase, Phase::Idle);
        !self.dead && idle && matches!(self.reconnect.next(self.clock.now(env.now)), Next::GiveUp(_))
    }

    /// Does what `Reconnect` says.
    pub(crate) fn proceed(&mut self, env: &mut Env<'_>) {
        if self.dead || !matches!(self.phase, Phase::Idle) {
            return;
        }
        let now = self.clock.now(env.now);
        let next = self.reconnect.next(now);
        if !(env.is_planted(Canary::DialsOn) && self.left) {
            self.book.asked(self.number, next, &mut env.oracle);
        }
        match next {
            Next::Dial => self.dial(now, env),
            Next::WaitUntil(_) if env.is_planted(Canary::NeverWaits) => self.dial(now, env),
            Next::WaitUntil(at) => {
                let at = self.clock.when(at, env.now);
                let at = env.timer_for(at);
                let at = if at <= env.now { env.now.after(Duration::from_millis(1)) } else { at };
                env.plan(at, Due::Redial { client: self.number });
            }
            Next::Carry | Next::GiveUp(_) => {}
        }
    }

    fn dial(&mut self, now: Now, env: &mut Env<'_>) {
        self.reconnect.dialled();
        self.book.dialled(self.number, now, &mut env.oracle);
        self.dials = self.dials.saturating_add(1);
        let (client, dial) = (self.number, self.dials);
        env.note(10, client as u64, || format!("client {client} dials server {}", self.server));
        self.phase = Phase::Dialling(dial);
        let there = env.delay(Duration::from_millis(5));
        env.plan_in(there, Due::Knock { client, dial });
        env.plan_in(self.connect_timeout, Due::DialFailed { client, dial });
    }

    /// Whether this is the dial that it waits for.
    pub(crate) const fn awaits(&self, dial: u64) -> bool {
        matches!(self.phase, Phase::Dialling(at) if at == dial)
    }

    pub(crate) fn dial_failed(&mut self, dial: u64, env: &mut Env<'_>) {
        if !self.awaits(dial) {
            return;
        }
        let now = self.clock.now(env.now);
        env.note(11, self.number as u64, || format!("client {} does not get through", self.number));
        self.phase = Phase::Idle;
        self.reconnect.failed(now);
        self.account(None, now, env);
        self.proceed(env);
    }

    fn account(&mut self, reason: Option<&CloseReason>, now: Now, env: &mut Env<'_>) {
        let reset = self.book.ended(self.number, reason, &self.reconnect, now, &mut env.oracle);
        env.marks.reach_if(reset, Mark::CountReset);
        match self.reconnect.next(now) {
            Next::GiveUp(link_core::GiveUp::Exhausted(_)) => env.marks.reach(Mark::Exhausted),
            Next::GiveUp(link_core::GiveUp::Final) => env.marks.reach(Mark::GaveUpFinally),
            _ => {}
        }
    }

    /// The WebSocket is open.
    pub(crate) fn opened(&mut self, wire: WireId, env: &mut Env<'_>) {
        let now = self.clock.now(env.now);
        if env.is_planted(Canary::ResetsOnOpen) {
            self.reconnect = Reconnect::new(self.policy, self.dials);
            self.reconnect.dialled();
        }
        let opened = match env.is_planted(Canary::SignsTwice) {
            true => now,
            false => self.reconnect.opened(now),
        };
        self.book.opened(self.number, opened, &mut env.oracle);
        env.marks.reach_if(opened.wall != now.wall, Mark::SignedAhead);
        let end = End { wire, side: Side::Client };
        let host =
            Host::new(end, self.process(), self.config.clone(), self.event_capacity, opened, env.canary);
        self.phase = Phase::Open(Box::new(Session { host, peer: None, ended: None }));
        self.wake(env);
    }

    pub(crate) fn timer_fired(&mut self, env: &mut Env<'_>) {
        if let Phase::Open(session) = &mut self.phase {
            session.host.timer_fired(env);
        }
        self.wake(env);
    }

    /// Whether its connection is on this wire.
    pub(crate) fn is_on(&self, wire: WireId) -> bool {
        self.host().is_some_and(|host| host.end.wire == wire)
    }

    /// Gives its connection a turn, and another one for as long as something comes of it.
    pub(crate) fn wake(&mut self, env: &mut Env<'_>) {
        loop {
            let Phase::Open(session) = &mut self.phase else { return };
            let events = session.host.turn(&self.clock, &self.inbox, env);
            let mut again = !events.is_empty();
            for event in events {
                self.attend(event, env);
            }
            again |= self.serve_application(env);
            if !again {
                break;
            }
        }
        self.settle(env);
    }

    fn attend(&mut self, event: Event, env: &mut Env<'_>) {
        let Phase::Open(session) = &mut self.phase else { return };
        match event {
            Event::Authenticated { address, .. } => {
                let now = self.clock.now(env.now);
                self.reconnect.authenticated(now);
                self.book.authenticated(now);
                if let Holder::Server(server) = env.network.holder(session.host.end.other()) {
                    let other = env.is_not(Process::Server(server), address);
                    env.marks.reach_if(other, Mark::ClientDeceived);
                }
                session.peer = Some(address);
                self.inbox.push(&mut session.host, Told::Authenticated(address));
            }
            Event::Message(message) => {
                if let Some(peer) = session.peer {
                    self.inbox.push(&mut session.host, Told::Message(peer, message));
                }
            }
            Event::Closed { reason } => {
                session.ended = Some(reason.clone());
                if let Some(peer) = session.peer {
                    self.inbox.push(&mut session.host, Told::Disconnected(peer, reason));
                }
            }
            _ => {}
        }
    }

    /// Lets the application take what waits for it. Says whether something came of it.
    fn serve_application(&mut self, env: &mut Env<'_>) -> bool {
        let process = self.process();
        let mut something = false;
        while let Some((wire, told)) = self.inbox.next(process, env) {
            let end = End { wire, side: Side::Client };
            if let Phase::Open(session) = &mut self.phase {
                session.host.note_taken();
            }
            something = true;
            match &told {
                Told::Authenticated(peer) => env.oracle.tell_authenticated(process, end, *peer),
                Told::Message(peer, _) => env.oracle.tell_message(process, end, Some(*peer)),
                Told::Disconnected(..) => env.oracle.tell_disconnected(process, end),
            }
            self.consult(env, |application, desk| match &told {
                Told::Authenticated(peer) => application.authenticated(*peer, desk),
                Told::Message(peer, message) => application.message(*peer, message, desk),
                Told::Disconnected(peer, reason) => application.disconnected(*peer, reason, desk),
            });
        }
        something
            || (!self.inbox.is_full(self.event_capacity) && self.host().is_some_and(Host::wants_to_read))
    }

    fn settle(&mut self, env: &mut Env<'_>) {
        let Phase::Open(session) = &self.phase else { return };
        if !session.host.is_over() {
            if env.is_planted(Canary::DialsTwice) && session.ended.is_some() {
                let now = self.clock.now(env.now);
                self.book.dialled(self.number, now, &mut env.oracle);
            }
            return;
        }
        let Phase::Open(session) = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let end = session.host.end;
        env.oracle.settle(end);
        env.release(end);
        let reason = session.ended.unwrap_or(CloseReason::Lost);
        let now = self.clock.now(env.now);
        match env.is_planted(Canary::RetriesEverything) {
            true => self.reconnect.ended(&CloseReason::Lost, now),
            false => self.reconnect.ended(&reason, now),
        }
        self.account(Some(&reason), now, env);
        self.proceed(env);
    }

    fn consult(&mut self, env: &mut Env<'_>, ask: impl FnOnce(&mut dyn Application, &mut Desk<'_, '_>)) {
        let peer = match &self.phase {
            Phase::Open(session) if session.host.is_authenticated() => session.peer,
            _ => None,
        };
        let mut desk = Desk {
            now: self.clock.now(env.now),
            calm: env.calm,
            peers: peer.into_iter().collect(),
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
            Wish::Send(_, message) | Wish::Broadcast(message) => {
                if let Phase::Open(session) = &mut self.phase
                    && session.host.is_authenticated()
                {
                    session.host.queue(message, env);
                }
            }
            Wish::Close(_) => {
                if let Phase::Open(session) = &mut self.phase {
                    session.host.close(CloseReason::Local, &self.clock, env);
                }
            }
            Wish::Disconnect => self.disconnect(env),
        }
    }

    /// Wants no connection any more, in whatever phase it is.
    pub(crate) fn disconnect(&mut self, env: &mut Env<'_>) {
        env.note(12, self.number as u64, || format!("client {} is told to disconnect", self.number));
        self.left = true;
        self.book.disconnected();
        if !env.is_planted(Canary::DialsOn) {
            self.reconnect.disconnect();
        }
        match &mut self.phase {
            Phase::Idle => env.marks.reach(Mark::DisconnectedWhileWaiting),
            Phase::Dialling(_) => {
                env.marks.reach(Mark::DisconnectedWhileDialling);
                self.phase = Phase::Idle;
                if env.is_planted(Canary::DialsOn) {
                    self.reconnect.failed(self.clock.now(env.now));
                }
            }
            Phase::Open(session) => {
                env.marks.reach_if(!session.host.is_authenticated(), Mark::DisconnectedInHandshake);
                session.host.close(CloseReason::Local, &self.clock, env);
            }
        }
    }

    pub(crate) fn tick(&mut self, env: &mut Env<'_>) {
        if self.dead {
            return;
        }
        self.consult(env, |application, desk| application.tick(desk));
        self.wake(env);
    }

    /// Dies, with all that it knew. The end of its wire is the caller's.
    pub(crate) fn die(&mut self, env: &mut Env<'_>) -> Option<End> {
        env.oracle.forget_process(self.process());
        self.dead = true;
        self.inbox.clear();
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open(session) => Some(session.host.end),
            _ => None,
        }
    }

    /// Starts without memory, in the hands of somebody who wants it connected.
    pub(crate) fn start(&mut self, seed: u64, env: &mut Env<'_>) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        self.dead = false;
        self.left = false;
        self.reconnect = Reconnect::new(self.policy, seed);
        self.book = ReconnectBook::new(self.policy);
        self.proceed(env);
    }

    pub(crate) fn audit(&self, env: &mut Env<'_>) {
        if let Some(host) = self.host() {
            host.audit(&self.clock, env);
        }
    }
}
