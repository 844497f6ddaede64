//! One who sends, and those who are to receive it: in echo mode each connection for itself, in broadcast mode all of them.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use link_driver::{ClientEvent, CloseReason, Message, SendError};
use link_tokio::{Client, ClientHandle};

use super::{Run, book::Book, payload::Read, schedule::Schedule};

/// The members of a group, and what is awaited of each.
#[derive(Debug)]
pub(super) struct Group {
    number: u16,
    sender: ClientHandle,
    /// What the sender has to keep to; without one, it sends whenever it may.
    schedule: Option<Schedule>,
    /// Of each member; the sender's is the first.
    books: Vec<Mutex<Book>>,
    /// How many members still have a line.
    alive: AtomicUsize,
    /// Over all members.
    awaited: AtomicUsize,
    /// Whether any member but the sender, if there are others, was ever answered.
    pub(super) answered: AtomicBool,
    turn: Mutex<Turn>,
}

/// Whoever holds it sends.
#[derive(Debug, Default)]
struct Turn {
    /// The number of the next message.
    next: u64,
    /// There was no room for one that was due, and it has not caught up since.
    behind: bool,
    /// The sender's line is gone.
    over: bool,
}

impl Group {
    pub(super) fn new(number: u16, sender: ClientHandle, members: usize, schedule: Option<Schedule>) -> Self {
        Self {
            number,
            sender,
            schedule,
            books: (0..members).map(|_| Mutex::default()).collect(),
            alive: AtomicUsize::new(members),
            awaited: AtomicUsize::new(0),
            answered: false.into(),
            turn: Mutex::default(),
        }
    }

    /// Sends what is due and has room.
    pub(super) fn send(&self, run: &Run) {
        let mut turn = lock(&self.turn);
        let window = run.clock.window();
        while !turn.over {
            let now = run.clock.now();
            let due = self.schedule.map_or(now, |schedule| schedule.due(turn.next));
            if due > now || due >= window.end {
                turn.behind = false;
                return;
            }
            let alive = self.alive.load(Ordering::Relaxed);
            // So many may be missing, of all that was sent before.
            let may_miss = alive.saturating_mul(run.depth.saturating_sub(1));
            if alive == 0 || self.awaited.load(Ordering::Acquire) > may_miss {
                turn.behind = true;
                return;
            }
            let Ok(message) = run.payload.write(self.number, turn.next) else { return };
            let bytes = message.as_str().len();
            // Before it goes out, since the answer may be here before this goes on.
            let entered = self.books.iter().filter(|book| lock(book).enter(due, now)).count();
            self.awaited.fetch_add(entered, Ordering::AcqRel);
            if let Err(error) = self.sender.try_send(message) {
                let back = self.books.iter().filter(|book| lock(book).take_back(turn.next)).count();
                self.awaited.fetch_sub(back, Ordering::AcqRel);
                // Otherwise its line is gone, which is told to whoever receives there.
                turn.over = !matches!(error, SendError::Full { .. });
                return;
            }
            turn.next = turn.next.saturating_add(1);
            let mut tally = run.tally();
            tally.sent(window, due, now, bytes);
            if self.schedule.is_some() && turn.behind {
                tally.held = tally.held.saturating_add(1);
            }
        }
    }

    /// Receives on the line of a member, until it ends.
    pub(super) async fn receive(&self, member: usize, mut client: Client, run: &Run) {
        while let Some(event) = client.next().await {
            match event {
                ClientEvent::Message(message) => self.received(member, &message, run),
                ClientEvent::Disconnected { reason: CloseReason::Local, .. } => {}
                ClientEvent::Disconnected { reason, .. } => {
                    run.tally().errors.lose(reason.label(), || reason.to_string());
                }
                _ => {}
            }
        }
        self.line_is_gone(member, run);
    }

    fn received(&self, member: usize, message: &Message, run: &Run) {
        let Some(book) = self.books.get(member) else { return };
        let text = message.as_str();
        let (now, window) = (run.clock.now(), run.clock.window());
        let read = run.payload.read(text);
        let was_awaited = {
            let mut book = lock(book);
            let mut tally = run.tally();
            tally.received(window, now, text.len());
            match read {
                Read::Ours { sender, number } if sender == self.number => {
                    book.answer(number, now, window, &mut tally)
                }
                Read::Ours { .. } | Read::Altered => {
                    tally.errors.wrong = tally.errors.wrong.saturating_add(1);
                    false
                }
                Read::Foreign => {
                    tally.foreign = tally.foreign.saturating_add(1);
                    false
                }
            }
        };
        if was_awaited {
            if member > 0 || self.books.len() == 1 {
                self.answered.store(true, Ordering::Relaxed);
            }
            self.resolve(1, run);
        }
    }

    /// Gives up what was sent too long ago, and sends what then has room.
    pub(super) fn expire(&self, now: Duration, run: &Run) {
        let window = run.clock.window();
        let expired: usize = self
            .books
            .iter()
            .map(|book| lock(book).expire(now, run.timeout, window, &mut run.tally()))
            .fold(0, usize::saturating_add);
        self.resolve(expired, run);
    }

    fn line_is_gone(&self, member: usize, run: &Run) {
        let Some(book) = self.books.get(member) else { return };
        if member == 0 {
            lock(&self.turn).over = true;
        }
        self.alive.fetch_sub(1, Ordering::Relaxed);
        let missing = lock(book).close(run.clock.now(), run.timeout, run.clock.window(), &mut run.tally());
        self.resolve(missing, run);
    }

    /// So many are awaited no more.
    fn resolve(&self, many: usize, run: &Run) {
        self.awaited.fetch_sub(many, Ordering::AcqRel);
        self.send(run);
    }

    /// Whether nobody can send here any more.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.turn).over
    }

    /// Whether all is sent that was due before the end, and all is answered.
    pub(super) fn is_done(&self, end: Duration) -> bool {
        let turn = lock(&self.turn);
        let unsent = !turn.over && self.schedule.is_some_and(|schedule| turn.next < schedule.before(end));
        !unsent && self.awaited.load(Ordering::Acquire) == 0
    }

    /// Sends no more, and enters what is missing.
    pub(super) fn finish(&self, at_least: Duration, run: &Run) {
        let mut turn = lock(&self.turn);
        turn.over = true;
        let (now, window) = (run.clock.now(), run.clock.window());
        for book in &self.books {
            lock(book).close(now, at_least, window, &mut run.tally());
        }
        if let Some(schedule) = self.schedule {
            let answers = u64::try_from(self.books.len()).unwrap_or(u64::MAX);
            run.tally().unsent(window, schedule, turn.next, now, at_least, answers);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
