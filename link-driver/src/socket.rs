//! A WebSocket over any async stream: `link-websocket`, driven by one task.
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
use link_core::{CloseReason, Frame};
use link_websocket::{
    ClientUpgrade, Incoming, NotOpened, NotUpgraded, Progress, Request, ServerUpgrade, WRITE_BATCH,
    WriteError,
};

use crate::limits::Limits;

/// An open WebSocket that speaks in the core's frames.
pub(crate) struct WebSocket<S>(link_websocket::WebSocket<Bridge<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's half of the HTTP upgrade. It borrows the stream, so that a caller who loses patience can
    /// still answer on it; afterwards, [`server`](Self::server) takes it.
    pub(crate) async fn upgrade(stream: &mut S) -> Result<(), NotUpgraded> {
        let (mut bridge, mut upgrade) = (Bridge::new(stream), ServerUpgrade::new());
        poll_fn(|cx| {
            bridge.wake(cx);
            progress(upgrade.proceed(&mut bridge), cx)
        })
        .await
    }

    /// The server's side of an upgraded stream.
    pub(crate) fn server(stream: S) -> Self {
        Self(link_websocket::WebSocket::server(Bridge::new(stream)))
    }

    /// The client's side: performs the HTTP upgrade.
    pub(crate) async fn client(stream: S, request: Request) -> Result<Self, NotOpened> {
        let mut upgrade = ClientUpgrade::new(Bridge::new(stream), request)
            .map_err(|error| NotOpened::Refused(error.to_string()))?;
        poll_fn(|cx| {
            if let Some(bridge) = upgrade.stream_mut() {
                bridge.wake(cx);
            }
            progress(upgrade.proceed(), cx)
        })
        .await
        .map(Self)
    }

    /// From here on as much may wait for the peer as the limits allow: it has authenticated.
    pub(crate) fn trust(&mut self, limits: &Limits) {
        // One turn's messages, the longest of them, and room for the protocol's own frames.
        let turn = limits.max_message_size.saturating_add(crate::line::TURN_BYTES);
        self.0.set_max_unsent(turn.saturating_add(2 * WRITE_BATCH));
    }

    /// The next frame, a message having at most `limit` bytes. Pings are answered on the way. Where nothing is there, the task
    /// is woken when something is.
    pub(crate) fn read(&mut self, limit: usize, cx: &mut Context<'_>) -> Incoming {
        self.0.stream_mut().wake(cx);
        self.0.read(limit)
    }

    /// Takes a frame for the next flush. It may already write what does not fit into one batch.
    ///
    /// # Errors
    /// [`CloseReason::SlowPeer`] when too much waits already, [`CloseReason::Lost`] when the stream is broken.
    pub(crate) fn write(&mut self, frame: Frame, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.0.stream_mut().wake(cx);
        self.0.write(frame).map_err(|error| match error {
            WriteError::Full => CloseReason::SlowPeer,
            _ => CloseReason::Lost,
        })
    }

    /// Whether there is anything to flush.
    pub(crate) fn needs_flush(&self) -> bool {
        self.0.needs_flush()
    }

    /// Gives back the room that a burst has taken, if nothing waits.
    pub(crate) fn tidy(&mut self) {
        self.0.tidy();
    }

    /// Writes all that was taken.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.stream_mut().wake(cx);
        match self.0.flush() {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// How many bytes the stream has taken so far: whether a slow peer reads at all.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.0.bytes_written()
    }

    /// Ends the writing, and hands back the messages of which no byte was written, in order.
    pub(crate) fn take_unsent(&mut self) -> Vec<Frame> {
        self.0.take_unsent()
    }

    /// Sends what is left, and sees the transport to its end.
    pub(crate) async fn drain(&mut self) {
        if poll_fn(|cx| self.poll_flush(cx)).await.is_ok() {
            see_off(&mut self.0.stream_mut().stream).await;
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

fn progress<T, E>(progress: Result<Progress<T>, E>, cx: &Context<'_>) -> Poll<Result<T, E>> {
    match progress {
        Ok(Progress::Done(done)) => Poll::Ready(Ok(done)),
        Ok(Progress::Waiting) => Poll::Pending,
        Ok(Progress::Enough) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// An async stream in the shape of a blocking one that would always block rather than wait.
struct Bridge<S> {
    stream: S,
    waker: Waker,
}

impl<S> Bridge<S> {
    fn new(stream: S) -> Self {
        Self { stream, waker: Waker::noop().clone() }
    }

    /// Says whom to wake when the stream has moved.
    fn wake(&mut self, cx: &Context<'_>) {
        self.waker.clone_from(cx.waker());
    }
}

impl<S: AsyncRead + Unpin> Read for Bridge<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(&self.waker);
        or_would_block(Pin::new(&mut self.stream).poll_read(&mut cx, buffer))
    }
}

impl<S: AsyncWrite + Unpin> Write for Bridge<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(&self.waker);
        or_would_block(Pin::new(&mut self.stream).poll_write(&mut cx, buffer))
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
