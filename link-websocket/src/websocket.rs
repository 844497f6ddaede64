//! An open WebSocket that speaks in the core's frames.

use std::io::{self, ErrorKind, Read, Write};

use link_core::{Bytes, Close, Frame, Violation};
use tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    protocol::{
        CloseFrame, Role, WebSocketConfig,
        frame::{
            Frame as RawFrame,
            coding::{Data, OpCode},
        },
    },
};

use crate::rationed::Rationed;

/// Bytes read from the stream at a time: 4 KiB. An idle connection keeps a buffer of this size.
pub const READ_BUFFER: usize = 4 << 10;
/// Bytes gathered before they are written without waiting for [`flush`](WebSocket::flush): 64 KiB.
pub const WRITE_BATCH: usize = 64 << 10;
/// Bytes that may wait for a peer that does not read, until [`set_max_unsent`](WebSocket::set_max_unsent) allows more:
/// 16 KiB. It is room for everything that is said before authentication, and pongs that nobody reads are in it too.
pub const FIRST_MAX_UNSENT: usize = 16 << 10;

/// An open WebSocket over a stream that never waits.
pub struct WebSocket<S> {
    inner: tungstenite::WebSocket<Rationed<S>>,
    /// The limit on a message that tungstenite has been told.
    limit: usize,
    /// The longest message so far, if one did not fit into the read buffer.
    longest: usize,
}

/// What a [`read`](WebSocket::read) came to.
#[derive(Debug)]
pub enum Incoming {
    /// A frame. A ping is answered already, by the next flush at the latest.
    Frame(Frame),
    /// Nothing is there, or not all of a frame.
    Nothing,
    /// As much was read as one call may; there can be more, after others had their turn.
    Enough,
    /// The peer broke the protocol, or a limit. A close frame can still be sent; nothing more can be read.
    Violation(Violation),
    /// The transport has ended.
    Ended,
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Too much waits already, since the peer does not read.
    #[error("too many bytes wait to be written")]
    Full,
    /// The stream is broken. What the peer said before may still be read.
    #[error("the stream is broken")]
    Broken,
}

impl<S: Read + Write> WebSocket<S> {
    /// The server's side of a stream that has been [upgraded](crate::ServerUpgrade), here or elsewhere.
    pub fn server(stream: S) -> Self {
        let stream = Rationed::new(stream);
        Self::new(tungstenite::WebSocket::from_raw_socket(stream, Role::Server, Some(config())))
    }

    pub(crate) const fn new(inner: tungstenite::WebSocket<Rationed<S>>) -> Self {
        Self { inner, limit: 0, longest: 0 }
    }

    /// From here on so many bytes may wait for a peer that does not read, and no less than two batches: for one that has
    /// authenticated. It should be room for the longest message that is to be written, and what may come before it.
    pub fn set_max_unsent(&mut self, bytes: usize) {
        self.inner.set_config(|config| {
            (config.write_buffer_size, config.max_write_buffer_size) =
                (WRITE_BATCH, bytes.max(2 * WRITE_BATCH));
        });
    }

    /// The stream beneath.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.inner.get_mut().stream
    }

    /// How many bytes the stream has taken so far: whether a slow peer reads at all. It wraps around.
    pub fn bytes_written(&self) -> u64 {
        self.inner.get_ref().written
    }

    /// The next frame, if one is there. A message may have `limit` bytes, as
    /// [`Connection::receive_limit`](link_core::Connection::receive_limit) says at the moment; a longer one is a violation as
    /// soon as it is announced.
    pub fn read(&mut self, limit: usize) -> Incoming {
        if limit != self.limit {
            self.limit = limit;
            self.inner.set_config(|config| {
                (config.max_message_size, config.max_frame_size) = (Some(limit), Some(limit));
            });
        }
        self.inner.get_mut().replenish();
        self.inner.get_mut().answers = true;
        let read = self.inner.read();
        self.inner.get_mut().answers = false;
        match read {
            Ok(message) => self.incoming(message),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                match self.inner.get_ref().is_used_up() {
                    true => Incoming::Enough,
                    false => Incoming::Nothing,
                }
            }
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

    fn incoming(&mut self, message: Message) -> Incoming {
        Incoming::Frame(match message {
            Message::Text(text) => match self.unshared(text.into()).try_into() {
                Ok(text) => Frame::Text(text),
                Err(_) => return Incoming::Violation(Violation::NotUtf8),
            },
            Message::Binary(bytes) => Frame::Binary(self.unshared(bytes)),
            Message::Ping(payload) => Frame::Ping(payload),
            Message::Pong(payload) => Frame::Pong(payload),
            Message::Close(close) => Frame::Close(
                close.map(|close| Close { code: close.code.into(), reason: close.reason.as_str().into() }),
            ),
            // Reading never yields a raw frame.
            Message::Frame(_) => return Incoming::Violation(Violation::WebSocket),
        })
    }

    /// A payload is a slice of the read buffer, and keeps all of it alive. That is good while the buffer is small; one
    /// that has grown for a long message must not be held by a short one that waits somewhere.
    fn unshared(&mut self, payload: Bytes) -> Bytes {
        let length = payload.len();
        if length > READ_BUFFER {
            self.longest = self.longest.max(length);
        }
        if length < self.longest / 2 { Bytes::copy_from_slice(&payload) } else { payload }
    }

    /// Takes a frame for the next [`flush`](Self::flush). It may already write what does not fit into one batch. After
    /// a close frame, further ones go nowhere.
    ///
    /// # Errors
    /// When too much waits already, or the stream is broken.
    pub fn write(&mut self, frame: Frame) -> Result<(), WriteError> {
        match self.inner.write(outgoing(frame)) {
            Ok(()) => Ok(()),
            // Taken, and waiting.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(Error::WriteBufferFull(_)) => Err(WriteError::Full),
            // A close frame was exchanged already: nobody listens to this one.
            Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => Ok(()),
            Err(_) => Err(WriteError::Broken),
        }
    }

    /// Writes what was taken, and says whether all of it has left.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn flush(&mut self) -> io::Result<bool> {
        match self.inner.flush() {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(true),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(Error::Io(error)) => Err(error),
            Err(other) => Err(io::Error::other(other)),
        }
    }
}

impl<S> std::fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// On purpose: tungstenite's defaults cost 128 KiB a connection at once, and bound no writes.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(FIRST_MAX_UNSENT / 4)
        .max_write_buffer_size(FIRST_MAX_UNSENT)
        // Until the first read says otherwise.
        .max_message_size(Some(0))
        .max_frame_size(Some(0))
}

fn outgoing(frame: Frame) -> Message {
    match frame {
        // As a raw frame, since tungstenite would check UTF-8 that is known to be good.
        Frame::Text(text) => {
            Message::Frame(RawFrame::message(text.into_bytes(), OpCode::Data(Data::Text), true))
        }
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Ping(payload) => Message::Ping(payload),
        Frame::Pong(payload) => Message::Pong(payload),
        Frame::Close(close) => Message::Close(close.map(|close| CloseFrame {
            code: close.code.into(),
            reason: AsRef::<str>::as_ref(&*close.reason).into(),
        })),
    }
}
