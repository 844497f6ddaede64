//! The v1 wire codec: what a text means, and how ours are written. (`WIRE.md`, 'After the handshake'.)
//!
//! JSON is validated once and its `type` looked at without building a tree. A [`Message`] keeps the text as
//! it came, so that a payload is neither copied nor parsed until somebody asks for it.

use alloc::{boxed::Box, format, string::String};
use core::fmt;

use bytes::BytesMut;
use bytestring::ByteString;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::time::UnixMillis;

/// The message types that belong to the protocol. An application cannot send them.
///
/// `disconnect` and `error` mean nothing to the protocol: JavaScript peers hand them to their application as
/// ordinary messages, and so do we.
pub const RESERVED_TYPES: [&str; 4] = [AUTHENTICATE, HEARTBEAT, "disconnect", "error"];

const AUTHENTICATE: &str = "authenticate";
const HEARTBEAT: &str = "heartbeat";

/// A message of the application: JSON text, known to be valid. Cloning shares the text.
///
/// ```
/// use link_core::Message;
///
/// let message = Message::new(&serde_json::json!({ "type": "greeting", "text": "hello" }))?;
/// assert_eq!(message.kind(), Some("greeting"));
/// assert_eq!(message.as_str(), r#"{"text":"hello","type":"greeting"}"#);
/// # Ok::<(), link_core::InvalidMessage>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    text: ByteString,
    shape: Shape,
}

/// What was seen on the way through the JSON.
#[derive(Clone, PartialEq, Eq)]
enum Shape {
    NotAnObject,
    Untyped,
    /// The `type` stands in the text, without an escape, from `start` to `end`.
    Typed {
        start: usize,
        end: usize,
    },
    /// The `type` is written with escapes, and this is what it says.
    Escaped(Box<str>),
}

impl Message {
    /// Writes `value` as a message to send.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON, is not a JSON object, or has a reserved `type`.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, InvalidMessage> {
        let text = serde_json::to_string(value).map_err(|error| InvalidMessage::Json(reason(&error)))?;
        let message = Self::parse(text)?;
        message.check_sendable()?;
        Ok(message)
    }

    /// Takes JSON text as it is. Any JSON value is a message one may receive; only an object whose `type` is
    /// not reserved may be sent (the line checks that when it is asked to).
    ///
    /// # Errors
    /// When `text` is not JSON.
    pub fn parse(text: impl Into<ByteString>) -> Result<Self, InvalidMessage> {
        let text = text.into();
        let shape = Shape::of(&text).map_err(|error| InvalidMessage::Json(reason(&error)))?;
        Ok(Self { text, shape })
    }

    /// The JSON text, byte for byte as it came or will go.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The JSON text, without a copy.
    pub fn into_text(self) -> ByteString {
        self.text
    }

    /// The `type`, if the message is an object and has a text there. As in JavaScript, the last one counts.
    pub fn kind(&self) -> Option<&str> {
        match &self.shape {
            Shape::NotAnObject | Shape::Untyped => None,
            Shape::Typed { start, end } => self.text.get(*start..*end),
            Shape::Escaped(kind) => Some(kind),
        }
    }

    /// Reads the message as a `T`.
    ///
    /// # Errors
    /// When the JSON does not have the shape of a `T`; the error says where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, InvalidMessage> {
        serde_json::from_str(&self.text).map_err(|error| InvalidMessage::Shape(reason(&error)))
    }

    /// Whether an application may send it: an object, whose `type` does not belong to the protocol.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check_sendable(&self) -> Result<(), InvalidMessage> {
        if self.shape == Shape::NotAnObject {
            return Err(InvalidMessage::NotAnObject);
        }
        match self.kind().and_then(|kind| RESERVED_TYPES.into_iter().find(|reserved| *reserved == kind)) {
            Some(reserved) => Err(InvalidMessage::ReservedType(reserved)),
            None => Ok(()),
        }
    }
}

/// What can be sent: a [`Message`], which is shared and not copied, or any [`Serialize`] that makes a JSON object.
pub trait IntoMessage {
    /// The message to send.
    ///
    /// # Errors
    /// As [`Message::new`].
    fn into_message(self) -> Result<Message, InvalidMessage>;
}

impl IntoMessage for Message {
    fn into_message(self) -> Result<Message, InvalidMessage> {
        self.check_sendable()?;
        Ok(self)
    }
}

impl IntoMessage for &Message {
    fn into_message(self) -> Result<Message, InvalidMessage> {
        self.clone().into_message()
    }
}

impl<T: Serialize> IntoMessage for T {
    fn into_message(self) -> Result<Message, InvalidMessage> {
        Message::new(&self)
    }
}

/// Its length and type. What it says may be private, and is printed by `Display`.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        f.write_str("Message(")?;
        if let Some(kind) = self.kind() {
            let cut = kind.char_indices().nth(SHOWN).map_or(kind.len(), |(end, _)| end);
            write!(f, "{:?}, ", kind.get(..cut).unwrap_or_default())?;
        }
        write!(f, "{} bytes)", self.text.len())
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why something is not a message that can be sent or read so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// It is not JSON, or cannot be written as JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// It is JSON, but not an object; v1 peers expect objects.
    #[error("a message must be a JSON object, such as {{\"type\":\"greeting\"}}")]
    NotAnObject,
    /// Its `type` belongs to the protocol.
    #[error("the type \"{0}\" belongs to the protocol; choose another one")]
    ReservedType(&'static str),
    /// It is JSON of another shape than the one asked for.
    #[error("the message has another shape: {0}")]
    Shape(String),
}

fn reason(error: &serde_json::Error) -> String {
    format!("{error}")
}

/// What a text from the peer turned out to be.
#[derive(Debug)]
pub(crate) enum Received {
    /// An `authenticate`, its fields not looked at yet.
    Authenticate(Message),
    Heartbeat,
    /// One of the texts by which a server refuses, in either spelling.
    Status(Status),
    Application(Message),
    NotJson,
}

impl Received {
    /// Reads what a server sent. Only a server's status texts mean anything.
    pub(crate) fn from_server(text: ByteString) -> Self {
        match Status::from_text(&text) {
            Some(status) => Self::Status(status),
            None => Self::from_client(text),
        }
    }

    /// Reads what a client sent.
    pub(crate) fn from_client(text: ByteString) -> Self {
        if is_common_heartbeat(&text) {
            return Self::Heartbeat;
        }
        match Message::parse(text) {
            Err(_) => Self::NotJson,
            Ok(message) => match message.kind() {
                Some(AUTHENTICATE) => Self::Authenticate(message),
                Some(HEARTBEAT) => Self::Heartbeat,
                _ => Self::Application(message),
            },
        }
    }
}

const HEARTBEAT_START: &str = r#"{"type":"heartbeat","ts":"#;

/// Whether it is a `heartbeat` to the letter, as peers write it. It needs no JSON reader then; another spelling does.
fn is_common_heartbeat(text: &str) -> bool {
    let ts = text.strip_prefix(HEARTBEAT_START).and_then(|rest| rest.strip_suffix('}'));
    ts.is_some_and(|ts| {
        !ts.is_empty() && !ts.starts_with('0') && ts.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// No `heartbeat` of ours is longer: it has as many digits as the last millisecond.
pub(crate) const MAX_HEARTBEAT_LENGTH: usize = r#"{"type":"heartbeat","ts":9007199254740991}"#.len();

/// Appends a `heartbeat`, in ASCII.
pub(crate) fn write_heartbeat(now: UnixMillis, out: &mut BytesMut) {
    out.extend_from_slice(HEARTBEAT_START.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(now.get()).as_bytes());
    out.extend_from_slice(b"}");
}

pub(crate) fn authenticate(address: &str, timestamp: UnixMillis, signature: &str) -> ByteString {
    format!(
        r#"{{"type":"{AUTHENTICATE}","address":"{address}","timestamp":{timestamp},"signature":"{signature}"}}"#
    )
    .into()
}

/// The status by which a v1 server refuses or drops a client. (`WIRE.md`, 'Handshake'.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// 401: the timestamp or the signature is not good.
    Unauthorized,
    /// 403: the address is not wanted here.
    Forbidden,
    /// 408: authenticated too late, or idle for too long.
    RequestTimeout,
    /// 409: the address is connected already, or a newer connection took its place.
    Conflict,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unauthorized, Self::Forbidden, Self::RequestTimeout, Self::Conflict];

    /// The number, such as 401.
    pub const fn code(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
        }
    }

    /// The number and its name, such as `401 Unauthorized`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::RequestTimeout => "408 Request Timeout",
            Self::Conflict => "409 Conflict",
        }
    }

    /// The text that refuses a connection before it is authenticated: HTTP, though it travels in a text frame.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unauthorized => "HTTP/1.1 401 Unauthorized\r\n\r\n",
            Self::Forbidden => "HTTP/1.1 403 Forbidden\r\n\r\n",
            Self::RequestTimeout => "HTTP/1.1 408 Request Timeout\r\n\r\n",
            Self::Conflict => "HTTP/1.1 409 Conflict\r\n\r\n",
        }
    }

    /// The same text in JSON quotes, as it is sent after authentication.
    pub const fn quoted_text(self) -> &'static str {
        match self {
            Self::Unauthorized => r#""HTTP/1.1 401 Unauthorized\r\n\r\n""#,
            Self::Forbidden => r#""HTTP/1.1 403 Forbidden\r\n\r\n""#,
            Self::RequestTimeout => r#""HTTP/1.1 408 Request Timeout\r\n\r\n""#,
            Self::Conflict => r#""HTTP/1.1 409 Conflict\r\n\r\n""#,
        }
    }

    /// Recognises both spellings.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| text == status.text() || text == status.quoted_text())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Shape {
    /// Validates `text` as JSON and notes its `type`. Nothing here recurses, so deep nesting costs no stack.
    fn of(text: &ByteString) -> Result<Self, serde_json::Error> {
        // First, since serde_json would write a long text that is no object into its error.
        if !text.trim_ascii_start().starts_with('{') {
            serde_json::from_str::<IgnoredAny>(text)?;
            return Ok(Self::NotAnObject);
        }
        // What nearly every message is. All else, and what is no JSON, is read once more.
        if let Ok(PlainObject { kind }) = serde_json::from_str(text) {
            return Ok(kind.map_or(Self::Untyped, |kind| Self::typed(kind, text)));
        }
        let AnyObject { kind: Some(raw) } = serde_json::from_str(text)? else { return Ok(Self::Untyped) };
        let raw: &str = raw.get();
        let Some(kind) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Ok(Self::Untyped);
        };
        if kind.contains('\\') {
            return Ok(match serde_json::from_str(raw) {
                Ok(decoded) => Self::Escaped(decoded),
                // A lone surrogate: no text, so no type that anybody could ask for.
                Err(_) => Self::Untyped,
            });
        }
        Ok(Self::typed(kind, text))
    }

    /// `kind` is a part of `text`.
    fn typed(kind: &str, text: &str) -> Self {
        let start = (kind.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        Self::Typed { start, end: start.saturating_add(kind.len()) }
    }
}

/// An object as it is commonly written: its keys are Rust strings, and so is each `type`, without an escape. The last
/// `type` counts if there are several (as `JSON.parse` does).
///
/// It takes three quarters of the time of [`AnyObject`], which says the same about each object that both can read.
struct PlainObject<'a> {
    kind: Option<&'a str>,
}

impl<'de> Deserialize<'de> for PlainObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = PlainObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with a plain `type`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut kind = None;
                while let Some(IsType(is_type)) = fields.next_key()? {
                    match is_type {
                        true => kind = Some(fields.next_value::<PlainText<'_>>()?.0),
                        false => drop(fields.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(PlainObject { kind })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A text without an escape.
struct PlainText<'a>(&'a str);

impl<'de> Deserialize<'de> for PlainText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = PlainText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text without an escape")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(PlainText(text))
            }

            // Else the error would have the text in it, however long that is.
            fn visit_str<E: de::Error>(self, _text: &str) -> Result<Self::Value, E> {
                Err(E::custom("an escape"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Whether a key says `type`.
struct IsType(bool);

impl<'de> Deserialize<'de> for IsType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = IsType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<IsType, E> {
                Ok(IsType(key == "type"))
            }
        }
        deserializer.deserialize_str(Key)
    }
}

/// Any object, of which only the raw `type` is kept, the last one if there are several.
struct AnyObject<'a> {
    kind: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for AnyObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = AnyObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut kind = None;
                while let Some(key) = fields.next_key::<&RawValue>()? {
                    match is_type(key) {
                        true => kind = Some(fields.next_value()?),
                        false => drop(fields.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(AnyObject { kind })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Whether a key, as it is written, says `type`.
///
/// It is read raw, since JSON allows lone surrogates in a key and a Rust string does not; and unlike as bytes, which
/// would let control characters through.
fn is_type(key: &RawValue) -> bool {
    let key = key.get();
    // Hardly anybody escapes one.
    key == r#""type""#
        || key.contains('\\') && serde_json::from_str::<String>(key).is_ok_and(|key| key == "type")
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_heartbeat_to_the_letter_is_one_to_the_json_reader() {
        for (ts, common) in [
            ("1", true),
            ("1795372174071", true),
            ("9999999999999999999999999", true),
            ("", false),
            ("0", false),
            ("01", false),
            ("-1", false),
            ("1.5", false),
            ("1e3", false),
            ("1 ", false),
            ("1,\"a\":1", false),
            ("1,\"type\":\"greeting\"", false),
            ("null", false),
            ("1}", false),
        ] {
            let text = format!(r#"{{"type":"heartbeat","ts":{ts}}}"#);
            assert_eq!(is_common_heartbeat(&text), common, "{text}");
            if common {
                assert_eq!(Message::parse(text).unwrap().kind(), Some(HEARTBEAT));
            }
        }
        for other in
            [r#"{"type":"heartbeat"}"#, r#"{"type":"heartbeat","ts":1"#, r#" {"type":"heartbeat","ts":1}"#]
        {
            assert!(!is_common_heartbeat(other), "{other}");
        }
    }

    #[test]
    fn what_the_quick_reader_takes_the_thorough_one_takes_for_the_same() {
        let keys =
            [r#""type""#, r#""a""#, r#""\u0074ype""#, r#""typ\u0065 ""#, r#""\ud800""#, "\"\u{1}\"", "type"];
        let values = [
            r#""x""#,
            r#""""#,
            r#""\u0078""#,
            r#""\udfff""#,
            "\"\n\"",
            "null",
            "1e999",
            "01",
            r#"{"type":"y"}"#,
            "[",
            "",
        ];
        let fields: Vec<_> =
            keys.iter().flat_map(|key| values.map(|value| format!("{key}:{value}"))).collect();
        let mut both = 0;
        for text in
            fields.iter().flat_map(|first| fields.iter().map(move |last| format!(" {{{first} , {last}}}")))
        {
            let quick =
                serde_json::from_str::<PlainObject<'_>>(&text).map(|object| object.kind.map(String::from));
            let thorough = serde_json::from_str::<AnyObject<'_>>(&text).map(|object| object.kind);
            if let Ok(kind) = quick {
                let same: Option<String> =
                    thorough.unwrap().map(|raw| serde_json::from_str(raw.get()).unwrap());
                assert_eq!(kind, same, "{text}");
                both += 1;
            }
        }
        assert!(both > 100, "only {both} of these objects are common ones");
    }
}
