//! A real `Connection` with the oracle looking over its shoulder: the same inputs and outputs, each checked.

use core::time::Duration;
use std::sync::Arc;

use link_core::{
    Address, ByteString, CloseReason, Config, Connection, Event, Frame, Instant, Message, Misuse, Now,
    Output, Proof, Refusal, Role, Status, Ticket, Violation,
};

use super::{
    Invariant, Oracle,
    ending::{Claim, is_known_text},
};
use crate::{
    network::{End, frame_weight},
    sometimes::{Mark, Marks},
};

/// What a connection of link-core takes at most, in bytes, beside the messages that pass through it: itself, and what
/// waits in its queue after one input.
pub const MEMORY_PER_CONNECTION: usize = 2048;

/// What one input makes a connection say at most: a status text, a close frame, the end of the transport, the end.
const OUTPUTS_PER_INPUT: usize = 4;

/// What came in last, as far as it can be the cause of something.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Frame(Frame),
    Timeout,
    Paused,
    Resumed,
    TransportClosed,
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
}

#[derive(Debug)]
pub(crate) struct Watched {
    connection: Connection,
    pub(super) end: End,
    pub(super) role: Role,
    pub(super) config: Arc<Config>,
    opened: Instant,
    reads_paused: bool,
    /// The proofs that came in before authentication, with the time at which they did.
    pub(super) claims: Vec<(Claim, Now)>,
    pub(super) asked: Option<Proof>,
    authenticated: Option<Address>,
    heard: Option<Instant>,
    pub(crate) ticket_dropped: bool,
    ending: Option<Turning>,
    transport_ended: bool,
    told_the_end: bool,
    inputs: usize,
    outputs: usize,
    own_bytes: usize,
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
    pub(crate) fn client(end: End, config: Arc<Config>, now: Now) -> Self {
        Self::watch(Connection::client(config.clone(), now), end, config, now)
    }

    pub(crate) fn server(end: End, config: Arc<Config>, now: Now) -> Self {
        Self::watch(Connection::server(config.clone(), now), end, config, now)
    }

    fn watch(connection: Connection, end: End, config: Arc<Config>, now: Now) -> Self {
        Self {
            role: connection.role(),
            connection,
            end,
            config,
            opened: now.mono,
            reads_paused: false,
            claims: Vec::new(),
            asked: None,
            authenticated: None,
            heard: None,
            ticket_dropped: false,
            ending: None,
            transport_ended: false,
            told_the_end: false,
            inputs: 1,
            outputs: 0,
            own_bytes: 0,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.connection.is_authenticated()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// The moment on its own clock at which the oracle will have this connection gone, unless something comes.
    pub(crate) fn must_end_by(&self) -> Option<Instant> {
        if self.connection.is_closed() {
            None
        } else if self.connection.is_authenticated() {
            self.idle_due()
        } else {
            due(self.opened, self.config.auth_timeout, self.config.auth_check_interval)
        }
    }

    fn idle_due(&self) -> Option<Instant> {
        due(self.heard?, self.config.idle_timeout, self.config.idle_check_interval)
    }

    pub(crate) fn handle_frame(&mut self, frame: Frame, now: Now, oracle: &mut Oracle, marks: &mut Marks) {
        if !self.connection.is_authenticated() && !self.connection.is_closed() {
            self.claims.extend(Claim::read(&frame).map(|claim| (claim, now)));
        }
        if self.connection.is_closed() {
            marks.reach(Mark::FrameAfterTheEnd);
        }
        marks.reach_if(
            self.connection.is_authenticated() && Claim::read(&frame).is_some(),
            Mark::SecondAuthenticate,
        );
        if let Some(heard) = &mut self.heard {
            *heard = now.mono.max(*heard);
        }
        self.input(Cause::Frame(frame.clone()), now, oracle, |connection| {
            connection.handle_frame(frame, now)
        });
    }

    pub(crate) fn handle_violation(&mut self, violation: Violation, now: Now, oracle: &mut Oracle) {
        self.input(Cause::Violation(violation), now, oracle, |connection| {
            connection.handle_violation(violation, now);
        });
    }

    pub(crate) fn handle_transport_closed(&mut self, now: Now, oracle: &mut Oracle) {
        self.input(Cause::TransportClosed, now, oracle, |connection| connection.handle_transport_closed(now));
    }

    pub(crate) fn handle_reads_paused(&mut self, now: Now, oracle: &mut Oracle) {
        self.reads_paused = true;
        self.heard = None;
        self.input(Cause::Paused, now, oracle, |connection| connection.handle_reads_paused(now));
    }

    pub(crate) fn handle_reads_resumed(&mut self, now: Now, oracle: &mut Oracle) {
        self.reads_paused = false;
        if self.connection.is_authenticated() {
            self.heard = Some(now.mono);
        }
        self.input(Cause::Resumed, now, oracle, |connection| connection.handle_reads_resumed(now));
    }

    pub(crate) fn close(&mut self, reason: CloseReason, now: Now, oracle: &mut Oracle) {
        self.input(Cause::Close(reason.clone()), now, oracle, |connection| connection.close(reason, now));
    }

    pub(crate) fn handle_timeout(&mut self, now: Now, oracle: &mut Oracle, marks: &mut Marks) {
        let (end, was_open) = (self.end, !self.connection.is_closed());
        let idle_due = self.idle_due();
        let stranger_due = self.must_end_by().filter(|_| !self.connection.is_authenticated());
        self.input(Cause::Timeout, now, oracle, |connection| connection.handle_timeout(now));
        let next = self.connection.poll_timeout();
        oracle.check(Invariant::DeadlinesAdvance, next.is_none_or(|next| next > now.mono), || {
            format!("{end} has its next deadline at {next:?}, and it is {:?}", now.mono)
        });
        if !was_open {
            return;
        }
        if stranger_due.is_some_and(|due| now.mono >= due) {
            oracle.check(Invariant::StrangersAreGoneInTime, self.connection.is_closed(), || {
                format!("{end} is still there at {:?}", now.mono)
            });
        }
        if let Some(due) = idle_due.filter(|due| now.mono >= *due) {
            if now.mono.since(due) > self.config.idle_timeout {
                marks.reach(Mark::Overslept);
                self.heard = Some(now.mono);
                oracle.check(Invariant::ResponsivePeersLive, !self.connection.is_closed(), || {
                    format!("{end} is judged idle by a side that slept itself")
                });
            } else {
                oracle.check(Invariant::DeadPeersAreNoticed, self.connection.is_closed(), || {
                    format!("{end} is silent since before {due:?} and was not judged at {:?}", now.mono)
                });
            }
        }
    }

    pub(crate) fn send(&mut self, message: Message, now: Now, oracle: &mut Oracle) -> Result<(), Misuse> {
        let may = self.connection.is_authenticated();
        let sent = self.connection.send(message, now);
        if sent.is_ok() {
            oracle.check(Invariant::NothingBeforeAuthentication, may, || {
                format!("{} takes a message before it is authenticated, or after the end", self.end)
            });
            self.inputs = self.inputs.saturating_add(1);
        }
        sent
    }

    pub(crate) fn decide(
        &mut self,
        ticket: Ticket,
        verdict: Result<(), Refusal>,
        now: Now,
        oracle: &mut Oracle,
        marks: &mut Marks,
    ) -> Result<(), Misuse> {
        let (end, was_closed) = (self.end, self.connection.is_closed());
        let mut outcome = Ok(());
        self.input(Cause::Decision(verdict), now, oracle, |connection| {
            outcome = connection.decide(ticket, verdict, now);
        });
        if was_closed {
            marks.reach(Mark::LateVerdict);
            oracle.check(Invariant::LateVerdictsChangeNothing, outcome == Err(Misuse::LateTicket), || {
                format!("{end} answers a late verdict with {outcome:?}")
            });
        }
        outcome
    }

    fn input(&mut self, cause: Cause, now: Now, oracle: &mut Oracle, input: impl FnOnce(&mut Connection)) {
        let (was_closed, was_authenticated) =
            (self.connection.is_closed(), self.connection.is_authenticated());
        let idle_due = self.idle_due();
        input(&mut self.connection);
        self.inputs = self.inputs.saturating_add(1);
        let (is_closed, is_authenticated) = (self.connection.is_closed(), self.connection.is_authenticated());
        let end = self.end;
        if was_closed {
            let silent = is_closed && !is_authenticated && self.connection.poll_timeout().is_none();
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
            self.ending = Some(Turning { cause, now, was_authenticated, idle_due });
        }
    }

    /// The next output, checked.
    pub(crate) fn poll_output(&mut self, oracle: &mut Oracle) -> Option<Output> {
        let Some(output) = self.connection.poll_output() else {
            self.check_memory(oracle);
            return None;
        };
        let end = self.end;
        self.outputs = self.outputs.saturating_add(1);
        let after_the_end = self.told_the_end && !matches!(output, Output::Event(Event::Closed { .. }));
        oracle.check(Invariant::NothingAfterTheEnd, !after_the_end, || {
            format!("{end} says {output:?} after its end")
        });
        match &output {
            Output::Send(frame) => self.check_sent(frame, oracle),
            Output::CloseTransport => {
                let first = !core::mem::replace(&mut self.transport_ended, true);
                oracle.check(Invariant::OneTerminalEvent, first, || {
                    format!("{end} ends its transport a second time")
                });
            }
            Output::Event(event) => self.check_event(event, oracle),
        }
        Some(output)
    }

    fn check_sent(&mut self, frame: &Frame, oracle: &mut Oracle) {
        let end = self.end;
        oracle.check(Invariant::NothingAfterTheEnd, !self.transport_ended, || {
            format!("{end} sends {frame:?} after it has ended its transport")
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
                let text: ByteString = message.clone().into_text();
                oracle.note_delivered(end, &text);
            }
            Event::Closed { reason } => {
                let first = !core::mem::replace(&mut self.told_the_end, true);
                oracle.check(Invariant::OneTerminalEvent, first && self.transport_ended, || {
                    format!("{end} tells an end without the end of its transport before, or twice")
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
        let bound = MEMORY_PER_CONNECTION.saturating_sub(size_of::<Connection>()).saturating_mul(inputs);
        let holds = queue <= bound && outputs <= inputs.saturating_mul(OUTPUTS_PER_INPUT);
        oracle.check(Invariant::MemoryIsBounded, holds, || {
            format!("{} has {outputs} outputs of {queue} bytes waiting after {inputs} inputs", self.end)
        });
    }
}

const _: () = {
    assert!(size_of::<Connection>() + OUTPUTS_PER_INPUT * size_of::<Output>() <= MEMORY_PER_CONNECTION);
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
