//! A thin host of one connection: it carries frames between a wire and a real `Endpoint`, and events to an application. All
//! that is decided is decided there.

use core::time::Duration;
use std::{collections::VecDeque, sync::Arc};

use link_core::{
    Action, Bytes, CloseReason, Config, Event, Frame, Incoming, Instant, Message, Refusal, SendError,
    SendQueue, Ticket,
};

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

/// What the protocol itself may say to a peer that takes nothing.
const OWN_WORDS: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) end: End,
    pub(crate) process: Process,
    endpoint: Watched,
    config: Arc<Config>,
    /// How many messages may wait for the application.
    event_capacity: usize,
    /// What the application has sent, on its way to the endpoint.
    mail: SendQueue,
    outgoing: VecDeque<Frame>,
    outgoing_bytes: usize,
    /// The answer to the last ping: a WebSocket layer answers the latest (RFC 6455 §5.5.3).
    pong: Option<Bytes>,
    /// What the wire has taken.
    written: u64,
    events: Vec<Event>,
    /// How much waits for the application.
    pub(crate) untold: usize,
    paused: bool,
    /// Since it was said last that enough was read.
    read_some: bool,
    shut: bool,
    peer_ended: bool,
    done: bool,
    replaced: bool,
    armed: Option<Moment>,
    /// What the process's own monotonic clock says in this turn, and said when the peer was heard last.
    mono: Instant,
    heard: Instant,
}

impl Host {
    pub(crate) fn new(
        end: End,
        process: Process,
        config: Arc<Config>,
        event_capacity: usize,
        now: link_core::Now,
        canary: Option<Canary>,
    ) -> Self {
        let mut bounds = Config::clone(&config);
        if canary == Some(Canary::QueuesWithoutBound) {
            bounds.max_send_queue = usize::MAX;
        }
        Self {
            end,
            process,
            endpoint: Watched::new(end, config.clone(), now),
            mail: SendQueue::new(&bounds),
            config,
            event_capacity,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            pong: None,
            written: 0,
            events: Vec::new(),
            untold: 0,
            paused: false,
            read_some: false,
            shut: false,
            peer_ended: false,
            done: false,
            replaced: false,
            armed: None,
            mono: Instant::default(),
            heard: Instant::default(),
        }
    }

    pub(crate) const fn is_authenticated(&self) -> bool {
        self.endpoint.connection().is_authenticated()
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.endpoint.connection().is_closed()
    }

    /// Whether nothing is left to be done, neither on the wire nor with the application.
    pub(crate) const fn is_over(&self) -> bool {
        self.done && self.untold == 0
    }

    /// Whether a peer does not take what it is sent.
    pub(crate) const fn is_stalled(&self) -> bool {
        self.endpoint.is_stalled()
    }

    /// One turn: what the endpoint says, in its order.
    pub(crate) fn turn(&mut self, clock: &Clock, inbox: &Inbox, env: &mut Env<'_>) -> Vec<Event> {
        let mut now = clock.now(env.now);
        self.mono = clock.mono(env.now);
        let blind = match self.is_authenticated() {
            true => Canary::WaitsForTheDead,
            false => Canary::WaitsForStrangers,
        };
        if env.is_planted(blind) || (self.is_closed() && env.is_planted(Canary::LingersOn)) {
            let deadline = self.endpoint.must_end_by();
            now.mono = deadline.map_or(now.mono, |due| before(due).min(now.mono));
        }
        let due = self.endpoint.poll_timeout().is_some_and(|due| due <= now.mono);
        let mut overlooks = env.is_planted(Canary::JudgesBeforeReading) && due;
        self.endpoint.begin_turn(now, &mut env.oracle);
        loop {
            match self.endpoint.poll_action(&mut env.oracle, &mut env.marks) {
                Action::Read { limit: _, heard } => {
                    if core::mem::take(&mut overlooks) {
                        self.endpoint.handle_incoming(Incoming::Nothing, &mut env.oracle, &mut env.marks);
                    } else if heard && inbox.is_full(self.event_capacity) && !env.is_planted(Canary::ReadsOn)
                    {
                        self.pause(env);
                    } else {
                        self.paused = false;
                        self.read(env);
                    }
                }
                Action::Event(event) => self.tell(event, env),
                Action::Send(frame) => self.send(frame, env),
                Action::Program => self.endpoint.take_queued(&mut self.mail),
                Action::ReleaseSpareRoom => {}
                Action::Flush => self.flush(env),
                Action::Shutdown => self.shut_down(env),
                Action::Yield => {
                    env.plan(env.now, Due::Writable(self.end));
                    break;
                }
                Action::Wait => break,
                Action::Done => {
                    self.be_done(env);
                    break;
                }
            }
        }
        self.arm(clock, env);
        core::mem::take(&mut self.events)
    }

    /// The timer fired.
    pub(crate) fn timer_fired(&mut self, env: &mut Env<'_>) {
        self.armed = self.armed.filter(|armed| *armed > env.now);
        env.marks.reach_if(env.network.is_readable(self.end), Mark::TimerAndFrameTogether);
    }

    fn pause(&mut self, env: &mut Env<'_>) {
        self.paused = true;
        env.marks.reach(Mark::ReadsPaused);
        if env.is_planted(Canary::ForgetsThePause) {
            self.endpoint.handle_incoming(Incoming::Nothing, &mut env.oracle, &mut env.marks);
        } else {
            self.endpoint.handle_reads_paused(&mut env.oracle);
        }
    }

    fn read(&mut self, env: &mut Env<'_>) {
        if self.read_some && env.has(Fault::ReadInBits) && env.choices.below(4) == 3 {
            self.read_some = false;
            env.marks.reach(Mark::ReadInBits);
            return self.endpoint.handle_incoming(Incoming::Enough, &mut env.oracle, &mut env.marks);
        }
        let Some((parcel, writer_waits)) = env.network.read(self.end) else {
            return self.endpoint.handle_incoming(Incoming::Nothing, &mut env.oracle, &mut env.marks);
        };
        if writer_waits {
            env.plan(env.now, Due::Writable(self.end.other()));
        }
        self.read_some = true;
        let incoming = self.open(parcel, env);
        self.endpoint.handle_incoming(incoming, &mut env.oracle, &mut env.marks);
    }

    fn open(&mut self, parcel: Parcel, env: &mut Env<'_>) -> Incoming {
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
                    && !self.is_authenticated()
                    && let Frame::Text(text) = &frame
                    && let Ok(message) = Message::parse(text.clone())
                    && message.kind() == Some("say")
                {
                    env.oracle.tell_message(self.process, end, None);
                }
                if env.is_planted(Canary::AsksBeforeProof)
                    && !self.is_authenticated()
                    && end.side == Side::Server
                    && let Frame::Text(text) = &frame
                    && let Ok(claim) = serde_json::from_str::<serde_json::Value>(text)
                    && let Some(address) = claim.get("address").and_then(|address| address.as_str())
                {
                    env.oracle.ask(end, address);
                }
                let crossed = self.is_closed() && matches!(frame, Frame::Close(_));
                env.marks.reach_if(crossed, Mark::ClosesCrossed);
                Incoming::Frame(frame)
            }
            Parcel::Broken(violation) => {
                env.note(2, end.wire.0, || format!("{end} ◀ bytes that are no WebSocket: {violation}"));
                Incoming::Violation(violation)
            }
            Parcel::End => {
                env.note(3, end.wire.0, || format!("{end} ◀ the end of the transport"));
                self.peer_ended = true;
                env.marks.reach_if(self.replaced, Mark::OldEndAfterSuccessor);
                match env.is_planted(Canary::OverlooksTheEnd) {
                    true => Incoming::Nothing,
                    false => Incoming::Ended,
                }
            }
        }
    }

    fn tell(&mut self, event: Event, env: &mut Env<'_>) {
        let end = self.end;
        env.note(5, end.wire.0, || format!("{end} ! {}", crate::trace::told(&event)));
        self.mark(&event, env);
        if let Event::Closed { reason: CloseReason::Idle(_) } = &event {
            // A frame that came before this instant, and was not read, is a sign of life. And a process's own
            // monotonic clock is what counts, whatever the host took for one.
            let unread = env.network.has_unread_frame_before(end, env.now);
            let silent = self.mono.since(self.heard);
            let just = !unread && silent >= self.config.idle_timeout;
            env.oracle.check(Invariant::ResponsivePeersLive, just, || {
                format!("{end} is judged idle after {silent:?}; frames wait to be read: {unread}")
            });
        }
        if let Event::Closed { reason: CloseReason::SlowPeer } = &event {
            let stuck = !env.network.would_take(end);
            env.oracle.check(Invariant::ResponsivePeersLive, stuck, || {
                format!("{end} gives a peer up as slow that would take more")
            });
        }
        self.events.push(event);
    }

    fn mark(&self, event: &Event, env: &mut Env<'_>) {
        use link_core::Violation::{
            BadSignature, MalformedProof, MessageTooLarge, NotUtf8, Reflected, StaleProof, UnexpectedMessage,
            UnexpectedServer, WebSocket,
        };
        let role = self.end.side;
        let mark = match event {
            Event::Error(_) => Mark::NotJson,
            Event::Authenticated { .. } if self.paused => Mark::PausedOverAuthentication,
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

    fn send(&mut self, frame: Frame, env: &mut Env<'_>) {
        let end = self.end;
        env.note(4, end.wire.0, || format!("{end} ▶ {}", crate::trace::shown(&frame)));
        self.outgoing_bytes = self.outgoing_bytes.saturating_add(frame_weight(&frame));
        match env.is_planted(Canary::SendsNewestFirst) && self.is_authenticated() {
            true => self.outgoing.push_front(frame),
            false => self.outgoing.push_back(frame),
        }
    }

    fn flush(&mut self, env: &mut Env<'_>) {
        if env.network.is_reset(self.end) {
            env.marks.reach(Mark::WroteIntoAReset);
            self.outgoing.clear();
            self.outgoing_bytes = 0;
            return self.endpoint.handle_broken(&mut env.oracle);
        }
        if self.is_closed() && env.is_planted(Canary::CutsTheTailOff) {
            return self.endpoint.handle_flushed();
        }
        if env.is_planted(Canary::JudgesBeforeWriting) && self.endpoint.is_patience_over() {
            return self.endpoint.handle_flush_blocked(self.written, self.written);
        }
        while env.network.has_room(self.end) {
            let frame = match (self.pong.take(), self.outgoing.front()) {
                (Some(payload), _) if !self.is_closed() => Frame::Pong(payload),
                _ => {
                    let Some(frame) = self.outgoing.pop_front() else { break };
                    self.outgoing_bytes = self.outgoing_bytes.saturating_sub(frame_weight(&frame));
                    frame
                }
            };
            self.written = self.written.saturating_add(frame_weight(&frame) as u64);
            env.send(self.end, Parcel::Frame(frame));
        }
        if self.outgoing.is_empty() && self.pong.is_none() {
            return self.endpoint.handle_flushed();
        }
        let told = match env.is_planted(Canary::CountsWhatNobodyTook) {
            true => self.written.saturating_add(env.now.since_start().as_nanos() as u64),
            false => self.written,
        };
        self.endpoint.handle_flush_blocked(self.written, told);
    }

    /// Ends this side's direction, and drops what still comes.
    fn shut_down(&mut self, env: &mut Env<'_>) {
        if !core::mem::replace(&mut self.shut, true) {
            self.check_tail(env);
            env.send(self.end, Parcel::End);
        }
        while let Some((parcel, writer_waits)) = env.network.read(self.end) {
            if writer_waits {
                env.plan(env.now, Due::Writable(self.end.other()));
            }
            let crossed = matches!(parcel, Parcel::Frame(Frame::Close(_)));
            env.marks.reach_if(crossed, Mark::ClosesCrossed);
            env.marks.reach_if(matches!(parcel, Parcel::Frame(_)), Mark::FrameAfterTheEnd);
            if parcel == Parcel::End {
                env.marks.reach_if(self.replaced, Mark::OldEndAfterSuccessor);
                self.peer_ended = true;
            }
        }
        if self.peer_ended {
            self.endpoint.handle_shut_down();
            env.plan(env.now, Due::Writable(self.end));
        }
    }

    fn be_done(&mut self, env: &mut Env<'_>) {
        if !core::mem::replace(&mut self.done, true) && !self.shut {
            self.check_tail(env);
        }
    }

    /// What was sent before a close has left by now.
    fn check_tail(&self, env: &mut Env<'_>) {
        let end = self.end;
        let left = self.outgoing.len();
        let waits = left > 0 || !self.mail.is_empty() || !self.endpoint.queue().is_empty();
        let holds = !waits || self.endpoint.may_cut_off(env.network.would_take(end));
        env.oracle.check(Invariant::TailsArrive, holds, || {
            format!("{end} ends in the middle of a close, {left} frames having been handed over")
        });
    }

    fn arm(&mut self, clock: &Clock, env: &mut Env<'_>) {
        let Some(deadline) = self.endpoint.poll_timeout() else { return };
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
    pub(crate) fn queue(&mut self, message: Message, env: &mut Env<'_>) {
        if self.is_closed() || !self.is_authenticated() {
            return;
        }
        // With more threads than one they come by a queue of their own; in a client here, straight.
        let queued = match self.end.side {
            Side::Server => self.mail.push(&message),
            Side::Client => self.endpoint.send(&message),
        };
        match queued {
            Ok(()) => env.oracle.note_sent(self.end, message.into_text()),
            Err(SendError::Full { .. }) => env.marks.reach(Mark::QueueFull),
            Err(_) => {}
        }
    }

    /// Ends the connection, in its own time or at once as the reason has it.
    pub(crate) fn close(&mut self, reason: CloseReason, clock: &Clock, env: &mut Env<'_>) {
        self.replaced |= reason == CloseReason::Replaced;
        if matches!(reason, CloseReason::Local | CloseReason::ShuttingDown) {
            self.mail.close();
        }
        let hears = !env.is_planted(Canary::HearsNoEviction);
        self.endpoint.close(reason, clock.now(env.now), hears, &mut env.oracle);
    }

    pub(crate) fn decide(
        &mut self,
        ticket: Ticket,
        verdict: Result<(), Refusal>,
        clock: &Clock,
        env: &mut Env<'_>,
    ) {
        let now = clock.now(env.now);
        let outcome = self.endpoint.decide(ticket, verdict, now, &mut env.oracle, &mut env.marks);
        env.note(6, self.end.wire.0, || format!("{} is decided about: {verdict:?}, {outcome:?}", self.end));
    }

    /// The ticket is gone, and the connection will notice.
    pub(crate) const fn note_dropped_ticket(&mut self) {
        self.endpoint.ticket_dropped = true;
    }

    /// The application has taken something of this connection's.
    pub(crate) const fn note_taken(&mut self) {
        self.untold = self.untold.saturating_sub(1);
    }

    /// Whether reading was stopped, and is to go on as soon as the application has caught up.
    pub(crate) const fn wants_to_read(&self) -> bool {
        !self.is_closed() && self.paused
    }

    /// What must be true of it whenever nothing is left to be done at a moment.
    pub(crate) fn audit(&self, clock: &Clock, env: &mut Env<'_>) {
        let (end, mono) = (self.end, clock.mono(env.now));
        if let Some(due) = self.endpoint.must_end_by()
            && mono > due.after(LATENESS)
            && !self.done
        {
            let invariant = match (self.is_closed(), self.is_authenticated()) {
                (true, _) => Invariant::EndsComeInTime,
                (false, true) => Invariant::DeadPeersAreNoticed,
                (false, false) => Invariant::StrangersAreGoneInTime,
            };
            env.oracle.fail(invariant, || format!("{end} is still there at {mono:?}, due {due:?}"));
        }
        if let Some(due) = self.endpoint.must_lose_patience_by()
            && mono > due.after(LATENESS)
            && !self.done
        {
            env.oracle.fail(Invariant::StuckPeersGoInTime, || {
                format!("the peer of {end} has taken nothing, and had time until {due:?}; it is {mono:?}")
            });
        }
        let overlooked = self.peer_ended && !self.is_closed();
        env.oracle.check(Invariant::DeadPeersAreNoticed, !overlooked, || {
            format!("{end} goes on without a transport")
        });
        let sends = !self.is_closed() && !self.endpoint.is_broken();
        let queued = sends && !(self.mail.is_empty() && self.endpoint.queue().is_empty());
        let idle = self.done || self.shut || (self.outgoing.is_empty() && !queued);
        env.oracle.check(Invariant::StuckPeersDelayNobody, idle || !env.network.would_take(end), || {
            let (frames, mail, queue) = (self.outgoing.len(), self.mail.used(), self.endpoint.queue().used());
            format!(
                "{end} has {frames} frames, {mail} and {queue} bytes to send, and its wire would take them"
            )
        });
        let longest = self.config.max_message_size.min(64 << 10);
        let turn = self.config.max_turn_bytes.saturating_add(longest);
        let bound = self.config.max_send_queue;
        // One message always fits; and what a turn has taken is on its way.
        let fits = |queue: &SendQueue, bound| queue.used() <= bound || queue.len() <= 1;
        let holds = fits(&self.mail, bound)
            && fits(self.endpoint.queue(), bound.max(turn))
            && self.outgoing_bytes <= turn.saturating_add(OWN_WORDS);
        env.oracle.check(Invariant::MemoryIsBounded, holds, || {
            let (mail, queue) = (self.mail.used(), self.endpoint.queue().used());
            format!("{end} has {mail}, {queue} and {} bytes waiting", self.outgoing_bytes)
        });
    }
}

/// Just before a point.
fn before(due: Instant) -> Instant {
    Instant::from_origin(due.since_origin().saturating_sub(Duration::from_nanos(1)))
}
