//! A WebSocket over any async stream: tungstenite's protocol, driven by one task.
//!
//! This stands where async-tungstenite would, for two reasons. The limit on a message has to rise when its
//! sender is authenticated, and async-tungstenite 0.35 does not let the configuration change; and since one task
//! owns both directions here, one waker serves where its split halves need four.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::AsyncWriteExt;
use link_core::{Bytes, Close, CloseReason, Frame, Violation};
use tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    handshake::{
        HandshakeError, HandshakeRole, MidHandshake,
        client::{ClientHandshake, Request},
        server::{NoCallback, ServerHandshake},
    },
    protocol::{
        CloseFrame, Role, WebSocketConfig,
        frame::{
            Frame as RawFrame,
            coding::{Data, OpCode},
        },
    },
};

use crate::limits::Limits;

/// Bytes read from the stream at a time. An idle connection keeps a buffer of this size.
const READ_BUFFER: usize = 4 << 10;
/// Reads from the stream for one frame, before other tasks get their turn. (A message may take more, and
/// tungstenite would join fragments for as long as there are any.)
const MAX_READS: u32 = 64;
/// The longest HTTP request that is heard.
const MAX_HEAD: usize = 16 << 10;
/// Bytes gathered before they are written without waiting for the flush at the end of a turn.
const WRITE_BATCH: usize = 64 << 10;

/// An open WebSocket that speaks in the core's frames.
pub(crate) struct WebSocket<S> {
    inner: tungstenite::WebSocket<Bridge<S>>,
    /// The longest message so far, if one did not fit into the read buffer.
    longest: usize,
}

/// Why a read ended the connection.
pub(crate) enum ReadError {
    /// The transport has ended.
    Ended,
    /// The peer broke the protocol; a close frame can still be sent.
    Violation(Violation),
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's half of the HTTP upgrade. It borrows the stream, so that a caller who loses patience can
    /// still answer on it; afterwards, [`server`](Self::server) takes it.
    pub(crate) async fn upgrade(stream: &mut S) -> Result<(), Error> {
        let mid = ServerHandshake::start(Bridge::for_head(stream), NoCallback, None);
        // No byte is lost with the result: the handshake refuses a client that sends frames before the answer.
        handshake(mid).await.map(drop)
    }

    /// The server's side of an upgraded stream.
    pub(crate) fn server(stream: S, limits: &Limits) -> Self {
        let config = Some(config(limits));
        Self {
            inner: tungstenite::WebSocket::from_raw_socket(Bridge::new(stream), Role::Server, config),
            longest: 0,
        }
    }

    /// The client's side: performs the HTTP upgrade.
    pub(crate) async fn client(stream: S, request: Request, limits: &Limits) -> Result<Self, Error> {
        let mid = ClientHandshake::start(Bridge::new(stream), request, Some(config(limits)))?;
        let (inner, _response) = handshake(mid).await?;
        Ok(Self { inner, longest: 0 })
    }

    /// From here on messages may be as long as the limits allow to an authenticated peer.
    pub(crate) fn lift_limit(&mut self, limits: &Limits) {
        self.inner.set_config(|config| {
            config.max_message_size = Some(limits.max_message_size);
            config.max_frame_size = Some(limits.max_message_size);
        });
    }

    /// The next frame. Pings are answered on the way.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ReadError>> {
        let bridge = self.inner.get_mut();
        bridge.wake(cx);
        bridge.reads = MAX_READS;
        match self.inner.read() {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.inner.get_ref().reads == 0 {
                    // There may be more, after the others had their turn.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Ok(message) => Poll::Ready(self.incoming(message)),
            Err(error) => Poll::Ready(Err(read_error(&error))),
        }
    }

    fn incoming(&mut self, message: Message) -> Result<Frame, ReadError> {
        Ok(match message {
            Message::Text(text) => match self.unshared(text.into()).try_into() {
                Ok(text) => Frame::Text(text),
                Err(_) => return Err(ReadError::Violation(Violation::NotUtf8)),
            },
            Message::Binary(bytes) => Frame::Binary(self.unshared(bytes)),
            Message::Ping(payload) => Frame::Ping(payload),
            Message::Pong(payload) => Frame::Pong(payload),
            Message::Close(close) => Frame::Close(
                close.map(|close| Close { code: close.code.into(), reason: close.reason.as_str().into() }),
            ),
            // Reading never yields a raw frame.
            Message::Frame(_) => return Err(ReadError::Violation(Violation::WebSocket)),
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

    /// Takes a frame for the next flush. It may already write what does not fit into one batch.
    ///
    /// # Errors
    /// [`CloseReason::SlowPeer`] when too much waits already, [`CloseReason::Lost`] when the stream is broken.
    pub(crate) fn write(&mut self, frame: Frame, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.inner.get_mut().wake(cx);
        match self.inner.write(outgoing(frame)) {
            Ok(()) => Ok(()),
            // Taken, and waiting.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(Error::WriteBufferFull(_)) => Err(CloseReason::SlowPeer),
            // A close frame was exchanged already: nobody listens to this one.
            Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => Ok(()),
            Err(_) => Err(CloseReason::Lost),
        }
    }

    /// Writes all that was taken.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.get_mut().wake(cx);
        match self.inner.flush() {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(Error::Io(error)) => Poll::Ready(Err(error)),
            Err(other) => Poll::Ready(Err(io::Error::other(other))),
        }
    }

    /// How many bytes the stream has taken so far: whether a slow peer reads at all.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.inner.get_ref().written
    }

    /// Sends what is left, and sees the transport to its end.
    pub(crate) async fn drain(&mut self) {
        if poll_fn(|cx| self.poll_flush(cx)).await.is_ok() {
            see_off(&mut self.inner.get_mut().stream).await;
        }
    }
}

/// Answers in plain HTTP on a stream that did not become a WebSocket, and sees it to its end.
pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &str) {
    if stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {
        see_off(stream).await;
    }
}

/// Ends our direction, then reads and drops what still comes until the peer has ended its own. Without that the
/// system would answer unread bytes with a reset, and the reset may overtake our last words.
async fn see_off<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    if stream.close().await.is_err() {
        return;
    }
    let mut waste = [0; 1024];
    poll_fn(|cx| {
        // Bounded, so that a peer which never stops talking does not keep this task from its timer.
        for _ in 0..64 {
            match Pin::new(&mut *stream).poll_read(cx, &mut waste) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BATCH)
        // One turn's messages, the longest of them, and room for the protocol's own frames.
        .max_write_buffer_size(
            limits.max_message_size.saturating_add(crate::line::TURN_BYTES).saturating_add(2 * WRITE_BATCH),
        )
        .max_message_size(Some(limits.max_unauthenticated_message_size))
        .max_frame_size(Some(limits.max_unauthenticated_message_size))
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

fn read_error(error: &Error) -> ReadError {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => ReadError::Ended,
        Error::Protocol(_) => ReadError::Violation(Violation::WebSocket),
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            ReadError::Violation(Violation::MessageTooLarge { limit: *max_size })
        }
        Error::Utf8(_) => ReadError::Violation(Violation::NotUtf8),
        _ => ReadError::Ended,
    }
}

/// Runs one half of the HTTP upgrade.
async fn handshake<H, S>(mid: MidHandshake<H>) -> Result<H::FinalResult, Error>
where
    H: HandshakeRole<InternalStream = Bridge<S>>,
{
    let mut waiting = Some(mid);
    poll_fn(|cx| {
        let Some(mut mid) = waiting.take() else { return Poll::Pending };
        let bridge = mid.get_mut().get_mut();
        bridge.wake(cx);
        bridge.reads = MAX_READS;
        match mid.handshake() {
            Ok(done) => Poll::Ready(Ok(done)),
            Err(HandshakeError::Failure(error)) => Poll::Ready(Err(error)),
            Err(HandshakeError::Interrupted(mut mid)) => {
                if mid.get_mut().get_mut().reads == 0 {
                    cx.waker().wake_by_ref();
                }
                waiting = Some(mid);
                Poll::Pending
            }
        }
    })
    .await
}

/// An async stream in the shape of a blocking one that would always block rather than wait.
struct Bridge<S> {
    stream: S,
    waker: Waker,
    written: u64,
    /// Bytes that may still be read.
    allowance: usize,
    /// Reads that are left in this turn.
    reads: u32,
}

impl<S> Bridge<S> {
    fn new(stream: S) -> Self {
        Self { stream, waker: Waker::noop().clone(), written: 0, allowance: usize::MAX, reads: MAX_READS }
    }

    /// For a peer that has yet to finish its HTTP request.
    fn for_head(stream: S) -> Self {
        Self { allowance: MAX_HEAD, ..Self::new(stream) }
    }

    /// Says whom to wake when the stream has moved.
    fn wake(&mut self, cx: &Context<'_>) {
        self.waker.clone_from(cx.waker());
    }
}

impl<S: AsyncRead + Unpin> Read for Bridge<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads = self.reads.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        let mut cx = Context::from_waker(&self.waker);
        let read = or_would_block(Pin::new(&mut self.stream).poll_read(&mut cx, buffer))?;
        if self.allowance != usize::MAX {
            self.allowance = self.allowance.checked_sub(read).ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(read)
    }
}

impl<S: AsyncWrite + Unpin> Write for Bridge<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(&self.waker);
        let written = or_would_block(Pin::new(&mut self.stream).poll_write(&mut cx, buffer))?;
        self.written = self.written.wrapping_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        or_would_block(Pin::new(&mut self.stream).poll_flush(&mut cx))
    }
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
