//! An open WebSocket, over a stream that does not always do its part.

#![allow(clippy::panic, clippy::unwrap_used, reason = "this is test code: to panic is how it fails")]

use std::io::{self, ErrorKind, Read, Write};

use link_core::{Frame, Incoming};
use link_websocket::{WRITE_BATCH, WebSocket, WriteError};

/// A stream whose peer has said something, and listens no more.
struct Deaf {
    said: io::Cursor<Vec<u8>>,
}

impl Read for Deaf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.said.read(buffer)
    }
}

impl Write for Deaf {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame of a client, whose mask changes nothing.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

#[test]
fn what_a_peer_has_said_is_heard_though_it_cannot_be_answered_any_more() {
    let said = [masked(0x89, b"1"), masked(0x81, b"last words"), masked(0x88, b"")].concat();
    let mut socket = WebSocket::server(Deaf { said: io::Cursor::new(said) });
    let mut heard = Vec::new();
    // The ping before them asks for a pong, which goes nowhere.
    while let Incoming::Frame(frame) = socket.read(100) {
        heard.push(frame);
    }
    let ping = Frame::Ping(b"1".as_slice().into());
    assert_eq!(heard, [ping, Frame::Text("last words".into()), Frame::Close(None)]);
    assert!(matches!(socket.read(100), Incoming::Ended));
}

#[test]
fn a_stream_that_takes_nothing_more_is_told_when_something_is_written() {
    let said = masked(0x89, b"1");
    let mut socket = WebSocket::server(Deaf { said: io::Cursor::new(said) });
    socket.set_max_unsent(0);
    assert!(matches!(socket.read(100), Incoming::Frame(Frame::Ping(_))));
    assert!(socket.flush().is_err());
    assert_eq!(socket.write(Frame::Text("x".repeat(WRITE_BATCH).into())), Err(WriteError::Broken));
    assert_eq!(socket.bytes_written(), 0);
}
