//! The one I/O loop: one task owns one WebSocket, and does what its [`Endpoint`] says.
//!
//! Everything that is decided is decided there: the order of a turn, its bounds, when reading pauses, how a close ends.
//! Nothing is shared with another task but the queues at both ends; what waits in the one is taken by one lock a turn.
//!
//! ```text
//! transport ──frames──▶ Endpoint ──events──▶ Attendant ──▶ the program
//! transport ◀──frames── Endpoint ◀─commands─ Outbox    ◀── the program
//! ```

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Either, select};
use link_core::{Action, Connection, Endpoint, Event, Frame, Instant, Now, Refusal, Ticket, Traffic};

use crate::{
    outbox::Commands,
    runtime::{self, Runtime},
    transport::{StartSendError, Transport},
};

/// How long a peer may take to hear why it is no peer of ours, and for its end.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Who stands between a connection and its program: a server's registry, or a client's reconnecting loop.
pub(crate) trait Attendant {
    /// The connection has something to tell. The last one is `Closed`.
    fn attend(&mut self, event: Event, now: Now);

    /// Ready while the program can take more events. While it is not, the peer is not read.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready once the program has been told everything, after `Closed`.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The program's turn within the connection's, where it has one.
    fn poll_program(&mut self, cx: &mut Context<'_>);

    /// A decision about an admission that was requested.
    fn poll_decision(&mut self, cx: &mut Context<'_>) -> Poll<(Ticket, Result<(), Refusal>)>;

    /// A turn has ended, in which that came and went.
    fn end_turn(&mut self, traffic: Traffic);

    /// A good moment to give back the room that a burst has taken.
    fn release_spare_room(&mut self);
}

/// One connection, with all that drives it. It lives in a box: a future keeps room for what is moved into it, and for
/// what becomes of that, and there may be a hundred thousand of them.
pub(crate) struct Line<T, A> {
    transport: T,
    endpoint: Endpoint,
    commands: Commands,
    attendant: A,
    /// What the transport had no room for. It is the end of the connection.
    refused: Vec<Frame>,
    closed: bool,
    /// The time for which the timer is armed. It may be earlier than the deadline, never later.
    armed: Option<Instant>,
}

/// Where a turn has come to.
enum Turn {
    Wait,
    Yield,
    Done,
}

impl<T: Transport, A: Attendant> Line<T, A> {
    pub(crate) fn new(transport: T, connection: Connection, commands: Commands, attendant: A) -> Box<Self> {
        let endpoint = Endpoint::new(connection);
        let refused = Vec::new();
        Box::new(Self { transport, endpoint, commands, attendant, refused, closed: false, armed: None })
    }

    /// Drives the connection to its end. Returns once the program has been told everything and the transport is gone; with
    /// what was not sent: the frames of which nothing was written come before the messages that still wait.
    pub(crate) async fn drive<R: Runtime>(mut self: Box<Self>) -> (Unsent, A) {
        {
            let mut timer = pin!(R::timer());
            poll_fn(|cx| self.poll::<R>(timer.as_mut(), cx)).await;
        }
        Box::pin(self.finish()).await
    }

    async fn finish(self: Box<Self>) -> (Unsent, A) {
        let Self { mut transport, mut endpoint, mut commands, mut attendant, refused, .. } = *self;
        let mut frames = transport.take_unsent();
        frames.extend(refused);
        // Gone with its farewell, however long the program takes to hear of it.
        drop(transport);
        poll_fn(|cx| attendant.poll_told(cx)).await;
        let mut messages = endpoint.take_unsent();
        messages.extend(commands.close());
        (Unsent { frames, messages }, attendant)
    }

    fn poll<R: Runtime>(&mut self, mut timer: Pin<&mut R::Timer>, cx: &mut Context<'_>) -> Poll<()> {
        self.commands.wake_up(cx);
        loop {
            let now = runtime::now::<R>();
            let turn = self.turn(now, cx);
            self.attendant.end_turn(self.endpoint.take_traffic());
            match turn {
                Turn::Done => return Poll::Ready(()),
                Turn::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::Wait => {}
            }
            // Something may have come since it was looked for; from here on, it wakes the task.
            if self.commands.fall_asleep() && self.await_deadline::<R>(now, timer.as_mut(), cx).is_pending() {
                return Poll::Pending;
            }
            self.commands.wake_up(cx);
        }
    }

    fn turn(&mut self, now: Now, cx: &mut Context<'_>) -> Turn {
        let Self { transport, endpoint, commands, attendant, refused, closed, .. } = self;
        endpoint.begin_turn(now);
        loop {
            match endpoint.poll_action() {
                Action::Read { limit, heard } => {
                    if heard && attendant.poll_ready(cx).is_pending() {
                        endpoint.handle_reads_paused();
                    } else {
                        endpoint.handle_incoming(transport.poll_frame(limit, cx));
                    }
                }
                Action::Event(event) => {
                    match &event {
                        Event::Authenticated { .. } => {
                            transport.authenticated(endpoint.connection().config());
                        }
                        Event::Closed { .. } => {
                            *closed = true;
                            // Before the program is waited for: its handler may be waiting for room.
                            commands.refuse();
                        }
                        _ => {}
                    }
                    attendant.attend(event, now);
                }
                Action::Send(frame) => match transport.start_send(frame, cx) {
                    Ok(()) => {}
                    Err(StartSendError::Full(frame)) => {
                        refused.push(frame);
                        endpoint.handle_overflow();
                    }
                    Err(StartSendError::Broken) => endpoint.handle_broken(),
                },
                Action::Program => {
                    let began = endpoint.connection().is_authenticated();
                    if !began {
                        // Whoever is to end is not let in any more.
                        commands.give_to(endpoint, now);
                    }
                    if *closed {
                        // It goes on, however long the peer takes to go.
                        let _ = attendant.poll_told(cx);
                    } else if began {
                        attendant.poll_program(cx);
                        commands.give_to(endpoint, now);
                    } else if let Poll::Ready((ticket, verdict)) = attendant.poll_decision(cx) {
                        // Too late is too late: the connection has ended meanwhile, and has said so.
                        let _ = endpoint.decide(ticket, verdict, now);
                    }
                }
                Action::ReleaseSpareRoom => {
                    transport.release_spare_room();
                    commands.release_spare_room();
                    attendant.release_spare_room();
                }
                Action::Flush => {
                    if !endpoint.is_stalled() && !transport.needs_flush() {
                        endpoint.handle_flushed();
                        continue;
                    }
                    match transport.poll_flush(cx) {
                        Poll::Ready(Ok(())) => endpoint.handle_flushed(),
                        Poll::Ready(Err(_)) => endpoint.handle_broken(),
                        Poll::Pending => endpoint.handle_flush_blocked(transport.progress()),
                    }
                }
                Action::Shutdown => {
                    if transport.poll_shutdown(cx).is_ready() {
                        endpoint.handle_shut_down();
                    }
                }
                Action::Yield => return Turn::Yield,
                Action::Done => return Turn::Done,
                Action::Wait => return Turn::Wait,
            }
        }
    }

    /// Ready when a deadline has come. Activity moves the deadline and leaves the timer: it is armed again only
    /// when it fires early, or has to fire earlier.
    fn await_deadline<R: Runtime>(
        &mut self,
        now: Now,
        mut timer: Pin<&mut R::Timer>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let Some(deadline) = self.endpoint.poll_timeout() else { return Poll::Pending };
            if deadline <= now.mono {
                return Poll::Ready(());
            }
            if self.armed.is_none_or(|armed| deadline < armed) {
                runtime::arm::<R>(timer.as_mut(), deadline);
                self.armed = Some(deadline);
            }
            // Each time: that it waits does not mean that it will wake us, when the task has had its share (tokio's `coop`).
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
            // It fired, so the time that this turn knows is old.
            if runtime::now::<R>().mono >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

/// What was to be sent when a connection ended.
pub(crate) struct Unsent {
    /// Handed to the transport, and nothing of it written.
    pub(crate) frames: Vec<Frame>,
    /// Never handed to it.
    pub(crate) messages: Vec<link_core::Message>,
}

/// Whichever of the two is first; `None` when it is the time-out. A zero time-out never comes.
pub(crate) async fn within<R: Runtime, T>(
    started: Instant,
    timeout: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    if timeout.is_zero() {
        return Some(work.await);
    }
    match select(pin!(work), pin!(runtime::sleep_until::<R>(started.after(timeout)))).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
