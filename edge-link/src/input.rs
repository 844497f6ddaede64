//! What is typed or piped into stdin, as messages.

use std::{
    io::{self, BufRead, IsTerminal as _, Read as _},
    thread,
};

use link_driver::Message;
use serde_json::json;
use tokio::sync::mpsc;

/// The longest message. A longer line is not kept in memory.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;

/// Where lines come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Terminal,
    /// A pipe, a file or a socket.
    Piped,
    /// Nowhere: stdin is `/dev/null`, as it is for a service, or some other device.
    Nowhere,
}

impl Source {
    /// What stdin is.
    pub(crate) fn of_stdin() -> Self {
        if io::stdin().is_terminal() {
            Self::Terminal
        } else if is_device() {
            Self::Nowhere
        } else {
            Self::Piped
        }
    }
}

#[cfg(unix)]
fn is_device() -> bool {
    use std::{
        fs::File,
        os::{fd::AsFd as _, unix::fs::FileTypeExt as _},
    };
    let metadata = io::stdin().as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).metadata());
    metadata.map_or(true, |metadata| metadata.file_type().is_char_device())
}

#[cfg(not(unix))]
fn is_device() -> bool {
    false
}

/// A line of the input that is not empty.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counted from 1, empty lines among them.
    pub(crate) number: u64,
    /// The message to send, or why there is none.
    pub(crate) message: Result<Message, String>,
}

/// The lines, in order.
#[derive(Debug)]
pub(crate) struct Input {
    lines: mpsc::Receiver<Line>,
    ended: bool,
}

impl Input {
    /// Without any lines.
    pub(crate) fn none() -> Self {
        Self { lines: mpsc::channel(1).1, ended: true }
    }

    /// Reads stdin, a few lines ahead. A thread does, since a read from a terminal or a pipe cannot be given up.
    pub(crate) fn stdin() -> Self {
        let (sender, lines) = mpsc::channel(16);
        thread::spawn(move || {
            let mut reader = Reader { input: io::stdin().lock(), number: 0, failed: false };
            while let Some(line) = reader.next_line() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines, ended: false }
    }

    /// The next line; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        let line = self.lines.recv().await;
        self.ended = line.is_none();
        line
    }

    /// Whether the last line has been taken.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a line has been read that nobody has taken.
    pub(crate) fn has_more(&self) -> bool {
        !self.lines.is_empty()
    }
}

struct Reader<R> {
    input: R,
    number: u64,
    failed: bool,
}

impl<R: BufRead> Reader<R> {
    /// The next line that is not empty; `None` at the end of the input, and after an error.
    fn next_line(&mut self) -> Option<Line> {
        while !self.failed {
            self.number = self.number.saturating_add(1);
            let message = match self.read_line() {
                Ok(None) => return None,
                Ok(Some(Ok(line))) if line.trim().is_empty() => continue,
                Ok(Some(line)) => line.and_then(|line| message(&line)),
                Err(error) => {
                    self.failed = true;
                    let message = Err(format!("cannot read the input: {error}"));
                    return Some(Line { number: self.number, message });
                }
            };
            return Some(Line { number: self.number, message });
        }
        None
    }

    /// One line without its end, or why it cannot be a message.
    fn read_line(&mut self) -> io::Result<Option<Result<String, String>>> {
        // With room for its end.
        let limit = MAX_MESSAGE.saturating_add(2);
        let mut line = Vec::new();
        let read = (&mut self.input).take(limit as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if read == limit && !line.ends_with(b"\n") {
            let rest = self.input.skip_until(b'\n')?;
            return Ok(Some(Err(too_long(read.saturating_add(rest)))));
        }
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        Ok(Some(String::from_utf8(line).map_err(|_| "it is not UTF-8 text".into())))
    }
}

/// What a line says: a JSON object as it is, or text, which is wrapped.
fn message(line: &str) -> Result<Message, String> {
    let message = match Message::parse(line) {
        Ok(message) if line.trim_start().starts_with('{') => message,
        _ => Message::new(&json!({ "type": "text", "text": line })).map_err(|error| error.to_string())?,
    };
    message.check_sendable().map_err(|error| error.to_string())?;
    match message.as_str().len() {
        size if size > MAX_MESSAGE => Err(too_long(size)),
        _ => Ok(message),
    }
}

fn too_long(size: usize) -> String {
    format!("it has {size} bytes, and a message can have at most {MAX_MESSAGE}")
}
