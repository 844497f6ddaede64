//! What the driver needs of an async runtime, and nothing more.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::LazyLock,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_channel::oneshot;
use futures_io::{AsyncRead, AsyncWrite};
use link_core::{Now, UnixMillis};

/// An async runtime: sockets, tasks, timers and a clock.
///
/// Implement it for a type of your own to run Link there; `link-tokio` is an example of about a hundred lines.
/// Dispatch is static, and nothing on the way of a message is boxed.
pub trait Runtime: Sized + Send + Sync + 'static {
    /// A connected stream of bytes. Sockets have `TCP_NODELAY` set: the driver batches, the kernel need not. Its
    /// `poll_close` ends the sending direction, so that the peer hears of it (`shutdown`, not only a flush).
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A socket that listens.
    type Listener: Send + 'static;
    /// A timer, to be armed again and again.
    type Timer: Timer;

    /// Whether its connections are WebSockets of async-tungstenite, rather than Link's own: see
    /// `OnAsyncTungstenite`, behind the feature `async-tungstenite`. Without that it means nothing.
    const ASYNC_TUNGSTENITE: bool = false;

    /// Opens a connection to a host, by name or IP address.
    fn connect(host: &str, port: u16) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The addresses of a host, by name or IP address. The client asks for them when a SOCKS5 proxy is to be told an address.
    /// Unless a runtime does better, a thread of its own asks the system, and ends when that has answered.
    fn resolve(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        let host = host.to_owned();
        async move {
            let (sender, resolved) = oneshot::channel();
            thread::Builder::new().name("link-resolve".into()).spawn(move || {
                let addresses = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
                // Whoever asked may have lost patience.
                let _ = sender.send(addresses);
            })?;
            resolved
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the resolver has ended without an answer")))
        }
    }

    /// Listens at an address; port 0 asks the system for a free one.
    fn bind(address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Where a listener listens.
    ///
    /// # Errors
    /// As the system's call.
    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// The next connection, and where it comes from. Dropping the future loses none.
    ///
    /// An error is one of the listener, and the server waits for a moment before it tries again. A connection on which
    /// `TCP_NODELAY` cannot be set, since its peer has reset it, is no error.
    fn accept(
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Starts a task that nobody waits for.
    fn spawn(task: impl Future<Output = ()> + Send + 'static);

    /// A timer that is not armed.
    fn timer() -> Self::Timer;

    /// The monotonic clock that the timers follow.
    fn now() -> Instant {
        Instant::now()
    }
}

/// A timer that can be armed again: a future that is ready once its deadline has passed. Polled while it is not
/// armed, or again after it was ready, it is pending.
pub trait Timer: Future<Output = ()> + Send + 'static {
    /// Sets the deadline, in place of an earlier one.
    fn arm(self: Pin<&mut Self>, deadline: Instant);
}

/// Where the core's monotonic clock begins in this process: well before any runtime's clock can be. A test's paused clock stands
/// where it was paused, or runs ahead, and must not decide where that of another runtime begins.
static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
    const HOUR: Duration = Duration::from_secs(3600);
    let now = Instant::now();
    // A system's clock may begin when it was started, and not reach back any further.
    [1000 * HOUR, HOUR].into_iter().find_map(|before| now.checked_sub(before)).unwrap_or(now)
});

/// What both clocks say.
pub(crate) fn now<R: Runtime>() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: link_core::Instant::from_origin(R::now().saturating_duration_since(*ORIGIN)),
        wall: UnixMillis::saturating(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Arms a timer for a point on the core's clock. A point beyond the system's clock is never.
pub(crate) fn arm<R: Runtime>(timer: Pin<&mut R::Timer>, deadline: link_core::Instant) {
    if let Some(deadline) = ORIGIN.checked_add(deadline.since_origin()) {
        timer.arm(deadline);
    }
}

/// Waits for a point on the core's clock.
pub(crate) async fn sleep_until<R: Runtime>(deadline: link_core::Instant) {
    let mut timer = std::pin::pin!(R::timer());
    arm::<R>(timer.as_mut(), deadline);
    timer.await;
}
