//! What travels over the WebSocket, as far as the protocol needs to see it.
//!
//! A [`Frame`] is a whole WebSocket message (fragments joined) or a control frame. The WebSocket layer below
//! masks, joins, checks UTF-8 and **answers pings by itself** (RFC 6455 §5.5.2); the protocol only learns that
//! a ping came.

use bytes::Bytes;
use bytestring::ByteString;

/// One WebSocket message or control frame, in either direction. Cloning shares the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(ByteString),
    /// A binary message. Peers never send one, but a server takes JSON in it.
    Binary(Bytes),
    /// A ping; the WebSocket layer answers it with the same payload.
    Ping(Bytes),
    /// A pong, the answer to a ping of ours or an unsolicited one (RFC 6455 §5.5.3).
    Pong(Bytes),
    /// A close frame, with a code and a reason or without (seen by JavaScript as 1005).
    Close(Option<Close>),
}

impl Frame {
    /// How many bytes its payload has on the wire.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close(None) => 0,
            Self::Close(Some(close)) => close.reason.len().saturating_add(2),
        }
    }
}

/// What a close frame says (RFC 6455 §5.5.1, §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The close code, see [`close_code`].
    pub code: u16,
    /// A reason for people, at most 123 bytes on the wire.
    pub reason: ByteString,
}

/// The close codes that Link sends. Peers ignore them; they are there for captures and logs.
pub mod close_code {
    /// The line has done its work (RFC 6455 §7.4.1).
    pub const NORMAL: u16 = 1000;
    /// The server is shutting down (RFC 6455 §7.4.1).
    pub const GOING_AWAY: u16 = 1001;
    /// A WebSocket protocol error (RFC 6455 §7.4.1).
    pub const PROTOCOL: u16 = 1002;
    /// Text that is not UTF-8 (RFC 6455 §7.4.1).
    pub const NOT_UTF8: u16 = 1007;
    /// A rule of Link was broken and there is no closer code (RFC 6455 §7.4.1).
    pub const POLICY: u16 = 1008;
    /// A message over the limit (RFC 6455 §7.4.1).
    pub const TOO_BIG: u16 = 1009;
    /// The server has no room now, and may have it later (in IANA's registry, RFC 6455 §7.4.2).
    pub const TRY_AGAIN_LATER: u16 = 1013;
    /// Added to the status of a refusal, in the range for private use (RFC 6455 §7.4.2): 4401, 4403, 4408, 4409.
    pub const STATUS_BASE: u16 = 4000;
}
