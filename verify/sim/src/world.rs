//! The world: processes, a network between them, faults, and one thing after the other.

use core::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use std::collections::{BTreeMap, VecDeque};

use crate::{
    Outcome,
    adversary::{self, Adversary},
    agenda::{Agenda, Due, Process},
    canary::Canary,
    choices::Choices,
    client::Client,
    clock::{Clock, Moment},
    env::Env,
    healing::Healing,
    network::{Cut, End, Holder, Network, Side, WireId},
    oracle::{Invariant, Oracle},
    plan::{Fault, Plan},
    server::Server,
    sometimes::{Mark, Marks},
    trace::Trace,
};

/// No world takes more steps than this: time would not pass.
const MAX_STEPS: u64 = 100_000;

pub(crate) struct World<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) adversary: Adversary,
    pub(crate) paused: BTreeMap<Process, Pause>,
    pauses: u64,
    duration: Duration,
    pub(crate) healing: Option<Healing>,
    pub(crate) must_be_heard: bool,
    pub(crate) done: bool,
    steps: u64,
}

/// A process that does nothing for a while, and what it missed.
pub(crate) struct Pause {
    number: u64,
    missed: Vec<Due>,
}

impl<'a> World<'a> {
    pub(crate) fn new(plan: Plan, mut choices: Choices<'a>, canary: Option<Canary>, trace: bool) -> Self {
        let Plan { faults, ties, duration, servers, clients, must_be_heard } = plan;
        let mut clock = || {
            let mut clock = Clock::new(choices.millis(0, 5_000));
            clock.confused = canary == Some(Canary::LivesByTheWall);
            clock
        };
        let servers: Vec<_> =
            servers.into_iter().enumerate().map(|(at, plan)| Server::new(at, plan, clock())).collect();
        let clocks: Vec<_> = clients.iter().map(|_| clock()).collect();
        let clients = clients
            .into_iter()
            .zip(clocks)
            .enumerate()
            .map(|(at, (plan, clock))| Client::new(at, plan, clock, choices.below(u64::MAX)))
            .collect::<Vec<_>>();
        let names = servers
            .iter()
            .map(|server: &Server| (server.process(), server.address()))
            .chain(clients.iter().map(|client: &Client| (client.process(), client.address())))
            .collect();
        let env = Env {
            now: Moment::default(),
            choices,
            faults,
            ties,
            canary,
            calm: false,
            network: Network::default(),
            agenda: Agenda::default(),
            oracle: Oracle::default(),
            marks: Marks::default(),
            trace: Trace::new(trace),
            tap: VecDeque::new(),
            names,
        };
        Self {
            env,
            servers,
            clients,
            adversary: Adversary::default(),
            paused: BTreeMap::new(),
            pauses: 0,
            duration,
            healing: None,
            must_be_heard,
            done: false,
            steps: 0,
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        self.go();
        self.outcome()
    }

    /// Everything happens.
    pub(crate) fn go(&mut self) {
        self.begin();
        while !self.done && !self.env.oracle.has_failed() {
            if self.env.choices.is_dry() && !self.env.calm {
                self.env.agenda.forget_faults();
                self.env.plan(self.env.now, Due::Heal);
            }
            let Some((at, due)) = self.env.agenda.next() else { break };
            self.env.now = at;
            self.env.oracle.now = at;
            self.steps = self.steps.saturating_add(1);
            if self.steps > MAX_STEPS {
                self.env
                    .oracle
                    .fail(Invariant::TimePasses, || format!("{MAX_STEPS} steps, the last one {due:?}"));
            }
            self.handle(due);
            if !self.env.agenda.has_more_at(at) {
                self.audit();
            }
            self.look_for_health();
        }
    }

    /// What has happened so far.
    pub(crate) fn outcome(self) -> Outcome {
        let Env { now, oracle, marks, trace, choices, .. } = self.env;
        Outcome {
            steps: self.steps,
            virtual_time: now.since_start(),
            fingerprint: trace.fingerprint(),
            failure: oracle.into_failure(),
            marks,
            choices: choices.recorded().to_vec(),
            trace: trace.into_lines(),
        }
    }

    fn begin(&mut self) {
        let Self { env, clients, servers, .. } = self;
        let crowd = env.has(Fault::Crowd);
        env.marks.reach_if(crowd, Mark::Crowd);
        for client in 0..clients.len() {
            let after = if crowd { Duration::ZERO } else { env.choices.millis(0, 1_000) };
            env.plan_in(after, Due::Redial { client });
            let tick = env.choices.millis(200, 1_500);
            env.plan_in(tick, Due::Tick(Process::Client(client)));
        }
        for server in 0..servers.len() {
            let tick = env.choices.millis(200, 1_500);
            env.plan_in(tick, Due::Tick(Process::Server(server)));
        }
        env.plan_in(Duration::from_millis(300), Due::Fault);
        if env.has(Fault::Intruder) || env.has(Fault::Impostor) {
            env.plan_in(Duration::from_millis(50), Due::Adversary);
        }
        env.plan_in(self.duration, Due::Heal);
    }

    /// Whose business it is; if that one is paused, it will have to wait.
    fn process_of(&self, due: &Due) -> Option<Process> {
        let holder = |end: End| match self.env.network.holder(end) {
            Holder::Client(client) => Some(Process::Client(client)),
            Holder::Server(server) => Some(Process::Server(server)),
            Holder::Adversary | Holder::Nobody => None,
        };
        match *due {
            Due::Writable(end) | Due::Timer(end) => holder(end),
            Due::Verdict { server, .. } | Due::Eviction { server, .. } => Some(Process::Server(server)),
            Due::Opened { client, .. } | Due::DialFailed { client, .. } | Due::Redial { client } => {
                Some(Process::Client(client))
            }
            Due::Knock { client, .. } => {
                self.clients.get(client).map(|client| Process::Server(client.server))
            }
            Due::Tick(process) | Due::Application(process) => Some(process),
            _ => None,
        }
    }

    fn handle(&mut self, due: Due) {
        if let Some(process) = self.process_of(&due)
            && let Some(pause) = self.paused.get_mut(&process)
        {
            if !pause.missed.contains(&due) {
                pause.missed.push(due);
            }
            return;
        }
        match due {
            Due::Arrival(end) => self.arrive(end),
            Due::Writable(end) => self.wake(end),
            Due::Application(process) => self.serve_application(process),
            Due::Timer(end) => match self.env.network.holder(end) {
                Holder::Server(server) => {
                    if let Some(server) = self.servers.get_mut(server) {
                        server.timer_fired(end.wire, &mut self.env);
                    }
                }
                Holder::Client(client) => {
                    if let Some(client) = self.clients.get_mut(client).filter(|client| client.is_on(end.wire))
                    {
                        client.timer_fired(&mut self.env);
                    }
                }
                Holder::Adversary | Holder::Nobody => {}
            },
            Due::Verdict { server, wire, admitted } => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.verdict(wire, admitted, &mut self.env);
                }
            }
            Due::Eviction { server, wire, of } => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.evict(wire, of, &mut self.env);
                }
            }
            Due::Knock { client, dial } => self.knock(client, dial),
            Due::Opened { client, dial, wire } => self.opened(client, dial, wire),
            Due::DialFailed { client, dial } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.dial_failed(dial, &mut self.env);
                }
            }
            Due::Redial { client } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.proceed(&mut self.env);
                }
            }
            Due::Tick(process) => self.tick(process),
            Due::Resume { process, pause } => self.resume(process, Some(pause)),
            Due::Restart(process) => self.restart(process),
            Due::Gone(process) => self.gone(process),
            Due::Fault => self.break_something(),
            Due::Adversary => self.move_adversary(),
            Due::Heal => self.heal(),
            Due::Operator => self.operate(),
            Due::Look => {}
        }
    }

    fn arrive(&mut self, end: End) {
        let env = &mut self.env;
        let tampered = env.network.wire(end.wire).is_some_and(|wire| wire.tampered) && !env.calm;
        let mut theirs = Vec::new();
        let arrival = env.network.arrive(end, env.now, tampered.then_some(&mut theirs));
        for parcel in theirs {
            for parcel in adversary::tamper(end, parcel, env) {
                env.network.put_down(end, parcel, env.now);
            }
        }
        if let Some(next) = arrival.next {
            env.plan(next, Due::Arrival(end));
        }
        if !arrival.came {
            return;
        }
        let released = env.network.holder(end) == Holder::Nobody;
        if tampered || released {
            // What was taken out of the pipe makes room.
            env.plan(env.now, Due::Writable(end.other()));
        }
        if released {
            // A released socket answers with a reset.
            env.network.cut(end.wire, Cut::Reset, env.now);
            env.plan(env.now, Due::Arrival(end.other()));
            return;
        }
        self.handle(Due::Writable(end));
    }

    /// Gives whoever holds an end a turn.
    pub(crate) fn wake(&mut self, end: End) {
        match self.env.network.holder(end) {
            Holder::Server(server) => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.wake(end.wire, &mut self.env);
                }
            }
            Holder::Client(client) => {
                if let Some(client) = self.clients.get_mut(client).filter(|client| client.is_on(end.wire)) {
                    client.wake(&mut self.env);
                }
            }
            Holder::Adversary => self.adversary.listen(end, &mut self.env),
            Holder::Nobody => {}
        }
    }

    fn knock(&mut self, client: usize, dial: u64) {
        let Self { env, clients, servers, adversary, paused, .. } = self;
        let Some(dialling) = clients.get(client).filter(|client| client.awaits(dial)) else { return };
        if env.has(Fault::Impostor) && adversary.has_room() && env.choices.once_in(4) {
            let wire = open(env, Holder::Client(client), Holder::Adversary);
            env.oracle.note_tampering(wire);
            let end = End { wire, side: Side::Server };
            match relay(servers, paused, env) {
                Some(server) => adversary.relay(end, server),
                None => adversary.take(end),
            }
            env.note(13, wire.0, || format!("#{}: client {client} meets an impostor", wire.0));
            env.plan_in(Duration::from_millis(5), Due::Opened { client, dial, wire });
            return;
        }
        let number = dialling.server;
        let Some(server) = servers.get_mut(number) else { return };
        if !server.is_up() {
            // Refused, or no answer at all.
            if env.calm || env.choices.below(2) == 0 {
                env.plan_in(Duration::from_millis(5), Due::DialFailed { client, dial });
            }
            return;
        }
        let wire = open(env, Holder::Client(client), Holder::Server(number));
        env.note(14, wire.0, || format!("#{}: client {client} to server {number}", wire.0));
        let back = env.delay(Duration::from_millis(5));
        if server.accept(wire, ip_of(client), env) {
            env.plan_in(back, Due::Opened { client, dial, wire });
        } else {
            env.note(15, wire.0, || format!("#{} is turned away", wire.0));
            env.release(End { wire, side: Side::Client });
            env.release(End { wire, side: Side::Server });
            env.plan_in(back, Due::DialFailed { client, dial });
        }
    }

    fn opened(&mut self, client: usize, dial: u64, wire: WireId) {
        let Some(dialling) = self.clients.get_mut(client) else { return };
        if dialling.awaits(dial) {
            dialling.opened(wire, &mut self.env);
        } else {
            self.env.cut(wire, Cut::Fin);
            self.env.release(End { wire, side: Side::Client });
        }
    }

    fn serve_application(&mut self, process: Process) {
        match process {
            Process::Server(server) => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.work(&mut self.env);
                }
            }
            Process::Client(client) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.wake(&mut self.env);
                }
            }
        }
    }

    fn tick(&mut self, process: Process) {
        match process {
            Process::Server(server) => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.tick(&mut self.env);
                }
            }
            Process::Client(client) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.tick(&mut self.env);
                }
            }
        }
        let pause = match self.env.calm {
            true => Duration::from_millis(300),
            false if self.env.has(Fault::Long) || self.env.has(Fault::SlowApplication) => {
                self.env.choices.millis(20, 500)
            }
            false => self.env.choices.millis(200, 2_000),
        };
        self.env.plan_in(pause, Due::Tick(process));
    }

    /// Lets a process do nothing for a while; `asleep` also stops its monotonic clock.
    pub(crate) fn pause(&mut self, process: Process, asleep: bool, duration: Duration) {
        if self.paused.contains_key(&process) {
            return;
        }
        self.pauses = self.pauses.saturating_add(1);
        let number = self.pauses;
        let now = self.env.now;
        if asleep && let Some(clock) = self.clock_mut(process) {
            clock.fall_asleep(now);
        }
        self.paused.insert(process, Pause { number, missed: Vec::new() });
        self.env.note(16, number, || format!("{process} is paused for {duration:?}, asleep: {asleep}"));
        self.env.plan_in(duration, Due::Resume { process, pause: number });
    }

    pub(crate) fn resume(&mut self, process: Process, number: Option<u64>) {
        let of_this =
            self.paused.get(&process).is_some_and(|pause| number.is_none_or(|at| at == pause.number));
        if !of_this {
            return;
        }
        let now = self.env.now;
        if let Some(clock) = self.clock_mut(process) {
            clock.wake_up(now);
        }
        self.env.note(17, 0, || format!("{process} goes on"));
        if let Some(pause) = self.paused.remove(&process) {
            for due in pause.missed {
                self.handle(due);
            }
        }
    }

    pub(crate) fn clock_mut(&mut self, process: Process) -> Option<&mut Clock> {
        match process {
            Process::Server(server) => self.servers.get_mut(server).map(|server| &mut server.clock),
            Process::Client(client) => self.clients.get_mut(client).map(|client| &mut client.clock),
        }
    }

    /// Kills a process. Its wires end as `cut` has it.
    pub(crate) fn kill(&mut self, process: Process, cut: Cut) {
        for due in self.paused.remove(&process).into_iter().flat_map(|pause| pause.missed) {
            // Its application ticks on in its next life, and a socket that it never saw is released.
            if let Due::Tick(_) | Due::Opened { .. } = due {
                self.env.plan(self.env.now, due);
            }
        }
        let now = self.env.now;
        if let Some(clock) = self.clock_mut(process) {
            clock.wake_up(now);
        }
        self.env.note(18, 0, || format!("{process} dies"));
        let ends = match process {
            Process::Server(server) => {
                self.servers.get_mut(server).map(|server| server.die(&mut self.env)).unwrap_or_default()
            }
            Process::Client(client) => {
                let end = self.clients.get_mut(client).and_then(|client| client.die(&mut self.env));
                end.into_iter().collect()
            }
        };
        for end in ends {
            self.env.oracle.forget_end(end);
            self.env.cut(end.wire, cut);
            self.env.release(end);
        }
    }

    pub(crate) fn restart(&mut self, process: Process) {
        self.env.note(19, 0, || format!("{process} starts"));
        match process {
            Process::Server(server) => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.start();
                }
            }
            Process::Client(client) => {
                let seed = self.env.choices.below(u64::MAX);
                if let Some(client) = self.clients.get_mut(client) {
                    client.start(seed, &mut self.env);
                }
            }
        }
    }

    fn audit(&mut self) {
        let Self { env, servers, clients, paused, .. } = self;
        for server in servers.iter().filter(|server| !paused.contains_key(&server.process())) {
            server.audit(env);
        }
        for client in clients.iter().filter(|client| !paused.contains_key(&client.process())) {
            client.audit(env);
        }
    }

    /// The adversary opens a connection, or says something, or ends one.
    fn move_adversary(&mut self) {
        let Self { env, servers, adversary, paused, .. } = self;
        if env.calm {
            return;
        }
        let pause = env.choices.millis(10, 600);
        env.plan_in(pause, Due::Adversary);
        let what = env.choices.below(8);
        if what == 0 || adversary.ends.is_empty() {
            if !env.has(Fault::Intruder) || !adversary.has_room() {
                return;
            }
            if let Some(end) = knock_somewhere(servers, paused, env) {
                adversary.take(end);
                // It may have a proof in its hand.
                adversary.speak(end, env);
            }
            return;
        }
        let Some(end) = adversary.some_end(env) else { return };
        match what {
            7 if env.choices.below(2) == 1 => adversary.drop_end(end, env),
            _ => adversary.speak(end, env),
        }
    }
}

/// The adversary connects to a server that is there.
fn knock_somewhere(
    servers: &mut [Server],
    paused: &BTreeMap<Process, Pause>,
    env: &mut Env<'_>,
) -> Option<End> {
    let number = env.choices.below(servers.len() as u64) as usize;
    let server = servers.get_mut(number).filter(|server| server.is_up())?;
    if paused.contains_key(&server.process()) {
        return None;
    }
    let wire = open(env, Holder::Adversary, Holder::Server(number));
    env.oracle.note_tampering(wire);
    env.note(32, wire.0, || format!("#{}: the adversary knocks at server {number}", wire.0));
    let end = End { wire, side: Side::Client };
    if !server.accept(wire, ip_of(usize::MAX), env) {
        env.release(end);
        env.release(end.other());
        return None;
    }
    Some(end)
}

/// A server's door for an impostor who relays, if this one does.
fn relay(servers: &mut [Server], paused: &BTreeMap<Process, Pause>, env: &mut Env<'_>) -> Option<End> {
    (env.choices.below(2) == 1).then(|| knock_somewhere(servers, paused, env)).flatten()
}

fn ip_of(client: usize) -> IpAddr {
    let last = u8::try_from(client).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn open(env: &mut Env<'_>, client: Holder, server: Holder) -> WireId {
    let capacity = match env.has(Fault::BoundedPipe) {
        true => env.choices.one_of([64 << 10, 300, 1_000, 4_000]),
        false => 64 << 10,
    };
    let latency = env.choices.one_of([1u64, 0, 5, 20, 60]);
    let tampered = adversary::is_on_path(env);
    let wire = env.network.open(client, server, capacity, Duration::from_millis(latency), tampered);
    env.oracle.note_wire(wire, tampered);
    wire
}
