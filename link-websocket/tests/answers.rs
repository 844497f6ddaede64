//! Answers to pings and closes, which tungstenite gives, and what is flushed: with streams that take little, or keep it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code: to panic is how it fails"
)]

use std::io::{self, ErrorKind, Read, Write};

use link_core::{Close, Frame, Incoming};
use link_websocket::{ClientUpgrade, Progress, WebSocket, request};
use tungstenite::handshake::derive_accept_key;

/// A stream with something to read, and room for some bytes.
#[derive(Default)]
struct Stream {
    incoming: Vec<u8>,
    at: usize,
    /// How long the first piece of it is, if that is not all.
    first: Option<usize>,
    room: usize,
    /// Whether it says that it is to be waited for.
    blocked: bool,
    /// Whether it takes bytes and keeps them.
    holds_back: bool,
    written: Vec<u8>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.incoming[self.at..];
        let piece = self.first.take().unwrap_or(rest.len());
        match (&rest[..piece.min(rest.len())]).read(buffer)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            read => {
                self.at += read;
                Ok(read)
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            self.blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        self.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.holds_back { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

/// The longest ping of a client, with a mask of zeros, and so often.
fn pings(times: usize) -> Vec<u8> {
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([7; 125]);
    ping.repeat(times)
}

/// A server's socket that has read these.
fn server(incoming: Vec<u8>) -> WebSocket<Stream> {
    let mut socket = WebSocket::server(Stream { incoming, ..Stream::default() });
    read_all(&mut socket);
    socket
}

/// A client's socket, whose server has sent these right behind its answer.
fn client(frames: &[u8], first: Option<usize>) -> WebSocket<Stream> {
    let request = request("ws://localhost/").unwrap();
    let key = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {key}\r\nX: {}\r\n\r\n",
        "a".repeat(3900)
    );
    let incoming = [head.as_bytes(), frames].concat();
    let stream = Stream { incoming, first, room: usize::MAX, ..Stream::default() };
    let mut upgrade = ClientUpgrade::new(stream, request).unwrap();
    loop {
        if let Progress::Done(mut socket) = upgrade.proceed().unwrap() {
            socket.stream_mut().written.clear();
            return socket;
        }
    }
}

fn read_all(socket: &mut WebSocket<Stream>) {
    loop {
        match socket.read(1 << 20) {
            Incoming::Nothing => return,
            Incoming::Enough | Incoming::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn read_one(socket: &mut WebSocket<Stream>) {
    assert!(matches!(socket.read(1 << 20), Incoming::Frame(_)));
}

#[test]
fn what_the_stream_has_taken_and_not_sent_needs_a_flush() {
    let mut socket = server(Vec::new());
    (socket.stream_mut().room, socket.stream_mut().holds_back) = (usize::MAX, true);
    socket.set_max_unsent(1 << 20);
    // So long that it is written at once.
    socket.write(Frame::Binary(vec![0; 70_000].into())).unwrap();
    assert!(socket.needs_flush());
    assert!(!socket.flush().unwrap());
    socket.stream_mut().holds_back = false;
    assert!(socket.flush().unwrap());
    assert!(!socket.needs_flush());
}

#[test]
fn a_client_answers_the_longest_ping_and_the_longest_close() {
    for first in [0x89, 0x88] {
        let mut frame = vec![first, 125, 0x03, 0xe8];
        frame.extend([b'x'; 123]);
        let mut socket = client(&frame, None);
        read_one(&mut socket);
        assert!(socket.flush().unwrap());
        assert_eq!(socket.stream_mut().written.len(), 2 + 4 + 125, "{first:x}");
    }
}

#[test]
fn a_client_says_the_longest_close() {
    let mut socket = client(&[], None);
    let reason = "x".repeat(123).into();
    assert_eq!(socket.write(Frame::Close(Some(Close { code: 1000, reason }))), Ok(()));
    assert!(socket.flush().unwrap());
    assert_eq!(socket.stream_mut().written.len(), 2 + 4 + 125);
}

#[test]
fn a_flush_leaves_something_only_when_the_stream_is_to_be_waited_for() {
    let mut socket = server(pings(200));
    assert!(!socket.flush().unwrap());
    (socket.stream_mut().room, socket.stream_mut().blocked) = (usize::MAX, false);
    assert!(socket.flush().unwrap());
    assert!(!socket.stream_mut().blocked);
}

#[test]
fn an_answer_that_found_no_room_is_not_forgotten() {
    let mut socket = server(pings(200));
    socket.stream_mut().room = 127 * 100;
    assert!(!socket.flush().unwrap());
    socket.stream_mut().room = usize::MAX;
    while socket.needs_flush() {
        socket.flush().unwrap();
    }
    let before = socket.stream_mut().written.len();
    read_all(&mut socket);
    assert!(socket.flush().unwrap());
    assert_eq!(socket.stream_mut().written.len(), before, "it was left behind");
}

/// Whether this frame was written, among others of its length, once there was room for all of them.
fn has_said(mut socket: WebSocket<Stream>, frame: &[u8]) -> bool {
    socket.stream_mut().room = usize::MAX;
    while socket.needs_flush() {
        socket.flush().unwrap();
    }
    socket.stream_mut().written.chunks(frame.len()).any(|written| written == frame)
}

#[test]
fn a_close_is_said_and_answered_though_there_was_no_room_even_for_pongs() {
    let reason = [b'x'; 123];
    let mut close = vec![0x88, 125, 0x03, 0xe8];
    close.extend(reason);

    let mut socket = server(pings(200));
    let said = Close { code: 1000, reason: std::str::from_utf8(&reason).unwrap().into() };
    assert_eq!(socket.write(Frame::Close(Some(said))), Ok(()));
    assert!(has_said(socket, &close), "said");

    let mut socket = server(pings(200));
    let mut frame = vec![0x88, 0x80 | 125, 0, 0, 0, 0];
    frame.extend(&close[2..]);
    socket.stream_mut().incoming.extend(frame);
    read_one(&mut socket);
    assert!(has_said(socket, &close), "answered");
}

#[test]
fn an_answer_to_what_came_with_the_upgrade_waits_for_the_frame_before_it() {
    let mut socket = client(&[0x89, 0].repeat(200), Some(100));
    socket.write(Frame::Text("first".into())).unwrap();
    socket.stream_mut().room = 3;
    assert!(!socket.flush().unwrap());
    socket.stream_mut().room = usize::MAX;
    read_one(&mut socket);
    read_one(&mut socket);
    assert!(socket.flush().unwrap());
    let written = &socket.stream_mut().written;
    let text: Vec<u8> = (0..5).map(|at| written[6 + at] ^ written[2 + at % 4]).collect();
    assert_eq!(text, b"first", "something stands in the middle of the frame");
}

#[test]
fn a_stranger_is_not_read_ahead_and_nothing_is_kept_of_who_has_ended() {
    let small = b"\x81\x82\0\0\0\0{}";
    let mut socket = server(small.repeat(10));
    socket.stream_mut().incoming.extend(small.repeat(10_000));
    let kept = allocation_counter::measure(|| {
        for _ in 0..300 {
            read_one(&mut socket);
        }
    });
    assert!(kept.bytes_max < 4096, "{kept:?}");

    socket.set_max_unsent(1 << 20);
    let mut kept = allocation_counter::measure(|| {
        for _ in 0..300 {
            read_one(&mut socket);
        }
    });
    assert!(kept.bytes_current > 4096, "{kept:?}");
    let ended = allocation_counter::measure(|| {
        // The next message is over the limit.
        while !matches!(socket.read(1), Incoming::Violation(_)) {}
    });
    kept += ended;
    // But for the buffer that the thread's connections share.
    assert!(kept.bytes_current - (64 << 10) < 4096, "{kept:?}");
}
