//! Messages that wait to be sent to one peer, bounded in bytes.

use alloc::{collections::VecDeque, vec::Vec};

use crate::{
    config::Config,
    message::{IntoMessage, InvalidMessage, Message},
};

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

/// Messages that wait to be sent to one peer: at most [`Config::max_send_queue`] bytes of them, 64 being added for each; but
/// one message always fits.
///
/// An [`Endpoint`](super::Endpoint) has one of its own, for programs with one thread. Where others send too, they get a second
/// one, behind a lock, of which the endpoint [takes](super::Endpoint::take_queued) a turn's worth.
#[derive(Debug)]
pub struct SendQueue {
    messages: VecDeque<Message>,
    /// What they cost.
    cost: usize,
    max_cost: usize,
    max_message_size: usize,
    closed: bool,
}

impl SendQueue {
    /// An empty one, with the bounds of `config`.
    pub const fn new(config: &Config) -> Self {
        Self {
            messages: VecDeque::new(),
            cost: 0,
            max_cost: config.max_send_queue,
            max_message_size: config.max_message_size,
            closed: false,
        }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// When it is none, is too long, or does not fit at the moment; or when the queue was closed.
    pub fn push(&mut self, message: impl IntoMessage) -> Result<(), SendError> {
        let message = message.into_message()?;
        let (size, limit) = (message.as_str().len(), self.max_message_size);
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        if self.closed {
            return Err(SendError::Closed);
        }
        let after = self.cost.saturating_add(cost(&message));
        if !self.messages.is_empty() && after > self.max_cost {
            return Err(SendError::Full { limit: self.max_cost });
        }
        self.cost = after;
        self.messages.push_back(message);
        Ok(())
    }

    /// Takes no more.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many bytes of the bound are used.
    pub const fn used(&self) -> usize {
        self.cost
    }

    /// Takes no more, and hands back what waits, in order.
    pub fn take_unsent(&mut self) -> Vec<Message> {
        self.closed = true;
        self.cost = 0;
        core::mem::take(&mut self.messages).into()
    }

    /// Gives back the room that a burst has taken, if nothing waits.
    pub fn release_spare_room(&mut self) {
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    pub(super) fn front(&self) -> Option<&Message> {
        self.messages.front()
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.cost = self.cost.saturating_sub(cost(&message));
        Some(message)
    }

    /// Moves what waits in `from` to the end of this one: all of it, or `max_bytes` and one message more.
    pub(super) fn take_from(&mut self, from: &mut Self, max_bytes: usize) {
        if self.messages.is_empty() && from.cost <= max_bytes {
            core::mem::swap(&mut self.messages, &mut from.messages);
            core::mem::swap(&mut self.cost, &mut from.cost);
            return;
        }
        while self.cost < max_bytes
            && let Some(message) = from.pop()
        {
            self.cost = self.cost.saturating_add(cost(&message));
            self.messages.push_back(message);
        }
    }
}

/// What a message counts.
pub(super) fn cost(message: &Message) -> usize {
    message.as_str().len().saturating_add(OVERHEAD)
}
