//! The way of an event from the connections to the program: bounded in number and in bytes, and felt by the connections
//! when it is full.
//!
//! A connection puts down what its turn has brought by one lock, and never waits for that; one that finds the queue full does
//! not read. The program takes all that is there by one lock. The bytes are each connection's own bound: of messages that
//! were read and not yet taken, so that no peer can fill the memory by sending long ones.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;

/// The default number of events that may wait for the program.
pub const DEFAULT_EVENT_CAPACITY: usize = 1024;
/// The largest number that may wait.
const MAX_CAPACITY: usize = 1 << 16;
/// Bytes of one connection's messages that may wait for the program, and one message more.
const MAX_BYTES: usize = 1 << 20;
/// A message up to this length is not counted in bytes: the bound on their number is enough.
const SMALL: usize = 1 << 10;

/// A queue for `capacity` events, from one to [`MAX_CAPACITY`], and for one turn's more of each connection.
pub(crate) fn channel<T>(capacity: usize) -> (EventSender<T>, Events<T>) {
    let shared = Arc::new(Shared {
        capacity: capacity.clamp(1, MAX_CAPACITY),
        waiting: AtomicUsize::new(0),
        lined_up: AtomicUsize::new(0),
        queue: Mutex::new(Queue::default()),
    });
    let events = Events { taken: VecDeque::new(), shared: shared.clone() };
    (EventSender(Arc::new(Sending(shared))), events)
}

struct Shared<T> {
    capacity: usize,
    /// Events that wait for the program, those included that it has taken and not looked at.
    waiting: AtomicUsize,
    /// How many wait for room, so that nobody takes the lock to find none.
    lined_up: AtomicUsize,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    events: VecDeque<Queued<T>>,
    /// The program, where it waits for an event.
    reader: Option<Waker>,
    /// Who waits for room, first come, first served.
    writers: BTreeMap<u64, Waker>,
    next_ticket: u64,
    /// Nobody puts anything down any more.
    ended: bool,
    /// Nobody takes anything any more.
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            reader: None,
            writers: BTreeMap::new(),
            next_ticket: 0,
            ended: false,
            closed: false,
        }
    }
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more wait than may.
    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > self.capacity
    }

    fn put_down(&self, events: impl IntoIterator<Item = Queued<T>>) {
        let mut queue = self.queue();
        if queue.closed {
            // Nobody will ever ask for it. (It is dropped without the lock.)
            drop(queue);
            return;
        }
        let before = queue.events.len();
        queue.events.extend(events);
        self.waiting.fetch_add(queue.events.len().saturating_sub(before), Ordering::AcqRel);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The program has taken one. Half empty, there is room for some that wait for it.
    fn took(&self) {
        let left = self.waiting.fetch_sub(1, Ordering::AcqRel).saturating_sub(1);
        if left <= self.capacity / 2 {
            self.let_in(self.capacity.saturating_sub(left).saturating_add(1));
        }
    }

    /// Wakes so many of those who wait for room.
    fn let_in(&self, many: usize) {
        // Whoever gets in line a moment later has found the queue full: there is more to be taken, and somebody looks again.
        if self.lined_up.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut queue = self.queue();
        let mut woken = mem::take(&mut queue.writers);
        if let Some(ticket) = woken.keys().nth(many).copied() {
            queue.writers = woken.split_off(&ticket);
        }
        self.lined_up.store(queue.writers.len(), Ordering::Release);
        drop(queue);
        woken.into_values().for_each(Waker::wake);
    }
}

/// Where connections get their queues from.
pub(crate) struct EventSender<T>(Arc<Sending<T>>);

/// As long as it lives, something may come.
struct Sending<T>(Arc<Shared<T>>);

impl<T> Drop for Sending<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.ended = true;
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> EventSender<T> {
    /// A queue for one connection.
    pub(crate) fn queue(&self) -> EventQueue<T> {
        EventQueue { sending: self.0.clone(), events: VecDeque::new(), ticket: None, load: None }
    }

    /// Whether the program is behind.
    pub(crate) fn is_full(&self) -> bool {
        self.0.0.is_full()
    }
}

impl<T> Clone for EventSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The program's end.
pub(crate) struct Events<T> {
    /// Taken from the queue, and not looked at yet.
    taken: VecDeque<Queued<T>>,
    shared: Arc<Shared<T>>,
}

impl<T> Events<T> {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.taken.is_empty() {
            let mut queue = self.shared.queue();
            mem::swap(&mut self.taken, &mut queue.events);
            if self.taken.is_empty() {
                if queue.ended {
                    return Poll::Ready(None);
                }
                if queue.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                    let replaced = queue.reader.replace(cx.waker().clone());
                    drop(queue);
                    drop(replaced);
                } else {
                    drop(queue);
                }
                // Whoever was let in, and had nothing to put down, may have kept others waiting.
                self.shared.let_in(usize::MAX);
                return Poll::Pending;
            }
        }
        let next = self.taken.pop_front();
        self.shared.took();
        Poll::Ready(next.map(|Queued { event, .. }| event))
    }
}

/// What waits for nobody is dropped at once, and nobody waits for room any more.
impl<T> Drop for Events<T> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        let events = mem::take(&mut queue.events);
        let reader = queue.reader.take();
        drop(queue);
        drop((events, reader));
        self.shared.waiting.store(0, Ordering::Release);
        self.shared.let_in(usize::MAX);
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// A connection's end.
pub(crate) struct EventQueue<T> {
    sending: Arc<Sending<T>>,
    /// What this turn has brought.
    events: VecDeque<Queued<T>>,
    /// Its place among those who wait for room.
    ticket: Option<u64>,
    /// Once it has had a message that is counted in bytes.
    load: Option<Arc<Load>>,
}

/// An event, and what it weighs until the program takes it.
struct Queued<T> {
    event: T,
    _weight: Option<Weight>,
}

struct Weight {
    bytes: usize,
    load: Arc<Load>,
}

/// What one connection has in the queue.
#[derive(Default)]
struct Load {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

impl<T> EventQueue<T> {
    /// Takes an event that holds no message, for the end of the turn.
    pub(crate) fn push(&mut self, event: T) {
        self.events.push_back(Queued { event, _weight: None });
    }

    /// Takes an event that holds a message of so many bytes, for the end of the turn.
    pub(crate) fn push_weighing(&mut self, event: T, bytes: usize) {
        let weight = (bytes > SMALL).then(|| {
            let load = self.load.get_or_insert_default().clone();
            load.bytes.fetch_add(bytes, Ordering::Relaxed);
            Weight { bytes, load }
        });
        self.events.push_back(Queued { event, _weight: weight });
    }

    /// Takes an event that may be missed when the program is behind, for the end of the turn.
    pub(crate) fn push_if_ready(&mut self, event: T) {
        if !self.sending.0.is_full() {
            self.push(event);
        }
    }

    /// Hands over what the turn has brought.
    pub(crate) fn hand_over(&mut self) {
        if !self.events.is_empty() {
            self.sending.0.put_down(self.events.drain(..));
        }
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn release_spare_room(&mut self) {
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// Hands over an event at once.
    pub(crate) fn tell(&mut self, event: T) {
        self.push(event);
        self.hand_over();
    }

    /// Hands over an event at once, if the program is not behind.
    pub(crate) fn tell_if_ready(&mut self, event: T) {
        self.push_if_ready(event);
        self.hand_over();
    }

    /// Ready while the program is not behind, neither with all events nor with the bytes of this queue's.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sending.0.is_full() && self.waits_for_room(cx) {
            return Poll::Pending;
        }
        let Some(load) = &self.load else { return Poll::Ready(()) };
        if load.bytes.load(Ordering::Acquire) < MAX_BYTES {
            return Poll::Ready(());
        }
        load.waker.register(cx.waker());
        // The program may have taken some in between.
        match load.bytes.load(Ordering::Acquire) < MAX_BYTES {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Gets in line, unless there is room by now.
    fn waits_for_room(&mut self, cx: &Context<'_>) -> bool {
        let shared = &self.sending.0;
        let mut queue = shared.queue();
        // Whoever takes one looks for those who wait, and has counted it before that.
        if queue.closed || !shared.is_full() {
            return false;
        }
        let ticket = match self.ticket.filter(|ticket| queue.writers.contains_key(ticket)) {
            Some(ticket) => ticket,
            None => {
                queue.next_ticket = queue.next_ticket.wrapping_add(1);
                queue.next_ticket
            }
        };
        self.ticket = Some(ticket);
        let replaced = queue.writers.insert(ticket, cx.waker().clone());
        shared.lined_up.store(queue.writers.len(), Ordering::Release);
        drop(queue);
        drop(replaced);
        true
    }
}

impl<T> Drop for EventQueue<T> {
    fn drop(&mut self) {
        self.hand_over();
        if let Some(ticket) = self.ticket {
            let shared = &self.sending.0;
            let mut queue = shared.queue();
            let waker = queue.writers.remove(&ticket);
            shared.lined_up.store(queue.writers.len(), Ordering::Release);
            drop(queue);
            drop(waker);
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::Release);
        self.load.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn new() -> (Arc<Self>, Waker) {
            let task = Arc::new(Self::default());
            let waker = Waker::from(task.clone());
            (task, waker)
        }

        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn take(events: &mut Events<u32>, waker: &Waker) -> Option<u32> {
        match events.poll_next(&mut Context::from_waker(waker)) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    fn is_ready(queue: &mut EventQueue<u32>, waker: &Waker) -> bool {
        queue.poll_ready(&mut Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn what_a_turn_has_brought_wakes_the_program_once_and_comes_in_order() {
        let (sender, mut events) = channel(10);
        let (program, waker) = Task::new();
        assert_eq!(take(&mut events, &waker), None);
        let mut queue = sender.queue();
        (0..3).for_each(|event| queue.push(event));
        assert_eq!((program.woken(), take(&mut events, &waker)), (0, None));
        queue.hand_over();
        queue.tell(3);
        assert_eq!(program.woken(), 1);
        assert_eq!([0, 1, 2, 3].map(|_| take(&mut events, &waker)), [Some(0), Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn nothing_that_is_told_is_refused_and_who_finds_the_queue_full_waits_until_it_is_half_empty() {
        let (sender, mut events) = channel(4);
        let (mut full, mut other) = (sender.queue(), sender.queue());
        (0..6).for_each(|event| full.tell(event));
        full.tell_if_ready(99);
        let (waiting, waker) = Task::new();
        assert!(!is_ready(&mut full, &waker) && !is_ready(&mut other, Waker::noop()));
        // Whoever looks again does not get a second place in line.
        assert!(!is_ready(&mut full, &waker));
        for expected in 0..3 {
            assert_eq!(take(&mut events, Waker::noop()), Some(expected));
            assert_eq!(waiting.woken(), 0);
        }
        assert_eq!(take(&mut events, Waker::noop()), Some(3));
        assert_eq!(waiting.woken(), 1);
        assert!(is_ready(&mut full, &waker) && is_ready(&mut other, &waker));
        assert_eq!([take(&mut events, &waker), take(&mut events, &waker)], [Some(4), Some(5)]);
        assert_eq!(take(&mut events, &waker), None);
    }

    #[test]
    fn no_more_are_let_in_at_once_than_there_is_room_for_and_all_of_them_when_nothing_is_left() {
        let (sender, mut events) = channel(2);
        let mut queues: Vec<_> = (0..5).map(|_| sender.queue()).collect();
        (0..3).for_each(|event| queues[0].tell(event));
        let tasks: Vec<_> = queues.iter().map(|_| Task::new()).collect();
        for (queue, (_, waker)) in queues.iter_mut().zip(&tasks) {
            assert!(!is_ready(queue, waker));
        }
        let woken = || tasks.iter().map(|(task, _)| task.woken()).collect::<Vec<_>>();
        assert_eq!(take(&mut events, Waker::noop()), Some(0));
        assert_eq!(woken(), [0, 0, 0, 0, 0]);
        // One that had a place and is gone is in nobody's way.
        drop(queues.remove(1));
        assert_eq!(take(&mut events, Waker::noop()), Some(1));
        assert_eq!(woken(), [1, 0, 1, 0, 0]);
        assert_eq!(take(&mut events, Waker::noop()), Some(2));
        assert_eq!(woken(), [1, 0, 1, 1, 1]);
        // None of them has put anything down, so nobody would take anything, and let others in.
        for (queue, (_, waker)) in queues.iter_mut().zip(&tasks) {
            assert!(is_ready(queue, waker));
        }
    }

    #[test]
    fn one_connections_long_messages_are_bounded_in_bytes_and_hold_up_nobody_else() {
        let (sender, mut events) = channel(100);
        let (mut long, mut short) = (sender.queue(), sender.queue());
        long.push_weighing(1, MAX_BYTES);
        long.hand_over();
        let (task, waker) = Task::new();
        assert!(!is_ready(&mut long, &waker) && is_ready(&mut short, &waker));
        assert_eq!(take(&mut events, Waker::noop()), Some(1));
        assert!(is_ready(&mut long, &waker));
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn it_ends_when_nobody_is_left_to_tell_anything_and_what_was_told_comes_first() {
        let (sender, mut events) = channel(4);
        let mut queue = sender.queue();
        drop(sender);
        let (program, waker) = Task::new();
        assert_eq!(take(&mut events, &waker), None);
        queue.push(1);
        drop(queue);
        assert!(program.woken() > 0);
        assert_eq!(take(&mut events, &waker), Some(1));
        assert!(events.poll_next(&mut Context::from_waker(&waker)) == Poll::Ready(None));
    }

    #[test]
    fn when_the_program_lets_go_nothing_waits_for_it() {
        let (sender, events) = channel(1);
        let (mut queue, mut waiting) = (sender.queue(), sender.queue());
        queue.tell(1);
        queue.tell(2);
        let (task, waker) = Task::new();
        assert!(!is_ready(&mut waiting, &waker));
        drop(events);
        assert_eq!(task.woken(), 1);
        queue.tell(2);
        assert!(is_ready(&mut queue, &waker) && is_ready(&mut waiting, &waker));
    }
}
