//! Reconnection: when a client dials again, and when it stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::time::Duration;

use link_core::{
    CloseReason, GiveUp, Instant, Next, Now, Reconnect, ReconnectPolicy, Refusal, Status, UnixMillis,
    Violation,
};
use proptest::prelude::*;
use support::*;

const LOST: CloseReason = CloseReason::Lost;
const FINAL: Next = Next::GiveUp(GiveUp::Final);
const DISCONNECTED: Next = Next::GiveUp(GiveUp::Disconnected);

/// A client's memory with a clock.
struct Dialler {
    reconnect: Reconnect,
    now: Now,
}

impl Dialler {
    fn new(policy: ReconnectPolicy, seed: u64) -> Self {
        Self { reconnect: Reconnect::new(policy, seed), now: start() }
    }

    fn next(&self) -> Next {
        self.reconnect.next(self.now)
    }

    fn passes(&mut self, by: Duration) {
        self.now.mono = self.now.mono.after(by);
    }

    /// How long it waits until it dials again; `None` when it has given up.
    fn waits(&mut self) -> Option<Duration> {
        let before = self.now.mono;
        match self.next() {
            Next::Dial => {}
            Next::WaitUntil(at) => {
                assert!(at > before);
                self.now.mono = at;
            }
            Next::GiveUp(_) => return None,
            Next::Carry => panic!("it is connected"),
        }
        assert_eq!(self.next(), Next::Dial);
        self.reconnect.dialled();
        assert_eq!(self.next(), Next::Carry);
        Some(self.now.mono.since(before))
    }

    /// Dials, and fails.
    fn fails(&mut self) -> Option<Duration> {
        let delay = self.waits()?;
        self.reconnect.failed(self.now);
        Some(delay)
    }

    /// Dials, is authenticated, and ends so after `lasting`.
    fn session(&mut self, lasting: Duration, reason: &CloseReason) {
        self.waits().unwrap();
        self.reconnect.authenticated(self.now);
        assert_eq!(self.next(), Next::Carry);
        self.passes(lasting);
        self.reconnect.ended(reason, self.now);
    }
}

fn policy(max_attempts: u32) -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::default();
    policy.max_attempts = max_attempts;
    policy
}

/// The delays before each attempt of a client that always fails.
fn delays(policy: ReconnectPolicy, seed: u64) -> Vec<Duration> {
    let mut dialler = Dialler::new(policy, seed);
    assert_eq!(dialler.fails(), Some(Duration::ZERO), "the first time at once");
    std::iter::from_fn(|| dialler.fails()).collect()
}

#[test]
fn the_defaults_are_those_of_the_option_table() {
    let policy = ReconnectPolicy::default();
    assert_eq!((policy.max_attempts, policy.delay), (5, secs(1)));
    assert_eq!((policy.max_delay, policy.lasted, policy.retry_refusals), (secs(30), secs(10), false));
}

#[test]
fn a_client_dials_at_once_and_then_does_nothing_while_it_is_connected() {
    let mut dialler = Dialler::new(policy(5), 0);
    assert_eq!((dialler.next(), dialler.reconnect.attempts()), (Next::Dial, 0));
    dialler.reconnect.dialled();
    assert_eq!(dialler.next(), Next::Carry);
    dialler.reconnect.authenticated(dialler.now);
    dialler.passes(secs(1_000_000));
    assert_eq!((dialler.next(), dialler.reconnect.attempts()), (Next::Carry, 0));
}

#[test]
fn each_delay_is_at_most_twice_the_bound_of_the_one_before_up_to_the_cap() {
    let bounds = [1, 2, 4, 8, 16, 30, 30, 30].map(secs);
    for seed in 0..500 {
        let delays = delays(policy(8), seed);
        assert_eq!(delays.len(), 8);
        for (delay, bound) in delays.into_iter().zip(bounds) {
            assert!(delay <= bound, "{delay:?} is beyond {bound:?} with seed {seed}");
        }
    }
}

#[test]
fn delays_are_spread_over_the_whole_of_their_range() {
    const CLIENTS: u64 = 1_000;
    let bounds = [1, 2, 4, 8, 16].map(secs);
    let mut quarters = [[0; 4]; 5];
    for seed in 0..CLIENTS {
        for (attempt, delay) in delays(policy(5), seed).into_iter().enumerate() {
            let quarter = (4 * delay.as_nanos() / (bounds[attempt].as_nanos() + 1)) as usize;
            quarters[attempt][quarter] += 1;
        }
    }
    for (attempt, counts) in quarters.iter().enumerate() {
        // Each quarter of the range gets a quarter of the clients, give or take.
        assert!(counts.iter().all(|count| (180..320).contains(count)), "attempt {attempt}: {counts:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_delays_and_another_one_others() {
    assert_eq!(delays(policy(5), 7), delays(policy(5), 7));
    assert_ne!(delays(policy(5), 7), delays(policy(5), 8));
}

#[test]
fn a_delay_longer_than_the_cap_is_capped_from_the_first_attempt_on() {
    let mut policy = policy(40);
    (policy.delay, policy.max_delay) = (secs(60), secs(2));
    for seed in 0..50 {
        assert!(delays(policy, seed).into_iter().all(|delay| delay <= secs(2)));
    }
}

#[test]
fn numbers_without_measure_neither_overflow_nor_panic() {
    for delay in [Duration::ZERO, Duration::from_nanos(1), secs(1), Duration::MAX] {
        for max_delay in [Duration::ZERO, secs(1), Duration::MAX] {
            let mut policy = policy(100);
            (policy.delay, policy.max_delay) = (delay, max_delay);
            let mut dialler = Dialler::new(policy, 3);
            for _ in 0..=100 {
                assert!(dialler.fails().is_some_and(|waited| waited <= max_delay));
            }
            assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(100)));
        }
    }
}

#[test]
fn it_gives_up_after_the_last_attempt_and_says_after_how_many() {
    let mut dialler = Dialler::new(policy(5), 1);
    for attempts in 0..=5 {
        assert_eq!(dialler.reconnect.attempts(), attempts);
        assert!(dialler.fails().is_some());
    }
    assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(5)));
    dialler.passes(secs(1_000_000));
    dialler.reconnect.dialled();
    dialler.reconnect.authenticated(dialler.now);
    dialler.reconnect.failed(dialler.now);
    dialler.reconnect.ended(&LOST, dialler.now);
    dialler.reconnect.disconnect();
    assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(5)), "for good, and for the first reason");
}

#[test]
fn with_no_attempts_the_first_end_is_the_last() {
    let mut dialler = Dialler::new(policy(0), 1);
    assert_eq!(dialler.fails(), Some(Duration::ZERO));
    assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(0)));

    let mut dialler = Dialler::new(policy(0), 1);
    dialler.session(secs(3600), &LOST);
    assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(0)));
}

#[test]
fn only_a_session_that_lasted_starts_the_count_anew() {
    for (lasting, attempts) in
        [(Duration::ZERO, 4), (millis(9_999), 4), (secs(10), 1), (millis(10_001), 1), (secs(3600), 1)]
    {
        let mut dialler = Dialler::new(policy(5), 1);
        for _ in 0..3 {
            dialler.fails();
        }
        assert_eq!(dialler.reconnect.attempts(), 3);
        dialler.session(lasting, &LOST);
        assert_eq!(dialler.reconnect.attempts(), attempts, "{lasting:?}");
    }
}

#[test]
fn a_server_that_drops_everybody_at_once_is_not_dialled_for_ever() {
    let mut dialler = Dialler::new(policy(5), 1);
    for _ in 0..=5 {
        dialler.session(millis(50), &CloseReason::PeerClosed { code: None });
    }
    assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(5)));
}

#[test]
fn an_open_socket_alone_starts_nothing_anew() {
    let mut dialler = Dialler::new(policy(2), 1);
    for _ in 0..=2 {
        dialler.waits().unwrap();
        // Open for an hour, but never authenticated.
        dialler.passes(secs(3600));
        dialler.reconnect.ended(&CloseReason::AuthenticationTimeout(secs(5)), dialler.now);
    }
    assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(2)));
}

#[test]
fn sessions_that_last_may_end_as_often_as_they_like() {
    let mut dialler = Dialler::new(policy(1), 1);
    for _ in 0..50 {
        dialler.session(secs(11), &CloseReason::Idle(secs(5)));
    }
    assert!(matches!(dialler.next(), Next::WaitUntil(_) | Next::Dial));
}

#[test]
fn how_a_session_ended_decides_whether_there_is_another() {
    let address = stranger().address();
    for (reason, again) in [
        (LOST, true),
        (CloseReason::PeerClosed { code: None }, true),
        (CloseReason::PeerClosed { code: Some(1001) }, true),
        (CloseReason::Idle(secs(5)), true),
        (CloseReason::AuthenticationTimeout(secs(5)), true),
        (CloseReason::SlowPeer, true),
        (CloseReason::RefusedByServer(Status::RequestTimeout), true),
        (Violation::WebSocket.into(), true),
        (Violation::StaleProof.into(), true),
        (CloseReason::RefusedByServer(Status::Unauthorized), false),
        (CloseReason::RefusedByServer(Status::Forbidden), false),
        (CloseReason::RefusedByServer(Status::Conflict), false),
        (CloseReason::Replaced, false),
        (CloseReason::ShuttingDown, false),
        (Refusal::Denied.into(), false),
        (Violation::Reflected.into(), false),
        (Violation::UnexpectedServer(address).into(), false),
        (Violation::BadSignature.into(), false),
        (Violation::NotJson.into(), false),
    ] {
        let mut dialler = Dialler::new(policy(5), 1);
        dialler.session(secs(3600), &reason);
        let next = dialler.next();
        assert_eq!(next != FINAL, again, "{reason}");
        assert!(again || next == FINAL, "{reason}: {next:?}");
    }
}

#[test]
fn what_this_side_has_closed_is_a_disconnect_and_no_failure() {
    let mut policy = policy(3);
    for retry_refusals in [false, true] {
        policy.retry_refusals = retry_refusals;
        let mut dialler = Dialler::new(policy, 1);
        dialler.fails();
        dialler.waits().unwrap();
        dialler.reconnect.authenticated(dialler.now);
        dialler.reconnect.ended(&CloseReason::Local, dialler.now);
        assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Disconnected));
    }
}

#[test]
fn refusals_are_retried_only_by_request_and_then_count_like_failures() {
    let refusals = [
        CloseReason::RefusedByServer(Status::Unauthorized),
        CloseReason::RefusedByServer(Status::Forbidden),
        CloseReason::RefusedByServer(Status::Conflict),
        CloseReason::Replaced,
    ];
    for reason in refusals {
        let mut policy = policy(3);
        policy.retry_refusals = true;
        let mut dialler = Dialler::new(policy, 1);
        for _ in 0..=3 {
            dialler.waits().unwrap();
            dialler.reconnect.ended(&reason, dialler.now);
        }
        assert_eq!(dialler.next(), Next::GiveUp(GiveUp::Exhausted(3)), "{reason}");
    }
    let mut policy = policy(3);
    policy.retry_refusals = true;
    let mut dialler = Dialler::new(policy, 1);
    dialler.session(secs(60), &Violation::Reflected.into());
    assert_eq!(dialler.next(), FINAL, "a reflection is no refusal");
}

#[test]
fn disconnecting_ends_everything_in_every_phase() {
    type Phase = fn(&mut Dialler);
    let phases: [Phase; 6] = [
        |_| {},
        |dialler| dialler.reconnect.dialled(),
        |dialler| {
            dialler.reconnect.dialled();
            dialler.reconnect.authenticated(dialler.now);
        },
        |dialler| {
            dialler.fails();
        },
        |dialler| {
            dialler.fails();
            dialler.passes(secs(60));
            assert_eq!(dialler.next(), Next::Dial);
        },
        |dialler| dialler.session(secs(60), &LOST),
    ];
    for phase in phases {
        let mut dialler = Dialler::new(policy(5), 1);
        phase(&mut dialler);
        dialler.reconnect.disconnect();
        assert_eq!(dialler.next(), DISCONNECTED);
        // Whatever was under way then comes too late.
        dialler.reconnect.dialled();
        dialler.reconnect.authenticated(dialler.now);
        dialler.reconnect.failed(dialler.now);
        dialler.reconnect.ended(&LOST, dialler.now);
        dialler.passes(secs(3600));
        assert_eq!(dialler.next(), DISCONNECTED);
    }
}

#[test]
fn the_wall_clock_has_no_say() {
    let mut dialler = Dialler::new(policy(5), 1);
    dialler.fails();
    let next = dialler.next();
    dialler.now.wall = UnixMillis::new(0).unwrap();
    assert_eq!(dialler.next(), next);
    dialler.now.wall = UnixMillis::MAX;
    assert_eq!(dialler.next(), next);
}

#[test]
fn one_end_that_is_told_twice_counts_once() {
    let mut dialler = Dialler::new(policy(5), 1);
    dialler.fails();
    let next = dialler.next();
    dialler.reconnect.failed(dialler.now);
    dialler.reconnect.ended(&LOST, dialler.now);
    assert_eq!((dialler.next(), dialler.reconnect.attempts()), (next, 1));
}

#[derive(Debug, Clone)]
enum Happening {
    Dials,
    IsAuthenticated,
    Fails,
    Ends(CloseReason),
    Waits(u64),
    Disconnects,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let reason = prop_oneof![
        4 => Just(LOST),
        2 => Just(CloseReason::Idle(Duration::from_secs(5))),
        1 => Just(CloseReason::Replaced),
        1 => Just(CloseReason::RefusedByServer(Status::Forbidden)),
        1 => Just(CloseReason::Local),
    ];
    let happening = prop_oneof![
        6 => Just(Happening::Dials),
        4 => Just(Happening::IsAuthenticated),
        4 => Just(Happening::Fails),
        3 => reason.prop_map(Happening::Ends),
        5 => (0_u64..40_000).prop_map(Happening::Waits),
        1 => Just(Happening::Disconnects),
    ];
    prop::collection::vec(happening, 0..60)
}

proptest! {
    #[test]
    fn whatever_happens_a_client_neither_dials_too_often_nor_revives(
        happenings in happenings(),
        max_attempts in 0_u32..4,
        retry_refusals: bool,
        seed: u64,
    ) {
        let mut policy = policy(max_attempts);
        policy.retry_refusals = retry_refusals;
        let mut dialler = Dialler::new(policy, seed);
        let mut since_lasting = 0_u32;
        let mut authenticated = None;
        let mut over = None;
        for happening in happenings {
            let before = dialler.next();
            match happening {
                Happening::Dials => {
                    // A caller dials when it is told to.
                    if before == Next::Dial {
                        dialler.reconnect.dialled();
                        since_lasting += 1;
                    }
                }
                Happening::IsAuthenticated => {
                    dialler.reconnect.authenticated(dialler.now);
                    if before == Next::Carry {
                        authenticated.get_or_insert(dialler.now.mono);
                    }
                }
                Happening::Fails => {
                    dialler.reconnect.failed(dialler.now);
                    authenticated = None;
                }
                Happening::Ends(reason) => {
                    dialler.reconnect.ended(&reason, dialler.now);
                    if authenticated.take().is_some_and(|since| dialler.now.mono.since(since) >= secs(10)) {
                        since_lasting = 0;
                    }
                    let hopeful = reason.is_retryable() || (retry_refusals && reason.is_refusal());
                    prop_assert!(hopeful || matches!(dialler.next(), Next::GiveUp(_)));
                }
                Happening::Waits(by) => dialler.passes(millis(by)),
                Happening::Disconnects => {
                    dialler.reconnect.disconnect();
                    prop_assert!(matches!(dialler.next(), Next::GiveUp(_)));
                }
            }
            let next = dialler.next();
            prop_assert_eq!(next, dialler.next(), "asking changes nothing");
            prop_assert!(since_lasting <= max_attempts + 1, "one dial, and the attempts after it");
            prop_assert!(dialler.reconnect.attempts() <= max_attempts);
            if let Next::WaitUntil(at) = next {
                prop_assert!(at > dialler.now.mono && at.since(dialler.now.mono) <= policy.max_delay);
            }
            if let Some(over) = over {
                prop_assert_eq!(next, over, "the end is the end");
            }
            if matches!(next, Next::GiveUp(_)) {
                over = Some(next);
            }
        }
    }
}

#[test]
fn a_client_never_signs_the_same_time_twice() {
    let mut reconnect = Reconnect::new(ReconnectPolicy::default(), 1);
    let at = |millis| Now { mono: Instant::default(), wall: UnixMillis::saturating(millis) };
    let mut signed = |millis| reconnect.opened(at(millis)).wall.get();
    assert_eq!(signed(1000), 1000);
    assert_eq!(signed(1000), 1001);
    assert_eq!(signed(1000), 1002);
    assert_eq!(signed(1003), 1003);
    assert_eq!(signed(1500), 1500, "a moment later it is the clock again");
    assert_eq!(signed(5000), 5000);
    assert_eq!(signed(4999), 5001, "a clock that was set back a little");
    assert_eq!(signed(1), 1, "a clock that was set back far is right, until a server says otherwise");
}

#[test]
fn a_delay_of_zero_stays_zero_however_often_it_doubles() {
    let mut zero = policy(100);
    zero.delay = Duration::ZERO;
    let mut dialler = Dialler::new(zero, 1);
    for attempt in 0..100 {
        dialler.session(secs(0), &LOST);
        assert_eq!(dialler.next(), Next::Dial, "attempt {attempt}");
    }
}
