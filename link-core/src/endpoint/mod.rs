//! A connection with all that its host decides beside moving bytes: what waits to be sent, when its peer is read, when it
//! has taken nothing for too long, how a close lets the last words leave; and in which order.
//!
//! This file is the face and the order of a turn; `closing` is the way from the last message to the end of the transport,
//! `queue` is what waits to be sent.

mod closing;
mod queue;

use alloc::{sync::Arc, vec::Vec};
use core::{mem, time::Duration};

use closing::{Patience, Phase};
pub use queue::{SendError, SendQueue};

use crate::{
    config::Config,
    connection::{Connection, Role, Ticket},
    error::{CloseReason, Misuse, Refusal, Violation},
    event::{Event, Output},
    frame::Frame,
    message::{IntoMessage, Message},
    time::{Instant, Now},
};

/// Bytes that may wait for a peer that takes nothing, before it is authenticated: room for all that is said until then.
const FIRST_MAX_UNSENT: usize = 16 << 10;
/// Beside the messages of one turn: room for what the protocol says while the peer takes nothing.
const OWN_WORDS: usize = 128 << 10;
/// How long a peer is not judged for its silence, since something of its waits to be read.
const UNREAD_PATIENCE: Duration = Duration::from_secs(1);

/// Something that a transport has read, for [`Endpoint::handle_incoming`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A frame. The WebSocket layer has answered a ping, or will with the next flush.
    Frame(Frame),
    /// Nothing is there, or not all of a frame. The next turn comes when there is more.
    Nothing,
    /// As much was read as one call may; there can be more, after others had their turn.
    Enough,
    /// The peer broke the WebSocket protocol, or a limit. Nothing more can be read; a close frame can still be sent.
    Violation(Violation),
    /// The transport has ended, by whatever cause.
    Ended,
}

/// The next thing for a host to do. What it answers with is said with each; it answers before it asks for the next one.
#[derive(Debug)]
pub enum Action {
    /// Tell the program.
    Event(Event),
    /// Hand a frame to the transport, to leave with the next flush. If it does not take it:
    /// [`handle_overflow`](Endpoint::handle_overflow) or [`handle_broken`](Endpoint::handle_broken).
    Send(Frame),
    /// Read, and answer with [`handle_incoming`](Endpoint::handle_incoming).
    Read {
        /// How many bytes a message may have. A longer one is a violation, which can be told when it is announced.
        limit: usize,
        /// Whether the program hears of it. If so, and the program cannot take more now, do not read, and answer with
        /// [`handle_reads_paused`](Endpoint::handle_reads_paused); begin a turn when it can again.
        heard: bool,
    },
    /// Let the program run: it may [`send`](Endpoint::send), [`close`](Endpoint::close) and [`decide`](Endpoint::decide). What it
    /// has to know comes before, or begins another turn.
    Program,
    /// The connection beats along: a good moment for the transport to give back the room that a burst has taken.
    ReleaseSpareRoom,
    /// Flush, if there is anything to, and answer with [`handle_flushed`](Endpoint::handle_flushed),
    /// [`handle_flush_blocked`](Endpoint::handle_flush_blocked) or [`handle_broken`](Endpoint::handle_broken).
    Flush,
    /// End this side's direction of the transport, and read and drop what still comes until the peer has ended its own; then
    /// [`handle_shut_down`](Endpoint::handle_shut_down). If that takes a while, go on meanwhile: it is asked for each turn.
    Shutdown,
    /// The bounds of this turn are reached. Begin the next one soon, after others had theirs.
    Yield,
    /// Begin the next turn when the transport can be read, or written where a flush was blocked; when the program wants
    /// something; or at [`poll_timeout`](Endpoint::poll_timeout).
    Wait,
    /// It is over: drop the transport.
    Done,
}

/// The program's messages that came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that the program was told of.
    pub messages_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Messages that were handed to the transport.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
}

/// One side of one WebSocket with everything that its host has to decide: a [`Connection`], what waits to be sent, and the
/// order of a turn.
///
/// It performs no input or output and reads no clock. Whatever the occasion, its host gives it a turn:
///
/// ```text
/// endpoint.begin_turn(now);
/// loop {
///     match endpoint.poll_action() {
///         Action::Read { .. } => endpoint.handle_incoming(...),
///         Action::Send(frame) => ...
///         ...
///         Action::Yield | Action::Wait | Action::Done => break,
///     }
/// }
/// ```
///
/// A turn reads the frames that are there, lets the program run, looks at the clock, sends what is queued, and flushes
/// **once**; so a turn that comes late judges nobody before it has done what was there to be done. Reading and sending are bounded ([`Config::max_turn_frames`], [`Config::max_turn_bytes`]), so that others get
/// their turn. [`manual::writing_a_driver`](crate::manual::writing_a_driver) is the guide.
///
/// `handle_*` are answers to an action, within a turn, and take its time. [`send`](Self::send), [`close`](Self::close),
/// [`decide`](Self::decide) and [`take_queued`](Self::take_queued) may come at any time; outside of a turn, begin one.
///
/// Memory is bounded: by the queue, and by one turn's messages and the longest of them in the transport. A peer that takes
/// nothing for [`Config::send_timeout`] is given up.
#[derive(Debug)]
pub struct Endpoint {
    config: Arc<Config>,
    connection: Connection,
    queue: SendQueue,
    /// More waits in another queue, of which this one has its messages.
    more_queued: bool,
    phase: Phase,
    turn: Turn,
    reads_paused: bool,
    /// The peer can say more.
    readable: bool,
    /// Something waits to be read, and nothing was, since then.
    unread_since: Option<Instant>,
    /// Writing failed. What the peer said before is still read.
    broken: bool,
    /// Bytes that were handed to the transport and may not have left.
    unsent: usize,
    stalled: Option<Stall>,
    traffic: Traffic,
}

/// Where a turn stands, and what is left of its bounds.
#[derive(Debug)]
struct Turn {
    now: Now,
    next: Step,
    frames: usize,
    bytes: usize,
    /// Another one is to follow soon.
    more: bool,
}

/// What comes next in a turn, once there is nothing to tell and no frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Read,
    Program,
    Clock,
    Send,
    Flush,
    Shutdown,
    Patience,
    Rest,
}

/// The peer takes nothing, since then, after that many bytes.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    written: u64,
}

impl Endpoint {
    /// One side of a WebSocket that has just opened, as `connection` has it: [`Connection::client`] or [`Connection::server`].
    pub fn new(connection: Connection) -> Self {
        let config = connection.config().clone();
        Self {
            queue: SendQueue::new(&config),
            more_queued: false,
            phase: Phase::Open,
            turn: Turn { now: Now::default(), next: Step::Rest, frames: 0, bytes: 0, more: false },
            reads_paused: false,
            readable: true,
            unread_since: None,
            broken: false,
            unsent: 0,
            stalled: None,
            traffic: Traffic::default(),
            connection,
            config,
        }
    }

    /// The protocol's state: who the peer is, and whether it is authenticated.
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins a turn.
    pub fn begin_turn(&mut self, now: Now) {
        let (frames, bytes) = (self.config.max_turn_frames.max(1), self.config.max_turn_bytes.max(1));
        self.turn = Turn { now, next: Step::Read, frames, bytes, more: false };
    }

    /// The next thing to do in this turn.
    pub fn poll_action(&mut self) -> Action {
        loop {
            if let Some(action) = self.next_output() {
                return action;
            }
            let step = self.turn.next;
            match step {
                Step::Read => {
                    if let Some(read) = self.next_read() {
                        return read;
                    }
                    self.turn.next = Step::Program;
                }
                Step::Program => {
                    self.turn.next = Step::Clock;
                    return Action::Program;
                }
                Step::Clock => {
                    self.turn.next = Step::Send;
                    if self.check_clock() {
                        return Action::ReleaseSpareRoom;
                    }
                }
                Step::Send => match self.next_message() {
                    Some(frame) => return Action::Send(frame),
                    // A close may have waited for the last of them.
                    None if self.sends() && self.queue.is_empty() && self.leave_if_all_is_sent() => {}
                    None => self.turn.next = Step::Flush,
                },
                Step::Flush => {
                    self.turn.next = Step::Shutdown;
                    if !self.broken && self.phase.wants_flush() {
                        return Action::Flush;
                    }
                }
                Step::Shutdown => {
                    self.turn.next = Step::Patience;
                    if self.is_to_shut_down() {
                        return Action::Shutdown;
                    }
                }
                Step::Patience => {
                    self.turn.next = Step::Rest;
                    self.check_patience();
                }
                Step::Rest => {
                    return match self.phase {
                        Phase::Done => Action::Done,
                        _ if self.turn.more => Action::Yield,
                        _ => Action::Wait,
                    };
                }
            }
        }
    }

    /// When the next turn is due, if nothing comes before. Most that comes moves it into the future: a host may keep an earlier
    /// timer, and look again when that fires.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.connection.poll_timeout(), self.stalled_until(), self.phase.until()].into_iter().flatten().min()
    }

    /// What a [`Read`](Action::Read) came to.
    pub fn handle_incoming(&mut self, incoming: Incoming) {
        let now = self.turn.now;
        if mem::take(&mut self.reads_paused) {
            self.connection.handle_reads_resumed(now);
        }
        let unread_since = self.unread_since.take();
        match incoming {
            Incoming::Frame(frame) => return self.connection.handle_frame(frame, now),
            Incoming::Nothing => {
                if self.broken {
                    // All that the peer has said before is heard by now.
                    self.readable = false;
                    self.connection.handle_transport_closed(now);
                }
            }
            Incoming::Enough => {
                self.turn.more = true;
                if self.turn.frames.saturating_add(1) == self.config.max_turn_frames.max(1) {
                    self.unread_since = unread_since.or(Some(now.mono));
                }
            }
            Incoming::Violation(violation) => {
                self.readable = false;
                self.connection.handle_violation(violation, now);
            }
            Incoming::Ended => {
                self.readable = false;
                self.connection.handle_transport_closed(now);
            }
        }
        self.turn.next = Step::Program;
    }

    /// Nothing was [read](Action::Read), since the program cannot take more at the moment. The peer's silence says nothing
    /// until it is read again.
    pub fn handle_reads_paused(&mut self) {
        self.unread_since = None;
        if !mem::replace(&mut self.reads_paused, true) {
            self.connection.handle_reads_paused(self.turn.now);
        }
        self.turn.next = Step::Program;
    }

    /// All that was [sent](Action::Send) has left.
    pub fn handle_flushed(&mut self) {
        self.unsent = 0;
        // What was left waiting goes on, with nobody else to begin a turn for it.
        self.turn.more |= self.stalled.take().is_some();
    }

    /// The peer takes no more at the moment. `written` counts the bytes that it has taken since the transport was opened, and may
    /// wrap around: whether it changes is what tells a slow peer from one that takes nothing.
    pub fn handle_flush_blocked(&mut self, written: u64) {
        match &mut self.stalled {
            Some(stall) if stall.written == written => {}
            stalled => {
                let before = stalled.map(|stall| stall.written);
                *stalled = Some(Stall { since: self.turn.now.mono, written });
                if let Some(before) = before {
                    let left = usize::try_from(written.wrapping_sub(before)).unwrap_or(usize::MAX);
                    self.unsent = self.unsent.saturating_sub(left);
                }
            }
        }
    }

    /// Nothing can be written any more. What the peer has said before is still read, in the next turn.
    pub fn handle_broken(&mut self) {
        self.broken = true;
        self.stalled = None;
        self.unsent = 0;
        self.turn.more = true;
        self.give_up_writing();
    }

    /// The transport has no room for what was to be sent: its peer takes too little.
    pub fn handle_overflow(&mut self) {
        self.connection.close(CloseReason::SlowPeer, self.turn.now);
    }

    /// The [`Shutdown`](Action::Shutdown) is complete, or failed.
    pub fn handle_shut_down(&mut self) {
        self.phase = Phase::Done;
    }

    /// Queues a message for the peer. It is sent in a turn, after those before it.
    ///
    /// # Errors
    /// While the peer is not authenticated, after the end, and as [`SendQueue::push`].
    pub fn send(&mut self, message: impl IntoMessage) -> Result<(), SendError> {
        match self.phase {
            Phase::Open if self.connection.is_authenticated() => self.queue.push(message),
            Phase::Open if !self.connection.is_closed() => Err(SendError::NotAuthenticated),
            _ => Err(SendError::Closed),
        }
    }

    /// Takes what waits in another queue: as much as one turn sends, and nothing as long as the peer takes nothing. In a turn
    /// it belongs to [`Program`](Action::Program). What is left there is remembered: a [graceful close](Self::close) waits for
    /// it, and another turn follows, with another `take_queued`.
    pub fn take_queued(&mut self, from: &mut SendQueue) {
        if self.sends() {
            self.queue.take_from(from, self.turn.bytes.max(1));
        }
        self.more_queued = !from.is_empty();
    }

    /// Answers an [`AdmissionRequested`](Event::AdmissionRequested), as [`Connection::decide`].
    ///
    /// # Errors
    /// As [`Connection::decide`].
    pub fn decide(&mut self, ticket: Ticket, verdict: Result<(), Refusal>, now: Now) -> Result<(), Misuse> {
        self.connection.decide(ticket, verdict, now)
    }

    /// Takes nothing more, and hands back the messages that were not given to the transport, in order.
    pub fn take_unsent(&mut self) -> Vec<Message> {
        self.queue.take_unsent()
    }

    /// What came and went since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        mem::take(&mut self.traffic)
    }

    /// What waits to be sent, beside what was left in a queue that others fill.
    pub const fn queue(&self) -> &SendQueue {
        &self.queue
    }

    /// Whether the peer does not take what it is sent.
    pub const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Whether messages can leave at the moment.
    const fn sends(&self) -> bool {
        // (A connection that is over is not authenticated either.)
        !self.broken && self.stalled.is_none() && self.connection.is_authenticated()
    }

    /// What the connection says, in its order.
    fn next_output(&mut self) -> Option<Action> {
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Send(frame) if self.may_send(&frame) => return Some(Action::Send(frame)),
                Output::Send(_) => {}
                // A peer that was told to close is not heard any more.
                Output::Event(Event::Message(_)) if self.phase.is_leaving() => {}
                Output::Event(event) => {
                    match &event {
                        Event::Message(message) => {
                            let Traffic { messages_received, bytes_received, .. } = &mut self.traffic;
                            count(messages_received, bytes_received, message.as_str().len());
                        }
                        // The program has had its say in this turn, and is to hear of it without delay.
                        _ => self.turn.more |= self.turn.next > Step::Program,
                    }
                    return Some(Action::Event(event));
                }
                Output::CloseTransport => self.connection_ended(),
            }
        }
        None
    }

    /// Whether a frame of the protocol's own may join those that wait. Where nobody takes them, the connection ends; and its last
    /// words always may.
    fn may_send(&mut self, frame: &Frame) -> bool {
        if self.broken {
            return false;
        }
        let unsent = self.unsent_with(frame.payload_len());
        let may = unsent <= self.max_unsent() || self.connection.is_closed();
        match may {
            true => self.unsent = unsent,
            false => self.handle_overflow(),
        }
        may
    }

    /// How many bytes would be unsent with one frame more.
    const fn unsent_with(&self, payload: usize) -> usize {
        self.unsent.saturating_add(payload).saturating_add(header_len(payload, self.connection.role()))
    }

    /// How many bytes may be unsent.
    fn max_unsent(&self) -> usize {
        if !self.connection.is_authenticated() {
            return FIRST_MAX_UNSENT;
        }
        let turn = self.config.max_turn_bytes.saturating_add(self.config.max_message_size);
        turn.saturating_add(OWN_WORDS)
    }

    /// Whether what a peer was answered in this turn should leave before it is read on.
    fn has_answered_enough(&self) -> bool {
        let own = if self.connection.is_authenticated() { OWN_WORDS } else { FIRST_MAX_UNSENT };
        !self.is_stalled() && self.unsent > own / 2
    }

    fn next_read(&mut self) -> Option<Action> {
        if !self.readable || !self.phase.reads() {
            return None;
        }
        let Some(left) = self.turn.frames.checked_sub(1).filter(|_| !self.has_answered_enough()) else {
            self.turn.more = true;
            return None;
        };
        self.turn.frames = left;
        let limit = match self.phase {
            // What was said before the end is still to be passed over.
            Phase::Draining(Patience::WhileTaking(_)) => self.config.max_message_size,
            _ => self.connection.receive_limit(),
        };
        Some(Action::Read { limit, heard: self.phase.hears() })
    }

    /// Whether the connection had something to do.
    fn check_clock(&mut self) -> bool {
        let now = self.turn.now;
        let due = self.connection.poll_timeout().is_some_and(|due| due <= now.mono);
        // A peer of which something waits to be read is not judged by our own delay. (But not for long, or it could keep us reading
        // without ever saying anything: by fragments without end, say.)
        let unread = self.unread_since.is_some_and(|since| now.mono < since.after(UNREAD_PATIENCE));
        let due = due && !(unread && self.connection.is_authenticated());
        // Early, it does nothing; but it notices that nobody is left to decide.
        if due || !self.connection.is_authenticated() {
            self.connection.handle_timeout(now);
        }
        if due {
            self.queue.release_spare_room();
        }
        due
    }

    /// The next message, if one waits and the turn's bounds allow it.
    fn next_message(&mut self) -> Option<Frame> {
        if !self.sends() {
            return None;
        }
        let Some(unsent) = self.unsent_with_next() else {
            self.turn.more |= self.more_queued || !self.queue.is_empty();
            return None;
        };
        let message = self.queue.pop()?;
        let size = message.as_str().len();
        self.turn.bytes = self.turn.bytes.saturating_sub(queue::cost(&message));
        self.unsent = unsent;
        let Traffic { messages_sent, bytes_sent, .. } = &mut self.traffic;
        count(messages_sent, bytes_sent, size);
        // What can be wrong with it was checked when it was queued.
        Some(Frame::Text(message.into_text()))
    }

    /// How many bytes would be unsent with the next message; `None` if there is none, or no room for it before the next flush.
    fn unsent_with_next(&self) -> Option<usize> {
        let unsent = self.unsent_with(self.queue.front()?.as_str().len());
        (self.turn.bytes > 0 && (unsent <= self.max_unsent() || self.unsent == 0)).then_some(unsent)
    }
}

/// What a frame takes on the wire beside its payload (RFC 6455 §5.2).
const fn header_len(payload: usize, role: Role) -> usize {
    let mask = match role {
        Role::Client => 4,
        Role::Server => 0,
    };
    let length: usize = match payload {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    length.saturating_add(mask)
}

fn count(messages: &mut u64, bytes: &mut u64, size: usize) {
    *messages = messages.saturating_add(1);
    *bytes = bytes.saturating_add(size as u64);
}
