//! What a soak does with a server: rounds of everything that a connection can come to, by several peers at once.
//!
//! Each round is the same work in another order, and ends when all of its connections have, so that what the server
//! uses then can be compared with what it used after the round before.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use fastrand::Rng;
use link_conformance::raw::{self, RawPeer, authenticate, frame, unix_millis};
use link_driver::{Wallet, new_wallet};
use link_tokio::{Client, ClientEvent};
use serde_json::json;
use socket2::SockRef;
use tokio::runtime::Runtime;

use crate::serve::LEAVE;

/// What becomes of one connection, or of a few that belong together.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Logs in, talks, and closes as it should.
    Talk,
    /// A client of Link's own talks, is sent away, and comes back.
    Return,
    /// Logs in, talks, and ends the TCP connection without a word.
    Cut,
    /// The same, by a reset.
    Reset,
    /// Logs in, and is never heard of again.
    FallSilent,
    /// Never logs in, having come so far: TCP, half of the HTTP request, the WebSocket.
    NeverLogIn(u8),
    /// Two with the same wallet: the second replaces the first.
    Replace,
    /// Is refused.
    BeRefused(Refusal),
    /// Sends messages that are as long as they may be, and reads them.
    TalkAtLength,
    /// Reads, but slowly.
    ReadSlowly,
    /// Sends, and reads nothing.
    NeverRead,
}

#[derive(Debug, Clone, Copy)]
enum Refusal {
    StaleProof,
    BadSignature,
    Replay,
    NoProof,
    NoHttp,
    EndlessHead,
    ReservedBits,
    Giant,
}

/// How often a peer does what in a round.
const WORK: [(Act, usize); 20] = [
    (Act::Talk, 40),
    (Act::Return, 6),
    (Act::Cut, 10),
    (Act::Reset, 10),
    (Act::FallSilent, 6),
    (Act::NeverLogIn(0), 4),
    (Act::NeverLogIn(1), 4),
    (Act::NeverLogIn(2), 4),
    (Act::Replace, 8),
    (Act::BeRefused(Refusal::StaleProof), 4),
    (Act::BeRefused(Refusal::BadSignature), 4),
    (Act::BeRefused(Refusal::Replay), 4),
    (Act::BeRefused(Refusal::NoProof), 4),
    (Act::BeRefused(Refusal::NoHttp), 4),
    (Act::BeRefused(Refusal::EndlessHead), 4),
    (Act::BeRefused(Refusal::ReservedBits), 4),
    (Act::BeRefused(Refusal::Giant), 4),
    (Act::TalkAtLength, 2),
    (Act::ReadSlowly, 1),
    (Act::NeverRead, 1),
];

/// Does one round with so many peers at once, and waits until the server has ended every connection of it.
pub fn round(at: SocketAddr, peers: usize, seed: u64, runtime: &Runtime) {
    thread::scope(|scope| {
        for peer in 0..peers {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(peer as u64));
                let mut acts: Vec<_> =
                    WORK.iter().flat_map(|(act, times)| std::iter::repeat_n(*act, *times)).collect();
                rng.shuffle(&mut acts);
                let left: Vec<_> =
                    acts.into_iter().flat_map(|act| act.perform(at, &mut rng, runtime)).collect();
                for mut stream in left {
                    raw::all_or_reset(&mut stream);
                }
            });
        }
    });
}

impl Act {
    /// Hands out what only the server will end.
    fn perform(self, at: SocketAddr, rng: &mut Rng, runtime: &Runtime) -> Option<TcpStream> {
        match self {
            Self::Talk => {
                let mut peer = login(at);
                talk(&mut peer, rng.usize(1..20), rng.usize(10..2000));
                peer.close(1000);
                raw::all_or_reset(peer.stream());
            }
            Self::Return => runtime.block_on(return_as_a_client(at)),
            Self::Cut => talk(&mut login(at), rng.usize(0..5), 100),
            Self::Reset => {
                let mut peer = login(at);
                talk(&mut peer, rng.usize(0..5), 100);
                SockRef::from(&*peer.stream()).set_linger(Some(Duration::ZERO)).expect("an option");
            }
            Self::FallSilent => {
                let mut peer = login(at);
                talk(&mut peer, rng.usize(0..5), 100);
                return Some(kept(&mut peer));
            }
            Self::NeverLogIn(0) => return Some(raw::dial(at)),
            Self::NeverLogIn(1) => {
                let mut stream = raw::dial(at);
                stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nUpgr").expect("sent");
                return Some(stream);
            }
            Self::NeverLogIn(_) => return Some(kept(&mut RawPeer::open(at))),
            Self::Replace => {
                let wallet = wallet();
                let mut first = RawPeer::login(at, &wallet);
                // A proof of the same millisecond would be a replay.
                thread::sleep(Duration::from_millis(2));
                let mut second = RawPeer::login(at, &wallet);
                let (texts, _) = first.until_the_end();
                assert_eq!(texts, [r#""HTTP/1.1 409 Conflict\r\n\r\n""#]);
                talk(&mut second, 2, 100);
            }
            Self::BeRefused(refusal) => refusal.provoke(at),
            Self::TalkAtLength => {
                let mut peer = login(at);
                for _ in 0..2 {
                    talk(&mut peer, 1, (1 << 20) - 100);
                }
            }
            Self::ReadSlowly => {
                let mut peer = login(at);
                let text = message(256 << 10);
                for _ in 0..12 {
                    peer.send_text(&text);
                }
                for _ in 0..12 {
                    assert_eq!(peer.text().len(), text.len());
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Self::NeverRead => {
                let mut peer = login(at);
                let text = message(256 << 10);
                for _ in 0..40 {
                    peer.send_text(&text);
                }
                return Some(kept(&mut peer));
            }
        }
        None
    }
}

impl Refusal {
    fn provoke(self, at: SocketAddr) {
        let unauthorized = "HTTP/1.1 401 Unauthorized\r\n\r\n";
        match self {
            Self::StaleProof => {
                let proof = authenticate(&wallet(), unix_millis() - 60_000);
                assert_eq!(said_instead_of_a_proof(at, &proof.to_string()).0, [unauthorized]);
            }
            Self::BadSignature => {
                let mut proof = authenticate(&wallet(), unix_millis());
                proof["address"] = json!(wallet().address());
                assert_eq!(said_instead_of_a_proof(at, &proof.to_string()).0, [unauthorized]);
            }
            Self::Replay => {
                let proof = authenticate(&wallet(), unix_millis()).to_string();
                let mut first = RawPeer::open(at);
                first.send_text(&proof);
                assert!(first.text().contains("authenticate"));
                assert_eq!(said_instead_of_a_proof(at, &proof).0, [unauthorized]);
            }
            Self::NoProof => assert_eq!(said_instead_of_a_proof(at, "hello"), (vec![], Some(1008))),
            Self::NoHttp => {
                assert!(raw::answer_to(at, b"rubbish\r\n\r\n").starts_with("HTTP/1.1 400 "));
            }
            Self::EndlessHead => {
                let head = format!("GET / HTTP/1.1\r\nX-Long: {:20000}", "x");
                assert!(raw::answer_to(at, head.as_bytes()).starts_with("HTTP/1.1 431 "));
            }
            Self::ReservedBits => {
                let mut peer = login(at);
                peer.bytes(&frame(0xc1, b"{}", true));
                assert_eq!(peer.until_the_end().1, Some(1002));
            }
            Self::Giant => {
                let mut peer = login(at);
                peer.bytes(&[0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]);
                assert_eq!(peer.until_the_end().1, Some(1009));
            }
        }
    }
}

/// A client of Link's own: it talks, the server sends it away, and it comes back by itself.
async fn return_as_a_client(at: SocketAddr) {
    let builder = Client::builder().host(at.ip().to_string()).port(at.port());
    let mut client = builder.reconnect_delay(Duration::from_millis(5)).connect().await.expect("a line");
    for _ in 0..2 {
        for number in 0..10 {
            client.try_send(json!({ "type": "number", "number": number })).expect("room");
        }
        let mut answers = 0;
        while answers < 10 {
            match client.next().await.expect("it goes on") {
                ClientEvent::Message(_) => answers += 1,
                ClientEvent::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
                _ => {}
            }
        }
        client.try_send(json!({ "type": LEAVE })).expect("room");
        loop {
            match client.next().await.expect("it goes on") {
                ClientEvent::Disconnected { .. } => break,
                ClientEvent::ConnectionFailed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        while !client.is_authenticated() {
            if let ClientEvent::ConnectionFailed(failure) = client.next().await.expect("it goes on") {
                panic!("{failure}");
            }
        }
    }
    client.close().await;
}

fn wallet() -> Wallet {
    new_wallet().expect("randomness")
}

fn login(at: SocketAddr) -> RawPeer {
    RawPeer::login(at, &wallet())
}

/// What a server says to who begins like this, and the code with which it closes.
fn said_instead_of_a_proof(at: SocketAddr, text: &str) -> (Vec<String>, Option<u16>) {
    let mut peer = RawPeer::open(at);
    peer.send_text(text);
    peer.until_the_end()
}

fn talk(peer: &mut RawPeer, times: usize, length: usize) {
    let text = message(length);
    for _ in 0..times {
        peer.send_text(&text);
        assert!(peer.text() == text, "the echo is another text");
    }
}

fn message(length: usize) -> String {
    format!(r#"{{"type":"soak","filling":"{}"}}"#, "x".repeat(length))
}

/// The TCP connection of a peer, which stays open when the peer is dropped.
fn kept(peer: &mut RawPeer) -> TcpStream {
    peer.stream().try_clone().expect("another descriptor")
}
