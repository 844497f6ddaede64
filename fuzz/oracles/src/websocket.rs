//! An open WebSocket, on both sides: what a hostile peer sends, in any pieces, against another reader of RFC 6455; and what
//! two honest ends say to each other over a pipe that takes any number of bytes at a time.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    rc::Rc,
};

use arbitrary::{Arbitrary, Unstructured};
use link_core::{Bytes, Close, Frame, Incoming, Violation};
use link_websocket::{
    ClientUpgrade, Progress, READ_BUFFER, ServerUpgrade, WRITE_BATCH, WebSocket, WriteError, request,
};

use crate::wire::{Pace, Script};

/// No stream takes more turns than this.
const TURNS: usize = 1_000_000;
/// More turns than a pace has steps.
const ROUND: usize = 32;
/// A read for one frame, and what a socket of its own writes with it.
const READS: usize = 64;

#[derive(Debug, Arbitrary)]
enum Plan {
    /// A peer that says what it likes.
    Hostile {
        client: bool,
        reading: Pace,
        writing: Pace,
        ends: bool,
        limit: u16,
        changing: bool,
        deaf_after: u8,
    },
    /// Two that mean well.
    Honest { to_server: Pace, to_client: Pace, max_unsent: u16 },
}

/// A piece of what a hostile peer says.
#[derive(Debug, Arbitrary)]
pub(crate) enum Piece {
    Frame { opcode: u8, flags: u8, length: u16, stated: Stated, mask: [u8; 4], fill: u8 },
    Text { last: bool, text: Few },
    Close { code: u16, reason: Few },
    Ping(Few),
    Bytes(Few),
}

/// What a frame says of its own length.
#[derive(Debug, Arbitrary)]
pub(crate) enum Stated {
    Shortest,
    In16,
    In64,
    TooMuch(u64),
}

/// Bytes, cheap for a fuzzer to grow: a length, and then they.
#[derive(Debug)]
pub(crate) struct Few(pub(crate) Vec<u8>);

impl<'a> Arbitrary<'a> for Few {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let length = usize::from(u8::arbitrary(input)?).min(input.len());
        Ok(Self(input.bytes(length)?.to_vec()))
    }
}

/// Lets one end meet what `input` holds.
pub fn websocket(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(plan) = Plan::arbitrary(&mut input) else { return };
    match plan {
        Plan::Hostile { client, reading, writing, ends, limit, changing, deaf_after } => {
            let mut said = Vec::new();
            while !input.is_empty() && said.len() < 1 << 18 {
                let Ok(piece) = Piece::arbitrary(&mut input) else { break };
                // A client is to mask, and a server not to.
                piece.say(!client, &mut said);
            }
            // Every fourth peer goes away early.
            let deaf_after = if deaf_after < 64 { usize::from(deaf_after) } else { usize::MAX };
            let mut stream = Script::new(said, reading, writing);
            (stream.ends, stream.deaf_after) = (ends, deaf_after);
            hostile(stream, client, usize::from(limit), changing);
        }
        Plan::Honest { to_server, to_client, max_unsent } => {
            honest(&mut input, to_server, to_client, usize::from(max_unsent));
        }
    }
}

impl Piece {
    pub(crate) fn say(&self, masked: bool, said: &mut Vec<u8>) {
        let (first, payload, stated, mask) = match self {
            Self::Bytes(Few(bytes)) => return said.extend_from_slice(bytes),
            Self::Frame { opcode, flags, length, stated, mask, fill } => {
                // Mostly what is allowed.
                let reserved = if *flags > 250 { flags << 4 & 0x70 } else { 0 };
                let mask = if *flags == 249 { None } else { Some(*mask) };
                let last = flags & 1 << 7;
                (last | reserved | opcode & 0x0f, vec![*fill; usize::from(*length)], stated, mask)
            }
            Self::Text { last, text: Few(text) } => {
                (u8::from(*last) << 7 | 1, text.clone(), &Stated::Shortest, Some([7; 4]))
            }
            Self::Ping(Few(payload)) => (0x89, payload.clone(), &Stated::Shortest, Some([0; 4])),
            Self::Close { code, reason: Few(reason) } => {
                let mut payload = code.to_be_bytes().to_vec();
                payload.extend_from_slice(reason);
                (0x88, payload, &Stated::Shortest, Some([0; 4]))
            }
        };
        // The wrong way round now and then.
        let mask = if masked { mask } else { mask.map_or(Some([1; 4]), |_| None) };
        let bit = if mask.is_some() { 0x80 } else { 0 };
        said.push(first);
        match (stated, payload.len()) {
            (Stated::TooMuch(length), _) => {
                said.push(bit | 127);
                said.extend_from_slice(&length.to_be_bytes());
            }
            (Stated::In64, length) | (_, length @ 65_536..) => {
                said.push(bit | 127);
                said.extend_from_slice(&(length as u64).to_be_bytes());
            }
            (Stated::In16, length) | (_, length @ 126..) => {
                said.push(bit | 126);
                said.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            (Stated::Shortest, length) => said.push(bit | u8::try_from(length).unwrap()),
        }
        let mask = mask.inspect(|mask| said.extend_from_slice(mask)).unwrap_or_default();
        said.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

/// How it went with a peer.
#[derive(Debug, PartialEq)]
struct Heard {
    frames: Vec<Frame>,
    ending: Ending,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Ending {
    /// It waits for more.
    Waiting,
    Ended,
    Violation(Violation),
}

fn hostile(stream: Script, client: bool, limit: usize, changing: bool) {
    let (said, ends) = (stream.said().to_vec(), stream.ends);
    let said = &*said;
    let heard = hear(stream, client, limit, changing);
    if changing {
        return;
    }
    // However it is cut, and whether it can be answered or not, it is the same.
    let mut whole = Script::new(said, Pace::whole(), Pace::whole());
    whole.ends = ends;
    let whole = hear(whole, client, limit, false);
    assert_eq!(heard.frames, whole.frames, "it depends on how it is cut");
    // After the close frame, the end is there once the answer to it has left.
    if !matches!(heard.frames.last(), Some(Frame::Close(_))) {
        assert_eq!(heard.ending, whole.ending, "it depends on how it is cut");
    }
    // And as another reader sees it.
    let (frames, ending) = reference(said, client, limit);
    assert_eq!(heard.frames, frames);
    match (ending, heard.ending) {
        (Reference::Silent, ending) => {
            assert_eq!(ending, if ends { Ending::Ended } else { Ending::Waiting });
        }
        // After its close frame nobody listens, and how that ends means nothing.
        (Reference::Closed, _) => {}
        (Reference::Violations(expected), Ending::Violation(found)) => {
            assert!(expected.contains(&found), "{found}, not {expected:?}");
        }
        (expected, found) => panic!("{found:?}, and not {expected:?}"),
    }
}

/// Reads until there is no more.
fn hear(stream: Script, client: bool, limit: usize, changing: bool) -> Heard {
    if client {
        read(client_of(stream), limit, changing)
    } else {
        read(WebSocket::server(stream), limit, changing)
    }
}

fn read<S: Read + Write + Scripted>(mut socket: WebSocket<S>, limit: usize, changing: bool) -> Heard {
    let mut frames: Vec<Frame> = Vec::new();
    let mut ending = Ending::Waiting;
    let mut written = 0;
    for turn in 0..TURNS {
        let limit = if changing { [limit, limit / 2, limit * 2 + 1][turn % 3] } else { limit };
        let before = socket.stream_mut().script().reads;
        socket.stream_mut().script().blocked = false;
        let mut incoming = None;
        let cost = allocation_counter::measure(|| incoming = Some(socket.read(limit)));
        // A message, twice while its fragments are joined and its buffer grows, and the buffers of a connection.
        let bound = 4 * (2 * limit as u64 + 1) + 2 * READ_BUFFER as u64 + (4 << 10);
        assert!(cost.bytes_max <= bound, "{} bytes for a message of at most {limit}", cost.bytes_max);
        let script = socket.stream_mut().script();
        assert!(script.reads - before <= READS, "too much in one go");
        match incoming.unwrap() {
            Incoming::Frame(frame) => {
                match &frame {
                    Frame::Text(text) => assert!(text.len() <= limit, "over the limit"),
                    Frame::Binary(bytes) => assert!(bytes.len() <= limit, "over the limit"),
                    Frame::Ping(payload) | Frame::Pong(payload) => assert!(payload.len() <= 125),
                    Frame::Close(Some(close)) => assert!(close.reason.len() <= 123),
                    Frame::Close(None) => {}
                }
                frames.push(frame);
            }
            // Not all has come, or the peer says no more.
            Incoming::Nothing if script.left() == 0 || !script.blocked => break,
            Incoming::Nothing | Incoming::Enough => {}
            Incoming::Violation(violation) => {
                ending = Ending::Violation(violation);
                break;
            }
            Incoming::Ended => {
                ending = Ending::Ended;
                break;
            }
        }
        let now = socket.bytes_written();
        assert!(now >= written);
        written = now;
    }
    // A close frame can still be sent, and nothing of it panics or hangs.
    let _ = socket.write(Frame::Close(Some(Close { code: 1008, reason: "over".into() })));
    for _ in 0..TURNS {
        if !matches!(socket.flush(), Ok(false)) {
            break;
        }
    }
    let script = socket.stream_mut().script();
    answers(&script.written, script.deaf_after, &frames);
    Heard { frames, ending }
}

/// What was written back: pongs for the pings that came, in their order, and one close frame.
fn answers(written: &[u8], deaf_after: usize, frames: &[Frame]) {
    let pings: Vec<_> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Ping(payload) => Some(payload),
            _ => None,
        })
        .collect();
    let (mut place, mut next, mut closes) = (0, 0, 0);
    while place < written.len() {
        let rest = written.len() - place;
        if written.len() == deaf_after && (rest < 2 || rest < 6 + usize::from(written[place + 1] & 0x7f)) {
            // The last one did not get through.
            break;
        }
        let (opcode, length) = (written[place], usize::from(written[place + 1] & 0x7f));
        let masked = written[place + 1] & 0x80 != 0;
        let (mask, begin) = match masked {
            true => (written[place + 2..place + 6].to_vec(), place + 6),
            false => (vec![0; 4], place + 2),
        };
        let payload: Vec<u8> = written[begin..begin + length]
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        match opcode {
            // The latest of several may stand for all of them.
            0x8a => {
                let found = pings[next..].iter().position(|ping| ***ping == payload);
                next += found.expect("a pong for no ping") + 1;
            }
            0x88 => closes += 1,
            other => panic!("an answer that nobody asked for: {other:02x}"),
        }
        place = begin + length;
    }
    assert!(closes <= 1);
}

/// Where a stream keeps its script.
trait Scripted {
    fn script(&mut self) -> &mut Script;
}

impl Scripted for Script {
    fn script(&mut self) -> &mut Script {
        self
    }
}

/// A stream that is upgraded first, and then is the script.
struct Upgraded {
    script: Script,
    wire: Option<(Wire, Wire)>,
}

impl Scripted for Upgraded {
    fn script(&mut self) -> &mut Script {
        &mut self.script
    }
}

impl Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.wire {
            Some((from, _)) => from.read(buffer),
            None => self.script.read(buffer),
        }
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.wire {
            Some((_, to)) => to.write(bytes),
            None => self.script.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client's side: there is no way to it but by the upgrade.
fn client_of(script: Script) -> WebSocket<Upgraded> {
    let (up, down) = (Wire::new(Pace::whole()), Wire::new(Pace::whole()));
    let stream = Upgraded { script, wire: Some((down.clone(), up.clone())) };
    let mut client = ClientUpgrade::new(stream, request("ws://localhost:3793/").unwrap()).unwrap();
    assert!(matches!(client.proceed(), Ok(Progress::Waiting)));
    let mut server = Ends { from: up, to: down };
    assert!(matches!(ServerUpgrade::new().proceed(&mut server), Ok(Progress::Done(()))));
    let Ok(Progress::Done(mut socket)) = client.proceed() else { panic!("an honest answer is taken") };
    socket.stream_mut().wire = None;
    socket
}

/// One direction of a pipe.
#[derive(Clone)]
struct Wire(Rc<RefCell<Way>>);

struct Way {
    under_way: VecDeque<u8>,
    pace: Pace,
    /// Bytes that were put in or taken out, ever.
    moved: usize,
}

impl Wire {
    fn new(pace: Pace) -> Self {
        Self(Rc::new(RefCell::new(Way { under_way: VecDeque::new(), pace, moved: 0 })))
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Way { under_way, pace, moved } = &mut *self.0.borrow_mut();
        let there = under_way.len().min(buffer.len());
        if there == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = no_interruption(pace.step(there))?;
        under_way.read_exact(&mut buffer[..length])?;
        *moved += length;
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Way { under_way, pace, moved } = &mut *self.0.borrow_mut();
        let length = no_interruption(pace.step(bytes.len()))?;
        under_way.extend(&bytes[..length]);
        *moved += length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn no_interruption(step: io::Result<usize>) -> io::Result<usize> {
    step.map_err(|_| ErrorKind::WouldBlock.into())
}

/// One end of a pipe.
struct Ends {
    from: Wire,
    to: Wire,
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer)
    }
}

impl Write for Ends {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Arbitrary)]
struct Turn {
    from_client: bool,
    what: What,
}

#[derive(Debug, Arbitrary)]
enum What {
    Text(Few),
    Long(u16),
    Binary(Few),
    Ping(Few),
    Pong(Few),
    Close(Option<u16>),
    Flush,
    Read(u8),
}

/// What one end has said that the other has not heard yet.
#[derive(Default)]
struct Said {
    frames: VecDeque<Frame>,
    /// Pings that came, and may be answered.
    pings: VecDeque<Bytes>,
    /// It has said goodbye, or was told so.
    closed: bool,
}

const LIMIT: usize = 1 << 16;

fn honest(input: &mut Unstructured<'_>, to_server: Pace, to_client: Pace, max_unsent: usize) {
    let (up, down) = (Wire::new(Pace::whole()), Wire::new(Pace::whole()));
    let mut client = ClientUpgrade::new(
        Ends { from: down.clone(), to: up.clone() },
        request("ws://localhost:3793/").unwrap(),
    )
    .unwrap();
    assert!(matches!(client.proceed(), Ok(Progress::Waiting)));
    let mut stream = Ends { from: up.clone(), to: down.clone() };
    assert!(matches!(ServerUpgrade::new().proceed(&mut stream), Ok(Progress::Done(()))));
    let mut server = WebSocket::server(stream);
    let Ok(Progress::Done(mut client)) = client.proceed() else { panic!("an honest answer is taken") };
    client.set_max_unsent(max_unsent);
    server.set_max_unsent(max_unsent);
    (up.0.borrow_mut().pace, down.0.borrow_mut().pace) = (to_server, to_client);
    let (mut by_client, mut by_server) = (Said::default(), Said::default());
    while !input.is_empty() {
        let Ok(Turn { from_client, what }) = Turn::arbitrary(input) else { break };
        if from_client {
            turn(&what, &mut client, &mut by_client, &mut by_server, max_unsent);
        } else {
            turn(&what, &mut server, &mut by_server, &mut by_client, max_unsent);
        }
    }
    // In the end all of it has arrived, however slowly: something moves in every round of the paces.
    let (mut moved, mut still) = (0, 0);
    while still < ROUND {
        let flushed = [client.flush(), server.flush()].map(|flushed| flushed.is_ok_and(|all| all));
        let heard = hear_one(&mut client, &mut by_client, &mut by_server)
            | hear_one(&mut server, &mut by_server, &mut by_client);
        let under_way = [&up, &down].map(|wire| wire.0.borrow().under_way.len());
        let before = core::mem::replace(&mut moved, up.0.borrow().moved + down.0.borrow().moved);
        still = if heard || moved > before { 0 } else { still + 1 };
        if !heard && flushed == [true, true] && under_way == [0, 0] {
            break;
        }
        if by_client.closed || by_server.closed {
            // Nobody has to hear what comes after a close frame.
            return;
        }
    }
    for said in [&by_client, &by_server] {
        assert!(said.frames.is_empty(), "never arrived: {:?}", said.frames);
    }
}

fn turn(what: &What, here: &mut WebSocket<Ends>, said: &mut Said, other: &mut Said, max_unsent: usize) {
    let frame = match what {
        What::Flush => {
            let _ = here.flush();
            return;
        }
        What::Read(times) => {
            for _ in 0..*times {
                hear_one(here, said, other);
            }
            return;
        }
        What::Text(Few(text)) => Frame::Text(String::from_utf8_lossy(text).into_owned().into()),
        What::Long(length) => Frame::Text("é".repeat(usize::from(*length) / 2).into()),
        What::Binary(Few(bytes)) => Frame::Binary(bytes.clone().into()),
        What::Ping(Few(bytes)) => Frame::Ping(bytes[..bytes.len().min(125)].to_vec().into()),
        What::Pong(Few(bytes)) => Frame::Pong(bytes[..bytes.len().min(125)].to_vec().into()),
        What::Close(code) => Frame::Close(code.map(|code| Close { code, reason: "bye".into() })),
    };
    let was_closed = said.closed;
    match here.write(frame.clone()) {
        // It may take the place of another pong that waits.
        Ok(()) if matches!(frame, Frame::Pong(_)) => {
            if let Frame::Pong(payload) = frame {
                said.pings.push_back(payload);
            }
        }
        Ok(()) if was_closed => {}
        Ok(()) => {
            said.closed |= matches!(frame, Frame::Close(_));
            said.frames.push_back(frame);
        }
        Err(WriteError::Full(_)) => {
            let room = max_unsent.max(2 * WRITE_BATCH);
            let waiting: usize = said.frames.iter().map(|frame| length(frame) + 14).sum();
            assert!(waiting + length(&frame) + 14 + 139 * said.pings.len() > room, "there is room");
        }
        Err(error) => panic!("{error}"),
    }
}

fn length(frame: &Frame) -> usize {
    match frame {
        Frame::Text(text) => text.len(),
        Frame::Binary(bytes) | Frame::Ping(bytes) | Frame::Pong(bytes) => bytes.len(),
        Frame::Close(close) => close.as_ref().map_or(0, |close| 2 + close.reason.len()),
    }
}

/// Reads once, and looks for it in what the other end has said. Says whether there was something.
fn hear_one(here: &mut WebSocket<Ends>, said: &mut Said, other: &mut Said) -> bool {
    let incoming = here.read(LIMIT);
    let heard = matches!(incoming, Incoming::Frame(_));
    match incoming {
        // An answer of its own, or one to a ping of ours; later pings may stand for the ones before.
        Incoming::Frame(Frame::Pong(payload)) => {
            let answered = other.pings.iter().position(|ping| *ping == payload);
            drop(other.pings.drain(..=answered.expect("a pong for no ping")));
        }
        Incoming::Frame(Frame::Close(close)) => {
            if !said.closed {
                let Some(Frame::Close(sent)) = other.frames.pop_front() else { panic!("closed too early") };
                assert_eq!(close.is_some(), sent.is_some());
            }
            (said.closed, other.closed) = (true, true);
            other.frames.clear();
        }
        Incoming::Frame(frame) => {
            assert_eq!(Some(&frame), other.frames.pop_front().as_ref(), "in order and whole");
            if let Frame::Ping(payload) = frame {
                said.pings.push_back(payload);
            }
        }
        Incoming::Nothing | Incoming::Enough => {}
        Incoming::Ended => assert!(said.closed, "it ended for no reason"),
        other => panic!("{other:?} from an honest peer"),
    }
    heard
}

/// How it ends, to another reader.
#[derive(Debug)]
enum Reference {
    Silent,
    Closed,
    /// Any of these: a frame may break several rules.
    Violations(Vec<Violation>),
}

/// RFC 6455 §5, read at leisure.
fn reference(said: &[u8], client: bool, limit: usize) -> (Vec<Frame>, Reference) {
    let mut frames = Vec::new();
    let mut rest = said;
    let mut joined: Option<(u8, Vec<u8>)> = None;
    loop {
        let Some((header, payload_length)) = header(rest) else { return (frames, Reference::Silent) };
        let too_large = Violation::MessageTooLarge { limit };
        let unknown = matches!(rest[0] & 0x0f, 3..=7 | 0xb..);
        if payload_length > limit as u64 || unknown {
            // What has no meaning at all need not be measured.
            let measured = (payload_length > limit as u64).then_some(too_large);
            let violations = measured.into_iter().chain(unknown.then_some(Violation::WebSocket)).collect();
            return (frames, Reference::Violations(violations));
        }
        let length = usize::try_from(payload_length).unwrap();
        let Some(payload) = rest.get(header..header + length) else { return (frames, Reference::Silent) };
        let (first, masked) = (rest[0], rest[1] & 0x80 != 0);
        let mask: Vec<u8> = if masked { rest[header - 4..header].to_vec() } else { vec![0; 4] };
        let payload: Vec<u8> =
            payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        rest = &rest[header + length..];
        let (last, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let broken = Reference::Violations(vec![Violation::WebSocket]);
        if reserved != 0 || masked == client {
            return (frames, broken);
        }
        if opcode >= 8 {
            if !last || length > 125 {
                return (frames, broken);
            }
            match opcode {
                9 => frames.push(Frame::Ping(payload.into())),
                10 => frames.push(Frame::Pong(payload.into())),
                _ => match payload.as_slice() {
                    [] => {
                        frames.push(Frame::Close(None));
                        return (frames, Reference::Closed);
                    }
                    [high, low, reason @ ..] => {
                        let Ok(reason) = std::str::from_utf8(reason) else {
                            return (
                                frames,
                                Reference::Violations(vec![Violation::NotUtf8, Violation::WebSocket]),
                            );
                        };
                        let code = u16::from_be_bytes([*high, *low]);
                        // Codes that must not be sent are told as a breach of the protocol.
                        let close = match code {
                            1000..=1003 | 1007..=1014 | 3000..=4999 => Close { code, reason: reason.into() },
                            _ => Close { code: 1002, reason: "Protocol violation".into() },
                        };
                        frames.push(Frame::Close(Some(close)));
                        return (frames, Reference::Closed);
                    }
                    _ => return (frames, broken),
                },
            }
            continue;
        }
        let (kind, message) = match (opcode, joined.take()) {
            (0, Some((kind, mut message))) => {
                if message.len() + length > limit {
                    return (frames, Reference::Violations(vec![too_large]));
                }
                message.extend_from_slice(&payload);
                (kind, message)
            }
            (1 | 2, None) => (opcode, payload),
            _ => return (frames, broken),
        };
        if kind == 1
            && let Err(error) = std::str::from_utf8(&message)
            && (last || error.error_len().is_some())
        {
            return (frames, Reference::Violations(vec![Violation::NotUtf8]));
        }
        match (last, kind) {
            (false, _) => joined = Some((kind, message)),
            (true, 1) => frames.push(Frame::Text(String::from_utf8(message).unwrap().into())),
            (true, _) => frames.push(Frame::Binary(message.into())),
        }
    }
}

/// How long a frame's header is, and its payload, once all of the header is there.
fn header(bytes: &[u8]) -> Option<(usize, u64)> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let (length, stated) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    (bytes.len() >= length + mask).then_some((length + mask, stated))
}
