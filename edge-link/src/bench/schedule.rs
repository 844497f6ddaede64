//! When messages are due in an open loop, and keeping to that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::clock::Clock;

const SECOND: u128 = 1_000_000_000;

/// Evenly spaced times, from the beginning of the run; or every `stride`th of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// Over all connections, a second.
    rate: u32,
    stride: u64,
    offset: u64,
}

impl Schedule {
    pub(super) const fn new(rate: u32) -> Self {
        Self { rate, stride: 1, offset: 0 }
    }

    /// The part of one of `stride` that take turns.
    pub(super) const fn part(self, stride: u64, offset: u64) -> Self {
        Self { stride, offset, ..self }
    }

    /// When the message with this number, from 0, is due.
    pub(super) fn due(self, number: u64) -> Duration {
        let place = u128::from(number)
            .saturating_mul(u128::from(self.stride))
            .saturating_add(u128::from(self.offset));
        let nanos = place.saturating_mul(SECOND).checked_div(u128::from(self.rate)).unwrap_or(u128::MAX);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are due before `time`.
    pub(super) fn before(self, time: Duration) -> u64 {
        let places = time.as_nanos().saturating_mul(u128::from(self.rate)).div_ceil(SECOND);
        let own = places.saturating_sub(u128::from(self.offset)).div_ceil(u128::from(self.stride).max(1));
        u64::try_from(own).unwrap_or(u64::MAX)
    }
}

/// A thread that calls when something is due. A timer of tokio's would be late by up to a millisecond, which would be
/// measured as the server's.
#[derive(Debug)]
pub(super) struct Pacer {
    thread: thread::JoinHandle<()>,
    stopped: Arc<AtomicBool>,
}

impl Pacer {
    /// Calls with each number when it is due, until the clock's end.
    pub(super) fn start(
        schedule: Schedule,
        clock: Arc<Clock>,
        call: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        let thread = thread::Builder::new().name("pacer".into()).spawn(move || {
            let mut number = 0;
            while !seen.load(Ordering::Relaxed) {
                let due = schedule.due(number);
                if due >= clock.window().end {
                    return;
                }
                match due.checked_sub(clock.now()) {
                    None | Some(Duration::ZERO) => {
                        call(number);
                        number = number.saturating_add(1);
                    }
                    Some(early) => thread::park_timeout(early),
                }
            }
        })?;
        Ok(Self { thread, stopped })
    }

    /// Calls no more.
    pub(super) fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // It panics only if the call does, which has been told then.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_take_turns_have_the_whole_schedule_between_them() {
        let whole = Schedule::new(7);
        for number in 0..30 {
            let (stride, turn) = (3, number % 3);
            assert_eq!(whole.part(stride, turn).due(number / stride), whole.due(number));
        }
        assert_eq!(whole.due(14), Duration::from_secs(2));
    }

    #[test]
    fn as_many_are_due_before_a_time_as_have_a_time_before() {
        for rate in [1, 3, 7, 1000, 999_983] {
            for (stride, offset) in [(1, 0), (3, 0), (3, 2), (10, 9)] {
                let part = Schedule::new(rate).part(stride, offset);
                for number in [0, 1, 2, 17, 1000] {
                    let due = part.due(number);
                    assert_eq!(part.before(due), number, "{part:?}");
                    assert_eq!(part.before(due + Duration::from_nanos(1)), number + 1, "{part:?}");
                }
            }
        }
    }
}
