//! Many worlds, on several threads, one world each. What comes of it does not depend on how many threads there are.

use core::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use crate::{Choices, Failure, Invariant, Marks, Moment, Options, run_with};

/// Seeds that a thread takes at once.
const BATCH: u64 = 16;

/// What came of many worlds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many worlds there were.
    pub seeds: u64,
    /// How many things happened in all of them.
    pub steps: u64,
    /// How much time passed in all of them.
    pub virtual_time: Duration,
    /// What was broken, by seed.
    pub failures: BTreeMap<u64, Failure>,
    /// Which rare paths were taken.
    pub marks: Marks,
    /// A number that depends on everything that happened in all of them.
    pub fingerprint: u64,
}

impl Report {
    fn note(&mut self, seed: u64, outcome: crate::Outcome) {
        self.seeds = self.seeds.saturating_add(1);
        self.steps = self.steps.saturating_add(outcome.steps);
        self.virtual_time = self.virtual_time.saturating_add(outcome.virtual_time);
        self.marks.add(&outcome.marks);
        self.fingerprint = self.fingerprint.wrapping_add(outcome.fingerprint.rotate_left((seed % 64) as u32));
        if let Some(failure) = outcome.failure {
            self.failures.insert(seed, failure);
        }
    }

    fn add(&mut self, other: Self) {
        self.seeds = self.seeds.saturating_add(other.seeds);
        self.steps = self.steps.saturating_add(other.steps);
        self.virtual_time = self.virtual_time.saturating_add(other.virtual_time);
        self.marks.add(&other.marks);
        self.fingerprint = self.fingerprint.wrapping_add(other.fingerprint);
        self.failures.extend(other.failures);
    }
}

/// Runs the worlds of `seeds` seeds, the first of which is `from`. `told` hears how many are done, now and then.
pub fn campaign(
    from: u64,
    seeds: u64,
    threads: usize,
    options: Options,
    told: &(dyn Fn(u64) + Sync),
) -> Report {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut mine = Report::default();
                loop {
                    let start = next.fetch_add(BATCH, Ordering::Relaxed);
                    if start >= seeds {
                        break;
                    }
                    let end = start.saturating_add(BATCH).min(seeds);
                    for number in start..end {
                        let seed = from.wrapping_add(number);
                        mine.note(seed, run_seed(seed, options));
                    }
                    told(end.saturating_sub(start));
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).add(mine);
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the world of one seed. A panic in it is a failure like any other.
pub fn run_seed(seed: u64, options: Options) -> crate::Outcome {
    catch_unwind(AssertUnwindSafe(|| run_with(Choices::seeded(seed), options))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let failure = Failure { invariant: Invariant::NothingPanics, at: Moment::default(), detail: words };
        crate::Outcome { failure: Some(failure), ..crate::Outcome::default() }
    })
}
