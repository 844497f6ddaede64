//! What hostile peers do to a server, over real sockets: a table. Each row says what is sent, by how many, what they get for it,
//! and how much memory of the server's process each of them may take, by the limits that are published; and beside them
//! is an honest client that must notice nothing.
//!
//! The behaviour itself is tested in `link-conformance`, on each runtime. Here the server has a process of its own, so that its
//! memory can be measured: the most that it ever had, less what it had before. Time is not measured, but for the honest client's
//! patience, which is long.
//!
//! `cargo test -p link-soak --test hostile -- --nocapture` prints the table with what was measured; with `smol` or `async-std` in
//! the environment's `LINK_SOAK_RUNTIME`, that of a server on another runtime.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "to panic is how a test fails"
)]

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use link_conformance::raw::{self, RawPeer, authenticate, frame, unix_millis};
use link_core::{
    DEFAULT_MAX_MESSAGE_SIZE as MESSAGE, DEFAULT_MAX_UNAUTHENTICATED_MESSAGE_SIZE as FIRST_MESSAGE,
};
use link_driver::{
    DEFAULT_MAX_SEND_QUEUE as SEND_QUEUE, Wallet, new_wallet,
    rustls::{
        self, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
        pki_types::{CertificateDer, pem::PemObject},
    },
};
use link_soak::{honest::Honest, process::ServerProcess, serve::Stats, until};
use link_websocket::{FIRST_MAX_UNSENT, MAX_HEAD, READ_BUFFER, WRITE_BATCH};
use socket2::SockRef;
use tungstenite::Message as Frame;

/// The server's runtime, if it is not tokio.
const RUNTIME: &str = "LINK_SOAK_RUNTIME";

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How long the honest client waits for an answer: as a machine may be slow and busy, nearly as long as it takes Link to give a
/// silent peer up, which it notices as well.
const PATIENCE: Duration = Duration::from_secs(4);

// What a connection may take, by what it has come to.
/// There at all: its task, its place in the registry, and the buffer that it reads into.
const SOCKET: usize = 16 * KIB + READ_BUFFER;
/// An HTTP request, in a vector that doubles.
const HEAD: usize = 2 * MAX_HEAD;
/// A message before authentication, and what waits for somebody who does not read.
const STRANGER: usize = SOCKET + 2 * FIRST_MESSAGE + 2 * FIRST_MAX_UNSENT;
/// What TLS keeps of a record that is not whole.
const TLS: usize = 32 * KIB;
/// A message on its way in, in a buffer that doubles.
const INCOMING: usize = 2 * MESSAGE;
/// What waits in front of the socket of a client that does not read: one turn's messages, the longest of them, and room for the
/// protocol's own, in a vector that doubles.
const UNSENT: usize = 2 * (MESSAGE + 256 * KIB + 2 * WRITE_BATCH);
/// Messages that wait for the server's program.
const WAITING: usize = MESSAGE + MESSAGE;
/// What nobody in particular takes: threads that wake up, and what an allocator keeps at hand.
const SLACK: usize = 2 * MIB;

struct Row {
    sent: &'static str,
    attackers: usize,
    gets: &'static str,
    /// Bytes for each attacker.
    each: usize,
    /// Bytes for all of them together, beside [`SLACK`].
    shared: usize,
}

/// What a row has to work with.
struct Scene {
    server: ServerProcess,
    at: SocketAddr,
    attackers: usize,
}

impl Row {
    fn play(self, options: &[&str], attack: impl FnOnce(&mut Scene)) {
        self.play_securely(options, None, attack);
    }

    fn play_securely(self, options: &[&str], ca: Option<&Path>, attack: impl FnOnce(&mut Scene)) {
        // One row at a time: they would be each other's noise.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Both processes have a socket for each attacker; the server's inherits the limit.
        let _ = rlimit::increase_nofile_limit(8192);

        let mut command = Command::new(env!("CARGO_BIN_EXE_link-soak"));
        command.arg("serve").args(options);
        if let Ok(runtime) = env::var(RUNTIME) {
            command.args(["--runtime", &runtime]);
        }
        let server = ServerProcess::start(&mut command);
        let at = server.address();
        let honest = Honest::arrive(at, ca, PATIENCE);
        let before = server.usage().resident;
        let began = Instant::now();
        let mut scene = Scene { server, at, attackers: self.attackers };
        honest.worst();
        attack(&mut scene);
        honest.goes_on();
        scene.until("all of them are gone", |stats| (stats.unauthenticated, stats.authenticated) == (0, 1));
        honest.goes_on();
        let peak = scene.server.usage().peak.saturating_sub(before) as usize;
        let worst = honest.worst();
        honest.leave();
        scene.server.stop();

        let Self { sent, attackers, gets, each, shared } = self;
        let bound = attackers * each + shared + SLACK;
        println!(
            "| {sent} | {attackers} | {gets} | {} KiB | {} KiB | {:.0} ms | in {:.1} s",
            bound / KIB,
            peak / KIB,
            worst.as_secs_f64() * 1000.0,
            began.elapsed().as_secs_f64(),
        );
        assert!(
            peak <= bound,
            "{sent}: {attackers} attackers took {} KiB, and may take {} KiB",
            peak / KIB,
            bound / KIB
        );
    }
}

impl Scene {
    /// Waits until the server has counted so.
    fn until(&mut self, what: &str, mut so: impl FnMut(&Stats) -> bool) {
        until(what, || so(&self.server.stats()));
    }

    /// Each attacker does this, all at once.
    fn all_at_once<T: Send>(&self, attack: impl Fn(SocketAddr) -> T + Sync) -> Vec<T> {
        let at = self.at;
        thread::scope(|scope| {
            let running: Vec<_> = (0..self.attackers).map(|_| scope.spawn(|| attack(at))).collect();
            running.into_iter().map(|thread| thread.join().expect("the attacker has said why")).collect()
        })
    }

    /// Each attacker does this, one after the other, and stays.
    fn each_in_turn<T>(&self, attack: impl Fn(SocketAddr) -> T) -> Vec<T> {
        (0..self.attackers).map(|_| attack(self.at)).collect()
    }
}

fn wallet() -> Wallet {
    new_wallet().unwrap()
}

fn login(at: SocketAddr) -> RawPeer {
    RawPeer::login(at, &wallet())
}

/// Sends this again and again, reads nothing, and ends when the server has had enough.
fn send_without_end(peer: &mut RawPeer, bytes: &[u8], pause: Duration) {
    let began = Instant::now();
    while peer.stream().write_all(bytes).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(60), "the server never has enough");
        thread::sleep(pause);
    }
}

/// A message of exactly so many bytes.
fn message(length: usize) -> String {
    let empty = r#"{"type":"x","x":""}"#;
    format!(r#"{{"type":"x","x":"{}"}}"#, "x".repeat(length - empty.len()))
}

/// The beginning of a text frame that announces so many bytes.
fn announcement(length: usize) -> Vec<u8> {
    let mut header = vec![0x81, 0xff];
    header.extend((length as u64).to_be_bytes());
    header.extend([0; 4]);
    header
}

/// How many connections ended for this reason, and had not authenticated.
fn rejected(stats: &Stats, label: &str) -> usize {
    stats.rejected.get(label).copied().unwrap_or(0) as usize
}

/// The same, of those that had.
fn disconnected(stats: &Stats, label: &str) -> usize {
    stats.disconnected.get(label).copied().unwrap_or(0) as usize
}

// --------------------------------------------------------------------------------------------------------- fragments

#[test]
fn empty_fragments_without_end_before_login() {
    let row = Row {
        sent: "empty fragments without end, before login",
        attackers: 8,
        gets: "408 at the deadline",
        each: STRANGER,
        shared: 0,
    };
    row.play(&["--auth-timeout", "1s"], |scene| {
        scene.all_at_once(|at| {
            let mut peer = RawPeer::open(at);
            peer.bytes(&frame(0x01, b"", true));
            send_without_end(&mut peer, &frame(0x00, b"", true).repeat(1000), Duration::ZERO);
        });
        scene.until("the deadline", |stats| rejected(stats, "authentication_timeout") == 8);
    });
}

#[test]
fn empty_fragments_without_end_after_login() {
    let row = Row {
        sent: "empty fragments without end, after login",
        attackers: 8,
        gets: "408, as silent",
        each: SOCKET,
        shared: 0,
    };
    row.play(&["--client-timeout", "1s"], |scene| {
        scene.all_at_once(|at| {
            let mut peer = login(at);
            peer.bytes(&frame(0x01, b"", true));
            send_without_end(&mut peer, &frame(0x00, b"", true).repeat(1000), Duration::ZERO);
        });
        scene.until("they count as silent", |stats| disconnected(stats, "idle") == 8);
    });
}

#[test]
fn fragments_of_some_bytes_without_end() {
    let row = Row {
        sent: "fragments of 16 bytes, beyond the limit",
        attackers: 8,
        gets: "1009",
        each: SOCKET + INCOMING,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            let mut peer = login(at);
            peer.bytes(&frame(0x01, &[b' '; 16], true));
            peer.bytes(&frame(0x00, &[b' '; 16], true).repeat(MESSAGE / 16));
            assert_eq!(peer.until_the_end().1, Some(1009));
        });
    });
}

#[test]
fn fragments_of_a_kilobyte_without_end() {
    let row = Row {
        sent: "fragments of 1,000 bytes, beyond the limit",
        attackers: 8,
        gets: "1009",
        each: SOCKET + INCOMING,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            let mut peer = login(at);
            peer.bytes(&frame(0x01, &[b' '; 1000], true));
            peer.bytes(&frame(0x00, &[b' '; 1000], true).repeat(MESSAGE / 1000 + 1));
            assert_eq!(peer.until_the_end().1, Some(1009));
        });
    });
}

// -------------------------------------------------------------------------------------------------- closed windows

#[test]
fn pings_into_a_closed_window_before_login() {
    let row = Row {
        sent: "pings, whose pongs it does not read, before login",
        attackers: 8,
        gets: "the end, by the deadline",
        each: STRANGER,
        shared: 0,
    };
    row.play(&["--auth-timeout", "2s"], |scene| {
        let pings = frame(0x89, &[7; 125], true).repeat(500);
        scene.all_at_once(|at| send_without_end(&mut RawPeer::open(at), &pings, Duration::ZERO));
        scene.until("they are ended", |stats| stats.rejected.values().sum::<u64>() == 8);
    });
}

#[test]
fn pings_into_a_closed_window_after_login() {
    let row = Row {
        sent: "pings, whose pongs it does not read, after login",
        attackers: 8,
        gets: "the end, as a slow peer",
        each: SOCKET + UNSENT,
        shared: 0,
    };
    row.play(&["--send-timeout", "1s"], |scene| {
        let pings = frame(0x89, &[7; 125], true).repeat(500);
        scene.all_at_once(|at| send_without_end(&mut login(at), &pings, Duration::ZERO));
        scene.until("they are ended", |stats| disconnected(stats, "slow_peer") == 8);
    });
}

#[test]
fn echoes_that_nobody_reads() {
    let row = Row {
        sent: "messages of 256 KiB without end, whose echoes it does not read",
        attackers: 6,
        gets: "the end, as a slow peer",
        each: SOCKET + INCOMING + WAITING + SEND_QUEUE + UNSENT,
        shared: 0,
    };
    row.play(&["--send-timeout", "1s"], |scene| {
        // Echoes that no queue of Link's has room for are not made; so it goes on until the system's buffers are full as well.
        let text = frame(0x81, message(256 * KIB).as_bytes(), true);
        let peers = scene.all_at_once(|at| {
            let mut peer = login(at);
            send_without_end(&mut peer, &text, Duration::from_millis(5));
            peer
        });
        scene.until("they are ended", |stats| disconnected(stats, "slow_peer") == 6);
        drop(peers);
    });
}

#[test]
fn broadcasts_that_some_do_not_read() {
    let row = Row {
        sent: "nothing, while 24 MiB are broadcast",
        attackers: 16,
        gets: "the end, as a slow peer",
        each: SOCKET + UNSENT,
        // A broadcast is shared by everybody who has yet to get it.
        shared: SEND_QUEUE + INCOMING + WAITING + UNSENT,
    };
    row.play(&[], |scene| {
        let peers = scene.each_in_turn(login);
        let mut speaker = login(scene.at);
        let text = format!(r#"{{"type":"broadcast","x":"{}"}}"#, "x".repeat(256 * KIB));
        for _ in 0..96 {
            speaker.send_text(&text);
            assert!(speaker.text() == text, "it hears itself");
        }
        scene.until("they are ended", |stats| disconnected(stats, "slow_peer") == 16);
        speaker.close(1000);
        drop(peers);
    });
}

// ------------------------------------------------------------------------------------------- what is only announced

#[test]
fn megabytes_announced_before_login() {
    let row = Row {
        sent: "the header of a 1 MiB message, before login",
        attackers: 512,
        gets: "1009 at once",
        each: SOCKET,
        shared: 0,
    };
    row.play(&[], |scene| {
        let peers = scene.each_in_turn(|at| {
            let mut peer = RawPeer::open(at);
            peer.bytes(&announcement(MESSAGE));
            peer
        });
        for mut peer in peers {
            assert_eq!(peer.until_the_end().1, Some(1009));
        }
    });
}

#[test]
fn megabytes_announced_after_login() {
    let row = Row {
        sent: "the header of a 1 MiB message, after login, and no more",
        attackers: 256,
        gets: "408, as silent",
        each: SOCKET,
        shared: 0,
    };
    row.play(&["--client-timeout", "3s"], |scene| {
        let peers = scene.each_in_turn(|at| {
            let mut peer = login(at);
            peer.bytes(&announcement(MESSAGE));
            peer
        });
        scene.until("they count as silent", |stats| disconnected(stats, "idle") == 256);
        drop(peers);
    });
}

#[test]
fn megabytes_that_lack_a_byte() {
    let row = Row {
        sent: "a 1 MiB message but for its last byte",
        attackers: 32,
        gets: "408, as silent",
        each: SOCKET + INCOMING,
        shared: 0,
    };
    row.play(&["--client-timeout", "2s"], |scene| {
        let peers = scene.each_in_turn(|at| {
            let mut peer = login(at);
            peer.bytes(&announcement(MESSAGE));
            peer.bytes(&vec![b' '; MESSAGE - 1]);
            peer
        });
        scene.until("they count as silent", |stats| disconnected(stats, "idle") == 32);
        drop(peers);
    });
}

#[test]
fn a_megabyte_once_and_then_nothing() {
    let row = Row {
        sent: "one message of 1 MiB, and its echo read; then only pongs",
        attackers: 32,
        gets: "nothing: it is honest",
        // tungstenite's buffers do not shrink: they stay as long as the message in each direction.
        each: SOCKET + MESSAGE + MESSAGE,
        shared: WAITING,
    };
    row.play(&[], |scene| {
        let text = message(MESSAGE);
        let mut peers = scene.each_in_turn(|at| {
            let mut peer = login(at);
            peer.send_text(&text);
            assert!(peer.text() == text);
            peer
        });
        scene.until("all are there", |stats| stats.authenticated == 33);
        for peer in &mut peers {
            peer.close(1000);
        }
    });
}

// ------------------------------------------------------------------------------------------------------------- sizes

#[test]
fn sizes_around_each_limit() {
    let row = Row {
        sent: "HTTP heads, first messages, messages and pings: at the limit, one below, one above",
        attackers: 1,
        gets: "its answer; 431, 1009, 1002 one above",
        each: SOCKET + INCOMING + WAITING + UNSENT,
        shared: 0,
    };
    row.play(&[], |scene| {
        let at = scene.at;
        for (length, status) in [(MAX_HEAD - 1, "101"), (MAX_HEAD, "101"), (MAX_HEAD + 1, "431")] {
            let begin = "GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Long: ";
            let head = format!("{begin}{}\r\n\r\n", "x".repeat(length - begin.len() - 4));
            let mut stream = raw::dial(at);
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes(), "a head of {length} bytes");
        }
        for (length, gets_in) in [(FIRST_MESSAGE - 1, true), (FIRST_MESSAGE, true), (FIRST_MESSAGE + 1, false)] {
            let mut proof = authenticate(&wallet(), unix_millis());
            proof["padding"] = "".into();
            proof["padding"] = "x".repeat(length - proof.to_string().len()).into();
            let mut peer = RawPeer::open(at);
            peer.send(&proof);
            match gets_in {
                true => assert!(peer.text().contains("authenticate"), "a proof of {length} bytes"),
                false => assert_eq!(peer.until_the_end(), (vec![], Some(1009)), "a proof of {length} bytes"),
            }
        }
        for (length, comes_back) in [(MESSAGE - 1, true), (MESSAGE, true), (MESSAGE + 1, false)] {
            let text = message(length);
            let mut whole = login(at);
            whole.bytes(&frame(0x81, text.as_bytes(), true));
            let mut halves = login(at);
            halves.bytes(&frame(0x01, &text.as_bytes()[..length / 2], true));
            halves.bytes(&frame(0x80, &text.as_bytes()[length / 2..], true));
            for mut peer in [whole, halves] {
                match comes_back {
                    true => assert!(peer.text() == text, "a message of {length} bytes"),
                    false => assert_eq!(peer.until_the_end().1, Some(1009), "a message of {length} bytes"),
                }
            }
        }
        for (length, is_answered) in [(124, true), (125, true), (126, false)] {
            let payload = vec![7; length];
            let mut peer = login(at);
            peer.bytes(&frame(0x89, &payload, true));
            match is_answered {
                true => while peer.frame() != Frame::Pong(payload.clone().into()) {},
                false => assert_eq!(peer.until_the_end().1, Some(1002), "a ping of {length} bytes"),
            }
        }
    });
}

// ------------------------------------------------------------------------------------------------ one byte at a time

/// Writes one byte at a time.
struct Dripping(TcpStream);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Dripping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A whole line that is slow, and otherwise honest.
fn slow_line(stream: impl Read + Write) {
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).unwrap();
    socket.send(Frame::text(authenticate(&wallet(), unix_millis()).to_string())).unwrap();
    let message = r#"{"type":"slow"}"#;
    loop {
        match socket.read().unwrap() {
            Frame::Text(text) if text.contains(r#""type":"authenticate""#) => {
                socket.send(Frame::text(message)).unwrap();
            }
            Frame::Text(text) if text.as_str() == message => break,
            Frame::Text(_) | Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

/// Drips that, and then one more byte again and again, until the server has had enough; says what it answered.
fn drip_without_end(mut stream: TcpStream, begin: &[u8]) -> Vec<u8> {
    let mut writing = stream.try_clone().unwrap();
    let begin = begin.to_owned();
    let drip = thread::spawn(move || {
        for byte in begin.iter().chain(std::iter::repeat(&b'a')) {
            if writing.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let answer = raw::all_or_reset(&mut stream);
    // It may be closed already.
    let _ = stream.shutdown(Shutdown::Both);
    drip.join().unwrap();
    answer
}

#[test]
fn heads_that_drip() {
    let row = Row {
        sent: "an HTTP head without end, a byte every 5 ms",
        attackers: 64,
        gets: "408 at the deadline",
        each: SOCKET + HEAD,
        shared: 0,
    };
    row.play(&["--auth-timeout", "1s"], |scene| {
        for answer in scene.all_at_once(|at| drip_without_end(raw::dial(at), b"GET / HTTP/1.1\r\nX: ")) {
            assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn first_messages_that_drip() {
    let row = Row {
        sent: "a proof of 4 KiB, a byte every 5 ms",
        attackers: 64,
        gets: "408 at the deadline",
        each: STRANGER,
        shared: 0,
    };
    row.play(&["--auth-timeout", "1s"], |scene| {
        let answers = scene.all_at_once(|at| {
            let mut peer = RawPeer::open(at);
            let stream = peer.stream().try_clone().unwrap();
            drip_without_end(stream, &announcement(FIRST_MESSAGE))
        });
        for answer in answers {
            assert!(answer[2..].starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn messages_that_drip() {
    let row = Row {
        sent: "a message of 1 MiB, a byte every 5 ms",
        attackers: 64,
        gets: "408, as silent",
        each: SOCKET,
        shared: 0,
    };
    row.play(&["--client-timeout", "1s"], |scene| {
        let answers = scene.all_at_once(|at| {
            let mut peer = login(at);
            let stream = peer.stream().try_clone().unwrap();
            drip_without_end(stream, &announcement(MESSAGE))
        });
        let quoted = br#""HTTP/1.1 408 Request Timeout"#;
        for answer in answers {
            assert!(answer.windows(quoted.len()).any(|part| part == quoted), "{}", answer.escape_ascii());
        }
    });
}

#[test]
fn lines_that_drip() {
    let row = Row {
        sent: "all of an honest line, one byte at a time",
        attackers: 32,
        gets: "its echo: it is honest",
        each: STRANGER,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| slow_line(Dripping(raw::dial(at))));
    });
}

#[test]
fn tls_that_drips() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem()));
    let row = Row {
        sent: "over TLS: a first record without end, a byte every 5 ms; all of an honest line, one byte at a time",
        attackers: 64,
        gets: "the end at the deadline; its echo",
        each: STRANGER + TLS,
        shared: 0,
    };
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    row.play_securely(&[&options[..], &["--auth-timeout", "2s"]].concat(), Some(&cert), |scene| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        // A handshake record of 16 KiB, in it a client's hello.
        let hello = [0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3];
        let at = scene.at;
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let tls = ClientConnection::new(config.clone(), at.ip().into()).unwrap();
                    slow_line(StreamOwned::new(tls, Dripping(raw::dial(at))));
                });
            }
            scene.all_at_once(|at| drip_without_end(raw::dial(at), &hello));
        });
        scene.until("the deadline", |stats| rejected(stats, "authentication_timeout") == 64);
    });
}

// ----------------------------------------------------------------------------------------------------------- numbers

#[test]
fn thousands_of_idle_sockets() {
    const IDLE: usize = 2000;
    const PLACES: usize = 1024;
    let row = Row {
        sent: "nothing",
        attackers: IDLE,
        gets: "503 at once, beyond 1,024 from one address; 408 at the deadline",
        each: 0,
        shared: PLACES * SOCKET,
    };
    row.play(&["--auth-timeout", "3s"], |scene| {
        // In pieces, each of which the server has seen before the next one: a system whose queue is full lets a connection seem
        // open to its client, and hands it over seconds later.
        let mut idle = Vec::new();
        while idle.len() < IDLE {
            idle.extend((0..100).map(|_| raw::dial(scene.at)));
            scene.until("the server sees them", |stats| {
                // The honest client is one of those accepted.
                (stats.accepted - 1 + stats.turned_away) as usize == idle.len()
            });
        }
        scene.until("the deadline", |stats| {
            assert!(stats.unauthenticated as usize <= PLACES, "{stats:?}");
            stats.turned_away as usize + rejected(stats, "authentication_timeout") >= IDLE
        });
        let stats = scene.server.stats();
        assert_eq!(stats.turned_away as usize + rejected(&stats, "authentication_timeout"), IDLE);
        assert!(stats.accepted as usize >= PLACES, "{stats:?}");
        drop(idle);
    });
}

#[test]
fn a_storm_of_bad_logins() {
    let row = Row {
        sent: "bad proofs, stale or of somebody else, 60 one after the other",
        attackers: 8,
        gets: "401 each time",
        each: 4 * STRANGER,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            for number in 0..60 {
                let mut peer = RawPeer::open(at);
                let mut proof = authenticate(&wallet(), unix_millis() - 60_000 * (number % 2));
                if number % 2 == 0 {
                    proof["address"] = wallet().address().to_string().into();
                }
                peer.send(&proof);
                let (texts, code) = peer.until_the_end();
                assert_eq!((&*texts[0], code), ("HTTP/1.1 401 Unauthorized\r\n\r\n", Some(4401)));
            }
        });
        scene.until("half and half", |stats| {
            (rejected(stats, "bad_signature"), rejected(stats, "stale_proof")) == (240, 240)
        });
    });
}

#[test]
fn replays() {
    let row = Row {
        sent: "a good proof, and the same one 5 times, 20 times over",
        attackers: 8,
        gets: "401 each time but the first",
        each: 4 * STRANGER,
        // Used proofs, of about 100 bytes each.
        shared: 8 * 20 * 100,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            for _ in 0..20 {
                let proof = authenticate(&wallet(), unix_millis());
                let mut owner = RawPeer::open(at);
                owner.send(&proof);
                assert!(owner.text().contains("authenticate"));
                for _ in 0..5 {
                    let mut peer = RawPeer::open(at);
                    peer.send(&proof);
                    let (texts, code) = peer.until_the_end();
                    assert_eq!((&*texts[0], code), ("HTTP/1.1 401 Unauthorized\r\n\r\n", Some(4401)));
                }
                // Its owner is still there.
                owner.send_text(r#"{"type":"there"}"#);
                assert_eq!(owner.text(), r#"{"type":"there"}"#);
            }
        });
        scene.until("all are refused", |stats| rejected(stats, "replayed") == 800);
    });
}

#[test]
fn heads_without_end() {
    let row = Row {
        sent: "an HTTP head of 16 KiB, a pause, and 1 MiB more of it",
        attackers: 64,
        gets: "431",
        each: SOCKET + HEAD,
        shared: 0,
    };
    row.play(&[], |scene| {
        let streams = scene.each_in_turn(|at| {
            let mut stream = raw::dial(at);
            let begin = "GET / HTTP/1.1\r\n";
            let headers = "X-More: and more\r\n".repeat((MAX_HEAD - begin.len()) / 18);
            stream.write_all(format!("{begin}{headers}").as_bytes()).unwrap();
            stream
        });
        scene.until("all are there", |stats| stats.unauthenticated == 64);
        for mut stream in streams {
            let more = "X-More: and more\r\n".repeat(MIB / 18);
            // The server may well end it in the middle.
            let _ = stream.write_all(more.as_bytes());
            let answer = raw::all_or_reset(&mut stream);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
        }
        scene.until("all are refused", |stats| rejected(stats, "websocket") == 64);
    });
}

// -------------------------------------------------------------------------------------------------------------- JSON

#[test]
fn deep_and_double_json() {
    let row = Row {
        sent: "JSON 100,000 deep, keys 100,000 times over, keys of 500 kB, odd numbers and surrogates",
        attackers: 8,
        gets: "each of them back, byte for byte",
        each: SOCKET + INCOMING + WAITING + UNSENT,
        shared: 0,
    };
    row.play(&[], |scene| {
        let deep = |open: &str, close: &str| {
            format!(r#"{{"type":"deep","x":{}1{}}}"#, open.repeat(100_000), close.repeat(100_000))
        };
        let odd = [
            deep("[", "]"),
            deep(r#"{"x":"#, "}"),
            deep(r#"[{"":"#, "}]"),
            format!(r#"{{"type":"many",{}"z":0}}"#, r#""k":0,"#.repeat(100_000)),
            format!(r#"{{"type":"long","{}":1}}"#, "k".repeat(500_000)),
            r#"{"type":"a","type":"b","x":1e400,"y":-0,"z":"\ud800"}"#.into(),
        ];
        scene.all_at_once(|at| {
            let mut peer = login(at);
            for text in &odd {
                peer.send_text(text);
                assert!(peer.text() == *text, "{} comes back as it was", &text[..40]);
            }
            peer.close(1000);
        });
    });
}

#[test]
fn deep_and_double_first_messages() {
    let row = Row {
        sent: "as its first message, JSON 2,000 deep, or a proof with each field twice",
        attackers: 64,
        gets: "1008 or 401",
        each: STRANGER,
        shared: 0,
    };
    row.play(&[], |scene| {
        let proof = authenticate(&wallet(), unix_millis()).to_string();
        let inner = &proof[1..proof.len() - 1];
        let double = format!("{{{inner},{inner}}}");
        let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
        scene.all_at_once(|at| {
            for (text, code) in [(&deep, 1008), (&double, 4401)] {
                let mut peer = RawPeer::open(at);
                peer.send_text(text);
                assert_eq!(peer.until_the_end().1, Some(code));
            }
        });
    });
}

// ---------------------------------------------------------------------------------------------------------- churning

#[test]
fn resets_in_the_middle() {
    let row = Row {
        sent: "a login, half a message of 1 MiB, and a reset, 20 times over",
        attackers: 8,
        gets: "nothing",
        each: 2 * (SOCKET + INCOMING),
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            for _ in 0..20 {
                let mut peer = login(at);
                peer.bytes(&announcement(MESSAGE));
                peer.bytes(&vec![b' '; MESSAGE / 2]);
                SockRef::from(&*peer.stream()).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
    });
}
