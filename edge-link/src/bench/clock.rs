//! Time in a run: from the moment when every connection was there.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What of a run is measured: from `start`, and before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: Duration,
    pub(super) end: Duration,
}

impl Window {
    pub(super) fn contains(self, time: Duration) -> bool {
        self.start <= time && time < self.end
    }

    pub(super) const fn length(self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// The run's clock.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    start: Duration,
    /// In nanoseconds.
    end: AtomicU64,
}

impl Clock {
    /// Begins a run, now.
    pub(super) fn begin(warm_up: Duration, duration: Duration) -> Self {
        let end = AtomicU64::new(nanos(warm_up.saturating_add(duration)));
        Self { began: Instant::now(), start: warm_up, end }
    }

    /// How long it has been going on.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What is measured.
    pub(super) fn window(&self) -> Window {
        Window { start: self.start, end: Duration::from_nanos(self.end.load(Ordering::Relaxed)) }
    }

    /// Ends it earlier.
    pub(super) fn end_at(&self, time: Duration) {
        self.end.fetch_min(nanos(time), Ordering::Relaxed);
    }
}

/// A day fits easily.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
