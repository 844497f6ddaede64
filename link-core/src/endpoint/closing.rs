//! From the last message to the end of the transport.
//!
//! ```text
//! Open ──close──▶ Leaving ──all is handed over──▶ Draining ──all has left──▶ Ending ──the peer has ended──▶ Done
//!   └───────────the connection ends──────────────────▲    └──────────── patience is over ────────────────────▲
//! ```

use core::{mem, time::Duration};

use super::Endpoint;
use crate::{
    config::DEFAULT_SEND_TIMEOUT,
    error::CloseReason,
    time::{Instant, Now},
};

/// How long the peer's end may take once all has left. Where this side does not close of its own accord, the last words have
/// no longer than that either.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum Phase {
    Open,
    /// Told to close, as soon as nothing waits to be sent any more. The peer is read, so that two that close do not wait for
    /// one another, but it is not heard.
    Leaving(CloseReason),
    /// The connection is over, and its last words are to leave.
    Draining(Patience),
    /// All has left, and the peer has until then to end its direction.
    Ending(Instant),
    Done,
}

/// How long the last words may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// For as long as the peer takes some at least once in so long: what was sent before a close arrives.
    WhileTaking(Duration),
    Until(Instant),
}

impl Phase {
    /// Whether the peer is read.
    pub(super) const fn reads(&self) -> bool {
        matches!(self, Self::Open | Self::Leaving(_) | Self::Draining(_))
    }

    /// Whether the program is told what the peer says.
    pub(super) const fn hears(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) const fn is_leaving(&self) -> bool {
        matches!(self, Self::Leaving(_))
    }

    /// Whether something may have to leave.
    pub(super) const fn wants_flush(&self) -> bool {
        self.reads()
    }

    /// When it is over at the latest.
    pub(super) const fn until(&self) -> Option<Instant> {
        match self {
            Self::Draining(Patience::Until(until)) | Self::Ending(until) => Some(*until),
            _ => None,
        }
    }

    /// How long the peer may take nothing of what is sent to it. Zero is for ever.
    pub(super) const fn patience(&self, send_timeout: Duration) -> Duration {
        match self {
            Self::Open => send_timeout,
            Self::Leaving(CloseReason::ShuttingDown) => LINGER,
            // Whoever is leaving could wait for ever, and nobody would be there to end it.
            Self::Leaving(_) if send_timeout.is_zero() => DEFAULT_SEND_TIMEOUT,
            Self::Leaving(_) => send_timeout,
            Self::Draining(Patience::WhileTaking(patience)) => *patience,
            Self::Draining(Patience::Until(_)) | Self::Ending(_) | Self::Done => Duration::ZERO,
        }
    }
}

impl Endpoint {
    /// Ends the connection in whatever phase it is.
    ///
    /// As [`Local`](CloseReason::Local) and [`ShuttingDown`](CloseReason::ShuttingDown), what was sent before arrives first, for
    /// as long as the peer takes some of it at least once in a [`send_timeout`](crate::Config::send_timeout) (once in 30 s, where
    /// that is off; once a second, when shutting down). Nothing more can be sent meanwhile, and nothing that the peer says is told.
    ///
    /// Every other reason ends it at once, a graceful close that is under way included.
    pub fn close(&mut self, reason: CloseReason, now: Now) {
        let graceful = matches!(reason, CloseReason::Local | CloseReason::ShuttingDown);
        let before = self.patience();
        match (&self.phase, &reason) {
            // It leaves already, and may not take its time any more.
            (Phase::Leaving(_) | Phase::Draining(_), CloseReason::Local)
            | (Phase::Ending(_) | Phase::Done, _) => {}
            (Phase::Draining(Patience::WhileTaking(_)), CloseReason::ShuttingDown) => {
                self.phase = Phase::Draining(Patience::WhileTaking(LINGER));
            }
            (Phase::Draining(Patience::WhileTaking(_)), _) => {
                self.phase = Phase::Draining(Patience::Until(now.mono.after(LINGER)));
            }
            (Phase::Draining(Patience::Until(_)), _) => {}
            (Phase::Open | Phase::Leaving(_), _)
                if graceful && self.connection.is_authenticated() && !self.broken =>
            {
                self.phase = Phase::Leaving(reason);
            }
            (Phase::Open | Phase::Leaving(_), _) => self.connection.close(reason, now),
        }
        if self.patience() != before
            && let Some(stall) = &mut self.stalled
        {
            // Of the shorter time the peer has had nothing yet.
            stall.since = now.mono;
        }
    }

    /// The last of what was to be sent is handed over: says the last word. `false` when there is none to be said.
    pub(super) fn leave_if_all_is_sent(&mut self) -> bool {
        if self.more_queued || !self.phase.is_leaving() {
            return false;
        }
        let patience = self.patience();
        let leaving = mem::replace(&mut self.phase, Phase::Draining(Patience::WhileTaking(patience)));
        if let Phase::Leaving(reason) = leaving {
            self.connection.close(reason, self.turn.now);
        }
        true
    }

    /// The connection says that it is over.
    pub(super) fn connection_ended(&mut self) {
        match self.phase {
            _ if self.broken => self.phase = Phase::Done,
            Phase::Open | Phase::Leaving(_) => {
                self.phase = Phase::Draining(Patience::Until(self.turn.now.mono.after(LINGER)));
            }
            Phase::Draining(_) | Phase::Ending(_) | Phase::Done => {}
        }
    }

    /// Nothing leaves any more: whoever waited for that waits no longer.
    pub(super) fn give_up_writing(&mut self) {
        match mem::replace(&mut self.phase, Phase::Done) {
            Phase::Open => self.phase = Phase::Open,
            Phase::Leaving(reason) => {
                self.phase = Phase::Open;
                self.connection.close(reason, self.turn.now);
            }
            Phase::Draining(_) | Phase::Ending(_) | Phase::Done => {}
        }
    }

    /// How long the peer may take nothing of what is sent to it. Zero is for ever.
    fn patience(&self) -> Duration {
        self.phase.patience(self.config.send_timeout)
    }

    /// When a peer that takes nothing has had its time.
    pub(super) fn stalled_until(&self) -> Option<Instant> {
        let patience = self.patience();
        self.stalled.filter(|_| patience > Duration::ZERO).map(|stall| stall.since.after(patience))
    }

    /// Ends what has had its time. At the end of a turn, when all that could be done for it was tried.
    pub(super) fn check_patience(&mut self) {
        let now = self.turn.now;
        if self.stalled_until().is_some_and(|due| due <= now.mono) {
            match &self.phase {
                Phase::Leaving(reason) => {
                    let reason = reason.clone();
                    self.connection.close(reason, now);
                }
                Phase::Open => self.connection.close(CloseReason::SlowPeer, now),
                Phase::Draining(_) | Phase::Ending(_) | Phase::Done => self.phase = Phase::Done,
            }
        }
        if self.phase.until().is_some_and(|until| until <= now.mono) {
            self.phase = Phase::Done;
        }
    }

    /// Whether all has left, so that this side's direction can be ended.
    pub(super) fn is_to_shut_down(&mut self) -> bool {
        if let Phase::Draining(patience) = self.phase
            && self.stalled.is_none()
        {
            self.phase = Phase::Ending(match patience {
                Patience::WhileTaking(_) => self.turn.now.mono.after(LINGER),
                Patience::Until(until) => until,
            });
        }
        matches!(self.phase, Phase::Ending(_))
    }
}
