//! What is printed: one event a line, for people or as JSON, flushed at once.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use link_tokio::Message;
use serde_json::{
    json,
    value::{RawValue, Value},
};

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

    /// Prints one event. `fields` is a JSON object that begins with `event`, `line` is what a person reads.
    pub(crate) fn event(self, fields: &Value, line: &str) -> io::Result<()> {
        if self.json { print(&fields.to_string()) } else { print(&harmless(line)) }
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

/// An event with its name and fields; what is `null` is left out.
pub(crate) fn event(name: &str, fields: Value) -> Value {
    let mut all = json!({ "event": name });
    if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
        all.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    all
}

pub(crate) fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What a peer wrote, without what would move the cursor or turn the line around.
fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return text.into();
    }
    text.chars().map(|c| if harmful(c) { c.escape_unicode().to_string() } else { c.into() }).collect()
}
