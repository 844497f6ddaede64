//! Three kinds of trouble that never mix: [`Misuse`] (the caller broke a rule), [`Violation`] (the peer did),
//! [`Refusal`] (policy said no); and [`CloseReason`], how a connection ended.

use alloc::string::String;
use core::time::Duration;

use crate::{
    connection::Role,
    frame::{Close, close_code},
    identity::Address,
    message::{InvalidMessage, Status},
};

/// A rule that the caller broke. Nothing was done, and the connection goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A message was to be sent before both sides were authenticated.
    #[error("not authenticated yet: wait for the `Authenticated` event before sending")]
    NotAuthenticated,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// The message cannot be sent as it is.
    #[error(transparent)]
    InvalidMessage(#[from] InvalidMessage),
    /// The message is longer than the limit.
    #[error("the message has {size} bytes, and the limit is {limit}")]
    MessageTooLarge {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The ticket's time has passed: the connection ended, or its deadline decided.
    #[error("the decision came too late: the connection was no longer waiting for it")]
    LateTicket,
    /// The ticket was given out by another connection.
    #[error("the ticket belongs to another connection")]
    ForeignTicket,
}

/// A rule that the peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame was not JSON.
    #[error("sent a frame that is not JSON")]
    NotJson,
    /// Something else came where an `authenticate` had to come first.
    #[error("sent something else before it was authenticated")]
    UnexpectedMessage,
    /// An `authenticate` lacked a field, had one twice, or one of the wrong kind.
    #[error("sent an `authenticate` whose fields are missing, repeated or of the wrong kind")]
    MalformedProof,
    /// The signed timestamp is too far from our clock.
    #[error("signed a timestamp too far from our clock; is one of the two clocks wrong?")]
    StaleProof,
    /// The signature is no signature, or not one by the address given.
    #[error("sent a signature that its address did not make")]
    BadSignature,
    /// The server answered with the client's own address: an echo, not a proof.
    #[error("answered with our own address")]
    Reflected,
    /// The server proved an address that is not among the expected ones.
    #[error("is {0}, which is not among the expected servers")]
    UnexpectedServer(Address),
    /// A message over the limit in force.
    #[error("sent a message over the limit of {limit} bytes")]
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Text that is not UTF-8.
    #[error("sent text that is not UTF-8")]
    NotUtf8,
    /// Bytes that are not the WebSocket protocol.
    #[error("broke the WebSocket protocol")]
    WebSocket,
    /// No TLS, or not as it must be, where TLS was to be spoken.
    #[error("did not complete the TLS handshake")]
    Tls,
}

impl Violation {
    /// The status text that a server answers this with before it closes; `None` where it closes without one.
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::MalformedProof | Self::StaleProof | Self::BadSignature => Some(Status::Unauthorized),
            _ => None,
        }
    }

    /// A short name that stays the same, such as `stale_proof`: for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::UnexpectedMessage => "unexpected_message",
            Self::MalformedProof => "malformed_proof",
            Self::StaleProof => "stale_proof",
            Self::BadSignature => "bad_signature",
            Self::Reflected => "reflected",
            Self::UnexpectedServer(_) => "unexpected_server",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::NotUtf8 => "not_utf8",
            Self::WebSocket => "websocket",
            Self::Tls => "tls",
        }
    }

    /// The close code that goes with it.
    pub const fn close_code(self) -> u16 {
        match (self.status(), self) {
            (Some(status), _) => status_close_code(status),
            (None, Self::MessageTooLarge { .. }) => close_code::TOO_BIG,
            (None, Self::NotUtf8) => close_code::NOT_UTF8,
            (None, Self::WebSocket) => close_code::PROTOCOL,
            (None, _) => close_code::POLICY,
        }
    }
}

/// Why a peer that proved its address is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The same proof was used before.
    #[error("its proof was used before")]
    Replayed,
    /// It is not on the whitelist.
    #[error("it is not on the whitelist")]
    NotWhitelisted,
    /// The application's own check said no, or never said anything.
    #[error("the application's check said no")]
    Denied,
    /// It is connected already, and is not to be replaced.
    #[error("its address is connected already")]
    AlreadyConnected,
    /// The memory of used proofs is full of other addresses' proofs: it may try again.
    #[error("too many logins are remembered; it may try again")]
    Busy,
}

impl Refusal {
    /// A short name that stays the same, such as `not_whitelisted`: for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::NotWhitelisted => "not_whitelisted",
            Self::Denied => "denied",
            Self::AlreadyConnected => "already_connected",
            Self::Busy => "busy",
        }
    }

    /// The status text it is answered with; `None` for one that is only closed, since a status would be final.
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::Replayed => Some(Status::Unauthorized),
            Self::NotWhitelisted | Self::Denied => Some(Status::Forbidden),
            Self::AlreadyConnected => Some(Status::Conflict),
            Self::Busy => None,
        }
    }
}

/// How a connection ended. Told to the application exactly once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// Closed by this side's application.
    #[error("closed by this side")]
    Local,
    /// This side's server is shutting down.
    #[error("this server is shutting down")]
    ShuttingDown,
    /// The peer sent a close frame.
    #[error("closed by the peer{}", Code(.code))]
    PeerClosed {
        /// The code it gave, if it gave one.
        code: Option<u16>,
    },
    /// The transport ended without a close frame: a cut, a crash, a reset.
    #[error("the connection was lost")]
    Lost,
    /// The peer did not authenticate in time.
    #[error("not authenticated within {0:?}")]
    AuthenticationTimeout(Duration),
    /// The peer was silent for longer than the time-out.
    #[error("nothing was heard from the peer for {0:?}")]
    Idle(Duration),
    /// A newer connection with the same address took its place.
    #[error("replaced by a newer connection with the same address")]
    Replaced,
    /// This side, a server, refused the client.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// This side, a client, was refused or dropped by the server with this status.
    #[error("the server answered {0}")]
    RefusedByServer(Status),
    /// The peer broke a rule.
    #[error("the peer {0}")]
    Violation(Violation),
    /// The peer read too slowly: more bytes were waiting for it than its bound allows.
    #[error("the peer does not read what it is sent")]
    SlowPeer,
}

// What a refusal or a violation says is in the text of the reason, so neither is its source as well.
impl From<Refusal> for CloseReason {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// The code of a close frame, for people, if there is one.
struct Code<'a>(&'a Option<u16>);

impl core::fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(code) => write!(f, " with code {code}"),
            None => Ok(()),
        }
    }
}

impl CloseReason {
    /// Whether a client may hope for better by dialling again.
    ///
    /// Being refused (401, 403, 409), replaced, or told something that no honest server says is final; so is
    /// this side's own close. Losing the line is not.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::PeerClosed { .. }
            | Self::Lost
            | Self::AuthenticationTimeout(_)
            | Self::Idle(_)
            | Self::SlowPeer
            | Self::RefusedByServer(Status::RequestTimeout) => true,
            Self::Violation(violation) => matches!(
                violation,
                // A clock may have been set right by then.
                Violation::StaleProof
                    | Violation::WebSocket
                    | Violation::Tls
                    | Violation::NotUtf8
                    | Violation::MessageTooLarge { .. }
            ),
            Self::Local
            | Self::ShuttingDown
            | Self::Replaced
            | Self::Refused(_)
            | Self::RefusedByServer(_) => false,
        }
    }

    /// A short name that stays the same, such as `idle`, or that of the [`Refusal`] or [`Violation`]: for logs and metrics,
    /// where the text of an error would make a new series each time.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::ShuttingDown => "shutting_down",
            Self::PeerClosed { .. } => "peer_closed",
            Self::Lost => "lost",
            Self::AuthenticationTimeout(_) => "authentication_timeout",
            Self::Idle(_) => "idle",
            Self::Replaced => "replaced",
            Self::Refused(refusal) => refusal.label(),
            Self::RefusedByServer(_) => "refused_by_server",
            Self::Violation(violation) => violation.label(),
            Self::SlowPeer => "slow_peer",
        }
    }

    /// Whether the server said no to this client, so that only its configuration can change that.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Replaced
                | Self::Refused(_)
                | Self::RefusedByServer(Status::Unauthorized | Status::Forbidden | Status::Conflict)
        )
    }

    /// The status text that belongs to it: the one a server sends for it, or the one a client was told.
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::AuthenticationTimeout(_) | Self::Idle(_) => Some(Status::RequestTimeout),
            Self::Replaced => Some(Status::Conflict),
            Self::Refused(refusal) => refusal.status(),
            Self::RefusedByServer(status) => Some(*status),
            Self::Violation(violation) => violation.status(),
            _ => None,
        }
    }

    /// The close frame this side sends for it; `None` when there is nobody to send one to.
    pub(crate) fn close_frame(&self, role: Role) -> Option<Close> {
        let (code, reason) = match self {
            Self::PeerClosed { .. } | Self::Lost => return None,
            Self::Local | Self::RefusedByServer(_) => (close_code::NORMAL, ""),
            // The server has said so, and is only answered.
            Self::Replaced if role == Role::Client => (close_code::NORMAL, ""),
            Self::ShuttingDown => (close_code::GOING_AWAY, "shutting down"),
            Self::SlowPeer => (close_code::POLICY, "reads too slowly"),
            Self::Refused(Refusal::Busy) => (close_code::TRY_AGAIN_LATER, "try again later"),
            Self::Violation(Violation::MessageTooLarge { .. }) => (close_code::TOO_BIG, "message too large"),
            Self::Violation(violation) => {
                (violation.close_code(), violation.status().map_or("protocol violation", Status::name))
            }
            Self::AuthenticationTimeout(_) | Self::Idle(_) | Self::Replaced | Self::Refused(_) => {
                match self.status() {
                    Some(status) => (status_close_code(status), status.name()),
                    None => (close_code::POLICY, ""),
                }
            }
        };
        Some(Close { code, reason: String::from(reason).into() })
    }
}

const fn status_close_code(status: Status) -> u16 {
    close_code::STATUS_BASE.saturating_add(status.code())
}
