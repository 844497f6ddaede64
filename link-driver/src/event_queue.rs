//! The way of an event from a connection to the application: bounded, and felt by the connection when it is full.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use futures_channel::mpsc;

/// A connection's end of the queue to the application.
///
/// What does not fit waits here, at most one turn's worth: a connection whose events wait does not read.
#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    sender: mpsc::Sender<T>,
    waiting: VecDeque<T>,
}

impl<T> EventQueue<T> {
    pub(crate) const fn new(sender: mpsc::Sender<T>) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, event: T) {
        if self.waiting.is_empty() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                // Otherwise nobody will ever ask for it.
                Err(error) if error.is_full() => self.waiting.push_back(error.into_inner()),
                Err(_) => {}
            }
        } else {
            self.waiting.push_back(event);
        }
    }

    /// An event that may be missed when the application is behind.
    pub(crate) fn push_if_ready(&mut self, event: T) {
        if self.waiting.is_empty() {
            let _ = self.sender.try_send(event);
        }
    }

    /// Ready once nothing waits any more.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.waiting.is_empty() {
            match self.sender.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {
                    if let Some(event) = self.waiting.pop_front() {
                        let _ = self.sender.start_send(event);
                    }
                }
                Poll::Ready(Err(_)) => self.waiting.clear(),
            }
        }
        Poll::Ready(())
    }
}
