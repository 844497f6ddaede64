//! What a message says: who sent it and the how manieth it is, padded to a length.
//!
//! All of that is one text in one field, so that an answer is known by comparing bytes, and so that a server which reads
//! and writes the JSON anew hardly can change it.

use std::borrow::Cow;

use link_driver::{InvalidMessage, Message};
use serde::Deserialize;

use crate::args::MIN_SIZE;

const KEY: &str = r#"{"bench":""#;
const END: &str = r#""}"#;
/// Digits that tell this run from another.
const RUN: usize = 4;
const SENDER: usize = 4;
const NUMBER: usize = 10;

/// Writes messages of one length, and reads their answers.
#[derive(Debug)]
pub(super) struct Payload {
    /// All before the sender.
    head: String,
    /// All after the number.
    tail: String,
    size: usize,
}

/// What a received message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// One of ours, as it was sent.
    Ours { sender: u16, number: u64 },
    /// One of ours, but altered.
    Altered,
    /// Something else.
    Foreign,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    bench: Cow<'a, str>,
}

impl Payload {
    /// Messages of `size` bytes, with four characters by which this run knows its own.
    pub(super) fn new(run: &str, size: usize) -> Self {
        let padding = size.saturating_sub(usize::try_from(MIN_SIZE).unwrap_or(usize::MAX));
        Self { head: format!("{KEY}{run:-<RUN$.RUN$}"), tail: format!("{}{END}", "-".repeat(padding)), size }
    }

    /// The message with this number.
    pub(super) fn write(&self, sender: u16, number: u64) -> Result<Message, InvalidMessage> {
        let mut text = String::with_capacity(self.size);
        text.push_str(&self.head);
        push_hex(&mut text, sender.into(), SENDER);
        push_hex(&mut text, number, NUMBER);
        text.push_str(&self.tail);
        Message::parse(text)
    }

    /// What came.
    pub(super) fn read(&self, text: &str) -> Read {
        if let Some(ours) = text.strip_prefix(&self.head).and_then(|rest| numbers(rest, &self.tail)) {
            return ours;
        }
        // Other white space, say.
        let Ok(Fields { bench }) = serde_json::from_str(text) else { return Read::Foreign };
        let (head, tail) = (self.head.get(KEY.len()..), self.tail.strip_suffix(END));
        let (Some(head), Some(tail)) = (head, tail) else { return Read::Foreign };
        match bench.strip_prefix(head) {
            Some(rest) => numbers(rest, tail).unwrap_or(Read::Altered),
            None => Read::Foreign,
        }
    }
}

fn numbers(rest: &str, tail: &str) -> Option<Read> {
    let (sender, rest) = rest.split_at_checked(SENDER)?;
    let (number, rest) = rest.split_at_checked(NUMBER)?;
    if rest != tail {
        return None;
    }
    let sender = u16::try_from(hex(sender)?).ok()?;
    Some(Read::Ours { sender, number: hex(number)? })
}

fn push_hex(text: &mut String, number: u64, digits: usize) {
    for place in (0..digits).rev() {
        let digit =
            number.checked_shr(u32::try_from(place.saturating_mul(4)).unwrap_or(0)).unwrap_or(0) & 0xf;
        text.push(u32::try_from(digit).ok().and_then(|digit| char::from_digit(digit, 16)).unwrap_or('0'));
    }
}

fn hex(digits: &str) -> Option<u64> {
    // `from_str_radix` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_length_that_was_asked_for_and_is_known_again() {
        for size in [30, 31, 128, 4096] {
            let payload = Payload::new("73FC", size);
            let message = payload.write(0xab, 0x12_3456_789a).unwrap();
            assert_eq!(message.as_str().len(), size);
            message.check_sendable().unwrap();
            assert_eq!(payload.read(message.as_str()), Read::Ours { sender: 0xab, number: 0x12_3456_789a });
        }
    }

    #[test]
    fn white_space_and_escapes_alter_nothing() {
        let payload = Payload::new("73FC", 32);
        let spaced = "{\n \"bench\": \"73FC0001000000002a\\u002d-\", \"more\": [1] }";
        assert_eq!(payload.read(spaced), Read::Ours { sender: 1, number: 42 });
    }

    #[test]
    fn what_was_altered_is_told_from_what_is_not_ours() {
        let payload = Payload::new("73FC", 32);
        for altered in [
            r#"{"bench":"73FC0001000000002a"}"#,
            r#"{"bench":"73FC0001000000002a-+"}"#,
            r#"{"bench":"73FC00010000000+2a--"}"#,
            r#"{"bench":"73FC"}"#,
        ] {
            assert_eq!(payload.read(altered), Read::Altered, "{altered}");
        }
        for foreign in [r#"{"bench":"73FB0001000000002a--"}"#, r#"{"type":"welcome"}"#, "1", r#"{"bench":1}"#]
        {
            assert_eq!(payload.read(foreign), Read::Foreign, "{foreign}");
        }
    }
}
