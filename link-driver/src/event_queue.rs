//! The way of an event from a connection to the application: bounded in number and in bytes, and felt by the
//! connection when it is full.
//!
//! The number is the channel's bound, shared by all connections that use it. The bytes are each connection's own:
//! messages that were read and not yet taken by the application, so that no peer can fill the memory by
//! sending long ones.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use async_channel::{Receiver, Sender, TrySendError};
use futures_core::Stream;
use futures_util::task::AtomicWaker;

/// The default number of events that may wait for the program.
pub const DEFAULT_EVENT_CAPACITY: usize = 1024;
/// The largest capacity of a channel, whose places are allocated at once.
const MAX_CAPACITY: usize = 1 << 16;
/// Bytes of one connection's messages that may wait for the application, and one message more.
const MAX_BYTES: usize = 1 << 20;
/// A message up to this length is not counted in bytes: the channel's bound on their number is enough.
const SMALL: usize = 1 << 10;

/// A channel for `capacity` events, from one to [`MAX_CAPACITY`].
pub(crate) fn channel<T>(capacity: usize) -> (EventSender<T>, Events<T>) {
    let (sender, receiver) = async_channel::bounded(capacity.clamp(1, MAX_CAPACITY));
    (EventSender(sender), Events(Box::pin(receiver)))
}

/// Where connections get their queues from.
#[derive(Debug)]
pub(crate) struct EventSender<T>(Sender<Queued<T>>);

impl<T: Send + 'static> EventSender<T> {
    /// A queue for one connection.
    pub(crate) fn queue(&self) -> EventQueue<T> {
        EventQueue { sender: self.0.clone(), waiting: VecDeque::new(), sending: None, load: None }
    }

    /// Whether the application is behind.
    pub(crate) fn is_full(&self) -> bool {
        self.0.is_full()
    }
}

impl<T> Clone for EventSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The application's end.
pub(crate) struct Events<T>(Pin<Box<Receiver<Queued<T>>>>);

impl<T> Events<T> {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let queued = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(queued.map(|Queued { event, .. }| event))
    }
}

/// What waits for nobody is dropped at once. The channel would keep it until the last connection lets go of its end; and
/// a session in it would keep its connection, which waits for the session to be read.
impl<T> Drop for Events<T> {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// A connection's end.
///
/// What does not fit waits here, at most one turn's worth: a connection whose events wait does not read.
pub(crate) struct EventQueue<T> {
    sender: Sender<Queued<T>>,
    waiting: VecDeque<Queued<T>>,
    /// The first one that waits, once the channel was found full.
    sending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Once it has had a message that is counted in bytes.
    load: Option<Arc<Load>>,
}

/// An event, and what it weighs until the application takes it.
struct Queued<T> {
    event: T,
    _weight: Option<Weight>,
}

struct Weight {
    bytes: usize,
    load: Arc<Load>,
}

/// What one connection has in the channel.
#[derive(Default)]
struct Load {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

impl<T: Send + 'static> EventQueue<T> {
    /// Takes an event that holds no message.
    pub(crate) fn push(&mut self, event: T) {
        self.push_weighing(event, 0);
    }

    /// Takes an event that holds a message of so many bytes.
    pub(crate) fn push_weighing(&mut self, event: T, bytes: usize) {
        let weight = (bytes > SMALL).then(|| {
            let load = self.load.get_or_insert_default().clone();
            load.bytes.fetch_add(bytes, Ordering::Relaxed);
            Weight { bytes, load }
        });
        let queued = Queued { event, _weight: weight };
        if self.is_behind() {
            self.waiting.push_back(queued);
        } else if let Err(TrySendError::Full(queued)) = self.sender.try_send(queued) {
            self.waiting.push_back(queued);
        }
        // If the channel is closed, nobody will ever ask for it.
    }

    /// Takes an event that may be missed when the application is behind.
    pub(crate) fn push_if_ready(&mut self, event: T) {
        if !self.is_behind() {
            let _ = self.sender.try_send(Queued { event, _weight: None });
        }
    }

    /// Ready once nothing waits any more, and little enough is in the channel.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_sent(cx));
        let Some(load) = &self.load else { return Poll::Ready(()) };
        if load.bytes.load(Ordering::Acquire) < MAX_BYTES {
            return Poll::Ready(());
        }
        load.waker.register(cx.waker());
        // The application may have taken some in between.
        match load.bytes.load(Ordering::Acquire) < MAX_BYTES {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Ready once nothing waits any more.
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sending) = &mut self.sending {
                ready!(sending.as_mut().poll(cx));
                self.sending = None;
            }
            let Some(queued) = self.waiting.pop_front() else { return Poll::Ready(()) };
            if let Err(TrySendError::Full(queued)) = self.sender.try_send(queued) {
                let sender = self.sender.clone();
                self.sending = Some(Box::pin(async move {
                    // An error means that nobody will ever ask for it.
                    let _ = sender.send(queued).await;
                }));
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.sending.is_some() || !self.waiting.is_empty()
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::Release);
        self.load.waker.wake();
    }
}
