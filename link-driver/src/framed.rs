//! A WebSocket that somebody else has: any stream of frames that is a sink of frames too.

use std::{
    collections::VecDeque,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_util::Sink;
use link_core::{Config, Frame, Incoming, Violation};
use link_websocket::Detach;

use crate::transport::{StartSendError, Transport};

/// Bytes that may wait for a sink that takes nothing, until its peer is authenticated.
const FIRST_MAX_UNSENT: usize = 16 << 10;
/// The same, beside one turn's messages and the longest of them, once it is.
const OWN_WORDS: usize = 128 << 10;

/// A [`Transport`] over any WebSocket that is a stream and a sink of [`Frame`]s: axum's, tokio-tungstenite's, and others, by
/// `map` and `with` (the example `beside-axum` shows how).
///
/// What it cannot promise: a message is limited by the WebSocket itself while it comes, and here only once it has come. A peer
/// counts as taking something when a whole frame has gone into the sink, or all has left, so a
/// [`send_timeout`](crate::ServerBuilder::send_timeout) should be longer than the longest message takes on the slowest line, with
/// all that the sink keeps in a buffer of its own (tungstenite's `write_buffer_size`, 128 KiB by default). Of what was given to
/// the sink, nothing comes back as unsent. And how long the stream is at work when it is polled once is its own affair: a peer
/// that sends empty fragments without end keeps a WebSocket of tungstenite's at it for as long as its socket has bytes, which tokio's
/// sockets bound, and those of other runtimes do not (`AsyncTungstenite` does, on each).
#[derive(Debug)]
pub struct Framed<S> {
    inner: S,
    /// Taken here, and not yet by the sink.
    waiting: VecDeque<Frame>,
    bytes: usize,
    max_bytes: usize,
    /// Whether the sink may have something to flush.
    dirty: bool,
    closed: bool,
    /// Nothing comes any more; a stream need not bear being asked again.
    ended: bool,
    progress: u64,
    detach: Detach,
}

impl<S> Framed<S> {
    /// Over a WebSocket that is open.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            waiting: VecDeque::new(),
            bytes: 0,
            max_bytes: FIRST_MAX_UNSENT,
            dirty: false,
            closed: false,
            ended: false,
            progress: 0,
            detach: Detach::default(),
        }
    }
}

impl<S, E> Framed<S>
where
    S: Stream<Item = Result<Frame, E>> + Sink<Frame, Error = E> + Unpin,
{
    /// Gives the sink what waits, as far as it takes it.
    fn poll_give(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        while !self.waiting.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_ready(cx))?;
            let Some(frame) = self.waiting.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(frame.payload_len());
            self.progress = self.progress.wrapping_add(frame.payload_len() as u64);
            self.dirty = true;
            Pin::new(&mut self.inner).start_send(frame)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, E> Transport for Framed<S>
where
    S: Stream<Item = Result<Frame, E>> + Sink<Frame, Error = E> + Unpin,
{
    fn poll_frame(&mut self, limit: usize, cx: &mut Context<'_>) -> Incoming {
        if self.ended {
            return Incoming::Ended;
        }
        match Pin::new(&mut self.inner).poll_next(cx) {
            Poll::Pending => Incoming::Nothing,
            Poll::Ready(Some(Ok(frame))) => {
                // The WebSocket has an answer to it.
                self.dirty |= matches!(frame, Frame::Ping(_) | Frame::Close(_));
                match frame {
                    Frame::Text(_) | Frame::Binary(_) if frame.payload_len() > limit => {
                        Incoming::Violation(Violation::MessageTooLarge { limit })
                    }
                    frame => Incoming::Frame(self.detach.frame(frame)),
                }
            }
            Poll::Ready(Some(Err(_)) | None) => {
                self.ended = true;
                Incoming::Ended
            }
        }
    }

    fn start_send(&mut self, frame: Frame, _: &mut Context<'_>) -> Result<(), StartSendError> {
        let bytes = self.bytes.saturating_add(frame.payload_len());
        if bytes > self.max_bytes && !matches!(frame, Frame::Close(_)) {
            return Err(StartSendError::Full(frame));
        }
        self.bytes = bytes;
        self.waiting.push_back(frame);
        Ok(())
    }

    fn needs_flush(&self) -> bool {
        self.dirty || !self.waiting.is_empty()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.poll_give(cx)).map_err(broken)?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx)).map_err(broken)?;
        self.dirty = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed {
            // One that was closed already says so by an error, which changes nothing.
            let _ = ready!(Pin::new(&mut self.inner).poll_close(cx));
            self.closed = true;
        }
        // Bounded, so that a peer which never stops talking does not keep this task from its timer.
        for _ in 0..64 {
            if self.ended {
                return Poll::Ready(());
            }
            self.ended = !matches!(ready!(Pin::new(&mut self.inner).poll_next(cx)), Some(Ok(_)));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn progress(&self) -> u64 {
        self.progress
    }

    fn authenticated(&mut self, config: &Config) {
        let turn = config.max_turn_bytes.saturating_add(config.max_message_size);
        self.max_bytes = turn.saturating_add(OWN_WORDS);
    }

    fn release_spare_room(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    fn take_unsent(&mut self) -> Vec<Frame> {
        let waiting = mem::take(&mut self.waiting);
        waiting.into_iter().filter(|frame| matches!(frame, Frame::Text(_) | Frame::Binary(_))).collect()
    }
}
