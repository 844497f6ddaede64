//! One client of a server, for a handler: its messages, and a way to send. And the connection's end of that.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    ops::Deref,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use futures_core::Stream;
use link_core::{CloseReason, Message};

use super::{peer::Peer, serve::Running};

/// Messages that a handler has not taken, beyond which its client is not read: 128, and a turn's worth more.
const MAX_MESSAGES: usize = 128;
/// The same, in bytes, and one message more.
const MAX_BYTES: usize = 1 << 20;

/// One client that was let in: a stream of its messages, and by dereferencing to its [`Peer`] a way to send.
///
/// It is [given to a handler](super::Server::serve), in whose own task the connection runs, and works from other tasks as well.
/// A session that is read slowly stalls its own client only. Dropping it ends the connection, once what was sent is out.
#[derive(Debug)]
pub struct Session {
    peer: Peer,
    /// Taken from the connection, and not yet by the program.
    taken: VecDeque<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    ended: OnceLock<CloseReason>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Nothing comes any more.
    over: bool,
    /// The program, where it waits for a message.
    reader: Option<Waker>,
    /// The connection, where it waits for room.
    writer: Option<Waker>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The client, to be handed to other parts of the program.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The client's next message; `None` when the connection has ended. Nothing is lost when it is not awaited to its end.
    pub async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// How the connection ended; `None` while it has not.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.shared.ended.get()
    }
}

impl Stream for Session {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Some(message) = self.taken.pop_front() {
            return Poll::Ready(Some(message));
        }
        let Self { taken, shared, .. } = &mut *self;
        let mut queue = shared.queue();
        if queue.messages.is_empty() {
            if queue.over {
                return Poll::Ready(None);
            }
            if queue.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                queue.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        // All at once, by one lock.
        mem::swap(taken, &mut queue.messages);
        queue.bytes = 0;
        let writer = queue.writer.take();
        drop(queue);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(taken.pop_front())
    }
}

impl Deref for Session {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.peer.close();
        let mut queue = self.shared.queue();
        let wakers = (queue.reader.take(), queue.writer.take());
        drop(queue);
        drop(wakers);
    }
}

/// The connection's end of a session, and the handler that has the other one.
pub(super) struct Open {
    /// What came in this turn, or found no room.
    messages: VecDeque<Message>,
    bytes: usize,
    /// There was no room: the program has yet to take what came before.
    behind: bool,
    /// Something was not read, since so many bytes had come in this turn.
    refused: bool,
    shared: Arc<Shared>,
    /// `None` once it has ended.
    handler: Option<Running>,
}

impl Open {
    /// A client was let in: calls the handler with it.
    pub(super) fn new(peer: Peer, handler: impl FnOnce(Session) -> Running) -> Self {
        let shared = Arc::<Shared>::default();
        let session = Session { peer, taken: VecDeque::new(), shared: shared.clone() };
        let handler = Some(handler(session));
        Self { messages: VecDeque::new(), bytes: 0, behind: false, refused: false, shared, handler }
    }

    /// A message came. The program has it at the end of the turn.
    pub(super) fn push(&mut self, message: Message) {
        self.bytes = self.bytes.saturating_add(message.as_str().len());
        self.messages.push_back(message);
    }

    /// The connection has ended.
    pub(super) fn end(&mut self, reason: CloseReason) {
        let _ = self.shared.ended.set(reason);
    }

    /// Whether the client is to be read.
    pub(super) const fn has_room(&mut self) -> bool {
        self.refused = self.behind || self.bytes >= MAX_BYTES;
        !self.refused
    }

    /// Hands over what came, and runs the handler. Ready when that has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<super::serve::Ended> {
        self.hand_over(cx);
        let Some(handler) = &mut self.handler else { return Poll::Pending };
        let ended = ready!(handler.as_mut().poll(cx));
        self.handler = None;
        Poll::Ready(ended)
    }

    /// Whether the handler has ended.
    pub(super) const fn is_over(&self) -> bool {
        self.handler.is_none()
    }

    fn hand_over(&mut self, cx: &Context<'_>) {
        let over = self.shared.ended.get().is_some();
        if self.messages.is_empty() && !over {
            return;
        }
        let mut queue = self.shared.queue();
        let (many, bytes) = (queue.messages.len().saturating_add(self.messages.len()), queue.bytes);
        self.behind = !queue.messages.is_empty() && (many > MAX_MESSAGES || bytes >= MAX_BYTES);
        if self.behind {
            queue.writer = Some(cx.waker().clone());
            return;
        }
        if queue.messages.is_empty() {
            mem::swap(&mut queue.messages, &mut self.messages);
        } else {
            queue.messages.append(&mut self.messages);
        }
        queue.bytes = bytes.saturating_add(mem::take(&mut self.bytes));
        queue.over = over;
        // Where the handler itself waits, it is polled at once.
        let reader = queue.reader.take_if(|reader| !reader.will_wake(cx.waker()));
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        if mem::take(&mut self.refused) {
            // There is room, and nobody else to say so.
            cx.waker().wake_by_ref();
        }
    }
}
