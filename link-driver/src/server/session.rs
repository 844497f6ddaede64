//! One client of a server, for a handler: its messages, and a way to send. And the connection's end of that.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use futures_core::Stream;
use futures_util::task::AtomicWaker;
use link_core::{Address, CloseReason, IntoMessage, Message, SendError};

use super::{connected_client::ConnectedClient, serve::Running};

/// Bytes of messages that a handler has not taken, beyond which its client is not read, until it has taken half of them.
const MAX_UNREAD: usize = 1 << 20;
/// What a message counts at least, so that 128 of them are enough.
const LEAST: usize = MAX_UNREAD / 128;

/// One client that was let in: a stream of its messages, and a way to send.
///
/// It is [given to a handler](super::Server::serve), in whose own task the connection runs, and works from other tasks as well.
/// A session that is read slowly stalls its own client only. Dropping it ends the connection, once what was sent is out.
#[derive(Debug)]
pub struct Session {
    client: ConnectedClient,
    /// Taken from the connection, and not yet by the program.
    taken: VecDeque<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// What the messages weigh that came, and that the program has not taken.
    unread: AtomicUsize,
    /// The connection, where it waits for room.
    writer: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// Nothing comes any more.
    over: bool,
    /// The program, where it waits for a message.
    reader: Option<Waker>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program has taken a message. Half empty, there is room for more.
    fn took(&self, message: &Message) {
        let weight = weight(message);
        let before = self.unread.fetch_sub(weight, Ordering::AcqRel);
        if before > MAX_UNREAD / 2 && before.saturating_sub(weight) <= MAX_UNREAD / 2 {
            self.writer.wake();
        }
    }
}

fn weight(message: &Message) -> usize {
    message.as_str().len().max(LEAST)
}

impl Session {
    /// The client, to be handed to other parts of the program.
    pub const fn client(&self) -> &ConnectedClient {
        &self.client
    }

    /// The client's wallet address, proved.
    pub fn address(&self) -> Address {
        self.client.address()
    }

    /// The client's next message; `None` when the connection has ended.
    ///
    /// # Cancel safety
    /// No message is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// As [`ConnectedClient::send`]. A handler that waits here is not reading, so a client that does the same and sends without
    /// end would have both wait for one another, until the [`send_timeout`](super::ServerBuilder::send_timeout).
    ///
    /// # Errors
    /// As [`ConnectedClient::send`].
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, nothing was queued.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.client.send(message).await
    }

    /// As [`ConnectedClient::try_send`].
    ///
    /// # Errors
    /// As [`ConnectedClient::try_send`].
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.client.try_send(message)
    }

    /// Waits until the connection has ended, and says why. Messages may still be waiting in [`next`](Self::next).
    ///
    /// # Cancel safety
    /// It can be dropped and called again.
    pub async fn closed(&self) -> CloseReason {
        self.client.closed().await
    }

    /// Why the connection has ended; `None` while it has not.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.client.close_reason()
    }
}

impl Stream for Session {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let Self { taken, shared, .. } = &mut *self;
        if taken.is_empty() {
            let mut queue = shared.queue();
            if queue.messages.is_empty() {
                if queue.over {
                    return Poll::Ready(None);
                }
                if queue.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                    let replaced = queue.reader.replace(cx.waker().clone());
                    drop(queue);
                    drop(replaced);
                }
                return Poll::Pending;
            }
            // All at once, by one lock.
            mem::swap(taken, &mut queue.messages);
        }
        let message = taken.pop_front();
        if let Some(message) = &message {
            shared.took(message);
        }
        Poll::Ready(message)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.client.close();
        let reader = self.shared.queue().reader.take();
        drop(reader);
    }
}

/// The connection's end of a session, and the handler that has the other one.
pub(super) struct Open {
    /// What came in this turn.
    messages: VecDeque<Message>,
    client: ConnectedClient,
    shared: Arc<Shared>,
    /// `None` once it has ended.
    handler: Option<Running>,
}

impl Open {
    /// A client was let in: calls the handler with it.
    pub(super) fn new(client: ConnectedClient, handler: impl FnOnce(Session) -> Running) -> Self {
        let shared = Arc::<Shared>::default();
        let session = Session { client: client.clone(), taken: VecDeque::new(), shared: shared.clone() };
        Self { messages: VecDeque::new(), client, shared, handler: Some(handler(session)) }
    }

    /// A message came. The program has it at the end of the turn.
    pub(super) fn push(&mut self, message: Message) {
        self.shared.unread.fetch_add(weight(&message), Ordering::AcqRel);
        self.messages.push_back(message);
    }

    /// Ready while the program is not behind with what the client has said.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let has_room = || self.shared.unread.load(Ordering::Acquire) < MAX_UNREAD;
        if has_room() {
            return Poll::Ready(());
        }
        self.shared.writer.register(cx.waker());
        // The program may have taken some in between.
        if has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Hands over what came, and runs the handler. Ready when that has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<super::serve::Ended> {
        let over = self.client.close_reason().is_some();
        if !self.messages.is_empty() || over {
            // Where the handler itself waits, it is polled at once.
            self.hand_over(over, |reader| !reader.will_wake(cx.waker()));
        }
        let Some(handler) = &mut self.handler else { return Poll::Pending };
        let ended = ready!(handler.as_mut().poll(cx));
        self.handler = None;
        Poll::Ready(ended)
    }

    /// Whether the handler has ended.
    pub(super) const fn is_over(&self) -> bool {
        self.handler.is_none()
    }

    fn hand_over(&mut self, over: bool, wakes: impl FnOnce(&Waker) -> bool) {
        let mut queue = self.shared.queue();
        if queue.messages.is_empty() {
            mem::swap(&mut queue.messages, &mut self.messages);
        } else {
            queue.messages.append(&mut self.messages);
        }
        queue.over |= over;
        let reader = queue.reader.take_if(|reader| wakes(reader));
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The session may be in another task, and waits there for more or for the end.
impl Drop for Open {
    fn drop(&mut self) {
        // Whatever ended it has said so already, if it was not a panic.
        self.client.end(CloseReason::Lost);
        self.hand_over(true, |_| true);
    }
}
