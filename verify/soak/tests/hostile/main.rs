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

mod announced;
mod churning;
mod dripping;
mod fragments;
mod json;
mod numbers;
mod sizes;
mod windows;

use std::{
    env, fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use link_conformance::raw::{self, Dripping, RawPeer, authenticate, frame, unix_millis};
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
/// silent peer up, which it notices as well. (So no row has a shorter `idle_timeout` than the default's five seconds.)
const PATIENCE: Duration = Duration::from_secs(4);

// What a connection may take, by what it has come to.
/// There at all: its task, its place in the registry, and the buffer that it reads into.
const SOCKET: usize = 8 * KIB + READ_BUFFER;
/// An HTTP request, in a vector that doubles.
const HEAD: usize = 2 * MAX_HEAD;
/// A message before authentication, and what waits for somebody who does not read.
const STRANGER: usize = SOCKET + 2 * FIRST_MESSAGE + 3 * FIRST_MAX_UNSENT;
/// What TLS keeps of a record that is not whole.
const TLS: usize = 32 * KIB;
/// A message on its way in, in a buffer that doubles, and what was read ahead.
const INCOMING: usize = 2 * MESSAGE + 64 * KIB;
/// What waits in front of the socket of a client that does not read: one turn's messages, the longest of them, and room for the
/// protocol's own, in a vector that doubles when three quarters of it wait.
const UNSENT: usize = 3 * (MESSAGE + 256 * KIB + 2 * WRITE_BATCH);
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
    honest: Honest,
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
        let limit = rlimit::increase_nofile_limit(8192).unwrap_or(0);
        assert!(
            limit as usize >= self.attackers + 100,
            "the system allows only {limit} open files a process"
        );

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
        let mut scene = Scene { server, at, attackers: self.attackers, honest };
        scene.honest.worst();
        attack(&mut scene);
        scene.honest.goes_on();
        scene.until("all of them are gone", |stats| (stats.unauthenticated, stats.authenticated) == (0, 1));
        scene.honest.goes_on();
        let peak = scene.server.usage().peak.saturating_sub(before) as usize;
        let worst = scene.honest.worst();
        scene.honest.leave();
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
        until(what, || {
            self.honest.must_be_there();
            so(&self.server.stats())
        });
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
