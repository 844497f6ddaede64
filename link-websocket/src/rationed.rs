//! The stream as tungstenite sees it: it can be read for a ration, and then claims that nothing is there; and it takes all
//! that is written, to be sent later.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
};

use crate::{
    outgoing::Outgoing,
    upgrade::{MAX_HEAD, behind_empty_line},
};

/// Reads for one frame. (A message may take more, and tungstenite would join fragments for as long as there are any.)
const RATION: u32 = 64;
/// And bytes.
const RATION_BYTES: usize = 128 << 10;
/// Bytes of answers to control frames that tungstenite may keep while there is no room for them: two, each with a head of two
/// bytes, four bytes of a client's mask, and a payload of 125.
pub(crate) const ANSWER_ROOM: usize = 2 * (2 + 4 + 125);
/// Bytes of an answer read at a time.
const PIECE: usize = 1 << 10;
/// Bytes read at a time from a peer that has much to say.
const AHEAD: usize = 64 << 10;

thread_local! {
    /// Where such reads go first. One serves all connections of a thread: no idle one pays for it.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream whose reads are rationed, and what is to be written to it.
pub(crate) struct Rationed<S> {
    pub(crate) stream: S,
    pub(crate) outgoing: Outgoing,
    /// How many bytes may wait to be written.
    pub(crate) max_unsent: usize,
    /// Whether the peer is worth reading ahead: not while it is a stranger.
    pub(crate) trusted: bool,
    /// Whether the WebSocket is open, rather than being upgraded.
    open: bool,
    /// Reads that are left, and bytes.
    reads: u32,
    bytes: usize,
    /// What was read and did not fit into the reader's buffer. Without an allocation when there is none.
    ahead: Vec<u8>,
    /// How much of it the reader has had.
    had: usize,
    /// Whether the last read was as long as it could be, so that there may be much.
    eager: bool,
    /// An HTTP answer that is on its way. tungstenite counts the pieces in which one comes, takes more than 64 small ones for
    /// an attack, and parses it anew for each; so it gets it in one piece.
    answer: Option<Box<Answer>>,
}

/// As much of an HTTP answer as has come.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Whether it is handed out by now.
    whole: bool,
}

impl<S> Rationed<S> {
    pub(crate) fn new(stream: S, max_unsent: usize) -> Self {
        Self {
            stream,
            outgoing: Outgoing::default(),
            max_unsent,
            trusted: false,
            open: true,
            reads: RATION,
            bytes: RATION_BYTES,
            ahead: Vec::new(),
            had: 0,
            eager: false,
            answer: None,
        }
    }

    /// What comes first is an HTTP answer.
    pub(crate) fn answering(stream: S, max_unsent: usize) -> Self {
        Self { answer: Some(Box::default()), open: false, ..Self::new(stream, max_unsent) }
    }

    /// The upgrade is done, though more than that may have come with it.
    pub(crate) const fn opened(&mut self) {
        self.open = true;
    }

    /// Nothing will be read any more.
    pub(crate) fn forget(&mut self) {
        (self.ahead, self.had) = (Vec::new(), 0);
    }

    pub(crate) const fn replenish(&mut self) {
        self.reads = RATION;
        self.bytes = RATION_BYTES;
    }

    pub(crate) const fn is_used_up(&self) -> bool {
        self.reads == 0 || self.bytes == 0
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
    /// From what was read ahead, or from the stream.
    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ahead = self.ahead.get(self.had..).unwrap_or_default();
        if !ahead.is_empty() {
            let read = ahead.read(buffer)?;
            self.had = self.had.saturating_add(read);
            if self.had == self.ahead.len() {
                (self.ahead, self.had) = (Vec::new(), 0);
            }
            return Ok(read);
        }
        if self.eager && self.trusted && buffer.len() < AHEAD {
            // There is none for a thread that is ending, nor for a stream beneath that is a WebSocket itself.
            let read = SCRATCH.try_with(|scratch| {
                scratch.try_borrow_mut().ok().map(|mut scratch| self.read_ahead(&mut scratch, buffer))
            });
            if let Ok(Some(read)) = read {
                return read;
            }
        }
        let read = self.read_stream(buffer)?;
        self.eager = read == buffer.len();
        Ok(read)
    }

    /// Reads much at a time, and keeps what does not fit into `buffer`.
    fn read_ahead(&mut self, scratch: &mut Vec<u8>, mut buffer: &mut [u8]) -> io::Result<usize> {
        scratch.resize(AHEAD, 0);
        let read = self.read_stream(scratch)?;
        let fits = read.min(buffer.len());
        let (now, later) = scratch.get(..read).unwrap_or_default().split_at_checked(fits).unwrap_or_default();
        buffer.write_all(now)?;
        self.ahead.extend_from_slice(later);
        self.eager = !later.is_empty();
        Ok(fits)
    }

    fn read_stream(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_used_up() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.reads = self.reads.saturating_sub(1);
        let most = buffer.len().min(self.bytes);
        let read = self.stream.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.bytes = self.bytes.saturating_sub(read);
        Ok(read)
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
        let Some(mut answer) = self.answer.take() else { return self.read_on(buffer) };
        let read = self.read_answer(&mut answer, buffer);
        if !answer.whole || !answer.bytes.is_empty() {
            self.answer = Some(answer);
        }
        read
    }
}

/// What tungstenite writes for itself: answers to pings and closes, and before them the request of an upgrade, which is
/// not kept for later.
impl<S: Write> Write for Rationed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.open {
            return match self.stream.write(bytes) {
                // tungstenite's upgrade would panic.
                Ok(0) if !bytes.is_empty() => Err(ErrorKind::WriteZero.into()),
                written => written,
            };
        }
        let room = self.max_unsent.saturating_sub(ANSWER_ROOM);
        if self.outgoing.is_over() || self.outgoing.len().saturating_add(bytes.len()) > room {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.outgoing.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.open { Ok(()) } else { self.stream.flush() }
    }
}
