//! The way of a message from the application to the task that owns the connection: a queue, bounded in bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_channel::mpsc;
use futures_core::Stream;
use link_core::{IntoMessage, InvalidMessage, Message};

use crate::limits::Limits;

/// What a queued message counts beyond its text, so that a flood of empty ones is bounded as well.
const OVERHEAD: usize = 64;

/// More commands than ever wait, but for bounds beyond reason.
const MAX_WAITING: usize = 1 << 20;

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
pub(crate) struct Outbox {
    commands: mpsc::UnboundedSender<Command>,
    waiting: Arc<AtomicUsize>,
    limits: Limits,
}

/// The connection's end.
#[derive(Debug)]
pub(crate) struct Commands {
    commands: mpsc::UnboundedReceiver<Command>,
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Send(Message),
    /// Close, after what was sent before.
    Close,
}

pub(crate) fn outbox(limits: Limits) -> (Outbox, Commands) {
    let (sender, commands) = mpsc::unbounded();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Outbox { commands: sender, waiting: waiting.clone(), limits }, Commands { commands, waiting })
}

impl Outbox {
    pub(crate) fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        let (size, limit) = (message.as_str().len(), self.limits.max_message_size);
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        let (cost, limit) = (cost(&message), self.limits.max_send_queue);
        let before = self.waiting.fetch_add(cost, Ordering::Relaxed);
        // One message always fits, however small the bound.
        if before > 0 && before.saturating_add(cost) > limit {
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
            return Err(SendError::Full { limit });
        }
        self.commands.unbounded_send(Command::Send(message)).map_err(|_| SendError::Closed)
    }

    /// Closes the connection once what was sent before is out.
    pub(crate) fn close(&self) {
        // An error means that it has ended already.
        let _ = self.commands.unbounded_send(Command::Close);
    }
}

impl Commands {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command>> {
        let command = std::task::ready!(std::pin::Pin::new(&mut self.commands).poll_next(cx));
        if let Some(Command::Send(message)) = &command {
            self.waiting.fetch_sub(cost(message), Ordering::Relaxed);
        }
        Poll::Ready(command)
    }

    /// Takes no more commands, and hands back the messages that are still waiting.
    pub(crate) fn close(&mut self) -> Vec<Message> {
        let mut unsent = Vec::new();
        let mut keep = |command| {
            if let Command::Send(message) = command {
                unsent.push(message);
            }
        };
        // The channel keeps the last waker that it was shown for as long as the application keeps its end, and a waker keeps the
        // memory of its task. So the last one is nobody's. (The application may be sending meanwhile: no room is given back, and
        // so no more messages come than the queue has room for.)
        let mut nobody = Context::from_waker(Waker::noop());
        for _ in 0..MAX_WAITING {
            let next = std::pin::Pin::new(&mut self.commands).poll_next(&mut nobody);
            let Poll::Ready(Some(command)) = next else { break };
            keep(command);
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            keep(command);
        }
        unsent
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

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn who_keeps_the_applications_end_does_not_keep_the_task() {
        let (_application, mut commands) = outbox(Limits { max_message_size: 1000, max_send_queue: 1000 });
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        assert!(commands.poll_next(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 2);
        drop(commands);
        assert_eq!(Arc::strong_count(&task), 1);
    }
}
