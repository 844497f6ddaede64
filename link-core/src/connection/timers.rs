//! The arithmetic of deadlines: which there are, when they are due, and how lateness is judged.

use core::time::Duration;

use super::room::PING_LENGTH;
use crate::time::Instant;

/// When `timeout` after `start` is due, rounded up to a multiple of `step`. A zero time-out is never due.
pub(super) fn due(start: Instant, timeout: Duration, step: Duration) -> Option<Instant> {
    (!timeout.is_zero()).then(|| start.after(timeout).rounded_up(step))
}

/// Watches for a peer's silence. Activity moves a number, not a timer.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleGuard {
    /// When the peer was last heard; `None` while nobody listens.
    heard: Option<Instant>,
}

impl IdleGuard {
    pub(super) fn started(now: Instant) -> Self {
        Self { heard: Some(now) }
    }

    pub(super) fn hear(&mut self, now: Instant) {
        // While paused, a frame that was on its way already does not end the pause.
        if let Some(heard) = &mut self.heard {
            *heard = now.max(*heard);
        }
    }

    pub(super) fn pause(&mut self) {
        self.heard = None;
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    pub(super) fn deadline(self, timeout: Duration, step: Duration) -> Option<Instant> {
        due(self.heard?, timeout, step)
    }

    /// Whether the deadline, before it is rounded up, lies behind `time`. It is asked all the time, and rounding takes a
    /// division.
    pub(super) fn is_due_after(self, time: Instant, timeout: Duration) -> bool {
        self.heard.is_none_or(|heard| timeout.is_zero() || heard.after(timeout) > time)
    }

    /// Whether the peer is to be judged idle now.
    ///
    /// When this very call comes later than a whole time-out after its deadline, it was this side that slept (a
    /// suspended machine, a blocked thread): what the peer sent meanwhile may not have been read, so it gets
    /// its time-out once more from here.
    pub(super) fn expired(&mut self, now: Instant, timeout: Duration, step: Duration) -> bool {
        if self.is_due_after(now, timeout) {
            return false;
        }
        match self.deadline(timeout, step) {
            Some(deadline) if now >= deadline => {
                let overslept = now.since(deadline) > timeout;
                if overslept {
                    self.resume(now);
                }
                !overslept
            }
            _ => false,
        }
    }
}

/// Paces the pings and measures their round trips.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    next: Option<Instant>,
    /// The number that the next ping carries.
    number: u64,
    /// The oldest ping that waits for its pong. Later ones are not measured until it is answered or passed
    /// over, so a round trip longer than the interval is still measured.
    awaited: Option<(u64, Instant)>,
    round_trip: Option<Duration>,
}

impl Pulse {
    pub(super) fn started(now: Instant, interval: Duration) -> Self {
        Self { next: due(now, interval, Duration::ZERO), number: 0, awaited: None, round_trip: None }
    }

    pub(super) const fn deadline(self) -> Option<Instant> {
        self.next
    }

    /// The payload of the ping that is due now, if one is. However late the call, it is one ping.
    pub(super) fn beat(&mut self, now: Instant, interval: Duration) -> Option<[u8; PING_LENGTH]> {
        let due_at = self.next.filter(|due_at| now >= *due_at)?;
        let regular = due_at.after(interval);
        self.next = Some(if regular > now { regular } else { now.after(interval) });
        let number = self.number;
        self.number = number.wrapping_add(1);
        self.awaited.get_or_insert((number, now));
        Some(number.to_be_bytes())
    }

    /// A pong came. Only the awaited one is measured; a peer may answer just the latest of several pings
    /// (RFC 6455 §5.5.3), and then the awaited one will not be answered any more.
    pub(super) fn pong(&mut self, payload: &[u8], now: Instant) {
        let (Some((awaited, sent)), Ok(number)) = (self.awaited, payload.try_into().map(u64::from_be_bytes))
        else {
            return;
        };
        if number == awaited {
            self.round_trip = Some(now.since(sent));
        }
        if number >= awaited && number < self.number {
            self.awaited = None;
        }
    }

    pub(super) const fn round_trip(self) -> Option<Duration> {
        self.round_trip
    }
}
