//! The way of a message from the application to the task that owns the connection: a queue, bounded in bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_channel::mpsc;
use futures_core::Stream;
use link_core::{IntoMessage, InvalidMessage, Message};

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
        self.commands.close();
        let mut unsent = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Send(message) = command {
                unsent.push(message);
            }
        }
        unsent
    }
}

fn cost(message: &Message) -> usize {
    message.as_str().len().saturating_add(OVERHEAD)
}
