//! A Link server without any runtime: one thread, mio to wait, link-websocket to frame, and link-core to decide.
//!
//! This is the model of an event loop of your own. `cargo run --release --example custom-event-loop` starts it with
//! three clients and ends; with an address, such as `127.0.0.1:3793`, it serves until Ctrl-C. Top to bottom:
//!
//! - [`Server`] waits, and gives each client that has something to do its **turn**. It owns what clients share.
//! - [`Client`] has its turn: read what is there, look at the clock, do what the [`Connection`] says, flush **once**.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use link_core::{
    Admission, AdmissionConfig, Admitted, CloseReason, Config, Connection, ConnectionId, Event, Frame,
    Incoming, Instant, Now, Output, PrivateKey, UnixMillis, Wallet,
};
use link_websocket::{OVERLOADED, Progress, ServerUpgrade, WebSocket, WriteError};
use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// Connections that are accepted in one turn, and frames that are read in the turn of one client.
const TURN: usize = 64;
/// Bytes that may wait for a client that does not read.
const MAX_UNSENT: usize = 4 << 20;
/// How long a client may take nothing of what is sent to it.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for our last words.
const LINGER: Duration = Duration::from_secs(1);
/// How long to wait when the system has no connection to give, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everybody's: the socket that listens, the clients, the timers, and the memory across connections.
struct Server {
    poll: Poll,
    /// `None` once the server is closing.
    listener: Option<TcpListener>,
    config: Arc<Config>,
    admission: Admission,
    clients: HashMap<Token, Client>,
    /// Numbers are never used twice: `Admission` knows connections by them.
    tokens: std::ops::RangeFrom<usize>,
    timers: BinaryHeap<Reverse<(Instant, Token)>>,
    /// Who has a turn. mio tells of a change once, so whoever stops before `WouldBlock` stays in here.
    ready: BTreeSet<Token>,
    origin: std::time::Instant,
}

impl Server {
    fn bind(address: SocketAddr, wallet: Wallet) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener: Some(listener),
            config: Arc::new(Config::server(wallet)),
            admission: Admission::new(AdmissionConfig::default()),
            clients: HashMap::new(),
            tokens: 2..,
            timers: BinaryHeap::new(),
            ready: BTreeSet::new(),
            origin: std::time::Instant::now(),
        })
    }

    /// What both clocks say. The core reads none: it is told.
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: Instant::from_origin(self.origin.elapsed()),
            wall: UnixMillis::saturating(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The loop. It ends when the server was told to close and the last client is gone.
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while self.listener.is_some() || !self.clients.is_empty() {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let now = self.now();
            self.ready.extend(events.iter().map(mio::event::Event::token));
            while let Some(Reverse((due, token))) = self.timers.peek()
                && *due <= now.mono
            {
                self.ready.insert(*token);
                self.timers.pop();
            }
            for token in std::mem::take(&mut self.ready) {
                match token {
                    LISTENER => self.accept(now),
                    WAKER => self.close(now),
                    client => self.turn(client, now),
                }
            }
        }
        Ok(())
    }

    /// How long nothing is to be done unless something comes.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.peek().map(|Reverse((due, _))| due.since(self.now().mono))
    }

    fn accept(&mut self, now: Now) {
        for _ in 0..TURN {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, remote)) => self.welcome(stream, remote, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer's own doing: it was gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    println!("cannot accept: {error}");
                    self.timers.push(Reverse((now.mono.after(ACCEPT_PAUSE), LISTENER)));
                    return;
                }
            }
        }
        self.ready.insert(LISTENER);
    }

    fn welcome(&mut self, mut stream: TcpStream, remote: SocketAddr, now: Now) {
        let Some(token) = self.tokens.next().map(Token) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        // The loop batches, so the kernel need not.
        if stream.set_nodelay(true).is_err()
            || self.poll.registry().register(&mut stream, token, interest).is_err()
        {
            return;
        }
        if self.admission.arrive(id(token), Some(remote.ip())).is_err() {
            answer(&mut stream, OVERLOADED);
            return;
        }
        self.clients.insert(token, Client::new(id(token), stream, self.config.clone(), now));
        self.turn(token, now);
    }

    /// Gives a client its turn, and sees to what follows from it for the others.
    fn turn(&mut self, token: Token, now: Now) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let replaced = client.turn(now, &mut self.admission);
        if client.gone {
            self.clients.remove(&token);
            // Once more does no harm: numbers are never used again.
            self.admission.release(id(token));
        } else {
            if client.more {
                self.ready.insert(token);
            }
            // Activity moves the deadline and leaves the timer: it is set again only to fire earlier, or once it has
            // fired.
            client.armed = client.armed.filter(|armed| *armed > now.mono);
            if let Some(due) = client.deadline()
                && client.armed.is_none_or(|armed| due < armed)
            {
                client.armed = Some(due);
                self.timers.push(Reverse((due, token)));
            }
        }
        // At once, so that it cannot say anything more.
        if let Some(ConnectionId(old)) = replaced {
            self.end(Token(usize::try_from(old).unwrap_or_default()), CloseReason::Replaced, now);
        }
    }

    fn end(&mut self, token: Token, reason: CloseReason, now: Now) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.connection.close(reason, now);
            self.turn(token, now);
        }
    }

    /// Nobody new comes in, and everybody is told; [`run`](Self::run) ends with the last of them.
    fn close(&mut self, now: Now) {
        self.listener = None;
        for token in self.clients.keys().copied().collect::<Vec<_>>() {
            self.end(token, CloseReason::ShuttingDown, now);
        }
    }
}

const fn id(token: Token) -> ConnectionId {
    ConnectionId(token.0 as u64)
}

/// One client, from the TCP connection to its end.
struct Client {
    id: ConnectionId,
    line: Line,
    /// There from the start, so that its deadline covers the upgrade as well.
    connection: Connection,
    /// It has authenticated.
    known: bool,
    /// The turn ended before there was nothing to read any more.
    more: bool,
    /// It does not take what it is sent, since then, after that many bytes. Meanwhile it is not read either, so that what
    /// it asks for cannot pile up.
    stalled: Option<(Instant, u64)>,
    /// The connection is over, and the transport has until then to end.
    leaving: Option<Instant>,
    /// Our direction has been ended.
    shut: bool,
    gone: bool,
    /// The time for which a timer is set. It may be earlier than the deadline, never later.
    armed: Option<Instant>,
}

enum Line {
    /// Still HTTP.
    Upgrading(TcpStream, ServerUpgrade),
    Open(Box<WebSocket<TcpStream>>),
    /// On the way from the one to the other.
    Between,
}

impl Client {
    fn new(id: ConnectionId, stream: TcpStream, config: Arc<Config>, now: Now) -> Self {
        let line = Line::Upgrading(stream, ServerUpgrade::new());
        let connection = Connection::server(config, now);
        Self {
            id,
            line,
            connection,
            known: false,
            more: false,
            stalled: None,
            leaving: None,
            shut: false,
            gone: false,
            armed: None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let stalled = self.stalled.map(|(since, _)| since.after(SEND_TIMEOUT));
        self.leaving.or_else(|| [self.connection.poll_timeout(), stalled].into_iter().flatten().min())
    }

    /// Whatever the occasion, a turn is the same. Says whom this client has replaced, if it just has.
    fn turn(&mut self, now: Now, admission: &mut Admission) -> Option<ConnectionId> {
        // First what may wait already: if the connection was closed, its client is not heard any more.
        let mut replaced = self.drain(now, admission);
        self.more = false;
        for _ in 0..TURN {
            if self.leaving.is_some() || self.stalled.is_some() || !self.read(now) {
                break;
            }
            // After each frame, since one may end the connection, or lift the limit for the next.
            replaced = replaced.or(self.drain(now, admission));
        }
        // After the frames, so that a client which did answer is not judged by our own delay.
        self.connection.handle_timeout(now);
        if self.stalled.is_some_and(|(since, _)| since.after(SEND_TIMEOUT) <= now.mono) {
            self.connection.close(CloseReason::SlowPeer, now);
        }
        replaced = replaced.or(self.drain(now, admission));
        let flushed = self.flush(now);
        if let Some(until) = self.leaving {
            self.gone = (flushed && self.see_off()) || until <= now.mono;
        }
        replaced
    }

    /// Feeds the connection one frame, or how it ended. Says whether to go on.
    fn read(&mut self, now: Now) -> bool {
        // As long as nobody says otherwise, the turn's bound is what ends it.
        self.more = true;
        match &mut self.line {
            Line::Open(websocket) => match websocket.read(self.connection.receive_limit()) {
                Incoming::Frame(frame) => self.connection.handle_frame(frame, now),
                Incoming::Violation(violation) => self.connection.handle_violation(violation, now),
                Incoming::Ended => self.connection.handle_transport_closed(now),
                Incoming::Enough => return false,
                Incoming::Nothing => {
                    self.more = false;
                    return false;
                }
            },
            _ => return self.upgrade(now),
        }
        true
    }

    /// Goes on with the HTTP upgrade, as far as that goes without waiting. Says whether there may be frames.
    fn upgrade(&mut self, now: Now) -> bool {
        let line = std::mem::replace(&mut self.line, Line::Between);
        let Line::Upgrading(mut stream, mut upgrade) = line else { return false };
        match upgrade.proceed(&mut stream) {
            Ok(Progress::Done(())) => {
                self.line = Line::Open(Box::new(WebSocket::server(stream)));
                return true;
            }
            Ok(Progress::Waiting) => self.more = false,
            Ok(Progress::Enough) => {}
            Err(error) => {
                answer(&mut stream, error.answer().unwrap_or_default());
                self.connection.close(error.reason(), now);
            }
        }
        self.line = Line::Upgrading(stream, upgrade);
        false
    }

    /// Does what the connection says, in its order.
    fn drain(&mut self, now: Now, admission: &mut Admission) -> Option<ConnectionId> {
        let mut replaced = None;
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Send(frame) => self.write(frame, now),
                Output::Event(event) => replaced = replaced.or(self.tell(event, now, admission)),
                Output::CloseTransport => self.leaving = Some(now.mono.after(LINGER)),
            }
        }
        replaced
    }

    /// The application: lets everybody in, and sends every message back.
    fn tell(&mut self, event: Event, now: Now, admission: &mut Admission) -> Option<ConnectionId> {
        let ConnectionId(number) = self.id;
        match event {
            Event::AdmissionRequested { ticket } => {
                let admitted = admission
                    .screen(ticket.proof(), now.wall)
                    // A check of your own goes here. It may take its time: keep the ticket, and decide later.
                    .and_then(|()| admission.admit(ticket.address(), self.id));
                // The ticket is this connection's, and fresh.
                let _ = self.connection.decide(ticket, admitted.map(drop), now);
                if let Ok(Admitted::Replaces(old)) = admitted {
                    return Some(old);
                }
            }
            Event::Authenticated { address, .. } => {
                println!("server   {number} is {address}");
                self.known = true;
                if let Line::Open(websocket) = &mut self.line {
                    websocket.set_max_unsent(MAX_UNSENT);
                }
            }
            Event::Message(message) => {
                if let Err(misuse) = self.connection.send(message, now) {
                    println!("server   {number} not answered: {misuse}");
                }
            }
            // Its address is free from here on. A stranger keeps its place until its socket is closed, and is not talked
            // about: anybody could make us talk without end.
            Event::Closed { reason } if self.known => {
                println!("server   {number} is gone: {reason}");
                admission.release(self.id);
            }
            _ => {}
        }
        None
    }

    /// Takes a frame for the flush at the end of the turn.
    fn write(&mut self, frame: Frame, now: Now) {
        match (&mut self.line, frame) {
            (Line::Open(websocket), frame) => {
                let written = websocket.write(frame);
                // A stream that is broken tells the reads: what the peer said before is still heard.
                if written == Err(WriteError::Full) {
                    self.connection.close(CloseReason::SlowPeer, now);
                }
            }
            // Who did not become a WebSocket in time is refused with the same text: it is HTTP.
            (Line::Upgrading(stream, _), Frame::Text(status)) => answer(stream, &status),
            _ => {}
        }
    }

    /// Sends what waits, **once** a turn. Says whether nothing waits any more.
    fn flush(&mut self, now: Now) -> bool {
        let Line::Open(websocket) = &mut self.line else { return true };
        // A stream that is broken tells the reads.
        let flushed = websocket.flush().unwrap_or(true);
        let written = websocket.bytes_written();
        match self.stalled {
            None if flushed => {}
            None => {
                self.stalled = Some((now.mono, written));
                // Its silence says nothing while nobody listens.
                self.connection.handle_reads_paused(now);
            }
            Some(_) if flushed => {
                self.stalled = None;
                self.more = true;
                self.connection.handle_reads_resumed(now);
            }
            Some((_, before)) if before == written => {}
            Some(_) => self.stalled = Some((now.mono, written)),
        }
        flushed
    }

    /// Ends our direction, and drops what still comes until the peer has ended its own. Without that the system
    /// would answer unread bytes with a reset, which may overtake our last words. Says whether it is over.
    fn see_off(&mut self) -> bool {
        let stream = match &mut self.line {
            Line::Open(websocket) => websocket.stream_mut(),
            Line::Upgrading(stream, _) => stream,
            Line::Between => return true,
        };
        // Once: each time, the system would say that there is news.
        if !std::mem::replace(&mut self.shut, true) {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut waste = [0; 4 << 10];
        for _ in 0..TURN {
            match stream.read(&mut waste) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Ok(0) | Err(_) => return true,
            }
        }
        self.more = true;
        false
    }
}

/// Answers in plain HTTP. Nothing was sent before, so there is room for it.
fn answer(stream: &mut TcpStream, text: &str) {
    let _ = stream.write(text.as_bytes());
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // The core takes randomness as an argument as well.
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let wallet = Wallet::from_private_key(PrivateKey::from_bytes(key)?);
    let address = wallet.address();
    let given = std::env::args().nth(1);
    let mut server = Server::bind(given.as_deref().unwrap_or("127.0.0.1:0").parse()?, wallet)?;
    let local = server
        .listener
        .as_ref()
        .map_or_else(|| Err(ErrorKind::NotConnected.into()), TcpListener::local_addr)?;
    let url = format!("ws://{local}");
    println!("server   {address} at {url}");
    if given.is_some() {
        return Ok(server.run()?);
    }
    // Another thread reaches the loop through a `Waker`; here it asks for the end. It is kept on this side too, since
    // with the last of it a wake-up that was not heard yet would be gone.
    let waker = Arc::new(Waker::new(server.poll.registry(), WAKER)?);
    let clients = std::thread::spawn({
        let waker = waker.clone();
        move || {
            let told = clients::story(&url, address);
            waker.wake()?;
            told
        }
    });
    server.run()?;
    clients.join().map_err(|_| "the clients panicked")??;
    println!("done");
    Ok(())
}

/// Somebody to serve: clients on tokio, in a thread of their own.
mod clients {
    use std::{error::Error, time::Duration};

    use link_tokio::{Address, Client, ClientEvent, Wallet, new_wallet};
    use serde_json::json;

    #[tokio::main(flavor = "current_thread")]
    pub(super) async fn story(url: &str, server: Address) -> Result<(), Box<dyn Error + Send + Sync>> {
        let story = async {
            let (ann, bob) = (new_wallet()?, new_wallet()?);
            let mut first = greet("ann", url, server, &ann).await?;
            let mut second = greet("bob", url, server, &bob).await?;
            // A server takes a proof once, and two programs of one wallet that sign in the same millisecond make the same one.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let _newer = greet("ann again", url, server, &ann).await?;
            while let Some(event) = first.next().await {
                if let ClientEvent::Disconnected { reason, .. } = event {
                    println!("ann      {reason}");
                }
            }
            while let Some(event) = second.next().await {
                if let ClientEvent::Heartbeat { round_trip: Some(time) } = event {
                    println!("bob      the round trip takes {time:?}");
                    break;
                }
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(20), story).await?
    }

    /// A client that has said hello, and was answered.
    async fn greet(
        name: &str,
        url: &str,
        server: Address,
        wallet: &Wallet,
    ) -> Result<Client, Box<dyn Error + Send + Sync>> {
        let mut client =
            Client::builder().url(url).wallet(wallet.clone()).expect_server(server).connect().await?;
        client.send(&json!({ "type": "hello", "from": name }))?;
        while let Some(event) = client.next().await {
            if let ClientEvent::Message(message) = event {
                println!("{name:8} <- {message}");
                return Ok(client);
            }
        }
        Err(format!("{name} was not answered").into())
    }
}
