//! What is printed: one event a line, for people or as JSON, flushed at once.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use link_driver::{Address, Message};
use serde_json::value::RawValue;

/// Prints events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
    /// Whether the chatty events are wanted.
    pub(crate) verbose: bool,
}

impl Printer {
    pub(crate) const fn new(output: crate::args::Output) -> Self {
        Self { json: output.json, verbose: output.verbose }
    }

    /// Prints one event: for programs its name and its fields, in this order; for people, `line`.
    pub(crate) fn event(self, name: &str, fields: &[(&str, Field<'_>)], line: &str) -> io::Result<()> {
        if !self.json {
            return print(&harmless(line));
        }
        let mut object = format!("{{\"event\":\"{name}\"");
        for (key, value) in fields {
            let value = match value {
                Field::Text(text) => serde_json::to_string(text)?,
                Field::Number(number) => number.to_string(),
                Field::Decimal(number) => serde_json::to_string(number)?,
                Field::None => continue,
            };
            object.push_str(&format!(",\"{key}\":{value}"));
        }
        object.push('}');
        print(&object)
    }

    /// Prints a message, as it came.
    pub(crate) fn message(self, client: Option<&str>, message: &Message) -> io::Result<()> {
        if !self.json {
            let from = client.map(|client| format!("{client}: ")).unwrap_or_default();
            return print(&format!("{from}{}", harmless(message.as_str())));
        }
        #[derive(serde::Serialize)]
        struct Line<'a> {
            event: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            client: Option<&'a str>,
            message: &'a RawValue,
        }
        // Whitespace between the tokens of JSON may hold line breaks, which would end the line.
        let text: Cow<'_, str> = if message.as_str().contains(['\n', '\r']) {
            message.as_str().replace(['\n', '\r'], " ").into()
        } else {
            message.as_str().into()
        };
        let message = serde_json::from_str(&text)?;
        print(&serde_json::to_string(&Line { event: "message", client, message })?)
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Text(&'a str),
    Number(u64),
    Decimal(f64),
    /// Left out.
    None,
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Field<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Address> for Field<'a> {
    fn from(address: &'a Address) -> Self {
        Self::Text(address.as_str())
    }
}

impl From<u64> for Field<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<f64> for Field<'_> {
    fn from(number: f64) -> Self {
        Self::Decimal(number)
    }
}

impl<'a, T: Into<Field<'a>>> From<Option<T>> for Field<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

pub(crate) fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What a peer wrote, without what would move the cursor or turn the line around.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return text.into();
    }
    text.chars().map(|c| if harmful(c) { c.escape_unicode().to_string() } else { c.into() }).collect()
}

/// A round trip, for the end of a line.
pub(crate) fn in_words(millis: Option<f64>) -> String {
    millis.map(|millis| format!(", round trip {millis:.3} ms")).unwrap_or_default()
}
