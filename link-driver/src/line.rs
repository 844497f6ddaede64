//! The one I/O loop: one task owns one WebSocket and its `Connection`, and lives in turns.
//!
//! A turn takes what the application asked for (bounded), reads the frames that are already there (bounded),
//! looks at the clock, does what the connection says, and **flushes once**. Nothing is shared with another task
//! but the queues at both ends; what waits in the one is taken whole, by one lock a turn.
//!
//! ```text
//! socket ──frames──▶ Connection ──events──▶ Attendant ──▶ the application
//! socket ◀──frames── Connection ◀─commands─ Outbox    ◀── the application
//! ```

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::{Either, join, select};
use link_core::{CloseReason, Connection, Event, Frame, Instant, Now, Output, Refusal, Ticket};
use link_websocket::Incoming;

use crate::{
    limits::{DEFAULT_SEND_TIMEOUT, Limits},
    outbox::Commands,
    runtime::{self, Runtime},
    socket::WebSocket,
};

/// Messages and frames that one turn takes at most, before other tasks get theirs.
const TURN_ITEMS: usize = 128;
/// Bytes of messages that one turn takes from the application at most (and one message more).
pub(crate) const TURN_BYTES: usize = 256 << 10;
/// How long the peer's end may take once all has left. Where this side does not close of its own accord, the last words have
/// no longer than that either.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Who stands between a connection and its application: a server's registry, or a client's reconnecting loop.
pub(crate) trait Attendant {
    /// The connection has something to tell. The last one is `Closed`.
    fn attend(&mut self, event: Event, now: Now);

    /// Ready while the application can take more events. While it is not, the peer is not read.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready once the application has been told everything, after `Closed`.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// A decision about an admission that was requested.
    fn poll_decision(&mut self, cx: &mut Context<'_>) -> Poll<(Ticket, Result<(), Refusal>)>;

    /// Ready when the connection is to end for a reason that does not come from its peer.
    fn poll_eviction(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason>;

    /// What came and went in a turn; not called when that is nothing.
    fn count(&mut self, traffic: Traffic);
}

/// The application's messages that came and went in one turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
}

impl Traffic {
    fn received(&mut self, bytes: usize) {
        self.messages_received = self.messages_received.saturating_add(1);
        self.bytes_received = self.bytes_received.saturating_add(bytes as u64);
    }

    fn sent(&mut self, bytes: usize) {
        self.messages_sent = self.messages_sent.saturating_add(1);
        self.bytes_sent = self.bytes_sent.saturating_add(bytes as u64);
    }
}

/// One connection, with all that drives it. It lives in a box: a future keeps room for what is moved into it, and for
/// what becomes of that, and there may be a hundred thousand of them.
pub(crate) struct Line<S, A> {
    socket: WebSocket<S>,
    connection: Connection,
    commands: Commands,
    attendant: A,
    limits: Limits,
    send_timeout: Duration,
    flush: Flush,
    /// Whether the peer is read; not while the application is behind.
    reading: bool,
    /// Close as soon as nothing waits to be sent any more.
    leaving: Option<CloseReason>,
    /// All that was sent before the close was handed to the socket, and the peer has so long to take some more of it.
    tail: Option<Duration>,
    /// Writing failed. What the peer said before is still read.
    broken: bool,
    /// The connection wants its transport closed.
    ended: bool,
    /// The time for which the timer is armed. It may be earlier than the deadline, never later.
    armed: Option<Instant>,
    /// Of this turn.
    traffic: Traffic,
}

/// Whether all that was written has left.
#[derive(Clone, Copy)]
enum Flush {
    Done,
    /// The peer does not take more, since then, after that many bytes.
    Stalled {
        since: Instant,
        written: u64,
    },
}

impl<S, A> Line<S, A>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Attendant,
{
    pub(crate) fn new(
        socket: WebSocket<S>,
        connection: Connection,
        commands: Commands,
        attendant: A,
        limits: Limits,
        send_timeout: Duration,
    ) -> Box<Self> {
        Box::new(Self {
            socket,
            connection,
            commands,
            attendant,
            limits,
            send_timeout,
            flush: Flush::Done,
            reading: true,
            leaving: None,
            tail: None,
            broken: false,
            ended: false,
            armed: None,
            traffic: Traffic::default(),
        })
    }

    /// Drives the connection to its end. Returns once the application has been told everything and the socket is closed; with
    /// the frames that were written to the socket and have not begun to leave, which come before the commands that still wait.
    pub(crate) async fn drive<R: Runtime>(mut self: Box<Self>) -> (Vec<Frame>, Commands, A) {
        {
            let mut timer = pin!(R::timer());
            poll_fn(|cx| self.turn::<R>(timer.as_mut(), cx)).await;
        }
        Box::pin(self.see_off::<R>()).await
    }

    fn turn<R: Runtime>(&mut self, mut timer: Pin<&mut R::Timer>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = runtime::now::<R>();
            self.commands.listen(cx);
            self.drain(now, cx);
            let mut more = self.take_commands(now, cx);
            self.commands.settle();
            more |= self.read_frames(now, cx);
            self.take_decision(now, cx);
            self.check_clock(now, cx);
            self.flush(now, cx);
            if self.traffic != Traffic::default() {
                self.attendant.count(std::mem::take(&mut self.traffic));
            }
            if self.ended {
                return Poll::Ready(());
            }
            if more {
                // The bounds of this turn are reached: let the others have theirs.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.await_deadline::<R>(now, timer.as_mut(), cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Says the last words and waits for the peer's end, for a moment, and until the application has been told everything.
    async fn see_off<R: Runtime>(self: Box<Self>) -> (Vec<Frame>, Commands, A) {
        let Self { mut socket, commands, mut attendant, tail, limits, broken, .. } = *self;
        // The socket is gone with its farewell, however long the application takes to hear of it.
        let farewell = async move {
            // Nothing more is written to a socket that is broken.
            if !broken {
                if let Some(patience) = tail {
                    flush_while_taken::<R, S>(&mut socket, limits.max_message_size, patience).await;
                }
                let patience = runtime::now::<R>().mono.after(LINGER);
                select(pin!(socket.drain()), pin!(runtime::sleep_until::<R>(patience))).await;
            }
            socket.take_unsent()
        };
        let (unsent, ()) = join(farewell, poll_fn(|cx| attendant.poll_told(cx))).await;
        (unsent, commands, attendant)
    }

    /// Takes an eviction, and messages. Says whether there may be more.
    fn take_commands(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        if !self.ended
            && let Poll::Ready(reason) = self.attendant.poll_eviction(cx)
        {
            let can_send = self.connection.is_authenticated() && !self.broken;
            match reason {
                // It leaves already, and may not take its time any more.
                CloseReason::Local if self.leaving.is_some() => {}
                // What the application has sent before comes first.
                CloseReason::Local | CloseReason::ShuttingDown if can_send => self.leaving = Some(reason),
                reason => self.connection.close(reason, now),
            }
            self.drain(now, cx);
        }
        if self.broken {
            // Nothing leaves any more: what waits is handed back when the end is told.
            if let Some(reason) = self.leaving.take() {
                self.connection.close(reason, now);
                self.drain(now, cx);
            }
            return false;
        }
        let mut bytes = 0usize;
        for _ in 0..TURN_ITEMS {
            // While the peer does not take what was written, the rest waits in the bounded queue.
            if self.ended || self.broken || bytes >= TURN_BYTES || self.is_stalled() {
                return !self.ended && bytes >= TURN_BYTES;
            }
            match self.commands.next() {
                Some(message) => {
                    let size = message.as_str().len();
                    bytes = bytes.saturating_add(size);
                    // The outbox has checked what can be checked; if the connection has ended, it says so.
                    if self.connection.send(message, now).is_ok() {
                        self.traffic.sent(size);
                    }
                }
                None => {
                    let patience = self.patience();
                    if let Some(reason) = self.leaving.take() {
                        self.tail = Some(patience);
                        self.connection.close(reason, now);
                        self.drain(now, cx);
                    }
                    return false;
                }
            }
            self.drain(now, cx);
        }
        !self.ended
    }

    /// Reads what is there. Says whether there may be more.
    fn read_frames(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        for _ in 0..TURN_ITEMS {
            if self.ended {
                return false;
            }
            // Who is told to close is read even when the application is behind, for it is not told of that any more. And two
            // sides that close would wait for one another.
            let ready = self.leaving.is_some() || self.attendant.poll_ready(cx).is_ready();
            if ready != self.reading {
                self.reading = ready;
                match ready {
                    true => self.connection.handle_reads_resumed(now),
                    false => self.connection.handle_reads_paused(now),
                }
            }
            if !ready {
                return false;
            }
            match self.socket.read(self.connection.receive_limit(), cx) {
                Incoming::Frame(frame) => self.connection.handle_frame(frame, now),
                Incoming::Violation(violation) => self.connection.handle_violation(violation, now),
                Incoming::Ended => self.connection.handle_transport_closed(now),
                Incoming::Enough => return true,
                // What the peer has said before is heard by now.
                Incoming::Nothing if self.broken => self.connection.handle_transport_closed(now),
                Incoming::Nothing => return false,
            }
            self.drain(now, cx);
        }
        !self.ended
    }

    /// After the frames, since one of them may just have asked for it.
    fn take_decision(&mut self, now: Now, cx: &mut Context<'_>) {
        if !self.ended
            && let Poll::Ready((ticket, verdict)) = self.attendant.poll_decision(cx)
        {
            // Too late is too late: the connection has ended meanwhile, and has said so.
            let _ = self.connection.decide(ticket, verdict, now);
            self.drain(now, cx);
        }
    }

    fn check_clock(&mut self, now: Now, cx: &mut Context<'_>) {
        if self.connection.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.connection.handle_timeout(now);
            self.drain(now, cx);
            self.commands.tidy();
            self.socket.tidy();
        }
        if self.stalled_until().is_some_and(|due| due <= now.mono) {
            self.connection.close(self.leaving.take().unwrap_or(CloseReason::SlowPeer), now);
            self.drain(now, cx);
        }
    }

    /// Does what the connection says, in its order.
    fn drain(&mut self, now: Now, cx: &mut Context<'_>) {
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Send(frame) => self.write(frame, now, cx),
                // A peer that was told to close is not heard any more.
                Output::Event(Event::Message(_)) if self.leaving.is_some() => {}
                Output::Event(event) => {
                    match &event {
                        Event::Authenticated { .. } => self.socket.trust(&self.limits),
                        Event::Message(message) => self.traffic.received(message.as_str().len()),
                        _ => {}
                    }
                    self.attendant.attend(event, now);
                }
                Output::CloseTransport => self.ended = true,
            }
        }
    }

    fn write(&mut self, frame: Frame, now: Now, cx: &mut Context<'_>) {
        if self.broken {
            return;
        }
        match self.socket.write(frame, cx) {
            Ok(()) => {}
            Err(CloseReason::SlowPeer) => self.connection.close(CloseReason::SlowPeer, now),
            Err(_) => self.broken = true,
        }
    }

    fn flush(&mut self, now: Now, cx: &mut Context<'_>) {
        if self.broken || self.ended || !(self.is_stalled() || self.socket.needs_flush()) {
            return;
        }
        let flushed: Poll<io::Result<()>> = self.socket.poll_flush(cx);
        self.flush = match flushed {
            Poll::Ready(Ok(())) => {
                if let Flush::Stalled { .. } = self.flush {
                    // Commands were left waiting without anybody to be woken by them.
                    cx.waker().wake_by_ref();
                }
                Flush::Done
            }
            Poll::Ready(Err(_)) => {
                self.broken = true;
                cx.waker().wake_by_ref();
                Flush::Done
            }
            Poll::Pending => {
                let written = self.socket.bytes_written();
                match self.flush {
                    Flush::Stalled { written: before, .. } if before == written => self.flush,
                    _ => Flush::Stalled { since: now.mono, written },
                }
            }
        };
    }

    const fn is_stalled(&self) -> bool {
        matches!(self.flush, Flush::Stalled { .. })
    }

    /// When a peer that takes nothing has had its time.
    fn stalled_until(&self) -> Option<Instant> {
        let patience = self.patience();
        match self.flush {
            Flush::Stalled { since, .. } if !patience.is_zero() => Some(since.after(patience)),
            _ => None,
        }
    }

    /// How long a peer may take nothing of what is sent to it. Zero is for ever.
    fn patience(&self) -> Duration {
        match self.leaving {
            Some(CloseReason::ShuttingDown) => LINGER,
            // Whoever is leaving could wait for ever, and nobody would be there to end it.
            Some(_) if self.send_timeout.is_zero() => DEFAULT_SEND_TIMEOUT,
            _ => self.send_timeout,
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
            let deadline = [self.connection.poll_timeout(), self.stalled_until()].into_iter().flatten().min();
            let Some(deadline) = deadline else { return Poll::Pending };
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

/// Writes what is left, for as long as the peer takes some of it at least once in so long. What it says meanwhile is read and
/// dropped: it may have as much to say before it reads on.
async fn flush_while_taken<R: Runtime, S>(socket: &mut WebSocket<S>, receive_limit: usize, patience: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut timer = pin!(R::timer());
    let (mut taken, mut since) = (socket.bytes_written(), runtime::now::<R>().mono);
    runtime::arm::<R>(timer.as_mut(), since.after(patience));
    let mut reading = true;
    poll_fn(|cx| {
        loop {
            if socket.poll_flush(cx).is_ready() {
                return Poll::Ready(());
            }
            reading = reading && discard(socket, receive_limit, cx);
            let now = runtime::now::<R>().mono;
            if socket.bytes_written() != taken {
                (taken, since) = (socket.bytes_written(), now);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It may have been armed before the peer took some.
            if now >= since.after(patience) {
                return Poll::Ready(());
            }
            runtime::arm::<R>(timer.as_mut(), since.after(patience));
        }
    })
    .await;
}

/// Reads what is there, and drops it. Says whether there can be more.
fn discard<S>(socket: &mut WebSocket<S>, receive_limit: usize, cx: &mut Context<'_>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..TURN_ITEMS {
        match socket.read(receive_limit, cx) {
            Incoming::Frame(_) => {}
            Incoming::Nothing => return true,
            Incoming::Enough => break,
            Incoming::Violation(_) | Incoming::Ended => return false,
        }
    }
    // The bounds of this turn are reached: let the others have theirs.
    cx.waker().wake_by_ref();
    true
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
