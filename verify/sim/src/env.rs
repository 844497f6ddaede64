//! What everybody in a world shares: the time, the choices, the network, the agenda, and those who watch.

use core::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use std::collections::{BTreeMap, VecDeque};

use link_core::{Address, Frame};

use crate::{
    agenda::{Agenda, Due, Process, Ties},
    canary::Canary,
    choices::Choices,
    clock::Moment,
    network::{Cut, End, Network, Parcel, WireId},
    oracle::Oracle,
    plan::{Fault, Faults},
    sometimes::{Mark, Marks},
    trace::Trace,
};

/// How late a timer fires at most.
pub(crate) const LATENESS: Duration = Duration::from_millis(150);

/// How many proofs the adversary keeps.
const TAPPED: usize = 24;

pub(crate) struct Env<'a> {
    pub(crate) now: Moment,
    pub(crate) choices: Choices<'a>,
    pub(crate) faults: Faults,
    pub(crate) ties: Ties,
    pub(crate) canary: Option<Canary>,
    /// The faults have stopped.
    pub(crate) calm: bool,
    pub(crate) network: Network,
    pub(crate) agenda: Agenda,
    pub(crate) oracle: Oracle,
    pub(crate) marks: Marks,
    pub(crate) trace: Trace,
    /// The proofs that passed, for whoever listens.
    pub(crate) tap: VecDeque<Frame>,
    /// Who everybody is in truth.
    pub(crate) names: BTreeMap<Process, Address>,
}

impl Env<'_> {
    /// Whether a fault is there, as long as there are any.
    pub(crate) const fn has(&self, fault: Fault) -> bool {
        !self.calm && self.faults.has(fault)
    }

    /// Whether somebody who takes this process for `address` is deceived.
    pub(crate) fn is_not(&self, process: Process, address: Address) -> bool {
        self.names.get(&process).is_some_and(|name| *name != address)
    }

    pub(crate) fn is_planted(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }

    pub(crate) fn note(&mut self, kind: u8, about: u64, words: impl FnOnce() -> String) {
        self.trace.note(self.now, kind, about, words);
    }

    pub(crate) fn plan(&mut self, at: Moment, due: Due) {
        let ties = if self.has(Fault::Ties) { Ties::Anybody } else { self.ties };
        let tie = match (ties, due) {
            (Ties::Anybody, _) => self.choices.below(4),
            (Ties::TimersFirst, Due::Timer(_)) | (Ties::InputsFirst, Due::Arrival(_)) => 0,
            _ => 1,
        };
        self.agenda.plan(at.max(self.now).to_grain(), tie, due);
    }

    pub(crate) fn plan_in(&mut self, delay: Duration, due: Due) {
        self.plan(self.now.after(delay), due);
    }

    /// When a timer for `due` fires.
    pub(crate) fn timer_for(&mut self, due: Moment) -> Moment {
        let mut at = due.to_grain();
        if self.has(Fault::LateTimers) && self.choices.once_in(6) {
            at = at.after(
                self.choices.millis(1, LATENESS.as_millis() as u64).saturating_sub(Duration::from_millis(1)),
            );
            self.marks.reach(Mark::LateTimer);
        } else if self.has(Fault::EarlyTimers) && self.choices.once_in(6) {
            let early = self.choices.millis(1, 60);
            let before = Moment::default().after(at.since_start().saturating_sub(early));
            at = before.max(self.now);
            self.marks.reach(Mark::EarlyTimer);
        }
        at
    }

    /// How long the next thing takes on a wire of this latency.
    pub(crate) fn delay(&mut self, latency: Duration) -> Duration {
        if self.is_planted(Canary::ListensToTheOutside) {
            static OUTSIDE: AtomicU64 = AtomicU64::new(0);
            let outside = OUTSIDE.fetch_add(1, Ordering::Relaxed) % 3;
            return latency.saturating_add(Duration::from_millis(outside));
        }
        if !self.has(Fault::Delay) {
            return latency;
        }
        match self.choices.below(32) {
            31 => latency.saturating_add(self.choices.millis(200, 4_000)),
            24..=30 => latency.saturating_add(self.choices.millis(0, 200)),
            _ => latency,
        }
    }

    /// Sends from one end to the other.
    pub(crate) fn send(&mut self, from: End, parcel: Parcel) {
        if let Parcel::Frame(frame) = &parcel {
            self.listen(frame);
        }
        let latency = self.network.wire(from.wire).map_or(Duration::ZERO, |wire| wire.latency);
        let mut delay = self.delay(latency);
        if parcel == Parcel::End && self.has(Fault::LateEnd) && self.choices.below(2) == 1 {
            delay = delay.saturating_add(self.choices.millis(100, 8_000));
        }
        if let Some(due) = self.network.send(from, parcel, self.now.after(delay)) {
            self.plan(due, Due::Arrival(from.other()));
        }
    }

    /// Puts something on the way to `to`, as somebody on the path can.
    pub(crate) fn inject(&mut self, to: End, parcel: Parcel) {
        if let Some(due) = self.network.inject(to, parcel, self.now) {
            self.plan(due, Due::Arrival(to));
        }
    }

    fn listen(&mut self, frame: &Frame) {
        if let Frame::Text(text) = frame
            && text.starts_with(r#"{"type":"authenticate""#)
        {
            self.tap.push_back(frame.clone());
            if self.tap.len() > TAPPED {
                self.tap.pop_front();
            }
        }
    }

    /// Cuts a wire in the middle.
    pub(crate) fn cut(&mut self, wire: WireId, cut: Cut) {
        let latency = self.network.wire(wire).map_or(Duration::ZERO, |wire| wire.latency);
        let due = self.now.after(latency);
        self.network.cut(wire, cut, due);
        self.note(20, wire.0, || format!("#{} is cut: {cut:?}", wire.0));
        for side in [crate::network::Side::Client, crate::network::Side::Server] {
            self.plan(due, Due::Arrival(End { wire, side }));
            // A writer that waited for room may go on.
            self.plan(self.now, Due::Writable(End { wire, side }));
        }
    }

    /// Lets go of an end of a wire; the system says the rest to the other one.
    pub(crate) fn release(&mut self, end: End) {
        self.send(end, Parcel::End);
        if !self.network.release(end) {
            self.oracle.forget_wire(end.wire);
        } else {
            self.plan(self.now, Due::Writable(end.other()));
        }
    }
}
