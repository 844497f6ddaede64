//! The HTTP upgrade: what each half takes, what it answers, and what it makes of pieces.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code: to panic is how it fails"
)]

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use link_core::{Frame, Incoming};
use link_websocket::{
    ClientUpgrade, MAX_HEAD, NotUpgraded, Progress, ServerUpgrade, WebSocket, http::HeaderValue, request,
};

const HONEST: &str = "GET /link?x=1 HTTP/1.1\r\nHost: localhost:3793\r\nConnection: keep-alive, Upgrade\r\n\
                      Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The answer to that key, from RFC 6455 §1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A stream that hands out pieces, and takes so many bytes at a time.
struct Stream {
    pieces: VecDeque<Vec<u8>>,
    ended: bool,
    room: usize,
    written: Vec<u8>,
    flushed: bool,
}

impl Stream {
    fn of(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            pieces: pieces.into_iter().collect(),
            ended: false,
            room: usize::MAX,
            written: vec![],
            flushed: false,
        }
    }

    fn whole(text: &str) -> Self {
        Self::of([text.as_bytes().to_vec()])
    }

    fn answer(&self) -> &str {
        std::str::from_utf8(&self.written).unwrap()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        };
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        if length < piece.len() {
            self.pieces.push_front(piece.split_off(length));
        }
        Ok(length)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.room);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= length;
        self.written.extend_from_slice(&bytes[..length]);
        self.flushed = false;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = true;
        Ok(())
    }
}

/// Goes on until something else than time is wanting. Bounded, as every server's patience is.
fn outcome(stream: &mut Stream) -> Result<bool, NotUpgraded> {
    let mut upgrade = ServerUpgrade::new();
    for _ in 0..MAX_HEAD {
        match upgrade.proceed(stream)? {
            Progress::Done(()) => return Ok(true),
            Progress::Waiting if stream.pieces.is_empty() => return Ok(false),
            Progress::Waiting | Progress::Enough => {}
        }
    }
    panic!("it never ends");
}

#[test]
fn an_honest_request_is_answered_with_101_and_flushed() {
    let mut stream = Stream::whole(HONEST);
    assert_eq!(outcome(&mut stream), Ok(true));
    let answer = stream.answer().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 switching protocols\r\n"), "{answer}");
    assert!(
        answer.contains(&format!("sec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase())),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"));
    assert!(!answer.contains("sec-websocket-extensions") && !answer.contains("sec-websocket-protocol"));
    assert!(stream.flushed);
}

#[test]
fn a_request_may_come_in_any_pieces_and_its_answer_leave_in_any() {
    let whole = {
        let mut stream = Stream::whole(HONEST);
        assert_eq!(outcome(&mut stream), Ok(true));
        stream.written
    };
    for size in [1, 2, 3, 5, 7, 100, HONEST.len() - 1] {
        let mut stream = Stream::of(HONEST.as_bytes().chunks(size).map(<[u8]>::to_vec));
        stream.room = 0;
        let mut upgrade = ServerUpgrade::new();
        let mut rounds = 0;
        while !matches!(upgrade.proceed(&mut stream), Ok(Progress::Done(()))) {
            rounds += 1;
            assert!(rounds < 2000, "pieces of {size}");
            stream.room += usize::from(stream.pieces.is_empty());
        }
        assert_eq!(stream.written, whole, "pieces of {size}");
    }
}

#[test]
fn a_bare_line_feed_ends_a_line_too() {
    assert_eq!(outcome(&mut Stream::whole(&HONEST.replace("\r\n", "\n"))), Ok(true));
}

#[test]
fn what_is_no_request_for_a_websocket_is_told_so() {
    let without = |line: &str| {
        let lines = HONEST.split_inclusive("\r\n").filter(|known| !known.starts_with(line));
        lines.collect::<String>()
    };
    let long = |bytes: usize| HONEST.replace("Host:", &format!("X-Filling: {}\r\nHost:", "x".repeat(bytes)));
    for (what, request, status) in [
        ("plain HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 426),
        ("no upgrade", without("Upgrade"), 426),
        ("no connection header", without("Connection"), 426),
        ("no key", without("Sec-WebSocket-Key"), 400),
        ("a short key", HONEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), 400),
        ("another version", HONEST.replace("Version: 13", "Version: 8"), 426),
        ("no version", without("Sec-WebSocket-Version"), 400),
        ("another method", HONEST.replace("GET", "POST"), 400),
        ("an old HTTP", HONEST.replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("rubbish", "\u{1}\u{2}\u{3} rubbish".into(), 400),
        ("a TLS handshake", "\u{16}\u{3}\u{1}\u{2}".into(), 400),
        (
            "a hundred and twenty-five headers",
            HONEST.replace("Host", &format!("{}Host", "X: y\r\n".repeat(120))),
            400,
        ),
        ("a long request", long(MAX_HEAD), 431),
        ("an endless request", format!("GET /{}", "x".repeat(2 * MAX_HEAD)), 431),
        ("empty lines without end", "\r\n".repeat(8000), 400),
    ] {
        for size in [1, 1000, usize::MAX] {
            let mut stream =
                Stream::of(request.as_bytes().chunks(size.min(request.len())).map(<[u8]>::to_vec));
            let error = outcome(&mut stream).expect_err(what);
            assert_eq!(error.status(), Some(status), "{what} in pieces of {size}: {error}");
            assert!(error.answer().unwrap().starts_with(&format!("HTTP/1.1 {status} ")), "{what}");
            // RFC 6455 §4.4: whoever asks for another version is told which one there is.
            let version = error.answer().unwrap().contains("\r\nSec-WebSocket-Version: 13\r\n");
            assert_eq!(version, status == 426, "{what}");
            assert!(stream.written.is_empty(), "{what}: it has answered by itself");
        }
    }
    assert_eq!(outcome(&mut Stream::whole(&long(MAX_HEAD / 2))), Ok(true), "a long one below the limit");
}

#[test]
fn no_byte_after_the_request_is_lost() {
    // Read with the request, it could not be handed on: refused. Not read yet, it stays where it is.
    let error = outcome(&mut Stream::whole(&format!("{HONEST}frame"))).unwrap_err();
    assert_eq!(error.status(), Some(400), "{error}");
    let mut stream = Stream::of([HONEST.as_bytes().to_vec(), b"frame".to_vec()]);
    assert_eq!(outcome(&mut stream), Ok(true));
    assert_eq!(stream.pieces, [b"frame"]);
}

#[test]
fn who_leaves_in_the_middle_is_gone_and_not_answered() {
    let mut stream = Stream::whole(&HONEST[..40]);
    assert_eq!(outcome(&mut stream), Ok(false));
    stream.ended = true;
    let error = outcome(&mut stream).unwrap_err();
    assert_eq!((error.answer(), error), (None, NotUpgraded::Ended));
}

/// A client, whose request goes to `stream`, up to its end.
fn client(stream: Stream) -> Result<Option<WebSocket<Stream>>, String> {
    let mut request = request("ws://localhost:3793/").unwrap();
    request.headers_mut().insert("Sec-WebSocket-Key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
    let mut upgrade = ClientUpgrade::new(stream, request).unwrap();
    for _ in 0..2 * MAX_HEAD {
        match upgrade.proceed().map_err(|error| error.to_string())? {
            Progress::Done(socket) => return Ok(Some(socket)),
            Progress::Waiting if upgrade.stream_mut().unwrap().pieces.is_empty() => return Ok(None),
            Progress::Waiting | Progress::Enough => {}
        }
    }
    panic!("it never ends");
}

fn honest_answer() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

#[test]
fn an_answer_may_come_in_any_pieces() {
    let long = honest_answer().replace("Upgrade:", &format!("X-Filling: {}\r\nUpgrade:", "x".repeat(5_000)));
    let late = format!("\r\n\r\n{}", honest_answer());
    for answer in [honest_answer(), long, late] {
        // A frame right behind it is not lost.
        let bytes = [answer.as_bytes(), b"\x81\x02hi"].concat();
        for size in [1, 2, 3, 100, answer.len() - 1, answer.len() + 1, bytes.len()] {
            let stream = Stream::of(bytes.chunks(size).map(<[u8]>::to_vec));
            let mut socket = client(stream).unwrap().unwrap_or_else(|| panic!("pieces of {size}"));
            let frame = (0..10).find_map(|_| match socket.read(2) {
                Incoming::Frame(frame) => Some(frame),
                _ => None,
            });
            assert_eq!(frame, Some(Frame::Text("hi".into())), "pieces of {size}");
        }
    }
}

#[test]
fn an_answer_may_have_16_kib_however_it_is_cut() {
    let room = MAX_HEAD - honest_answer().len() - "X-Filling: \r\n".len();
    for (filling, fits) in [(room - 1, true), (room, true), (room + 1, false), (room + 5_000, false)] {
        let filling = format!("X-Filling: {}\r\nUpgrade:", "x".repeat(filling));
        let answer = honest_answer().replace("Upgrade:", &filling);
        // What comes along behind it is not counted.
        let bytes = [answer.as_bytes(), &[0x82, 2], b"hi".repeat(1_000).as_slice()].concat();
        for size in [1, 13, 1_000, 1_024, 20_000] {
            let outcome = client(Stream::of(bytes.chunks(size).map(<[u8]>::to_vec)));
            match outcome {
                Ok(Some(_)) => assert!(fits, "{} bytes in pieces of {size}", answer.len()),
                Ok(None) => panic!("{} bytes in pieces of {size} never end", answer.len()),
                Err(error) => {
                    assert!(!fits, "{} bytes in pieces of {size}: {error}", answer.len());
                    assert_eq!(error, "its HTTP answer has more than 16384 bytes");
                }
            }
        }
    }
}

#[test]
fn what_is_no_answer_is_noticed_before_its_end() {
    for answer in [
        "\u{15}\u{3}\u{3}",
        "SSH-2.0-OpenSSH",
        "HTTP/1.1 nonsense\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\n\r\n",
    ] {
        for size in [1, 1000] {
            let stream = Stream::of(answer.as_bytes().chunks(size).map(<[u8]>::to_vec));
            assert!(client(stream).is_err(), "{answer:?}");
        }
    }
    let endless = Stream::of(vec![b"HTTP/1.1 101 X\r\nX: ".to_vec(), vec![b'x'; 1 << 20]]);
    assert!(client(endless).is_err());
    let mut half = Stream::whole(&honest_answer()[..40]);
    half.ended = true;
    assert!(client(half).is_err());
}

#[test]
fn a_stream_that_takes_nothing_for_good_ends_the_upgrade() {
    struct Blind;
    impl Read for Blind {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Blind {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut upgrade = ClientUpgrade::new(Blind, request("ws://localhost:3793/").unwrap()).unwrap();
    assert!(upgrade.proceed().is_err());
}
