//! What waits for a peer that does not read, and what a message may cost.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code: to panic is how it fails"
)]

use std::io::{self, Read, Write};

use link_core::{Frame, Incoming, Violation};
use link_websocket::{FIRST_MAX_UNSENT, WRITE_BATCH, WebSocket, WriteError};

/// A stream with something to read, which takes nothing while it is shut.
#[derive(Default)]
struct Stream {
    incoming: Vec<u8>,
    read: usize,
    open: bool,
    written: Vec<u8>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.incoming[self.read..];
        let length = rest.len().min(buffer.len());
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.open {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame of a client, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// What comes of reading until nothing is there.
fn read_all(socket: &mut WebSocket<Stream>, limit: usize) -> Vec<Incoming> {
    let mut all = Vec::new();
    loop {
        match socket.read(limit) {
            Incoming::Nothing => return all,
            Incoming::Enough => {}
            Incoming::Frame(frame) => all.push(Incoming::Frame(frame)),
            end => {
                all.push(end);
                return all;
            }
        }
    }
}

/// All that had waited.
fn waited(mut socket: WebSocket<Stream>) -> usize {
    socket.stream_mut().open = true;
    while !socket.flush().unwrap() {}
    socket.stream_mut().written.len()
}

#[test]
fn a_stranger_who_pings_and_does_not_read_has_little_kept_for_it() {
    let incoming = frame(0x89, &[7; 125]).repeat(20_000);
    let mut socket = WebSocket::server(Stream { incoming, ..Stream::default() });
    assert_eq!(read_all(&mut socket, 4096).len(), 20_000, "it is heard all the same");
    let kept = waited(socket);
    assert!(kept > 0 && kept <= FIRST_MAX_UNSENT, "{kept} bytes");
}

#[test]
fn who_is_trusted_may_have_more_waiting_and_not_without_end() {
    for (unsent, room) in [(1 << 20, 1 << 20), (0, 2 * WRITE_BATCH)] {
        let mut socket = WebSocket::server(Stream::default());
        socket.set_max_unsent(unsent);
        let long = Frame::Binary(vec![0; 1000].into());
        let taken = (0..).take_while(|_| socket.write(long.clone()).is_ok()).count();
        assert_eq!(socket.write(long.clone()), Err(WriteError::Full(long)));
        let kept = waited(socket);
        assert_eq!(kept, taken * 1004);
        assert!(kept <= room && kept > room - 2000, "{kept} of {room}");
    }
}

#[test]
fn a_message_over_the_limit_in_force_is_refused_before_it_has_come() {
    let long = frame(0x81, &[b'x'; 5000]);
    for (limit, refused) in [(4096, true), (5000, false), (4999, true), (1 << 20, false)] {
        let mut socket = WebSocket::server(Stream { incoming: long.clone(), ..Stream::default() });
        let all = read_all(&mut socket, limit);
        match &all[..] {
            [Incoming::Violation(Violation::MessageTooLarge { limit: told })] if refused => {
                assert_eq!(*told, limit)
            }
            [Incoming::Frame(Frame::Text(text))] if !refused => assert_eq!(text.len(), 5000),
            other => panic!("{limit}: {other:?}"),
        }
    }
    // Its head alone is enough; and in pieces, the first one too many.
    let mut socket = WebSocket::server(Stream { incoming: long[..14].to_vec(), ..Stream::default() });
    assert!(matches!(
        read_all(&mut socket, 4096)[..],
        [Incoming::Violation(Violation::MessageTooLarge { .. })]
    ));
    let pieces = [frame(0x01, &[b'x'; 3000]), frame(0x00, &[b'x'; 3000])].concat();
    let mut socket = WebSocket::server(Stream { incoming: pieces, ..Stream::default() });
    assert!(matches!(
        read_all(&mut socket, 4096)[..],
        [Incoming::Violation(Violation::MessageTooLarge { .. })]
    ));
}

#[test]
fn a_limit_that_rises_counts_from_the_next_message() {
    let incoming = [frame(0x81, b"{}"), frame(0x81, &[b'x'; 5000])].concat();
    let mut socket = WebSocket::server(Stream { incoming, ..Stream::default() });
    assert!(matches!(socket.read(4096), Incoming::Frame(Frame::Text(text)) if text == "{}"));
    assert!(matches!(read_all(&mut socket, 8192)[..], [Incoming::Frame(Frame::Text(_))]));
}

#[test]
fn a_message_that_never_ends_is_not_read_in_one_go() {
    // Empty pieces, which no limit counts.
    let incoming = [frame(0x01, b""), frame(0x00, b"").repeat(100_000)].concat();
    let mut socket = WebSocket::server(Stream { incoming, ..Stream::default() });
    let mut before = 0;
    for _ in 0..2 {
        assert!(matches!(socket.read(4096), Incoming::Enough), "others get their turn");
        let read = socket.stream_mut().read - before;
        assert!(read > 0 && read <= 256 << 10, "{read} bytes");
        before += read;
    }
    assert!(matches!(read_all(&mut socket, 4096)[..], []));
    let Stream { incoming, read, .. } = socket.stream_mut();
    assert_eq!(*read, incoming.len(), "in the end all is read");
}
