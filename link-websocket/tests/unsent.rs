//! What comes back of a connection that breaks: the frames of which nothing was written.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code: to panic is how it fails"
)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    rc::Rc,
};

use link_core::{Close, Frame, Incoming};
use link_websocket::{ClientUpgrade, Progress, ServerUpgrade, WebSocket, WriteError, request};
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

/// One direction, which takes a number of bytes and then no more.
struct Way {
    bytes: VecDeque<u8>,
    room: usize,
    /// What it says then.
    otherwise: ErrorKind,
}

#[derive(Clone)]
struct Pipe {
    from: Rc<RefCell<Way>>,
    to: Rc<RefCell<Way>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.borrow_mut().bytes.read(buffer)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut way = self.to.borrow_mut();
        if way.room == 0 {
            return Err(way.otherwise.into());
        }
        let taken = bytes.len().min(way.room);
        way.room -= taken;
        way.bytes.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who speaks, who listens, and the way between them.
fn pair(client_speaks: bool) -> (WebSocket<Pipe>, WebSocket<Pipe>, Rc<RefCell<Way>>) {
    let way = || {
        let (bytes, room, otherwise) = (VecDeque::new(), usize::MAX, ErrorKind::WouldBlock);
        Rc::new(RefCell::new(Way { bytes, room, otherwise }))
    };
    let (up, down) = (way(), way());
    let stream = Pipe { from: down.clone(), to: up.clone() };
    let mut client = ClientUpgrade::new(stream, request("ws://localhost:3793/").unwrap()).unwrap();
    assert!(matches!(client.proceed(), Ok(Progress::Waiting)));
    let mut stream = Pipe { from: up.clone(), to: down.clone() };
    assert!(matches!(ServerUpgrade::new().proceed(&mut stream), Ok(Progress::Done(()))));
    let mut server = WebSocket::server(stream);
    let Ok(Progress::Done(mut client)) = client.proceed() else { panic!("the answer is there") };
    client.set_max_unsent(8 * LIMIT);
    server.set_max_unsent(8 * LIMIT);
    if client_speaks { (client, server, up) } else { (server, client, down) }
}

fn heard(listener: &mut WebSocket<Pipe>) -> Vec<Frame> {
    let mut heard = Vec::new();
    loop {
        match listener.read(LIMIT) {
            Incoming::Frame(frame) => heard.push(frame),
            Incoming::Enough => {}
            Incoming::Nothing => return heard,
            other => panic!("{other:?}"),
        }
    }
}

/// Texts and binaries of these lengths, each different.
fn frames(lengths: &[usize]) -> Vec<Frame> {
    let frame = |(index, length): (usize, &usize)| {
        let letter = b'a' + u8::try_from(index % 26).unwrap();
        match index % 5 {
            3 => Frame::Binary(vec![letter; *length].into()),
            4 => Frame::Ping(vec![letter; *length % 126].into()),
            _ => Frame::Text(String::from_utf8(vec![letter; *length]).unwrap().into()),
        }
    };
    lengths.iter().enumerate().map(frame).collect()
}

fn size(frame: &Frame, masked: bool) -> usize {
    let (Frame::Text(_) | Frame::Binary(_) | Frame::Ping(_)) = frame else { panic!("{frame:?}") };
    let length = match frame {
        Frame::Text(text) => text.len(),
        Frame::Binary(bytes) | Frame::Ping(bytes) => bytes.len(),
        _ => 0,
    };
    let header = match length {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    header + if masked { 4 } else { 0 } + length
}

/// Writes frames to a stream that takes so many bytes, go by go, and says whether what comes back is what it should be.
fn comes_back(client_speaks: bool, lengths: &[usize], takes: &[usize], otherwise: ErrorKind) {
    let (mut speaker, mut listener, way) = pair(client_speaks);
    let said = frames(lengths);
    (way.borrow_mut().room, way.borrow_mut().otherwise) = (0, ErrorKind::WouldBlock);
    let mut takes = takes.iter();
    for frame in &said {
        speaker.write(frame.clone()).unwrap();
        if let Some(take) = takes.next() {
            way.borrow_mut().room += take;
            let _ = speaker.flush().unwrap();
        }
    }
    way.borrow_mut().room += takes.sum::<usize>();
    way.borrow_mut().otherwise = otherwise;
    let flushed = speaker.flush();

    let (mut written, mut whole) = (usize::try_from(speaker.bytes_written()).unwrap(), 0);
    while whole < said.len() && written >= size(&said[whole], client_speaks) {
        written -= size(&said[whole], client_speaks);
        whole += 1;
    }
    assert_eq!(flushed.is_err(), whole < said.len() && otherwise != ErrorKind::WouldBlock);
    let begun = usize::from(written > 0);
    let is_data = |frame: &&Frame| !matches!(frame, Frame::Ping(_));
    let expected: Vec<_> = said[whole + begun..].iter().filter(is_data).cloned().collect();
    assert!(speaker.take_unsent() == expected, "{whole} and {written} bytes were written");

    // Nothing is written afterwards, though there were room.
    way.borrow_mut().room = usize::MAX;
    let text = Frame::Text("late".into());
    assert_eq!(speaker.write(text), Err(WriteError::Broken));
    let _ = speaker.write(Frame::Close(None::<Close>));
    assert!(speaker.flush().unwrap());
    assert_eq!(speaker.take_unsent(), []);
    assert!(heard(&mut listener) == said[..whole], "what was written whole has arrived, and nothing else");
}

#[test]
fn the_frames_of_which_nothing_was_written_come_back_in_order() {
    let lengths = [5, 300, 20_000, 0, 9, 16 << 10, 70_000, 1, 2, 3];
    for client_speaks in [true, false] {
        let sizes: Vec<_> = frames(&lengths).iter().map(|frame| size(frame, client_speaks)).collect();
        for whole in 0..=lengths.len() {
            let before: usize = sizes[..whole].iter().sum();
            // At the edge of a frame, within a header, between header and payload, and within a payload.
            for beyond in [0, 1, 2, 3, 4, 8, 10, 14, 100] {
                for otherwise in [ErrorKind::WouldBlock, ErrorKind::BrokenPipe] {
                    let mut takes = [0; 10].to_vec();
                    takes.push(before + beyond);
                    comes_back(client_speaks, &lengths, &takes, otherwise);
                }
            }
        }
    }
}

#[test]
fn an_answer_between_two_frames_does_not_come_back() {
    for client_speaks in [true, false] {
        let (mut speaker, mut listener, way) = pair(client_speaks);
        way.borrow_mut().room = 3;
        let said = frames(&[10, 20, 30]);
        speaker.write(said[0].clone()).unwrap();
        assert!(!speaker.flush().unwrap());
        speaker.write(said[1].clone()).unwrap();
        listener.write(Frame::Ping(vec![b'?'; 100].into())).unwrap();
        assert!(listener.flush().unwrap());
        assert!(matches!(speaker.read(LIMIT), Incoming::Frame(Frame::Ping(_))));
        assert!(!speaker.flush().unwrap());
        speaker.write(said[2].clone()).unwrap();
        speaker.write(Frame::Close(None)).unwrap();
        assert!(!speaker.flush().unwrap());
        assert_eq!(speaker.take_unsent(), said[1..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_is_taken_and_when_nothing_is_lost_and_nothing_made_up(
        client_speaks: bool,
        lengths in prop::collection::vec(prop_oneof![0usize..10, 100usize..300, 10_000usize..80_000], 0..20),
        takes in prop::collection::vec(prop_oneof![0usize..20, 0usize..500, 0usize..100_000], 0..20),
        breaks: bool,
    ) {
        let otherwise = if breaks { ErrorKind::BrokenPipe } else { ErrorKind::WouldBlock };
        comes_back(client_speaks, &lengths, &takes, otherwise);
    }
}
