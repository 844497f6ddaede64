//! `edge-link bench`: put load on a server, and measure how it bears it.
//!
//! - `clock`, `schedule`: the time of a run, what of it is measured, and when messages are due in an open loop.
//! - `payload`: what a message says.
//! - `book`: what is awaited on one line; `group`: one who sends, and those who are to receive it.
//! - `messages`, `login`, `idle`: the modes. (Echo is broadcast to oneself.)
//! - `tally`, `report`: what was counted and measured, and what is printed of it.

mod book;
mod clock;
mod group;
mod idle;
mod login;
mod messages;
mod payload;
mod report;
mod schedule;
mod tally;

use std::{
    io::{self, IsTerminal as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use link_driver::{
    CloseReason, ConnectError, ConnectionFailure, DialError, ErrorChain, FailureCause, new_wallet,
};
use link_tokio::{Client, ClientBuilder};
use tokio::task::JoinSet;

use self::{clock::Clock, payload::Payload, tally::Tally};
use crate::{
    Failure,
    args::{Bench, BenchMode},
    interrupted,
    output::print,
};

/// How often it is looked at how the run goes.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked at whether the last answers have come.
const LAST_TICK: Duration = Duration::from_millis(5);
/// How long an interrupted run waits for the last answers.
const HURRY: Duration = Duration::from_secs(2);
/// How long closing may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How many connections are opened at a time.
const OPENING: usize = 64;
/// What a queue counts for a message beside its length.
const OVERHEAD: usize = 64;

/// What all of a run shares.
#[derive(Debug)]
struct Run {
    clock: std::sync::Arc<Clock>,
    payload: Payload,
    depth: usize,
    timeout: Duration,
    tally: Mutex<Tally>,
}

impl Run {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the measured time came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    InTime,
    Interrupted,
    /// The mode said so: there is nobody left, or nobody answers.
    Early,
}

pub(crate) async fn run(args: Bench) -> Result<(), Failure> {
    check(&args)?;
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    match args.mode {
        BenchMode::Echo | BenchMode::Broadcast => messages::run(&args, interrupt).await,
        BenchMode::Login => login::run(&args, interrupt).await,
        BenchMode::Idle => idle::run(&args, interrupt).await,
    }
}

/// What makes no sense together.
fn check(args: &Bench) -> Result<(), Failure> {
    let messages = matches!(args.mode, BenchMode::Echo | BenchMode::Broadcast);
    let useless = match () {
        () if !messages && args.depth.is_some() => {
            "--depth is about messages: it goes with --mode echo or broadcast"
        }
        () if !messages && args.size.is_some() => {
            "--size is about messages: it goes with --mode echo or broadcast"
        }
        () if args.mode == BenchMode::Idle && args.rate.is_some() => {
            "--rate has no meaning with --mode idle, where nothing is sent"
        }
        () => return Ok(()),
    };
    Err(Failure::usage(useless))
}

impl Bench {
    fn size(&self) -> usize {
        self.size.map_or(128, |size| usize::try_from(size).unwrap_or(usize::MAX))
    }

    fn depth(&self) -> usize {
        let default = if self.rate.is_some() { 1000 } else { 1 };
        self.depth.map_or(default, |depth| usize::try_from(depth).unwrap_or(usize::MAX))
    }

    fn begin(&self, run: &str) -> Result<Run, Failure> {
        Ok(Run {
            clock: Clock::begin(self.warm_up, self.duration).into(),
            payload: Payload::new(run, self.size()),
            depth: self.depth(),
            timeout: self.timeout,
            tally: Mutex::new(Tally::new().map_err(Failure::failed)?),
        })
    }

    /// A client with a wallet of its own, which does not dial again.
    fn client(&self) -> Result<ClientBuilder, Failure> {
        let (size, depth) = (self.size(), self.depth());
        let mut builder = Client::builder()
            .url(&self.url)
            .wallet(new_wallet().map_err(Failure::failed)?)
            .max_reconnect_attempts(0)
            .idle_timeout(self.timeout.max(Duration::from_secs(5)))
            .max_message_size(size.max(1 << 20))
            .max_send_queue(depth.saturating_mul(size.saturating_add(OVERHEAD)).max(1 << 20))
            // A turn's worth: its places are allocated at once, in each of thousands of clients.
            .event_capacity(depth.clamp(16, 128));
        if let Some(ca) = &self.ca {
            builder = builder.tls_ca(ca);
        }
        Ok(builder)
    }

    /// Opens all connections. The first one goes alone: if it fails, so would the others. How those fail that come after
    /// it is counted.
    async fn connect(&self) -> Result<(Vec<Client>, tally::Errors), Failure> {
        let mut clients = vec![self.client()?.connect().await.map_err(failure)?];
        let mut errors = tally::Errors::default();
        let mut opening = JoinSet::new();
        let mut to_open = self.connections.saturating_sub(1);
        loop {
            while to_open > 0 && opening.len() < OPENING {
                opening.spawn(self.client()?.connect());
                to_open = to_open.saturating_sub(1);
            }
            match opening.join_next().await {
                Some(Ok(Ok(client))) => clients.push(client),
                Some(Ok(Err(error))) => errors.fail(label(&error), || text(&error)),
                Some(Err(error)) => return Err(Failure::failed(error)),
                None => return Ok((clients, errors)),
            }
        }
    }
}

/// What has to be done before anything is measured, unless it is interrupted.
async fn unless_interrupted<T>(
    interrupt: &mut (impl Future<Output = ()> + Unpin),
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = interrupt => Err(Failure::failed("interrupted before anything was measured")),
    }
}

/// Why the command ends when a connection cannot be had.
fn failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::Target(error) => Failure::usage(error),
        error => Failure::failed(text(&error)),
    }
}

/// Why there is no connection, without that it was not tried again, which goes without saying here.
fn text(error: &ConnectError) -> String {
    match error {
        ConnectError::Failed(failure) => ErrorChain::new(&failure.cause).to_string(),
        error => ErrorChain::new(error).to_string(),
    }
}

/// A short name for why there is no connection.
fn label(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Failed(failure) => failure_label(failure),
        _ => "not_started",
    }
}

fn failure_label(failure: &ConnectionFailure) -> &'static str {
    match &failure.cause {
        FailureCause::Closed(reason) => reason.label(),
        FailureCause::Dial(DialError::Tls { .. }) => "tls",
        FailureCause::Dial(DialError::Upgrade { .. }) => "no_websocket",
        FailureCause::Dial(DialError::Timeout { .. }) => "connect_timeout",
        FailureCause::Dial(_) => "cannot_connect",
        _ => CloseReason::Lost.label(),
    }
}

/// Waits until the measured time ends, and has `look` see how it goes, which says whether to go on. Ends the clock's
/// window then.
async fn watch(
    run: &Run,
    bar: &ProgressBar,
    mut interrupt: impl Future<Output = ()> + Unpin,
    mut look: impl FnMut(Duration) -> bool,
) -> Ended {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = (Duration::ZERO, 0);
    let ended = loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut interrupt => break Ended::Interrupted,
        }
        let now = run.clock.now();
        let window = run.clock.window();
        if now >= window.end {
            break Ended::InTime;
        }
        if !look(now) {
            break Ended::Early;
        }
        bar.set_position(now.as_secs());
        let many = run.tally().latency().len();
        let since = now.saturating_sub(before.0);
        if now < window.start {
            bar.set_message("warming up");
        } else if since >= Duration::from_secs(1) {
            bar.set_message(format!("{:.0}/s", report::per_second(many.saturating_sub(before.1), since)));
            before = (now, many);
        }
    };
    run.clock.end_at(run.clock.now());
    bar.finish_and_clear();
    ended
}

/// How long the last answers are waited for.
fn patience(run: &Run, ended: Ended) -> Duration {
    if ended == Ended::Interrupted { run.timeout.min(HURRY) } else { run.timeout }
}

/// On stderr, if a person sees it.
fn bar(args: &Bench) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(args.warm_up.saturating_add(args.duration).as_secs());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} s, {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Prints the report. Errors in it are told by the exit code too.
fn conclude(report: &report::Report<'_>, json: bool) -> Result<(), Failure> {
    print(&if json { serde_json::to_string(report).map_err(Failure::failed)? } else { report.to_string() })?;
    match report.went_well() {
        true => Ok(()),
        false => Err(Failure::Failed("not all went well: see the errors in the report".into())),
    }
}
