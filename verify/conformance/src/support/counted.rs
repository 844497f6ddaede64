//! A runtime that counts what lives on it, and can stop its tasks between any two of their polls.

use std::{
    any::TypeId,
    collections::HashMap,
    fmt,
    future::{Future, pending, poll_fn},
    io,
    marker::PhantomData,
    net::SocketAddr,
    panic::Location,
    pin::{Pin, pin},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::{Either, select};
use link_driver::{Runtime, Timer};

use super::{A_WHILE, PATIENCE, Soon, pause, within};

/// The runtime `R`, counting. `Tag` is a type of each test's own, since tests run at the same time: see [`counted`].
pub(crate) struct Counted<R, Tag>(PhantomData<fn() -> (R, Tag)>);

/// Names a counting runtime that nobody else uses: `counted!(C)`, and then `C<R>`. Two in one test need a tag each.
macro_rules! counted {
    ($name:ident) => {
        $crate::support::counted::counted!($name, Tag);
    };
    ($name:ident, $tag:ident) => {
        enum $tag {}
        type $name<R> = $crate::support::counted::Counted<R, $tag>;
    };
}
pub(crate) use counted;

/// How many are alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) tasks: usize,
    pub(crate) streams: usize,
    pub(crate) listeners: usize,
    pub(crate) timers: usize,
}

/// How often something was done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// Of tasks.
    pub(crate) polls: usize,
    /// Of timers.
    pub(crate) arms: usize,
}

impl std::ops::Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { polls: self.polls - before.polls, arms: self.arms - before.arms }
    }
}

#[derive(Default)]
struct Counts {
    tasks: AtomicUsize,
    streams: AtomicUsize,
    listeners: AtomicUsize,
    timers: AtomicUsize,
    polls: AtomicUsize,
    arms: AtomicUsize,
    dials_hang: AtomicBool,
    /// What every name resolves to, where the test says so.
    addresses: Mutex<Option<Vec<SocketAddr>>>,
    /// By how many milliseconds the clock is ahead.
    ahead: AtomicU64,
    gate: Mutex<Gate>,
}

/// Where tasks are stopped.
#[derive(Default)]
struct Gate {
    /// How often tasks may be polled until then; `None` while it is open.
    left: Option<usize>,
    stopped: Vec<Waker>,
    watcher: Option<Waker>,
}

impl<R: Runtime, Tag: 'static> Counted<R, Tag> {
    pub(crate) fn alive() -> Alive {
        let counts = Self::counts();
        Alive {
            tasks: counts.tasks.load(SeqCst),
            streams: counts.streams.load(SeqCst),
            listeners: counts.listeners.load(SeqCst),
            timers: counts.timers.load(SeqCst),
        }
    }

    /// Waits until exactly so many are alive.
    #[track_caller]
    pub(crate) fn reaches(expected: Alive) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let reached = async {
                while Self::alive() != expected {
                    pause::<R>(Duration::from_millis(2)).await;
                }
            };
            if within::<R, _>(PATIENCE, reached).await.is_none() {
                panic!("expected {expected:?}, and there stay {:?}, at {caller}", Self::alive());
            }
        }
    }

    /// Waits until no socket is alive any more, whatever else is.
    pub(crate) async fn has_no_streams() {
        let gone = async {
            while Self::alive().streams > 0 {
                pause::<R>(Duration::from_millis(2)).await;
            }
        };
        gone.soon::<R>().await;
    }

    /// Waits until nothing is alive any more.
    #[track_caller]
    pub(crate) fn is_empty() -> impl Future<Output = ()> {
        Self::reaches(Alive::default())
    }

    /// What was done so far.
    pub(crate) fn work() -> Work {
        let counts = Self::counts();
        Work { polls: counts.polls.load(SeqCst), arms: counts.arms.load(SeqCst) }
    }

    /// From here on, every name resolves to these.
    pub(crate) fn resolves_to(addresses: Vec<SocketAddr>) {
        *Self::counts().addresses.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
    }

    /// From here on, dialling never comes to an end.
    pub(crate) fn let_dials_hang() {
        Self::counts().dials_hang.store(true, SeqCst);
    }

    /// Puts the clock forward. A timer that is armed already notices nothing.
    pub(crate) fn put_forward(by: Duration) {
        Self::counts().ahead.fetch_add(u64::try_from(by.as_millis()).expect("not that long"), SeqCst);
    }

    /// From here on, tasks are polled so often, all taken together, and then not at all until [`go_on`](Self::go_on).
    pub(crate) fn stop_after(polls: usize) {
        Self::counts().gate().left = Some(polls);
    }

    /// Ready once a task was stopped that had more to do.
    pub(crate) async fn stopped() {
        poll_fn(|cx| {
            let mut gate = Self::counts().gate();
            match gate.stopped.is_empty() {
                false => Poll::Ready(()),
                true => {
                    gate.watcher = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    pub(crate) fn go_on() {
        let mut gate = Self::counts().gate();
        let Gate { stopped, .. } = std::mem::take(&mut *gate);
        drop(gate);
        stopped.into_iter().for_each(Waker::wake);
    }

    /// Lives a life again and again, and drops it after its tasks' first poll, its second, and so on until it was
    /// lived to its end: each time nothing may stay behind. Says how many polls that took.
    pub(crate) async fn dropped_after_each_poll<L: Future<Output = ()>>(
        mut life: impl FnMut() -> L,
    ) -> usize {
        for polls in 0.. {
            Self::stop_after(polls);
            // With the statement's end, the life is dropped.
            let whole =
                matches!(select(pin!(life()), pin!(Self::stopped())).soon::<R>().await, Either::Left(_));
            Self::go_on();
            Self::is_empty().await;
            if whole {
                return polls;
            }
        }
        unreachable!("a life has an end")
    }

    /// Waits until no task is polled for a moment.
    pub(crate) async fn quiet() {
        let settled = async {
            let mut before = Self::work();
            loop {
                pause::<R>(A_WHILE / 3).await;
                let now = Self::work();
                if std::mem::replace(&mut before, now) == now {
                    break;
                }
            }
        };
        settled.soon::<R>().await;
    }

    /// Those of this runtime and tag.
    fn counts() -> &'static Counts {
        static ALL: Mutex<Option<HashMap<TypeId, &'static Counts>>> = Mutex::new(None);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default()
            .entry(TypeId::of::<Self>())
            .or_insert_with(|| Box::leak(Box::new(Counts::default())))
    }
}

impl Counts {
    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead.load(SeqCst))
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task may be polled now. If not, it is woken when it may.
    fn pass(&self, cx: &Context<'_>) -> bool {
        let mut gate = self.gate();
        match &mut gate.left {
            None => true,
            Some(0) => {
                gate.stopped.push(cx.waker().clone());
                if let Some(watcher) = gate.watcher.take() {
                    watcher.wake();
                }
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// One of those that a gauge counts.
struct One(&'static AtomicUsize);

impl One {
    fn of(gauge: &'static AtomicUsize) -> Self {
        gauge.fetch_add(1, SeqCst);
        Self(gauge)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl<R: Runtime, Tag: 'static> Runtime for Counted<R, Tag> {
    type Stream = CountedStream<R::Stream>;
    type Listener = CountedListener<R::Listener>;
    type Timer = CountedTimer<R::Timer>;

    async fn connect(host: &str, port: u16) -> io::Result<Self::Stream> {
        if Self::counts().dials_hang.load(SeqCst) {
            pending::<()>().await;
        }
        R::connect(host, port).await.map(|inner| CountedStream::new(inner, Self::counts()))
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = Self::counts().addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match addresses {
            Some(addresses) => Ok(addresses),
            None => R::resolve(host, port).await,
        }
    }

    async fn bind(address: SocketAddr) -> io::Result<Self::Listener> {
        let inner = R::bind(address).await?;
        Ok(CountedListener { inner, counts: Self::counts(), _one: One::of(&Self::counts().listeners) })
    }

    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr> {
        R::local_address(&listener.inner)
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        let (inner, remote_address) = R::accept(&mut listener.inner).await?;
        Ok((CountedStream::new(inner, listener.counts), remote_address))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        let counts = Self::counts();
        let one = One::of(&counts.tasks);
        R::spawn(async move {
            // Counted until everything that it holds is gone.
            let _one = one;
            let mut task = pin!(task);
            poll_fn(|cx| {
                if !counts.pass(cx) {
                    return Poll::Pending;
                }
                counts.polls.fetch_add(1, SeqCst);
                task.as_mut().poll(cx)
            })
            .await;
        });
    }

    fn timer() -> Self::Timer {
        let counts = Self::counts();
        CountedTimer { inner: Box::pin(R::timer()), counts, _one: One::of(&counts.timers) }
    }

    fn now() -> Instant {
        R::now() + Self::counts().ahead()
    }
}

pub(crate) struct CountedStream<S> {
    inner: S,
    _one: One,
}

impl<S> CountedStream<S> {
    fn new(inner: S, counts: &'static Counts) -> Self {
        Self { inner, _one: One::of(&counts.streams) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

pub(crate) struct CountedListener<L> {
    inner: L,
    counts: &'static Counts,
    _one: One,
}

pub(crate) struct CountedTimer<T> {
    inner: Pin<Box<T>>,
    counts: &'static Counts,
    _one: One,
}

impl<T: Timer> Timer for CountedTimer<T> {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.counts.arms.fetch_add(1, SeqCst);
        let deadline = deadline - self.counts.ahead();
        self.inner.as_mut().arm(deadline);
    }
}

impl<T: Timer> Future for CountedTimer<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.as_mut().poll(cx)
    }
}

impl<R, Tag> fmt::Debug for Counted<R, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}
