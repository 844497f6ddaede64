//! The server: an echo, with a few words more. It says on stdout where it listens, answers each line on stdin with what it
//! has counted, and ends in good order when stdin does, so that it never outlives who started it.
//!
//! `edge-link serve` would be the obvious one. It prints each message, though, has no way to broadcast or to be asked, and
//! its limits are the defaults.

use std::{
    collections::BTreeMap,
    fs::File,
    future,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use link_async_std::AsyncStd;
use link_driver::{ConnectedClient, Message, Runtime, Server, ServerEvent, ServerHandle};
use link_smol::Smol;
use link_tokio::Tokio;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Messages of this type go to everybody.
pub const BROADCAST: &str = "broadcast";
/// Who sends a message of this type is disconnected.
pub const LEAVE: &str = "leave";

/// The options of the server.
#[derive(Debug, Args)]
pub struct Options {
    /// The async runtime of the server.
    #[arg(long, value_name = "NAME", default_value = "tokio")]
    runtime: RuntimeName,
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    auth_timeout: Duration,
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    client_timeout: Duration,
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    send_timeout: Duration,
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    heartbeat_interval: Duration,
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[arg(long)]
    canary: Option<Canary>,
}

/// The runtimes that there are adapters for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    /// tokio, on several threads.
    Tokio,
    /// async-std.
    AsyncStd,
    /// smol.
    Smol,
}

/// What a server can be made to lose for each client. A soak that does not notice is blind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Canary {
    /// A hold on it, which is never let go.
    Peer,
    /// 64 bytes.
    Bytes,
    /// A file descriptor, for one in sixteen.
    Descriptor,
    /// A task, for one in sixteen.
    Task,
}

/// What a server says when it starts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listening {
    /// Where it listens.
    pub at: SocketAddr,
}

/// What a server says when it is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stats {
    /// Connections that are there and have yet to authenticate.
    pub unauthenticated: u64,
    /// Connections that are there and authenticated.
    pub authenticated: u64,
    /// Connections that were given a place, ever.
    pub accepted: u64,
    /// Connections that were given none.
    pub turned_away: u64,
    /// How many ended before they were authenticated, by the label of the reason.
    pub rejected: BTreeMap<String, u64>,
    /// How many ended after they were authenticated, by the label of the reason.
    pub disconnected: BTreeMap<String, u64>,
    /// Tasks that have not ended; tokio alone tells.
    pub tasks: Option<usize>,
}

impl Stats {
    fn of<R: Runtime>(server: &ServerHandle<R>, tasks: Option<usize>) -> Self {
        let stats = server.stats();
        let owned = |counts: &BTreeMap<&str, u64>| {
            counts.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
        };
        Self {
            unauthenticated: stats.unauthenticated,
            authenticated: stats.authenticated,
            accepted: stats.accepted,
            turned_away: stats.turned_away.values().sum(),
            rejected: owned(&stats.rejected),
            disconnected: owned(&stats.disconnected),
            tasks,
        }
    }
}

/// Serves until stdin ends.
///
/// # Errors
/// When it cannot listen, or cannot print.
pub fn run(options: Options) -> io::Result<()> {
    // tokio runs this function; Link may run on another runtime beside it, whose tasks and sockets are its own.
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    tokio.block_on(async {
        match options.runtime {
            RuntimeName::Tokio => serve::<Tokio>(options).await,
            RuntimeName::AsyncStd => serve::<AsyncStd>(options).await,
            RuntimeName::Smol => serve::<Smol>(options).await,
        }
    })
}

async fn serve<R: Runtime>(options: Options) -> io::Result<()> {
    let mut builder = Server::<R>::builder()
        .host(Ipv4Addr::LOCALHOST)
        .port(0)
        .auth_timeout(options.auth_timeout)
        .auth_check_interval(Duration::ZERO)
        .idle_timeout(options.client_timeout)
        .idle_check_interval(Duration::ZERO)
        .send_timeout(options.send_timeout)
        .heartbeat_interval(options.heartbeat_interval);
    if let (Some(cert), Some(key)) = (options.tls_cert, options.tls_key) {
        builder = builder.tls_cert(cert).tls_key(key);
    }
    let mut server = builder.bind().await.map_err(io::Error::other)?;
    say(&Listening { at: server.local_address().map_err(io::Error::other)? })?;

    let (handle, tokio) = (server.handle(), tokio::runtime::Handle::current());
    let counts_tasks = options.runtime == RuntimeName::Tokio;
    let (ended, mut end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let tasks = counts_tasks.then(|| tokio.metrics().num_alive_tasks());
            if line.is_err() || say(&Stats::of(&handle, tasks)).is_err() {
                break;
            }
        }
        drop(ended);
    });
    let mut lost = Vec::new();
    loop {
        let event = tokio::select! {
            event = server.next() => event,
            _ = &mut end => break,
        };
        match event {
            Some(ServerEvent::Authenticated(peer)) => {
                if let Some(canary) = options.canary {
                    canary.lose::<R>(peer, &mut lost);
                }
            }
            Some(ServerEvent::Message(peer, message)) => answer(&server.handle(), &peer, &message),
            Some(_) => {}
            None => break,
        }
    }
    server.close().await;
    Ok(())
}

fn answer<R: Runtime>(server: &ServerHandle<R>, peer: &ConnectedClient, message: &Message) {
    // A client that has gone, or takes nothing: that is its own affair.
    let _ = match message.kind() {
        Some(BROADCAST) => server.broadcast(message).map(drop),
        Some(LEAVE) => {
            peer.close();
            Ok(())
        }
        _ => peer.try_send(message),
    };
}

impl Canary {
    fn lose<R: Runtime>(self, peer: ConnectedClient, lost: &mut Vec<[u8; 64]>) {
        let seldom = peer.id().get().is_multiple_of(16);
        match self {
            Self::Peer => std::mem::forget(peer),
            Self::Bytes => lost.push([1; 64]),
            Self::Descriptor if seldom => std::mem::forget(File::open("/dev/null")),
            Self::Task if seldom => R::spawn(future::pending()),
            Self::Descriptor | Self::Task => {}
        }
    }
}

/// Prints a line of JSON for whoever has started this process.
///
/// # Errors
/// When nobody reads it.
pub fn say(what: &impl Serialize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(what)?)?;
    stdout.flush()
}
