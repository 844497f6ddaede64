//! What was counted and measured.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::{CreationError, Histogram};

use super::{
    clock::{Window, nanos},
    schedule::Schedule,
};

/// The longest latency that is told from longer ones: what `--duration` and `--timeout` may be together.
const LONGEST: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// Three digits of a number.
const DIGITS: u8 = 3;
/// Messages that were never sent are entered one by one up to so many, and in so many heaps beyond.
const HEAPS: u64 = 100_000;

/// Of a whole run.
#[derive(Debug)]
pub(super) struct Tally {
    /// In nanoseconds, of what was due in the window.
    latency: Histogram<u64>,
    /// By how much messages were sent later than they were due, likewise.
    lateness: Histogram<u64>,
    /// In the window.
    pub(super) sent: Traffic,
    /// In the window.
    pub(super) received: Traffic,
    /// What was due while `--depth` messages were in flight, or all connections logging in; in the warm-up as well.
    pub(super) held: u64,
    /// Messages that are not ours: a welcome, say.
    pub(super) foreign: u64,
    pub(super) errors: Errors,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// What went wrong, in the warm-up as well.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// Connections that never came to be, by label.
    pub(super) failed: BTreeMap<&'static str, Kind>,
    /// Lines that ended, by label.
    pub(super) lost: BTreeMap<&'static str, Kind>,
    /// Messages that were sent, and not answered in time.
    pub(super) unanswered: u64,
    /// Messages that were due, and never sent.
    pub(super) unsent: u64,
    /// Answers to messages that had been given up.
    pub(super) late: u64,
    /// Answers to messages that had been answered.
    pub(super) duplicate: u64,
    /// Answers that came after one to a later message.
    pub(super) out_of_order: u64,
    /// Altered answers, answers to what was never sent, or to somebody else.
    pub(super) wrong: u64,
}

/// Several errors with one label.
#[derive(Debug, Default)]
pub(super) struct Kind {
    pub(super) count: u64,
    /// What the first one said.
    pub(super) example: String,
}

impl Tally {
    pub(super) fn new() -> Result<Self, CreationError> {
        let histogram = || Histogram::new_with_bounds(1, nanos(LONGEST), DIGITS);
        Ok(Self {
            latency: histogram()?,
            lateness: histogram()?,
            sent: Traffic::default(),
            received: Traffic::default(),
            held: 0,
            foreign: 0,
            errors: Errors::default(),
        })
    }

    pub(super) const fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    pub(super) const fn lateness(&self) -> &Histogram<u64> {
        &self.lateness
    }

    /// A message went out.
    pub(super) fn sent(&mut self, window: Window, due: Duration, now: Duration, bytes: usize) {
        if window.contains(now) {
            self.sent.add(bytes);
        }
        if window.contains(due) {
            self.lateness.saturating_record(nanos(now.saturating_sub(due)));
        }
    }

    /// A message came in, whatever it says.
    pub(super) fn received(&mut self, window: Window, now: Duration, bytes: usize) {
        if window.contains(now) {
            self.received.add(bytes);
        }
    }

    /// The answer came to what was due then.
    pub(super) fn answered(&mut self, window: Window, due: Duration, now: Duration) {
        if window.contains(due) {
            self.latency.saturating_record(nanos(now.saturating_sub(due)));
        }
    }

    /// No answer came to what was due then, and it was waited for until now, or would have been for `at_least`.
    pub(super) fn unanswered(&mut self, window: Window, due: Duration, now: Duration, at_least: Duration) {
        self.errors.unanswered = self.errors.unanswered.saturating_add(1);
        self.missed(window, due, now, at_least, 1);
    }

    /// The same in the latency only.
    pub(super) fn missed(
        &mut self,
        window: Window,
        due: Duration,
        now: Duration,
        at_least: Duration,
        times: u64,
    ) {
        if window.contains(due) {
            self.latency.saturating_record_n(nanos(now.saturating_sub(due).max(at_least)), times);
        }
    }

    /// So many were sent of what the schedule has before the window's end. Each of the others would have had so many
    /// answers.
    pub(super) fn unsent(
        &mut self,
        window: Window,
        schedule: Schedule,
        sent: u64,
        now: Duration,
        at_least: Duration,
        answers: u64,
    ) {
        let end = schedule.before(window.end);
        self.errors.unsent = self.errors.unsent.saturating_add(end.saturating_sub(sent));
        let mut first = sent.max(schedule.before(window.start));
        let step = end.saturating_sub(first).div_ceil(HEAPS).max(1);
        while first < end {
            let heap = step.min(end.saturating_sub(first));
            self.missed(window, schedule.due(first), now, at_least, heap.saturating_mul(answers));
            first = first.saturating_add(heap);
        }
    }
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Errors {
    /// A connection did not come to be.
    pub(super) fn fail(&mut self, label: &'static str, text: impl FnOnce() -> String) {
        note(&mut self.failed, label, text);
    }

    /// A line ended.
    pub(super) fn lose(&mut self, label: &'static str, text: impl FnOnce() -> String) {
        note(&mut self.lost, label, text);
    }
}

fn note(kinds: &mut BTreeMap<&'static str, Kind>, label: &'static str, text: impl FnOnce() -> String) {
    let kind = kinds.entry(label).or_insert_with(|| Kind { count: 0, example: text() });
    kind.count = kind.count.saturating_add(1);
}
