//! A WebSocket over any async stream: `link-websocket`, driven by one task.
//!
//! This stands where async-tungstenite would, for two reasons. The limit on a message has to rise when its
//! sender is authenticated, and async-tungstenite 0.35 does not let the configuration change; and since one task
//! owns both directions here, one waker serves where its split halves need four.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::AsyncWriteExt;
use link_core::{Config, Frame, Incoming};
use link_websocket::{
    ClientUpgrade, NotOpened, NotUpgraded, Progress, Request, ServerUpgrade, WRITE_BATCH, WriteError,
};

use crate::transport::{StartSendError, Transport};

/// An open WebSocket of Link's own.
pub(crate) struct WebSocket<S> {
    inner: link_websocket::WebSocket<Bridge<S>>,
    /// Our direction has been ended.
    ended: bool,
}

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
        Self { inner: link_websocket::WebSocket::server(Bridge::new(stream)), ended: false }
    }

    /// The client's side: performs the HTTP upgrade.
    pub(crate) async fn client(stream: S, request: Request) -> Result<Self, NotOpened> {
        let mut upgrade = ClientUpgrade::new(Bridge::new(stream), request)
            .map_err(|error| NotOpened::Refused(error.to_string()))?;
        let inner = poll_fn(|cx| {
            if let Some(bridge) = upgrade.stream_mut() {
                bridge.wake(cx);
            }
            progress(upgrade.proceed(), cx)
        })
        .await?;
        Ok(Self { inner, ended: false })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for WebSocket<S> {
    fn poll_frame(&mut self, limit: usize, cx: &mut Context<'_>) -> Incoming {
        self.inner.stream_mut().wake(cx);
        self.inner.read(limit)
    }

    fn start_send(&mut self, frame: Frame, cx: &mut Context<'_>) -> Result<(), StartSendError> {
        self.inner.stream_mut().wake(cx);
        self.inner.write(frame).map_err(|error| match error {
            WriteError::Full(frame) => StartSendError::Full(frame),
            _ => StartSendError::Broken,
        })
    }

    fn needs_flush(&self) -> bool {
        self.inner.needs_flush()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.stream_mut().wake(cx);
        match self.inner.flush() {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_end(&mut self.inner.stream_mut().stream, &mut self.ended, cx)
    }

    fn progress(&self) -> u64 {
        self.inner.bytes_written()
    }

    fn authenticated(&mut self, config: &Config) {
        // One turn's messages, the longest of them, and room for the protocol's own frames.
        let turn = config.max_message_size.saturating_add(config.max_turn_bytes);
        self.inner.set_max_unsent(turn.saturating_add(2 * WRITE_BATCH));
    }

    fn release_spare_room(&mut self) {
        self.inner.tidy();
    }

    fn take_unsent(&mut self) -> Vec<Frame> {
        self.inner.take_unsent()
    }
}

/// Answers in plain HTTP on a stream that did not become a WebSocket, and sees it to its end.
pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &str) {
    if stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {
        let mut ended = false;
        poll_fn(|cx| poll_end(stream, &mut ended, cx)).await;
    }
}

/// Ends our direction, then reads and drops what still comes until the peer has ended its own. Without that the
/// system would answer unread bytes with a reset, and the reset may overtake our last words.
pub(crate) fn poll_end<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ended: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if !*ended {
        if ready!(Pin::new(&mut *stream).poll_close(cx)).is_err() {
            return Poll::Ready(());
        }
        *ended = true;
    }
    let mut waste = [0; 1024];
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
