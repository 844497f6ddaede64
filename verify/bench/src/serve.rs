//! The servers, and the process of one. That says on stdout where it listens, answers `cpu` on stdin with the CPU time
//! that it has used, takes any other line as a text to broadcast, and ends when stdin does.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use async_channel::{Receiver, Sender};
use clap::{Args, ValueEnum};
use link_async_std::AsyncStd;
use link_driver::{Message, OnAsyncTungstenite, Runtime, Server, ServerEvent, Session};
use link_smol::Smol;
use link_soak::serve::{Listening, RuntimeName, say};
use link_tokio::Tokio;
use rustix::time::{ClockId, clock_gettime};

use crate::{bare, load::Greeting};

/// The interval of heartbeats, where there are any.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Bare: every message goes back.
    BareEcho,
    /// Bare: a ping and a text every second.
    BareHeartbeats,
    /// Bare: a prepared frame to everybody.
    BareBroadcast,
    /// Link as a stream of events: every message goes back, and broadcasts.
    LinkEvents,
    /// Link with a handler for each client, in the connection's own task: every message goes back, and broadcasts.
    LinkServe,
    /// The same, over WebSockets of async-tungstenite in the place of Link's own.
    LinkOnAsyncTungstenite,
}

impl Kind {
    /// How its clients introduce themselves.
    pub fn greeting(self) -> Greeting {
        match self {
            Self::LinkEvents | Self::LinkServe | Self::LinkOnAsyncTungstenite => Greeting::Link,
            Self::BareEcho | Self::BareHeartbeats | Self::BareBroadcast => Greeting::Bare,
        }
    }
}

/// The options of the server.
#[derive(Debug, Args)]
pub struct Options {
    /// What it serves.
    #[arg(long)]
    pub kind: Kind,
    /// What it runs on.
    #[arg(long)]
    pub runtime: RuntimeName,
    /// tokio: threads of its scheduler; without it, the one that has no other.
    #[arg(long)]
    pub workers: Option<usize>,
    /// tokio: its default runtime, as `#[tokio::main]` starts it, whose first thread runs the program's own task.
    #[arg(long)]
    pub default_runtime: bool,
    /// Bare: bytes of the read buffer.
    #[arg(long)]
    pub read_buffer: usize,
}

/// The line that asks a server's process for the CPU time that it has used.
pub const CPU: &str = "cpu";

/// The name of a choice, as on the command line.
pub fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().expect("none is hidden").get_name().to_owned()
}

/// Serves until stdin ends.
///
/// # Errors
/// When it cannot listen, or cannot print.
pub fn run(options: Options) -> io::Result<()> {
    let Started { at, tell } = start(options)?;
    say(&Listening { at })?;
    for line in io::stdin().lines() {
        match line? {
            line if line == CPU => say(&cpu_time(ClockId::ProcessCPUTime))?,
            text => tell.try_send(text).map_err(io::Error::other)?,
        }
    }
    Ok(())
}

/// A server in this process, for as long as that lives.
#[derive(Debug)]
pub struct Started {
    /// Where it listens.
    pub at: SocketAddr,
    /// Takes texts to broadcast.
    pub tell: Sender<String>,
}

/// Starts a server on threads of its own, and waits until it listens.
///
/// # Errors
/// When it cannot listen.
pub fn start(options: Options) -> io::Result<Started> {
    let (tell, told) = async_channel::unbounded();
    let (listens, listening) = async_channel::bounded(1);
    match options.runtime {
        RuntimeName::Tokio => {
            let mut builder = match options.workers {
                None => tokio::runtime::Builder::new_current_thread(),
                Some(workers) => {
                    let mut builder = tokio::runtime::Builder::new_multi_thread();
                    builder.worker_threads(workers);
                    builder
                }
            };
            if options.default_runtime {
                builder = tokio::runtime::Builder::new_multi_thread();
            }
            let runtime = builder.enable_all().build()?;
            thread::spawn(move || match options.default_runtime {
                true => runtime.block_on(serve::<Tokio>(options, listens, told)),
                // Spawned, so that all of it runs on the scheduler's own threads.
                false => runtime
                    .block_on(async { tokio::spawn(serve::<Tokio>(options, listens, told)).await })
                    .expect("it does not panic"),
            });
        }
        RuntimeName::AsyncStd => AsyncStd::spawn(serve::<AsyncStd>(options, listens, told)),
        RuntimeName::Smol => Smol::spawn(serve::<Smol>(options, listens, told)),
    }
    Ok(Started { at: listening.recv_blocking().map_err(io::Error::other)?, tell })
}

async fn serve<R: Runtime>(options: Options, listens: Sender<SocketAddr>, told: Receiver<String>) {
    match options.kind {
        Kind::LinkOnAsyncTungstenite => run_on::<OnAsyncTungstenite<R>>(options, listens, told).await,
        _ => run_on::<R>(options, listens, told).await,
    }
}

async fn run_on<R: Runtime>(options: Options, listens: Sender<SocketAddr>, told: Receiver<String>) {
    let listens = |at| listens.try_send(at).expect("somebody waits for it");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if let Greeting::Link = options.kind.greeting() {
        let server =
            Server::<R>::builder().host(Ipv4Addr::LOCALHOST).port(0).bind().await.expect("a free port");
        listens(server.local_address().expect("it listens"));
        let handle = server.handle();
        R::spawn(async move {
            while let Ok(text) = told.recv().await {
                let message = Message::parse(text).expect("JSON");
                handle.broadcast(&message).expect("a message that can be sent");
            }
        });
        return match options.kind {
            Kind::LinkEvents => link_events(server).await,
            _ => server.serve(echo).await,
        };
    }
    let listener = R::bind(any).await.expect("a free port");
    listens(R::local_address(&listener).expect("it listens"));
    match options.kind {
        Kind::BareHeartbeats => bare::heartbeats::<R>(listener, options.read_buffer, HEARTBEAT).await,
        Kind::BareBroadcast => bare::broadcast::<R>(listener, told).await,
        _ => bare::echo::<R>(listener, options.read_buffer).await,
    }
}

async fn link_events<R: Runtime>(mut server: Server<R>) {
    while let Some(event) = server.next().await {
        if let ServerEvent::Message(client, message) = event {
            // A client that has gone is no reason to stop.
            let _ = client.try_send(message);
        }
    }
}

async fn echo(mut session: Session) {
    while let Some(message) = session.next().await {
        if session.send(message).await.is_err() {
            break;
        }
    }
}

/// The CPU time that this clock has counted, in the system's code too.
pub fn cpu_time(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("positive")
}
