//! What a [`Connection`](crate::Connection) hands out.

use core::time::Duration;

use crate::{
    connection::Ticket,
    error::{CloseReason, Violation},
    frame::Frame,
    identity::Address,
    message::Message,
};

/// One thing to do, in the order in which it was decided.
#[derive(Debug)]
pub enum Output {
    /// Send this frame.
    Send(Frame),
    /// Tell the application.
    Event(Event),
    /// Flush what was sent, then end the transport: the close frame, if one was due, came before this.
    CloseTransport,
}

/// Something the application learns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Server side: a client has proved its address and waits for a
    /// [`decide`](crate::Connection::decide). The authentication deadline goes on meanwhile.
    AdmissionRequested {
        /// What to answer with; says who asks.
        ticket: Ticket,
    },
    /// Both sides are verified; messages may flow.
    Authenticated {
        /// The peer's address.
        address: Address,
        /// What protects the messages from here on.
        protection: Protection,
    },
    /// A message of the application came.
    Message(Message),
    /// A heartbeat came: to a client, the server's; to a server, the answer to its last one.
    Heartbeat {
        /// The time from our last answered ping to its pong, if there was one.
        round_trip: Option<Duration>,
    },
    /// The peer did something wrong that does not end the connection.
    Error(Violation),
    /// It is over. The last event, and the only one of its kind.
    Closed {
        /// How it ended.
        reason: CloseReason,
    },
}

/// What protects the messages of an authenticated connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protection {
    /// v1: nothing beyond the transport. On `ws://` anyone on the path can read and change them.
    Transport,
}
