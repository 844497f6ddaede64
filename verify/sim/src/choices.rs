//! Where the world's choices come from: a seed, bytes, or a list that was written down.
//!
//! Whatever the source, zero is the tame choice: no fault, no delay, the first of a list. A source that runs dry
//! gives zeros from then on, and the world takes that as the end of the faults.

use core::time::Duration;

/// A stream of numbers that decides what happens in a world.
pub trait Source {
    /// A number below `bound`, which is at least 1. `None` once there is nothing left.
    fn draw(&mut self, bound: u64) -> Option<u64>;
}

/// Pseudo-random numbers: endless.
struct Seeded(fastrand::Rng);

impl Source for Seeded {
    fn draw(&mut self, bound: u64) -> Option<u64> {
        Some(self.0.u64(0..bound.max(1)))
    }
}

/// Bytes, such as a fuzzer makes: as few for each number as its bound needs, so that a change of one byte is a change
/// of one choice.
struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn draw(&mut self, bound: u64) -> Option<u64> {
        let needed = u64::BITS.saturating_sub(bound.saturating_sub(1).leading_zeros()).div_ceil(8);
        let (taken, rest) = self.0.split_at_checked(needed as usize)?;
        self.0 = rest;
        let number = taken.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
        number.checked_rem(bound)
    }
}

/// Choices that were written down before.
struct Recorded<'a>(core::slice::Iter<'a, u64>);

impl Source for Recorded<'_> {
    fn draw(&mut self, bound: u64) -> Option<u64> {
        self.0.next().map(|number| (*number).min(bound.saturating_sub(1)))
    }
}

/// The choices of one world, asked for in the order in which it needs them.
pub struct Choices<'a> {
    source: Box<dyn Source + 'a>,
    dry: bool,
    record: Option<Vec<u64>>,
}

impl core::fmt::Debug for Choices<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Choices").field("dry", &self.dry).finish_non_exhaustive()
    }
}

impl<'a> Choices<'a> {
    /// Pseudo-random choices: the same seed, the same world.
    pub fn seeded(seed: u64) -> Self {
        Self::from_source(Seeded(fastrand::Rng::with_seed(seed)))
    }

    /// Choices taken from bytes, so that a fuzzer can steer the world.
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self::from_source(Bytes(bytes))
    }

    /// Choices that [`recorded`](Self::recorded) has written down, perhaps fewer or smaller ones.
    pub fn replayed(choices: &'a [u64]) -> Self {
        Self::from_source(Recorded(choices.iter()))
    }

    /// Choices from a source of your own.
    pub fn from_source(source: impl Source + 'a) -> Self {
        Self { source: Box::new(source), dry: false, record: None }
    }

    /// Writes every choice down from here on.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.record = Some(Vec::new());
        self
    }

    /// What was written down.
    pub fn recorded(&self) -> &[u64] {
        self.record.as_deref().unwrap_or_default()
    }

    /// Whether the source has run out.
    pub const fn is_dry(&self) -> bool {
        self.dry
    }

    /// A number below `bound`; zero if `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let number = if self.dry { None } else { self.source.draw(bound) };
        self.dry |= number.is_none();
        let number = number.unwrap_or(0);
        if let Some(record) = &mut self.record {
            record.push(number);
        }
        number
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == times.saturating_sub(1) && !self.dry
    }

    /// A whole number of milliseconds, from `from` to `to`.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        let spread = to.saturating_sub(from).saturating_add(1);
        Duration::from_millis(from.saturating_add(self.below(spread)))
    }

    /// One of `items`, the first of them when in doubt.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let index = self.below(items.len() as u64);
        items.get(index as usize).copied()
    }

    /// One of several, of which the first is the tame one.
    pub fn one_of<T: Copy, const N: usize>(&mut self, items: [T; N]) -> T {
        const { assert!(N > 0) };
        let index = self.below(N as u64) as usize;
        let mut chosen = items[0];
        for (at, item) in items.into_iter().enumerate() {
            if at == index {
                chosen = item;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_run_dry_give_zeros() {
        let mut choices = Choices::bytes(&[7, 1, 0]);
        assert_eq!(choices.below(10), 7);
        assert_eq!(choices.below(1000), 256);
        assert!(!choices.is_dry());
        assert_eq!(choices.below(10), 0);
        assert!(choices.is_dry());
        assert_eq!(choices.millis(3, 9), Duration::from_millis(3));
    }

    #[test]
    fn what_was_written_down_can_be_played_again() {
        let mut first = Choices::seeded(1).recording();
        let drawn: Vec<_> = (1..50).map(|bound| first.below(bound)).collect();
        let written = first.recorded().to_vec();
        let mut again = Choices::replayed(&written);
        assert_eq!((1..50).map(|bound| again.below(bound)).collect::<Vec<_>>(), drawn);
    }
}
