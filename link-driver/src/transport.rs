//! What the driver needs of an open WebSocket, whoever has opened it and whatever it runs over.

use std::{
    io,
    task::{Context, Poll},
};

use link_core::{Config, Frame, Incoming};

/// An open WebSocket that speaks in the core's frames.
///
/// It masks and joins frames, checks UTF-8, and answers pings (RFC 6455 §5.5.2). Dispatch is static. Everything here is called
/// by one task: whatever cannot go on keeps its waker, and wakes it.
pub trait Transport {
    /// The next frame, a message having at most `limit` bytes; a longer one is a violation. With
    /// [`Incoming::Nothing`] the task is woken when there is something.
    ///
    /// `limit` is small until the peer is authenticated. A transport that cannot change its limit has its own, and says so.
    fn poll_frame(&mut self, limit: usize, cx: &mut Context<'_>) -> Incoming;

    /// Takes a frame for the next flush, and never waits. It may already write what does not fit into one batch.
    ///
    /// # Errors
    /// When it has no room, or is broken. A frame that was taken before it broke is among the
    /// [unsent](Self::take_unsent) ones, as far as the transport can tell.
    fn start_send(&mut self, frame: Frame, cx: &mut Context<'_>) -> Result<(), StartSendError>;

    /// Whether there is anything to flush: frames that were taken, or answers to pings.
    fn needs_flush(&self) -> bool;

    /// Writes all that was taken. Pending while the peer takes no more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends this side's direction, then reads and drops what still comes until the peer has ended its own. (Closing at once
    /// may reset the connection, and the reset may overtake the last words.) Ready when that is done or has failed.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// How many bytes the peer has taken so far, of frames with their headers; it may wrap around. By it a slow peer is told from
    /// one that takes nothing, and what still waits is known. One that can only tell in steps counts what has gone in each.
    fn progress(&self) -> u64;

    /// The peer is authenticated: from here on `config` allows it more.
    fn authenticated(&mut self, config: &Config) {
        let _ = config;
    }

    /// A good moment to give back the room that a burst has taken.
    fn release_spare_room(&mut self) {}

    /// Ends the writing, and hands back the text and binary frames of which no byte was written, in order. A transport that
    /// cannot tell hands back none.
    fn take_unsent(&mut self) -> Vec<Frame> {
        Vec::new()
    }
}

/// Why a frame was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartSendError {
    /// Too much waits already, since the peer takes too little. Here is the frame back.
    #[error("too many bytes wait to be written")]
    Full(Frame),
    /// It is broken. What the peer said before may still be read.
    #[error("the transport is broken")]
    Broken,
}

/// Of whatever kind: for a client, which need not know it when it is built.
impl<T: Transport + ?Sized> Transport for Box<T> {
    fn poll_frame(&mut self, limit: usize, cx: &mut Context<'_>) -> Incoming {
        (**self).poll_frame(limit, cx)
    }

    fn start_send(&mut self, frame: Frame, cx: &mut Context<'_>) -> Result<(), StartSendError> {
        (**self).start_send(frame, cx)
    }

    fn needs_flush(&self) -> bool {
        (**self).needs_flush()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_shutdown(cx)
    }

    fn progress(&self) -> u64 {
        (**self).progress()
    }

    fn authenticated(&mut self, config: &Config) {
        (**self).authenticated(config);
    }

    fn release_spare_room(&mut self) {
        (**self).release_spare_room();
    }

    fn take_unsent(&mut self) -> Vec<Frame> {
        (**self).take_unsent()
    }
}
