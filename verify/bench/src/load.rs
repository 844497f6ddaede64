//! The clients: as light as they can be, the same for Link and for its bare twin, and on one thread.
//!
//! A client logs in by a blocking script. From then on it is a task that reads what is there, counts texts, answers
//! heartbeats and pings, and, while it is to make load, sends one message for each that came back, all in one write.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use link_conformance::raw::RawPeer;
use link_driver::{PrivateKey, Wallet};
use socket2::SockRef;
use tokio::{net::TcpStream, sync::Notify, task};
use tungstenite::protocol::frame::{
    Frame, FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Bytes that a client reads at a time.
const READ: usize = 64 << 10;

/// A text as a frame, from a client with a mask.
pub fn frame(text: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = Frame::message(text.to_owned(), OpCode::Data(Data::Text), true);
    frame.header_mut().mask = mask;
    written(frame)
}

fn written(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("memory");
    bytes
}

/// A JSON message of so many bytes.
pub fn message(size: usize) -> String {
    let (before, after) = (r#"{"type":"bench","fill":""#, r#""}"#);
    let fill = size.checked_sub(before.len() + after.len()).expect("room for the JSON around it");
    format!("{before}{}{after}", "x".repeat(fill))
}

/// The wallet of the client with this number.
pub fn wallet(number: usize) -> Wallet {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Wallet::from_private_key(PrivateKey::from_bytes(bytes).expect("in range"))
}

/// How a client introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// By the HTTP upgrade alone.
    Bare,
    /// And by proving its address.
    Link,
}

impl Greeting {
    /// Connects a client. `wallet` is its own.
    pub fn connect(self, at: SocketAddr, wallet: &Wallet) -> RawPeer {
        match self {
            Self::Bare => RawPeer::open(at),
            Self::Link => RawPeer::login(at, wallet),
        }
    }
}

/// Clients of one server.
#[derive(Debug)]
pub struct Clients {
    shared: Rc<Shared>,
    streams: Vec<Rc<TcpStream>>,
    message: Rc<Vec<u8>>,
}

/// What all clients of a server count together.
#[derive(Debug, Default)]
struct Shared {
    /// Messages that are still to be sent, one for each that comes back.
    unsent: Cell<u64>,
    /// Messages that came, but for heartbeats.
    received: Cell<u64>,
    /// Messages that are to come: on `changed`, once there are none.
    missing: Cell<u64>,
    /// Heartbeats that were answered.
    heartbeats: Cell<u64>,
    changed: Notify,
}

impl Clients {
    /// Connects so many, which send `text`. They live on a [`LocalSet`](task::LocalSet), around the caller.
    ///
    /// They come no sooner than `pace` after one another: what they do at intervals is then spread likewise, whatever it
    /// costs to connect them.
    pub async fn connect(
        greeting: Greeting,
        at: SocketAddr,
        many: usize,
        text: &str,
        pace: Duration,
    ) -> Self {
        let shared = Rc::new(Shared::default());
        let message = Rc::new(frame(text, Some([0; 4])));
        let mut streams = Vec::with_capacity(many);
        let mut due = Instant::now();
        for number in 0..many {
            // Those that are there have heartbeats to answer meanwhile.
            if Instant::now() < due || number % 64 == 63 {
                tokio::time::sleep_until(due.into()).await;
            }
            due += pace;
            let mut peer = greeting.connect(at, &wallet(number));
            let stream = peer.stream().try_clone().expect("a descriptor");
            stream.set_nonblocking(true).expect("a socket");
            let stream = Rc::new(TcpStream::from_std(stream).expect("a runtime"));
            let client = Client {
                stream: stream.clone(),
                shared: shared.clone(),
                message: message.clone(),
                unread: Vec::new(),
            };
            task::spawn_local(client.run());
            streams.push(stream);
        }
        Self { streams, shared, message }
    }

    /// Has each client keep `depth` messages under way for a time. Says how many came back.
    pub async fn echo(&self, depth: usize, time: Duration) -> u64 {
        let before = self.shared.received.get();
        self.begin(depth, u64::MAX).await;
        tokio::time::sleep(time).await;
        self.shared.unsent.set(0);
        self.none_missing().await;
        self.shared.received.get() - before
    }

    /// Has so many messages come back, of which each client keeps `depth` under way, until there are no more to send.
    pub async fn echo_exactly(&self, depth: usize, messages: u64) {
        let before = self.shared.received.get();
        self.begin(depth, messages).await;
        self.none_missing().await;
        assert_eq!(self.shared.received.get() - before, messages, "each message comes back once");
    }

    /// Sends the first of so many messages: `depth` of each client, if there are as many.
    async fn begin(&self, depth: usize, messages: u64) {
        let mut first = messages.min((depth * self.streams.len()) as u64);
        self.shared.missing.set(first);
        self.shared.unsent.set(messages - first);
        for stream in &self.streams {
            let its = first.min(depth as u64);
            first -= its;
            write(stream, &self.message.repeat(its as usize)).await.expect("a server that reads");
        }
    }

    /// Has `act` done, and waits until each client has received a message.
    pub async fn each_receives(&self, act: impl FnOnce()) {
        self.shared.missing.set(self.streams.len() as u64);
        act();
        self.none_missing().await;
    }

    /// How many heartbeats were answered so far.
    pub fn heartbeats(&self) -> u64 {
        self.shared.heartbeats.get()
    }

    async fn none_missing(&self) {
        while self.shared.missing.get() > 0 {
            let before = self.shared.received.get();
            let change = tokio::time::timeout(link_soak::PATIENCE, self.shared.changed.notified());
            let changed = change.await.is_ok();
            assert!(changed || self.shared.received.get() > before, "the server answers");
        }
    }
}

/// One client.
struct Client {
    stream: Rc<TcpStream>,
    shared: Rc<Shared>,
    message: Rc<Vec<u8>>,
    /// What came, and is not a whole frame.
    unread: Vec<u8>,
}

thread_local! {
    /// All clients read into the same buffer, so that a thousand of them cost no more of the processor's cache than one.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

impl Client {
    async fn run(mut self) {
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = self.stream.try_read(scratch)?;
                self.unread.extend_from_slice(&scratch[..read]);
                Ok::<_, io::Error>(read)
            });
            match read {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            let answer = self.answer();
            if !answer.is_empty() && write(&self.stream, &answer).await.is_err() {
                return;
            }
        }
    }

    /// What all that has come is to be answered with.
    fn answer(&mut self) -> Vec<u8> {
        let (mut answer, mut at, mut texts) = (Vec::new(), 0, 0);
        loop {
            let mut rest = io::Cursor::new(&self.unread[at..]);
            let Ok(Some((header, length))) = FrameHeader::parse(&mut rest) else { break };
            let begin = at + usize::try_from(rest.position()).expect("small");
            let Some(payload) = self.unread.get(begin..begin + usize::try_from(length).expect("small"))
            else {
                break;
            };
            at = begin + payload.len();
            match header.opcode {
                OpCode::Control(Control::Ping) => {
                    let mut pong = Frame::pong(payload.to_vec());
                    pong.header_mut().mask = Some([0; 4]);
                    answer.extend(written(pong));
                }
                OpCode::Data(_) if payload.starts_with(br#"{"type":"heartbeat""#) => {
                    answer.extend(frame(r#"{"type":"heartbeat","ts":1795372174071}"#, Some([0; 4])));
                    self.shared.heartbeats.set(self.shared.heartbeats.get() + 1);
                }
                OpCode::Data(_) => texts += 1,
                OpCode::Control(_) => {}
            }
        }
        self.unread.drain(..at);
        self.shared.received.set(self.shared.received.get() + texts);
        let again = texts.min(self.shared.unsent.get());
        self.shared.unsent.set(self.shared.unsent.get() - again);
        for _ in 0..again {
            answer.extend_from_slice(&self.message);
        }
        if texts > again {
            self.shared.missing.set(self.shared.missing.get().saturating_sub(texts - again));
            self.shared.changed.notify_one();
        }
        answer
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Connects, introduces itself and leaves, so often, one client after the other.
pub fn logins<'a>(greeting: Greeting, at: SocketAddr, wallets: impl IntoIterator<Item = &'a Wallet>) {
    for wallet in wallets {
        let mut peer = greeting.connect(at, wallet);
        // By a reset: otherwise the ports would be used up after some ten thousands.
        SockRef::from(&*peer.stream()).set_linger(Some(Duration::ZERO)).expect("an option");
    }
}
