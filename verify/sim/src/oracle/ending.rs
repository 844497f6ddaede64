//! Whether what a connection says about its peer, and about its end, follows from what came in.

use core::time::Duration;

use link_core::{Address, CloseReason, Frame, Now, Proof, Refusal, Role, Status, UnixMillis, Violation};
use serde_json::Value;

use super::{
    Invariant, Oracle,
    watched::{Cause, Turning, Watched},
};

/// What an `authenticate` says, before anybody has checked it.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) address: String,
    pub(super) timestamp: u64,
}

/// The text of a data frame, if it has one.
fn text_of(frame: &Frame) -> Option<&str> {
    match frame {
        Frame::Text(text) => Some(text),
        Frame::Binary(bytes) => core::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn data_length(frame: &Frame) -> usize {
    match frame {
        Frame::Text(text) => text.len(),
        Frame::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

impl Claim {
    /// Reads it the slow way, with a tree, as nobody else does.
    pub(super) fn read(frame: &Frame) -> Option<Self> {
        let text = text_of(frame)?;
        if !text.contains("authenticate") && !text.contains('\\') {
            return None;
        }
        let value: Value = serde_json::from_str(text).ok()?;
        if value.get("type")?.as_str()? != "authenticate" {
            return None;
        }
        let address = value.get("address")?.as_str()?.to_owned();
        Some(Self { address, timestamp: value.get("timestamp")?.as_u64()? })
    }

    fn is_fresh(&self, now: Now, window: Duration) -> bool {
        UnixMillis::new(self.timestamp).is_some_and(|timestamp| timestamp.distance(now.wall) <= window)
    }
}

/// Whether a text is one that the protocol itself sends.
pub(super) fn is_known_text(text: &str) -> bool {
    let own = |kind: &str| text.strip_prefix(r#"{"type":""#).is_some_and(|rest| rest.starts_with(kind));
    own("authenticate\"") || own("heartbeat\"") || Status::from_text(text).is_some()
}

impl Watched {
    pub(super) fn check_proof(&self, proof: Proof, oracle: &mut Oracle) {
        let (end, window) = (self.end, self.config.auth_window);
        let claimed = self.claims.iter().any(|(claim, now)| {
            claim.address == proof.address.as_str()
                && claim.timestamp == proof.timestamp.get()
                && claim.is_fresh(*now, window)
        });
        let signed = oracle.was_signed(&proof.address, proof.timestamp.get());
        oracle.check(Invariant::AddressesAreProved, claimed && signed, || {
            format!("{end} takes {proof:?} for proved (claimed: {claimed}, signed: {signed})")
        });
    }

    /// On the way into `Authenticated`.
    pub(super) fn check_authentication(&self, cause: &Cause, now: Now, oracle: &mut Oracle) {
        let end = self.end;
        let in_turn = match (self.role, cause) {
            (Role::Server, Cause::Decision(Ok(()))) => true,
            (Role::Client, Cause::Frame(frame)) => {
                Claim::read(frame).is_some_and(|claim| claim.is_fresh(now, self.config.auth_window))
            }
            _ => false,
        };
        oracle.check(Invariant::AddressesAreProved, in_turn, || {
            format!("{end} is authenticated by {cause:?} at {}", now.wall)
        });
    }

    /// Who the peer turned out to be.
    pub(super) fn check_peer(&self, peer: Address, oracle: &mut Oracle) {
        let end = self.end;
        let right = match self.role {
            Role::Server => self.asked.is_some_and(|proof| proof.address == peer),
            Role::Client => {
                let expected = &self.config.expected_servers;
                let wanted = if expected.is_empty() {
                    peer != self.config.wallet.address()
                } else {
                    expected.contains(&peer)
                };
                let signed = self.claims.last().is_some_and(|(claim, _)| {
                    claim.address == peer.as_str() && oracle.was_signed(&peer, claim.timestamp)
                });
                wanted && signed
            }
        };
        oracle.check(Invariant::AddressesAreProved, right, || format!("{end} takes its peer for {peer}"));
    }

    /// The reason that it gives, against what came in at its end.
    pub(super) fn check_ending(&self, reason: &CloseReason, turning: &Turning, oracle: &mut Oracle) {
        let end = self.end;
        if let CloseReason::Idle(_) = reason {
            // A judgement about the peer has a name of its own.
            let timeout = self.config.idle_timeout;
            let just = turning
                .idle_due
                .is_some_and(|due| turning.now.mono >= due && turning.now.mono.since(due) <= timeout)
                && matches!(turning.cause, Cause::Turn);
            oracle.check(Invariant::ResponsivePeersLive, just, || {
                format!("{end} is judged idle at {:?}, due {:?}", turning.now.mono, turning.idle_due)
            });
            return;
        }
        let just = (self.ticket_dropped && *reason == CloseReason::Refused(Refusal::Denied))
            || self.is_just(reason, turning);
        oracle
            .check(Invariant::EndingsHaveCauses, just, || format!("{end} ends as {reason:?} by {turning:?}"));
    }

    fn is_just(&self, reason: &CloseReason, turning: &Turning) -> bool {
        let Turning { cause, was_authenticated, now, lost_patience, .. } = turning;
        match (reason, cause) {
            (_, Cause::Close(asked)) => asked == reason,
            (CloseReason::Local | CloseReason::ShuttingDown, Cause::Turn | Cause::Broken) => {
                self.leaving.as_ref() == Some(reason)
            }
            (CloseReason::SlowPeer, Cause::Turn) => *lost_patience,
            (CloseReason::Lost, cause) => matches!(cause, Cause::TransportClosed),
            (CloseReason::PeerClosed { code }, Cause::Frame(Frame::Close(close))) => {
                *code == close.as_ref().map(|close| close.code)
            }
            (CloseReason::AuthenticationTimeout(_), Cause::Turn) => !was_authenticated,
            (CloseReason::Refused(refusal), Cause::Decision(verdict)) => *verdict == Err(*refusal),
            (CloseReason::Replaced, Cause::Frame(Frame::Text(text))) => {
                self.role == Role::Client
                    && *was_authenticated
                    && Status::from_text(text) == Some(Status::Conflict)
            }
            (CloseReason::RefusedByServer(status), Cause::Frame(frame)) => {
                self.role == Role::Client && text_of(frame).and_then(Status::from_text) == Some(*status)
            }
            (CloseReason::Violation(violation), Cause::Violation(seen)) => violation == seen,
            (CloseReason::Violation(violation), Cause::Frame(frame)) => {
                self.is_violation(*violation, frame, *was_authenticated, *now)
            }
            _ => false,
        }
    }

    fn is_violation(&self, violation: Violation, frame: &Frame, was_authenticated: bool, now: Now) -> bool {
        let limit = if was_authenticated {
            self.config.max_message_size
        } else {
            self.config.max_unauthenticated_message_size
        };
        let claim = Claim::read(frame);
        match violation {
            Violation::MessageTooLarge { limit: told } => told == limit && data_length(frame) > limit,
            // Nothing else that a peer says ends a session.
            _ if was_authenticated => false,
            Violation::NotJson => {
                text_of(frame).is_none_or(|text| serde_json::from_str::<Value>(text).is_err())
            }
            Violation::UnexpectedMessage => {
                text_of(frame).is_some_and(|text| serde_json::from_str::<Value>(text).is_ok())
            }
            Violation::StaleProof => claim.is_some_and(|claim| !claim.is_fresh(now, self.config.auth_window)),
            Violation::BadSignature => claim.is_some(),
            Violation::MalformedProof => text_of(frame).is_some_and(|text| text.contains("uthenticate")),
            Violation::Reflected | Violation::UnexpectedServer(_) => {
                self.role == Role::Client && claim.is_some()
            }
            _ => false,
        }
    }
}
