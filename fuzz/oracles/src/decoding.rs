//! Texts and frames from a peer: what is taken, what it is taken for, and what that costs.
//!
//! The input is the text. Another reader of JSON, `serde_json::Value`, and readers of this file's own say what it means.

use std::{cell::RefCell, sync::Arc, time::Duration};

use link_core::{
    Address, Bytes, CloseReason, Config, Connection, Event, Frame, Instant, Message, Now, Output, PrivateKey,
    RESERVED_TYPES, Signature, Status, UnixMillis, Violation, Wallet,
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The time of the proofs in the corpus.
const WALL: u64 = 1_795_372_174_071;
const WINDOW: u64 = 5_000;
/// What reading may hold at once, beyond a multiple of what came.
const OVERHEAD: u64 = 4 << 10;
/// Buffers that double hold at most three times what they are for; texts that are unescaped are there twice.
const FACTOR: u64 = 8;

/// Reads `input` in every way in which a peer's text is read.
pub fn decoding(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        message(text);
        status(text);
        for frame in [Frame::Text(text.into()), Frame::Binary(Bytes::copy_from_slice(input))] {
            first_frame(&frame, text);
            later_frame(&frame, text);
        }
    } else {
        let frame = Frame::Binary(Bytes::copy_from_slice(input));
        let mut server = Connection::server(Arc::new(config()), now());
        server.handle_frame(frame.clone(), now());
        assert_eq!(ending(&mut server), Some(CloseReason::Violation(Violation::NotJson)));
        ON_SERVER.with(|line| {
            let outputs = line.borrow_mut().hear(frame);
            assert!(matches!(&*outputs, [Output::Event(Event::Error(Violation::NotJson))]), "{outputs:?}");
        });
    }
}

fn now() -> Now {
    Now { mono: Instant::from_origin(Duration::from_secs(7)), wall: UnixMillis::saturating(WALL) }
}

fn wallet(seed: u8) -> Wallet {
    Wallet::from_private_key(PrivateKey::from_bytes([seed; 32]).unwrap())
}

fn config() -> Config {
    let mut config = Config::server(wallet(1));
    config.auth_window = Duration::from_millis(WINDOW);
    // Size is judged before anything else, and is not what this is about.
    config.max_message_size = usize::MAX;
    config.max_unauthenticated_message_size = usize::MAX;
    config
}

/// `Message::parse` against `Value`.
fn message(text: &str) {
    let mut parsed = None;
    let owned = text.to_owned();
    let cost = allocation_counter::measure(|| parsed = Some(Message::parse(owned)));
    assert!(
        cost.bytes_max <= FACTOR * text.len() as u64 + OVERHEAD,
        "{} bytes for a text of {}",
        cost.bytes_max,
        text.len()
    );
    let parsed = parsed.unwrap();
    if let Ok(message) = &parsed {
        assert_eq!(message.as_str(), text, "the text is kept as it came");
        assert_eq!(Message::parse(message.clone().into_text()).as_ref(), Ok(message));
    }
    // `Value` takes an object with this key for something of serde_json's own.
    if text.contains("$serde_json") {
        return;
    }
    match (&parsed, serde_json::from_str::<Value>(text)) {
        (Ok(message), Ok(value)) => {
            let kind = value.as_object().and_then(|object| object.get("type")).and_then(Value::as_str);
            assert_eq!(message.kind(), kind);
            let sendable = value.is_object() && !kind.is_some_and(|kind| RESERVED_TYPES.contains(&kind));
            assert_eq!(message.check_sendable().is_ok(), sendable);
            written_again(&value, sendable);
            assert_eq!(message.json::<Value>().as_ref(), Ok(&value));
        }
        // A tree has limits that the text has not.
        (Ok(_), Err(error)) => {
            let error = error.to_string();
            let beyond_a_tree = [
                "recursion limit exceeded",
                "lone leading surrogate",
                "unexpected end of hex escape",
                "invalid unicode code point",
                "number out of range",
            ];
            assert!(
                beyond_a_tree.iter().any(|limit| error.starts_with(limit)),
                "not JSON, but taken: {error}"
            );
        }
        (Err(error), Ok(_)) => panic!("JSON, but not taken: {error}"),
        (Err(_), Err(_)) => {}
    }
}

/// The same meaning comes back when it is written anew.
fn written_again(value: &Value, sendable: bool) {
    match Message::new(value) {
        Ok(written) => {
            assert!(sendable);
            let again: Value = serde_json::from_str(written.as_str()).unwrap();
            assert!(same(&again, value), "{again} is not {value}");
        }
        Err(_) => assert!(!sendable),
    }
}

/// Equal, but for the last bit of a number: serde_json reads one with many digits only nearly.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= other.abs() * 4.0 * f64::EPSILON
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

/// The eight spellings, written out.
fn status(text: &str) {
    let expected = match text {
        "HTTP/1.1 401 Unauthorized\r\n\r\n" | r#""HTTP/1.1 401 Unauthorized\r\n\r\n""# => Some(401),
        "HTTP/1.1 403 Forbidden\r\n\r\n" | r#""HTTP/1.1 403 Forbidden\r\n\r\n""# => Some(403),
        "HTTP/1.1 408 Request Timeout\r\n\r\n" | r#""HTTP/1.1 408 Request Timeout\r\n\r\n""# => Some(408),
        "HTTP/1.1 409 Conflict\r\n\r\n" | r#""HTTP/1.1 409 Conflict\r\n\r\n""# => Some(409),
        _ => None,
    };
    assert_eq!(Status::from_text(text).map(Status::code), expected);
}

/// The first thing that a server hears: a proof that holds, or the end.
fn first_frame(frame: &Frame, text: &str) {
    let mut server = Connection::server(Arc::new(config()), now());
    let cost = allocation_counter::measure(|| server.handle_frame(frame.clone(), now()));
    assert!(cost.bytes_max <= FACTOR * text.len() as u64 + OVERHEAD, "{} bytes", cost.bytes_max);
    let expected = match Message::parse(text.to_owned()) {
        Err(_) => Err(Violation::NotJson),
        Ok(message) if message.kind() == Some("authenticate") => proof(text, WALL, WINDOW),
        Ok(_) => Err(Violation::UnexpectedMessage),
    };
    match expected {
        Err(violation) => {
            assert_eq!(ending(&mut server), Some(CloseReason::Violation(violation)));
        }
        Ok((address, timestamp)) => match server.poll_output() {
            Some(Output::Event(Event::AdmissionRequested { ticket })) => {
                assert_eq!((ticket.address(), ticket.timestamp().get()), (address, timestamp));
            }
            other => panic!("a proof that holds, and {other:?}"),
        },
    }
}

fn ending(connection: &mut Connection) -> Option<CloseReason> {
    std::iter::from_fn(|| connection.poll_output()).find_map(|output| match output {
        Output::Event(Event::Closed { reason }) => Some(reason),
        Output::Event(other) => panic!("{other:?} before the end"),
        _ => None,
    })
}

/// What an `authenticate` proves, read member by member: none may be missing, come twice, or be of another kind.
pub(crate) fn proof(text: &str, wall: u64, window: u64) -> Result<(Address, u64), Violation> {
    let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
        return Err(Violation::MalformedProof);
    };
    let only = |name: &str| {
        let mut found = members.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(value.get()),
            _ => Err(Violation::MalformedProof),
        }
    };
    let words = |raw: &str| serde_json::from_str::<String>(raw).map_err(|_| Violation::MalformedProof);
    only("type")?;
    let (address, signature) = (words(only("address")?)?, words(only("signature")?)?);
    let timestamp = only("timestamp")?;
    let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let timestamp = match timestamp.parse::<u64>() {
        Ok(number) if digits && number < 1 << 53 => number,
        _ => return Err(Violation::MalformedProof),
    };
    if timestamp.abs_diff(wall) > window {
        return Err(Violation::StaleProof);
    }
    let signature: Signature = signature.parse().map_err(|_| Violation::BadSignature)?;
    match signature.recover(&timestamp.to_string()) {
        Some(signer) if signer.as_str() == address => Ok((signer, timestamp)),
        _ => Err(Violation::BadSignature),
    }
}

/// An object's members in their order, repeated ones included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

thread_local! {
    static ON_SERVER: RefCell<Line> = RefCell::new(Line::server());
    static ON_CLIENT: RefCell<Line> = RefCell::new(Line::client());
}

/// An authenticated connection. Hearing one frame leaves it as it was, or ends it; so it serves for many inputs, and
/// the slow handshake is done once.
struct Line {
    connection: Connection,
    anew: fn() -> Connection,
}

impl Line {
    fn server() -> Self {
        fn anew() -> Connection {
            let mut client = Connection::client(Arc::new(Config::client(wallet(2))), now());
            let Some(Output::Send(proof)) = client.poll_output() else { panic!("a client speaks first") };
            let mut server = Connection::server(Arc::new(config()), now());
            server.handle_frame(proof, now());
            let Some(Output::Event(Event::AdmissionRequested { ticket })) = server.poll_output() else {
                panic!("an honest proof is taken")
            };
            server.decide(ticket, Ok(()), now()).unwrap();
            server
        }
        Self { connection: anew(), anew }
    }

    fn client() -> Self {
        fn anew() -> Connection {
            let mut answer = Line::server().connection;
            let mut config = config();
            config.wallet = wallet(2);
            let mut client = Connection::client(Arc::new(config), now());
            match answer.poll_output() {
                Some(Output::Send(proof)) => client.handle_frame(proof, now()),
                other => panic!("a server answers, not {other:?}"),
            }
            client
        }
        Self { connection: anew(), anew }
    }

    /// What comes out for one frame.
    fn hear(&mut self, frame: Frame) -> Vec<Output> {
        while self.connection.poll_output().is_some() {}
        assert!(self.connection.is_authenticated());
        self.connection.handle_frame(frame, now());
        let outputs = std::iter::from_fn(|| self.connection.poll_output()).collect();
        if self.connection.is_closed() {
            self.connection = (self.anew)();
        }
        outputs
    }
}

/// A frame after the handshake, on both sides.
fn later_frame(frame: &Frame, text: &str) {
    let parsed = Message::parse(text.to_owned());
    let kind = parsed.as_ref().map(|message| message.kind().map(str::to_owned));
    for from_server in [false, true] {
        let line = if from_server { &ON_CLIENT } else { &ON_SERVER };
        let outputs = line.with(|line| line.borrow_mut().hear(frame.clone()));
        match (Status::from_text(text).filter(|_| from_server), &kind) {
            (Some(status), _) => {
                let expected = match status {
                    Status::Conflict => CloseReason::Replaced,
                    other => CloseReason::RefusedByServer(other),
                };
                let Some(Output::Event(Event::Closed { reason })) = outputs.last() else {
                    panic!("{outputs:?}")
                };
                assert_eq!(*reason, expected);
            }
            (None, Err(_)) => {
                assert!(
                    matches!(&*outputs, [Output::Event(Event::Error(Violation::NotJson))]),
                    "{outputs:?}"
                );
            }
            // It never changes an identity.
            (None, Ok(Some(kind))) if kind == "authenticate" => assert!(outputs.is_empty(), "{outputs:?}"),
            (None, Ok(Some(kind))) if kind == "heartbeat" => match (from_server, &*outputs) {
                // Nobody has asked.
                (false, []) => {}
                (true, [Output::Send(Frame::Text(answer)), Output::Event(Event::Heartbeat { .. })]) => {
                    assert_eq!(&**answer, format!(r#"{{"type":"heartbeat","ts":{WALL}}}"#));
                }
                _ => panic!("{outputs:?}"),
            },
            (None, Ok(_)) => match &*outputs {
                [Output::Event(Event::Message(message))] => assert_eq!(message.as_str(), text),
                _ => panic!("{outputs:?}"),
            },
        }
    }
}
