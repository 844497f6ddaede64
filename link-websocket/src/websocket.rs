//! An open WebSocket that speaks in the core's frames.

use std::io::{self, ErrorKind, Read, Write};

use link_core::{Bytes, Frame, Incoming, Violation};
use tungstenite::{
    Error, Message,
    protocol::{
        Role, WebSocketConfig,
        frame::{
            Frame as RawFrame, FrameHeader,
            coding::{Control, Data, OpCode},
        },
    },
};

use crate::{
    convert,
    detach::Detach,
    outgoing::Outgoing,
    rationed::{ANSWER_ROOM, Rationed},
};

/// Bytes of the buffer that each connection keeps for reading: 1 KiB. From a peer that is trusted, and has more to say at a
/// time, much more is read at a time.
pub const READ_BUFFER: usize = 1 << 10;
/// Bytes gathered before they are written without waiting for [`flush`](WebSocket::flush): 64 KiB.
pub const WRITE_BATCH: usize = 64 << 10;
/// Bytes that may wait for a peer that does not read, until [`set_max_unsent`](WebSocket::set_max_unsent) allows more:
/// 16 KiB. It is room for everything that is said before authentication, and pongs that nobody reads are in it too.
pub const FIRST_MAX_UNSENT: usize = 16 << 10;

/// An open WebSocket over a stream that never waits.
///
/// What the peer sends is tungstenite's affair, answers to control frames included. What is sent to it is put into frames
/// here, and waits here, so that nothing is copied twice and an idle connection keeps no room for it.
pub struct WebSocket<S> {
    inner: tungstenite::WebSocket<Rationed<S>>,
    role: Role,
    /// The limit on a message that tungstenite has been told.
    limit: usize,
    detach: Detach,
    held: Option<Held>,
    /// Whether tungstenite may have an answer that it has yet to write.
    answering: bool,
    /// Whether the stream has taken bytes that it may not have sent: TLS does that.
    unflushed: bool,
    written: u64,
}

/// A message that was longer than the read buffer, which has grown for it.
///
/// tungstenite would use the room again for what comes next, once nobody else does, and keep it for ever. So it is held until
/// tungstenite has had to make a small buffer again: at the latest when as much has come as fits into one, since that is
/// the most that can have been read beyond the message.
struct Held {
    _message: Bytes,
    /// Bytes of frames that are still to come.
    until: usize,
}

/// Why a frame was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Too much waits already, since the peer does not read. Here is the frame back.
    #[error("too many bytes wait to be written")]
    Full(Frame),
    /// The stream is broken. What the peer said before may still be read; the frame is among the
    /// [unsent](WebSocket::take_unsent) ones, unless it had begun to leave.
    #[error("the stream is broken")]
    Broken,
}

impl<S: Read + Write> WebSocket<S> {
    /// The server's side of a stream that has been [upgraded](crate::ServerUpgrade), here or elsewhere.
    pub fn server(stream: S) -> Self {
        let stream = Rationed::new(stream, FIRST_MAX_UNSENT);
        let inner = tungstenite::WebSocket::from_raw_socket(stream, Role::Server, Some(config()));
        Self::new(inner, Role::Server)
    }

    pub(crate) fn new(mut inner: tungstenite::WebSocket<Rationed<S>>, role: Role) -> Self {
        inner.get_mut().opened();
        let (detach, held) = (Detach::default(), None);
        Self { inner, role, limit: 0, detach, held, answering: false, unflushed: false, written: 0 }
    }

    /// From here on so many bytes may wait for a peer that does not read, and no less than two batches: for one that has
    /// authenticated. It should be room for the longest message that is to be written, and what may come before it. And from
    /// here on such a peer is read far ahead, when it has much to say.
    pub fn set_max_unsent(&mut self, bytes: usize) {
        let stream = self.inner.get_mut();
        stream.max_unsent = bytes.max(2 * WRITE_BATCH);
        stream.trusted = true;
    }

    /// The stream beneath.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.inner.get_mut().stream
    }

    /// How many bytes the stream has taken so far: whether a slow peer reads at all. It wraps around.
    pub const fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Whether there is anything to [`flush`](Self::flush): frames that were taken, or an answer to a ping or a close.
    pub fn needs_flush(&self) -> bool {
        self.answering || self.unflushed || self.unsent() > 0
    }

    /// Gives back the room that a burst has taken, if nothing waits. Called now and then, it keeps an idle connection small.
    pub fn tidy(&mut self) {
        self.inner.get_mut().outgoing.tidy();
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
        let incoming = self.read_frame();
        if let Incoming::Violation(_) | Incoming::Ended = incoming {
            self.inner.get_mut().forget();
            self.held = None;
        }
        incoming
    }

    fn read_frame(&mut self) -> Incoming {
        let read = self.inner.read();
        if let Ok(message) = &read {
            self.note(message);
        }
        match read {
            // (Not by `incoming`, so that it is looked through once.)
            Ok(Message::Text(text)) => match self.unshared(text.into()).try_into() {
                Ok(text) => Incoming::Frame(Frame::Text(text)),
                Err(_) => Incoming::Violation(Violation::NotUtf8),
            },
            Ok(Message::Binary(bytes)) => Incoming::Frame(Frame::Binary(self.unshared(bytes))),
            read => match convert::incoming(read) {
                Incoming::Nothing if self.inner.get_ref().is_used_up() => Incoming::Enough,
                incoming => incoming,
            },
        }
    }

    fn note(&mut self, message: &Message) {
        self.answering |= matches!(message, Message::Ping(_) | Message::Close(_));
        if let Message::Close(_) = message {
            self.make_room_for_a_close();
        }
        if let Some(held) = &mut self.held {
            held.until = held.until.saturating_sub(message.len());
            if held.until == 0 {
                self.held = None;
            }
        }
    }

    /// A payload that keeps no more than its own memory alive.
    fn unshared(&mut self, payload: Bytes) -> Bytes {
        if payload.len() > READ_BUFFER {
            self.held = Some(Held { _message: payload.clone(), until: READ_BUFFER });
        }
        self.detach.payload(payload)
    }

    /// Takes a frame for the next [`flush`](Self::flush). It may already write what does not fit into one batch. After
    /// a close frame, further ones go nowhere.
    ///
    /// # Errors
    /// When too much waits already, or the stream is broken.
    pub fn write(&mut self, frame: Frame) -> Result<(), WriteError> {
        let opcode = match &frame {
            Frame::Text(_) => OpCode::Data(Data::Text),
            Frame::Binary(_) => OpCode::Data(Data::Binary),
            Frame::Ping(_) => OpCode::Control(Control::Ping),
            Frame::Pong(_) | Frame::Close(_) => return self.answer(frame),
        };
        if !self.inner.can_write() {
            // A close frame was exchanged already: nobody listens to this one.
            return Ok(());
        }
        let Rationed { outgoing, max_unsent, .. } = self.inner.get_mut();
        if outgoing.is_over() {
            return Err(WriteError::Broken);
        }
        // Even a client's without its bytes, for its length.
        let mask = matches!(self.role, Role::Client).then_some([0; 4]);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let length = header.len(frame.payload_len() as u64).saturating_add(frame.payload_len());
        if outgoing.len().saturating_add(length) > *max_unsent {
            return Err(WriteError::Full(frame));
        }
        put(outgoing, header, frame, self.role);
        if outgoing.len() > WRITE_BATCH { self.write_out().map(drop) } else { Ok(()) }
            .map_err(|_: io::Error| WriteError::Broken)
    }

    /// There may be pongs for which there was no room, and tungstenite does not try twice to say the last word.
    fn make_room_for_a_close(&mut self) {
        self.inner.set_config(|config| config.max_write_buffer_size = 2 * ANSWER_ROOM);
    }

    /// Has tungstenite send a frame of which it keeps count.
    fn answer(&mut self, frame: Frame) -> Result<(), WriteError> {
        self.answering = true;
        if let Frame::Close(_) = frame {
            self.make_room_for_a_close();
        }
        match self.inner.write(convert::outgoing(frame.clone())) {
            // Taken, or kept until there is room; or a close frame was exchanged already.
            Ok(())
            | Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                Ok(())
            }
            Err(Error::WriteBufferFull(_)) => Err(WriteError::Full(frame)),
            Err(_) => Err(WriteError::Broken),
        }
    }

    /// Writes what was taken, and says whether all of it has left.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn flush(&mut self) -> io::Result<bool> {
        loop {
            // What tungstenite has to say beside it, as far as there is room; and again, when that has made some.
            let before = self.unsent();
            let answered = match self.inner.flush() {
                Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => true,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => false,
                Err(Error::Io(error)) => return Err(error),
                Err(other) => return Err(io::Error::other(other)),
            };
            let nothing_new = self.unsent() == before;
            if !self.write_out()? {
                return Ok(false);
            }
            // All has left, so there was room.
            if nothing_new && (answered || before == 0) {
                self.answering = false;
                return Ok(true);
            }
        }
    }

    /// Ends the writing, and hands back the text and binary frames of which no byte was written, in order. A frame that was
    /// begun is not among them, and its rest is never written; nor is anything else from here on. What the peer said may still
    /// be read.
    pub fn take_unsent(&mut self) -> Vec<Frame> {
        self.answering = false;
        self.inner.get_mut().outgoing.take_unsent()
    }

    fn unsent(&self) -> usize {
        self.inner.get_ref().outgoing.len()
    }

    /// Writes what waits, and says whether all of it has left, the stream's own buffer included.
    fn write_out(&mut self) -> io::Result<bool> {
        let Rationed { stream, outgoing, .. } = self.inner.get_mut();
        self.unflushed |= outgoing.len() > 0;
        outgoing.write_to(stream, &mut self.written)?;
        if outgoing.len() > 0 {
            return Ok(false);
        }
        if self.unflushed {
            match stream.flush() {
                Ok(()) => self.unflushed = false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
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
        // All that it writes goes on at once.
        .write_buffer_size(0)
        .max_write_buffer_size(ANSWER_ROOM)
        // Until the first read says otherwise.
        .max_message_size(Some(0))
        .max_frame_size(Some(0))
}

/// Writes a frame. A client's is masked, by bytes that nobody can guess (RFC 6455 §5.3).
fn put(outgoing: &mut Outgoing, mut header: FrameHeader, frame: Frame, role: Role) {
    let payload = match frame {
        Frame::Text(text) => text.into_bytes(),
        Frame::Binary(payload) | Frame::Ping(payload) | Frame::Pong(payload) => payload,
        Frame::Close(_) => Bytes::new(),
    };
    // Neither fails, since what waits is in memory.
    match role {
        Role::Server => {
            let _ = header.format(payload.len() as u64, outgoing);
            outgoing.push(payload);
        }
        Role::Client => {
            header.mask = Some(rand::random());
            let _ = RawFrame::from_payload(header, payload).format(outgoing);
        }
    }
}
