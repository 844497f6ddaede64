//! Every state of a connection and every transition between them.
//!
//! A state is a struct that holds only what it needs. A transition consumes the state it leaves and returns
//! the one it enters, so a missing case does not compile. `Authenticated`, where a connection spends its life, is changed
//! in its place and says for what reason it ends, if it does: moving it would cost as much as all else that is done for
//! a ping. The states and their transitions:
//!
//! ```text
//! server:  AwaitingAuthenticate ──proof──▶ AwaitingDecision ──admitted──▶ Authenticated
//! client:  AwaitingAnswer ─────────────────proof────────────────────────▶ Authenticated
//! any:     ──refused, violated, timed out, closed, lost──▶ Closed
//! ```

use alloc::collections::VecDeque;
use core::time::Duration;

use bytestring::ByteString;

use super::{
    Role,
    room::Room,
    ticket::{Stub, Ticket},
    timers::{IdleGuard, Pulse, due},
};
use crate::{
    config::Config,
    error::{CloseReason, Misuse, Refusal, Violation},
    event::{Event, Output, Protection},
    frame::Frame,
    handshake::{self, Proof},
    identity::Address,
    message::{Received, Status},
    time::{Instant, Now},
};

#[derive(Debug)]
pub(super) enum State {
    AwaitingAuthenticate(AwaitingAuthenticate),
    AwaitingDecision(AwaitingDecision),
    AwaitingAnswer(AwaitingAnswer),
    Authenticated(Authenticated),
    Closed,
}

/// Server: the client has yet to prove who it is.
#[derive(Debug)]
pub(super) struct AwaitingAuthenticate {
    since: Instant,
}

/// Server: the client has proved its address, and policy has yet to say whether it gets in.
#[derive(Debug)]
pub(super) struct AwaitingDecision {
    since: Instant,
    stub: Stub,
}

/// Client: our proof is out, and the server has yet to answer with its own.
#[derive(Debug)]
pub(super) struct AwaitingAnswer {
    since: Instant,
}

/// Both sides are verified.
#[derive(Debug)]
pub(super) struct Authenticated {
    peer: Address,
    protection: Protection,
    idle: IdleGuard,
    pulse: Pulse,
    /// Server: a `heartbeat` is out and not answered yet.
    asked: bool,
}

/// What a transition may read, the queue that it may add to, and the room to write in.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) role: Role,
    pub(super) config: &'a Config,
    pub(super) reads_paused: bool,
    pub(super) outputs: &'a mut VecDeque<Output>,
    pub(super) room: &'a mut Room,
}

impl State {
    pub(super) fn client(cx: &mut Context<'_>) -> Self {
        cx.send(Frame::Text(handshake::prove(&cx.config.wallet, cx.now.wall)));
        Self::AwaitingAnswer(AwaitingAnswer { since: cx.now.mono })
    }

    pub(super) fn server(cx: &mut Context<'_>) -> Self {
        Self::AwaitingAuthenticate(AwaitingAuthenticate { since: cx.now.mono })
    }

    pub(super) const fn peer(&self) -> Option<Address> {
        match self {
            Self::Authenticated(state) => Some(state.peer),
            _ => None,
        }
    }

    pub(super) const fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Authenticated(state) => state.pulse.round_trip(),
            _ => None,
        }
    }

    pub(super) const fn protection(&self) -> Option<Protection> {
        match self {
            Self::Authenticated(state) => Some(state.protection),
            _ => None,
        }
    }

    pub(super) fn awaits(&self, ticket: &Ticket) -> Result<(), Misuse> {
        match self {
            Self::AwaitingDecision(state) if state.stub.belongs_to(ticket) => Ok(()),
            Self::AwaitingDecision(_) | Self::AwaitingAuthenticate(_) | Self::AwaitingAnswer(_) => {
                Err(Misuse::ForeignTicket)
            }
            Self::Authenticated(_) | Self::Closed => Err(Misuse::LateTicket),
        }
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let authentication = |since| due(since, config.auth_timeout, config.auth_check_interval);
        match self {
            Self::AwaitingAuthenticate(state) => authentication(state.since),
            Self::AwaitingDecision(state) => authentication(state.since),
            Self::AwaitingAnswer(state) => authentication(state.since),
            Self::Authenticated(state) => state.deadline(config),
            Self::Closed => None,
        }
    }

    pub(super) fn on_frame(&mut self, frame: Frame, cx: &mut Context<'_>) {
        match self {
            Self::Authenticated(state) => {
                let reason = state.on_frame(frame, cx);
                self.end_if(reason, cx);
            }
            _ => self.advance(|state| match state {
                Self::AwaitingAuthenticate(state) => state.on_frame(frame, cx),
                Self::AwaitingDecision(state) => state.on_frame(frame, cx),
                Self::AwaitingAnswer(state) => state.on_frame(frame, cx),
                Self::Authenticated(_) | Self::Closed => state,
            }),
        }
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>) {
        let reason = match self {
            Self::Authenticated(state) => state.on_timeout(cx),
            // Until then there is only the authentication deadline.
            _ => self
                .deadline(cx.config)
                .filter(|deadline| cx.now.mono >= *deadline)
                .map(|_| CloseReason::AuthenticationTimeout(cx.config.auth_timeout)),
        };
        self.end_if(reason, cx);
    }

    pub(super) fn on_reads_paused(&mut self) {
        if let Self::Authenticated(state) = self {
            state.idle.pause();
        }
    }

    pub(super) fn on_reads_resumed(&mut self, cx: &mut Context<'_>) {
        if let Self::Authenticated(state) = self {
            state.idle.resume(cx.now.mono);
        }
    }

    pub(super) fn on_decision(&mut self, verdict: Result<(), Refusal>, cx: &mut Context<'_>) {
        self.advance(|state| match state {
            Self::AwaitingDecision(state) => match verdict {
                Ok(()) => {
                    cx.send(Frame::Text(handshake::prove(&cx.config.wallet, cx.now.wall)));
                    Authenticated::enter(state.stub.address(), cx)
                }
                Err(refusal) => Self::AwaitingDecision(state).end(refusal.into(), cx),
            },
            other => other,
        });
    }

    /// Nobody holds the ticket any more, so nobody will decide.
    pub(super) fn notice_dropped_ticket(&mut self, cx: &mut Context<'_>) {
        if let Self::AwaitingDecision(state) = self
            && state.stub.is_ticket_gone()
        {
            self.on_close(Refusal::Denied.into(), cx);
        }
    }

    pub(super) fn on_close(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        self.advance(|state| match state {
            Self::Closed => Self::Closed,
            open => open.end(reason, cx),
        });
    }

    fn end_if(&mut self, reason: Option<CloseReason>, cx: &mut Context<'_>) {
        if let Some(reason) = reason {
            self.on_close(reason, cx);
        }
    }

    fn advance(&mut self, transition: impl FnOnce(Self) -> Self) {
        // `Closed` is also what would remain if a transition panicked, which none does.
        *self = transition(core::mem::replace(self, Self::Closed));
    }

    /// The only way into `Closed`: the status text that JavaScript peers know, the close frame, the end of the
    /// transport, and the one terminal event, in this order.
    fn end(self, reason: CloseReason, cx: &mut Context<'_>) -> Self {
        if cx.role == Role::Server
            && let Some(status) = reason.status()
        {
            let text = match self {
                Self::Authenticated(_) => status.quoted_text(),
                _ => status.text(),
            };
            cx.send(Frame::Text(ByteString::from_static(text)));
        }
        if let Some(close) = reason.close_frame(cx.role) {
            cx.send(Frame::Close(Some(close)));
        }
        cx.outputs.push_back(Output::CloseTransport);
        cx.emit(Event::Closed { reason });
        Self::Closed
    }
}

impl AwaitingAuthenticate {
    fn on_frame(self, frame: Frame, cx: &mut Context<'_>) -> State {
        let outcome = match cx.read(frame, cx.config.max_unauthenticated_message_size) {
            Ok(Incoming::Control) => return State::AwaitingAuthenticate(self),
            Ok(Incoming::Closed(reason)) => Err(reason),
            Ok(Incoming::Text(Received::Authenticate(message))) => {
                handshake::verify(&message, cx.now.wall, cx.config.auth_window).map_err(CloseReason::from)
            }
            Ok(Incoming::Text(Received::NotJson)) => Err(Violation::NotJson.into()),
            Ok(Incoming::Text(_)) => Err(Violation::UnexpectedMessage.into()),
            Err(violation) => Err(violation.into()),
        };
        match outcome {
            Ok(proof) => self.ask_admission(proof, cx),
            Err(reason) => State::AwaitingAuthenticate(self).end(reason, cx),
        }
    }

    fn ask_admission(self, proof: Proof, cx: &mut Context<'_>) -> State {
        let (ticket, stub) = Ticket::issue(proof);
        cx.emit(Event::AdmissionRequested { ticket });
        State::AwaitingDecision(AwaitingDecision { since: self.since, stub })
    }
}

impl AwaitingDecision {
    /// No honest client speaks now, except that it answers what it takes for a heartbeat.
    fn on_frame(self, frame: Frame, cx: &mut Context<'_>) -> State {
        let reason = match cx.read(frame, cx.config.max_unauthenticated_message_size) {
            Ok(Incoming::Control | Incoming::Text(Received::Heartbeat)) => {
                return State::AwaitingDecision(self);
            }
            Ok(Incoming::Closed(reason)) => reason,
            Ok(Incoming::Text(Received::NotJson)) => Violation::NotJson.into(),
            Ok(Incoming::Text(_)) => Violation::UnexpectedMessage.into(),
            Err(violation) => violation.into(),
        };
        State::AwaitingDecision(self).end(reason, cx)
    }
}

impl AwaitingAnswer {
    fn on_frame(self, frame: Frame, cx: &mut Context<'_>) -> State {
        let reason = match cx.read(frame, cx.config.max_unauthenticated_message_size) {
            Ok(Incoming::Control) => return State::AwaitingAnswer(self),
            Ok(Incoming::Text(Received::Heartbeat)) => {
                cx.send_heartbeat();
                return State::AwaitingAnswer(self);
            }
            Ok(Incoming::Text(Received::Authenticate(message))) => {
                match handshake::verify(&message, cx.now.wall, cx.config.auth_window)
                    .and_then(|proof| expected(proof.address, cx.config))
                {
                    Ok(server) => return Authenticated::enter(server, cx),
                    Err(violation) => violation.into(),
                }
            }
            Ok(Incoming::Closed(reason)) => reason,
            Ok(Incoming::Text(Received::Status(status))) => CloseReason::RefusedByServer(status),
            Ok(Incoming::Text(Received::NotJson)) => Violation::NotJson.into(),
            Ok(Incoming::Text(Received::Application(_))) => Violation::UnexpectedMessage.into(),
            Err(violation) => violation.into(),
        };
        State::AwaitingAnswer(self).end(reason, cx)
    }
}

/// Whether this is a server that the client wants to talk to.
fn expected(server: Address, config: &Config) -> Result<Address, Violation> {
    if config.expected_servers.contains(&server) {
        Ok(server)
    } else if server == config.wallet.address() {
        Err(Violation::Reflected)
    } else if config.expected_servers.is_empty() {
        Ok(server)
    } else {
        Err(Violation::UnexpectedServer(server))
    }
}

impl Authenticated {
    fn enter(peer: Address, cx: &mut Context<'_>) -> State {
        let protection = Protection::Transport;
        cx.emit(Event::Authenticated { address: peer, protection });
        let mut idle = IdleGuard::started(cx.now.mono);
        // The caller may have stopped reading while the decision was awaited.
        if cx.reads_paused {
            idle.pause();
        }
        State::Authenticated(Self {
            peer,
            protection,
            idle,
            pulse: Pulse::started(cx.now.mono, cx.config.heartbeat_interval),
            asked: false,
        })
    }

    fn deadline(&self, config: &Config) -> Option<Instant> {
        match self.pulse.deadline() {
            Some(beat) if self.idle.is_due_after(beat, config.idle_timeout) => Some(beat),
            beat => {
                let idle = self.idle.deadline(config.idle_timeout, config.idle_check_interval);
                [idle, beat].into_iter().flatten().min()
            }
        }
    }

    fn on_frame(&mut self, frame: Frame, cx: &mut Context<'_>) -> Option<CloseReason> {
        self.idle.hear(cx.now.mono);
        if let Frame::Pong(payload) = &frame {
            self.pulse.pong(payload, cx.now.mono);
        }
        match cx.read(frame, cx.config.max_message_size) {
            Ok(Incoming::Control) => None,
            Ok(Incoming::Text(received)) => self.on_text(received, cx),
            Ok(Incoming::Closed(reason)) => Some(reason),
            Err(violation) => Some(violation.into()),
        }
    }

    fn on_text(&mut self, received: Received, cx: &mut Context<'_>) -> Option<CloseReason> {
        match (received, cx.role) {
            (Received::Application(message), _) => cx.emit(Event::Message(message)),
            (Received::Heartbeat, Role::Client) => {
                cx.send_heartbeat();
                cx.emit(Event::Heartbeat { round_trip: self.pulse.round_trip() });
            }
            // One answer to each that was asked for: a flood of them is nothing to tell.
            (Received::Heartbeat, Role::Server) => {
                if core::mem::take(&mut self.asked) {
                    cx.emit(Event::Heartbeat { round_trip: self.pulse.round_trip() });
                }
            }
            // A second `authenticate` never changes an identity.
            (Received::Authenticate(_), _) => {}
            (Received::Status(status), _) => return Some(told_to_go(status)),
            (Received::NotJson, _) => cx.emit(Event::Error(Violation::NotJson)),
        }
        None
    }

    fn on_timeout(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        let (now, config) = (cx.now.mono, cx.config);
        if self.idle.expired(now, config.idle_timeout, config.idle_check_interval) {
            return Some(CloseReason::Idle(config.idle_timeout));
        }
        if let Some(payload) = self.pulse.beat(now, config.heartbeat_interval) {
            let ping = cx.room.ping(payload);
            cx.send(Frame::Ping(ping));
            if cx.role == Role::Server {
                cx.send_heartbeat();
                self.asked = true;
            }
        }
        None
    }
}

/// What a status means to a client that was authenticated.
fn told_to_go(status: Status) -> CloseReason {
    match status {
        Status::Conflict => CloseReason::Replaced,
        other => CloseReason::RefusedByServer(other),
    }
}

/// A frame as the states see it.
enum Incoming {
    Text(Received),
    /// A ping or a pong.
    Control,
    Closed(CloseReason),
}

impl Context<'_> {
    fn send(&mut self, frame: Frame) {
        self.outputs.push_back(Output::Send(frame));
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn send_heartbeat(&mut self) {
        let text = self.room.heartbeat(self.now.wall);
        self.send(Frame::Text(text));
    }

    fn read(&self, frame: Frame, limit: usize) -> Result<Incoming, Violation> {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Binary(bytes) if bytes.len() > limit => return Err(Violation::MessageTooLarge { limit }),
            Frame::Binary(bytes) => match ByteString::try_from(bytes) {
                Ok(text) => text,
                // A binary frame may hold anything; it just is not JSON.
                Err(_) => return Ok(Incoming::Text(Received::NotJson)),
            },
            Frame::Ping(_) | Frame::Pong(_) => return Ok(Incoming::Control),
            Frame::Close(close) => {
                let code = close.map(|close| close.code);
                return Ok(Incoming::Closed(CloseReason::PeerClosed { code }));
            }
        };
        if text.len() > limit {
            return Err(Violation::MessageTooLarge { limit });
        }
        Ok(Incoming::Text(match self.role {
            Role::Client => Received::from_server(text),
            Role::Server => Received::from_client(text),
        }))
    }
}
