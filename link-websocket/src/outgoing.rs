//! What is to be written: frames that were taken and have not left yet.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    mem,
};

use link_core::Bytes;

/// A payload of this length is written from where it is; a shorter one is copied to its neighbours, so that many of them
/// leave together.
const LONG: usize = 16 << 10;
/// Room that is kept when nothing waits.
const ROOM_KEPT: usize = 256;

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Before `batch`.
    pieces: VecDeque<Bytes>,
    /// Headers and short payloads.
    batch: Vec<u8>,
    /// How much of `batch` has left.
    begun: usize,
    /// All that waits.
    length: usize,
}

impl Outgoing {
    /// How many bytes wait.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Takes a copy of some bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.batch.extend_from_slice(bytes);
        self.length = self.length.saturating_add(bytes.len());
    }

    /// Takes a payload.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() < LONG {
            return self.extend(&payload);
        }
        let before = Bytes::from(mem::take(&mut self.batch));
        let begun = mem::take(&mut self.begun);
        if before.len() > begun {
            self.pieces.push_back(before.slice(begun..));
        }
        self.length = self.length.saturating_add(payload.len());
        self.pieces.push_back(payload);
    }

    /// Writes what the stream takes, and says how much that was.
    ///
    /// # Errors
    /// The stream's, but for `WouldBlock`: then the rest waits.
    pub(crate) fn write_to(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        let mut all = 0usize;
        while self.length > 0 {
            let next = match self.pieces.front() {
                Some(piece) => piece,
                None => self.batch.get(self.begun..).unwrap_or_default(),
            };
            let written = match stream.write(next) {
                // A stream that takes nothing of something has ended.
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => written.min(next.len()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            self.advance(written);
            all = all.saturating_add(written);
        }
        Ok(all)
    }

    fn advance(&mut self, written: usize) {
        self.length = self.length.saturating_sub(written);
        match self.pieces.front_mut() {
            Some(piece) if written < piece.len() => drop(piece.split_to(written)),
            Some(_) => drop(self.pieces.pop_front()),
            None => self.begun = self.begun.saturating_add(written),
        }
        if self.length == 0 {
            self.batch.clear();
            self.begun = 0;
        }
    }

    /// Gives back the room that a burst has taken, if nothing waits.
    pub(crate) fn tidy(&mut self) {
        if self.length == 0 {
            self.pieces = VecDeque::new();
            self.batch.shrink_to(ROOM_KEPT);
        }
    }
}

/// Takes all of it.
impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
