//! What is to be written: frames that were taken and have not left yet.

use std::{
    collections::VecDeque,
    io::{self, Cursor, ErrorKind, Write},
    mem,
};

use link_core::{Bytes, Frame};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

/// A payload of this length is written from where it is; a shorter one is copied to its neighbours, so that many of them
/// leave together.
const LONG: usize = 16 << 10;
/// Room that is kept when nothing waits.
const ROOM_KEPT: usize = 256;
/// When so much of a batch has left, and a quarter of it, the rest moves to the front: something may always wait.
const LEFT: usize = 4 << 10;

/// Bytes on their way out, in order: frames, each of whose headers lies in one piece.
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
    /// How much of it belongs to a frame that was begun.
    begun_frame: usize,
    /// Nothing is taken any more.
    over: bool,
}

impl Outgoing {
    /// How many bytes wait.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is taken any more.
    pub(crate) const fn is_over(&self) -> bool {
        self.over
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
        // Frames are counted only where something stays behind: mostly all leaves at once.
        self.begun_frame = if self.length == 0 { 0 } else { self.begun_frame_after(written) };
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

    /// How much of a frame that was begun is left when so much of what is in front has left.
    fn begun_frame_after(&self, written: usize) -> usize {
        let front = match self.pieces.front() {
            Some(piece) => piece,
            None => self.batch.get(self.begun..).unwrap_or_default(),
        };
        let mut end = self.begun_frame;
        while end < written {
            let frame = front.get(end..).and_then(header);
            end = frame.map_or(usize::MAX, |(_, header, payload)| {
                end.saturating_add(header).saturating_add(payload)
            });
        }
        end.saturating_sub(written)
    }

    /// Takes nothing more, and hands back the text and binary frames of which nothing was written.
    pub(crate) fn take_unsent(&mut self) -> Vec<Frame> {
        let Self { mut pieces, mut batch, begun, begun_frame, .. } =
            mem::replace(self, Self { over: true, ..Self::default() });
        batch.drain(..begun);
        pieces.push_back(batch.into());
        let mut unsent = Vec::new();
        if cut(&mut pieces, begun_frame).is_none() {
            return unsent;
        }
        while let Some((header, length, payload)) = pieces.front().and_then(|piece| header(piece)) {
            let Some(payload) = cut(&mut pieces, length).and_then(|_| cut(&mut pieces, payload)) else {
                break;
            };
            let payload = match header.mask {
                Some(mask) => unmasked(&payload, mask),
                None => payload,
            };
            match header.opcode {
                OpCode::Data(Data::Text) => unsent.extend(payload.try_into().ok().map(Frame::Text)),
                OpCode::Data(Data::Binary) => unsent.push(Frame::Binary(payload)),
                _ => {}
            }
        }
        unsent
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

/// The header in front, its length, and that of the payload.
fn header(bytes: &[u8]) -> Option<(FrameHeader, usize, usize)> {
    let mut bytes = Cursor::new(bytes);
    let (header, payload) = FrameHeader::parse(&mut bytes).ok()??;
    Some((header, bytes.position().try_into().ok()?, payload.try_into().ok()?))
}

/// Takes so many bytes from the front: the rest of a frame, a header, or a payload. Only the rest of a frame can lie in two
/// pieces, and nobody wants to see it.
fn cut(pieces: &mut VecDeque<Bytes>, length: usize) -> Option<Bytes> {
    let mut left = length;
    loop {
        let piece = pieces.front_mut()?;
        let cut = piece.split_to(left.min(piece.len()));
        left = left.saturating_sub(cut.len());
        // The last one stays, so that something is in front.
        if piece.is_empty() && pieces.len() > 1 {
            pieces.pop_front();
        } else if left > 0 {
            return None;
        }
        if left == 0 {
            return Some(cut);
        }
    }
}

/// What a client has masked (RFC 6455 §5.3).
fn unmasked(payload: &[u8], mask: [u8; 4]) -> Bytes {
    payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>().into()
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
