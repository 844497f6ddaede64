//! The whole driver over streams in memory, on a runtime that is one thread and a clock that stands still.
//!
//! Three worlds: a server and hostile clients, a client and a hostile server, and two honest ends. Whatever the peer sends
//! and however the stream behaves: no panic, no busy loop, no task left in the end; what the program is told makes sense, and
//! what honest ends say to each other arrives whole and in order.
//!
//! The driver reads the wall clock for its proofs. Nothing here depends on what that says: where proofs are to hold, the window
//! for them is as wide as all times, and where they are not, they are years away from it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, pending},
    io::ErrorKind,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use futures_channel::oneshot;
use link_driver::{
    Address, Client, ClientEvent, CloseReason, Message, Rejected, SendError, Server, ServerBuilder,
    ServerError, ServerEvent, ServerHandle, Serving, Session, Verdict,
};
use tungstenite::handshake::derive_accept_key;

use crate::{
    connection::{WALLETS, Word, sign},
    sim::{Behaviour, Listener, Sim, Stream},
    websocket::{Few, Piece},
    wire::Pace,
};

/// The first of the signed times. A server takes each once.
const WALL: u64 = 1_795_372_174_071;
/// Longer than from any clock to those times.
const ALL_TIMES: Duration = Duration::from_secs(1 << 40);
const PEERS: usize = 4;
/// A time, counted from the first, that no client of the input signs.
const UNUSED: u8 = 255;
/// Bytes of messages in one world.
const MAX_BYTES: usize = 1 << 17;

#[derive(Debug, Arbitrary)]
enum World {
    Server(ServerSetting),
    Client(ClientSetting),
    Honest(HonestSetting),
}

/// Lets one world run as `input` says.
pub fn driver(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(world) = World::arbitrary(&mut input) else { return };
    Sim::begin();
    match world {
        World::Server(setting) => hostile_clients(&setting, &mut input),
        World::Client(setting) => hostile_server(&setting, &mut input),
        World::Honest(setting) => honest(setting, &mut input),
    }
    assert_eq!(Sim::tasks(), 0, "a task is left");
}

#[derive(Debug, Arbitrary)]
struct Paces {
    reading: Pace,
    writing: Pace,
    capacity: u8,
}

impl Paces {
    fn behaviour(self) -> Behaviour {
        let capacity = match self.capacity {
            0 => usize::MAX,
            some => 16 * usize::from(some),
        };
        Behaviour { reading: self.reading, writing: self.writing, capacity }
    }
}

/// What is there now, of something that would wait.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A frame with `text`, masked as a client's is or not at all.
fn text_frame(text: &str, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).unwrap() {
        length @ ..126 => frame.push(bit | length.to_be_bytes()[1]),
        length => {
            frame.push(bit | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        // A mask of zeros changes nothing.
        frame.extend_from_slice(&[0; 4]);
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn proof(who: u8, at: u8) -> String {
    let (who, at) = (usize::from(who) % WALLETS.len(), WALL + u64::from(at));
    let (address, signature) = (WALLETS[who].address(), sign(who, at));
    format!(r#"{{"type":"authenticate","address":"{address}","timestamp":{at},"signature":"{signature}"}}"#)
}

fn message(n: usize, length: u16) -> Message {
    Message::parse(format!(r#"{{"type":"letter","n":{n},"p":"{}"}}"#, "p".repeat(usize::from(length))))
        .unwrap()
}

// ------------------------------------------------------------------------------------------------ hostile clients

#[derive(Debug, Arbitrary)]
struct ServerSetting {
    /// Whether proofs hold.
    proofs_hold: bool,
    sessions: bool,
    heartbeats: bool,
    idle: bool,
    replace_existing: bool,
    check: Check,
    event_capacity: u8,
    max_send_queue: u16,
    send_timeout: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Check {
    None,
    Allows,
    Denies,
    Panics,
    NeverAnswers,
}

#[derive(Debug, Arbitrary)]
enum ServerAct {
    Arrives {
        attached: bool,
        there: Paces,
        back: Paces,
    },
    /// Arrives, and does at once all that an honest client does.
    Joins {
        attached: bool,
        who: u8,
        there: Paces,
        back: Paces,
    },
    Requests(u8),
    Proves {
        peer: u8,
        who: u8,
        at: u8,
    },
    Talks {
        peer: u8,
        word: Word,
    },
    Says {
        peer: u8,
        piece: Piece,
    },
    SaysAnything {
        peer: u8,
        bytes: Few,
    },
    Reads {
        peer: u8,
        much: u8,
    },
    Ends(u8),
    Cuts(u8),
    Leaves(u8),
    Passes(u16),
    TakesEvents(u8),
    Sends {
        who: u8,
        length: u16,
    },
    Broadcasts(u16),
    Disconnects(u8),
}

struct Told {
    face: Face,
    sessions: Vec<Option<Held>>,
    stages: BTreeMap<u64, Stage>,
    live: BTreeMap<Address, u64>,
    closed: bool,
}

/// How the program hears of its clients.
enum Face {
    Events(Server<Sim>),
    /// By sessions, which the handlers hand on; some of these take a message on the way, and some end at once.
    Sessions(Serving<Sim>, Arc<Mutex<Vec<Held>>>),
}

/// A session, and what its handler waits for.
struct Held {
    session: Session,
    _ends: oneshot::Sender<()>,
}

impl Face {
    fn new(server: Server<Sim>, sessions: bool) -> Self {
        if !sessions {
            return Self::Events(server);
        }
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let arrives = arrived.clone();
        let serving = server.serve(move |mut session| {
            let arrives = arrives.clone();
            async move {
                match session.client().id().get() % 4 {
                    1 => {
                        session.next().await;
                        return Err("a handler that fails");
                    }
                    2 if session.next().await.is_none() => return Ok(()),
                    _ => {}
                }
                let (held, ends) = oneshot::channel();
                arrives.lock().unwrap().push(Held { session, _ends: held });
                let _ = ends.await;
                Ok(())
            }
        });
        Self::Sessions(serving, arrived)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Connected,
    Authenticated,
    Over,
}

impl ServerSetting {
    fn builder(&self) -> ServerBuilder<Sim> {
        let check = self.check;
        let builder = Server::<Sim>::builder()
            .wallet(WALLETS[0].clone())
            .auth_timeout(if self.proofs_hold { ALL_TIMES } else { millis(5_000) })
            .heartbeat_interval(millis(if self.heartbeats { 1_000 } else { 0 }))
            .idle_timeout(millis(if self.idle { 5_000 } else { 0 }))
            .replace_existing(self.replace_existing)
            .event_capacity(usize::from(self.event_capacity))
            .max_send_queue(usize::from(self.max_send_queue))
            .send_timeout(millis(if self.send_timeout { 2_000 } else { 0 }))
            .max_message_size(8_192)
            .max_unauthenticated(PEERS - 1, PEERS);
        match check {
            Check::None => builder,
            _ => builder.on_authenticate(move |_| async move {
                match check {
                    Check::Allows | Check::None => Verdict::allow_with(7_u8),
                    Check::Denies => Verdict::deny(),
                    Check::Panics => std::panic::resume_unwind(Box::new("the program's own affair")),
                    Check::NeverAnswers => pending().await,
                }
            }),
        }
    }
}

fn hostile_clients(setting: &ServerSetting, input: &mut Unstructured<'_>) {
    let listener = Listener::default();
    let server = setting.builder().listen(listener.clone()).unwrap();
    let handle = server.handle();
    let mut told = Told {
        face: Face::new(server, setting.sessions),
        sessions: vec![],
        stages: BTreeMap::new(),
        live: BTreeMap::new(),
        closed: false,
    };
    let (mut peers, mut bytes) = (Vec::<Option<Stream>>::new(), 0);
    told.takes(1);
    while !input.is_empty() && bytes < MAX_BYTES {
        let Ok(act) = ServerAct::arbitrary(input) else { break };
        match act {
            ServerAct::Arrives { attached, there, back } => {
                if peers.len() < PEERS {
                    peers.push(Some(arrive(&handle, &listener, attached, there, back)));
                }
            }
            ServerAct::Joins { attached, who, there, back } => {
                if peers.len() < PEERS {
                    let stream = arrive(&handle, &listener, attached, there, back);
                    if !attached {
                        stream.say(REQUEST.as_bytes());
                        // It waits for the answer, as it has to.
                        Sim::run(patience(bytes));
                    }
                    // Not a time that was signed before.
                    let at = 200 + u8::try_from(peers.len()).unwrap();
                    stream.say(&text_frame(&proof(who, at), true));
                    peers.push(Some(stream));
                }
            }
            ServerAct::Requests(peer) => bytes += say(&peers, peer, REQUEST.as_bytes()),
            ServerAct::Proves { peer, who, at } => {
                bytes += say(&peers, peer, &text_frame(&proof(who, at % UNUSED), true))
            }
            ServerAct::Talks { peer, word } => bytes += say(&peers, peer, &text_frame(&word.text(), true)),
            ServerAct::SaysAnything { peer, bytes: Few(anything) } => bytes += say(&peers, peer, &anything),
            ServerAct::Says { peer, piece } => {
                let mut said = Vec::new();
                piece.say(true, &mut said);
                bytes += say(&peers, peer, &said);
            }
            ServerAct::Reads { peer, much } => {
                if let Some(Some(stream)) = chosen(&mut peers, peer) {
                    stream.take(64 * usize::from(much));
                }
            }
            ServerAct::Ends(peer) => {
                if let Some(Some(stream)) = chosen(&mut peers, peer) {
                    stream.end();
                }
            }
            ServerAct::Cuts(peer) => {
                if let Some(Some(stream)) = chosen(&mut peers, peer) {
                    stream.cut();
                }
            }
            ServerAct::Leaves(peer) => {
                if let Some(stream) = chosen(&mut peers, peer) {
                    *stream = None;
                }
            }
            ServerAct::Passes(by) => Sim::pass(millis(u64::from(by)), patience(bytes)),
            ServerAct::TakesEvents(some) => told.takes(some),
            ServerAct::Sends { who, length } => {
                let address = WALLETS[usize::from(who) % WALLETS.len()].address();
                bytes += usize::from(length);
                match handle.try_send(&address, message(0, length)) {
                    Ok(()) | Err(SendError::Closed | SendError::Full { .. } | SendError::TooLarge { .. }) => {
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            ServerAct::Broadcasts(length) => {
                bytes += usize::from(length);
                match handle.broadcast(message(0, length)) {
                    Ok(reached) => assert!(reached <= peers.len()),
                    Err(error) => assert!(matches!(error, SendError::TooLarge { .. })),
                }
            }
            ServerAct::Disconnects(who) => {
                if let Some(peer) = handle.client(&WALLETS[usize::from(who) % WALLETS.len()].address()) {
                    peer.close();
                    assert!(!peer.is_connected() && peer.try_send(message(0, 0)).is_err());
                }
            }
        }
        Sim::run(patience(bytes));
        let addresses: Vec<_> = handle.clients().iter().map(|peer| peer.address()).collect();
        for (place, address) in addresses.iter().enumerate() {
            assert!(!addresses[..place].contains(address), "two have one address");
        }
    }
    // When all have left, nothing of them is in the way of others.
    drop(peers);
    told.waits(patience(bytes));
    let attached: Vec<_> = (0..PEERS - 1)
        .map(|_| {
            let (ours, theirs) = Stream::pair(Behaviour::default(), Behaviour::default());
            handle.attach(theirs, SocketAddr::from(([192, 0, 2, 7], 1_024))).expect("a place is free");
            ours
        })
        .collect();
    told.waits(patience(bytes));
    drop(attached);
    told.waits(patience(bytes));
    for who in 0..3 {
        let (ours, theirs) = Stream::pair(Behaviour::default(), Behaviour::default());
        listener.push(theirs, SocketAddr::from(([192, 0, 2, 7], 1_024)));
        ours.say(REQUEST.as_bytes());
        told.waits(patience(bytes));
        ours.say(&text_frame(&proof(who, UNUSED), true));
        Sim::run(patience(bytes));
        let address = WALLETS[usize::from(who)].address();
        let welcome = setting.proofs_hold && matches!(setting.check, Check::None | Check::Allows);
        assert_eq!(handle.client(&address).is_some(), welcome, "an honest client");
        drop(ours);
        told.waits(patience(bytes));
    }
    told.closes(&handle, patience(bytes));
}

fn arrive(
    handle: &ServerHandle<Sim>,
    listener: &Listener,
    attached: bool,
    there: Paces,
    back: Paces,
) -> Stream {
    let (ours, theirs) = Stream::pair(there.behaviour(), back.behaviour());
    let from = SocketAddr::from(([192, 0, 2, 7], 1_024));
    if attached {
        // Refused only for want of places.
        let _ = handle.attach(theirs, from);
    } else {
        listener.push(theirs, from);
    }
    ours
}

/// Says something as one of them, and how much that was.
fn say(peers: &[Option<Stream>], peer: u8, said: &[u8]) -> usize {
    if let Some(Some(peer)) = peers.get(usize::from(peer) % peers.len().max(1)) {
        peer.say(said);
    }
    said.len()
}

fn chosen(peers: &mut [Option<Stream>], peer: u8) -> Option<&mut Option<Stream>> {
    let count = peers.len().max(1);
    peers.get_mut(usize::from(peer) % count)
}

/// Polls that so many bytes may take: each may come alone, after it did not come for a while.
const fn patience(bytes: usize) -> usize {
    100_000 + 64 * bytes
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost:3793\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Told {
    /// The program takes up to so many events.
    fn takes(&mut self, some: u8) {
        for _ in 0..some {
            if !self.take() {
                return;
            }
        }
    }

    /// Takes one, and says whether there was one.
    fn take(&mut self) -> bool {
        let told = match &mut self.face {
            Face::Events(server) => now(server.next()),
            Face::Sessions(serving, arrived) => {
                let arrived = std::mem::take(&mut *arrived.lock().unwrap());
                self.sessions.extend(arrived.into_iter().map(Some));
                now(serving.next())
            }
        };
        let took = self.take_from_sessions();
        match told {
            None => took,
            Some(None) => {
                assert!(self.closed, "the events end with `Close`");
                took
            }
            Some(Some(event)) => {
                assert!(!self.closed, "after the last: {event:?}");
                self.hear(event);
                true
            }
        }
    }

    fn take_from_sessions(&mut self) -> bool {
        let mut took = false;
        for slot in &mut self.sessions {
            let Some(Held { session, .. }) = slot else { continue };
            match now(session.next()) {
                Some(Some(_)) => took = true,
                Some(None) => {
                    assert!(session.close_reason().is_some(), "an end without a reason");
                    assert!(!session.client().is_connected());
                    *slot = None;
                }
                None => {}
            }
        }
        took
    }

    fn hear(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Connected { id, .. } => {
                assert_eq!(self.stages.insert(id.get(), Stage::Connected), None);
            }
            ServerEvent::Authenticated(peer) => {
                let before = self.stages.insert(peer.id().get(), Stage::Authenticated);
                assert_eq!(before, Some(Stage::Connected));
                let other = self.live.insert(peer.address(), peer.id().get());
                assert_eq!(other, None, "the end of its predecessor was not told");
            }
            ServerEvent::Message(peer, _)
            | ServerEvent::Heartbeat(peer, _)
            | ServerEvent::Error(ServerError::Violation { client: peer, .. }) => {
                assert_eq!(self.stages.get(&peer.id().get()), Some(&Stage::Authenticated));
            }
            ServerEvent::Disconnected(peer, _) => {
                assert_eq!(self.stages.insert(peer.id().get(), Stage::Over), Some(Stage::Authenticated));
                assert_eq!(self.live.remove(&peer.address()), Some(peer.id().get()));
                assert!(!peer.is_connected());
            }
            ServerEvent::Rejected(rejected) => {
                let Rejected { id, reason, .. } = *rejected;
                let before = self.stages.insert(id.get(), Stage::Over);
                assert!(
                    matches!(before, None | Some(Stage::Connected)),
                    "{before:?}, and rejected: {reason}"
                );
            }
            ServerEvent::Error(_) => {}
            ServerEvent::Close => self.closed = true,
            other => panic!("an event that is not known: {other:?}"),
        }
    }

    /// A second goes by, in which the program takes what it is told.
    fn waits(&mut self, patience: usize) {
        for _ in 0..8 {
            Sim::run(patience);
            while self.take() {
                Sim::run(patience);
            }
            Sim::pass(millis(250), patience);
        }
    }

    /// Closes the server, and sees that nothing of it is left.
    fn closes(&mut self, handle: &ServerHandle<Sim>, patience: usize) {
        let gone = Arc::new(AtomicBool::new(false));
        let (closing, flag) = (handle.clone(), gone.clone());
        <Sim as link_driver::Runtime>::spawn(async move {
            closing.close().await;
            flag.store(true, Ordering::Relaxed);
        });
        for _ in 0..30 {
            Sim::run(patience);
            while self.take() {
                Sim::run(patience);
            }
            Sim::pass(millis(250), patience);
        }
        assert!(gone.load(Ordering::Relaxed), "it does not close");
        assert!(self.closed, "the last event is missing");
        let open: Vec<_> = self.stages.iter().filter(|(_, stage)| **stage != Stage::Over).collect();
        assert!(open.is_empty() && self.live.is_empty(), "their end was not told: {open:?}");
        assert!(self.sessions.iter().all(Option::is_none), "a session goes on");
        let stats = handle.stats();
        assert_eq!((stats.unauthenticated, stats.authenticated), (0, 0));
        assert!(handle.clients().is_empty());
    }
}

// -------------------------------------------------------------------------------------------------- hostile server

#[derive(Debug, Arbitrary)]
struct ClientSetting {
    proofs_hold: bool,
    heartbeats: bool,
    idle: bool,
    expects: bool,
    retry_refusals: bool,
    attempts: u8,
    event_capacity: u8,
    max_send_queue: u16,
    /// What becomes of each dial.
    dials: [u8; 4],
}

#[derive(Debug, Arbitrary)]
enum ClientAct {
    Answers,
    /// Does at once all that an honest server does.
    Welcomes {
        at: u8,
    },
    Proves {
        who: u8,
        at: u8,
    },
    Talks(Word),
    Says(Piece),
    SaysAnything(Few),
    Reads(u8),
    Ends,
    Cuts,
    Leaves,
    Passes(u16),
    TakesEvents(u8),
    Sends(u16),
    Disconnects,
}

#[derive(Default)]
struct Lines {
    dialled: usize,
    /// The last one's other end.
    line: Option<Stream>,
    behaviours: VecDeque<(Behaviour, Behaviour)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Line {
    None,
    Connected,
    Authenticated,
    /// It has given up.
    Over,
}

fn hostile_server(setting: &ClientSetting, input: &mut Unstructured<'_>) {
    let lines = Arc::new(Mutex::new(Lines::default()));
    for _ in 0..2 {
        let (Ok(there), Ok(back)) = (Paces::arbitrary(input), Paces::arbitrary(input)) else { return };
        lines.lock().unwrap().behaviours.push_back((there.behaviour(), back.behaviour()));
    }
    let (dials, dialling) = (setting.dials, lines.clone());
    let attempts = u32::from(setting.attempts % 4);
    let mut builder = Client::<Sim>::builder()
        .wallet(WALLETS[1].clone())
        .auth_timeout(if setting.proofs_hold { ALL_TIMES } else { millis(5_000) })
        .heartbeat_interval(millis(if setting.heartbeats { 1_000 } else { 0 }))
        .idle_timeout(millis(if setting.idle { 5_000 } else { 0 }))
        .max_reconnect_attempts(attempts)
        // Without a delay there is nothing to draw.
        .reconnect_delay(Duration::ZERO)
        .reconnect_reset_after(Duration::MAX)
        .retry_refusals(setting.retry_refusals)
        .event_capacity(usize::from(setting.event_capacity))
        .max_send_queue(usize::from(setting.max_send_queue))
        .max_message_size(8_192)
        .connector(move |_| {
            let lines = dialling.clone();
            async move {
                let mut lines = lines.lock().unwrap();
                let place = lines.dialled;
                lines.dialled += 1;
                match dials[place % dials.len()] {
                    255 => Err(ErrorKind::ConnectionRefused.into()),
                    _ => {
                        let (there, back) = lines.behaviours.pop_front().unwrap_or_default();
                        let (ours, theirs) = Stream::pair(there, back);
                        lines.line = Some(ours);
                        Ok(theirs)
                    }
                }
            }
        });
    if setting.expects {
        builder = builder.expect_server(WALLETS[0].address());
    }
    let mut client = builder.start().unwrap();
    let (mut line, mut bytes) = (Line::None, 0);
    while !input.is_empty() && bytes < MAX_BYTES {
        let Ok(act) = ClientAct::arbitrary(input) else { break };
        let mut say = |said: &[u8]| {
            bytes += said.len();
            if let Some(line) = &lines.lock().unwrap().line {
                line.say(said);
            }
        };
        match act {
            ClientAct::Answers => {
                let asked = lines.lock().unwrap().line.as_ref().map(|line| line.take(4_096));
                if let Some(answer) = asked.and_then(|asked| answer(&asked)) {
                    say(answer.as_bytes());
                }
            }
            ClientAct::Welcomes { at } => {
                let asked = lines.lock().unwrap().line.as_ref().map(|line| line.take(4_096));
                if let Some(answer) = asked.and_then(|asked| answer(&asked)) {
                    say(answer.as_bytes());
                }
                say(&text_frame(&proof(0, at), false));
            }
            ClientAct::Proves { who, at } => say(&text_frame(&proof(who, at), false)),
            ClientAct::Talks(word) => say(&text_frame(&word.text(), false)),
            ClientAct::SaysAnything(Few(anything)) => say(&anything),
            ClientAct::Says(piece) => {
                let mut said = Vec::new();
                piece.say(false, &mut said);
                say(&said);
            }
            ClientAct::Reads(much) => {
                if let Some(line) = &lines.lock().unwrap().line {
                    line.take(64 * usize::from(much));
                }
            }
            ClientAct::Ends => {
                if let Some(line) = &lines.lock().unwrap().line {
                    line.end();
                }
            }
            ClientAct::Cuts => {
                if let Some(line) = &lines.lock().unwrap().line {
                    line.cut();
                }
            }
            ClientAct::Leaves => drop(lines.lock().unwrap().line.take()),
            ClientAct::Passes(by) => Sim::pass(millis(u64::from(by)), patience(bytes)),
            ClientAct::TakesEvents(some) => {
                for _ in 0..some {
                    if !tell(&mut client, &mut line, attempts) {
                        break;
                    }
                }
            }
            ClientAct::Sends(length) => {
                bytes += usize::from(length);
                let authenticated = client.is_authenticated();
                match client.try_send(message(0, length)) {
                    Ok(()) => assert!(authenticated),
                    Err(SendError::NotAuthenticated) => assert!(!authenticated),
                    Err(SendError::Full { .. } | SendError::TooLarge { .. } | SendError::Closed) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            ClientAct::Disconnects => {
                client.disconnect();
                assert!(client.try_send(message(0, 0)).is_err());
            }
        }
        Sim::run(patience(bytes));
        assert!(lines.lock().unwrap().dialled <= 1 + attempts as usize, "dialled more often than it may");
    }
    client.disconnect();
    // A server that takes nothing has 30 s, and then a second for its end.
    for _ in 0..35 {
        Sim::run(patience(bytes));
        while tell(&mut client, &mut line, attempts) {
            Sim::run(patience(bytes));
        }
        Sim::pass(millis(1_000), patience(bytes));
    }
    assert!(now(client.next()) == Some(None), "the events do not end");
    assert!(matches!(line, Line::None | Line::Over), "its end was not told: {line:?}");
}

/// The program takes an event, if there is one.
fn tell(client: &mut Client<Sim>, line: &mut Line, attempts: u32) -> bool {
    let Some(Some(event)) = now(client.next()) else { return false };
    assert_ne!(*line, Line::Over, "after it gave up: {event:?}");
    match event {
        ClientEvent::Connected => {
            assert_eq!(std::mem::replace(line, Line::Connected), Line::None);
        }
        ClientEvent::Authenticated { server, .. } => {
            assert_eq!(std::mem::replace(line, Line::Authenticated), Line::Connected);
            assert_ne!(server, client.address(), "a reflection");
        }
        ClientEvent::Message(_) | ClientEvent::Heartbeat { .. } => assert_eq!(*line, Line::Authenticated),
        ClientEvent::Disconnected { .. } => {
            let before = std::mem::replace(line, Line::None);
            assert!(matches!(before, Line::Connected | Line::Authenticated), "{before:?}");
        }
        ClientEvent::Reconnecting { attempt, .. } => {
            assert_eq!(*line, Line::None);
            assert!((1..=attempts).contains(&attempt));
        }
        ClientEvent::ConnectionFailed(_) => {
            assert_eq!(std::mem::replace(line, Line::Over), Line::None);
        }
        ClientEvent::Error(_) => {}
        other => panic!("an event that is not known: {other:?}"),
    }
    true
}

/// The answer to a client's request, if that is what it is.
fn answer(asked: &[u8]) -> Option<String> {
    let asked = String::from_utf8_lossy(asked);
    let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    let accept = derive_accept_key(key.as_bytes());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

// --------------------------------------------------------------------------------------------------------- honest

#[derive(Debug, Arbitrary)]
struct HonestSetting {
    there: Paces,
    back: Paces,
    event_capacity: u8,
}

#[derive(Debug, Arbitrary)]
enum HonestAct {
    ClientSends(u16),
    ServerSends(u16),
    Bursts {
        by_client: bool,
        count: u8,
    },
    Passes(u16),
    /// The programs do not look at their events for one act.
    LooksAway,
    Cuts,
}

struct Honest {
    server: Server<Sim>,
    client: Client<Sim>,
    /// Accepted from the one, and not heard by the other.
    to_server: VecDeque<Message>,
    to_client: VecDeque<Message>,
    cut: bool,
    client_gone: bool,
    server_gone: bool,
}

fn honest(setting: HonestSetting, input: &mut Unstructured<'_>) {
    let listener = Listener::default();
    let server = Server::<Sim>::builder()
        .wallet(WALLETS[0].clone())
        .auth_timeout(ALL_TIMES)
        .event_capacity(usize::from(setting.event_capacity))
        .listen(listener.clone())
        .unwrap();
    let (ours, theirs) = Stream::pair(setting.there.behaviour(), setting.back.behaviour());
    listener.push(theirs, SocketAddr::from(([192, 0, 2, 7], 1_024)));
    let cutter = ours.cutter();
    let dialled = Arc::new(Mutex::new(Some(ours)));
    let client = Client::<Sim>::builder()
        .wallet(WALLETS[1].clone())
        .auth_timeout(ALL_TIMES)
        .max_reconnect_attempts(0)
        .event_capacity(usize::from(setting.event_capacity))
        .connector(move |_| {
            let stream = dialled.lock().unwrap().take().ok_or(ErrorKind::ConnectionRefused.into());
            async move { stream }
        })
        .start()
        .unwrap();
    let mut world = Honest {
        server,
        client,
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
        cut: false,
        client_gone: false,
        server_gone: false,
    };
    // Nobody is accepted before somebody asks.
    assert!(!world.server_hears());
    world.goes_on(0);
    assert!(world.client.is_authenticated(), "two honest ends have met");
    let (mut bytes, mut sent, mut away) = (0, 0, false);
    while !input.is_empty() && bytes < MAX_BYTES {
        let Ok(act) = HonestAct::arbitrary(input) else { break };
        let mut looks_away = false;
        match act {
            HonestAct::ClientSends(length) => world.sends(true, length % 5_000, &mut bytes, &mut sent),
            HonestAct::ServerSends(length) => world.sends(false, length % 5_000, &mut bytes, &mut sent),
            HonestAct::Bursts { by_client, count } => {
                for _ in 0..count {
                    world.sends(by_client, 0, &mut bytes, &mut sent);
                }
            }
            // Nobody is judged by a program that does not look.
            HonestAct::Passes(_) if away => {}
            HonestAct::Passes(by) => {
                for _ in 0..by / 500 {
                    Sim::pass(millis(500), patience(bytes));
                    world.goes_on(bytes);
                }
                Sim::pass(millis(u64::from(by % 500)), patience(bytes));
            }
            HonestAct::LooksAway => looks_away = true,
            HonestAct::Cuts => {
                cutter();
                world.cut = true;
            }
        }
        away = looks_away;
        if away {
            Sim::run(patience(bytes));
        } else {
            world.goes_on(bytes);
        }
    }
    world.goes_on(bytes);
    world.ends(bytes);
}

impl Honest {
    fn sends(&mut self, by_client: bool, length: u16, bytes: &mut usize, sent: &mut usize) {
        let message = message(*sent, length);
        let accepted = match by_client {
            true => self.client.try_send(&message).is_ok(),
            false => self.server.handle().try_send(&WALLETS[1].address(), &message).is_ok(),
        };
        assert!(accepted || self.cut, "an honest line is there");
        if accepted {
            *bytes += message.as_str().len();
            *sent += 1;
            match by_client {
                true => self.to_server.push_back(message),
                false => self.to_client.push_back(message),
            }
        }
    }

    /// Everything that can happen happens, and the programs hear of it.
    fn goes_on(&mut self, bytes: usize) {
        loop {
            Sim::run(patience(bytes));
            if !(self.server_hears() | self.client_hears()) {
                break;
            }
        }
        if !self.cut {
            let missing = (self.to_server.len(), self.to_client.len());
            assert_eq!(missing, (0, 0), "accepted, and not arrived");
        }
    }

    fn server_hears(&mut self) -> bool {
        let Some(Some(event)) = now(self.server.next()) else { return false };
        match event {
            ServerEvent::Message(_, message) => {
                assert_eq!(Some(message), self.to_server.pop_front(), "in order and whole");
            }
            ServerEvent::Disconnected(_, reason) => {
                assert!(self.cut || self.client_gone, "{reason}");
                self.server_gone = true;
            }
            ServerEvent::Rejected(rejected) => assert!(self.cut, "{}", rejected.reason),
            ServerEvent::Error(error) => panic!("{error}"),
            _ => {}
        }
        true
    }

    fn client_hears(&mut self) -> bool {
        let Some(Some(event)) = now(self.client.next()) else { return false };
        match event {
            ClientEvent::Message(message) => {
                assert_eq!(Some(message), self.to_client.pop_front(), "in order and whole");
            }
            ClientEvent::Disconnected { reason, .. } => {
                assert!(self.cut || reason == CloseReason::Local, "{reason}");
            }
            ClientEvent::ConnectionFailed(failure) => assert!(self.cut, "{failure}"),
            ClientEvent::Error(error) => assert!(self.cut, "{error}"),
            _ => {}
        }
        true
    }

    /// The client says goodbye, and then the server closes.
    fn ends(&mut self, bytes: usize) {
        self.client_gone = true;
        self.client.disconnect();
        for _ in 0..10 {
            self.goes_on(bytes);
            Sim::pass(millis(250), patience(bytes));
        }
        assert!(self.server_gone || self.cut, "it was not told");
        let handle = self.server.handle();
        let gone = Arc::new(AtomicBool::new(false));
        let flag = gone.clone();
        <Sim as link_driver::Runtime>::spawn(async move {
            handle.close().await;
            flag.store(true, Ordering::Relaxed);
        });
        for _ in 0..30 {
            self.goes_on(bytes);
            Sim::pass(millis(250), patience(bytes));
        }
        assert!(gone.load(Ordering::Relaxed), "it does not close");
    }
}
