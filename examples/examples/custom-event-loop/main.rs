//! A Link server without any runtime: one thread, mio to wait, link-websocket to frame, and link-core to decide.
//!
//! This is the model of an event loop of your own. `cargo run --release --example custom-event-loop` starts it with
//! three clients and ends; with an address, such as `127.0.0.1:3793`, it serves until Ctrl-C. Top to bottom:
//!
//! - [`Server`] waits, and gives each client that has something to do its **turn**. It owns what clients share.
//! - [`Client`] has its turn: it does what its [`Endpoint`] says, in the order in which that says it.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use link_core::{
    Action, Address, Admission, AdmissionConfig, Admitted, CloseReason, Config, Connection, ConnectionId,
    Endpoint, Event, Frame, Incoming, Instant, Now, PrivateKey, UnixMillis, Wallet,
};
use link_websocket::{OVERLOADED, Progress, ServerUpgrade, WebSocket, WriteError};
use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};

mod clients;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// Connections that are accepted in one turn.
const TURN: usize = 64;

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
    /// Who has a turn. mio tells of a change once, so whoever stops before `WouldBlock` stays in here.
    ready: BTreeSet<Token>,
    /// The system had no connection to give, for want of file descriptors perhaps, and is asked again then.
    accept_again: Option<Instant>,
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
            accept_again: None,
            ready: BTreeSet::new(),
            origin: std::time::Instant::now(),
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().map_or(Err(ErrorKind::NotConnected.into()), TcpListener::local_addr)
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
            let due: Vec<_> = self.deadlines().filter(|(due, _)| *due <= now.mono).collect();
            self.ready.extend(due.into_iter().map(|(_, token)| token));
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

    /// When somebody has a turn, if nothing comes before. (With many clients, a heap finds the first of them sooner.)
    fn deadlines(&self) -> impl Iterator<Item = (Instant, Token)> {
        let clients = self.clients.iter();
        let clients = clients.filter_map(|(token, client)| Some((client.endpoint.poll_timeout()?, *token)));
        clients.chain(self.accept_again.map(|again| (again, LISTENER)))
    }

    /// How long nothing is to be done unless something comes.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        self.deadlines().map(|(due, _)| due.since(self.now().mono)).min()
    }

    fn accept(&mut self, now: Now) {
        self.accept_again = None;
        for _ in 0..TURN {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, remote)) => self.welcome(stream, remote, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer's own doing: it was gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    println!("cannot accept: {error}");
                    self.accept_again = Some(now.mono.after(Duration::from_millis(100)));
                    return;
                }
            }
        }
        self.ready.insert(LISTENER);
    }

    fn welcome(&mut self, mut stream: TcpStream, remote: SocketAddr, now: Now) {
        let Some(token) = self.tokens.next().map(Token) else { return };
        // The loop batches, so the kernel need not. A peer that is gone already is found out by the first read.
        let _ = stream.set_nodelay(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, token, interest).is_err() {
            return;
        }
        if self.admission.arrive(id(token), Some(remote.ip())).is_err() {
            // Nothing was sent before, so there is room for it.
            let _ = stream.write(OVERLOADED.as_bytes());
            return;
        }
        // From the start, so that the deadline for authentication covers the upgrade as well.
        let endpoint = Endpoint::new(Connection::server(self.config.clone(), now));
        let line = Line::Upgrading(stream, ServerUpgrade::new());
        self.clients.insert(token, Client { id: id(token), endpoint, line, peer: None, shut: false });
        self.turn(token, now);
    }

    /// Gives a client its turn, and sees to what follows from it.
    fn turn(&mut self, token: Token, now: Now) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let (then, replaced) = client.turn(now, &mut self.admission);
        match then {
            Then::Over => {
                self.clients.remove(&token);
                self.admission.release(id(token));
            }
            Then::Again => drop(self.ready.insert(token)),
            Then::Wait => {}
        }
        // At once, so that it cannot say anything more.
        if let Some(old) = replaced {
            self.end(Token(usize::try_from(old.get()).unwrap_or_default()), CloseReason::Replaced, now);
        }
    }

    fn end(&mut self, token: Token, reason: CloseReason, now: Now) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.endpoint.close(reason, now);
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
    ConnectionId::new(token.0 as u64)
}

/// One client, from the TCP connection to its end.
struct Client {
    id: ConnectionId,
    endpoint: Endpoint,
    line: Line,
    /// Once it is authenticated.
    peer: Option<Address>,
    /// Our direction has been ended.
    shut: bool,
}

enum Line {
    /// Still HTTP.
    Upgrading(TcpStream, ServerUpgrade),
    Open(Box<WebSocket<TcpStream>>),
    /// On the way from the one to the other.
    Between,
}

/// What follows a turn.
enum Then {
    Wait,
    Again,
    Over,
}

impl Client {
    /// Whatever the occasion, a turn is the same: what the endpoint says. Says also whom this client has replaced.
    fn turn(&mut self, now: Now, admission: &mut Admission) -> (Then, Option<ConnectionId>) {
        let mut replaced = None;
        self.endpoint.begin_turn(now);
        loop {
            match self.endpoint.poll_action() {
                Action::Read { limit, .. } => {
                    let incoming = self.read(limit, now);
                    self.endpoint.handle_incoming(incoming);
                }
                Action::Event(event) => replaced = replaced.or(self.tell(event, now, admission)),
                Action::Send(frame) => self.send(frame),
                // Where there is a program beside the events, it has its say here.
                Action::Program | Action::ReleaseSpareRoom => {}
                Action::Flush => self.flush(),
                Action::Shutdown => {
                    if self.see_off() {
                        self.endpoint.handle_shut_down();
                    }
                }
                Action::Yield => return (Then::Again, replaced),
                Action::Wait => return (Then::Wait, replaced),
                Action::Done => return (Then::Over, replaced),
            }
        }
    }

    fn read(&mut self, limit: usize, now: Now) -> Incoming {
        match std::mem::replace(&mut self.line, Line::Between) {
            Line::Upgrading(mut stream, mut upgrade) => {
                let progress = upgrade.proceed(&mut stream);
                if let Ok(Progress::Done(())) = progress {
                    self.line = Line::Open(Box::new(WebSocket::server(stream)));
                    return self.read(limit, now);
                }
                if let Err(error) = &progress {
                    let _ = stream.write(error.answer().unwrap_or_default().as_bytes());
                    self.endpoint.close(error.reason(), now);
                }
                self.line = Line::Upgrading(stream, upgrade);
                if let Ok(Progress::Enough) = progress { Incoming::Enough } else { Incoming::Nothing }
            }
            Line::Open(mut websocket) => {
                let incoming = websocket.read(limit);
                self.line = Line::Open(websocket);
                incoming
            }
            Line::Between => Incoming::Ended,
        }
    }

    /// Takes a frame for the flush at the end of the turn.
    fn send(&mut self, frame: Frame) {
        match (&mut self.line, frame) {
            (Line::Open(websocket), frame) => match websocket.write(frame) {
                Ok(()) => {}
                Err(WriteError::Full(_)) => self.endpoint.handle_overflow(),
                Err(_) => self.endpoint.handle_broken(),
            },
            // Who did not become a WebSocket in time is refused with the same text: it is HTTP.
            (Line::Upgrading(stream, _), Frame::Text(status)) => drop(stream.write(status.as_bytes())),
            _ => {}
        }
    }

    fn flush(&mut self) {
        let Line::Open(websocket) = &mut self.line else { return self.endpoint.handle_flushed() };
        match websocket.flush() {
            Ok(true) => self.endpoint.handle_flushed(),
            Ok(false) => self.endpoint.handle_flush_blocked(websocket.bytes_written()),
            Err(_) => self.endpoint.handle_broken(),
        }
    }

    /// Ends our direction, and drops what still comes. Says whether the peer has ended its own.
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
        // Nobody is listened to for ever.
        for _ in 0..1024 {
            match stream.read(&mut [0; 4 << 10]) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Ok(0) | Err(_) => break,
            }
        }
        true
    }

    /// The application: lets everybody in, and sends every message back.
    fn tell(&mut self, event: Event, now: Now, admission: &mut Admission) -> Option<ConnectionId> {
        let number = self.id.get();
        match event {
            Event::AdmissionRequested { ticket } => {
                let admitted = admission
                    .screen(ticket.proof(), now.wall)
                    // A check of your own goes here. It may take its time: keep the ticket, and decide later.
                    .and_then(|()| admission.admit(ticket.address(), self.id));
                // The ticket is this connection's, and fresh.
                let _ = self.endpoint.decide(ticket, admitted.map(drop), now);
                if let Ok(Admitted::Replaces(old)) = admitted {
                    return Some(old);
                }
            }
            Event::Authenticated { address, .. } => {
                println!("server   {number} is {address}");
                self.peer = Some(address);
                if let Line::Open(websocket) = &mut self.line {
                    websocket.set_max_unsent(4 << 20);
                }
            }
            Event::Message(message) => {
                if let Err(error) = self.endpoint.send(message) {
                    println!("server   {number} not answered: {error}");
                }
            }
            // A stranger is not talked about: anybody could make us talk without end.
            Event::Closed { reason } if self.peer.is_some() => {
                println!("server   {number} is gone: {reason}")
            }
            _ => {}
        }
        None
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // The core takes randomness as an argument as well.
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let wallet = Wallet::from_private_key(PrivateKey::from_bytes(key)?);
    let address = wallet.address();
    let given = std::env::args().nth(1);
    let mut server = Server::bind(given.as_deref().unwrap_or("127.0.0.1:0").parse()?, wallet)?;
    let url = format!("ws://{}", server.local_address()?);
    println!("server   {address} at {url}");
    // Another thread reaches the loop through a `Waker`; here it asks for the end. It is kept on this side too, since
    // with the last of it a wake-up that was not heard yet would be gone.
    let waker = Arc::new(Waker::new(server.poll.registry(), WAKER)?);
    let clients = given.is_none().then(|| clients::start(url, address, waker.clone()));
    server.run()?;
    if let Some(clients) = clients {
        clients.join().map_err(|_| "the clients panicked")??;
        println!("done");
    }
    Ok(())
}
