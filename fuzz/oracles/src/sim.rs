//! A runtime for `link-driver` that is this thread alone: its tasks run when they are told to, its clock moves when it is
//! told to, and its streams are queues in memory that behave as they are told.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures_io::{AsyncRead, AsyncWrite};
use link_driver::{Runtime, Server};

use crate::wire::Pace;

/// This thread, as a runtime.
pub(crate) enum Sim {}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where every world's clock begins. The driver's own begins where it first looks.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

struct World {
    now: Instant,
    tasks: BTreeMap<u64, Task>,
    /// Numbers that were given out, to tasks and timers.
    numbers: u64,
    ready: Arc<Mutex<VecDeque<u64>>>,
    timers: BTreeMap<(Instant, u64), Waker>,
    spawned: Vec<Task>,
}

impl World {
    fn new() -> Self {
        Self {
            now: *BEGIN,
            tasks: BTreeMap::new(),
            numbers: 0,
            ready: Arc::default(),
            timers: BTreeMap::new(),
            spawned: vec![],
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

fn with<T>(work: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with(|world| work(&mut world.borrow_mut()))
}

struct Ready {
    task: u64,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap();
        if !ready.contains(&self.task) {
            ready.push_back(self.task);
        }
    }
}

impl Sim {
    /// A new world, without a task.
    pub(crate) fn begin() {
        // Whoever comes first sets the driver's clock: a server of no meaning, and not one whose time has passed.
        static CLOCK: LazyLock<()> = LazyLock::new(|| {
            let server = Server::<Sim>::builder().private_key("1").start().unwrap();
            let (stream, _) = Stream::pair(Behaviour::default(), Behaviour::default());
            server.handle().attach(stream, SocketAddr::from(([192, 0, 2, 1], 1))).unwrap();
        });
        let (tasks, spawned) = with(|world| {
            let World { tasks, spawned, .. } = std::mem::replace(world, World::new());
            (tasks, spawned)
        });
        drop((tasks, spawned));
        LazyLock::force(&CLOCK);
        let old = with(|world| std::mem::replace(world, World::new()));
        drop((old.tasks, old.spawned));
    }

    /// Runs what is ready, until nothing is. Says how many polls that took, at most `patience`.
    pub(crate) fn run(patience: usize) -> usize {
        for polls in 0..=patience {
            let next = with(|world| {
                for task in std::mem::take(&mut world.spawned) {
                    let number = world.number();
                    world.tasks.insert(number, task);
                    world.ready.lock().unwrap().push_back(number);
                }
                let ready = world.ready.clone();
                loop {
                    let number = ready.lock().unwrap().pop_front()?;
                    // It may have ended by now.
                    if let Some(task) = world.tasks.remove(&number) {
                        return Some((number, task, Waker::from(Arc::new(Ready { task: number, ready }))));
                    }
                }
            });
            let Some((number, mut task, waker)) = next else { return polls };
            match task.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(()) => drop(task),
                Poll::Pending => with(|world| drop(world.tasks.insert(number, task))),
            }
        }
        panic!("a busy loop: {patience} polls, and there is more to do");
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    pub(crate) fn pass(by: Duration, patience: usize) {
        let until = with(|world| world.now + by);
        for _ in 0..patience {
            let due = with(|world| {
                let ((due, number), _) = world.timers.first_key_value()?;
                let key = (*due, *number);
                if key.0 > until {
                    return None;
                }
                world.now = world.now.max(key.0);
                world.timers.remove(&key)
            });
            match due {
                Some(waker) => waker.wake(),
                None => {
                    with(|world| world.now = until);
                    return;
                }
            }
            Self::run(patience);
        }
        panic!("time does not pass: {patience} timers within {by:?}");
    }

    /// Tasks that have not ended.
    pub(crate) fn tasks() -> usize {
        with(|world| world.tasks.len() + world.spawned.len())
    }
}

impl Runtime for Sim {
    type Stream = Stream;
    type Listener = Listener;
    type Timer = Timer;

    async fn connect(_: &str, _: u16) -> io::Result<Stream> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    async fn bind(_: SocketAddr) -> io::Result<Listener> {
        Err(ErrorKind::AddrNotAvailable.into())
    }

    fn local_address(_: &Listener) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([192, 0, 2, 1], 3793)))
    }

    async fn accept(listener: &mut Listener) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|cx| {
            let mut queue = listener.0.lock().unwrap();
            match queue.waiting.pop_front() {
                Some(arrival) => Poll::Ready(Ok(arrival)),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        with(|world| world.spawned.push(Box::pin(task)));
    }

    fn timer() -> Timer {
        Timer { number: with(World::number), deadline: None }
    }

    fn now() -> Instant {
        with(|world| world.now)
    }
}

/// Connections that wait to be accepted.
#[derive(Clone, Default)]
pub(crate) struct Listener(Arc<Mutex<Arrivals>>);

#[derive(Default)]
struct Arrivals {
    waiting: VecDeque<(Stream, SocketAddr)>,
    waker: Option<Waker>,
}

impl Listener {
    pub(crate) fn push(&self, stream: Stream, from: SocketAddr) {
        let mut queue = self.0.lock().unwrap();
        queue.waiting.push_back((stream, from));
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

/// A timer of the world.
pub(crate) struct Timer {
    number: u64,
    deadline: Option<Instant>,
}

impl link_driver::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.disarm();
        self.deadline = Some(deadline);
    }
}

impl Timer {
    fn disarm(&mut self) {
        if let Some(deadline) = self.deadline.take() {
            with(|world| drop(world.timers.remove(&(deadline, self.number))));
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if with(|world| world.now) >= deadline {
            self.disarm();
            return Poll::Ready(());
        }
        with(|world| world.timers.insert((deadline, self.number), cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(deadline) = self.deadline.take() {
            // Not when it is a whole world that ends, in which it is borrowed.
            let _ = WORLD.try_with(|world| {
                if let Ok(mut world) = world.try_borrow_mut() {
                    world.timers.remove(&(deadline, self.number));
                }
            });
        }
    }
}

/// How one direction of a stream behaves.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) reading: Pace,
    pub(crate) writing: Pace,
    /// Bytes that it holds.
    pub(crate) capacity: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { reading: Pace::whole(), writing: Pace::whole(), capacity: usize::MAX }
    }
}

struct Way {
    bytes: VecDeque<u8>,
    behaviour: Behaviour,
    /// Nothing follows.
    ended: bool,
    /// Nobody reads any more.
    deaf: bool,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn new(behaviour: Behaviour) -> Arc<Mutex<Self>> {
        let (bytes, ended, deaf, broken) = (VecDeque::new(), false, false, false);
        Arc::new(Mutex::new(Self { bytes, behaviour, ended, deaf, broken, reader: None, writer: None }))
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// One end of a stream.
pub(crate) struct Stream {
    from: Arc<Mutex<Way>>,
    to: Arc<Mutex<Way>>,
}

impl Stream {
    /// Two ends, and how each direction behaves: from the first to the second, and back.
    pub(crate) fn pair(there: Behaviour, back: Behaviour) -> (Self, Self) {
        let (there, back) = (Way::new(there), Way::new(back));
        (Self { from: back.clone(), to: there.clone() }, Self { from: there, to: back })
    }

    /// Says so much at once, whatever the behaviour.
    pub(crate) fn say(&self, bytes: &[u8]) {
        let mut to = self.to.lock().unwrap();
        if !to.ended && !to.broken {
            to.bytes.extend(bytes);
            to.wake();
        }
    }

    /// Takes up to so many bytes of what has come.
    pub(crate) fn take(&self, most: usize) -> Vec<u8> {
        let mut from = self.from.lock().unwrap();
        let length = most.min(from.bytes.len());
        let taken = from.bytes.drain(..length).collect();
        from.wake();
        taken
    }

    /// Ends the direction from here.
    pub(crate) fn end(&self) {
        let mut to = self.to.lock().unwrap();
        to.ended = true;
        to.wake();
    }

    /// Cuts both directions.
    pub(crate) fn cut(&self) {
        self.cutter()();
    }

    /// Cuts them from afar.
    pub(crate) fn cutter(&self) -> impl Fn() + 'static {
        let ways = [self.from.clone(), self.to.clone()];
        move || {
            for way in &ways {
                let mut way = way.lock().unwrap();
                way.broken = true;
                way.wake();
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let from = &mut *self.from.lock().unwrap();
        if from.broken {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let there = from.bytes.len().min(buffer.len());
        if there == 0 {
            if from.ended {
                return Poll::Ready(Ok(0));
            }
            from.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Ok(length) = from.behaviour.reading.step(there) else {
            // Not now, but soon.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        for (slot, byte) in buffer.iter_mut().zip(from.bytes.drain(..length)) {
            *slot = byte;
        }
        if let Some(writer) = from.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let to = &mut *self.to.lock().unwrap();
        if to.broken || to.ended || to.deaf {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = to.behaviour.capacity.saturating_sub(to.bytes.len());
        if room == 0 {
            to.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Ok(length) = to.behaviour.writing.step(bytes.len().min(room)) else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        to.bytes.extend(&bytes[..length]);
        if let Some(reader) = to.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let to = self.to.lock().unwrap();
        Poll::Ready(if to.broken { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) })
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
        let mut from = self.from.lock().unwrap();
        from.deaf = true;
        from.wake();
    }
}
