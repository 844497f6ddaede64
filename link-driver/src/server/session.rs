//! One client of a server, for a task of its own.

use std::{
    future::poll_fn,
    ops::Deref,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_core::Stream;
use link_core::{CloseReason, Message};

use super::peer::Peer;
use crate::event_queue::Events;

/// One client that was let in: a stream of its messages, and by dereferencing to its [`Peer`] a way to send.
///
/// A session that is read slowly stalls its own client only. Dropping it ends the connection.
#[derive(Debug)]
pub struct Session {
    peer: Peer,
    messages: Events<Message>,
    ended: Arc<OnceLock<CloseReason>>,
}

impl Session {
    pub(super) fn new(peer: Peer, messages: Events<Message>, ended: Arc<OnceLock<CloseReason>>) -> Self {
        Self { peer, messages, ended }
    }

    /// The client, to be handed to other parts of the program.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The client's next message; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// How the connection ended; `None` while it has not.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.ended.get()
    }
}

impl Stream for Session {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.messages.poll_next(cx)
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
    }
}
