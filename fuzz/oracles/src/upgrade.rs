//! From HTTP to WebSocket, whatever is said and however it is cut into pieces.
//!
//! For a server, how the request is cut decides nothing but this: whether bytes beyond its end came along with it (then
//! it is refused, since nobody may speak before the answer), how soon what is malformed is noticed (at the next empty line at
//! the latest), and whether a request with many empty lines in front of it is heard at all. For a client, it decides nothing.

use arbitrary::{Arbitrary, Unstructured};
use link_core::{Frame, Incoming};
use link_websocket::{
    ClientUpgrade, MAX_HEAD, NotUpgraded, Progress, ServerUpgrade, http::HeaderValue, request,
    upgrade_response,
};
use tungstenite::handshake::{
    derive_accept_key,
    machine::TryParse,
    server::{Request, write_response},
};

use crate::wire::{Pace, Script};

/// What a server reads at a time, and how often in one go.
const PIECE: usize = 1 << 10;
const READS: usize = 16;
/// So many tries at something that looks like the end are too many. An empty line is tried up to three times when what
/// follows it comes in pieces of a byte.
const ATTEMPTS: usize = 8;
const TRIES: usize = 3;
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// From here on, a line is a long one.
const LONG: usize = 240;
/// No upgrade takes more turns than this.
const TURNS: usize = 300_000;

#[derive(Debug, Arbitrary)]
struct Plan {
    reading: Pace,
    writing: Pace,
    ends: bool,
    client: bool,
    /// How many lines come from the tables below, before whatever else there is.
    lines: u8,
}

/// Upgrades one side, whose peer says what `input` holds.
pub fn upgrade(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(plan) = Plan::arbitrary(&mut input) else { return };
    let mut said = Vec::new();
    for _ in 0..plan.lines % 16 {
        let Ok(line) = u8::arbitrary(&mut input) else { break };
        let lines: &[&[u8]] = if plan.client { &ANSWER } else { &REQUEST };
        match usize::from(line) {
            // Longer than any fuzzer's input.
            LONG.. => said.extend(b"X-Filling: ".iter().chain([b'x'; 3_000].iter()).chain(b"\r\n")),
            line => said.extend_from_slice(lines[line % lines.len()]),
        }
    }
    said.extend_from_slice(input.take_rest());
    if plan.client {
        let opens = client(&said, &plan, plan.reading.clone());
        assert_eq!(opens, client(&said, &plan, Pace::whole()), "it depends on how it is cut");
    } else {
        server(&said, &plan);
    }
}

const REQUEST: [&[u8]; 22] = [
    b"GET / HTTP/1.1\r\n",
    b"GET /link?x=1 HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"POST / HTTP/1.1\r\n",
    b"Host: localhost:3793\r\n",
    b"Connection: Upgrade\r\n",
    b"Connection: keep-alive, upgrade\r\n",
    b"Connection: close\r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Version: 8\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Sec-WebSocket-Key: c2hvcnQ=\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
    b"Sec-WebSocket-Protocol: chat, edge-link.2\r\n",
    b"\r\n",
    b"\n",
    b"X: a\n",
    b"X : y\r\n",
    b" folded\r\n",
    b"X: \xe9\r\n",
];

const ANSWER: [&[u8]; 14] = [
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 408 Request Timeout\r\n\r\n",
    b"HTTP/1.0 101 Switching Protocols\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=\r\n",
    b"Sec-WebSocket-Protocol: chat\r\n",
    b"Content-Length: 4\r\n",
    b"\r\n",
    b"\n",
    // A frame, with the answer.
    b"\x81\x02hi",
    b"X: y\r\n",
];

#[derive(Debug, PartialEq)]
enum Outcome {
    Done { answer: Vec<u8> },
    Refused(NotUpgraded),
    Waiting,
}

fn server(said: &[u8], plan: &Plan) {
    let paces = [
        (plan.reading.clone(), plan.writing.clone()),
        (Pace::whole(), Pace::whole()),
        (Pace::of([1]), Pace::of([0, 1])),
    ];
    let mut done = Vec::new();
    for (reading, writing) in paces {
        let mut stream = Script::new(said, reading, writing);
        (stream.ends, stream.interruptions) = (plan.ends, true);
        let outcome = serve(&mut stream);
        judge(said, &stream, &outcome);
        if let Outcome::Done { answer } = outcome {
            done.push((stream.read, answer));
        }
    }
    done.dedup();
    assert!(done.len() <= 1, "two requests in one: {done:?}");
}

fn serve(stream: &mut Script) -> Outcome {
    let mut upgrade = ServerUpgrade::new();
    for _ in 0..TURNS {
        let before = (stream.calls, stream.read);
        stream.blocked = false;
        let mut progress = None;
        let cost = allocation_counter::measure(|| progress = Some(upgrade.proceed(stream)));
        assert!(cost.bytes_max <= 4 * MAX_HEAD as u64 + (32 << 10), "{} bytes", cost.bytes_max);
        assert!(stream.read - before.1 <= READS * PIECE, "too much in one go");
        match progress.unwrap() {
            Ok(Progress::Done(())) => return Outcome::Done { answer: stream.written.clone() },
            Ok(Progress::Waiting) if !stream.blocked => return Outcome::Waiting,
            Ok(Progress::Enough) => assert!(stream.calls - before.0 == READS, "stopped early"),
            Ok(Progress::Waiting) => {}
            Err(error) => return Outcome::Refused(error),
        }
    }
    panic!("it goes on for ever");
}

/// Whether `outcome` is right for what was read, by another look at the whole of that.
fn judge(said: &[u8], stream: &Script, outcome: &Outcome) {
    let heard = &said[..stream.read];
    assert!(heard.len() <= MAX_HEAD + PIECE, "bounded");
    let ends = ends(heard);
    match outcome {
        Outcome::Done { answer } => {
            let (length, request) = Request::try_parse(heard).unwrap().unwrap();
            assert_eq!(length, heard.len(), "bytes of the WebSocket were taken for the request's");
            let mut expected = Vec::new();
            write_response(&mut expected, &upgrade_response(&request).unwrap()).unwrap();
            assert_eq!(*answer, expected);
            let text = std::str::from_utf8(answer).unwrap().to_lowercase();
            assert!(text.starts_with("http/1.1 101 ") && text.ends_with("\r\n\r\n"));
            assert!(!text.contains("extensions") && !text.contains("protocol:"), "nothing is selected");
            let key = request.headers().get("sec-websocket-key").unwrap();
            assert!(text.contains(&derive_accept_key(key.as_bytes()).to_lowercase()));
            asked_for_a_websocket(heard);
        }
        Outcome::Waiting => {
            assert!(stream.read == said.len() && !stream.ends && heard.len() <= MAX_HEAD);
            // Nothing is kept waiting that has ended.
            if let Some(end) = ends.last() {
                assert!(matches!(Request::try_parse(&heard[..*end]), Ok(None)), "it is answered by now");
            }
        }
        Outcome::Refused(error) => {
            assert!(stream.written.is_empty(), "an answer, and then a refusal");
            match error {
                NotUpgraded::Ended => assert!(stream.ends && stream.read == said.len()),
                NotUpgraded::HeadTooLarge => assert!(heard.len() > MAX_HEAD),
                NotUpgraded::NoUpgrade | NotUpgraded::UnsupportedVersion | NotUpgraded::Malformed(_) => {
                    let right = match Request::try_parse(heard) {
                        Err(_) => true,
                        Ok(Some((length, request))) => {
                            length < heard.len() || upgrade_response(&request).err().as_ref() == Some(error)
                        }
                        Ok(None) => false,
                    };
                    assert!(right || ends.len() * TRIES >= ATTEMPTS, "refused for nothing: {error}");
                }
                other => panic!("an unknown refusal: {other}"),
            }
        }
    }
    // What is refused is answered in HTTP that no proxy takes for a WebSocket.
    if let Outcome::Refused(error) = outcome {
        let answer = error.answer().map(|answer| (&answer[..9], answer[9..12].parse().ok()));
        assert_eq!(answer, error.status().map(|status| ("HTTP/1.1 ", Some(status))));
    }
}

/// The places right behind an empty line.
fn ends(heard: &[u8]) -> Vec<usize> {
    (1..heard.len())
        .filter(|place| {
            heard[*place] == b'\n'
                && (heard[place - 1] == b'\n' || *place >= 2 && heard[place - 2..*place] == *b"\n\r")
        })
        .map(|place| place + 1)
        .collect()
}

/// What RFC 6455 §4.2.1 asks of a request, read line by line.
fn asked_for_a_websocket(heard: &[u8]) {
    let text = String::from_utf8_lossy(heard);
    let mut lines = text.lines().skip_while(|line| line.is_empty());
    let first = lines.next().unwrap();
    assert!(first.starts_with("GET ") && first.ends_with(" HTTP/1.1"), "{first:?}");
    let header = |name: &str, accepted: &dyn Fn(&str) -> bool| {
        let named = text.lines().filter_map(|line| line.split_once(':'));
        let mut values =
            named.filter(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        assert!(values.any(accepted), "{name} is missing");
    };
    header("connection", &|value| value.to_lowercase().contains("upgrade"));
    header("upgrade", &|value| value.eq_ignore_ascii_case("websocket"));
    header("sec-websocket-version", &|value| value == "13");
    header("sec-websocket-key", &|value| value.len() == 24 && value.ends_with("=="));
}

/// Whether a client that is answered so opens a WebSocket.
fn client(said: &[u8], plan: &Plan, reading: Pace) -> bool {
    let mut wanted = request("ws://localhost:3793/").unwrap();
    wanted.headers_mut().insert("Sec-WebSocket-Key", HeaderValue::from_static(KEY));
    let mut stream = Script::new(said, reading, plan.writing.clone());
    stream.ends = plan.ends;
    let mut upgrade = ClientUpgrade::new(stream, wanted).unwrap();
    for _ in 0..TURNS {
        let stream = upgrade.stream_mut().unwrap();
        let before = stream.calls;
        stream.blocked = false;
        let progress = upgrade.proceed();
        if let Some(stream) = upgrade.stream_mut() {
            // The request in pieces of a byte, and a ration of reads.
            assert!(stream.calls - before <= 400, "too much in one go");
        }
        match progress {
            Ok(Progress::Done(mut socket)) => {
                let head = String::from_utf8_lossy(&said[..socket.stream_mut().read]).into_owned();
                assert!(head.trim_start().starts_with("HTTP/1.1 101 "), "{head}");
                assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the wrong key: {head}");
                let asked = String::from_utf8(socket.stream_mut().written.clone()).unwrap();
                assert!(asked.starts_with("GET / HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n"));
                assert!(asked.contains(KEY) && !asked.to_lowercase().contains("extensions"));
                let begins = head.len() - head.trim_start().len();
                let end = begins + ends(&said[begins..])[0];
                // What came right behind the answer is not lost.
                if said[end..].starts_with(b"\x81\x02hi") {
                    let frame = (0..TURNS).find_map(|_| match socket.read(9) {
                        Incoming::Frame(frame) => Some(frame),
                        Incoming::Nothing | Incoming::Enough => None,
                        other => panic!("{other:?}"),
                    });
                    assert_eq!(frame, Some(Frame::Text("hi".into())));
                }
                return true;
            }
            Ok(Progress::Waiting) if !upgrade.stream_mut().is_some_and(|stream| stream.blocked) => {
                return false;
            }
            Ok(Progress::Waiting | Progress::Enough) => {}
            Err(_) => {
                assert!(
                    matches!(upgrade.proceed(), Ok(Progress::Waiting)),
                    "after its end, it waits for ever"
                );
                return false;
            }
        }
    }
    panic!("it goes on for ever");
}
