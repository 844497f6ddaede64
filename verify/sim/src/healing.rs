//! After the faults: the world is set right, and then everybody must be connected and heard in time.

use core::time::Duration;
use std::collections::BTreeSet;

use link_core::{Address, UnixMillis};

use crate::{
    agenda::{Due, Process},
    clock::Moment,
    env::LATENESS,
    network::{Cut, End, Holder, Side, WireId},
    oracle::Invariant,
    world::World,
};

/// How long the end of a transport may take once the last word has left.
const LINGER: Duration = Duration::from_secs(1);
/// How often somebody looks after those who gave up.
const OPERATOR: Duration = Duration::from_millis(400);
/// For how long the last words of the faults may be heard.
const SETTLING: Duration = Duration::from_secs(1);
/// For how long the world is watched after that.
const QUIET: Duration = Duration::from_secs(3);
/// How many times all that can be in the way of a login may be so, one after the other: a server that has not noticed
/// yet that the last session is dead, a wait for the next attempt, and again after a refusal.
const ROUNDS: u32 = 2;

/// So many proofs fit into the memory of a server whatever the wallets of a world do: each has 17 entries at most.
const ROOM_FOR_ALL: usize = 17 * 16;

#[derive(Debug)]
pub(crate) struct Healing {
    deadline: Moment,
    /// The clients that must come back.
    wanted: BTreeSet<usize>,
    quiet: Option<Quiet>,
}

/// Everybody was heard. Once the last words of the faults have died away, nothing ends.
#[derive(Debug)]
struct Quiet {
    from: Moment,
    until: Moment,
    sessions: Option<BTreeSet<(usize, WireId)>>,
}

impl World<'_> {
    /// The faults stop.
    pub(crate) fn heal(&mut self) {
        if self.env.calm {
            return;
        }
        self.env.note(40, 0, || "the faults stop".to_owned());
        self.env.calm = true;
        self.env.agenda.forget_faults();
        self.set_clocks_right();
        let paused: Vec<_> = self.paused.keys().copied().collect();
        for process in paused {
            self.resume(process, None);
        }
        self.adversary.drop_all(&mut self.env);
        self.repair_wires();
        for at in 0..self.servers.len() {
            let process = Process::Server(at);
            if self.servers.get(at).is_some_and(|server| server.is_closing()) {
                self.kill(process, Cut::Fin);
            }
            self.restart(process);
            if let Some(server) = self.servers.get_mut(at) {
                server.answer_all(&mut self.env);
                server.work(&mut self.env);
            }
        }
        let wanted = self.choose_the_wanted();
        let deadline = self.env.now.after(self.bound());
        self.env.oracle.heard.clear();
        self.healing = Some(Healing { deadline, wanted, quiet: None });
        for client in &mut self.clients {
            client.wake(&mut self.env);
        }
        self.env.plan(self.env.now, Due::Operator);
    }

    /// All wall clocks agree again, on a time after everything that was ever signed: a server refuses what was signed
    /// before the time that it has forgotten, and rightly so.
    fn set_clocks_right(&mut self) {
        let now = self.env.now;
        let processes = self.processes();
        let mut latest = self.env.oracle.latest_signature();
        for process in &processes {
            if let Some(clock) = self.clock_mut(*process) {
                latest = latest.max(clock.wall(now).get());
            }
        }
        for process in processes {
            if let Some(clock) = self.clock_mut(process) {
                clock.set_right(UnixMillis::saturating(latest.saturating_add(1)), now);
            }
        }
    }

    /// Nothing stands still any more. A wire that is dead in silence stays so, to be noticed, unless a guard is off that
    /// would have to notice it.
    fn repair_wires(&mut self) {
        for (due, end) in self.env.network.hurry(self.env.now) {
            self.env.plan(due, Due::Arrival(end));
        }
        let off = |config: &link_core::Config| config.idle_timeout.is_zero() || config.auth_timeout.is_zero();
        let unguarded = self.servers.iter().any(|server| off(&server.config))
            || self.clients.iter().any(|client| off(&client.config));
        let wires: Vec<_> = self.env.network.wires().map(|(wire, _)| wire).collect();
        let broken: Vec<_> = wires
            .into_iter()
            .filter(|id| {
                let Some(wire) = self.env.network.wire(*id) else { return false };
                let deaf = wire.is_silent() || wire.tampered;
                (deaf && unguarded) || wire.is_suspect() || self.is_deceived(*id)
            })
            .collect();
        for wire in broken {
            self.env.cut(wire, Cut::Reset);
        }
        let wires: Vec<_> = self.env.network.wires().map(|(wire, _)| wire).collect();
        for wire in wires {
            for side in [Side::Client, Side::Server] {
                self.env.plan(self.env.now, Due::Writable(End { wire, side }));
            }
        }
    }

    /// Whether one of two honest peers takes the other for somebody else. In version 1 somebody on the path can do that,
    /// with a proof that was made for another connection.
    fn is_deceived(&self, wire: WireId) -> bool {
        let (client, server) = (End { wire, side: Side::Client }, End { wire, side: Side::Server });
        let (Holder::Client(client), Holder::Server(server)) =
            (self.env.network.holder(client), self.env.network.holder(server))
        else {
            return false;
        };
        let (Some(client), Some(server)) = (self.clients.get(client), self.servers.get(server)) else {
            return false;
        };
        let in_client = client.is_on(wire) && client.peer().is_some_and(|peer| peer != server.address());
        let in_server = server.peer_on(wire).is_some_and(|peer| peer != client.address());
        in_client || in_server
    }

    /// One client for each address and server, of those that may come in and have not left.
    fn choose_the_wanted(&mut self) -> BTreeSet<usize> {
        let mut taken: BTreeSet<(usize, Address)> = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        let mut unwanted = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            let listed = self.servers.get(client.server).is_some_and(|server| {
                server.admission.whitelist.as_ref().is_none_or(|listed| listed.contains(&client.address()))
            });
            if client.left || !listed {
                continue;
            }
            if taken.insert((client.server, client.address())) {
                wanted.insert(at);
            } else {
                unwanted.push(at);
            }
        }
        for at in unwanted {
            if let Some(client) = self.clients.get_mut(at) {
                client.disconnect(&mut self.env);
                client.wake(&mut self.env);
            }
        }
        wanted
    }

    /// How long it may take until everybody is connected and heard, by the settings.
    fn bound(&self) -> Duration {
        let mut notice = Duration::ZERO;
        for config in self
            .servers
            .iter()
            .map(|server| &server.config)
            .chain(self.clients.iter().map(|client| &client.config))
        {
            let idle = config.idle_timeout.saturating_add(config.idle_check_interval);
            let stranger = config.auth_timeout.saturating_add(config.auth_check_interval);
            notice = notice.max(idle).max(stranger);
        }
        let dial = self.clients.iter().map(crate::client::Client::connect_timeout).max().unwrap_or_default();
        let wait = self.clients.iter().map(crate::client::Client::max_delay).max().unwrap_or_default();
        let round = [notice, dial, wait, LATENESS, LINGER, LINGER, OPERATOR, Duration::from_secs(1)];
        round
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add)
            .saturating_mul(ROUNDS)
            .saturating_add(Duration::from_secs(5))
            .saturating_add(self.queue(dial.saturating_add(wait)))
    }

    /// How long all may have to wait for a place in a small memory of proofs. One that is full takes a newcomer only when a
    /// proof is out of the window, whoever comes first then has the place, and it stays taken for a window. So the
    /// last one waits for all the others, one after the other, and each of them may need `again` until it comes.
    fn queue(&self, again: Duration) -> Duration {
        let small =
            self.servers.iter().filter(|server| server.admission.max_remembered_proofs < ROOM_FOR_ALL);
        let window = small.map(|server| server.admission.auth_window).max();
        let turns = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        window.map_or(Duration::ZERO, |window| window.saturating_add(again).saturating_mul(turns))
    }

    /// Starts those again who gave up, as people do.
    pub(crate) fn operate(&mut self) {
        // A proof that was exchanged on the path may only have been read by now.
        let wires: Vec<_> = self.env.network.wires().map(|(wire, _)| wire).collect();
        for wire in wires.into_iter().filter(|wire| self.is_deceived(*wire)).collect::<Vec<_>>() {
            self.env.cut(wire, Cut::Reset);
        }
        let Some(healing) = &self.healing else { return };
        for at in healing.wanted.clone() {
            let Some(client) = self.clients.get(at) else { continue };
            if client.has_given_up(&self.env) || client.is_dead() {
                self.restart(Process::Client(at));
            }
        }
        self.env.plan_in(OPERATOR, Due::Operator);
    }

    pub(crate) fn look_for_health(&mut self) {
        let Some(healing) = &self.healing else { return };
        let now = self.env.now;
        if let Some(quiet) = &healing.quiet {
            return self.watch_the_quiet(quiet.from, quiet.until);
        }
        let missing = healing.wanted.iter().find(|at| !self.is_well(**at)).copied();
        match missing {
            None => {
                self.env.note(41, 0, || "everybody was heard".to_owned());
                let from = now.after(SETTLING);
                let until = from.after(QUIET);
                if let Some(healing) = &mut self.healing {
                    healing.quiet = Some(Quiet { from, until, sessions: None });
                }
                self.env.plan(from, Due::Look);
                self.env.plan(until, Due::Look);
            }
            Some(at) if now > healing.deadline => {
                let deadline = healing.deadline;
                self.env.oracle.fail(Invariant::EverybodyIsHeard, || {
                    format!("client {at} was to be connected and heard by {deadline}")
                });
            }
            Some(_) => {}
        }
    }

    fn watch_the_quiet(&mut self, from: Moment, until: Moment) {
        let now = self.env.now;
        if now >= until {
            self.done = true;
        }
        if now < from {
            return;
        }
        let open = self.sessions();
        let lasting: BTreeSet<_> = open.iter().copied().filter(|(at, _)| self.is_sane(*at)).collect();
        let quiet = self.healing.as_mut().and_then(|healing| healing.quiet.as_mut());
        let Some(sessions) = quiet.map(|quiet| quiet.sessions.get_or_insert(lasting)) else { return };
        if let Some((client, wire)) = sessions.difference(&open).next() {
            self.env.oracle.fail(Invariant::QuietSessionsLast, || {
                format!("the session of client {client} on #{} has ended without a fault", wire.0)
            });
        }
    }

    /// Whether a client is connected, and was heard and has heard something.
    fn is_well(&self, at: usize) -> bool {
        let Some(client) = self.clients.get(at) else { return true };
        let Some(server) = self.servers.get(client.server) else { return true };
        if !self.must_be_heard {
            return client.has_session();
        }
        let heard = &self.env.oracle.heard;
        heard.contains(&(client.process(), server.address()))
            && heard.contains(&(server.process(), client.address()))
    }

    fn sessions(&self) -> BTreeSet<(usize, WireId)> {
        self.clients
            .iter()
            .enumerate()
            .filter_map(|(at, client)| {
                let host = client.host().filter(|host| host.is_authenticated())?;
                Some((at, host.end.wire))
            })
            .collect()
    }

    /// Whether the settings of both sides let a session live: each hears the other more often than it must.
    fn is_sane(&self, at: usize) -> bool {
        let Some(client) = self.clients.get(at) else { return false };
        let Some(server) = self.servers.get(client.server) else { return false };
        let margin = Duration::from_millis(400);
        let lives = |listener: &link_core::Config, beats: Duration| {
            let timeout = listener.idle_timeout;
            timeout.is_zero() || (!beats.is_zero() && beats.saturating_add(margin) < timeout)
        };
        let beats = [server.config.heartbeat_interval, client.config.heartbeat_interval];
        // A beat of either side makes the other one answer.
        let beats = beats.into_iter().filter(|beat| !beat.is_zero()).min().unwrap_or_default();
        let silent = |wire: WireId| self.env.network.wire(wire).is_none_or(crate::network::Wire::is_silent);
        let dead = client.host().is_some_and(|host| silent(host.end.wire));
        lives(&client.config, beats) && lives(&server.config, beats) && !dead
    }
}
