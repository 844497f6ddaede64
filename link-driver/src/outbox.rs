//! The way of a message from the application to the task that owns the connection: a queue, bounded in bytes. What is to
//! end the connection takes the same way, and overtakes what waits: a task that is behind a stalled peer hears of it too.
//!
//! The task takes all that waits at once, by one lock, and works that off in its turns.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use link_core::{CloseReason, IntoMessage, InvalidMessage, Message};

use crate::limits::Limits;

/// What a queued message counts beyond its text, so that a flood of empty ones is bounded as well.
const OVERHEAD: usize = 64;
/// Why a message was not sent. Nothing of it will be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The line is not authenticated: not yet, or not at the moment.
    #[error("not authenticated: wait for the `Authenticated` event before sending")]
    NotAuthenticated,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// Too many bytes are waiting to be sent to this peer already.
    #[error(
        "{limit} bytes are waiting to be sent to this peer already; send slower, or raise `max_send_queue`"
    )]
    Full {
        /// The bound in bytes.
        limit: usize,
    },
    /// The message is longer than the limit.
    #[error("the message has {size} bytes, and the limit is {limit}; raise `max_message_size` on both sides")]
    TooLarge {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It is no message.
    #[error(transparent)]
    Invalid(#[from] InvalidMessage),
}

/// The application's end. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Shared>);

/// The connection's end.
#[derive(Debug)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
    /// Taken from the queue, and not worked off yet.
    taken: VecDeque<Message>,
    /// Whether any were since the room was given back.
    used: bool,
    /// What those cost that were worked off since the last [`settle`](Self::settle).
    worked_off: usize,
    /// Who is woken when something comes: the same as in the queue, to be compared without its lock.
    listening: Waker,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    queue: Mutex<Queue>,
    /// Whether there is an eviction, so that looking for one takes no lock.
    evicted: AtomicBool,
    /// What was worked off, and is to be taken off the queue's cost.
    done: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// What they cost, and those that the connection has taken and not worked off.
    cost: usize,
    eviction: Option<CloseReason>,
    /// The task that owns the connection.
    listening: Option<Waker>,
    /// Nobody takes anything any more.
    closed: bool,
}

pub(crate) fn outbox(limits: Limits) -> (Outbox, Commands) {
    let shared = Arc::new(Shared {
        limits,
        queue: Mutex::default(),
        evicted: AtomicBool::new(false),
        done: AtomicUsize::new(0),
    });
    let commands = Commands {
        shared: shared.clone(),
        taken: VecDeque::new(),
        used: false,
        worked_off: 0,
        listening: Waker::noop().clone(),
    };
    (Outbox(shared), commands)
}

impl Outbox {
    pub(crate) fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        let (size, limit) = (message.as_str().len(), self.0.limits.max_message_size);
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        let (cost, limit) = (cost(&message), self.0.limits.max_send_queue);
        let mut queue = self.0.queue();
        if queue.closed {
            return Err(SendError::Closed);
        }
        queue.cost = queue.cost.saturating_sub(self.0.done.swap(0, Ordering::Relaxed));
        // One message always fits, however small the bound.
        if queue.cost > 0 && queue.cost.saturating_add(cost) > limit {
            return Err(SendError::Full { limit });
        }
        queue.cost = queue.cost.saturating_add(cost);
        // The connection takes all at once, so only the first need wake it.
        let listening = if queue.messages.is_empty() { queue.listening.clone() } else { None };
        queue.messages.push_back(message);
        drop(queue);
        wake(listening);
        Ok(())
    }

    /// Closes the connection once what was sent before is out. Nothing more is taken.
    pub(crate) fn close(&self) {
        self.0.queue().closed = true;
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
        self.0.evicted.store(true, Ordering::Release);
        let listening = queue.listening.clone();
        drop(queue);
        wake(listening);
    }

    /// The reason to end, told once. Whoever [listens](Commands::listen) is woken when there is one.
    pub(crate) fn eviction(&self) -> Option<CloseReason> {
        if !self.0.evicted.load(Ordering::Acquire) {
            return None;
        }
        self.0.evicted.store(false, Ordering::Relaxed);
        self.0.queue().eviction.take()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commands {
    /// From here on this task is woken when something comes, or an eviction.
    pub(crate) fn listen(&mut self, cx: &Context<'_>) {
        if !self.listening.will_wake(cx.waker()) {
            self.listening.clone_from(cx.waker());
            self.shared.queue().listening = Some(cx.waker().clone());
        }
    }

    /// The next message, if one waits.
    pub(crate) fn next(&mut self) -> Option<Message> {
        if self.taken.is_empty() {
            mem::swap(&mut self.taken, &mut self.shared.queue().messages);
            self.used |= !self.taken.is_empty();
        }
        let message = self.taken.pop_front()?;
        self.worked_off = self.worked_off.saturating_add(cost(&message));
        Some(message)
    }

    /// Gives the room of what was worked off to the application, at the end of a turn.
    pub(crate) fn settle(&mut self) {
        if self.worked_off > 0 {
            self.shared.done.fetch_add(mem::take(&mut self.worked_off), Ordering::Relaxed);
        }
    }

    /// Gives back the room that a burst has taken, where nothing waits.
    pub(crate) fn tidy(&mut self) {
        if self.used && self.taken.is_empty() {
            self.used = false;
            self.taken = VecDeque::new();
            let mut queue = self.shared.queue();
            if queue.messages.is_empty() {
                queue.messages = VecDeque::new();
            }
        }
    }

    /// Takes no more messages, and hands back the messages that are still waiting.
    pub(crate) fn close(&mut self) -> Vec<Message> {
        let mut queue = self.shared.queue();
        queue.closed = true;
        let rest = mem::take(&mut queue.messages);
        // The application may keep its end for long, and a waker keeps the memory of its task.
        let listening = queue.listening.take();
        drop(queue);
        drop(listening);
        mem::take(&mut self.taken).into_iter().chain(rest).collect()
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.close();
    }
}

fn cost(message: &Message) -> usize {
    message.as_str().len().saturating_add(OVERHEAD)
}

/// Never under the lock: a waker may do anything at all.
fn wake(listening: Option<Waker>) {
    if let Some(listening) = listening {
        listening.wake();
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

    fn message() -> Message {
        Message::parse(r#"{"type":"m"}"#).unwrap()
    }

    fn listening(limits: Limits) -> (Outbox, Commands, Arc<Task>) {
        let (application, mut commands) = outbox(limits);
        let task = Arc::new(Task::default());
        commands.listen(&Context::from_waker(&Waker::from(task.clone())));
        (application, commands, task)
    }

    const ROOMY: Limits = Limits { max_message_size: 1000, max_send_queue: 1000 };

    #[test]
    fn who_keeps_the_applications_end_does_not_keep_the_task() {
        let (_application, commands, task) = listening(ROOMY);
        assert!(Arc::strong_count(&task) > 1);
        drop(commands);
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn a_burst_wakes_the_connection_once_and_what_comes_after_it_again() {
        let (application, mut commands, task) = listening(ROOMY);
        application.send(message()).unwrap();
        application.send(message()).unwrap();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        while commands.next().is_some() {}
        application.send(message()).unwrap();
        assert_eq!(task.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_the_connection_has_taken_counts_until_it_is_worked_off() {
        let bytes = 2 * cost(&message());
        let (application, mut commands, _task) =
            listening(Limits { max_message_size: 1000, max_send_queue: bytes });
        application.send(message()).unwrap();
        application.send(message()).unwrap();
        assert_eq!(application.send(message()), Err(SendError::Full { limit: bytes }));
        // One of the two that it takes is written.
        assert!(commands.next().is_some());
        commands.settle();
        application.send(message()).unwrap();
        assert_eq!(application.send(message()), Err(SendError::Full { limit: bytes }));
    }

    #[test]
    fn an_eviction_wakes_the_connection_whatever_waits_and_is_told_once() {
        let (application, _commands, task) = listening(ROOMY);
        application.send(message()).unwrap();
        application.evict(CloseReason::Replaced);
        application.evict(CloseReason::SlowPeer);
        assert_eq!(task.0.load(Ordering::Relaxed), 3);
        assert_eq!(application.eviction(), Some(CloseReason::Replaced));
        assert_eq!(application.eviction(), None);
    }

    #[test]
    fn a_closed_queue_hands_back_what_waits_in_order_and_takes_no_more() {
        let (application, mut commands, _task) = listening(ROOMY);
        let numbered = |number: u32| Message::parse(format!(r#"{{"n":{number}}}"#)).unwrap();
        for number in 0..3 {
            application.send(numbered(number)).unwrap();
        }
        assert!(commands.next().is_some());
        application.send(numbered(3)).unwrap();
        assert_eq!(commands.close(), [numbered(1), numbered(2), numbered(3)]);
        assert_eq!(application.send(message()), Err(SendError::Closed));
    }
}
