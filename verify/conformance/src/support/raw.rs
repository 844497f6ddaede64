//! A peer that says what it is told to, honest or not: blocking, over the system's own sockets, and without a line
//! of Link's code but for the signatures. All of it blocks, so an async test runs it in a thread of its own.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{SystemTime, UNIX_EPOCH},
};

use link_driver::{Address, Wallet};
use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket,
    protocol::{Role, frame::coding::CloseCode},
};

use super::PATIENCE;

/// One end of a WebSocket, in the hands of a script.
#[derive(Debug)]
pub struct RawPeer(WebSocket<TcpStream>);

/// Opens a TCP connection.
pub fn dial(at: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(at).expect("somebody listens"))
}

/// Listens on a free loopback port.
pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let at = listener.local_addr().expect("its address");
    (listener, at)
}

/// Reads all that comes, until the other side ends it.
pub fn all_of(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the stream ends without an error");
    String::from_utf8_lossy(&all).into_owned()
}

/// The same, where a reset may end it as well.
pub fn all_or_reset(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

/// Sends some bytes over TCP, and reads all that is answered.
pub fn answer_to(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = dial(at);
    stream.write_all(bytes).expect("sent");
    all_of(&mut stream)
}

pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    u64::try_from(since.as_millis()).expect("a sane clock")
}

/// The `authenticate` of a wallet, as `WIRE.md` has it.
pub fn authenticate(wallet: &Wallet, timestamp: u64) -> Value {
    json!({
        "type": "authenticate",
        "address": wallet.address(),
        "timestamp": timestamp,
        "signature": wallet.sign(&timestamp.to_string()).to_string(),
    })
}

/// A frame as it is on the wire: its first byte, and a mask of zeros if it is to have one.
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask | u8::try_from(length).expect("short")),
        length => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

impl RawPeer {
    /// A client whose WebSocket is open, and that has said nothing yet.
    pub fn open(at: SocketAddr) -> Self {
        Self::open_on(dial(at))
    }

    /// The same, on a TCP connection that is there already.
    pub fn open_on(stream: TcpStream) -> Self {
        let (socket, _) = tungstenite::client("ws://localhost/", stream).expect("upgraded");
        Self(socket)
    }

    /// A client that has authenticated.
    pub fn login(at: SocketAddr, wallet: &Wallet) -> Self {
        let mut peer = Self::open(at);
        peer.proves_itself(wallet);
        peer
    }

    /// A client that was open authenticates.
    pub fn proves_itself(&mut self, wallet: &Wallet) {
        self.send(&authenticate(wallet, unix_millis()));
        let answer: Value = serde_json::from_str(&self.text()).expect("JSON");
        assert_eq!(answer["type"], "authenticate");
    }

    /// A client on a stream that a script has upgraded by hand.
    pub fn upgraded(stream: TcpStream) -> Self {
        Self(WebSocket::from_raw_socket(stream, Role::Client, None))
    }

    /// A server's end of the next connection.
    pub fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("a connection");
        Self(tungstenite::accept(patient(stream)).expect("upgraded"))
    }

    /// A server's end of the next connection, which it lets in; and whose it is.
    pub fn admit(listener: &TcpListener, wallet: &Wallet) -> (Self, Address) {
        let mut peer = Self::accept(listener);
        let address = peer.authenticate().expect("the client speaks first");
        peer.send(&authenticate(wallet, unix_millis()));
        (peer, address)
    }

    /// What a client authenticates with.
    pub fn authenticate(&mut self) -> Option<Address> {
        let proof: Value = serde_json::from_str(&self.text()).ok()?;
        assert_eq!(proof["type"], "authenticate");
        proof["address"].as_str()?.parse().ok()
    }

    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(Message::text(text));
    }

    pub fn send_frame(&mut self, frame: Message) {
        self.0.send(frame).expect("sent");
    }

    /// Writes bytes below the WebSocket.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("sent");
    }

    /// The next frame. Pings are answered.
    pub fn frame(&mut self) -> Message {
        self.0.read().expect("a frame")
    }

    /// The next frame, or none before the stream's read time-out.
    pub fn try_frame(&mut self) -> Option<Message> {
        match self.0.read() {
            Ok(frame) => Some(frame),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("neither a frame nor none: {error}"),
        }
    }

    /// The next text that is no heartbeat.
    pub fn text(&mut self) -> String {
        loop {
            match self.frame() {
                Message::Text(text) if text.contains(r#""type":"heartbeat""#) => {}
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a text, got {other:?}"),
            }
        }
    }

    /// The next text that is no heartbeat, unless the line ends before.
    pub fn try_text(&mut self) -> Option<String> {
        loop {
            match self.0.read().ok()? {
                Message::Text(text) if text.contains(r#""type":"heartbeat""#) => {}
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Reads until the other side closes, and says what came until then that is no heartbeat, and the code.
    pub fn until_the_end(&mut self) -> (Vec<String>, Option<u16>) {
        let mut texts = Vec::new();
        loop {
            match self.frame() {
                Message::Text(text) if text.contains(r#""type":"heartbeat""#) => {}
                Message::Text(text) => texts.push(text.to_string()),
                Message::Close(close) => return (texts, close.map(|close| close.code.into())),
                _ => {}
            }
        }
    }

    pub fn close(&mut self, code: u16) {
        let close = tungstenite::protocol::CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.0.close(Some(close)).expect("sent");
    }

    /// Where the other side is, and this one.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.0.get_mut()
    }
}

/// A script must not hang for ever.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Writes one byte at a time.
#[derive(Debug)]
pub struct Dripping(pub TcpStream);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Dripping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes.get(..1).unwrap_or_default())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A whole line, honest but slow: upgrade, proof, a message that comes back, the end.
pub fn slow_line(stream: impl Read + Write) {
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    let wallet = link_driver::new_wallet().expect("randomness");
    let proof = authenticate(&wallet, unix_millis()).to_string();
    let message = r#"{"type":"slow"}"#;
    socket.send(Message::text(proof)).expect("it goes out");
    loop {
        match socket.read().expect("the line goes on") {
            Message::Text(text) if text.contains(r#""type":"authenticate""#) => {
                socket.send(Message::text(message)).expect("it goes out");
            }
            Message::Text(text) if text.as_str() == message => break,
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    socket.close(None).expect("it goes out");
    while socket.read().is_ok() {}
}
