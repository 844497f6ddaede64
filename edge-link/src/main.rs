//! `edge-link`: Link on the command line.
//!
//! - `args`: what can be asked for.
//! - `serve`, `connect`, `bench`, `wallet`, `manual`: the commands.
//! - `metrics`: a server's counters for Prometheus.
//! - `input`: what is typed or piped in.
//! - `key`: where a key comes from, and how a wallet file looks.
//! - `output`: what is printed, for people or as JSON.
//! - `logs`: what is logged.
//!
//! Exit codes: 0 done; 1 refused, lost or not valid (the reason is on stderr); 2 wrong usage.

mod args;
mod bench;
mod connect;
mod input;
mod key;
mod logs;
mod manual;
mod metrics;
mod output;
mod serve;
mod wallet;

use std::{fmt, io, io::Write as _, process::ExitCode, time::Duration};

use args::{Args, Command, RuntimeName};
use clap::Parser;
use link_async_std::AsyncStd;
use link_smol::Smol;
use link_tokio::Tokio;

/// How long an interrupted command may take to end.
const PATIENCE: Duration = Duration::from_secs(6);

/// Why the command ends with something else than 0.
#[derive(Debug)]
enum Failure {
    /// Refused, lost or not valid: 1.
    Failed(String),
    /// Asked for something that makes no sense: 2.
    Usage(String),
}

impl Failure {
    fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }

    fn usage(reason: impl fmt::Display) -> Self {
        Self::Usage(reason.to_string())
    }
}

impl From<io::Error> for Failure {
    /// Only printing leaves its errors to this.
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("cannot print: {error}"))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    logs::start();
    let (reason, code) = match run(args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(reason)) => (reason, 1),
        Err(Failure::Usage(reason)) => (reason, 2),
    };
    // If stderr is closed, the code has to say it.
    let _ = writeln!(io::stderr(), "edge-link: {reason}");
    ExitCode::from(code)
}

fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Serve(args) => match args.runtime {
            RuntimeName::Tokio => on_tokio(serve::run::<Tokio>(args)),
            RuntimeName::AsyncStd => on_tokio(serve::run::<AsyncStd>(args)),
            RuntimeName::Smol => on_tokio(serve::run::<Smol>(args)),
        },
        Command::Connect(args) => match args.runtime {
            RuntimeName::Tokio => on_tokio(connect::run::<Tokio>(args)),
            RuntimeName::AsyncStd => on_tokio(connect::run::<AsyncStd>(args)),
            RuntimeName::Smol => on_tokio(connect::run::<Smol>(args)),
        },
        Command::Bench(args) => on_tokio(bench::run(args)),
        Command::Wallet { command } => wallet::run(command),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { out: Some(directory), .. } => manual::write_man_pages(&directory),
        Command::Man { command, out: None } => manual::man(&command),
    }
}

/// Runs the command itself: signals, the terminal, printing. Link may run on another runtime beside it, whose tasks
/// and sockets are its own.
fn on_tokio(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    {
        // Before anything is printed: whoever reads it may interrupt at once.
        let _context = runtime.enter();
        runtime.spawn(end_in_any_case(interrupted()));
    }
    runtime.block_on(work)
}

/// Once interrupted, the work ends by itself, unless it cannot print since nobody reads that.
async fn end_in_any_case(interrupt: impl Future<Output = ()>) {
    interrupt.await;
    tokio::time::sleep(PATIENCE).await;
    let _ = writeln!(io::stderr(), "edge-link: ended before everything was printed");
    std::process::exit(1);
}

/// Ready when the person, or the system, wants the program to end: from this call on, however late it is polled.
#[cfg(unix)]
fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async move {
        // Without signals there is nothing to wait for but the end of the work.
        let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// As above, where there is no signal but Ctrl-C.
#[cfg(windows)]
fn interrupted() -> impl Future<Output = ()> {
    let interrupt = tokio::signal::windows::ctrl_c();
    async move {
        match interrupt {
            Ok(mut interrupt) => _ = interrupt.recv().await,
            Err(_) => std::future::pending().await,
        }
    }
}
