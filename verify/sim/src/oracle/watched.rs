//! A real `Endpoint` with the oracle looking over its shoulder: the same inputs and outputs, each checked.

use core::time::Duration;
use std::sync::Arc;

use link_core::{
    Action, Address, ByteString, CloseReason, Config, Connection, Endpoint, Event, Frame, Incoming, Instant,
    IntoMessage, Misuse, Now, Output, Proof, Refusal, Role, SendError, SendQueue, Status, Ticket, Violation,
};

use super::{
    Invariant, Oracle,
    ending::{Claim, is_known_text},
};
use crate::{
    network::{End, Side, frame_weight},
    sometimes::{Mark, Marks},
};

/// What a connection of link-core takes at most, in bytes, beside the messages that pass through it: itself with all that
/// hosts it, and what waits in its queue after one input.
pub const MEMORY_PER_CONNECTION: usize = 2048;

/// What one input makes a connection say at most: a status text, a close frame, the end of the transport, the end.
const OUTPUTS_PER_INPUT: usize = 4;

/// How long something may wait to be read, and keep its sender from being judged.
const UNREAD_PATIENCE: Duration = Duration::from_secs(1);
/// How long the peer's end may take.
const LINGER: Duration = Duration::from_secs(1);

/// What came in last, as far as it can be the cause of something.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Frame(Frame),
    /// Nothing but a turn: the clock, a peer that took nothing for too long, the last message before a close.
    Turn,
    Paused,
    TransportClosed,
    /// Writing has failed.
    Broken,
    Violation(Violation),
    Decision(Result<(), Refusal>),
    Close(CloseReason),
}

/// A moment in the life of a connection that wants a reason.
#[derive(Debug)]
pub(super) struct Turning {
    pub(super) cause: Cause,
    pub(super) now: Now,
    pub(super) was_authenticated: bool,
    pub(super) idle_due: Option<Instant>,
    /// Whether a peer that takes nothing had had its time.
    pub(super) lost_patience: bool,
}

#[derive(Debug)]
pub(crate) struct Watched {
    endpoint: Endpoint,
    pub(super) end: End,
    pub(super) role: Role,
    pub(super) config: Arc<Config>,
    opened: Instant,
    /// The time of the turn.
    now: Now,
    reads_paused: bool,
    /// In this turn something was read; or something was there to be read, and nothing was, since then.
    read: bool,
    unread_since: Option<Instant>,
    /// The proofs that came in before authentication, with the time at which they did.
    pub(super) claims: Vec<(Claim, Now)>,
    pub(super) asked: Option<Proof>,
    authenticated: Option<Address>,
    heard: Option<Instant>,
    pub(crate) ticket_dropped: bool,
    /// It was told to close, and to send what waits first.
    pub(super) leaving: Option<CloseReason>,
    broken: bool,
    /// The peer takes nothing, since then, after so many bytes.
    stalled: Option<(Instant, u64)>,
    /// In this turn it was tried whether it takes something.
    tried: bool,
    ending: Option<Turning>,
    told_the_end: bool,
    ended: Option<Ended>,
    inputs: usize,
    outputs: usize,
    own_bytes: usize,
}

/// From the end of a connection to that of its transport.
#[derive(Debug)]
struct Ended {
    at: Instant,
    /// What was sent before arrives, however long the peer takes for it.
    gracefully: bool,
    all_left: Option<Instant>,
}

/// When `timeout` after `start` is due, rounded up to `step`: the specification's words, in other code.
fn due(start: Instant, timeout: Duration, step: Duration) -> Option<Instant> {
    if timeout.is_zero() {
        return None;
    }
    let raw = start.since_origin().saturating_add(timeout);
    let steps = raw.as_nanos().checked_div(step.as_nanos()).unwrap_or(0);
    let floor = u32::try_from(steps).ok().and_then(|steps| step.checked_mul(steps)).unwrap_or(raw);
    let rounded = if floor >= raw || step.is_zero() { raw } else { floor.saturating_add(step) };
    Some(Instant::from_origin(rounded))
}

impl Watched {
    pub(crate) fn new(end: End, config: Arc<Config>, now: Now) -> Self {
        let connection = match end.side {
            Side::Client => Connection::client(config.clone(), now),
            Side::Server => Connection::server(config.clone(), now),
        };
        Self {
            role: connection.role(),
            endpoint: Endpoint::new(connection),
            end,
            config,
            opened: now.mono,
            now,
            reads_paused: false,
            read: false,
            unread_since: None,
            claims: Vec::new(),
            asked: None,
            authenticated: None,
            heard: None,
            ticket_dropped: false,
            leaving: None,
            broken: false,
            stalled: None,
            tried: false,
            ending: None,
            told_the_end: false,
            ended: None,
            inputs: 1,
            outputs: 0,
            own_bytes: 0,
        }
    }

    pub(crate) const fn connection(&self) -> &Connection {
        self.endpoint.connection()
    }

    pub(crate) const fn queue(&self) -> &SendQueue {
        self.endpoint.queue()
    }

    pub(crate) const fn is_stalled(&self) -> bool {
        self.endpoint.is_stalled()
    }

    /// Whether nothing can be written any more.
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout()
    }

    /// The moment on its own clock at which the oracle will have this connection gone, unless something comes.
    pub(crate) fn must_end_by(&self) -> Option<Instant> {
        if let Some(ended) = &self.ended {
            return match ended {
                Ended { gracefully: true, all_left: None, .. } => self.patience_due(),
                Ended { gracefully: true, all_left: Some(left), .. } => Some(left.after(LINGER)),
                Ended { at, .. } => Some(at.after(LINGER)),
            };
        }
        if self.connection().is_authenticated() {
            self.idle_due()
        } else {
            due(self.opened, self.config.auth_timeout, self.config.auth_check_interval)
        }
    }

    /// The moment at which a peer that takes nothing has had its time.
    pub(crate) fn must_lose_patience_by(&self) -> Option<Instant> {
        if self.connection().is_closed() { None } else { self.patience_due() }
    }

    fn patience_due(&self) -> Option<Instant> {
        let patience = match self.leaving {
            Some(CloseReason::ShuttingDown) => LINGER,
            _ => self.config.send_timeout,
        };
        self.stalled.map(|(since, _)| since.after(patience))
    }

    /// Whether what waits may stay behind: nobody closed gracefully, nothing can be written, or the peer has had its time.
    pub(crate) fn may_cut_off(&self, would_take: bool) -> bool {
        let graceful = self.ended.as_ref().is_some_and(|ended| ended.gracefully);
        !graceful || self.broken || (self.has_had_its_time() && !would_take)
    }

    /// Whether a peer that takes nothing has had its time, and has just shown that it still does not.
    fn has_had_its_time(&self) -> bool {
        self.tried && self.is_patience_over()
    }

    pub(crate) fn is_patience_over(&self) -> bool {
        self.patience_due().is_some_and(|due| due <= self.now.mono)
    }

    fn idle_due(&self) -> Option<Instant> {
        due(self.heard?, self.config.idle_timeout, self.config.idle_check_interval)
    }

    pub(crate) fn begin_turn(&mut self, now: Now, oracle: &mut Oracle) {
        self.now = now;
        (self.read, self.tried) = (false, false);
        self.input(Cause::Turn, oracle, |endpoint| endpoint.begin_turn(now));
    }

    pub(crate) fn handle_incoming(&mut self, incoming: Incoming, oracle: &mut Oracle, marks: &mut Marks) {
        let resumed = core::mem::take(&mut self.reads_paused);
        if resumed && self.connection().is_authenticated() {
            self.heard = Some(self.now.mono);
        }
        let unread_since = self.unread_since.take();
        let cause = match &incoming {
            Incoming::Frame(frame) => {
                self.read = true;
                self.note_frame(frame, marks);
                Cause::Frame(frame.clone())
            }
            Incoming::Violation(violation) => Cause::Violation(*violation),
            Incoming::Ended => Cause::TransportClosed,
            Incoming::Nothing if self.broken => Cause::TransportClosed,
            Incoming::Nothing => Cause::Turn,
            Incoming::Enough => {
                self.unread_since = (!self.read).then(|| unread_since.unwrap_or(self.now.mono));
                Cause::Turn
            }
        };
        self.input(cause, oracle, |endpoint| endpoint.handle_incoming(incoming));
    }

    fn note_frame(&mut self, frame: &Frame, marks: &mut Marks) {
        let connection = self.endpoint.connection();
        let (authenticated, closed) = (connection.is_authenticated(), connection.is_closed());
        let claim = Claim::read(frame);
        marks.reach_if(closed, Mark::FrameAfterTheEnd);
        marks.reach_if(authenticated && claim.is_some(), Mark::SecondAuthenticate);
        if !authenticated && !closed {
            self.claims.extend(claim.map(|claim| (claim, self.now)));
        }
        if let Some(heard) = &mut self.heard {
            *heard = self.now.mono.max(*heard);
        }
    }

    pub(crate) fn handle_reads_paused(&mut self, oracle: &mut Oracle) {
        self.reads_paused = true;
        self.unread_since = None;
        self.heard = None;
        self.input(Cause::Paused, oracle, Endpoint::handle_reads_paused);
    }

    pub(crate) fn handle_flushed(&mut self) {
        self.stalled = None;
        if let Some(ended) = &mut self.ended {
            ended.all_left.get_or_insert(self.now.mono);
        }
        self.endpoint.handle_flushed();
    }

    /// The wire has taken `written` bytes so far, and the endpoint is `told` a number.
    pub(crate) fn handle_flush_blocked(&mut self, written: u64, told: u64) {
        self.tried = true;
        if self.stalled.is_none_or(|(_, before)| before != written) {
            self.stalled = Some((self.now.mono, written));
        }
        self.endpoint.handle_flush_blocked(told);
    }

    pub(crate) fn handle_broken(&mut self, oracle: &mut Oracle) {
        self.broken = true;
        self.stalled = None;
        self.input(Cause::Broken, oracle, Endpoint::handle_broken);
    }

    pub(crate) fn handle_shut_down(&mut self) {
        self.endpoint.handle_shut_down();
    }

    pub(crate) fn take_queued(&mut self, from: &mut SendQueue) {
        self.endpoint.take_queued(from);
    }

    pub(crate) fn send(&mut self, message: impl IntoMessage) -> Result<(), SendError> {
        self.endpoint.send(message)
    }

    /// `hears` is false where the host forgets to pass it on.
    pub(crate) fn close(&mut self, reason: CloseReason, now: Now, hears: bool, oracle: &mut Oracle) {
        self.now = now;
        let graceful = matches!(reason, CloseReason::Local | CloseReason::ShuttingDown);
        let connection = self.connection();
        let cause = match (graceful, connection.is_authenticated() && !self.broken) {
            (true, true) => {
                let hurry = self.leaving == Some(CloseReason::ShuttingDown);
                let again = self.leaving.is_some() && reason == CloseReason::Local;
                if !hurry && !again {
                    self.leave(reason.clone());
                }
                Cause::Turn
            }
            _ if connection.is_closed() => {
                self.note_close_after_the_end(&reason);
                Cause::Close(reason.clone())
            }
            _ => Cause::Close(reason.clone()),
        };
        self.input(cause, oracle, |endpoint| {
            if hears {
                endpoint.close(reason, now);
            }
        });
    }

    /// Of a time that is shorter, a peer that takes nothing has had nothing yet.
    fn leave(&mut self, reason: CloseReason) {
        let hurried = reason == CloseReason::ShuttingDown && self.leaving != Some(CloseReason::ShuttingDown);
        if let Some((since, _)) = self.stalled.as_mut().filter(|_| hurried) {
            *since = self.now.mono;
        }
        self.leaving = Some(reason);
    }

    /// Somebody else wants its end, while the last words leave.
    fn note_close_after_the_end(&mut self, reason: &CloseReason) {
        let now = self.now.mono;
        let Some(ended) = self.ended.as_mut().filter(|ended| ended.gracefully && ended.all_left.is_none())
        else {
            return;
        };
        match reason {
            CloseReason::Local => {}
            CloseReason::ShuttingDown => self.leave(CloseReason::ShuttingDown),
            _ => (ended.gracefully, ended.at) = (false, now),
        }
    }

    pub(crate) fn decide(
        &mut self,
        ticket: Ticket,
        verdict: Result<(), Refusal>,
        now: Now,
        oracle: &mut Oracle,
        marks: &mut Marks,
    ) -> Result<(), Misuse> {
        self.now = now;
        let (end, was_closed) = (self.end, self.connection().is_closed());
        let mut outcome = Ok(());
        self.input(Cause::Decision(verdict), oracle, |endpoint| {
            outcome = endpoint.decide(ticket, verdict, now);
        });
        if was_closed {
            marks.reach(Mark::LateVerdict);
            oracle.check(Invariant::LateVerdictsChangeNothing, outcome == Err(Misuse::LateTicket), || {
                format!("{end} answers a late verdict with {outcome:?}")
            });
        }
        outcome
    }

    fn input(&mut self, cause: Cause, oracle: &mut Oracle, input: impl FnOnce(&mut Endpoint)) {
        let (was_closed, was_authenticated) =
            (self.connection().is_closed(), self.connection().is_authenticated());
        let (idle_due, lost_patience) = (self.idle_due(), self.has_had_its_time());
        input(&mut self.endpoint);
        self.inputs = self.inputs.saturating_add(1);
        let connection = self.endpoint.connection();
        let (is_closed, is_authenticated) = (connection.is_closed(), connection.is_authenticated());
        let (end, now) = (self.end, self.now);
        if was_closed {
            let silent = is_closed && !is_authenticated && connection.poll_timeout().is_none();
            oracle.check(Invariant::NothingAfterTheEnd, silent, || {
                format!("{end} lives again after {cause:?}")
            });
            return;
        }
        if !was_authenticated && is_authenticated {
            self.heard = (!self.reads_paused).then_some(now.mono);
            self.check_authentication(&cause, now, oracle);
        }
        let must_end = match &cause {
            Cause::TransportClosed | Cause::Violation(_) | Cause::Close(_) => true,
            Cause::Frame(Frame::Close(_)) | Cause::Decision(Err(_)) => true,
            Cause::Frame(Frame::Text(text)) => self.role == Role::Client && Status::from_text(text).is_some(),
            _ => false,
        };
        oracle.check(Invariant::CausesHaveEndings, is_closed || !must_end, || {
            format!("{end} goes on after {cause:?}")
        });
        if is_closed {
            let gracefully = self.leaving.is_some()
                && matches!(cause, Cause::Turn)
                && !lost_patience
                && idle_due.is_none_or(|due| due > now.mono);
            self.ended = Some(Ended { at: now.mono, gracefully, all_left: None });
            self.ending = Some(Turning { cause, now, was_authenticated, idle_due, lost_patience });
        }
    }

    /// The next action, checked.
    pub(crate) fn poll_action(&mut self, oracle: &mut Oracle, marks: &mut Marks) -> Action {
        let mut action = Action::Wait;
        self.input(Cause::Turn, oracle, |endpoint| action = endpoint.poll_action());
        let end = self.end;
        match &action {
            Action::Send(frame) => self.check_sent(frame, oracle),
            Action::Event(event) => self.check_event(event, oracle),
            Action::Yield | Action::Wait | Action::Done => {
                self.check_memory(oracle);
                self.check_turn(&action, oracle, marks);
            }
            Action::Shutdown => {
                let ended = self.connection().is_closed();
                oracle
                    .check(Invariant::CausesHaveEndings, ended, || format!("{end} ends a living transport"));
            }
            _ => {}
        }
        action
    }

    /// At the end of a turn.
    fn check_turn(&mut self, action: &Action, oracle: &mut Oracle, marks: &mut Marks) {
        let (end, now) = (self.end, self.now);
        if let Action::Wait = action {
            let next = self.endpoint.poll_timeout();
            oracle.check(Invariant::DeadlinesAdvance, next.is_none_or(|next| next > now.mono), || {
                format!("{end} has its next deadline at {next:?}, and it is {:?}", now.mono)
            });
            let waits = self.leaving.is_none()
                || self.connection().is_closed()
                || self.endpoint.is_stalled()
                || !self.endpoint.queue().is_empty();
            oracle.check(Invariant::CausesHaveEndings, waits, || {
                format!("{end} was told to close, and goes on")
            });
        }
        if self.connection().is_closed() {
            return;
        }
        let stranger_due = self.must_end_by().filter(|_| !self.connection().is_authenticated());
        oracle.check(
            Invariant::StrangersAreGoneInTime,
            stranger_due.is_none_or(|due| now.mono < due),
            || format!("{end} is still there at {:?}", now.mono),
        );
        let unread = self.unread_since.is_some_and(|since| now.mono.since(since) < UNREAD_PATIENCE);
        if let Some(due) = self.idle_due().filter(|due| now.mono >= *due && !unread) {
            let overslept = now.mono.since(due) > self.config.idle_timeout;
            marks.reach_if(overslept, Mark::Overslept);
            self.heard = Some(now.mono);
            oracle.check(Invariant::DeadPeersAreNoticed, overslept, || {
                format!("{end} is silent since before {due:?} and was not judged at {:?}", now.mono)
            });
        }
    }

    fn check_sent(&mut self, frame: &Frame, oracle: &mut Oracle) {
        let end = self.end;
        self.outputs = self.outputs.saturating_add(1);
        oracle.check(Invariant::NothingAfterTheEnd, !self.told_the_end, || {
            format!("{end} sends {frame:?} after it has told its end")
        });
        if let Frame::Text(text) = frame {
            let own = is_known_text(text);
            oracle.check(Invariant::NothingBeforeAuthentication, own || self.authenticated.is_some(), || {
                format!("{end} sends {text:?} before it is authenticated")
            });
            if !own {
                return;
            }
            if let Some(claim) = Claim::read(frame) {
                oracle.note_signature(self.config.wallet.address(), claim.timestamp);
            }
        }
        self.own_bytes = self.own_bytes.saturating_add(frame_weight(frame));
    }

    fn check_event(&mut self, event: &Event, oracle: &mut Oracle) {
        let end = self.end;
        self.outputs = self.outputs.saturating_add(1);
        let after_the_end = self.told_the_end && !matches!(event, Event::Closed { .. });
        oracle.check(Invariant::NothingAfterTheEnd, !after_the_end, || {
            format!("{end} says {event:?} after its end")
        });
        match event {
            Event::AdmissionRequested { ticket } => {
                let proof = ticket.proof();
                let first = self.asked.replace(proof).is_none() && self.role == Role::Server;
                oracle
                    .check(Invariant::PolicyIsAskedOnce, first, || format!("{end} asks for admission again"));
                self.check_proof(proof, oracle);
                oracle.note_proved(end, proof.address);
            }
            Event::Authenticated { address, .. } => {
                let first = self.authenticated.replace(*address).is_none();
                oracle.check(Invariant::AddressesAreProved, first, || {
                    format!("{end} changes its peer to {address}")
                });
                self.check_peer(*address, oracle);
            }
            Event::Message(message) => {
                oracle.check(Invariant::NothingBeforeAuthentication, self.authenticated.is_some(), || {
                    format!("{end} delivers {message:?} before it is authenticated")
                });
                oracle.check(Invariant::NothingAfterTheEnd, self.leaving.is_none(), || {
                    format!("{end} delivers {message:?} though it was told to close")
                });
                let text: ByteString = message.clone().into_text();
                oracle.note_delivered(end, &text);
            }
            Event::Closed { reason } => {
                let first = !core::mem::replace(&mut self.told_the_end, true);
                oracle.check(Invariant::OneTerminalEvent, first && self.ended.is_some(), || {
                    format!("{end} tells an end that is none, or twice")
                });
                if self.authenticated.is_none() {
                    oracle.note_shut(end);
                }
                match self.ending.take() {
                    Some(turning) => self.check_ending(reason, &turning, oracle),
                    None => oracle.fail(Invariant::EndingsHaveCauses, || {
                        format!("{end} ends as {reason:?} out of the blue")
                    }),
                }
            }
            _ => {}
        }
    }

    fn check_memory(&mut self, oracle: &mut Oracle) {
        let (inputs, outputs, own) = (self.inputs, self.outputs, self.own_bytes);
        (self.inputs, self.outputs, self.own_bytes) = (0, 0, 0);
        let queue = size_of::<Output>().saturating_mul(outputs).saturating_add(own);
        let bound = MEMORY_PER_CONNECTION.saturating_sub(size_of::<Endpoint>()).saturating_mul(inputs);
        let holds = queue <= bound && outputs <= inputs.saturating_mul(OUTPUTS_PER_INPUT);
        oracle.check(Invariant::MemoryIsBounded, holds, || {
            format!("{} has {outputs} outputs of {queue} bytes after {inputs} inputs", self.end)
        });
    }
}

const _: () = {
    assert!(size_of::<Endpoint>() + OUTPUTS_PER_INPUT * size_of::<Output>() <= MEMORY_PER_CONNECTION);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_rounded_up_as_the_specification_says() {
        let at = |millis| Instant::from_origin(Duration::from_millis(millis));
        let second = Duration::from_secs(1);
        assert_eq!(due(at(1), Duration::from_secs(5), second), Some(at(6000)));
        assert_eq!(due(at(1000), Duration::from_secs(5), second), Some(at(6000)));
        assert_eq!(due(at(1), Duration::from_secs(5), Duration::ZERO), Some(at(5001)));
        assert_eq!(due(at(1), Duration::ZERO, second), None);
    }
}
