//! Many worlds, on several threads, one world each. What comes of it does not depend on how many threads there are.

use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use crate::{Choices, Failure, Invariant, Marks, Moment, Options, Outcome, Plan, world::World};

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
    fn note(&mut self, seed: u64, outcome: Outcome) {
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

/// Which worlds to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// The first seed.
    pub from: u64,
    /// How many there are.
    pub count: u64,
    /// Stop as soon as this was broken. Every seed before one that broke it is still run.
    pub until: Option<Invariant>,
}

/// Runs the worlds of many seeds. `told` hears how many are done, now and then.
pub fn campaign(seeds: Seeds, threads: usize, options: Options, told: &(dyn Fn(u64) + Sync)) -> Report {
    let stop = AtomicBool::new(false);
    // One at a time where the first find ends it.
    let batch = if seeds.until.is_some() { 1 } else { BATCH };
    let next = AtomicU64::new(0);
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut mine = Report::default();
                loop {
                    let start = next.fetch_add(batch, Ordering::Relaxed);
                    if start >= seeds.count || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let end = start.saturating_add(batch).min(seeds.count);
                    for number in start..end {
                        let seed = seeds.from.wrapping_add(number);
                        let outcome = run_seed(seed, options);
                        let broken = outcome.failure.as_ref().map(|failure| failure.invariant);
                        if broken.is_some() && broken == seeds.until {
                            stop.store(true, Ordering::Relaxed);
                        }
                        mine.note(seed, outcome);
                    }
                    told(end.saturating_sub(start));
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).add(mine);
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One world in so many is made twice, to be compared.
const TWICE: u64 = 64;

/// Runs the world of one seed. A panic in it is a failure like any other; and one world in 64 is run twice, since the
/// same seed must make the same world.
pub fn run_seed(seed: u64, options: Options) -> Outcome {
    let mut outcome = run_caught(Choices::seeded(seed), options);
    if seed.is_multiple_of(TWICE) && outcome.failure.is_none() {
        let again = run_caught(Choices::seeded(seed), options);
        if (again.fingerprint, again.steps) != (outcome.fingerprint, outcome.steps) {
            let detail = format!("the second time it takes {} steps, not {}", again.steps, outcome.steps);
            let at = Moment::default();
            outcome.failure = Some(Failure { invariant: Invariant::SameSeedSameTrace, at, detail });
        }
    }
    outcome
}

/// Runs a world as [`run_with`](crate::run_with) does, but a panic in it is a failure like any other, and what led to
/// it is kept: its choices, its story.
pub(crate) fn run_caught(mut choices: Choices<'_>, options: Options) -> Outcome {
    let mut world = None;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let plan = Plan::drawn(&mut choices, options.allowed);
        world.insert(World::new(plan, choices, options.canary, options.trace)).go();
    }))
    .err();
    let mut outcome = world.map(World::outcome).unwrap_or_default();
    if let Some(panic) = panic {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let detail = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let at = Moment::default().after(outcome.virtual_time);
        outcome.failure = Some(Failure { invariant: Invariant::NothingPanics, at, detail });
    }
    outcome
}
