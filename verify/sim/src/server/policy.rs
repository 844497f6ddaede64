//! Who gets in: what a server asks about an address that is proved, and what becomes of the answers.

use core::time::Duration;

use link_core::{Admission, Admitted, Refusal, Ticket};

use super::{Attended, Server, Stage, id};
use crate::{
    agenda::{Due, Eviction, Process},
    canary::Canary,
    env::Env,
    inbox::Told,
    network::WireId,
    plan::Fault,
    sometimes::Mark,
};

impl Server {
    /// Policy, about an address that is proved.
    pub(super) fn ask(&mut self, wire: WireId, ticket: Ticket, env: &mut Env<'_>) {
        let wall = self.clock.wall(env.now);
        if env.is_planted(Canary::ForgetsProofs)
            && let Some(life) = &mut self.life
        {
            let mut config = self.admission.clone();
            config.max_unauthenticated = usize::MAX;
            let screened = Admission::new(config).screen(ticket.proof(), wall);
            life.book.screened(ticket.proof(), wall, &self.admission, screened, &mut env.oracle);
        }
        let Some(life) = &mut self.life else { return };
        let proof = ticket.proof();
        let mut screened = life.admission.screen(proof, wall);
        if env.is_planted(Canary::ShutsOthersOut) && screened == Err(Refusal::Busy) {
            screened = Err(Refusal::Replayed);
        }
        if !env.is_planted(Canary::ForgetsProofs) {
            life.book.screened(proof, wall, &self.admission, screened, &mut env.oracle);
        }
        match screened {
            Err(Refusal::Replayed) => {
                env.marks.reach(match (life.book.was_used(proof), life.book.is_aged(proof)) {
                    (true, _) => Mark::ReplayRefused,
                    (false, true) => Mark::ForgottenTimeRefused,
                    (false, false) => Mark::FoldedTimeRefused,
                });
            }
            Err(Refusal::Busy) => env.marks.reach(Mark::MemoryFull),
            Err(_) => env.marks.reach(Mark::NotWhitelisted),
            Ok(()) => {}
        }
        let Some(attended) = life.attended.get_mut(&wire) else { return };
        if let Err(refusal) = screened {
            return attended.host.decide(ticket, Err(refusal), &self.clock, env);
        }
        env.oracle.note_passed_policy(attended.host.end);
        env.oracle.ask(attended.host.end, proof.address.as_str());
        attended.stage = Stage::Proved(ticket);
        if !env.has(Fault::Check) {
            return self.give_verdict(wire, true, env);
        }
        let delay = match env.choices.below(8) {
            0..=2 => return self.give_verdict(wire, true, env),
            3 => return self.give_verdict(wire, false, env),
            4 => env.choices.millis(0, 400),
            5 | 6 => env.choices.millis(200, 9_000),
            _ => {
                env.marks.reach(Mark::MissingVerdict);
                if env.choices.below(2) == 1 {
                    // Nobody holds the ticket any more.
                    env.marks.reach(Mark::DroppedTicket);
                    if let Some(attended) = self.attended(wire) {
                        attended.stage = Stage::Unknown;
                        attended.host.note_dropped_ticket();
                    }
                }
                return;
            }
        };
        if env.has(Fault::SlowApplication) && env.choices.below(4) != 0 {
            // Its check and its events have one thread.
            let until = env.now.after(delay).after(Duration::from_millis(300));
            self.inbox.be_busy(until, Process::Server(self.number), env);
        }
        let admitted = env.choices.below(4) != 3;
        env.plan_in(delay, Due::Verdict { server: self.number, wire, admitted });
    }

    /// The application's check has made up its mind.
    pub(crate) fn verdict(&mut self, wire: WireId, admitted: bool, env: &mut Env<'_>) {
        if env.is_planted(Canary::AsksTwice)
            && let Some(Attended { host, stage: Stage::Proved(ticket), .. }) = self.attended(wire)
        {
            env.oracle.ask(host.end, ticket.address().as_str());
        }
        self.give_verdict(wire, admitted, env);
        self.wake(wire, env);
    }

    /// Whoever is still thinking says yes.
    pub(crate) fn answer_all(&mut self, env: &mut Env<'_>) {
        let Some(life) = &self.life else { return };
        let waiting: Vec<_> = life.attended.keys().copied().collect();
        for wire in waiting {
            // A connection whose ticket was dropped notices at its next input.
            self.timer_fired(wire, env);
            self.verdict(wire, true, env);
        }
    }

    fn give_verdict(&mut self, wire: WireId, admitted: bool, env: &mut Env<'_>) {
        let Self { life, clock, number, inbox, .. } = self;
        let Some(life) = life else { return };
        let verdict = admitted.then_some(()).ok_or(Refusal::Denied);
        if let Some((mut host, ticket)) = life.graveyard.remove(&wire) {
            return host.decide(ticket, verdict, clock, env);
        }
        let Some(attended) = life.attended.get_mut(&wire) else { return };
        if let Some(ticket) = attended.late.take() {
            if env.is_planted(Canary::ObeysLateVerdicts) && admitted {
                inbox.push(&mut attended.host, Told::Authenticated(ticket.address()));
            }
            return attended.host.decide(ticket, verdict, clock, env);
        }
        let ticket = match core::mem::replace(&mut attended.stage, Stage::Unknown) {
            Stage::Proved(ticket) => ticket,
            other => {
                attended.stage = other;
                return;
            }
        };
        if !admitted {
            env.marks.reach(Mark::Denied);
            return attended.host.decide(ticket, Err(Refusal::Denied), clock, env);
        }
        if env.is_planted(Canary::LosesTickets) {
            attended.host.note_dropped_ticket();
            return;
        }
        let address = ticket.address();
        let outcome = life.admission.admit(address, id(wire));
        life.book.admitted(address, id(wire), outcome, &mut env.oracle);
        match outcome {
            Err(refusal) => {
                env.marks.reach_if(refusal == Refusal::AlreadyConnected, Mark::AlreadyConnected);
                attended.host.decide(ticket, Err(refusal), clock, env);
            }
            Ok(Admitted::Fresh) => {
                attended.stage = Stage::Admitted;
                attended.host.decide(ticket, Ok(()), clock, env);
            }
            Ok(Admitted::Replaces(old)) => {
                env.marks.reach(Mark::Replaced);
                let old = WireId(old.get());
                if let Some(other) = life.attended.get_mut(&old) {
                    other.connected = false;
                    let handshaking = !matches!(other.stage, Stage::Authenticated(_));
                    env.marks.reach_if(handshaking, Mark::ReplacedDuringAuthentication);
                    if !other.evicting && !env.is_planted(Canary::KeepsTheReplaced) {
                        other.evicting = true;
                        let delay = match env.has(Fault::Hang) {
                            true => env.choices.millis(0, 300),
                            false => Duration::ZERO,
                        };
                        env.plan_in(
                            delay,
                            Due::Eviction { server: *number, wire: old, of: Eviction::Replaced },
                        );
                    }
                }
                let waits = life.attended.contains_key(&old) && !env.is_planted(Canary::KeepsTheReplaced);
                let Some(attended) = life.attended.get_mut(&wire) else { return };
                if waits {
                    attended.stage = Stage::Succeeding(ticket, old);
                } else {
                    attended.stage = Stage::Admitted;
                    attended.host.decide(ticket, Ok(()), clock, env);
                }
            }
        }
    }

    /// The application has heard of the end of `old`: whoever waited for that goes on.
    pub(super) fn succeed(&mut self, old: WireId, env: &mut Env<'_>) {
        let canary = env.canary;
        let Self { life, clock, dirty, .. } = self;
        let Some(life) = life else { return };
        let mut freed = Vec::new();
        for (wire, attended) in &mut life.attended {
            if attended.predecessor == Some(old) {
                attended.predecessor = None;
                freed.push(*wire);
            }
            attended.stage = match core::mem::replace(&mut attended.stage, Stage::Unknown) {
                Stage::Succeeding(ticket, predecessor) if predecessor == old => {
                    dirty.insert(*wire);
                    attended.host.decide(ticket, Ok(()), clock, env);
                    Stage::Admitted
                }
                other => other,
            };
        }
        for wire in freed {
            dirty.insert(wire);
            life.release(wire, canary);
        }
    }
}
