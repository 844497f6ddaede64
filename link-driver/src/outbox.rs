//! The way of a message from the program to the task that owns the connection: a queue, bounded in bytes. What is to
//! end the connection takes the same way, and overtakes what waits: a task that is behind a stalled peer hears of it too.
//!
//! The task takes what waits by one lock a turn.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use event_listener::Event;
use link_core::{CloseReason, Config, Endpoint, IntoMessage, Message, Now, SendError, SendQueue};

/// The program's end. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Shared>);

/// The connection's end.
#[derive(Debug)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
    /// Whether messages were left in the queue when it was looked at last.
    left: bool,
    /// Whether there were any since the room was given back.
    used: bool,
    /// Who is woken when something comes: the same as in the queue, to be compared without its lock.
    listening: Waker,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Whether something has come since the task has looked, so that looking takes no lock.
    stirred: AtomicBool,
    /// Whether the task has to be woken for it. It need not be in the middle of its turn, where the program runs too.
    asleep: AtomicBool,
    /// How many senders wait for room.
    waiting: AtomicUsize,
    /// Lets them wait in line: the first of them waits for room, the others for their turn.
    line: async_lock::Mutex<()>,
    /// Notified when there is room again, or when the queue is closed.
    room: Event,
}

#[derive(Debug)]
struct Queue {
    messages: SendQueue,
    eviction: Option<CloseReason>,
    /// The task that owns the connection.
    listening: Option<Waker>,
}

pub(crate) fn outbox(config: &Config) -> (Outbox, Commands) {
    let queue = Queue { messages: SendQueue::new(config), eviction: None, listening: None };
    let shared = Arc::new(Shared {
        queue: Mutex::new(queue),
        stirred: AtomicBool::new(false),
        asleep: AtomicBool::new(false),
        waiting: AtomicUsize::new(0),
        line: async_lock::Mutex::new(()),
        room: Event::new(),
    });
    let listening = Waker::noop().clone();
    (Outbox(shared.clone()), Commands { shared, left: false, used: false, listening })
}

impl Outbox {
    /// Queues a message as soon as there is room for it. Those who wait do so in line. Cancel safe: a message whose future was
    /// dropped was not queued.
    pub(crate) async fn send(&self, message: Message) -> Result<(), SendError> {
        let shared = &*self.0;
        if shared.waiting.load(Ordering::Relaxed) == 0 {
            match self.try_send(&message) {
                Err(SendError::Full { .. }) => {}
                sent => return sent,
            }
        }
        let _waiting = Waiting::among(&shared.waiting);
        let _first = shared.line.lock().await;
        loop {
            let room = shared.room.listen();
            match self.try_send(&message) {
                Err(SendError::Full { .. }) => room.await,
                sent => return sent,
            }
        }
    }

    /// Queues a message, if there is room for it at the moment.
    pub(crate) fn try_send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        let mut queue = self.0.queue();
        let first = queue.messages.is_empty();
        queue.messages.push(message)?;
        // The task takes all that it can at once, so only the first need wake it.
        let listening = if first { self.0.stir(&queue) } else { None };
        drop(queue);
        wake(listening);
        Ok(())
    }

    /// Closes the connection once what was sent before is out. Nothing more is taken.
    pub(crate) fn close(&self) {
        self.evict(CloseReason::Local);
    }

    /// Ends the connection, for a reason that does not come from its peer. The first one counts, but for one that lets the
    /// connection go on until all was sent: any other overrides that.
    pub(crate) fn evict(&self, reason: CloseReason) {
        let mut queue = self.0.queue();
        match &queue.eviction {
            None | Some(CloseReason::Local) => queue.eviction = Some(reason),
            Some(CloseReason::ShuttingDown) if reason != CloseReason::Local => queue.eviction = Some(reason),
            Some(_) => {}
        }
        // Nothing more is taken, and those who wait for room find that out.
        queue.messages.close();
        let listening = self.0.stir(&queue);
        drop(queue);
        self.0.notify_all();
        wake(listening);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the first of those who wait for room try again.
    fn notify_first(&self) {
        // Whoever waits has counted before it found the queue full, which it did under the lock that was held since.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.room.notify(1);
        }
    }

    /// Nothing is taken any more, as everybody who waits is to find out.
    fn notify_all(&self) {
        self.room.notify(usize::MAX);
    }

    /// Something has come. Says whom to wake for it.
    fn stir(&self, queue: &Queue) -> Option<Waker> {
        // In this order, and the task falls asleep before it looks: one of the two sees the other.
        self.stirred.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) { queue.listening.clone() } else { None }
    }
}

impl Commands {
    /// The task has its turn, and need not be woken.
    pub(crate) fn wake_up(&mut self, cx: &Context<'_>) {
        self.shared.asleep.store(false, Ordering::SeqCst);
        if !self.listening.will_wake(cx.waker()) {
            self.listening.clone_from(cx.waker());
            let replaced = self.shared.queue().listening.replace(cx.waker().clone());
            drop(replaced);
        }
    }

    /// From here on the task is woken when something comes. `false` if something has come meanwhile.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        !self.shared.stirred.load(Ordering::SeqCst)
    }

    /// Hands over what has come: why to end, and messages.
    pub(crate) fn give_to(&mut self, endpoint: &mut Endpoint, now: Now) {
        let stirred = self.shared.stirred.load(Ordering::SeqCst);
        if !stirred && !self.left {
            return;
        }
        let mut queue = self.shared.queue();
        self.shared.stirred.store(false, Ordering::SeqCst);
        if let Some(reason) = queue.eviction.take() {
            endpoint.close(reason, now);
        }
        let used = queue.messages.used();
        endpoint.take_queued(&mut queue.messages);
        let has_room = queue.messages.used() < used;
        self.left = !queue.messages.is_empty();
        self.used = true;
        drop(queue);
        // Otherwise nothing has changed for who waits; and that may be a handler in this very task.
        if has_room {
            self.shared.notify_first();
        }
    }

    /// The connection has ended: takes no more messages, as who waits for room is to find out. What waits stays for
    /// [`close`](Self::close).
    pub(crate) fn refuse(&self) {
        self.shared.queue().messages.close();
        self.shared.notify_all();
    }

    /// Why to end, before there is an endpoint: while the transport is not a WebSocket.
    pub(crate) fn poll_eviction(&mut self, cx: &Context<'_>) -> Poll<CloseReason> {
        self.wake_up(cx);
        self.fall_asleep();
        match self.shared.queue().eviction.take() {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }

    /// Gives back the room that a burst has taken, where nothing waits.
    pub(crate) fn release_spare_room(&mut self) {
        if std::mem::take(&mut self.used) {
            self.shared.queue().messages.release_spare_room();
        }
    }

    /// Takes no more messages, and hands back the messages that are still waiting.
    pub(crate) fn close(&mut self) -> Vec<Message> {
        let mut queue = self.shared.queue();
        let unsent = queue.messages.take_unsent();
        // The program may keep its end for long, and a waker keeps the memory of its task.
        let listening = queue.listening.take();
        drop(queue);
        drop(listening);
        self.shared.notify_all();
        unsent
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.close();
    }
}

/// One of those who wait for room.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Never under the lock: a waker may do anything at all.
fn wake(listening: Option<Waker>) {
    if let Some(listening) = listening {
        listening.wake();
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::{sync::atomic::AtomicUsize, task::Wake};

    use link_core::{Connection, Event as CoreEvent, Output, PrivateKey, UnixMillis, Wallet};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Task {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const NOW: Now =
        Now { mono: link_core::Instant::from_origin(std::time::Duration::ZERO), wall: UnixMillis::MAX };

    fn config() -> Config {
        Config::server(Wallet::from_private_key(PrivateKey::from_bytes([1; 32]).unwrap()))
    }

    /// A server's, whose client is authenticated.
    fn endpoint() -> Endpoint {
        let wallet = Wallet::from_private_key(PrivateKey::from_bytes([2; 32]).unwrap());
        let mut client = Connection::client(Arc::new(Config::client(wallet)), NOW);
        let mut server = Connection::server(Arc::new(config()), NOW);
        let Some(Output::Send(proof)) = client.poll_output() else { panic!("a client speaks first") };
        server.handle_frame(proof, NOW);
        let Some(Output::Event(CoreEvent::AdmissionRequested { ticket })) = server.poll_output() else {
            panic!("the proof is good")
        };
        server.decide(ticket, Ok(()), NOW).unwrap();
        Endpoint::new(server)
    }

    fn message() -> Message {
        Message::parse(r#"{"type":"m"}"#).unwrap()
    }

    fn asleep() -> (Outbox, Commands, Arc<Task>) {
        let (program, mut commands) = outbox(&config());
        let task = Arc::new(Task::default());
        commands.wake_up(&Context::from_waker(&Waker::from(task.clone())));
        assert!(commands.fall_asleep());
        (program, commands, task)
    }

    #[test]
    fn who_keeps_the_programs_end_does_not_keep_the_task() {
        let (_program, commands, task) = asleep();
        assert!(Arc::strong_count(&task) > 1);
        drop(commands);
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn a_burst_wakes_the_connection_once_and_what_comes_after_its_turn_again() {
        let (program, mut commands, task) = asleep();
        program.try_send(message()).unwrap();
        program.try_send(message()).unwrap();
        assert_eq!(task.woken(), 1);
        let mut endpoint = endpoint();
        endpoint.begin_turn(NOW);
        commands.give_to(&mut endpoint, NOW);
        assert!(commands.fall_asleep());
        program.try_send(message()).unwrap();
        assert_eq!(task.woken(), 2);
    }

    #[test]
    fn what_comes_in_the_middle_of_a_turn_wakes_nobody_and_keeps_the_task_from_falling_asleep() {
        let (program, mut commands, task) = asleep();
        commands.wake_up(&Context::from_waker(&Waker::from(task.clone())));
        program.try_send(message()).unwrap();
        program.evict(CloseReason::Replaced);
        assert_eq!(task.woken(), 0);
        assert!(!commands.fall_asleep());
    }

    #[test]
    fn an_eviction_wakes_the_connection_whatever_waits_and_is_told_once() {
        let (program, mut commands, task) = asleep();
        program.try_send(message()).unwrap();
        commands.wake_up(&Context::from_waker(&Waker::from(task.clone())));
        commands.fall_asleep();
        program.evict(CloseReason::Replaced);
        program.evict(CloseReason::SlowPeer);
        assert_eq!(task.woken(), 2);
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(commands.poll_eviction(&cx), Poll::Ready(CloseReason::Replaced));
        assert!(commands.poll_eviction(&cx).is_pending());
    }

    #[test]
    fn a_closed_queue_hands_back_what_waits_in_order_and_takes_no_more() {
        let (program, mut commands, _task) = asleep();
        let numbered = |number: u32| Message::parse(format!(r#"{{"n":{number}}}"#)).unwrap();
        for number in 0..3 {
            program.try_send(numbered(number)).unwrap();
        }
        assert_eq!(commands.close(), [numbered(0), numbered(1), numbered(2)]);
        assert_eq!(program.try_send(message()), Err(SendError::Closed));
    }

    fn numbered(number: u32) -> Message {
        Message::parse(format!(r#"{{"n":{number}}}"#)).unwrap()
    }

    /// Has room for one message only.
    fn narrow() -> (Outbox, Commands) {
        let mut config = config();
        config.max_send_queue = 0;
        outbox(&config)
    }

    #[test]
    fn senders_wait_in_line_and_one_that_is_dropped_has_sent_nothing() {
        let (program, mut commands) = narrow();
        let mut endpoint = endpoint();
        let mut cx = Context::from_waker(Waker::noop());
        program.try_send(numbered(0)).unwrap();
        assert!(matches!(program.try_send(numbered(9)), Err(SendError::Full { .. })));
        let mut senders: Vec<_> =
            (1..=4).map(|number| Some(Box::pin(program.send(numbered(number))))).collect();
        for sender in senders.iter_mut().flatten() {
            assert!(sender.as_mut().poll(&mut cx).is_pending());
        }
        senders[1] = None;
        for taken in [0, 2, 3] {
            endpoint.begin_turn(NOW);
            commands.give_to(&mut endpoint, NOW);
            // Whoever comes now finds those in line in front of it.
            let mut late = Box::pin(program.send(numbered(9)));
            assert!(late.as_mut().poll(&mut cx).is_pending());
            // In whatever order they are polled, only the first one is sent.
            for (index, waits) in senders.iter_mut().enumerate().rev() {
                let Some(sender) = waits else { continue };
                let sent = sender.as_mut().poll(&mut cx);
                assert_eq!(sent.is_ready(), index == taken, "{index}, not {taken}");
                if sent.is_ready() {
                    *waits = None;
                }
            }
            // The next one is woken, and takes its place at the head.
            for sender in senders.iter_mut().flatten() {
                assert!(sender.as_mut().poll(&mut cx).is_pending());
            }
        }
        endpoint.begin_turn(NOW);
        commands.give_to(&mut endpoint, NOW);
        assert_eq!(endpoint.take_unsent(), [numbered(0), numbered(1), numbered(3), numbered(4)]);
    }

    #[test]
    fn a_sender_that_waits_hears_that_nothing_is_taken_any_more() {
        for by_the_program in [true, false] {
            let (program, mut commands) = narrow();
            let mut cx = Context::from_waker(Waker::noop());
            program.try_send(numbered(0)).unwrap();
            let mut senders = [1, 2].map(|number| Box::pin(program.send(numbered(number))));
            assert!(senders.iter_mut().all(|sender| sender.as_mut().poll(&mut cx).is_pending()));
            match by_the_program {
                true => program.close(),
                false => drop(commands.close()),
            }
            for sender in &mut senders {
                assert_eq!(sender.as_mut().poll(&mut cx), Poll::Ready(Err(SendError::Closed)));
            }
        }
    }
}
