//! One side of one WebSocket, from open to closed.
//!
//! This file is the face: what goes in, what comes out, and the one ordered queue between them. Every state
//! and every transition is in `state`, the arithmetic of deadlines in `timers`.

mod room;
mod state;
mod ticket;
mod timers;

use alloc::{collections::VecDeque, sync::Arc};
use core::time::Duration;

pub use ticket::Ticket;

use crate::{
    config::Config,
    error::{CloseReason, Misuse, Refusal, Violation},
    event::{Output, Protection},
    frame::Frame,
    identity::Address,
    message::Message,
    time::{Instant, Now},
};
use room::Room;
use state::{Context, State};

/// For how many outputs an empty queue keeps room. A caller that drains after each input never needs more; the room that a
/// burst took goes back, since a connection may be idle for the rest of its life.
const KEPT_OUTPUTS: usize = 8;

/// Which side of the WebSocket this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opened the WebSocket, and speaks first.
    Client,
    /// Accepted it.
    Server,
}

/// One side of one WebSocket: frames and timestamps in, frames and events out.
///
/// It performs no input or output and reads no clock; see the [crate page](crate) for the loop that drives it.
/// The same inputs give the same outputs, byte for byte.
///
/// Its methods come in the order of their use: inputs (`handle_*`) are infallible, since what a peer does wrong
/// becomes output; commands (`send`, `close`, `decide`) return a [`Misuse`] when the caller broke a rule;
/// [`poll_output`](Self::poll_output) hands out what there is to do, and [`poll_timeout`](Self::poll_timeout)
/// says when to come back.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Arc<Config>,
    state: State,
    /// Beside the state, since it is about the caller and may outlast a state.
    reads_paused: bool,
    outputs: VecDeque<Output>,
    room: Room,
}

impl Connection {
    /// The client's side of a WebSocket that has just opened. The first output is its `authenticate`.
    pub fn client(config: Arc<Config>, now: Now) -> Self {
        Self::new(Role::Client, config, now, State::client)
    }

    /// The server's side of a WebSocket that has just opened. The authentication deadline counts from `now`, so
    /// a caller passes the moment at which it accepted the transport to have it cover the upgrade as well.
    pub fn server(config: Arc<Config>, now: Now) -> Self {
        Self::new(Role::Server, config, now, State::server)
    }

    /// Which side this is.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What it was told.
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The peer's address, once both sides are verified and until the end.
    pub const fn peer(&self) -> Option<Address> {
        self.state.peer()
    }

    /// What protects the messages, once both sides are verified and until the end.
    pub const fn protection(&self) -> Option<Protection> {
        self.state.protection()
    }

    /// The time from our last answered ping to its pong, if there was one.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.state.round_trip()
    }

    /// Whether messages may flow.
    pub const fn is_authenticated(&self) -> bool {
        self.state.peer().is_some()
    }

    /// How many bytes the peer's next message may have: few until it is authenticated. Longer ones are a violation, which
    /// the WebSocket layer can tell before they have come whole.
    pub fn receive_limit(&self) -> usize {
        match self.is_authenticated() {
            true => self.config.max_message_size,
            false => self.config.max_unauthenticated_message_size,
        }
    }

    /// Whether it is over. Outputs may still be waiting.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// A frame came. After the end nothing counts any more.
    pub fn handle_frame(&mut self, frame: Frame, now: Now) {
        self.step(now, |state, cx| state.on_frame(frame, cx));
    }

    /// What came was not the WebSocket protocol, or over the WebSocket layer's limit: `violation` says which.
    /// The connection ends, with the close code that goes with it.
    pub fn handle_violation(&mut self, violation: Violation, now: Now) {
        self.step(now, |state, cx| state.on_close(CloseReason::Violation(violation), cx));
    }

    /// Time has passed. Early or repeated calls do nothing; after it, [`poll_timeout`](Self::poll_timeout) is
    /// none or later than `now`.
    ///
    /// A caller with frames that are already there feeds them first, so that a peer which did answer is not
    /// judged by the caller's own delay.
    pub fn handle_timeout(&mut self, now: Now) {
        self.step(now, State::on_timeout);
    }

    /// The caller stops reading from the peer for a while (its application is slow), so the peer's silence says
    /// nothing until [`handle_reads_resumed`](Self::handle_reads_resumed).
    pub fn handle_reads_paused(&mut self, now: Now) {
        self.reads_paused = true;
        self.step(now, |state, _| state.on_reads_paused());
    }

    /// The caller reads again; the peer has its whole idle time-out from here.
    pub fn handle_reads_resumed(&mut self, now: Now) {
        self.reads_paused = false;
        self.step(now, State::on_reads_resumed);
    }

    /// The transport has ended, by whatever cause.
    pub fn handle_transport_closed(&mut self, now: Now) {
        self.step(now, |state, cx| state.on_close(CloseReason::Lost, cx));
    }

    /// Sends a message to the peer.
    ///
    /// # Errors
    /// Before both sides are authenticated, after the end, for a message that is no JSON object or has a
    /// reserved `type`, or is longer than [`Config::max_message_size`]. Nothing is sent then.
    pub fn send(&mut self, message: Message, _now: Now) -> Result<(), Misuse> {
        match &self.state {
            State::Authenticated(_) => {}
            State::Closed => return Err(Misuse::Closed),
            _ => return Err(Misuse::NotAuthenticated),
        }
        let (size, limit) = (message.as_str().len(), self.config.max_message_size);
        if size > limit {
            return Err(Misuse::MessageTooLarge { size, limit });
        }
        message.check_sendable()?;
        self.outputs.push_back(Output::Send(Frame::Text(message.into_text())));
        Ok(())
    }

    /// Answers an [`AdmissionRequested`](crate::Event::AdmissionRequested): lets the client in, or refuses it.
    ///
    /// A decision counts until [`handle_timeout`](Self::handle_timeout) has said that the deadline is over.
    ///
    /// # Errors
    /// When the ticket is another connection's (which then notices that it is gone, and refuses its client), or
    /// its time has passed. Nothing changes here then.
    pub fn decide(&mut self, ticket: Ticket, verdict: Result<(), Refusal>, now: Now) -> Result<(), Misuse> {
        self.state.awaits(&ticket)?;
        self.step(now, |state, cx| state.on_decision(verdict, cx));
        Ok(())
    }

    /// Ends the connection in whatever phase it is, and tells the peer as far as the wire has words for `reason`.
    /// After the end it does nothing.
    pub fn close(&mut self, reason: CloseReason, now: Now) {
        self.step(now, |state, cx| state.on_close(reason, cx));
    }

    /// The next thing to do, in the order in which it was decided.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.outputs.capacity() > KEPT_OUTPUTS {
            self.give_room_back();
        }
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` while nothing is. Every input may move it,
    /// mostly into the future: a caller may keep an earlier timer and look again when that fires.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.state.deadline(&self.config)
    }

    fn new(role: Role, config: Arc<Config>, now: Now, start: impl FnOnce(&mut Context<'_>) -> State) -> Self {
        let (state, outputs, room) = (State::Closed, VecDeque::new(), Room::default());
        let mut connection = Self { role, config, state, reads_paused: false, outputs, room };
        connection.step(now, |state, cx| *state = start(cx));
        connection
    }

    #[cold]
    fn give_room_back(&mut self) {
        self.outputs.shrink_to(KEPT_OUTPUTS);
    }

    fn step(&mut self, now: Now, transition: impl FnOnce(&mut State, &mut Context<'_>)) {
        let mut cx = Context {
            now,
            role: self.role,
            config: &self.config,
            reads_paused: self.reads_paused,
            outputs: &mut self.outputs,
            room: &mut self.room,
        };
        self.state.notice_dropped_ticket(&mut cx);
        transition(&mut self.state, &mut cx);
    }
}
