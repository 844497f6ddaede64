//! What a soak makes of what it has measured.

use std::fmt;

use crate::process::Usage;

/// What a server has had by the end of a round, with everything quiet.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Connections, ever.
    pub connections: u64,
    /// What it uses of the system.
    pub usage: Usage,
    /// Its tasks, where they are known.
    pub tasks: Option<usize>,
}

/// By how much memory may grow for each connection: less than the smallest thing that a server could lose of one.
pub const MAX_GROWTH: f64 = 16.0;
/// By how much it may grow in all by such a slope. An allocator keeps more or less at hand as chance would have it.
pub const ALLOWANCE: f64 = (1 << 20) as f64;
/// By how much it may grow in all however it comes about: slowly over a very long time, or at once.
pub const MAX_TOTAL: f64 = (8 << 20) as f64;
/// Of a long run so many rounds are compared with each other, evenly spread.
const COMPARED: usize = 500;
/// Fewer rounds say nothing.
pub const MIN_ROUNDS: usize = 9;

/// Something that was not given back.
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// Memory grows with the connections.
    Memory(Growth),
    /// File descriptors: after the warm-up, and at the end.
    Descriptors(u64, u64),
    /// Threads.
    Threads(u64, u64),
    /// Tasks.
    Tasks(usize, usize),
    /// There are too few rounds to tell.
    TooShort(usize),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(growth) => write!(f, "memory grew: {growth}"),
            Self::Descriptors(before, after) => write!(f, "file descriptors grew: {before}, then {after}"),
            Self::Threads(before, after) => write!(f, "threads grew: {before}, then {after}"),
            Self::Tasks(before, after) => write!(f, "tasks grew: {before}, then {after}"),
            Self::TooShort(rounds) => {
                write!(f, "{rounds} rounds say nothing, {MIN_ROUNDS} would; make it longer")
            }
        }
    }
}

/// How memory went after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Connections since then.
    pub connections: u64,
    /// Bytes for each of them: the median of the slopes between any two rounds, which a few odd rounds do not move.
    pub per_connection: f64,
    /// From the median of their first third to that of their last third.
    pub total: f64,
}

impl Growth {
    /// Of some rounds.
    pub fn of(samples: &[Sample]) -> Self {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Self { connections: 0, per_connection: 0.0, total: 0.0 };
        };
        let some: Vec<_> = samples.iter().step_by(samples.len().div_ceil(COMPARED)).collect();
        let slopes = some
            .iter()
            .enumerate()
            .flat_map(|(index, later)| some[..index].iter().map(move |earlier| slope(earlier, later)));
        let third = samples.len().div_ceil(3);
        let resident = |samples: &[Sample]| median(samples.iter().map(|sample| sample.usage.resident as f64));
        Self {
            connections: last.connections - first.connections,
            per_connection: median(slopes),
            total: resident(&samples[samples.len() - third..]) - resident(&samples[..third]),
        }
    }

    fn is_a_loss(&self) -> bool {
        let by_slope = self.per_connection * self.connections as f64;
        self.per_connection > MAX_GROWTH && by_slope > ALLOWANCE || self.total > MAX_TOTAL
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (each, all) = (self.per_connection, self.total / 1024.0);
        write!(f, "{each:+.2} bytes a connection, {all:+.0} KiB over {} connections", self.connections)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn slope(earlier: &Sample, later: &Sample) -> f64 {
    let connections = later.connections.saturating_sub(earlier.connections).max(1);
    (later.usage.resident as f64 - earlier.usage.resident as f64) / connections as f64
}

/// The rounds that count: a third is warm-up.
pub fn after_warm_up(samples: &[Sample]) -> &[Sample] {
    &samples[samples.len() / 3..]
}

/// What was not given back.
pub fn judge(samples: &[Sample]) -> Vec<Loss> {
    let judged = after_warm_up(samples);
    let (Some(last), true) = (samples.last(), samples.len() >= MIN_ROUNDS) else {
        return vec![Loss::TooShort(samples.len())];
    };
    let warm_up = &samples[..samples.len() / 3];
    // The median, so that an odd round hides nothing.
    let before = |of: fn(&Sample) -> u64| median(warm_up.iter().map(|sample| of(sample) as f64)) as u64;
    let mut losses = Vec::new();
    let growth = Growth::of(judged);
    if growth.is_a_loss() {
        losses.push(Loss::Memory(growth));
    }
    let descriptors = (before(|sample| sample.usage.descriptors), last.usage.descriptors);
    if descriptors.1 > descriptors.0 {
        losses.push(Loss::Descriptors(descriptors.0, descriptors.1));
    }
    let threads = (before(|sample| sample.usage.threads), last.usage.threads);
    if threads.1 > threads.0 {
        losses.push(Loss::Threads(threads.0, threads.1));
    }
    let tasks = before(|sample| sample.tasks.unwrap_or(0) as u64) as usize;
    if let Some(after) = last.tasks.filter(|after| *after > tasks) {
        losses.push(Loss::Tasks(tasks, after));
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand connections a round, with memory as given, and descriptors, threads and tasks likewise.
    fn rounds(number: u64, usage: impl Fn(u64) -> (u64, u64, u64, usize)) -> Vec<Sample> {
        (0..number)
            .map(|round| {
                let (resident, descriptors, threads, tasks) = usage(round);
                let usage = Usage { resident, peak: resident, descriptors, threads };
                Sample { connections: 1000 * (round + 1), usage, tasks: Some(tasks) }
            })
            .collect()
    }

    #[test]
    fn a_flat_line_with_noise_and_a_spike_is_no_loss() {
        let noisy = |round: u64| (20_000_000 + round * 7919 % 300_000, 12, 5, 3);
        assert_eq!(judge(&rounds(60, noisy)), []);
        let spiked = |round| (if round == 50 { 80_000_000 } else { 20_000_000 }, 12, 5, 3);
        assert_eq!(judge(&rounds(60, spiked)), []);
    }

    #[test]
    fn what_a_warm_up_takes_is_no_loss() {
        let warming = |round: u64| (20_000_000 + 1_000_000 * round.min(15), 10 + round.min(5), 5, 3);
        assert_eq!(judge(&rounds(60, warming)), []);
    }

    #[test]
    fn a_hundred_bytes_a_connection_are_one() {
        let leaking = |round: u64| (20_000_000 + 100_000 * round + round * 7919 % 300_000, 12, 5, 3);
        let losses = judge(&rounds(60, leaking));
        assert!(
            matches!(losses[..], [Loss::Memory(growth)] if (90.0..110.0).contains(&growth.per_connection))
        );
    }

    #[test]
    fn so_are_a_few_for_ever_and_many_at_once() {
        let slowly = |round: u64| (20_000_000 + 15_000 * round, 12, 5, 3);
        assert!(matches!(judge(&rounds(2000, slowly))[..], [Loss::Memory(_)]));
        let at_once = |round: u64| (if round < 75 { 20_000_000 } else { 70_000_000 }, 12, 5, 3);
        assert!(matches!(judge(&rounds(100, at_once))[..], [Loss::Memory(_)]));
    }

    #[test]
    fn an_odd_round_while_it_warms_up_hides_nothing() {
        let odd = |round: u64| (20_000_000, if round == 10 { 60 } else { 10 + round / 2 }, 5, 3);
        assert_eq!(judge(&rounds(60, odd)), [Loss::Descriptors(15, 39)]);
    }

    #[test]
    fn one_descriptor_thread_or_task_is_one() {
        let at_the_end = |round: u64| u64::from(round == 59);
        let losing = |round| {
            (20_000_000, 12 + at_the_end(round), 5 + at_the_end(round), 3 + at_the_end(round) as usize)
        };
        assert_eq!(
            judge(&rounds(60, losing)),
            [Loss::Descriptors(12, 13), Loss::Threads(5, 6), Loss::Tasks(3, 4)]
        );
    }

    #[test]
    fn few_rounds_say_nothing() {
        assert_eq!(judge(&rounds(8, |_| (1, 1, 1, 1))), [Loss::TooShort(8)]);
    }
}
