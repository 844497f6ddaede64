//! Between tungstenite's words and the core's.

use link_core::{Close, Frame, Incoming, Violation};
use tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    protocol::CloseFrame,
};

/// What reading from tungstenite, or from a WebSocket that is built on it, came to.
pub fn incoming(read: Result<Message, Error>) -> Incoming {
    match read {
        Ok(Message::Text(text)) => match bytes(text).try_into() {
            Ok(text) => Incoming::Frame(Frame::Text(text)),
            Err(_) => Incoming::Violation(Violation::NotUtf8),
        },
        Ok(Message::Binary(bytes)) => Incoming::Frame(Frame::Binary(bytes)),
        Ok(Message::Ping(payload)) => Incoming::Frame(Frame::Ping(payload)),
        Ok(Message::Pong(payload)) => Incoming::Frame(Frame::Pong(payload)),
        Ok(Message::Close(close)) => {
            let close =
                close.map(|close| Close { code: close.code.into(), reason: close.reason.as_str().into() });
            Incoming::Frame(Frame::Close(close))
        }
        // Reading never yields a raw frame.
        Ok(Message::Frame(_)) => Incoming::Violation(Violation::WebSocket),
        Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => Incoming::Nothing,
        Err(Error::Capacity(CapacityError::MessageTooLong { max_size: limit, .. })) => {
            Incoming::Violation(Violation::MessageTooLarge { limit })
        }
        Err(Error::Utf8(_)) => Incoming::Violation(Violation::NotUtf8),
        Err(Error::Protocol(error)) if error != ProtocolError::ResetWithoutClosingHandshake => {
            Incoming::Violation(Violation::WebSocket)
        }
        Err(_) => Incoming::Ended,
    }
}

/// A frame, as tungstenite takes it.
pub fn outgoing(frame: Frame) -> Message {
    match frame {
        // It is UTF-8 already; tungstenite looks once more, since its own type cannot be made without that.
        Frame::Text(text) => match text.into_bytes().try_into() {
            Ok(text) => Message::Text(text),
            Err(_) => Message::text(""),
        },
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Ping(payload) => Message::Ping(payload),
        Frame::Pong(payload) => Message::Pong(payload),
        Frame::Close(close) => Message::Close(close.map(close_frame)),
    }
}

pub(crate) fn close_frame(close: Close) -> CloseFrame {
    CloseFrame { code: close.code.into(), reason: AsRef::<str>::as_ref(&*close.reason).into() }
}

fn bytes(text: tungstenite::Utf8Bytes) -> link_core::Bytes {
    text.into()
}
