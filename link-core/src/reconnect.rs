//! When a client dials again, and when it stops. Exponential back-off with full jitter and a cap.

use core::time::Duration;

use crate::{
    error::CloseReason,
    time::{Instant, Now, UnixMillis},
};

/// How far a signed time may run ahead of the clock, to be unlike the one before.
const MAX_AHEAD: Duration = Duration::from_secs(1);

/// How a client comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconnectPolicy {
    /// How many times in a row a client dials again before it gives up; zero for never. Default 5.
    pub max_attempts: u32,
    /// The upper bound of the first delay; it doubles with each attempt. Default 1 s.
    pub delay: Duration,
    /// The upper bound of every delay. Default 30 s.
    pub max_delay: Duration,
    /// How long a session must last, once authenticated, to start the count anew. Default 10 s.
    pub lasted: Duration,
    /// Whether to dial again after having been refused (401, 403, 409) or replaced. Default false: only
    /// somebody's configuration can change that, and two programs with one wallet would replace each other for
    /// ever.
    pub retry_refusals: bool,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(30),
            lasted: Duration::from_secs(10),
            retry_refusals: false,
        }
    }
}

/// What a client has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Open a connection, and say [`dialled`](Reconnect::dialled).
    Dial,
    /// Wait until then, and ask again.
    WaitUntil(Instant),
    /// Nothing, while a connection is being opened or is open.
    Carry,
    /// Nothing any more: this is the end.
    GiveUp(GiveUp),
}

/// Why a client does not dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GiveUp {
    /// The application disconnected.
    #[error("disconnected by this side")]
    Disconnected,
    /// The way the last session ended leaves no hope.
    #[error("dialling again would end the same way")]
    Final,
    /// All attempts are used up.
    #[error("gave up after {0} attempt{s}", s = if *.0 == 1 { "" } else { "s" })]
    Exhausted(u32),
}

/// A client's memory across its connections: what happened goes in, what to do next comes out.
#[derive(Debug, Clone)]
pub struct Reconnect {
    policy: ReconnectPolicy,
    jitter: fastrand::Rng,
    attempts: u32,
    phase: Phase,
    /// The time that the last connection was opened with.
    signed: Option<UnixMillis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Due(Instant),
    Dialling,
    Authenticated(Instant),
    Over(GiveUp),
}

impl Reconnect {
    /// A client that has not dialled yet. `seed` drives the jitter: the same seed, the same delays.
    pub fn new(policy: ReconnectPolicy, seed: u64) -> Self {
        Self {
            policy,
            jitter: fastrand::Rng::with_seed(seed),
            attempts: 0,
            phase: Phase::Due(Instant::default()),
            signed: None,
        }
    }

    /// What to do now.
    pub fn next(&self, now: Now) -> Next {
        match self.phase {
            Phase::Due(at) if now.mono >= at => Next::Dial,
            Phase::Due(at) => Next::WaitUntil(at),
            Phase::Dialling | Phase::Authenticated(_) => Next::Carry,
            Phase::Over(reason) => Next::GiveUp(reason),
        }
    }

    /// How many times in a row it has dialled again (or is waiting to).
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A connection is being opened.
    pub fn dialled(&mut self) {
        if matches!(self.phase, Phase::Due(_)) {
            self.phase = Phase::Dialling;
        }
    }

    /// The WebSocket is open: the time to make its [`Connection`](crate::Connection) with.
    ///
    /// That is `now`, but never a time that an earlier connection was given: a server takes each signed time only
    /// once, and would answer a second login in the same millisecond with a 401, which is final.
    #[must_use]
    pub fn opened(&mut self, now: Now) -> Now {
        let unused = match self.signed {
            Some(signed) if now.wall <= signed => UnixMillis::saturating(signed.get().saturating_add(1)),
            _ => now.wall,
        };
        // A clock that was set back far must not keep us in its future.
        let wall = if unused.distance(now.wall) <= MAX_AHEAD { unused } else { now.wall };
        self.signed = Some(wall);
        Now { wall, ..now }
    }

    /// The session is authenticated. The count starts anew only if it lasts: a server that drops everybody at
    /// once is not to be dialled for ever.
    pub fn authenticated(&mut self, now: Now) {
        if self.phase == Phase::Dialling {
            self.phase = Phase::Authenticated(now.mono);
        }
    }

    /// No connection came to be.
    pub fn failed(&mut self, now: Now) {
        self.retry(now);
    }

    /// A connection ended.
    pub fn ended(&mut self, reason: &CloseReason, now: Now) {
        if let Phase::Authenticated(since) = self.phase
            && now.mono.since(since) >= self.policy.lasted
        {
            self.attempts = 0;
        }
        if *reason == CloseReason::Local {
            self.stop(GiveUp::Disconnected);
        } else if reason.is_retryable() || (self.policy.retry_refusals && reason.is_refusal()) {
            self.retry(now);
        } else {
            self.stop(GiveUp::Final);
        }
    }

    /// The application wants no connection any more. Ends everything, in every phase.
    pub fn disconnect(&mut self) {
        self.stop(GiveUp::Disconnected);
    }

    fn stop(&mut self, reason: GiveUp) {
        if !matches!(self.phase, Phase::Over(_)) {
            self.phase = Phase::Over(reason);
        }
    }

    fn retry(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Dialling | Phase::Authenticated(_)) {
            return;
        }
        if self.attempts >= self.policy.max_attempts {
            return self.stop(GiveUp::Exhausted(self.attempts));
        }
        let factor = 1u128.checked_shl(self.attempts).unwrap_or(u128::MAX);
        let bound = self.policy.delay.as_nanos().saturating_mul(factor).min(self.policy.max_delay.as_nanos());
        self.attempts = self.attempts.saturating_add(1);
        self.phase = Phase::Due(now.mono.after(self.drawn_up_to(bound)));
    }

    /// Full jitter: anything from zero to the bound, so that a server that comes back is not met by all of its
    /// clients at once.
    fn drawn_up_to(&mut self, nanos: u128) -> Duration {
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Duration::from_nanos(self.jitter.u64(0..=nanos))
    }
}
