//! The host of one connection, as thin as a driver: it carries frames between a wire and a real `Connection`, and events
//! to an application. Each turn takes what the application asked for, reads what is there, looks at the clock, does
//! what the connection says, and flushes.

use core::time::Duration;
use std::{collections::VecDeque, sync::Arc};

use link_core::{Bytes, CloseReason, Config, Event, Frame, Instant, Message, Now, Output, Refusal, Ticket};

use crate::{
    agenda::{Due, Process},
    canary::Canary,
    clock::{Clock, Moment},
    env::{Env, LATENESS},
    inbox::Inbox,
    network::{End, Parcel, Side, frame_weight},
    oracle::{Invariant, Watched},
    plan::Fault,
    sometimes::Mark,
};

/// Frames that one turn takes at most.
pub(crate) const TURN_ITEMS: usize = 32;
/// Bytes of messages that one turn takes from the application at most, and one message more.
const TURN_BYTES: usize = 16 << 10;
/// How long the last words may take, and the peer's end after them.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// What a queued message counts beyond its text.
const OVERHEAD: usize = 64;
/// What the protocol itself may have said since the last look at a bound.
const OWN_WORDS: usize = 4 << 10;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_send_queue: usize,
    pub(crate) send_timeout: Duration,
    pub(crate) event_capacity: usize,
}

#[derive(Debug)]
enum Command {
    Send(Message),
    Close(CloseReason),
}

/// How a message fared that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    Yes,
    Full,
    No,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) end: End,
    pub(crate) process: Process,
    connection: Watched,
    limits: Limits,
    max_message_size: usize,
    idle_timeout: Duration,
    outgoing: VecDeque<Frame>,
    outgoing_bytes: usize,
    /// The answer to the last ping: a WebSocket layer answers the latest (RFC 6455 §5.5.3).
    pong: Option<Bytes>,
    commands: VecDeque<Command>,
    waiting: usize,
    leaving: Option<CloseReason>,
    reading: bool,
    events: Vec<Event>,
    /// How much waits for the application.
    pub(crate) untold: usize,
    stalled: Option<Instant>,
    ended: bool,
    finished: bool,
    replaced: bool,
    peer_ended: bool,
    lingered: bool,
    armed: Option<Moment>,
    /// What the process's own monotonic clock says in this turn, and said when the peer was heard last.
    mono: Instant,
    heard: Instant,
}

impl Line {
    pub(crate) fn client(end: End, process: Process, config: Arc<Config>, limits: Limits, now: Now) -> Self {
        Self::over(Watched::client(end, config.clone(), now), end, process, &config, limits)
    }

    pub(crate) fn server(end: End, process: Process, config: Arc<Config>, limits: Limits, now: Now) -> Self {
        Self::over(Watched::server(end, config.clone(), now), end, process, &config, limits)
    }

    fn over(connection: Watched, end: End, process: Process, config: &Config, limits: Limits) -> Self {
        Self {
            end,
            process,
            connection,
            limits,
            max_message_size: config.max_message_size,
            idle_timeout: config.idle_timeout,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            pong: None,
            commands: VecDeque::new(),
            waiting: 0,
            leaving: None,
            reading: true,
            events: Vec::new(),
            untold: 0,
            stalled: None,
            ended: false,
            finished: false,
            replaced: false,
            peer_ended: false,
            lingered: false,
            armed: None,
            mono: Instant::default(),
            heard: Instant::default(),
        }
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.connection.is_authenticated()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Whether nothing is left to be done, neither on the wire nor with the application.
    pub(crate) fn is_over(&self) -> bool {
        let said = self.finished && (self.peer_ended || self.lingered);
        self.ended && (said || self.lingered) && self.untold == 0
    }

    /// Whether a peer does not take what it is sent.
    pub(crate) const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    pub(crate) fn turn(&mut self, clock: &Clock, inbox: &Inbox, env: &mut Env<'_>) -> Vec<Event> {
        let now = clock.now(env.now);
        self.mono = clock.mono(env.now);
        self.drain(now, env);
        if env.is_planted(Canary::JudgesBeforeReading) {
            self.check_clock(now, env);
        }
        self.take_commands(now, env);
        self.read(now, inbox, env);
        self.check_clock(now, env);
        self.flush(now, env);
        self.arm(clock, env);
        core::mem::take(&mut self.events)
    }

    /// The timer fired.
    pub(crate) fn timer_fired(&mut self, clock: &Clock, env: &mut Env<'_>) {
        self.armed = self.armed.filter(|armed| *armed > env.now);
        let now = clock.now(env.now);
        if self.connection.next_timeout().is_none_or(|due| due > now.mono) {
            // Early: it must do nothing.
            self.handle_timeout(now, env);
            self.drain(now, env);
        }
        env.marks.reach_if(env.network.is_readable(self.end), Mark::TimerAndFrameTogether);
    }

    pub(crate) fn linger_is_over(&mut self) {
        self.lingered = true;
    }

    fn take_commands(&mut self, now: Now, env: &mut Env<'_>) {
        let mut bytes = 0usize;
        while !self.ended && bytes < TURN_BYTES && self.stalled.is_none() {
            let command = match env.is_planted(Canary::SendsNewestFirst) {
                true => self.commands.pop_back(),
                false => self.commands.pop_front(),
            };
            match command {
                Some(Command::Send(message)) => {
                    let cost = message.as_str().len().saturating_add(OVERHEAD);
                    self.waiting = self.waiting.saturating_sub(cost);
                    bytes = bytes.saturating_add(cost);
                    // What can be wrong with it was checked when it was queued, but for the end of the connection.
                    let _ = self.connection.send(message, now, &mut env.oracle);
                }
                Some(Command::Close(reason)) => self.leaving = Some(reason),
                None => {
                    if let Some(reason) = self.leaving.take() {
                        self.end_as(reason, now, env);
                    }
                    return;
                }
            }
            self.drain(now, env);
        }
        if bytes >= TURN_BYTES && self.stalled.is_none() {
            env.plan(env.now, Due::Writable(self.end));
        }
    }

    fn read(&mut self, now: Now, inbox: &Inbox, env: &mut Env<'_>) {
        let mut undrained = 0u64;
        for taken in 0..=TURN_ITEMS {
            if !self.ended && !self.look_at(inbox, now, env) {
                break;
            }
            if taken == TURN_ITEMS {
                env.plan(env.now, Due::Writable(self.end));
                break;
            }
            let Some((parcel, writer_waits)) = env.network.read(self.end) else { break };
            if writer_waits {
                env.plan(env.now, Due::Writable(self.end.other()));
            }
            self.take(parcel, now, env);
            undrained = undrained.saturating_add(1);
            if !(env.has(Fault::DrainLate) && env.choices.below(2) == 1) {
                env.marks.reach_if(undrained > 1, Mark::DrainedLate);
                undrained = 0;
                self.drain(now, env);
            }
        }
        self.drain(now, env);
    }

    /// Reads only as long as the application keeps up. Says whether it does.
    fn look_at(&mut self, inbox: &Inbox, now: Now, env: &mut Env<'_>) -> bool {
        let ready = !inbox.is_full(self.limits.event_capacity);
        if ready != self.reading {
            self.reading = ready;
            if ready {
                self.connection.handle_reads_resumed(now, &mut env.oracle);
            } else {
                env.marks.reach(Mark::ReadsPaused);
                self.connection.handle_reads_paused(now, &mut env.oracle);
            }
        }
        ready
    }

    fn take(&mut self, parcel: Parcel, now: Now, env: &mut Env<'_>) {
        let end = self.end;
        match parcel {
            Parcel::Frame(frame) => {
                env.note(1, end.wire.0, || format!("{end} ◀ {}", crate::trace::shown(&frame)));
                self.heard = self.mono;
                if env.is_planted(Canary::TripsOverNull) {
                    assert!(frame != Frame::Text("null".into()), "a planted fault");
                }
                if let Frame::Ping(payload) = &frame {
                    self.pong = Some(payload.clone());
                }
                if env.is_planted(Canary::DeliversEarly)
                    && !self.connection.is_authenticated()
                    && let Frame::Text(text) = &frame
                    && let Ok(message) = Message::parse(text.clone())
                    && message.kind() == Some("say")
                {
                    env.oracle.tell_message(self.process, end, None);
                }
                if env.is_planted(Canary::AsksBeforeProof)
                    && !self.connection.is_authenticated()
                    && end.side == Side::Server
                    && let Frame::Text(text) = &frame
                    && let Ok(claim) = serde_json::from_str::<serde_json::Value>(text)
                    && let Some(address) = claim.get("address").and_then(|address| address.as_str())
                {
                    env.oracle.ask(end, address);
                }
                env.marks.reach_if(self.ended && matches!(frame, Frame::Close(_)), Mark::ClosesCrossed);
                self.connection.handle_frame(frame, now, &mut env.oracle, &mut env.marks);
            }
            Parcel::Broken(violation) => {
                env.note(2, end.wire.0, || format!("{end} ◀ bytes that are no WebSocket: {violation}"));
                self.connection.handle_violation(violation, now, &mut env.oracle);
            }
            Parcel::End => {
                env.note(3, end.wire.0, || format!("{end} ◀ the end of the transport"));
                self.peer_ended = true;
                env.marks.reach_if(self.replaced, Mark::OldEndAfterSuccessor);
                if !env.is_planted(Canary::OverlooksTheEnd) {
                    self.connection.handle_transport_closed(now, &mut env.oracle);
                }
            }
        }
    }

    fn check_clock(&mut self, now: Now, env: &mut Env<'_>) {
        if self.connection.next_timeout().is_some_and(|due| due <= now.mono) {
            self.handle_timeout(now, env);
            self.drain(now, env);
        }
        if self.stalled_until().is_some_and(|due| due <= now.mono) {
            let reason = self.leaving.take().unwrap_or(CloseReason::SlowPeer);
            self.end_as(reason, now, env);
        }
    }

    fn handle_timeout(&mut self, now: Now, env: &mut Env<'_>) {
        let blind = match self.connection.is_authenticated() {
            true => Canary::WaitsForTheDead,
            false => Canary::WaitsForStrangers,
        };
        if env.is_planted(blind) {
            return;
        }
        let was_open = self.connection.is_authenticated();
        self.connection.handle_timeout(now, &mut env.oracle, &mut env.marks);
        if was_open && self.connection.is_closed() {
            // A frame that came before this instant, and was not read, is a sign of life. And a process's own
            // monotonic clock is what counts, whatever the host took for one.
            let unread = self.reading && env.network.has_unread_frame_before(self.end, env.now);
            let silent = self.mono.since(self.heard);
            let just = !unread && silent >= self.idle_timeout;
            env.oracle.check(Invariant::ResponsivePeersLive, just, || {
                format!("{} is judged idle after {silent:?}; frames wait to be read: {unread}", self.end)
            });
        }
    }

    fn stalled_until(&self) -> Option<Instant> {
        let patience = match self.leaving {
            Some(CloseReason::ShuttingDown) => LINGER,
            _ => self.limits.send_timeout,
        };
        self.stalled.filter(|_| !self.ended).map(|since| since.after(patience))
    }

    /// Does what the connection says, in its order.
    fn drain(&mut self, now: Now, env: &mut Env<'_>) {
        while let Some(output) = self.connection.poll_output(&mut env.oracle) {
            let end = self.end;
            match output {
                Output::Send(frame) => {
                    env.note(4, end.wire.0, || format!("{end} ▶ {}", crate::trace::shown(&frame)));
                    self.write(frame, now, env);
                }
                Output::Event(event) => {
                    env.note(5, end.wire.0, || format!("{end} ! {}", crate::trace::told(&event)));
                    self.mark(&event, env);
                    self.events.push(event);
                }
                Output::CloseTransport => {
                    self.ended = true;
                    env.plan_in(LINGER, Due::Linger(end));
                }
            }
        }
    }

    fn mark(&self, event: &Event, env: &mut Env<'_>) {
        use link_core::Violation::{
            BadSignature, MalformedProof, MessageTooLarge, NotUtf8, Reflected, StaleProof, UnexpectedMessage,
            UnexpectedServer, WebSocket,
        };
        let role = self.end.side;
        let mark = match event {
            Event::Error(_) => Mark::NotJson,
            Event::Authenticated { .. } if !self.reading => Mark::PausedOverAuthentication,
            Event::Closed { reason } => match reason {
                CloseReason::Idle(_) if role == Side::Server => Mark::DeadClientNoticed,
                CloseReason::Idle(_) => Mark::DeadServerNoticed,
                CloseReason::AuthenticationTimeout(_) if role == Side::Server => Mark::StrangerTimedOut,
                CloseReason::AuthenticationTimeout(_) => Mark::ServerTimedOut,
                CloseReason::SlowPeer => Mark::SlowPeer,
                CloseReason::Violation(violation) => match violation {
                    StaleProof => Mark::StaleProof,
                    BadSignature => Mark::BadSignature,
                    MalformedProof => Mark::MalformedProof,
                    Reflected => Mark::Reflected,
                    UnexpectedServer(_) => Mark::UnexpectedServer,
                    UnexpectedMessage => Mark::UnexpectedMessage,
                    MessageTooLarge { .. } => Mark::TooLarge,
                    NotUtf8 | WebSocket => Mark::BrokenWebSocket,
                    _ => return,
                },
                _ => return,
            },
            _ => return,
        };
        env.marks.reach(mark);
    }

    fn write(&mut self, frame: Frame, now: Now, env: &mut Env<'_>) {
        self.outgoing_bytes = self.outgoing_bytes.saturating_add(frame_weight(&frame));
        self.outgoing.push_back(frame);
        let bound = self
            .limits
            .max_send_queue
            .saturating_add(TURN_BYTES)
            .saturating_add(self.max_message_size.min(64 << 10));
        if self.outgoing_bytes > bound && !self.ended && !env.is_planted(Canary::QueuesWithoutBound) {
            self.connection.close(CloseReason::SlowPeer, now, &mut env.oracle);
        }
    }

    fn flush(&mut self, now: Now, env: &mut Env<'_>) {
        if self.finished {
            return;
        }
        let mut moved = false;
        while env.network.has_room(self.end) {
            let frame = match (self.pong.take(), self.outgoing.front()) {
                (Some(payload), _) if !self.ended => Frame::Pong(payload),
                _ => {
                    let Some(frame) = self.outgoing.pop_front() else { break };
                    self.outgoing_bytes = self.outgoing_bytes.saturating_sub(frame_weight(&frame));
                    frame
                }
            };
            moved = true;
            env.send(self.end, Parcel::Frame(frame));
        }
        let done = self.outgoing.is_empty() && self.pong.is_none();
        let was_stalled = self.stalled.is_some();
        self.stalled = match self.stalled {
            _ if done => None,
            Some(since) if !moved => Some(since),
            _ => Some(now.mono),
        };
        if self.ended && self.outgoing.is_empty() {
            self.finished = true;
            env.send(self.end, Parcel::End);
        } else if was_stalled && self.stalled.is_none() && !self.commands.is_empty() {
            env.plan(env.now, Due::Writable(self.end));
        }
    }

    fn arm(&mut self, clock: &Clock, env: &mut Env<'_>) {
        let deadlines = [self.connection.next_timeout(), self.stalled_until()];
        let Some(deadline) = deadlines.into_iter().flatten().min() else { return };
        let at = clock.when(deadline, env.now);
        let at = if env.is_planted(Canary::NeverSleeps) { env.now } else { at };
        if self.armed.is_none_or(|armed| at.to_grain() < armed) {
            let at = env.timer_for(at);
            // An early one must not fire for ever at this moment.
            let soonest = match env.is_planted(Canary::NeverSleeps) {
                true => Duration::ZERO,
                false => Duration::from_millis(1),
            };
            let at = if at <= env.now { env.now.after(soonest) } else { at };
            self.armed = Some(at);
            env.plan(at, Due::Timer(self.end));
        }
    }

    /// Queues a message for the peer.
    pub(crate) fn queue(&mut self, message: Message, env: &mut Env<'_>) -> Queued {
        let size = message.as_str().len();
        if self.ended || size > self.max_message_size || message.check_sendable().is_err() {
            return Queued::No;
        }
        let cost = size.saturating_add(OVERHEAD);
        let full = self.waiting > 0 && self.waiting.saturating_add(cost) > self.limits.max_send_queue;
        if full && !env.is_planted(Canary::QueuesWithoutBound) {
            env.marks.reach(Mark::QueueFull);
            return Queued::Full;
        }
        self.waiting = self.waiting.saturating_add(cost);
        env.oracle.note_sent(self.end, message.clone().into_text());
        self.commands.push_back(Command::Send(message));
        Queued::Yes
    }

    /// Ends the connection, after what was queued before if it can still be sent.
    pub(crate) fn leave(&mut self, reason: CloseReason, clock: &Clock, env: &mut Env<'_>) {
        if self.connection.is_authenticated() {
            self.commands.push_back(Command::Close(reason));
        } else {
            self.end_as(reason, clock.now(env.now), env);
        }
    }

    /// Ends the connection now.
    pub(crate) fn end_as(&mut self, reason: CloseReason, now: Now, env: &mut Env<'_>) {
        self.replaced |= reason == CloseReason::Replaced;
        self.connection.close(reason, now, &mut env.oracle);
        self.drain(now, env);
    }

    pub(crate) fn decide(
        &mut self,
        ticket: Ticket,
        verdict: Result<(), Refusal>,
        clock: &Clock,
        inbox: &Inbox,
        env: &mut Env<'_>,
    ) {
        let was_closed = self.connection.is_closed();
        let now = clock.now(env.now);
        if !was_closed {
            self.look_at(inbox, now, env);
        }
        let outcome = self.connection.decide(ticket, verdict, now, &mut env.oracle, &mut env.marks);
        env.note(6, self.end.wire.0, || format!("{} is decided about: {verdict:?}, {outcome:?}", self.end));
        let events = self.events.len();
        self.drain(now, env);
        if was_closed && self.events.len() > events {
            env.oracle.fail(Invariant::LateVerdictsChangeNothing, || format!("{} did something", self.end));
        }
    }

    /// The ticket is gone, and the connection will notice.
    pub(crate) const fn note_dropped_ticket(&mut self) {
        self.connection.ticket_dropped = true;
    }

    /// The application has taken something of this connection's.
    pub(crate) const fn note_taken(&mut self) {
        self.untold = self.untold.saturating_sub(1);
    }

    /// Whether reading was stopped, and is to go on as soon as the application has caught up.
    pub(crate) fn wants_to_read(&self) -> bool {
        !self.ended && !self.reading
    }

    /// What must be true of it whenever nothing is left to be done at a moment.
    pub(crate) fn audit(&self, clock: &Clock, env: &mut Env<'_>) {
        let (end, mono) = (self.end, clock.mono(env.now));
        if let Some(due) = self.connection.must_end_by()
            && mono > due.after(LATENESS)
        {
            let invariant = match self.connection.is_authenticated() {
                true => Invariant::DeadPeersAreNoticed,
                false => Invariant::StrangersAreGoneInTime,
            };
            env.oracle.fail(invariant, || format!("{end} is still there at {mono:?}, due {due:?}"));
        }
        let overlooked = self.peer_ended && !self.connection.is_closed();
        env.oracle.check(Invariant::DeadPeersAreNoticed, !overlooked, || {
            format!("{end} goes on without a transport")
        });
        let idle = self.finished || (self.outgoing.is_empty() && (self.commands.is_empty() || self.ended));
        env.oracle.check(Invariant::StuckPeersDelayNobody, idle || !env.network.would_take(end), || {
            format!("{end} has something to send, and its wire would take it")
        });
        let slack = TURN_BYTES.saturating_add(OWN_WORDS);
        let longest = self.max_message_size.min(64 << 10).saturating_add(OVERHEAD);
        let bound = self.limits.max_send_queue.saturating_add(longest).saturating_add(slack);
        let queued = self.commands.iter().filter(|command| matches!(command, Command::Send(_))).count();
        // One message always fits.
        let waits = self.waiting <= self.limits.max_send_queue || queued <= 1;
        let holds = waits && self.outgoing_bytes <= bound;
        env.oracle.check(Invariant::MemoryIsBounded, holds, || {
            format!("{end} has {} and {} bytes waiting", self.waiting, self.outgoing_bytes)
        });
    }
}
