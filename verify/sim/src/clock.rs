//! The world's one true time, and the two clocks that each process reads instead.

use core::time::Duration;

use link_core::{Instant, Now, UnixMillis};

/// A point of the world's true time, counted from its beginning. No process can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The time since the beginning.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time since `earlier`, or zero.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment, moved `by` into the future.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// The first whole millisecond at or after this: the grain of the world's timers, so that things fall together.
    #[must_use]
    pub const fn to_grain(self) -> Self {
        let beyond = self.0.subsec_nanos() % 1_000_000;
        if beyond == 0 {
            self
        } else {
            self.after(Duration::from_nanos(1_000_000u64.saturating_sub(beyond as u64)))
        }
    }
}

impl core::fmt::Display for Moment {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:>3}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// What every wall clock shows at first, in Unix milliseconds.
const WALL: i64 = 1_795_372_174_071;
/// A wall clock that runs as it should, in thousandths.
const TRUE_RATE: i64 = 1000;

/// The clocks of one process. Its monotonic clock starts anywhere and stands still while the machine is suspended; its
/// wall clock steps, drifts and runs backwards.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    origin: Duration,
    /// For how long the monotonic clock has stood still.
    slept: Duration,
    asleep_since: Option<Moment>,
    anchor: Moment,
    wall_at_anchor: i64,
    /// Thousandths of the true speed.
    rate: i64,
    /// A planted fault: the process takes its wall clock for a monotonic one.
    pub(crate) confused: bool,
}

impl Clock {
    pub(crate) const fn new(origin: Duration) -> Self {
        Self {
            origin,
            slept: Duration::ZERO,
            asleep_since: None,
            anchor: Moment(Duration::ZERO),
            wall_at_anchor: WALL,
            rate: TRUE_RATE,
            confused: false,
        }
    }

    /// What the process reads.
    pub(crate) fn now(&self, at: Moment) -> Now {
        Now { mono: self.read_mono(at), wall: self.wall(at) }
    }

    fn read_mono(&self, at: Moment) -> Instant {
        if !self.confused {
            return self.mono(at);
        }
        let since_start = u64::try_from(self.wall_millis(at).saturating_sub(WALL)).unwrap_or(0);
        Instant::from_origin(self.origin.saturating_add(Duration::from_millis(since_start)))
    }

    /// What the monotonic clock says.
    pub(crate) fn mono(&self, at: Moment) -> Instant {
        let at = self.asleep_since.unwrap_or(at);
        Instant::from_origin(self.origin.saturating_add(at.since_start()).saturating_sub(self.slept))
    }

    /// When the monotonic clock will show `due`, if it goes on running.
    pub(crate) fn when(&self, due: Instant, at: Moment) -> Moment {
        at.after(due.since(self.read_mono(at)))
    }

    pub(crate) fn wall(&self, at: Moment) -> UnixMillis {
        UnixMillis::saturating(u64::try_from(self.wall_millis(at)).unwrap_or(0))
    }

    fn wall_millis(&self, at: Moment) -> i64 {
        let passed = i64::try_from(at.since(self.anchor).as_millis()).unwrap_or(i64::MAX);
        let shown = passed.saturating_mul(self.rate).checked_div(TRUE_RATE).unwrap_or(0);
        self.wall_at_anchor.saturating_add(shown)
    }

    /// Sets the wall clock by so many milliseconds.
    pub(crate) fn step_wall(&mut self, millis: i64, at: Moment) {
        self.wall_at_anchor = self.wall_millis(at).saturating_add(millis);
        self.anchor = at;
    }

    /// Lets the wall clock run at another speed, in thousandths; below zero it runs backwards.
    pub(crate) fn run_wall_at(&mut self, rate: i64, at: Moment) {
        self.step_wall(0, at);
        self.rate = rate;
    }

    /// Sets the wall clock to `millis`, and lets it run as it should.
    pub(crate) fn set_right(&mut self, wall: UnixMillis, at: Moment) {
        self.wall_at_anchor = i64::try_from(wall.get()).unwrap_or(i64::MAX);
        self.anchor = at;
        self.rate = TRUE_RATE;
    }

    pub(crate) fn fall_asleep(&mut self, at: Moment) {
        self.asleep_since.get_or_insert(at);
    }

    pub(crate) fn wake_up(&mut self, at: Moment) {
        if let Some(since) = self.asleep_since.take() {
            self.slept = self.slept.saturating_add(at.since(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    #[test]
    fn a_suspended_machine_loses_monotonic_time_and_no_wall_time() {
        let mut clock = Clock::new(Duration::from_secs(1));
        let before = clock.mono(at(100));
        clock.fall_asleep(at(100));
        assert_eq!(clock.mono(at(500)), before);
        clock.wake_up(at(600));
        assert_eq!(clock.mono(at(700)).since(before), Duration::from_millis(100));
        assert_eq!(clock.wall(at(700)).distance(clock.wall(at(0))), Duration::from_millis(700));
        assert_eq!(clock.when(clock.mono(at(700)).after(Duration::from_millis(5)), at(700)), at(705));
    }

    #[test]
    fn a_wall_clock_steps_drifts_and_runs_backwards() {
        let mut clock = Clock::new(Duration::ZERO);
        let start = clock.wall(at(0)).get();
        clock.step_wall(-250, at(1000));
        assert_eq!(clock.wall(at(1000)).get(), start + 750);
        clock.run_wall_at(-500, at(1000));
        assert_eq!(clock.wall(at(3000)).get(), start + 750 - 1000);
    }
}
