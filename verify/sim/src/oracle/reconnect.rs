//! What a client may do about dialling, by a count of the oracle's own. (`docs/protocol.md`, section 10.)

use core::time::Duration;

use link_core::{
    CloseReason, GiveUp, Instant, Next, Now, Reconnect, ReconnectPolicy, Status, UnixMillis, Violation,
};

use super::{Invariant, Oracle};

#[derive(Debug)]
pub(crate) struct ReconnectBook {
    policy: ReconnectPolicy,
    attempts: u32,
    authenticated: Option<Instant>,
    busy: bool,
    not_before: Option<Instant>,
    disconnected: bool,
    signed: Option<UnixMillis>,
}

/// Whether the table of endings says that a client dials again.
fn dials_again(reason: &CloseReason, policy: &ReconnectPolicy) -> bool {
    match reason {
        CloseReason::PeerClosed { .. }
        | CloseReason::Lost
        | CloseReason::AuthenticationTimeout(_)
        | CloseReason::Idle(_)
        | CloseReason::SlowPeer
        | CloseReason::RefusedByServer(Status::RequestTimeout)
        | CloseReason::Violation(
            Violation::StaleProof
            | Violation::MessageTooLarge { .. }
            | Violation::NotUtf8
            | Violation::WebSocket,
        ) => true,
        CloseReason::Replaced | CloseReason::RefusedByServer(_) => policy.retry_refusals,
        _ => false,
    }
}

impl ReconnectBook {
    pub(crate) const fn new(policy: ReconnectPolicy) -> Self {
        Self {
            policy,
            attempts: 0,
            authenticated: None,
            busy: false,
            not_before: None,
            disconnected: false,
            signed: None,
        }
    }

    pub(crate) fn dialled(&mut self, who: usize, now: Now, oracle: &mut Oracle) {
        oracle.check(Invariant::NoDialAfterDisconnect, !self.disconnected, || {
            format!("client {who} dials, though it was told to disconnect")
        });
        oracle.check(Invariant::OneDialAtATime, !self.busy, || {
            format!("client {who} dials while it has a connection")
        });
        oracle.check(
            Invariant::DelaysInTheirInterval,
            self.not_before.is_none_or(|at| now.mono >= at),
            || format!("client {who} dials at {:?}, before {:?}", now.mono, self.not_before),
        );
        self.busy = true;
        self.authenticated = None;
    }

    /// A connection is made that signs this time.
    pub(crate) fn opened(&mut self, who: usize, now: Now, oracle: &mut Oracle) {
        let before = self.signed.replace(now.wall);
        oracle.check(Invariant::LoginsDiffer, before != Some(now.wall), || {
            format!("client {who} signs {} a second time", now.wall)
        });
    }

    pub(crate) const fn authenticated(&mut self, now: Now) {
        self.authenticated = Some(now.mono);
    }

    pub(crate) const fn disconnected(&mut self) {
        self.disconnected = true;
    }

    /// A connection ended with `reason`, or never came to be; `reconnect` was told, and says what is next.
    pub(crate) fn ended(
        &mut self,
        who: usize,
        reason: Option<&CloseReason>,
        reconnect: &Reconnect,
        now: Now,
        oracle: &mut Oracle,
    ) -> bool {
        self.busy = false;
        let lasted =
            self.authenticated.take().is_some_and(|since| now.mono.since(since) >= self.policy.lasted);
        let reset = lasted && self.attempts > 0;
        if lasted {
            self.attempts = 0;
        }
        let next = reconnect.next(now);
        let again = reason.is_none_or(|reason| dials_again(reason, &self.policy)) && !self.disconnected;
        if !again || self.attempts >= self.policy.max_attempts {
            let expected = match (self.disconnected, again) {
                (true, _) => matches!(next, Next::GiveUp(_)),
                (false, false) => next == Next::GiveUp(GiveUp::Final),
                (false, true) => next == Next::GiveUp(GiveUp::Exhausted(self.attempts)),
            };
            oracle.check(Invariant::GivesUpWithReason, expected, || {
                format!("client {who} does {next:?} after {reason:?} and {} attempts", self.attempts)
            });
            return reset;
        }
        let bound = self
            .policy
            .delay
            .checked_mul(1u32.checked_shl(self.attempts).unwrap_or(u32::MAX))
            .unwrap_or(Duration::MAX)
            .min(self.policy.max_delay);
        self.attempts = self.attempts.saturating_add(1);
        oracle.check(
            Invariant::CountIsResetByWhatLasted,
            reconnect.attempts() == self.attempts && !matches!(next, Next::GiveUp(_)),
            || format!("client {who} counts {}, not {}; next {next:?}", reconnect.attempts(), self.attempts),
        );
        let wait = match next {
            Next::WaitUntil(at) => Some(at),
            Next::Dial => Some(now.mono),
            Next::Carry | Next::GiveUp(_) => None,
        };
        let within = wait.is_some_and(|at| at.since(now.mono) <= bound);
        oracle.check(Invariant::DelaysInTheirInterval, within, || {
            format!("client {who} does {next:?} at {:?}: not within {bound:?}", now.mono)
        });
        self.not_before = wait;
        reset
    }

    /// What `reconnect` says while the client wants to know.
    pub(crate) fn asked(&self, who: usize, next: Next, oracle: &mut Oracle) {
        let over = matches!(next, Next::GiveUp(_));
        oracle.check(Invariant::NoDialAfterDisconnect, over || !self.disconnected, || {
            format!("client {who} was told to disconnect, and is to {next:?}")
        });
    }
}
