//! A failing world, made shorter: fewer faults, then fewer and smaller choices, as long as the same invariant breaks.

use crate::{Choices, Invariant, Options, Outcome, campaign::run_caught};

/// Worlds that are tried at most.
const TRIES: usize = 3_000;

/// A failing world after it was made shorter.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The faults that are left.
    pub options: Options,
    /// The choices that are left; what comes after them is zero. See [`Choices::replayed`].
    pub choices: Vec<u64>,
    /// How that world goes.
    pub outcome: Outcome,
    /// How many worlds were tried.
    pub tried: usize,
}

/// Makes the world of a seed shorter, if it fails. A panic is a failure like any other.
pub fn shrink(seed: u64, options: Options) -> Option<Shrunk> {
    let quiet = Options { trace: false, ..options };
    let invariant = run_caught(Choices::seeded(seed), quiet).failure?.invariant;
    let mut search = Search { invariant, options: quiet, tried: 0 };
    for fault in quiet.allowed.iter() {
        let fewer = Options { allowed: search.options.allowed.without(fault), ..search.options };
        let outcome = run_caught(Choices::seeded(seed), fewer);
        search.tried = search.tried.saturating_add(1);
        if outcome.failure.is_some_and(|failure| failure.invariant == invariant) {
            search.options = fewer;
        }
    }
    let recorded = run_caught(Choices::seeded(seed).recording(), search.options).choices;
    let choices = search.shorten(recorded);
    let story = Options { trace: options.trace, ..search.options };
    let outcome = run_caught(Choices::replayed(&choices), story);
    // Choices that run dry end the faults, so a list may fail where its seed did not; never the other way.
    outcome.failure.as_ref()?;
    Some(Shrunk { options: search.options, choices, outcome, tried: search.tried })
}

struct Search {
    invariant: Invariant,
    options: Options,
    tried: usize,
}

impl Search {
    fn fails(&mut self, choices: &[u64]) -> bool {
        self.tried = self.tried.saturating_add(1);
        let outcome = run_caught(Choices::replayed(choices), self.options);
        outcome.failure.is_some_and(|failure| failure.invariant == self.invariant)
    }

    fn shorten(&mut self, mut choices: Vec<u64>) -> Vec<u64> {
        self.cut_the_end(&mut choices);
        let mut size = choices.len().div_ceil(2).max(1);
        loop {
            self.without_pieces(&mut choices, size);
            self.with_zeros(&mut choices, size);
            if size == 1 || self.tried >= TRIES {
                break;
            }
            size = size.div_ceil(2);
        }
        choices
    }

    /// The shortest beginning that fails.
    fn cut_the_end(&mut self, choices: &mut Vec<u64>) {
        let (mut fails, mut passes) = (choices.len(), 0usize);
        while passes.saturating_add(1) < fails && self.tried < TRIES {
            let middle = passes.midpoint(fails);
            if choices.get(..middle).is_some_and(|beginning| self.fails(beginning)) {
                fails = middle;
            } else {
                passes = middle;
            }
        }
        if choices.get(..fails).is_some_and(|beginning| self.fails(beginning)) {
            choices.truncate(fails);
        }
    }

    fn without_pieces(&mut self, choices: &mut Vec<u64>, size: usize) {
        let mut at = 0usize;
        while at < choices.len() && self.tried < TRIES {
            let end = at.saturating_add(size).min(choices.len());
            let mut fewer = choices.clone();
            fewer.drain(at..end);
            if self.fails(&fewer) {
                *choices = fewer;
            } else {
                at = end;
            }
        }
    }

    fn with_zeros(&mut self, choices: &mut Vec<u64>, size: usize) {
        let mut at = 0usize;
        while at < choices.len() && self.tried < TRIES {
            let end = at.saturating_add(size).min(choices.len());
            let piece = choices.get(at..end).unwrap_or_default();
            if piece.iter().any(|choice| *choice != 0) {
                let mut smaller = choices.clone();
                for choice in smaller.iter_mut().take(end).skip(at) {
                    *choice = 0;
                }
                if self.fails(&smaller) {
                    *choices = smaller;
                }
            }
            at = end;
        }
    }
}
