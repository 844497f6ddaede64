//! A stream that can be read a number of times, and then claims that nothing is there.

use std::io::{self, ErrorKind, Read, Write};

use crate::upgrade::{MAX_HEAD, behind_empty_line};

/// Reads for one frame. (A message may take more, and tungstenite would join fragments for as long as there are any.)
const RATION: u32 = 64;
/// Bytes of an answer read at a time.
const PIECE: usize = 1 << 10;

/// A stream whose reads are rationed, and which counts what it has written.
pub(crate) struct Rationed<S> {
    pub(crate) stream: S,
    pub(crate) written: u64,
    /// Reads that are left.
    reads: u32,
    /// Whether what is written now is only an answer on the way of a read. tungstenite would read no further when that fails,
    /// though the peer's last words may be there; so it seems to have to wait, and fails when something is written for itself.
    pub(crate) answers: bool,
    /// An HTTP answer that is on its way. tungstenite counts the pieces in which one comes, takes more than 64 small ones for
    /// an attack, and parses it anew for each; so it gets it in one piece.
    answer: Option<Answer>,
}

/// As much of an HTTP answer as has come.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Whether it is handed out by now.
    whole: bool,
}

impl<S> Rationed<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, written: 0, reads: RATION, answers: false, answer: None }
    }

    /// What comes first is an HTTP answer.
    pub(crate) fn answering(stream: S) -> Self {
        Self { answer: Some(Answer::default()), ..Self::new(stream) }
    }

    pub(crate) const fn replenish(&mut self) {
        self.reads = RATION;
    }

    fn or_wait<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| if self.answers { ErrorKind::WouldBlock.into() } else { error })
    }

    pub(crate) const fn is_used_up(&self) -> bool {
        self.reads == 0
    }
}

/// An HTTP answer is longer than [`MAX_HEAD`].
#[derive(Debug, thiserror::Error)]
#[error("the HTTP answer is too long")]
pub(crate) struct HeadTooLarge;

impl Answer {
    /// Notes what has come. Once nothing is gained by waiting for more, it is whole: what is no HTTP is told so at once.
    fn note(&mut self, piece: &[u8]) -> Result<(), HeadTooLarge> {
        // An end may straddle two pieces: an empty line, with or without its CR.
        let seen = self.bytes.len().saturating_sub(2);
        self.bytes.extend_from_slice(piece);
        // tungstenite passes over empty lines in front.
        let begin = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let seen = seen.max(begin);
        let fresh = self.bytes.get(seen..).unwrap_or_default();
        let end = behind_empty_line(fresh).map(|behind| seen.saturating_add(behind));
        let is_http = self.bytes.iter().skip(begin).zip(b"HTTP/1.").all(|(byte, expected)| byte == expected);
        if is_http && end.unwrap_or(self.bytes.len()) > MAX_HEAD {
            return Err(HeadTooLarge);
        }
        self.whole = piece.is_empty() || end.is_some() || !is_http;
        Ok(())
    }
}

impl<S: Read> Rationed<S> {
    fn read_stream(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads = self.reads.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        self.stream.read(buffer)
    }

    fn read_answer(&mut self, answer: &mut Answer, buffer: &mut [u8]) -> io::Result<usize> {
        while !answer.whole {
            let mut piece = [0; PIECE];
            let read = self.read_stream(&mut piece)?;
            let noted = answer.note(piece.get(..read).unwrap_or_default());
            noted.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
        let read = answer.bytes.as_slice().read(buffer)?;
        answer.bytes.drain(..read);
        Ok(read)
    }
}

impl<S: Read> Read for Rationed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut answer) = self.answer.take() else { return self.read_stream(buffer) };
        let read = self.read_answer(&mut answer, buffer);
        if !answer.whole || !answer.bytes.is_empty() {
            self.answer = Some(answer);
        }
        read
    }
}

impl<S: Write> Write for Rationed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.stream.write(bytes) {
            // tungstenite's upgrade would panic.
            Ok(0) if !bytes.is_empty() => Err(ErrorKind::WriteZero.into()),
            written => written,
        };
        let written = self.or_wait(written)?;
        self.written = self.written.wrapping_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.stream.flush();
        self.or_wait(flushed)
    }
}
