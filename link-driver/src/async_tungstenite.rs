//! WebSockets of async-tungstenite in the place of Link's own: what a program has that has them already, and the measure of
//! what the default does better.

use std::{
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use async_tungstenite::{WebSocketStream, client_async_with_config};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Sink;
use link_core::{Config, Frame, Incoming, Violation};
use link_websocket::{Detach, NotOpened, Request, WRITE_BATCH};
use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig},
};

use crate::{
    runtime::Runtime,
    socket::poll_end,
    transport::{StartSendError, Transport},
};

/// Bytes that are read for one frame, before others have their turn.
const RATION: usize = 128 << 10;

/// A runtime whose connections are WebSockets of async-tungstenite, in both roles.
///
/// What they cannot promise is said by [`AsyncTungstenite`]. `docs/performance.md` has the figures.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnAsyncTungstenite<R>(PhantomData<R>);

impl<R: Runtime> Runtime for OnAsyncTungstenite<R> {
    type Stream = R::Stream;
    type Listener = R::Listener;
    type Timer = R::Timer;

    const ASYNC_TUNGSTENITE: bool = true;

    fn connect(host: &str, port: u16) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        R::connect(host, port)
    }

    fn resolve(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        R::resolve(host, port)
    }

    fn bind(address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send {
        R::bind(address)
    }

    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr> {
        R::local_address(listener)
    }

    fn accept(
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send {
        R::accept(listener)
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        R::spawn(task);
    }

    fn timer() -> Self::Timer {
        R::timer()
    }

    fn now() -> Instant {
        R::now()
    }
}

/// An open [`WebSocketStream`], as a [`Transport`].
///
/// What it cannot promise: its limit on a message cannot change, so that a stranger may send as long a one as a peer who is
/// known before it is found too long; of what it was given, nothing comes back as unsent; and the room that its longest message took
/// is kept for the next one.
pub struct AsyncTungstenite<S> {
    inner: WebSocketStream<Metered<S>>,
    /// Whether there may be something to flush.
    dirty: bool,
    /// Our direction has been ended.
    ended: bool,
    detach: Detach,
}

impl<S> std::fmt::Debug for AsyncTungstenite<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncTungstenite").field("dirty", &self.dirty).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncTungstenite<S> {
    /// The server's side of a stream that has been upgraded.
    pub(crate) async fn server(stream: S, config: &Config) -> Self {
        let stream = Metered::new(stream);
        Self::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(options(config))).await)
    }

    /// The client's side: performs the HTTP upgrade.
    pub(crate) async fn client(stream: S, request: Request, config: &Config) -> Result<Self, NotOpened> {
        let stream = Metered::new(stream);
        match client_async_with_config(request, stream, Some(options(config))).await {
            Ok((inner, _)) => Ok(Self::new(inner)),
            Err(error) => Err(error.into()),
        }
    }

    fn new(inner: WebSocketStream<Metered<S>>) -> Self {
        Self { inner, dirty: false, ended: false, detach: Detach::default() }
    }
}

fn options(config: &Config) -> WebSocketConfig {
    let turn = config.max_turn_bytes.saturating_add(config.max_message_size);
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(WRITE_BATCH)
        .max_write_buffer_size(turn.saturating_add(4 * WRITE_BATCH))
        .max_message_size(Some(config.max_message_size))
        .max_frame_size(Some(config.max_message_size))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for AsyncTungstenite<S> {
    fn poll_frame(&mut self, limit: usize, cx: &mut Context<'_>) -> Incoming {
        self.inner.get_mut().ration = RATION;
        let Poll::Ready(read) = Pin::new(&mut self.inner).poll_next(cx) else {
            return match self.inner.get_ref().ration {
                0 => Incoming::Enough,
                _ => Incoming::Nothing,
            };
        };
        let Some(read) = read else { return Incoming::Ended };
        self.dirty |= matches!(read, Ok(Message::Ping(_) | Message::Close(_)));
        match link_websocket::incoming(read) {
            Incoming::Frame(frame @ (Frame::Text(_) | Frame::Binary(_))) if frame.payload_len() > limit => {
                Incoming::Violation(Violation::MessageTooLarge { limit })
            }
            Incoming::Frame(frame) => Incoming::Frame(self.detach.frame(frame)),
            Incoming::Nothing => Incoming::Ended,
            incoming => incoming,
        }
    }

    fn start_send(&mut self, frame: Frame, cx: &mut Context<'_>) -> Result<(), StartSendError> {
        self.dirty = true;
        // It takes what fits, whether or not it has written what came before.
        let _ = Pin::new(&mut self.inner).poll_ready(cx);
        match Pin::new(&mut self.inner).start_send(link_websocket::outgoing(frame.clone())) {
            Ok(()) => Ok(()),
            Err(Error::WriteBufferFull(_)) => Err(StartSendError::Full(frame)),
            // A close frame was exchanged already: nobody listens to this one.
            Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => Ok(()),
            Err(_) => Err(StartSendError::Broken),
        }
    }

    fn needs_flush(&self) -> bool {
        self.dirty
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match ready!(Pin::new(&mut self.inner).poll_flush(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
            Err(Error::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        };
        self.dirty = false;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_end(&mut self.inner.get_mut().stream, &mut self.ended, cx)
    }

    fn progress(&self) -> u64 {
        self.inner.get_ref().written
    }
}

/// A stream that counts what it has taken, and gives no more at a time than its ration.
#[derive(Debug)]
struct Metered<S> {
    stream: S,
    written: u64,
    /// How many bytes may be read until it is renewed: tungstenite would join fragments for as long as there are any.
    ration: usize,
}

impl<S> Metered<S> {
    const fn new(stream: S) -> Self {
        Self { stream, written: 0, ration: usize::MAX }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = buffer.len().min(self.ration);
        if most == 0 && !buffer.is_empty() {
            // Whoever renews it asks again.
            return Poll::Pending;
        }
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.ration = self.ration.saturating_sub(read);
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written = self.written.wrapping_add(taken as u64);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
