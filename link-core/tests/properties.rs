//! What holds for a connection whatever happens to it, in any order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use link_core::{
    Address, ByteString, Bytes, Close, CloseReason, Config, Connection, Event, Frame, Message, Misuse, Now,
    Output, Refusal, Role, Status, Ticket, UnixMillis, Violation,
};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};
use support::*;

/// Texts that mean something, signed once: signatures are slow.
static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let proofs = [client_wallet(), server_wallet(), stranger()].into_iter().flat_map(|wallet| {
        [-5_001, -5_000, 0, 3_000, 6_000]
            .map(|offset| authenticate(wallet, WALL.saturating_add_signed(offset)))
    });
    let statuses = Status::ALL.into_iter().flat_map(|status| [status.text(), status.quoted_text()]);
    let others = [
        r#"{"type":"heartbeat","ts":1795372174071}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"hello","body":[1,2,{"three":null}]}"#,
        r#"{"type":"disconnect"}"#,
        r#"{"type":"error"}"#,
        r#"{"type":"\ud800"}"#,
        r#"{"type":"authenticate"}"#,
        "{}",
        "null",
        "\"text\"",
        "",
        "not json",
    ];
    proofs.chain(statuses.chain(others).map(str::to_owned)).collect()
});

/// One thing that happens to a connection.
#[derive(Debug, Clone)]
enum Happening {
    Frame(Frame),
    Timeout,
    /// Time passes on both clocks.
    Passes(u64),
    /// Time passes until the next time-out is due, and it is handled.
    Due,
    WallClockSteps(i64),
    Sends(String),
    Decides(Result<(), Refusal>),
    DropsTickets,
    DecidesWithAForeignTicket,
    PausesReads,
    ResumesReads,
    Closes(CloseReason),
    Violates(Violation),
    LosesTransport,
    Drains,
}

fn any_text() -> impl Strategy<Value = String> {
    any::<Index>().prop_map(|index| index.get(&TEXTS).clone())
}

/// A text that means something, changed in a few places.
fn mutated() -> impl Strategy<Value = Frame> {
    let change = (any::<Index>(), any::<u8>(), 0..5_u8);
    (any_text(), prop::collection::vec(change, 1..4)).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        for (place, byte, change) in changes {
            let place = place.index(bytes.len() + 1);
            match change {
                0 => bytes.insert(place, byte),
                1 => bytes.insert(place, b"\"{}[],:0e-.\\u"[usize::from(byte) % 13]),
                2 => bytes.truncate(place),
                3 if place < bytes.len() => bytes[place] = byte,
                _ if place < bytes.len() => drop(bytes.remove(place)),
                _ => bytes.extend_from_within(place / 2..),
            }
        }
        match ByteString::try_from(Bytes::from(bytes.clone())) {
            Ok(text) => Frame::Text(text),
            Err(_) => binary(bytes),
        }
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let number = prop_oneof![0_u64..6, any::<u64>()];
    prop_oneof![
        10 => any_text().prop_map(text),
        2 => any_text().prop_map(binary),
        6 => mutated(),
        1 => ".{0,40}".prop_map(text),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(binary),
        1 => (0..4_200_usize).prop_map(|size| text(format!(r#"{{"type":"x","p":"{:1$}"}}"#, "", size))),
        1 => number.clone().prop_map(|n| Frame::Ping(Bytes::copy_from_slice(&n.to_be_bytes()))),
        4 => number.prop_map(|n| Frame::Pong(Bytes::copy_from_slice(&n.to_be_bytes()))),
        1 => prop::collection::vec(any::<u8>(), 0..125).prop_map(|bytes| Frame::Pong(bytes.into())),
        1 => prop::option::of(any::<u16>())
            .prop_map(|code| Frame::Close(code.map(|code| Close { code, reason: "".into() }))),
    ]
}

fn reason() -> impl Strategy<Value = CloseReason> {
    prop_oneof![
        Just(CloseReason::Local),
        Just(CloseReason::ShuttingDown),
        Just(CloseReason::Replaced),
        Just(CloseReason::SlowPeer),
        Just(CloseReason::Lost),
        Just(CloseReason::Idle(Duration::ZERO)),
        Just(CloseReason::Refused(Refusal::AlreadyConnected)),
        Just(CloseReason::RefusedByServer(Status::Forbidden)),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let verdict = prop_oneof![3 => Just(Ok(())), 1 => Just(Err(Refusal::Replayed))];
    let passes = prop_oneof![3 => 0_u64..1_500, 1 => 0_u64..30_000];
    prop_oneof![
        24 => frame().prop_map(Happening::Frame),
        6 => Just(Happening::Timeout),
        8 => passes.prop_map(Happening::Passes),
        6 => Just(Happening::Due),
        2 => (-9_000_i64..9_000).prop_map(Happening::WallClockSteps),
        6 => any_text().prop_map(Happening::Sends),
        8 => verdict.prop_map(Happening::Decides),
        1 => Just(Happening::DropsTickets),
        1 => Just(Happening::DecidesWithAForeignTicket),
        2 => Just(Happening::PausesReads),
        2 => Just(Happening::ResumesReads),
        1 => reason().prop_map(Happening::Closes),
        1 => Just(Happening::Violates(Violation::WebSocket)),
        1 => Just(Happening::LosesTransport),
        6 => Just(Happening::Drains),
    ]
}

/// How the connection is set up.
#[derive(Debug, Clone)]
struct Setting {
    role: Role,
    /// Whether the handshake goes as it should before anything else happens.
    shaken_hands: bool,
    timeout: u64,
    check_interval: u64,
    heartbeat_interval: u64,
    window: u64,
    max_message_size: usize,
}

fn setting() -> impl Strategy<Value = Setting> {
    let role = prop_oneof![Just(Role::Client), Just(Role::Server)];
    let timeout = prop_oneof![1 => Just(0_u64), 1 => Just(1), 4 => Just(5_000)];
    let check_interval = prop_oneof![Just(0_u64), Just(1_000), Just(7_001)];
    let heartbeat_interval = prop_oneof![1 => Just(0_u64), 1 => Just(1), 4 => Just(1_000)];
    let window = prop_oneof![1 => Just(0_u64), 4 => Just(5_000), 1 => Just(u64::MAX)];
    let size = prop_oneof![1 => Just(30_usize), 3 => Just(1 << 20)];
    (role, any::<bool>(), timeout, check_interval, heartbeat_interval, window, size).prop_map(
        |(role, shaken_hands, timeout, check_interval, heartbeat_interval, window, max_message_size)| {
            Setting {
                role,
                shaken_hands,
                timeout,
                check_interval,
                heartbeat_interval,
                window,
                max_message_size,
            }
        },
    )
}

impl Setting {
    fn config(&self) -> Config {
        let mut config = if self.role == Role::Server { server_config() } else { client_config() };
        (config.auth_timeout, config.idle_timeout) = (millis(self.timeout), millis(self.timeout));
        config.auth_check_interval = millis(self.check_interval);
        config.idle_check_interval = millis(self.check_interval);
        config.heartbeat_interval = millis(self.heartbeat_interval);
        config.auth_window = millis(self.window);
        config.max_message_size = self.max_message_size;
        config
    }
}

/// A connection to which things happen, and everything that can be seen of it.
struct Subject {
    connection: Connection,
    now: Now,
    tickets: Vec<Ticket>,
    /// What came out, and what commands returned, as text.
    transcript: Vec<String>,
    authenticated: Option<Address>,
    admitted: bool,
    closed_transport: bool,
    closed: bool,
}

type Verdict = Result<(), TestCaseError>;

impl Subject {
    fn new(setting: &Setting) -> Self {
        let (config, now) = (Arc::new(setting.config()), start());
        let connection = match setting.role {
            Role::Client => Connection::client(config, now),
            Role::Server => Connection::server(config, now),
        };
        Self {
            connection,
            now,
            tickets: vec![],
            transcript: vec![],
            authenticated: None,
            admitted: false,
            closed_transport: false,
            closed: false,
        }
    }

    /// All of a life, from the first input to the end.
    fn lives(setting: &Setting, happenings: &[Happening]) -> Result<Vec<String>, TestCaseError> {
        let mut subject = Self::new(setting);
        if setting.shaken_hands {
            let peer = if setting.role == Role::Server { client_wallet() } else { server_wallet() };
            subject.meets(&Happening::Frame(text(authenticate_once(peer))))?;
            subject.meets(&Happening::Drains)?;
            if setting.role == Role::Server {
                subject.meets(&Happening::Decides(Ok(())))?;
            }
            prop_assert!(subject.connection.is_authenticated());
        }
        for happening in happenings {
            subject.meets(happening)?;
        }
        subject.meets(&Happening::Closes(CloseReason::Local))?;
        subject.meets(&Happening::Drains)?;
        prop_assert!(subject.closed, "everything ends once it is closed");
        for late in [Happening::Timeout, Happening::LosesTransport, Happening::Sends("{}".into())] {
            subject.meets(&late)?;
        }
        subject.meets(&Happening::Frame(text(authenticate_once(client_wallet()))))?;
        subject.meets(&Happening::Drains)?;
        Ok(subject.transcript)
    }

    fn meets(&mut self, happening: &Happening) -> Verdict {
        let (now, was_authenticated) = (self.now, self.connection.is_authenticated());
        let was_closed = self.connection.is_closed();
        let connection = &mut self.connection;
        match happening.clone() {
            Happening::Frame(frame) => connection.handle_frame(frame, now),
            Happening::Timeout => self.times_out()?,
            Happening::Passes(by) => {
                self.now.mono = now.mono.after(millis(by));
                self.now.wall = UnixMillis::saturating(now.wall.get() + by);
            }
            Happening::Due => {
                if let Some(due) = connection.poll_timeout() {
                    self.now.mono = due.max(now.mono);
                    self.times_out()?;
                }
            }
            Happening::WallClockSteps(by) => {
                self.now.wall = UnixMillis::saturating(now.wall.get().saturating_add_signed(by));
            }
            Happening::Sends(json) => {
                let Ok(message) = Message::parse(json) else { return Ok(()) };
                let result = connection.send(message, now);
                prop_assert!(result.is_err() || was_authenticated, "sent too early or too late");
                match (was_closed, was_authenticated) {
                    (true, _) => prop_assert_eq!(&result, &Err(Misuse::Closed)),
                    (_, false) => prop_assert_eq!(&result, &Err(Misuse::NotAuthenticated)),
                    _ => {}
                }
                self.transcript.push(format!("{result:?}"));
            }
            Happening::Decides(verdict) => {
                let Some(ticket) = self.tickets.pop() else { return Ok(()) };
                let result = connection.decide(ticket, verdict, now);
                prop_assert!(result.is_err() || !was_closed);
                self.admitted |= result.is_ok() && verdict.is_ok();
                self.transcript.push(format!("{result:?}"));
            }
            Happening::DropsTickets => self.tickets.clear(),
            Happening::DecidesWithAForeignTicket => {
                let foreign = Peer::asked(server_config()).tickets.remove(0);
                prop_assert!(connection.decide(foreign, Ok(()), now).is_err());
            }
            Happening::PausesReads => connection.handle_reads_paused(now),
            Happening::ResumesReads => connection.handle_reads_resumed(now),
            Happening::Closes(reason) => {
                connection.close(reason, now);
                prop_assert!(connection.is_closed());
            }
            Happening::Violates(violation) => connection.handle_violation(violation, now),
            Happening::LosesTransport => connection.handle_transport_closed(now),
            Happening::Drains => self.drain()?,
        }
        self.holds(was_closed)
    }

    fn times_out(&mut self) -> Verdict {
        self.connection.handle_timeout(self.now);
        let next = self.connection.poll_timeout();
        prop_assert!(next.is_none_or(|next| next > self.now.mono), "due again at {:?}", next);
        let before = format!("{:?}", self.connection);
        self.connection.handle_timeout(self.now);
        prop_assert_eq!(before, format!("{:?}", self.connection), "a repeated call does something");
        Ok(())
    }

    /// What is true between any two inputs.
    fn holds(&self, was_closed: bool) -> Verdict {
        let connection = &self.connection;
        prop_assert_eq!(connection.is_authenticated(), connection.peer().is_some());
        prop_assert_eq!(connection.peer().is_some(), connection.protection().is_some());
        if connection.is_closed() {
            prop_assert_eq!((connection.peer(), connection.poll_timeout()), (None, None));
        }
        prop_assert!(connection.is_closed() || !was_closed, "it came back to life");
        if let (Some(peer), Some(known)) = (connection.peer(), self.authenticated) {
            prop_assert_eq!(peer, known, "its identity changed");
        }
        Ok(())
    }

    fn drain(&mut self) -> Verdict {
        while let Some(output) = self.connection.poll_output() {
            self.transcript.push(format!("{output:?}"));
            prop_assert!(!self.closed, "{:?} after the end", output);
            match output {
                Output::Event(Event::Closed { .. }) => {
                    prop_assert!(self.closed_transport, "closed before its transport");
                    self.closed = true;
                }
                other => {
                    prop_assert!(!self.closed_transport, "{:?} after the transport was closed", other);
                    self.notes(other)?;
                }
            }
        }
        prop_assert_eq!(self.closed, self.connection.is_closed());
        Ok(())
    }

    fn notes(&mut self, output: Output) -> Verdict {
        match output {
            Output::CloseTransport => self.closed_transport = true,
            Output::Event(Event::AdmissionRequested { ticket }) => {
                prop_assert_eq!(self.connection.role(), Role::Server);
                prop_assert!(self.authenticated.is_none() && self.tickets.is_empty(), "asked twice");
                self.tickets.push(ticket);
            }
            Output::Event(Event::Authenticated { address, .. }) => {
                prop_assert_eq!(self.authenticated, None, "authenticated twice");
                prop_assert!(self.admitted || self.connection.role() == Role::Client);
                prop_assert!(self.connection.role() == Role::Server || address != client_wallet().address());
                self.authenticated = Some(address);
            }
            Output::Event(Event::Message(_)) => {
                prop_assert!(self.authenticated.is_some(), "a message before authentication");
            }
            Output::Send(Frame::Text(text)) if self.authenticated.is_none() => {
                let kind = Message::parse(text.clone()).ok().and_then(|m| m.kind().map(str::to_owned));
                let ours = matches!(kind.as_deref(), Some("authenticate" | "heartbeat"));
                prop_assert!(ours || Status::from_text(&text).is_some(), "{} before authentication", text);
            }
            _ => {}
        }
        Ok(())
    }
}

fn authenticate_once(wallet: &link_core::Wallet) -> String {
    static PROOFS: LazyLock<[String; 2]> =
        LazyLock::new(|| [client_wallet(), server_wallet()].map(|wallet| authenticate(wallet, WALL)));
    PROOFS[usize::from(wallet.address() == server_wallet().address())].clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// No panic; after a time-out the next one is later or none; one terminal event, the last; nothing after
    /// it; nothing of the application's before authentication; one identity; the same again for the same inputs.
    #[test]
    fn a_connection_keeps_its_promises_whatever_happens(
        setting in setting(),
        happenings in prop::collection::vec(happening(), 0..50),
    ) {
        let life = Subject::lives(&setting, &happenings)?;
        prop_assert_eq!(life, Subject::lives(&setting, &happenings)?, "the same inputs, other outputs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn two_honest_peers_hear_each_other_in_order_over_any_tolerable_line(
        latency in 0_u64..2_000,
        skew in -2_500_i64..2_500,
        letters in prop::collection::vec((any::<bool>(), 0_u64..900), 0..40),
    ) {
        let mut now = start();
        now.wall = UnixMillis::new(WALL.saturating_add_signed(skew)).unwrap();
        let client = Peer::started(Role::Client, client_config(), now);
        let mut world = Pair::of(client, Peer::server(server_config()), House::new(<_>::default()));
        world.latency = millis(latency);
        world.advance(millis(2 * latency));
        let (mut to_server, mut to_client) = (vec![], vec![]);
        for (n, (from_client, pause)) in letters.into_iter().enumerate() {
            let letter = format!(r#"{{"type":"letter","n":{n}}}"#);
            let (from, sent) = match from_client {
                true => (&mut world.client, &mut to_server),
                false => (&mut world.server, &mut to_client),
            };
            prop_assert_eq!(from.sends(&letter), Ok(()));
            sent.push(letter);
            world.advance(millis(pause));
        }
        world.advance(millis(latency));
        prop_assert_eq!(world.server.heard(), to_server);
        prop_assert_eq!(world.client.heard(), to_client);
        prop_assert_eq!((world.client.ending(), world.server.ending()), (None, None));
    }
}
