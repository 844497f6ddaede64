//! When a client dials again, against the rules of it.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use link_core::{
    CloseReason, GiveUp, Instant, Next, Now, Reconnect, ReconnectPolicy, Refusal, Status, UnixMillis,
    Violation,
};

/// How far a signed time may run ahead of the clock.
const MAX_AHEAD: u64 = 1_000;

#[derive(Debug, Arbitrary)]
struct Policy {
    max_attempts: Attempts,
    delay: Span,
    max_delay: Span,
    lasted: Span,
    retry_refusals: bool,
    seed: u64,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Attempts {
    Few(u8),
    ForEver,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Span {
    Zero,
    Nanos(u8),
    Millis(u16),
    /// Longer than any clock counts in nanoseconds.
    Ages,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Dials,
    Opens,
    Authenticates,
    Fails,
    Ends(Ending),
    Disconnects,
    TimePasses(Span),
    /// Until it is due.
    Waits,
    WallClockSteps(i16),
}

#[derive(Debug, Arbitrary)]
enum Ending {
    Local,
    ShuttingDown,
    PeerClosed(Option<u16>),
    Lost,
    AuthenticationTimeout,
    Idle,
    Replaced,
    Refused(u8),
    RefusedByServer(u8),
    Violation(u8),
    SlowPeer,
}

/// Where the rules say that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not before then; when that is, it alone knows.
    Waiting,
    Connecting,
    Authenticated(Duration),
    Over(GiveUp),
}

/// Does what `input` says, and compares each answer with the rules.
pub fn reconnect(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(policy) = Policy::arbitrary(&mut input) else { return };
    let mut world = World::new(&policy);
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { return };
        world.meets(&step);
        world.holds();
    }
}

struct World {
    policy: ReconnectPolicy,
    subject: Reconnect,
    /// Made from the same seed: it does the same.
    twin: Reconnect,
    mono: Duration,
    wall: u64,
    phase: Phase,
    attempts: u32,
    /// Delays since a session lasted.
    in_a_row: u32,
    signed: Vec<u64>,
}

impl World {
    fn new(policy: &Policy) -> Self {
        let mut rules = ReconnectPolicy::default();
        rules.max_attempts = match policy.max_attempts {
            Attempts::Few(attempts) => u32::from(attempts),
            Attempts::ForEver => u32::MAX,
        };
        rules.delay = policy.delay.duration();
        rules.max_delay = policy.max_delay.duration();
        rules.lasted = policy.lasted.duration();
        rules.retry_refusals = policy.retry_refusals;
        let subject = Reconnect::new(rules, policy.seed);
        let twin = Reconnect::new(rules, policy.seed);
        let (mono, wall) = (Duration::from_secs(7), 1_000_000);
        let phase = Phase::Waiting;
        Self { policy: rules, subject, twin, mono, wall, phase, attempts: 0, in_a_row: 0, signed: vec![] }
    }

    fn now(&self) -> Now {
        Now { mono: Instant::from_origin(self.mono), wall: UnixMillis::saturating(self.wall) }
    }

    fn meets(&mut self, step: &Step) {
        let now = self.now();
        let both = [&mut self.subject, &mut self.twin];
        match step {
            Step::Dials => {
                // A caller who dials too early is the caller's affair; but there is never a second line.
                both.into_iter().for_each(Reconnect::dialled);
                if self.phase == Phase::Waiting {
                    self.phase = Phase::Connecting;
                }
            }
            Step::Opens => {
                let [opened, twin] = both.map(|reconnect| reconnect.opened(now));
                assert_eq!(opened, twin);
                assert_eq!(opened.mono, now.mono, "deadlines are not moved");
                self.signs(opened.wall.get());
            }
            Step::Authenticates => {
                both.into_iter().for_each(|reconnect| reconnect.authenticated(now));
                if self.phase == Phase::Connecting {
                    self.phase = Phase::Authenticated(self.mono);
                }
            }
            Step::Fails => {
                both.into_iter().for_each(|reconnect| reconnect.failed(now));
                self.retries();
            }
            Step::Ends(ending) => {
                let reason = ending.reason();
                both.into_iter().for_each(|reconnect| reconnect.ended(&reason, now));
                let lasted = matches!(self.phase, Phase::Authenticated(since)
                    if self.mono - since >= self.policy.lasted);
                if lasted {
                    (self.attempts, self.in_a_row) = (0, 0);
                }
                if matches!(self.phase, Phase::Over(_)) {
                } else if let Ending::Local = ending {
                    self.phase = Phase::Over(GiveUp::Disconnected);
                } else if ending.hopeful(self.policy.retry_refusals) {
                    self.retries();
                } else {
                    self.phase = Phase::Over(GiveUp::Final);
                }
            }
            Step::Disconnects => {
                both.into_iter().for_each(Reconnect::disconnect);
                if !matches!(self.phase, Phase::Over(_)) {
                    self.phase = Phase::Over(GiveUp::Disconnected);
                }
            }
            Step::TimePasses(by) => {
                self.mono = self.mono.saturating_add(by.duration());
                self.wall = (self.wall + u64::try_from(by.duration().as_millis()).unwrap_or(0)) % (1 << 53);
            }
            Step::Waits => {
                if let Next::WaitUntil(until) = self.subject.next(now) {
                    self.mono = until.since_origin();
                    assert_eq!(self.subject.next(self.now()), Next::Dial, "the wait is over");
                }
            }
            Step::WallClockSteps(by) => self.wall = self.wall.saturating_add_signed(i64::from(*by)),
        }
    }

    /// A connection is gone: what the rules say about the next.
    fn retries(&mut self) {
        if !matches!(self.phase, Phase::Connecting | Phase::Authenticated(_)) {
            return;
        }
        if self.attempts >= self.policy.max_attempts {
            self.phase = Phase::Over(GiveUp::Exhausted(self.attempts));
            return;
        }
        // Doubled for each time, and capped.
        let mut bound = self.policy.delay.min(self.policy.max_delay);
        for _ in 0..self.attempts.min(200) {
            bound = bound.saturating_mul(2).min(self.policy.max_delay);
        }
        self.attempts += 1;
        self.in_a_row += 1;
        assert!(self.in_a_row <= self.policy.max_attempts, "dialled more often than it may");
        match self.subject.next(self.now()) {
            Next::Dial => {}
            Next::WaitUntil(until) => {
                assert!(until > Instant::from_origin(self.mono));
                let delay = until.since(Instant::from_origin(self.mono));
                assert!(delay <= bound, "waits {delay:?}, and may {bound:?}");
            }
            other => panic!("neither waits nor dials: {other:?}"),
        }
        self.phase = Phase::Waiting;
    }

    /// No signed time is used twice; only a clock that was set far back ends that.
    fn signs(&mut self, wall: u64) {
        let limit = (1 << 53) - 1;
        assert!(wall.abs_diff(self.wall) <= MAX_AHEAD && wall >= self.wall);
        if let Some(last) = self.signed.last()
            && *last < limit
            && *last < self.wall + MAX_AHEAD
        {
            assert!(wall > *last, "the same time, signed twice");
        }
        self.signed.push(wall);
    }

    fn holds(&self) {
        let next = self.subject.next(self.now());
        assert_eq!(next, self.twin.next(self.now()), "the same seed, other delays");
        match (self.phase, next) {
            (Phase::Waiting, Next::Dial | Next::WaitUntil(_)) => {}
            (Phase::Connecting | Phase::Authenticated(_), Next::Carry) => {}
            (Phase::Over(reason), Next::GiveUp(told)) => assert_eq!(reason, told),
            (phase, next) => panic!("{phase:?}, and {next:?}"),
        }
        assert_eq!(self.subject.attempts(), self.attempts);
    }
}

impl Span {
    const fn duration(self) -> Duration {
        match self {
            Self::Zero => Duration::ZERO,
            Self::Nanos(nanos) => Duration::from_nanos(nanos as u64),
            Self::Millis(millis) => Duration::from_millis(millis as u64),
            Self::Ages => Duration::from_secs(1 << 50),
        }
    }
}

impl Ending {
    const REFUSALS: [Refusal; 5] = [
        Refusal::Replayed,
        Refusal::NotWhitelisted,
        Refusal::Denied,
        Refusal::AlreadyConnected,
        Refusal::Busy,
    ];
    const VIOLATIONS: [Violation; 10] = [
        Violation::NotJson,
        Violation::UnexpectedMessage,
        Violation::MalformedProof,
        Violation::BadSignature,
        Violation::Reflected,
        // From here on, a later attempt may fare better.
        Violation::StaleProof,
        Violation::MessageTooLarge { limit: 7 },
        Violation::NotUtf8,
        Violation::WebSocket,
        Violation::Tls,
    ];

    fn reason(&self) -> CloseReason {
        let pick = |index: &u8, of: usize| usize::from(*index) % of;
        match self {
            Self::Local => CloseReason::Local,
            Self::ShuttingDown => CloseReason::ShuttingDown,
            Self::PeerClosed(code) => CloseReason::PeerClosed { code: *code },
            Self::Lost => CloseReason::Lost,
            Self::AuthenticationTimeout => CloseReason::AuthenticationTimeout(Duration::ZERO),
            Self::Idle => CloseReason::Idle(Duration::ZERO),
            Self::Replaced => CloseReason::Replaced,
            Self::Refused(index) => CloseReason::Refused(Self::REFUSALS[pick(index, 5)]),
            Self::RefusedByServer(index) => CloseReason::RefusedByServer(Status::ALL[pick(index, 4)]),
            Self::Violation(index) => CloseReason::Violation(Self::VIOLATIONS[pick(index, 10)]),
            Self::SlowPeer => CloseReason::SlowPeer,
        }
    }

    /// Whether the rules say that it is worth another try.
    fn hopeful(&self, retry_refusals: bool) -> bool {
        match self {
            Self::Local | Self::ShuttingDown => false,
            Self::PeerClosed(_) | Self::Lost | Self::AuthenticationTimeout | Self::Idle | Self::SlowPeer => {
                true
            }
            Self::Replaced | Self::Refused(_) => retry_refusals,
            // 408 is no refusal; the other three are.
            Self::RefusedByServer(index) => index % 4 == 2 || retry_refusals,
            Self::Violation(index) => index % 10 >= 5,
        }
    }
}
