//! What is measured: each operation once, for the times (`operations`), the instructions (`instructions`) and the test
//! that counts allocations.
#![allow(dead_code, reason = "every program that measures uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::arithmetic_side_effects)]

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use k256::ecdsa::{self, RecoveryId, SigningKey, VerifyingKey};
use link_core::{
    Address, Admission, AdmissionConfig, ByteString, Bytes, Config, Connection, ConnectionId, Event, Frame,
    Instant, Message, Now, Output, PrivateKey, Proof, UnixMillis, Wallet,
};
use serde::de::IgnoredAny;

const WALL: u64 = 1_795_372_174_071;
const SECOND: Duration = Duration::from_secs(1);

/// A message of 128 bytes, as applications send them.
pub(crate) const MESSAGE: &str = concat!(
    r#"{"type":"position","ts":1795372174071,"id":"7f3a9c","from":"warehouse 12","#,
    r#""x":12.75,"y":-3.5,"moving":true,"note":"left door 3"}"#
);
const _: () = assert!(MESSAGE.len() == 128, "the goal is about a message of 128 bytes");

/// One operation. `prepare` does what is needed once and hands out what is repeated.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
}

const fn case(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Case {
    Case { name, prepare }
}

/// What goes on for as long as a connection lives. None of it may allocate.
pub(crate) const STEADY: [Case; 10] = [
    case("message in, to a server", || message_in(authenticated().server)),
    case("message in, to a client", || message_in(authenticated().client)),
    case("message out, of a server", || message_out(authenticated().server)),
    case("message out, of a client", || message_out(authenticated().client)),
    case("heartbeat round of a server", server_heartbeat),
    case("heartbeat round of a client", client_heartbeat),
    case("time-out that is not due, server", || early_timeout(authenticated().server)),
    case("time-out that is not due, client", || early_timeout(authenticated().client)),
    case("next time-out, server", || next_timeout(authenticated().server)),
    case("next time-out, client", || next_timeout(authenticated().client)),
];

/// What happens once for each connection, or for each message that an application makes.
pub(crate) const ONCE: [Case; 9] = [
    case("message made of text", || parsed(MESSAGE)),
    case("message made of a map", written),
    case("handshake, both sides", whole_handshake),
    case("handshake: a client opens and signs", client_opens),
    case("handshake: a server checks a proof", server_checks),
    case("handshake: both, up to a server's signature", server_signs),
    case("admission, among none", || admission_among(0)),
    case("admission, among 10,000", || admission_among(10_000)),
    case("admission, among 100,000", || admission_among(100_000)),
];

/// What the libraries below take for their part, to see what is ours.
pub(crate) const BELOW: [Case; 4] = [
    case("serde_json alone: a message is valid", || valid(MESSAGE)),
    case("serde_json alone: a heartbeat is valid", || valid(HEARTBEAT)),
    case("k256 alone: sign", k256_signs),
    case("k256 alone: recover", k256_recovers),
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    STEADY.iter().chain(&ONCE).chain(&BELOW)
}

/// As peers write it.
pub(crate) const HEARTBEAT: &str = r#"{"type":"heartbeat","ts":1795372174071}"#;

pub(crate) fn wallet(seed: u8) -> Wallet {
    Wallet::from_private_key(PrivateKey::from_bytes([seed; 32]).unwrap())
}

/// Both clocks, `elapsed` after the start.
pub(crate) fn after(elapsed: Duration) -> Now {
    let millis = u64::try_from(elapsed.as_millis()).unwrap();
    Now { mono: Instant::from_origin(elapsed), wall: UnixMillis::saturating(WALL + millis) }
}

fn start() -> Now {
    after(Duration::from_millis(7_300))
}

pub(crate) struct Configs {
    pub(crate) client: Arc<Config>,
    pub(crate) server: Arc<Config>,
}

impl Configs {
    pub(crate) fn new() -> Self {
        Self { client: Arc::new(Config::client(wallet(2))), server: Arc::new(Config::server(wallet(1))) }
    }
}

pub(crate) struct Pair {
    pub(crate) client: Connection,
    pub(crate) server: Connection,
}

/// Both sides of a handshake, and nothing left to hand out.
pub(crate) fn handshake(configs: &Configs, now: Now) -> Pair {
    let mut client = Connection::client(configs.client.clone(), now);
    let proof = sent(&mut client);
    let mut server = admitted(configs, &proof, now);
    client.handle_frame(sent(&mut server), now);
    for side in [&mut client, &mut server] {
        assert!(matches!(event(side), Event::Authenticated { .. }));
        quiet(side);
    }
    Pair { client, server }
}

/// A server's side that has let its client in; its own proof and the event have yet to be taken.
fn admitted(configs: &Configs, proof: &Frame, now: Now) -> Connection {
    let (mut server, Event::AdmissionRequested { ticket }) = asks(configs, proof, now) else {
        panic!("the server does not ask");
    };
    server.decide(ticket, Ok(()), now).unwrap();
    server
}

/// A server's side that has let its client in, and nothing left to hand out.
pub(crate) fn let_in(configs: &Configs, proof: &Frame, now: Now) -> Connection {
    let mut server = admitted(configs, proof, now);
    sent(&mut server);
    assert!(matches!(event(&mut server), Event::Authenticated { .. }));
    quiet(&mut server);
    server
}

pub(crate) fn authenticated() -> Pair {
    handshake(&Configs::new(), start())
}

pub(crate) fn sent(connection: &mut Connection) -> Frame {
    match connection.poll_output() {
        Some(Output::Send(frame)) => frame,
        other => panic!("{other:?} is no frame"),
    }
}

pub(crate) fn event(connection: &mut Connection) -> Event {
    match connection.poll_output() {
        Some(Output::Event(event)) => event,
        other => panic!("{other:?} is no event"),
    }
}

pub(crate) fn quiet(connection: &mut Connection) {
    let output = connection.poll_output();
    assert!(output.is_none(), "{output:?} after the last output");
}

fn message_in(mut connection: Connection) -> Box<dyn FnMut()> {
    let (frame, now) = (Frame::Text(ByteString::from_static(MESSAGE)), start());
    Box::new(move || {
        connection.handle_frame(black_box(frame.clone()), now);
        let event = event(&mut connection);
        assert!(matches!(black_box(event), Event::Message(_)));
        quiet(&mut connection);
    })
}

fn message_out(mut connection: Connection) -> Box<dyn FnMut()> {
    let (message, now) = (Message::parse(ByteString::from_static(MESSAGE)).unwrap(), start());
    Box::new(move || {
        connection.send(black_box(message.clone()), now).unwrap();
        let frame = sent(&mut connection);
        assert!(matches!(black_box(frame), Frame::Text(_)));
        quiet(&mut connection);
    })
}

fn server_heartbeat() -> Box<dyn FnMut()> {
    let mut server = authenticated().server;
    let heartbeat = Frame::Text(ByteString::from_static(HEARTBEAT));
    let mut elapsed = start().mono.since_origin();
    Box::new(move || {
        elapsed += SECOND;
        let now = after(elapsed);
        server.handle_timeout(now);
        let ping = pinged(&mut server);
        assert!(matches!(black_box(sent(&mut server)), Frame::Text(_)));
        quiet(&mut server);
        server.handle_frame(Frame::Pong(ping), now);
        server.handle_frame(black_box(heartbeat.clone()), now);
        assert!(matches!(black_box(event(&mut server)), Event::Heartbeat { round_trip: Some(_) }));
        quiet(&mut server);
    })
}

fn client_heartbeat() -> Box<dyn FnMut()> {
    let mut client = authenticated().client;
    let heartbeat = Frame::Text(ByteString::from_static(HEARTBEAT));
    let mut elapsed = start().mono.since_origin();
    Box::new(move || {
        elapsed += SECOND;
        let now = after(elapsed);
        client.handle_timeout(now);
        let ping = pinged(&mut client);
        quiet(&mut client);
        client.handle_frame(Frame::Pong(ping), now);
        client.handle_frame(black_box(heartbeat.clone()), now);
        assert!(matches!(black_box(sent(&mut client)), Frame::Text(_)));
        assert!(matches!(black_box(event(&mut client)), Event::Heartbeat { round_trip: Some(_) }));
        quiet(&mut client);
    })
}

fn pinged(connection: &mut Connection) -> Bytes {
    match black_box(sent(connection)) {
        Frame::Ping(payload) => payload,
        other => panic!("{other:?} is no ping"),
    }
}

fn early_timeout(mut connection: Connection) -> Box<dyn FnMut()> {
    let now = after(start().mono.since_origin() + SECOND / 2);
    Box::new(move || {
        connection.handle_timeout(black_box(now));
        quiet(&mut connection);
    })
}

fn next_timeout(connection: Connection) -> Box<dyn FnMut()> {
    Box::new(move || {
        black_box(black_box(&connection).poll_timeout());
    })
}

fn whole_handshake() -> Box<dyn FnMut()> {
    let configs = Configs::new();
    Box::new(move || {
        black_box(handshake(&configs, start()));
    })
}

fn client_opens() -> Box<dyn FnMut()> {
    let configs = Configs::new();
    Box::new(move || {
        black_box(Connection::client(configs.client.clone(), start()));
    })
}

fn asks(configs: &Configs, proof: &Frame, now: Now) -> (Connection, Event) {
    let mut server = Connection::server(configs.server.clone(), now);
    server.handle_frame(proof.clone(), now);
    let event = event(&mut server);
    (server, event)
}

fn server_checks() -> Box<dyn FnMut()> {
    let (configs, now) = (Configs::new(), start());
    let proof = sent(&mut Connection::client(configs.client.clone(), now));
    Box::new(move || {
        let (_server, event) = asks(&configs, &proof, now);
        assert!(matches!(black_box(event), Event::AdmissionRequested { .. }));
    })
}

fn server_signs() -> Box<dyn FnMut()> {
    let (configs, now) = (Configs::new(), start());
    let proof = sent(&mut Connection::client(configs.client.clone(), now));
    Box::new(move || {
        black_box(admitted(&configs, &proof, now));
    })
}

/// One connection comes, is let in and goes, while `connected` others stay. A millisecond passes.
fn admission_among(connected: u64) -> Box<dyn FnMut()> {
    let address = |number: u64| -> Address {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("xe_{mixed:016X}{mixed:016X}{number:08X}").parse().unwrap()
    };
    let mut admission = Admission::new(AdmissionConfig::default());
    let mut wall = WALL;
    let mut enter = move |admission: &mut Admission, id: ConnectionId, address: Address| {
        wall += 1;
        let timestamp = UnixMillis::saturating(wall);
        admission.arrive(id, Some([10, 0, 0, 1].into())).unwrap();
        admission.screen(Proof { address, timestamp }, timestamp).unwrap();
        admission.admit(address, id).unwrap();
    };
    for number in 0..connected {
        enter(&mut admission, ConnectionId::new(number), address(number));
    }
    // Made beforehand, since a checksum costs more than an admission.
    let comers: Vec<Address> = (0..1024).map(|number| address(connected + number)).collect();
    let (mut next, mut comers) = (connected, comers.into_iter().cycle());
    Box::new(move || {
        next += 1;
        enter(&mut admission, ConnectionId::new(next), comers.next().unwrap());
        admission.release(ConnectionId::new(next));
        black_box(&admission);
    })
}

fn parsed(json: &'static str) -> Box<dyn FnMut()> {
    Box::new(move || {
        black_box(Message::parse(black_box(ByteString::from_static(json))).unwrap());
    })
}

fn written() -> Box<dyn FnMut()> {
    let map: BTreeMap<String, serde_json::Value> = serde_json::from_str(MESSAGE).unwrap();
    Box::new(move || {
        black_box(Message::new(black_box(&map)).unwrap());
    })
}

fn valid(json: &'static str) -> Box<dyn FnMut()> {
    Box::new(move || {
        serde_json::from_str::<IgnoredAny>(black_box(json)).unwrap();
    })
}

const DIGEST: [u8; 32] = [7; 32];

fn k256_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32].into()).unwrap()
}

fn k256_signs() -> Box<dyn FnMut()> {
    let key = k256_key();
    Box::new(move || {
        black_box::<(ecdsa::Signature, RecoveryId)>(key.sign_prehash_recoverable(black_box(&DIGEST)));
    })
}

fn k256_recovers() -> Box<dyn FnMut()> {
    let (signature, id) = k256_key().sign_prehash_recoverable(&DIGEST);
    Box::new(move || {
        black_box(VerifyingKey::recover_from_prehash(black_box(&DIGEST), &signature, id).unwrap());
    })
}
