//! What a connection keeps when nothing goes on, how often it asks the system, and what it copies.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code: to panic is how it fails"
)]

use std::io::{self, Read, Write};

use allocation_counter::measure;
use link_core::{Frame, Incoming};
use link_websocket::{READ_BUFFER, WebSocket};

const MIB: usize = 1 << 20;
/// A small message of a client, with a mask of zeros.
const SMALL: &[u8] = b"\x81\x82\0\0\0\0{}";

/// A stream with something to read, which counts.
#[derive(Default)]
struct Stream {
    incoming: Vec<u8>,
    at: usize,
    reads: usize,
    writes: usize,
    written: usize,
    /// Where what was written last has come from.
    from: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        match (&self.incoming[self.at..]).read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => {
                self.at += read;
                Ok(read)
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        self.written += bytes.len();
        self.from = bytes.as_ptr() as usize;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reading(incoming: Vec<u8>) -> WebSocket<Stream> {
    WebSocket::server(Stream { incoming, ..Stream::default() })
}

/// A binary frame of a client.
fn long(length: usize) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend((length as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + length, 7);
    frame
}

/// Reads all that is there, and says how many frames that was.
fn read_all(socket: &mut WebSocket<Stream>) -> usize {
    let mut frames = 0;
    loop {
        match socket.read(MIB) {
            Incoming::Frame(_) => frames += 1,
            Incoming::Enough => {}
            Incoming::Nothing => return frames,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_idle_connection_keeps_little_more_than_its_read_buffer() {
    let mut socket = None;
    let made = measure(|| {
        let mut fresh = reading(SMALL.to_vec());
        assert_eq!(read_all(&mut fresh), 1);
        socket = Some(fresh);
    });
    let size = size_of_val(&socket) as i64 + made.bytes_current;
    assert!(size < READ_BUFFER as i64 + 1024, "{size} bytes");
}

#[test]
fn a_peer_with_much_to_say_is_read_in_few_goes_and_one_with_little_in_one() {
    let mut socket = reading(SMALL.repeat(50_000));
    // Who is trusted.
    socket.set_max_unsent(MIB);
    assert_eq!(read_all(&mut socket), 50_000);
    let Stream { incoming, reads, .. } = socket.stream_mut();
    assert!(*reads <= incoming.len() / (64 << 10) + 5, "{reads} reads for {} bytes", incoming.len());

    let mut socket = reading(SMALL.repeat(2));
    assert_eq!(read_all(&mut socket), 2);
    // The second one found nothing.
    assert_eq!(socket.stream_mut().reads, 2);
}

#[test]
fn a_long_message_and_a_burst_leave_no_room_behind() {
    let mut socket = reading(long(MIB));
    socket.set_max_unsent(MIB);
    // The buffer that the thread's connections share is there already.
    let mut other = reading(SMALL.repeat(1000));
    other.set_max_unsent(MIB);
    assert_eq!(read_all(&mut other), 1000);
    let kept = measure(|| {
        assert_eq!(read_all(&mut socket), 1);
        // By and by, as heartbeats are answered.
        for _ in 0..2 * READ_BUFFER / SMALL.len() {
            let stream = socket.stream_mut();
            stream.incoming.clear();
            stream.incoming.extend(SMALL.repeat(4));
            stream.at = 0;
            assert_eq!(read_all(&mut socket), 4);
        }
        for _ in 0..10_000 {
            socket.write(Frame::Text("{}".into())).unwrap();
        }
        assert!(socket.flush().unwrap());
        socket.tidy();
    });
    assert!(kept.bytes_current < 4096, "{kept:?}");
    // A peer that goes on as before is none the worse.
    socket.stream_mut().incoming.extend(SMALL);
    assert_eq!(read_all(&mut socket), 1);
}

#[test]
fn a_long_payload_is_written_from_where_it_is_and_short_ones_leave_together() {
    let mut socket = reading(Vec::new());
    let payload: link_core::Bytes = vec![b' '; MIB].into();
    socket.set_max_unsent(2 * MIB);
    let written = measure(|| {
        socket.write(Frame::Binary(payload.clone())).unwrap();
        assert!(socket.flush().unwrap());
    });
    assert!(written.bytes_max < 4096, "{written:?}");
    assert_eq!(socket.stream_mut().from, payload.as_ptr() as usize);
    assert_eq!(socket.stream_mut().written, 10 + MIB);

    let before = socket.stream_mut().writes;
    for _ in 0..100 {
        socket.write(Frame::Text("{}".into())).unwrap();
    }
    assert!(socket.flush().unwrap());
    assert_eq!(socket.stream_mut().writes, before + 1);
}

#[test]
fn what_there_is_to_flush_is_said() {
    let mut socket = reading(b"\x89\x80\0\0\0\0".to_vec());
    assert!(!socket.needs_flush());
    assert!(matches!(socket.read(MIB), Incoming::Frame(Frame::Ping(_))));
    assert!(socket.needs_flush(), "a ping is to be answered");
    assert!(socket.flush().unwrap());
    assert!(!socket.needs_flush());
    assert_eq!(socket.stream_mut().written, 2);
    socket.write(Frame::Text("{}".into())).unwrap();
    assert!(socket.needs_flush());
}
