//! The story of one world: a line for everything that happens, the same each time.

use link_core::{Event, Frame};

use crate::clock::Moment;

/// A frame in a line, cut where it is long.
pub(crate) fn shown(frame: &Frame) -> String {
    let short = |text: &str| {
        let text = text.trim_end();
        match text.char_indices().nth(72) {
            None => text.to_owned(),
            Some((at, _)) => format!("{}… {} bytes", text.get(..at).unwrap_or_default(), text.len()),
        }
    };
    match frame {
        Frame::Text(text) => short(text),
        Frame::Binary(bytes) => format!("binary {}", short(&String::from_utf8_lossy(bytes))),
        Frame::Ping(payload) => format!("ping {payload:x}"),
        Frame::Pong(payload) => format!("pong {payload:x}"),
        Frame::Close(None) => "close".to_owned(),
        Frame::Close(Some(close)) => format!("close {} {}", close.code, close.reason),
    }
}

/// An event in a line.
pub(crate) fn told(event: &Event) -> String {
    match event {
        Event::AdmissionRequested { ticket } => {
            format!("asks for admission: {} at {}", ticket.address().short(), ticket.timestamp())
        }
        Event::Authenticated { address, .. } => format!("authenticated: {}", address.short()),
        Event::Message(message) => format!("message: {}", shown(&Frame::Text(message.clone().into_text()))),
        Event::Heartbeat { round_trip } => format!("heartbeat: {round_trip:?}"),
        Event::Error(violation) => format!("error: {violation}"),
        Event::Closed { reason } => format!("closed: {reason}"),
        other => format!("{other:?}"),
    }
}

/// Keeps the story, if somebody wants it; and its fingerprint, always.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
    fingerprint: u64,
}

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { lines: wanted.then(Vec::new), fingerprint: 0xcbf2_9ce4_8422_2325 }
    }

    /// `kind` and `about` go into the fingerprint; the words are only made when somebody reads them.
    pub(crate) fn note(&mut self, at: Moment, kind: u8, about: u64, words: impl FnOnce() -> String) {
        for part in [u64::from(kind), about, at.since_start().as_nanos() as u64] {
            // FNV-1a, on words rather than bytes: it only has to notice a difference.
            self.fingerprint = (self.fingerprint ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at}  {}", words()));
        }
    }

    pub(crate) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
