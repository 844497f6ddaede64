//! What is awaited on one line. It knows no clock, so that a stall can be told in a test.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{clock::Window, tally::Tally};

/// Numbers of messages that were given up are remembered up to so many, to know their answers as late ones.
const REMEMBERED: usize = 1 << 16;

/// The messages whose answers are to come on one line, by number.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The number of the first one in `awaited`.
    first: u64,
    awaited: VecDeque<Awaited>,
    given_up: BTreeSet<u64>,
    /// The highest number that was answered.
    latest: Option<u64>,
    closed: bool,
}

#[derive(Debug)]
struct Awaited {
    due: Duration,
    sent: Duration,
    answered: bool,
}

impl Book {
    /// The next message goes out now. False if nothing is awaited any more.
    pub(super) fn enter(&mut self, due: Duration, now: Duration) -> bool {
        if !self.closed {
            self.awaited.push_back(Awaited { due, sent: now, answered: false });
        }
        !self.closed
    }

    /// This one, the last, did not go out after all. False if nothing was awaited.
    pub(super) fn take_back(&mut self, number: u64) -> bool {
        let last = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        last < self.awaited.len() && self.awaited.pop_back().is_some()
    }

    /// An answer came. True if it was the awaited one.
    pub(super) fn answer(&mut self, number: u64, now: Duration, window: Window, tally: &mut Tally) -> bool {
        if self.closed {
            return false;
        }
        let errors = &mut tally.errors;
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let awaited = match place.map(|place| self.awaited.get_mut(place)) {
            Some(Some(awaited)) if !awaited.answered => awaited,
            // It lies ahead: nobody has sent it.
            Some(None) => {
                errors.wrong = errors.wrong.saturating_add(1);
                return false;
            }
            _ => {
                let counter = match self.given_up.remove(&number) {
                    true => &mut errors.late,
                    false => &mut errors.duplicate,
                };
                *counter = counter.saturating_add(1);
                return false;
            }
        };
        awaited.answered = true;
        let due = awaited.due;
        match self.latest {
            Some(latest) if number < latest => errors.out_of_order = errors.out_of_order.saturating_add(1),
            _ => self.latest = Some(number),
        }
        while self.awaited.front().is_some_and(|awaited| awaited.answered) {
            self.leave();
        }
        tally.answered(window, due, now);
        true
    }

    /// Gives up what was sent longer ago than the time-out. Returns how many.
    pub(super) fn expire(
        &mut self,
        now: Duration,
        timeout: Duration,
        window: Window,
        tally: &mut Tally,
    ) -> usize {
        let mut many = 0usize;
        while let Some(&Awaited { due, sent, answered }) = self.awaited.front() {
            if now.saturating_sub(sent) < timeout {
                break;
            }
            if !answered {
                tally.unanswered(window, due, now, timeout);
                many = many.saturating_add(1);
                self.given_up.insert(self.first);
                if self.given_up.len() > REMEMBERED {
                    self.given_up.pop_first();
                }
            }
            self.leave();
        }
        many
    }

    /// Nothing comes any more: gives up all, and says how many. Each counts as waited for `at_least`.
    pub(super) fn close(
        &mut self,
        now: Duration,
        at_least: Duration,
        window: Window,
        tally: &mut Tally,
    ) -> usize {
        self.closed = true;
        let awaited = std::mem::take(&mut self.awaited);
        let missing = awaited.iter().filter(|awaited| !awaited.answered);
        missing.map(|awaited| tally.unanswered(window, awaited.due, now, at_least)).count()
    }

    fn leave(&mut self) {
        self.awaited.pop_front();
        self.first = self.first.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::schedule::Schedule;

    const ALL: Window = Window { start: Duration::ZERO, end: Duration::from_secs(3600) };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A book in which so many were sent at once.
    fn book(many: usize) -> (Book, Tally) {
        let mut book = Book::default();
        for _ in 0..many {
            book.enter(ms(0), ms(0));
        }
        (book, Tally::new().unwrap())
    }

    fn quantile(tally: &Tally, quantile: f64) -> u64 {
        tally.latency().value_at_quantile(quantile) / 1_000_000
    }

    /// A server that answers within 1 ms, but for a second in which it does nothing; one message each 10 ms, for 10 s.
    #[test]
    fn a_stall_is_felt_by_all_that_were_due_meanwhile() {
        let schedule = Schedule::new(100);
        let (mut book, mut tally) = book(0);
        let stall = ms(5000)..ms(6000);
        for number in 0..1000 {
            let due = schedule.due(number);
            // It cannot be sent while the one before is in flight (depth 1), and waits.
            let sent = if stall.contains(&due) && due > stall.start { stall.end } else { due };
            book.enter(due, sent);
            let answered = if stall.contains(&sent) { stall.end } else { sent + ms(1) };
            assert!(book.answer(number, answered, ALL, &mut tally));
        }
        // A tenth was due in that second, and waited for half of it on average. Counted from when they could be sent, it
        // would have been one message of a thousand.
        assert_eq!(tally.latency().len(), 1000);
        assert_eq!(quantile(&tally, 0.5), 1);
        assert!((900..=1010).contains(&quantile(&tally, 0.99)), "{}", quantile(&tally, 0.99));
        assert!((490..=510).contains(&quantile(&tally, 0.95)), "{}", quantile(&tally, 0.95));
    }

    #[test]
    fn what_is_never_answered_or_sent_is_in_the_latency_as_the_time_out_at_least() {
        let (mut book, mut tally) = book(10);
        for number in 0..8 {
            book.answer(number, ms(1), ALL, &mut tally);
        }
        assert_eq!(book.expire(ms(499), ms(500), ALL, &mut tally), 0);
        assert_eq!(book.expire(ms(500), ms(500), ALL, &mut tally), 2);
        // Twelve are due before the end, at 0, 50 ms, 100 ms ...
        let window = Window { start: ms(0), end: ms(600) };
        tally.unsent(window, Schedule::new(20), 10, ms(700), ms(500), 1);
        assert_eq!((tally.errors.unanswered, tally.errors.unsent, tally.latency().len()), (2, 2, 12));
        assert!(quantile(&tally, 0.7) >= 500);
    }

    #[test]
    fn heaps_of_unsent_messages_are_all_counted() {
        let (_, mut tally) = book(0);
        let window = Window { start: ms(1), end: ms(1001) };
        tally.unsent(window, Schedule::new(1_000_003), 5, ms(1001), ms(1), 3);
        assert_eq!((tally.errors.unsent, tally.latency().len()), (1_001_004 - 5, 3 * 1_000_003));
    }

    #[test]
    fn the_warm_up_is_not_measured() {
        let (mut book, mut tally) = book(0);
        let window = Window { start: ms(100), end: ms(200) };
        for (number, due) in [(0, 99), (1, 100), (2, 199), (3, 200)] {
            book.enter(ms(due), ms(due));
            book.answer(number, ms(due + 1), window, &mut tally);
        }
        assert_eq!(tally.latency().len(), 2);
    }

    #[test]
    fn answers_that_come_twice_or_late_or_from_nowhere_or_in_another_order_are_errors() {
        let (mut book, mut tally) = book(5);
        let mut answer = |number, at| book.answer(number, ms(at), ALL, &mut tally);
        assert!(answer(1, 1));
        assert!(answer(0, 1));
        assert!(!answer(0, 1));
        assert!(answer(3, 1));
        assert!(!answer(3, 1));
        assert!(!answer(5, 1));
        assert_eq!(book.expire(ms(10), ms(10), ALL, &mut tally), 2);
        for number in [2, 2, 4] {
            assert!(!book.answer(number, ms(11), ALL, &mut tally));
        }
        let errors = &tally.errors;
        assert_eq!((errors.out_of_order, errors.wrong, errors.unanswered, errors.late), (1, 1, 2, 2));
        assert_eq!(errors.duplicate, 3);
        // Five were sent, and five are in the latency.
        assert_eq!(tally.latency().len(), 5);
    }

    #[test]
    fn one_that_is_missing_makes_no_wrong_order_of_the_rest() {
        let (mut book, mut tally) = book(5);
        for number in 1..5 {
            assert!(book.answer(number, ms(1), ALL, &mut tally));
        }
        assert_eq!(tally.errors.out_of_order, 0);
        assert_eq!(book.close(ms(2), ms(500), ALL, &mut tally), 1);
        assert!(!book.enter(ms(3), ms(3)));
    }
}
