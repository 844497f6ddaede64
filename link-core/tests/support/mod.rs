//! A world for `Connection`s: peers with clocks of their own, a wire between two of them, and a record of
//! everything that came out. No socket, no sleep, no real time.
#![allow(dead_code, reason = "every test file uses its part of this world")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, LazyLock},
    time::Duration,
};

use link_core::{
    Address, Admission, AdmissionConfig, Admitted, ByteString, Bytes, Close, CloseReason, Config, Connection,
    ConnectionId, Event, Frame, Instant, Message, Misuse, Now, Output, PrivateKey, Protection, Refusal, Role,
    Ticket, UnixMillis, Violation, Wallet,
};

/// What every wall clock shows at first.
pub(crate) const WALL: u64 = 1_795_372_174_071;
/// What every monotonic clock shows at first: no multiple of a check interval.
pub(crate) const MONO: Duration = Duration::from_millis(7_300);

/// No exchange between two peers takes longer than this without the passing of time.
const MAX_STEPS: usize = 10_000;

static CLIENT: LazyLock<Wallet> = LazyLock::new(|| wallet(2));
static SERVER: LazyLock<Wallet> = LazyLock::new(|| wallet(1));
static STRANGER: LazyLock<Wallet> = LazyLock::new(|| wallet(3));

pub(crate) fn client_wallet() -> &'static Wallet {
    &CLIENT
}

pub(crate) fn server_wallet() -> &'static Wallet {
    &SERVER
}

/// Somebody who is neither.
pub(crate) fn stranger() -> &'static Wallet {
    &STRANGER
}

pub(crate) fn wallet(seed: u8) -> Wallet {
    Wallet::from_private_key(PrivateKey::from_bytes([seed; 32]).unwrap())
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A point on the monotonic clock, counted from where every clock starts.
pub(crate) fn at(after_start: Duration) -> Instant {
    Instant::from_origin(MONO + after_start)
}

pub(crate) fn start() -> Now {
    Now { mono: at(Duration::ZERO), wall: UnixMillis::new(WALL).unwrap() }
}

/// The `authenticate` of `wallet` at `timestamp`, written out by hand.
pub(crate) fn authenticate(wallet: &Wallet, timestamp: u64) -> String {
    let (address, signature) = (wallet.address(), wallet.sign(&timestamp.to_string()));
    format!(
        r#"{{"type":"authenticate","address":"{address}","timestamp":{timestamp},"signature":"{signature}"}}"#
    )
}

/// An `authenticate` of `wallet` with the fields as they are written here, and a signature over `signed`.
pub(crate) fn authenticate_as(wallet: &Wallet, timestamp: &str, signed: &str) -> String {
    let (address, signature) = (wallet.address(), wallet.sign(signed));
    format!(
        r#"{{"type":"authenticate","address":"{address}","timestamp":{timestamp},"signature":"{signature}"}}"#
    )
}

/// The other spelling of a signature that anybody can make: *s* mirrored at the group order, the recovery id
/// flipped.
pub(crate) fn high_s(signature: &str) -> String {
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

pub(crate) fn heartbeat(ts: u64) -> String {
    format!(r#"{{"type":"heartbeat","ts":{ts}}}"#)
}

pub(crate) fn text(text: impl Into<ByteString>) -> Frame {
    Frame::Text(text.into())
}

pub(crate) fn binary(bytes: impl AsRef<[u8]>) -> Frame {
    Frame::Binary(Bytes::copy_from_slice(bytes.as_ref()))
}

pub(crate) fn close_frame(code: u16, reason: &str) -> Frame {
    Frame::Close(Some(Close { code, reason: reason.into() }))
}

pub(crate) fn message(json: &str) -> Message {
    Message::parse(json).unwrap()
}

pub(crate) fn server_config() -> Config {
    Config::server(server_wallet().clone())
}

pub(crate) fn client_config() -> Config {
    Config::client(client_wallet().clone())
}

/// What came out of a connection, in its order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Did {
    Sent(Frame),
    Asked(Address),
    Authenticated(Address),
    Heard(String),
    Heartbeat(Option<Duration>),
    Error(Violation),
    ClosedTransport,
    Closed(CloseReason),
}

pub(crate) fn sent(json: impl Into<ByteString>) -> Did {
    Did::Sent(text(json))
}

/// One connection with its clocks, and what it did.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) now: Now,
    pub(crate) did: Vec<Did>,
    /// What the application was asked and has not answered.
    pub(crate) tickets: Vec<Ticket>,
    /// What is to be carried to the other side.
    outbox: VecDeque<Parcel>,
}

#[derive(Debug)]
enum Parcel {
    Frame(Frame),
    TransportClosed,
}

impl Peer {
    pub(crate) fn new(role: Role, config: Config) -> Self {
        Self::started(role, config, start())
    }

    pub(crate) fn started(role: Role, config: Config, now: Now) -> Self {
        let config = Arc::new(config);
        let connection = match role {
            Role::Client => Connection::client(config, now),
            Role::Server => Connection::server(config, now),
        };
        let mut peer = Self { connection, now, did: vec![], tickets: vec![], outbox: VecDeque::new() };
        peer.drain();
        peer
    }

    /// A server that nobody has spoken to.
    pub(crate) fn server(config: Config) -> Self {
        Self::new(Role::Server, config)
    }

    /// A client that has sent its `authenticate`.
    pub(crate) fn client(config: Config) -> Self {
        Self::new(Role::Client, config)
    }

    /// A server whose client has proved its address; the ticket waits.
    pub(crate) fn asked(config: Config) -> Self {
        let mut server = Self::server(config);
        server.hears(authenticate(client_wallet(), WALL));
        assert_eq!(server.took(), [Did::Asked(client_wallet().address())]);
        server
    }

    /// A connection of this role whose handshake is done; what it did so far is forgotten.
    pub(crate) fn authenticated(role: Role, config: Config) -> Self {
        let mut peer = match role {
            Role::Server => {
                let mut server = Self::asked(config);
                server.decides(Ok(())).unwrap();
                server
            }
            Role::Client => {
                let mut client = Self::client(config);
                client.hears(authenticate(server_wallet(), WALL));
                client
            }
        };
        assert!(peer.connection.is_authenticated());
        peer.took();
        peer.outbox.clear();
        peer
    }

    /// A server with its client in.
    pub(crate) fn authenticated_server() -> Self {
        Self::authenticated(Role::Server, server_config())
    }

    /// A client that its server let in.
    pub(crate) fn authenticated_client() -> Self {
        Self::authenticated(Role::Client, client_config())
    }

    pub(crate) fn wall(&self) -> u64 {
        self.now.wall.get()
    }

    /// Receives a text frame.
    pub(crate) fn hears(&mut self, json: impl Into<ByteString>) {
        self.receives(text(json));
    }

    pub(crate) fn receives(&mut self, frame: Frame) {
        self.connection.handle_frame(frame, self.now);
        self.drain();
    }

    pub(crate) fn sends(&mut self, json: &str) -> Result<(), Misuse> {
        let result = self.connection.send(message(json), self.now);
        self.drain();
        result
    }

    /// Answers the ticket that was given out first.
    pub(crate) fn decides(&mut self, verdict: Result<(), Refusal>) -> Result<(), Misuse> {
        let ticket = self.tickets.remove(0);
        let result = self.connection.decide(ticket, verdict, self.now);
        self.drain();
        result
    }

    pub(crate) fn closes(&mut self, reason: CloseReason) {
        self.connection.close(reason, self.now);
        self.drain();
    }

    pub(crate) fn loses_its_transport(&mut self) {
        self.connection.handle_transport_closed(self.now);
        self.drain();
    }

    /// Moves both clocks, and calls `handle_timeout` once, however late that is.
    pub(crate) fn sleeps(&mut self, by: Duration) {
        self.clocks_move(by);
        self.times_out();
    }

    /// Moves both clocks, and calls `handle_timeout` whenever it is due, as a careful caller does.
    pub(crate) fn waits(&mut self, by: Duration) {
        let end = self.now.mono.after(by);
        for _ in 0..MAX_STEPS {
            match self.connection.poll_timeout() {
                Some(due) if due <= end => self.sleeps(due.since(self.now.mono)),
                _ => return self.clocks_move(end.since(self.now.mono)),
            }
        }
        panic!("livelock: {} time-outs until {end:?}", MAX_STEPS);
    }

    pub(crate) fn clocks_move(&mut self, by: Duration) {
        self.now.mono = self.now.mono.after(by);
        self.wall_clock_steps(i64::try_from(by.as_millis()).unwrap());
    }

    pub(crate) fn wall_clock_steps(&mut self, by_millis: i64) {
        self.now.wall = UnixMillis::saturating(self.wall().saturating_add_signed(by_millis));
    }

    pub(crate) fn times_out(&mut self) {
        self.connection.handle_timeout(self.now);
        let next = self.connection.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now.mono), "{next:?} is not after {:?}", self.now.mono);
        self.drain();
    }

    /// How long from now its next time-out is due.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.connection.poll_timeout().map(|due| due.since(self.now.mono))
    }

    /// What it did since the last look.
    pub(crate) fn took(&mut self) -> Vec<Did> {
        core::mem::take(&mut self.did)
    }

    /// The reason of its one terminal event.
    pub(crate) fn ending(&self) -> Option<&CloseReason> {
        let mut endings = self.did.iter().filter_map(|did| match did {
            Did::Closed(reason) => Some(reason),
            _ => None,
        });
        let ending = endings.next();
        assert_eq!(endings.next(), None, "a second terminal event");
        ending
    }

    /// The messages that its application has heard.
    pub(crate) fn heard(&self) -> Vec<&str> {
        let heard = self.did.iter().filter_map(|did| match did {
            Did::Heard(text) => Some(text.as_str()),
            _ => None,
        });
        heard.collect()
    }

    /// The texts that it has sent.
    pub(crate) fn said(&self) -> Vec<&str> {
        let said = self.did.iter().filter_map(|did| match did {
            Did::Sent(Frame::Text(text)) => Some(&**text),
            _ => None,
        });
        said.collect()
    }

    /// The payloads of the pings that it has sent.
    pub(crate) fn pings(&self) -> Vec<Bytes> {
        let pings = self.did.iter().filter_map(|did| match did {
            Did::Sent(Frame::Ping(payload)) => Some(payload.clone()),
            _ => None,
        });
        pings.collect()
    }

    /// Asserts that it is over, in exactly this way and order, and that nothing revives it.
    pub(crate) fn assert_ended(&mut self, expected: &[Did]) {
        assert_eq!(self.did, expected);
        let [.., Did::ClosedTransport, Did::Closed(_)] = self.did.as_slice() else {
            panic!("{:?} is no ending", self.did);
        };
        assert!(self.connection.is_closed() && self.connection.peer().is_none());
        assert_eq!(self.connection.poll_timeout(), None);
        let json = r#"{"type":"late"}"#;
        self.hears(json);
        self.hears(authenticate(client_wallet(), self.wall()));
        assert_eq!(self.sends(json), Err(Misuse::Closed));
        self.closes(CloseReason::Local);
        self.loses_its_transport();
        self.sleeps(secs(3600));
        assert_eq!(self.did, expected, "something after the end");
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.connection.poll_output() {
            self.did.push(match output {
                Output::Send(frame) => {
                    self.outbox.push_back(Parcel::Frame(frame.clone()));
                    Did::Sent(frame)
                }
                Output::Event(Event::AdmissionRequested { ticket }) => {
                    let address = ticket.address();
                    self.tickets.push(ticket);
                    Did::Asked(address)
                }
                Output::Event(Event::Authenticated { address, protection }) => {
                    assert_eq!(protection, Protection::Transport);
                    Did::Authenticated(address)
                }
                Output::Event(Event::Message(message)) => Did::Heard(message.as_str().into()),
                Output::Event(Event::Heartbeat { round_trip }) => Did::Heartbeat(round_trip),
                Output::Event(Event::Error(violation)) => Did::Error(violation),
                Output::CloseTransport => {
                    self.outbox.push_back(Parcel::TransportClosed);
                    Did::ClosedTransport
                }
                Output::Event(Event::Closed { reason }) => Did::Closed(reason),
                Output::Event(other) => panic!("an event that these tests do not know: {other:?}"),
            });
        }
    }
}

/// Who decides about a ticket in a [`Pair`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Application {
    Says(Result<(), Refusal>),
    /// The ticket stays in `server.tickets`.
    Thinks,
}

/// The memory of a server, shared by its connections, and what it answered.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) admission: Rc<RefCell<Admission>>,
    next_id: Rc<RefCell<u64>>,
}

impl House {
    pub(crate) fn new(config: AdmissionConfig) -> Self {
        Self { admission: Rc::new(RefCell::new(Admission::new(config))), next_id: Rc::default() }
    }

    /// The next connection of this house.
    pub(crate) fn arrival(&self) -> ConnectionId {
        let mut next = self.next_id.borrow_mut();
        *next += 1;
        let id = ConnectionId::new(*next);
        self.admission.borrow_mut().arrive(id, None).unwrap();
        id
    }
}

/// A client and a server with a wire between them.
pub(crate) struct Pair {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    /// How long a frame is under way.
    pub(crate) latency: Duration,
    pub(crate) application: Application,
    pub(crate) house: House,
    pub(crate) id: ConnectionId,
    /// What the admission did, once it was asked.
    pub(crate) admitted: Option<Result<Admitted, Refusal>>,
    to_client: VecDeque<(Instant, Parcel)>,
    to_server: VecDeque<(Instant, Parcel)>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(client_config(), server_config())
    }

    pub(crate) fn with(client: Config, server: Config) -> Self {
        Self::of(Peer::client(client), Peer::server(server), House::new(AdmissionConfig::default()))
    }

    pub(crate) fn of(client: Peer, server: Peer, house: House) -> Self {
        Self {
            client,
            server,
            latency: Duration::ZERO,
            application: Application::Says(Ok(())),
            id: house.arrival(),
            house,
            admitted: None,
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
        }
    }

    /// Two peers whose handshake is done; what they did so far is forgotten.
    pub(crate) fn authenticated() -> Self {
        let mut world = Self::new();
        world.drive();
        assert!(world.client.connection.is_authenticated() && world.server.connection.is_authenticated());
        world.forget();
        world
    }

    /// Another connection to the same server at the same time, with the same wallet.
    pub(crate) fn connect_again(&self) -> Self {
        let client = Peer::started(Role::Client, client_config(), self.client.now);
        let server = Peer::started(Role::Server, server_config(), self.server.now);
        Self::of(client, server, self.house.clone())
    }

    pub(crate) fn forget(&mut self) {
        self.client.took();
        self.server.took();
    }

    /// Lets everything happen that happens at this moment.
    pub(crate) fn drive(&mut self) {
        for _ in 0..MAX_STEPS {
            if !self.step() {
                return;
            }
        }
        panic!("livelock: the two talk without end");
    }

    /// Lets `by` pass on all clocks, with everything that happens meanwhile.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.client.now.mono.after(by);
        self.drive();
        for _ in 0..MAX_STEPS {
            let wires = [&self.to_client, &self.to_server];
            let arrivals = wires.into_iter().filter_map(|wire| wire.front().map(|(due, _)| *due));
            let timers = [&self.client, &self.server].into_iter().filter_map(|p| p.connection.poll_timeout());
            let next = arrivals.chain(timers).min().filter(|next| *next <= end);
            let step = next.unwrap_or(end).since(self.client.now.mono);
            self.client.clocks_move(step);
            self.server.clocks_move(step);
            // What is already there is read before anybody is judged.
            self.drive();
            self.client.times_out();
            self.server.times_out();
            self.drive();
            if next.is_none() {
                return;
            }
        }
        panic!("livelock: time does not pass");
    }

    /// Carries what was sent, decides what was asked; whether there was anything to do.
    fn step(&mut self) -> bool {
        let arrival = self.client.now.mono.after(self.latency);
        let (from_client, from_server) = (self.client.outbox.drain(..), self.server.outbox.drain(..));
        self.to_server.extend(from_client.map(|parcel| (arrival, parcel)));
        self.to_client.extend(from_server.map(|parcel| (arrival, parcel)));
        let carried = Self::carry(&mut self.to_client, &mut self.client)
            | Self::carry(&mut self.to_server, &mut self.server);
        self.decide() | carried
    }

    fn carry(wire: &mut VecDeque<(Instant, Parcel)>, to: &mut Peer) -> bool {
        if wire.front().is_none_or(|(due, _)| *due > to.now.mono) {
            return false;
        }
        match wire.pop_front().unwrap().1 {
            Parcel::TransportClosed => to.loses_its_transport(),
            Parcel::Frame(frame) => {
                // The WebSocket layer answers pings by itself.
                if let Frame::Ping(payload) = &frame {
                    to.outbox.push_back(Parcel::Frame(Frame::Pong(payload.clone())));
                }
                to.receives(frame);
            }
        }
        true
    }

    fn decide(&mut self) -> bool {
        let Application::Says(verdict) = self.application else { return false };
        let Some(ticket) = self.server.tickets.first() else { return false };
        let mut admission = self.house.admission.borrow_mut();
        let admitted = admission
            .screen(ticket.proof(), self.server.now.wall)
            .and(verdict)
            .and_then(|()| admission.admit(ticket.address(), self.id));
        drop(admission);
        self.admitted = Some(admitted);
        self.server.decides(admitted.map(|_| ())).unwrap();
        true
    }
}
