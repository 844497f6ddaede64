//! Payloads that keep no more memory alive than their own.

use link_core::{ByteString, Bytes, Frame};

use crate::READ_BUFFER;

/// What comes from a WebSocket that is built on tungstenite is a slice of its read buffer, and keeps all of it alive. That is good
/// while the buffer is small; one that has grown for a long message must not be held by a short one that waits somewhere.
///
/// One for each WebSocket: what is much shorter than the longest message so far is copied.
#[derive(Debug, Default)]
pub struct Detach {
    /// The longest message so far, if one did not fit into a small buffer.
    longest: usize,
}

impl Detach {
    /// Notes a message, and says whether it is to be copied.
    fn copies(&mut self, length: usize) -> bool {
        if length > READ_BUFFER {
            self.longest = self.longest.max(length);
        }
        length < self.longest / 2
    }

    /// The payload, or a copy of it.
    pub fn payload(&mut self, payload: Bytes) -> Bytes {
        if self.copies(payload.len()) { Bytes::copy_from_slice(&payload) } else { payload }
    }

    /// The same, for a whole frame.
    pub fn frame(&mut self, frame: Frame) -> Frame {
        match frame {
            Frame::Text(text) if self.copies(text.len()) => Frame::Text(ByteString::from(&*text)),
            Frame::Text(text) => Frame::Text(text),
            Frame::Binary(payload) => Frame::Binary(self.payload(payload)),
            Frame::Ping(payload) => Frame::Ping(self.payload(payload)),
            Frame::Pong(payload) => Frame::Pong(self.payload(payload)),
            Frame::Close(close) => Frame::Close(close),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_payload_keeps_no_long_buffer() {
        let buffer = Bytes::from(vec![b'x'; 1 << 20]);
        let mut detach = Detach::default();
        let short = detach.frame(Frame::Binary(buffer.slice(..2)));
        assert!(matches!(&short, Frame::Binary(short) if short.as_ptr() == buffer.as_ptr()));
        drop((short, detach.frame(Frame::Binary(buffer.clone()))));
        for frame in [Frame::Binary(buffer.slice(..2)), Frame::Pong(buffer.slice(..2))] {
            drop(detach.frame(frame));
        }
        let text = ByteString::try_from(buffer.slice(..2)).expect("it is UTF-8");
        let held = detach.frame(Frame::Text(text));
        // Nobody else has the buffer any more.
        assert!(buffer.is_unique());
        assert_eq!(held, Frame::Text("xx".into()));
    }
}
