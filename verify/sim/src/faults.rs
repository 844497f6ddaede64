//! What breaks, as long as things break.

use core::time::Duration;

use crate::{
    agenda::{Due, Eviction, Process},
    network::{Cut, End, Side, WireId},
    plan::Fault,
    sometimes::Mark,
    world::World,
};

/// The faults that strike at a moment; the others lie in wait where they belong.
const STRIKING: [Fault; 13] = [
    Fault::Stall,
    Fault::CutFin,
    Fault::CutReset,
    Fault::CutSilent,
    Fault::WallStep,
    Fault::WallDrift,
    Fault::WallBackwards,
    Fault::Suspend,
    Fault::Hang,
    Fault::ServerCrash,
    Fault::ServerShutdown,
    Fault::ClientCrash,
    Fault::Leave,
];

impl World<'_> {
    pub(crate) fn break_something(&mut self) {
        if self.env.calm {
            return;
        }
        let pause = self.env.choices.millis(50, 2_500);
        self.env.plan_in(pause, Due::Fault);
        let possible: Vec<_> = STRIKING.into_iter().filter(|fault| self.env.has(*fault)).collect();
        let Some(fault) = self.env.choices.pick(&possible) else { return };
        match fault {
            Fault::Stall => self.stall(),
            Fault::CutFin => self.cut_some_wire(Cut::Fin),
            Fault::CutReset => self.cut_some_wire(Cut::Reset),
            Fault::CutSilent => {
                let cut = self.env.choices.one_of([
                    Cut::Silent,
                    Cut::SilentTo(Side::Client),
                    Cut::SilentTo(Side::Server),
                ]);
                self.cut_some_wire(cut);
            }
            Fault::WallStep => {
                let magnitude = self.env.choices.one_of([10u64, 1_000, 7_000, 60_000, 4_000_000]);
                let by = self.env.choices.below(magnitude);
                let by = i64::try_from(by).unwrap_or(0);
                let by = if self.env.choices.below(2) == 1 { by.saturating_neg() } else { by };
                if self.servers.iter().any(|server| server.has_forgotten()) && self.env.choices.below(2) == 1
                {
                    // Everybody's, as when the time that all of them are set by was wrong: to before what a server has
                    // forgotten.
                    let by = self.env.choices.below(25_000).saturating_add(5_000);
                    let by = i64::try_from(by).unwrap_or(0).saturating_neg();
                    for process in self.processes() {
                        self.set_clock(process, fault, |clock, now| clock.step_wall(by, now));
                    }
                } else {
                    self.set_some_clock(fault, |clock, now| clock.step_wall(by, now));
                }
            }
            Fault::WallDrift => {
                let rate = self.env.choices.one_of([1_000, 1_001, 990, 1_500, 300, 5_000]);
                self.set_some_clock(fault, |clock, now| clock.run_wall_at(rate, now));
            }
            Fault::WallBackwards => {
                let rate = self.env.choices.one_of([0, -200, -1_000, -3_000]);
                self.set_some_clock(fault, |clock, now| clock.run_wall_at(rate, now));
            }
            Fault::Suspend | Fault::Hang => {
                let Some(process) = self.some_process() else { return };
                let asleep = fault == Fault::Suspend;
                let mark = if asleep { Mark::SuspendedInSession } else { Mark::HungInSession };
                let in_session = self.is_in_session(process);
                self.env.marks.reach_if(in_session, mark);
                let longest = self.env.choices.one_of([300, 2_000, 6_000, 20_000]);
                let duration = self.env.choices.millis(1, longest);
                if self.env.choices.below(3) == 2 {
                    // Everybody, as when the machine under all of them stands still.
                    let duration = self.env.choices.millis(2_000, 25_000);
                    for process in self.processes() {
                        self.pause(process, asleep, duration);
                    }
                } else {
                    self.pause(process, asleep, duration);
                }
            }
            Fault::ServerCrash => self.stop_some_server(false),
            Fault::ServerShutdown => self.stop_some_server(true),
            Fault::ClientCrash => {
                let client = self.env.choices.below(self.clients.len() as u64) as usize;
                let process = Process::Client(client);
                let cut = self.env.choices.one_of([Cut::Fin, Cut::Reset, Cut::Silent]);
                self.env.marks.reach(Mark::ClientDied);
                self.kill(process, cut);
                let down = self.env.choices.millis(0, 3_000);
                self.env.plan_in(down, Due::Restart(process));
            }
            _ => self.let_somebody_go(),
        }
    }

    pub(crate) fn processes(&self) -> Vec<Process> {
        let servers = (0..self.servers.len()).map(Process::Server);
        servers.chain((0..self.clients.len()).map(Process::Client)).collect()
    }

    fn some_process(&mut self) -> Option<Process> {
        let all = self.processes();
        self.env.choices.pick(&all)
    }

    fn is_in_session(&self, process: Process) -> bool {
        match process {
            Process::Server(server) => {
                self.servers.get(server).is_some_and(crate::server::Server::has_sessions)
            }
            Process::Client(client) => {
                self.clients.get(client).is_some_and(crate::client::Client::has_session)
            }
        }
    }

    fn some_wire(&mut self) -> Option<WireId> {
        let wires: Vec<_> = self.env.network.wires().map(|(wire, _)| wire).collect();
        self.env.choices.pick(&wires)
    }

    fn cut_some_wire(&mut self, cut: Cut) {
        if let Some(wire) = self.some_wire() {
            let under_way = self.env.network.wire(wire).is_some_and(crate::network::Wire::is_under_way);
            self.env.marks.reach_if(under_way, Mark::CutUnderWay);
            self.env.cut(wire, cut);
        }
    }

    fn stall(&mut self) {
        let Some(wire) = self.some_wire() else { return };
        let side = self.env.choices.one_of([Side::Client, Side::Server]);
        let duration = self.env.choices.millis(50, 9_000);
        let until = self.env.now.after(duration);
        self.env
            .note(21, wire.0, || format!("#{} stands still towards the {side:?} for {duration:?}", wire.0));
        let end = End { wire, side };
        self.env.network.stall(end, until);
        self.env.plan(until, Due::Arrival(end));
    }

    fn set_some_clock(
        &mut self,
        fault: Fault,
        set: impl FnOnce(&mut crate::clock::Clock, crate::clock::Moment),
    ) {
        let Some(mut process) = self.some_process() else { return };
        if self.env.choices.below(2) == 1 {
            // A server that has forgotten something has most to lose.
            let forgetful = self.servers.iter().find(|server| server.has_forgotten());
            process = forgetful.map_or(process, crate::server::Server::process);
        }
        self.set_clock(process, fault, set);
    }

    fn set_clock(
        &mut self,
        process: Process,
        fault: Fault,
        set: impl FnOnce(&mut crate::clock::Clock, crate::clock::Moment),
    ) {
        let mark = match fault {
            Fault::WallBackwards => Mark::WallBackwardsInSession,
            _ => Mark::WallStepInSession,
        };
        let in_session = self.is_in_session(process);
        self.env.marks.reach_if(in_session, mark);
        let forgetful = match process {
            Process::Server(server) => {
                self.servers.get(server).is_some_and(crate::server::Server::has_forgotten)
            }
            Process::Client(_) => false,
        };
        let now = self.env.now;
        if let Some(clock) = self.clock_mut(process) {
            let before = clock.wall(now);
            set(clock, now);
            let after = clock.wall(now);
            self.env.marks.reach_if(forgetful && after < before, Mark::ClockSetBackAfterForgetting);
            self.env.note(22, after.get(), || format!("the wall clock of {process}: {fault:?}, now {after}"));
        }
    }

    fn stop_some_server(&mut self, orderly: bool) {
        let number = self.env.choices.below(self.servers.len() as u64) as usize;
        let Some(server) = self.servers.get_mut(number).filter(|server| server.is_up()) else { return };
        let process = server.process();
        let in_session = server.has_sessions();
        if orderly {
            if self.paused.contains_key(&process) {
                return;
            }
            self.env.marks.reach_if(in_session, Mark::ServerShutDown);
            self.env.note(23, number as u64, || format!("{process} shuts down"));
            server.shut_down(&mut self.env);
            let patience = self.env.choices.millis(0, 2_500);
            self.env.plan_in(patience, Due::Gone(process));
        } else {
            self.env.marks.reach_if(in_session, Mark::ServerDied);
            let cut = self.env.choices.one_of([Cut::Fin, Cut::Reset, Cut::Silent]);
            self.kill(process, cut);
            let down = self.env.choices.millis(0, 6_000);
            self.env.plan_in(down, Due::Restart(process));
        }
    }

    /// A server that was shutting down is gone, and comes back.
    pub(crate) fn gone(&mut self, process: Process) {
        self.kill(process, Cut::Fin);
        let down = self.env.choices.millis(0, 3_000);
        self.env.plan_in(down, Due::Restart(process));
    }

    fn let_somebody_go(&mut self) {
        if self.env.choices.below(2) == 0 {
            let client = self.env.choices.below(self.clients.len() as u64) as usize;
            if !self.paused.contains_key(&Process::Client(client))
                && let Some(client) = self.clients.get_mut(client)
            {
                client.disconnect(&mut self.env);
                client.wake(&mut self.env);
            }
            return;
        }
        let server = self.env.choices.below(self.servers.len() as u64) as usize;
        if let Some(wire) = self.some_wire() {
            self.env.plan_in(Duration::ZERO, Due::Eviction { server, wire, of: Eviction::Kicked });
        }
    }
}
