//! One side of one line, hostile on the other end and careless on its own, against the specification's tables.
//!
//! The model is `docs/protocol.md` §6, §7 and §9 written down once more: from the same inputs it says, output by output and byte
//! by byte, what has to come out. What must hold always follows from that, and the most important of it is asserted by
//! itself: one terminal event and nothing after it, no message before both sides are verified, no server without a
//! decision, one identity.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, sync::LazyLock, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use link_core::{
    Address, ByteString, Bytes, Close, CloseReason, Config, Connection, Event, Frame, Instant,
    InvalidMessage, Message, Misuse, Now, Output, PrivateKey, Refusal, Role, Status, Ticket, UnixMillis,
    Violation, Wallet,
};

use crate::decoding::proof;

const WALL: u64 = 1_795_372_174_071;
/// No multiple of a check interval.
const MONO: Duration = Duration::from_millis(7_300);
const OWN: usize = 0;
pub(crate) static WALLETS: LazyLock<[Wallet; 3]> = LazyLock::new(|| {
    [1, 2, 3].map(|seed| Wallet::from_private_key(PrivateKey::from_bytes([seed; 32]).unwrap()))
});

#[derive(Debug, Arbitrary)]
struct Setting {
    server: bool,
    /// Whether the handshake goes as it should before anything else happens.
    shaken_hands: bool,
    /// Whether the outputs are taken only when it is said so.
    lazy: bool,
    timeout: u8,
    check_interval: u8,
    heartbeat_interval: u8,
    window: u8,
    size: u8,
    /// Bit by bit, which servers a client expects; any when it is zero.
    expected: u8,
}

#[derive(Debug, Arbitrary)]
enum Happening {
    Proof {
        who: u8,
        signed: Offset,
        flaw: Flaw,
        binary: bool,
    },
    Says(Word),
    SaysInBinary(Word),
    SaysAnything(Anything),
    SaysMuch {
        bytes: u16,
        binary: bool,
    },
    Pings(u8),
    Pongs(Pong),
    Closes(Option<u16>),
    Timeout,
    Passes(u16),
    /// Until something is due, and then late by so much.
    Due {
        late: u8,
    },
    /// Until long after something was due.
    Oversleeps {
        by: u16,
    },
    WallClockSteps(i16),
    Sends(Word),
    SendsMuch(u16),
    Decides(Answer),
    DropsTicket,
    DecidesWithAForeignTicket,
    PausesReads,
    ResumesReads,
    Ends(u8),
    Violates(u8),
    LosesTransport,
    Drains,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Offset {
    Now,
    Millis(i16),
    /// At the edges of the window.
    Edge {
        late: bool,
        beyond: i8,
    },
}

#[derive(Debug, Arbitrary)]
enum Flaw {
    None,
    HighS,
    Trailing,
    UpperCase,
    SignedByAnother,
    SignedAnotherTime,
    TimestampAsText,
    TimestampAsFloat,
    AddressInLowerCase,
    Without(u8),
    Twice(u8),
    OneMore,
    Spaced,
    EscapedType,
}

#[derive(Debug, Arbitrary)]
pub(crate) enum Word {
    Heartbeat,
    EscapedHeartbeat,
    Status(u8),
    QuotedStatus(u8),
    Hello(u8),
    Disconnect,
    Error,
    Untyped,
    Null,
    Text,
    LoneSurrogate,
    BareAuthenticate,
    NotJson,
    Empty,
}

#[derive(Debug)]
struct Anything(Vec<u8>);

#[derive(Debug, Arbitrary)]
enum Pong {
    Number(u8),
    Large(u64),
    Other(u8),
}

#[derive(Debug, Arbitrary)]
enum Answer {
    Yes,
    No(u8),
}

/// Cheap for a fuzzer to grow: a length, and then bytes.
impl<'a> Arbitrary<'a> for Anything {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let length = usize::from(u8::arbitrary(input)?).min(input.len());
        Ok(Self(input.bytes(length)?.to_vec()))
    }
}

/// Lets happen what `input` says, to a connection and to the model.
pub fn connection(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(setting) = Setting::arbitrary(&mut input) else { return };
    let mut world = World::new(&setting);
    if setting.shaken_hands {
        let who = if setting.server { 1 } else { 2 };
        world.meets(&Happening::Proof { who, signed: Offset::Now, flaw: Flaw::None, binary: false });
        world.drain();
        world.meets(&Happening::Decides(Answer::Yes));
    }
    while !input.is_empty() {
        let Ok(happening) = Happening::arbitrary(&mut input) else { break };
        world.meets(&happening);
    }
    world.ends();
}

fn duration(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Setting {
    fn config(&self) -> Config {
        let wallet = WALLETS[OWN].clone();
        let mut config = if self.server { Config::server(wallet) } else { Config::client(wallet) };
        let timeout = [5_000, 0, 1, 300, 1 << 50][usize::from(self.timeout % 5)];
        (config.auth_timeout, config.idle_timeout) = (duration(timeout), duration(timeout));
        let check_interval = duration([0, 1_000, 7_001][usize::from(self.check_interval % 3)]);
        (config.auth_check_interval, config.idle_check_interval) = (check_interval, check_interval);
        config.heartbeat_interval = duration([1_000, 0, 1, 7_000][usize::from(self.heartbeat_interval % 4)]);
        config.auth_window = duration([5_000, 0, 300][usize::from(self.window % 3)]);
        (config.max_message_size, config.max_unauthenticated_message_size) =
            [(1 << 14, 4_096), (600, 300), (10, 4_096)][usize::from(self.size % 3)];
        let expected = WALLETS.iter().enumerate().filter(|(place, _)| self.expected >> place & 1 == 1);
        config.expected_servers = expected.map(|(_, wallet)| wallet.address()).collect();
        config
    }
}

struct World {
    config: Arc<Config>,
    role: Role,
    connection: Connection,
    model: Model,
    lazy: bool,
    mono: Duration,
    wall: u64,
    ticket: Option<Ticket>,
    did: Vec<Did>,
}

impl World {
    fn new(setting: &Setting) -> Self {
        let config = Arc::new(setting.config());
        let role = if setting.server { Role::Server } else { Role::Client };
        let now = Now { mono: Instant::from_origin(MONO), wall: UnixMillis::saturating(WALL) };
        let connection = match role {
            Role::Client => Connection::client(config.clone(), now),
            Role::Server => Connection::server(config.clone(), now),
        };
        let model = Model::new(role, config.clone());
        let lazy = setting.lazy;
        let mut world =
            Self { config, role, connection, model, lazy, mono: MONO, wall: WALL, ticket: None, did: vec![] };
        world.holds();
        world
    }

    fn now(&self) -> Now {
        Now { mono: Instant::from_origin(self.mono), wall: UnixMillis::saturating(self.wall) }
    }

    fn meets(&mut self, happening: &Happening) {
        (self.model.mono, self.model.wall) = (self.mono, self.wall);
        match happening {
            Happening::Proof { who, signed, flaw, binary } => {
                let text = self.authenticate(usize::from(who % 3), *signed, flaw);
                self.hears(frame(text, *binary));
            }
            Happening::Says(word) => self.hears(frame(word.text(), false)),
            Happening::SaysInBinary(word) => self.hears(frame(word.text(), true)),
            Happening::SaysAnything(Anything(bytes)) => {
                self.hears(match String::from_utf8(bytes.clone()) {
                    Ok(text) => Frame::Text(text.into()),
                    Err(_) => Frame::Binary(bytes.clone().into()),
                });
            }
            Happening::SaysMuch { bytes, binary } => self.hears(frame(much(*bytes), *binary)),
            Happening::Pings(byte) => self.hears(Frame::Ping(vec![*byte].into())),
            Happening::Pongs(pong) => {
                let number = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
                self.hears(Frame::Pong(match pong {
                    Pong::Number(small) => number(u64::from(*small)),
                    Pong::Large(large) => number(*large),
                    Pong::Other(length) => vec![0; usize::from(*length)].into(),
                }));
            }
            Happening::Closes(code) => {
                self.hears(Frame::Close(code.map(|code| Close { code, reason: "".into() })));
            }
            Happening::Timeout => self.times_out(),
            Happening::Passes(by) => self.passes(duration(u64::from(*by))),
            Happening::Due { late } => {
                if let Some(due) = self.connection.poll_timeout() {
                    let wait = due.since(self.now().mono);
                    self.passes(wait.saturating_add(duration(u64::from(*late))));
                    self.times_out();
                }
            }
            Happening::Oversleeps { by } => {
                if let Some(due) = self.connection.poll_timeout() {
                    let long = due.since(self.now().mono) + self.config.idle_timeout;
                    self.passes(long.saturating_add(duration(u64::from(*by))));
                    self.times_out();
                }
            }
            Happening::WallClockSteps(by) => self.wall = self.wall.saturating_add_signed(i64::from(*by)),
            Happening::Sends(word) => self.sends(word.text()),
            Happening::SendsMuch(bytes) => self.sends(much(*bytes)),
            Happening::Decides(answer) => self.decides(answer),
            Happening::DropsTicket => {
                if self.ticket.take().is_some() {
                    self.model.ticket_dropped = true;
                }
            }
            Happening::DecidesWithAForeignTicket => {
                let misuse = self.connection.decide(foreign_ticket(), Ok(()), self.now()).unwrap_err();
                let expected = match self.model.phase {
                    Phase::Live(_) | Phase::Closed => Misuse::LateTicket,
                    _ => Misuse::ForeignTicket,
                };
                assert_eq!(misuse, expected);
            }
            Happening::PausesReads => {
                self.connection.handle_reads_paused(self.now());
                self.model.pauses();
            }
            Happening::ResumesReads => {
                self.connection.handle_reads_resumed(self.now());
                self.model.resumes();
            }
            Happening::Ends(index) => {
                let reason = reason(*index);
                self.connection.close(reason.clone(), self.now());
                self.model.notices_dropped_ticket();
                self.model.end(reason);
                assert!(self.connection.is_closed());
            }
            Happening::Violates(index) => {
                let violation = [
                    Violation::WebSocket,
                    Violation::NotUtf8,
                    Violation::MessageTooLarge { limit: 7 },
                    Violation::Tls,
                ][usize::from(index % 4)];
                self.connection.handle_violation(violation, self.now());
                self.model.notices_dropped_ticket();
                self.model.end(violation.into());
            }
            Happening::LosesTransport => {
                self.connection.handle_transport_closed(self.now());
                self.model.notices_dropped_ticket();
                self.model.end(CloseReason::Lost);
            }
            Happening::Drains => self.drain(),
        }
        self.holds();
    }

    fn hears(&mut self, frame: Frame) {
        self.connection.handle_frame(frame.clone(), self.now());
        self.model.hears(frame);
    }

    fn passes(&mut self, by: Duration) {
        self.mono = self.mono.saturating_add(by).min(Duration::from_secs(1 << 58));
        self.wall = (self.wall + u64::try_from(by.as_millis()).unwrap_or(0)).min((1 << 53) - 1);
        (self.model.mono, self.model.wall) = (self.mono, self.wall);
    }

    fn times_out(&mut self) {
        let now = self.now();
        self.connection.handle_timeout(now);
        self.model.times_out();
        let next = self.connection.poll_timeout();
        assert!(next.is_none_or(|next| next > now.mono), "due again at once: {next:?}");
        // A repeated call does nothing: the model is not told of it.
        self.connection.handle_timeout(now);
    }

    fn sends(&mut self, text: String) {
        let Ok(message) = Message::parse(text.clone()) else { return };
        let expected = match self.model.phase {
            Phase::Closed => Err(Misuse::Closed),
            Phase::Live(_) if text.len() > self.config.max_message_size => {
                Err(Misuse::MessageTooLarge { size: text.len(), limit: self.config.max_message_size })
            }
            Phase::Live(_) => match message.check_sendable() {
                Ok(()) => {
                    self.model.says(text);
                    Ok(())
                }
                Err(error) => {
                    assert!(matches!(error, InvalidMessage::NotAnObject | InvalidMessage::ReservedType(_)));
                    Err(error.into())
                }
            },
            _ => Err(Misuse::NotAuthenticated),
        };
        assert_eq!(self.connection.send(message, self.now()), expected);
    }

    fn decides(&mut self, answer: &Answer) {
        let Some(ticket) = self.ticket.take() else { return };
        let verdict = match answer {
            Answer::Yes => Ok(()),
            Answer::No(index) => Err(refusal(*index)),
        };
        let result = self.connection.decide(ticket, verdict, self.now());
        match self.model.phase {
            Phase::Deciding { .. } => {
                assert_eq!(result, Ok(()));
                self.model.decides(verdict);
            }
            Phase::Closed => assert_eq!(result, Err(Misuse::LateTicket)),
            _ => panic!("a ticket, and nobody waits for it"),
        }
    }

    /// What can be seen without taking anything.
    fn holds(&mut self) {
        if !self.lazy {
            self.drain();
        }
        let (connection, model) = (&self.connection, &self.model);
        let due = connection.poll_timeout().map(Instant::since_origin);
        assert_eq!(due, model.deadline(), "when it is due");
        let (peer, round_trip) = match &model.phase {
            Phase::Live(live) => (Some(live.peer), live.round_trip),
            _ => (None, None),
        };
        assert_eq!((connection.peer(), connection.round_trip()), (peer, round_trip));
        assert_eq!(connection.is_authenticated(), peer.is_some());
        assert_eq!(connection.is_closed(), matches!(model.phase, Phase::Closed));
        let limit = match peer {
            Some(_) => self.config.max_message_size,
            None => self.config.max_unauthenticated_message_size,
        };
        assert_eq!(connection.receive_limit(), limit);
    }

    /// Takes the outputs, and compares them with those of the model.
    fn drain(&mut self) {
        let mut expected = std::mem::take(&mut self.model.outputs).into_iter();
        while let Some(output) = self.connection.poll_output() {
            let did = match output {
                Output::Send(frame) => Did::Sent(frame),
                Output::CloseTransport => Did::ClosedTransport,
                Output::Event(Event::AdmissionRequested { ticket }) => {
                    let did = Did::Asked(ticket.address(), ticket.timestamp().get());
                    assert!(self.ticket.replace(ticket).is_none(), "asked twice");
                    did
                }
                Output::Event(Event::Authenticated { address, .. }) => Did::Authenticated(address),
                Output::Event(Event::Message(message)) => Did::Heard(message.as_str().into()),
                Output::Event(Event::Heartbeat { round_trip }) => Did::Heartbeat(round_trip),
                Output::Event(Event::Error(violation)) => Did::Error(violation),
                Output::Event(Event::Closed { reason }) => Did::Closed(reason),
                Output::Event(other) => panic!("an unknown event: {other:?}"),
            };
            assert_eq!(Some(&did), expected.next().as_ref());
            self.did.push(did);
        }
        assert_eq!(expected.next(), None, "something is missing");
    }

    /// After the end nothing counts any more; and what must hold of a whole life.
    fn ends(&mut self) {
        for last in [
            Happening::Ends(0),
            Happening::Timeout,
            Happening::LosesTransport,
            Happening::Says(Word::Hello(0)),
        ] {
            self.meets(&last);
        }
        self.drain();
        let count = |wanted: fn(&Did) -> bool| self.did.iter().filter(|did| wanted(did)).count();
        assert!(matches!(&self.did[..], [.., Did::ClosedTransport, Did::Closed(_)]), "{:?}", self.did);
        assert_eq!(count(|did| matches!(did, Did::Closed(_))), 1);
        assert_eq!(count(|did| matches!(did, Did::ClosedTransport)), 1);
        assert!(count(|did| matches!(did, Did::Asked(..))) <= 1);
        assert!(count(|did| matches!(did, Did::Authenticated(_))) <= 1);
        let authenticated = self.did.iter().position(|did| matches!(did, Did::Authenticated(_)));
        let heard = self.did.iter().position(|did| matches!(did, Did::Heard(_)));
        assert!(heard.is_none() || authenticated < heard && authenticated.is_some(), "a message too early");
        let asked = self.did.iter().position(|did| matches!(did, Did::Asked(..)));
        if let (Role::Server, Some(authenticated)) = (self.role, authenticated) {
            assert!(asked.is_some_and(|asked| asked < authenticated), "let in without having been asked for");
        }
    }

    /// The text of an `authenticate`, flawed in one way or not at all.
    fn authenticate(&self, who: usize, signed: Offset, flaw: &Flaw) -> String {
        let window = i64::try_from(self.config.auth_window.as_millis()).unwrap();
        let offset = match signed {
            Offset::Now => 0,
            Offset::Millis(by) => i64::from(by),
            Offset::Edge { late: true, beyond } => window + i64::from(beyond),
            Offset::Edge { late: false, beyond } => -window - i64::from(beyond),
        };
        let at = self.wall.saturating_add_signed(offset);
        let signer = if matches!(flaw, Flaw::SignedByAnother) { (who + 1) % 3 } else { who };
        let signed = at + u64::from(matches!(flaw, Flaw::SignedAnotherTime));
        let mut address = WALLETS[who].address().to_string();
        let mut signature = sign(signer, signed);
        let mut kind = "\"type\":\"authenticate\"".to_owned();
        let mut timestamp = at.to_string();
        match flaw {
            Flaw::HighS => signature = high_s(&signature),
            Flaw::Trailing => signature.push('0'),
            Flaw::UpperCase => signature = signature.to_uppercase(),
            Flaw::TimestampAsText => timestamp = format!("\"{at}\""),
            Flaw::TimestampAsFloat => timestamp = format!("{at}.0"),
            Flaw::AddressInLowerCase => address = address.to_lowercase(),
            Flaw::EscapedType => kind = "\"typ\\u0065\":\"\\u0061uthenticate\"".into(),
            _ => {}
        }
        let mut members = vec![
            kind,
            format!("\"address\":\"{address}\""),
            format!("\"timestamp\":{timestamp}"),
            format!("\"signature\":\"{signature}\""),
        ];
        match flaw {
            Flaw::Without(place) => drop(members.remove(usize::from(place % 4))),
            Flaw::Twice(place) => members.push(members[usize::from(place % 4)].clone()),
            Flaw::OneMore => members.push("\"more\":[{\"address\":null}]".into()),
            _ => {}
        }
        let between = if matches!(flaw, Flaw::Spaced) { " ,\n" } else { "," };
        format!("{{{}}}", members.join(between))
    }
}

fn frame(text: String, binary: bool) -> Frame {
    if binary { Frame::Binary(text.into_bytes().into()) } else { Frame::Text(text.into()) }
}

/// A message of so many bytes, and at least one.
fn much(bytes: u16) -> String {
    format!(r#"{{"type":"much","p":"{}"}}"#, "p".repeat(usize::from(bytes)))
}

thread_local! {
    /// Signing is slow, and always the same.
    static SIGNED: RefCell<BTreeMap<(usize, u64), String>> = const { RefCell::new(BTreeMap::new()) };
}

pub(crate) fn sign(who: usize, at: u64) -> String {
    SIGNED.with(|signed| {
        let mut signed = signed.borrow_mut();
        if signed.len() > 4_096 {
            signed.clear();
        }
        signed.entry((who, at)).or_insert_with(|| WALLETS[who].sign(&at.to_string()).to_hex()).clone()
    })
}

/// The other form of a signature, which anybody can make.
fn high_s(signature: &str) -> String {
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let halves = |hex: &str| {
        (u128::from_str_radix(&hex[..32], 16).unwrap(), u128::from_str_radix(&hex[32..], 16).unwrap())
    };
    let ((order_high, order_low), (high, low)) = (halves(ORDER), halves(&signature[64..128]));
    let (low, borrow) = order_low.overflowing_sub(low);
    let high = order_high - high - u128::from(borrow);
    let id = if signature.ends_with("00") { "01" } else { "00" };
    format!("{}{high:032x}{low:032x}{id}", &signature[..64])
}

fn foreign_ticket() -> Ticket {
    let now = Now { mono: Instant::default(), wall: UnixMillis::saturating(WALL) };
    let mut other = Connection::server(Arc::new(Config::server(WALLETS[OWN].clone())), now);
    let (address, signature) = (WALLETS[1].address(), sign(1, WALL));
    let text = format!(
        r#"{{"type":"authenticate","address":"{address}","timestamp":{WALL},"signature":"{signature}"}}"#
    );
    other.handle_frame(Frame::Text(text.into()), now);
    match other.poll_output() {
        Some(Output::Event(Event::AdmissionRequested { ticket })) => ticket,
        other => panic!("no ticket, but {other:?}"),
    }
}

impl Word {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Heartbeat => r#"{"type":"heartbeat","ts":1795372174071}"#.into(),
            Self::EscapedHeartbeat => r#"{"type":"hello","type":"heartb\u0065at"}"#.into(),
            Self::Status(index) => Status::ALL[usize::from(index % 4)].text().into(),
            Self::QuotedStatus(index) => Status::ALL[usize::from(index % 4)].quoted_text().into(),
            Self::Hello(n) => format!(r#"{{"type":"hello","n":{n}}}"#),
            Self::Disconnect => r#"{"type":"disconnect"}"#.into(),
            Self::Error => r#"{"type":"error"}"#.into(),
            Self::Untyped => "{}".into(),
            Self::Null => "null".into(),
            Self::Text => "\"text\"".into(),
            Self::LoneSurrogate => r#"{"type":"\ud800"}"#.into(),
            Self::BareAuthenticate => r#"{"type":"authenticate"}"#.into(),
            Self::NotJson => "not json".into(),
            Self::Empty => String::new(),
        }
    }
}

fn refusal(index: u8) -> Refusal {
    let all = [
        Refusal::Replayed,
        Refusal::NotWhitelisted,
        Refusal::Denied,
        Refusal::AlreadyConnected,
        Refusal::Busy,
    ];
    all[usize::from(index) % all.len()]
}

fn reason(index: u8) -> CloseReason {
    match index % 9 {
        0 => CloseReason::Local,
        1 => CloseReason::ShuttingDown,
        2 => CloseReason::Replaced,
        3 => CloseReason::SlowPeer,
        4 => CloseReason::Lost,
        5 => CloseReason::Idle(Duration::ZERO),
        6 => CloseReason::Refused(Refusal::AlreadyConnected),
        7 => CloseReason::RefusedByServer(Status::Forbidden),
        _ => CloseReason::PeerClosed { code: None },
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
enum Did {
    Sent(Frame),
    Asked(Address, u64),
    Authenticated(Address),
    Heard(String),
    Heartbeat(Option<Duration>),
    Error(Violation),
    ClosedTransport,
    Closed(CloseReason),
}

enum Phase {
    AwaitingProof,
    Deciding { address: Address },
    AwaitingAnswer,
    Live(Live),
    Closed,
}

struct Live {
    peer: Address,
    /// When the peer was last heard; nothing while reading is paused.
    heard: Option<Duration>,
    beat: Option<Duration>,
    /// Pings so far.
    pings: u64,
    awaited: Option<(u64, Duration)>,
    round_trip: Option<Duration>,
    /// A heartbeat is out and unanswered.
    asked: bool,
}

/// The specification's tables.
struct Model {
    role: Role,
    config: Arc<Config>,
    mono: Duration,
    wall: u64,
    phase: Phase,
    paused: bool,
    ticket_dropped: bool,
    outputs: Vec<Did>,
}

impl Model {
    fn new(role: Role, config: Arc<Config>) -> Self {
        let (mono, wall) = (MONO, WALL);
        let phase = Phase::AwaitingProof;
        let mut model =
            Self { role, config, mono, wall, phase, paused: false, ticket_dropped: false, outputs: vec![] };
        if role == Role::Client {
            model.phase = Phase::AwaitingAnswer;
            model.proves();
        }
        model
    }

    fn says(&mut self, text: impl Into<ByteString>) {
        self.outputs.push(Did::Sent(Frame::Text(text.into())));
    }

    fn proves(&mut self) {
        let (address, at, signature) = (WALLETS[OWN].address(), self.wall, sign(OWN, self.wall));
        self.says(format!(
            r#"{{"type":"authenticate","address":"{address}","timestamp":{at},"signature":"{signature}"}}"#
        ));
    }

    fn says_heartbeat(&mut self) {
        self.says(format!(r#"{{"type":"heartbeat","ts":{}}}"#, self.wall));
    }

    /// §7: rounded up to a whole multiple of the check interval.
    fn due(since: Duration, timeout: Duration, step: Duration) -> Option<Duration> {
        if timeout.is_zero() {
            return None;
        }
        let (due, step) = ((since + timeout).as_nanos(), step.as_nanos());
        let due = if step == 0 { due } else { due.div_ceil(step) * step };
        let second = 1_000_000_000;
        Some(Duration::new(u64::try_from(due / second).unwrap(), u32::try_from(due % second).unwrap()))
    }

    fn idle_deadline(&self, live: &Live) -> Option<Duration> {
        Self::due(live.heard?, self.config.idle_timeout, self.config.idle_check_interval)
    }

    fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Closed => None,
            Phase::Live(live) => [self.idle_deadline(live), live.beat].into_iter().flatten().min(),
            _ => Self::due(MONO, self.config.auth_timeout, self.config.auth_check_interval),
        }
    }

    fn notices_dropped_ticket(&mut self) {
        if self.ticket_dropped && matches!(self.phase, Phase::Deciding { .. }) {
            self.end(Refusal::Denied.into());
        }
    }

    fn pauses(&mut self) {
        self.notices_dropped_ticket();
        self.paused = true;
        if let Phase::Live(live) = &mut self.phase {
            live.heard = None;
        }
    }

    fn resumes(&mut self) {
        self.notices_dropped_ticket();
        self.paused = false;
        if let Phase::Live(live) = &mut self.phase {
            live.heard = Some(self.mono);
        }
    }

    fn decides(&mut self, verdict: Result<(), Refusal>) {
        let Phase::Deciding { address } = self.phase else { return };
        match verdict {
            Ok(()) => {
                self.proves();
                self.enters(address);
            }
            Err(refusal) => self.end(refusal.into()),
        }
    }

    fn enters(&mut self, peer: Address) {
        self.outputs.push(Did::Authenticated(peer));
        self.phase = Phase::Live(Live {
            peer,
            heard: (!self.paused).then_some(self.mono),
            beat: Self::due(self.mono, self.config.heartbeat_interval, Duration::ZERO),
            pings: 0,
            awaited: None,
            round_trip: None,
            asked: false,
        });
    }

    fn times_out(&mut self) {
        self.notices_dropped_ticket();
        let (deadline, now) = (self.deadline(), self.mono);
        let config = self.config.clone();
        match &mut self.phase {
            Phase::Closed => {}
            Phase::Live(live) => {
                let idle = live
                    .heard
                    .and_then(|heard| Self::due(heard, config.idle_timeout, config.idle_check_interval));
                if let Some(idle) = idle.filter(|idle| now >= *idle) {
                    // Whoever looks so late has slept itself.
                    if now - idle <= config.idle_timeout {
                        return self.end(CloseReason::Idle(config.idle_timeout));
                    }
                    live.heard = Some(now);
                }
                if let Some(beat) = live.beat.filter(|beat| now >= *beat) {
                    let regular = beat + config.heartbeat_interval;
                    live.beat = Some(if regular > now { regular } else { now + config.heartbeat_interval });
                    let payload = Bytes::copy_from_slice(&live.pings.to_be_bytes());
                    live.awaited = live.awaited.or(Some((live.pings, now)));
                    live.pings += 1;
                    live.asked |= self.role == Role::Server;
                    self.outputs.push(Did::Sent(Frame::Ping(payload)));
                    if self.role == Role::Server {
                        self.says_heartbeat();
                    }
                }
            }
            _ => {
                if deadline.is_some_and(|deadline| now >= deadline) {
                    self.end(CloseReason::AuthenticationTimeout(config.auth_timeout));
                }
            }
        }
    }

    fn hears(&mut self, frame: Frame) {
        self.notices_dropped_ticket();
        let now = self.mono;
        if let Phase::Live(live) = &mut self.phase {
            live.heard = live.heard.map(|_| now);
        }
        let limit = match self.phase {
            Phase::Closed => return,
            Phase::Live(_) => self.config.max_message_size,
            _ => self.config.max_unauthenticated_message_size,
        };
        let bytes = match frame {
            Frame::Ping(_) => return,
            Frame::Pong(payload) => return self.hears_pong(&payload),
            Frame::Close(close) => {
                return self.end(CloseReason::PeerClosed { code: close.map(|close| close.code) });
            }
            Frame::Text(text) => text.into_bytes(),
            Frame::Binary(bytes) => bytes,
        };
        if bytes.len() > limit {
            return self.end(Violation::MessageTooLarge { limit }.into());
        }
        let text = std::str::from_utf8(&bytes).ok();
        if self.role == Role::Client
            && let Some(status) = text.and_then(Status::from_text)
        {
            return self.end(match (&self.phase, status) {
                (Phase::Live(_), Status::Conflict) => CloseReason::Replaced,
                _ => CloseReason::RefusedByServer(status),
            });
        }
        match text.map(|text| (text, Message::parse(text.to_owned()))) {
            Some((text, Ok(message))) => match message.kind() {
                Some("authenticate") => self.hears_authenticate(text),
                Some("heartbeat") => self.hears_heartbeat(),
                _ => self.hears_message(text),
            },
            _ => match self.phase {
                Phase::Live(_) => self.outputs.push(Did::Error(Violation::NotJson)),
                _ => self.end(Violation::NotJson.into()),
            },
        }
    }

    fn hears_pong(&mut self, payload: &[u8]) {
        let Phase::Live(live) = &mut self.phase else { return };
        let (Some((awaited, sent)), Ok(number)) = (live.awaited, payload.try_into().map(u64::from_be_bytes))
        else {
            return;
        };
        if number == awaited {
            live.round_trip = Some(self.mono - sent);
        }
        if (awaited..live.pings).contains(&number) {
            live.awaited = None;
        }
    }

    fn hears_authenticate(&mut self, text: &str) {
        let window = u64::try_from(self.config.auth_window.as_millis()).unwrap();
        let read = || proof(text, self.wall, window);
        match self.phase {
            Phase::AwaitingProof => match read() {
                Ok((address, timestamp)) => {
                    self.outputs.push(Did::Asked(address, timestamp));
                    self.phase = Phase::Deciding { address };
                }
                Err(violation) => self.end(violation.into()),
            },
            Phase::AwaitingAnswer => match read().and_then(|(server, _)| self.expects(server)) {
                Ok(server) => self.enters(server),
                Err(violation) => self.end(violation.into()),
            },
            Phase::Deciding { .. } => self.end(Violation::UnexpectedMessage.into()),
            Phase::Live(_) | Phase::Closed => {}
        }
    }

    /// §5.2.
    fn expects(&self, server: Address) -> Result<Address, Violation> {
        let expected = &self.config.expected_servers;
        match (expected.contains(&server), server == WALLETS[OWN].address()) {
            (true, _) => Ok(server),
            (false, true) => Err(Violation::Reflected),
            (false, false) if expected.is_empty() => Ok(server),
            (false, false) => Err(Violation::UnexpectedServer(server)),
        }
    }

    fn hears_heartbeat(&mut self) {
        match (&mut self.phase, self.role) {
            (Phase::AwaitingProof, _) => self.end(Violation::UnexpectedMessage.into()),
            (Phase::AwaitingAnswer, _) => self.says_heartbeat(),
            (Phase::Live(live), Role::Client) => {
                let round_trip = live.round_trip;
                self.says_heartbeat();
                self.outputs.push(Did::Heartbeat(round_trip));
            }
            (Phase::Live(live), Role::Server) => {
                if std::mem::take(&mut live.asked) {
                    self.outputs.push(Did::Heartbeat(live.round_trip));
                }
            }
            (Phase::Deciding { .. } | Phase::Closed, _) => {}
        }
    }

    fn hears_message(&mut self, text: &str) {
        match self.phase {
            Phase::Live(_) => self.outputs.push(Did::Heard(text.into())),
            _ => self.end(Violation::UnexpectedMessage.into()),
        }
    }

    /// §6 and §9: the status text, the close frame, the end of the transport, the one terminal event.
    fn end(&mut self, reason: CloseReason) {
        let status = match &reason {
            CloseReason::AuthenticationTimeout(_) | CloseReason::Idle(_) => Some(Status::RequestTimeout),
            CloseReason::Replaced | CloseReason::Refused(Refusal::AlreadyConnected) => Some(Status::Conflict),
            CloseReason::Refused(Refusal::NotWhitelisted | Refusal::Denied) => Some(Status::Forbidden),
            CloseReason::Refused(Refusal::Busy) => None,
            CloseReason::Refused(_)
            | CloseReason::Violation(
                Violation::StaleProof | Violation::MalformedProof | Violation::BadSignature,
            ) => Some(Status::Unauthorized),
            // Only a caller who mixes the roles up brings a server to this.
            CloseReason::RefusedByServer(status) => Some(*status),
            _ => None,
        };
        let text = match self.phase {
            Phase::Closed => return,
            Phase::Live(_) => status.map(Status::quoted_text),
            _ => status.map(Status::text),
        };
        if let (Role::Server, Some(text)) = (self.role, text) {
            self.says(text);
        }
        let close = match (&reason, status) {
            (CloseReason::PeerClosed { .. } | CloseReason::Lost, _) => None,
            (CloseReason::Local | CloseReason::RefusedByServer(_), _) => Some((1000, "")),
            (CloseReason::Replaced, _) if self.role == Role::Client => Some((1000, "")),
            (CloseReason::ShuttingDown, _) => Some((1001, "shutting down")),
            (CloseReason::SlowPeer, _) => Some((1008, "reads too slowly")),
            (CloseReason::Refused(Refusal::Busy), _) => Some((1013, "try again later")),
            (CloseReason::Violation(Violation::MessageTooLarge { .. }), _) => {
                Some((1009, "message too large"))
            }
            (CloseReason::Violation(Violation::NotUtf8), _) => Some((1007, "protocol violation")),
            (CloseReason::Violation(Violation::WebSocket), _) => Some((1002, "protocol violation")),
            (_, Some(Status::Unauthorized)) => Some((4401, "401 Unauthorized")),
            (_, Some(Status::Forbidden)) => Some((4403, "403 Forbidden")),
            (_, Some(Status::RequestTimeout)) => Some((4408, "408 Request Timeout")),
            (_, Some(Status::Conflict)) => Some((4409, "409 Conflict")),
            (_, None) => Some((1008, "protocol violation")),
        };
        if let Some((code, reason)) = close {
            let reason = reason.into();
            self.outputs.push(Did::Sent(Frame::Close(Some(Close { code, reason }))));
        }
        self.outputs.extend([Did::ClosedTransport, Did::Closed(reason)]);
        self.phase = Phase::Closed;
    }
}
