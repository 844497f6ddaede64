//! Time as an argument: the core reads no clock.
//!
//! There are two clocks, and they never mix. Deadlines read only the monotonic one ([`Instant`]); what is
//! signed or sent reads only the wall clock ([`UnixMillis`]). A step of the wall clock can therefore fail a
//! handshake, but never end a live connection.

use core::{fmt, time::Duration};

/// A point on the caller's monotonic clock, as the time since an origin of the caller's choice.
///
/// Every call on one `Connection` must use the same origin. A caller with `std` typically keeps one
/// `std::time::Instant` from its start and passes `start.elapsed()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(Duration);

impl Instant {
    /// The point `elapsed` after the origin.
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time from the origin to this point.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this point; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved `by` into the future, at most to the end of the clock.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// The first point at or after this one that is a whole multiple of `step` from the origin, so that many
    /// deadlines fall together. A zero `step` leaves it as it is.
    #[must_use]
    pub(crate) fn rounded_up(self, step: Duration) -> Self {
        let (elapsed, step) = (self.0.as_nanos(), step.as_nanos());
        // Half as wide, it is a division that processors have: a clock of 584 years fits.
        let beyond = match (u64::try_from(elapsed), u64::try_from(step)) {
            (Ok(elapsed), Ok(step)) => elapsed.checked_rem(step).map(u128::from),
            _ => elapsed.checked_rem(step),
        };
        let Some(beyond) = beyond.filter(|beyond| *beyond > 0) else { return self };
        match u64::try_from(step.saturating_sub(beyond)) {
            Ok(missing) => self.after(Duration::from_nanos(missing)),
            Err(_) => self,
        }
    }
}

/// Unix time in whole milliseconds, from 0 to 2^53 − 1: what a JavaScript number holds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// The last one: 2^53 − 1, `Number.MAX_SAFE_INTEGER`.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// `millis` since 1970-01-01T00:00:00Z, or `None` beyond [`UnixMillis::MAX`].
    pub const fn new(millis: u64) -> Option<Self> {
        if millis <= Self::MAX.0 { Some(Self(millis)) } else { None }
    }

    /// `millis` since 1970-01-01T00:00:00Z, at most [`UnixMillis::MAX`]: for what a clock says.
    pub const fn saturating(millis: u64) -> Self {
        if millis <= Self::MAX.0 { Self(millis) } else { Self::MAX }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this one; zero if `earlier` is later.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// How far two times lie apart, whichever is first.
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

/// Decimal, as it is signed and sent.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What both clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The monotonic clock, for deadlines.
    pub mono: Instant,
    /// The wall clock, for what is signed and sent.
    pub wall: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_rounded_up_to_its_step_and_never_down() {
        let at = |millis| Instant::from_origin(Duration::from_millis(millis));
        let second = Duration::from_secs(1);
        for (given, step, rounded) in [
            (0, second, 0),
            (1, second, 1000),
            (999, second, 1000),
            (1000, second, 1000),
            (1001, second, 2000),
            (1234, Duration::ZERO, 1234),
        ] {
            assert_eq!(at(given).rounded_up(step), at(rounded), "{given} by {step:?}");
        }
        let end = Instant::from_origin(Duration::MAX);
        assert_eq!(end.rounded_up(second), end, "the end of the clock stays the end");
    }
}
