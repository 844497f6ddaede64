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
/// When so much of a batch has left, and a quarter of it, the rest moves to the front: something may always wait.
const LEFT: usize = 4 << 10;

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
        if self.begun >= LEFT && self.begun >= self.batch.len() / 4 {
            self.batch.drain(..self.begun);
            self.begun = 0;
        }
        self.batch.extend_from_slice(bytes);
        self.length = self.length.saturating_add(bytes.len());
    }

    /// Takes a payload.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() < LONG {
            return self.extend(&payload);
        }
        let mut before = mem::take(&mut self.batch);
        before.drain(..mem::take(&mut self.begun));
        if !before.is_empty() {
            self.pieces.push_back(before.into());
        }
        self.length = self.length.saturating_add(payload.len());
        self.pieces.push_back(payload);
    }

    /// Writes what the stream takes, and counts it in `written_in_all`, which wraps around.
    ///
    /// # Errors
    /// The stream's, but for `WouldBlock`: then the rest waits.
    pub(crate) fn write_to(&mut self, stream: &mut impl Write, written_in_all: &mut u64) -> io::Result<()> {
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
            *written_in_all = written_in_all.wrapping_add(written as u64);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a thousand bytes, and then no more.
    struct Thousand(bool);

    impl Write for Thousand {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match mem::replace(&mut self.0, true) {
                true => Err(ErrorKind::WouldBlock.into()),
                false => Ok(bytes.len().min(1000)),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_has_left_takes_no_room_though_something_always_waits() {
        let (mut outgoing, mut written) = (Outgoing::default(), 0);
        outgoing.extend(&[0; 1000]);
        for _ in 0..10_000 {
            outgoing.extend(&[0; 1000]);
            outgoing.write_to(&mut Thousand(false), &mut written).unwrap();
            assert_eq!(outgoing.len(), 1000);
        }
        assert_eq!(written, 10_000_000);
        assert!(outgoing.batch.capacity() < 16_000, "{} bytes for 1000", outgoing.batch.capacity());
    }
}
