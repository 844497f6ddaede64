//! The command: keeps a server busy, and says whether it needs more and more for that.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "this program is a test: to panic is how it fails"
)]

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::{self, ExitCode},
    time::{Duration, Instant},
};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum as _, error::ErrorKind};
use indicatif::{ProgressBar, ProgressStyle};
use link_soak::{
    PATIENCE,
    honest::Honest,
    judge::{Growth, MIN_ROUNDS, Sample, after_warm_up, judge},
    process::ServerProcess,
    rounds::round,
    serve::{self, Canary, Options, RuntimeName},
    until,
};

/// How long a server may take to put away what it has of connections that have ended.
const SETTLING: Duration = Duration::from_secs(3);

/// Has glibc give back what is free, so that what is in memory is what the server has. (Other allocators pass over it.)
const THRIFTY: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Keeps a server busy, round by round, and checks that it needs no more memory, file descriptors, threads or tasks for
/// that in the end than after its warm-up, a third of the time.
///
/// Exits with 1 when it does, and says what grew; with 2 when it could not be run. Needs Linux, for /proc.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How long to go on, and no less than nine rounds.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How many peers do their work at once.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    peers: usize,
    /// The async runtime of the server.
    #[arg(long, value_name = "NAME", default_value = "tokio")]
    runtime: RuntimeName,
    /// Makes the server lose something for each client, which must be noticed.
    #[arg(long, value_name = "WHAT")]
    canary: Option<Canary>,
    /// Leave the server's allocator as it is. What that keeps at hand for later is then several times what the server
    /// has, and a loss must be as large to be seen.
    #[arg(long)]
    allocator_as_it_is: bool,
    /// Where the order of the work comes from.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is the server. (The process that is watched.)
    #[command(hide = true)]
    Serve(Options),
}

impl Arguments {
    fn server(&self) -> io::Result<ServerProcess> {
        let mut command = process::Command::new(std::env::current_exe()?);
        command.args(["serve", "--auth-timeout", "2s", "--client-timeout", "2s"]);
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        command.args(["--heartbeat-interval", "500ms", "--runtime", &name(self.runtime.to_possible_value())]);
        if let Some(canary) = self.canary {
            command.args(["--canary", &name(canary.to_possible_value())]);
        }
        if !self.allocator_as_it_is {
            command.envs(THRIFTY);
        }
        Ok(ServerProcess::start(&mut command))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.canary == Some(Canary::Task) && arguments.runtime != RuntimeName::Tokio {
        let message = "only tokio says how many tasks there are, so that nobody would notice";
        Arguments::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    let outcome = match arguments.command {
        Some(Command::Serve(options)) => serve::run(options).map(|()| ExitCode::SUCCESS),
        None => soak(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "link-soak: {error}");
        ExitCode::from(2)
    })
}

fn soak(arguments: &Arguments) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut server = arguments.server()?;
    let honest = Honest::arrive(server.address(), None, PATIENCE);
    let bar = bar(arguments.duration);
    let began = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    while began.elapsed() < arguments.duration || samples.len() < MIN_ROUNDS {
        let started = Instant::now();
        let seed = arguments.seed.wrapping_add(1000 * samples.len() as u64);
        round(server.address(), arguments.peers, seed, &runtime);
        let sample = quiet(&mut server, &honest, samples.last());
        samples.push(sample);
        bar.suspend(|| tell(samples.len(), &sample, honest.worst(), started.elapsed()))?;
        bar.set_position(began.elapsed().as_secs());
    }
    bar.finish_and_clear();
    honest.leave();
    server.stop();

    let mut out = io::stdout().lock();
    writeln!(out, "after the warm-up: {}", Growth::of(after_warm_up(&samples)))?;
    let losses = judge(&samples);
    for loss in &losses {
        writeln!(out, "FAILS: {loss}")?;
    }
    Ok(if losses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until nobody is there but the honest client, and what the others had is put away.
fn quiet(server: &mut ServerProcess, honest: &Honest, before: Option<&Sample>) -> Sample {
    until("every connection of the round ends", || {
        honest.must_be_there();
        let stats = server.stats();
        (stats.unauthenticated, stats.authenticated) == (0, 1)
    });
    let began = Instant::now();
    loop {
        let stats = server.stats();
        let (usage, tasks) = (server.usage(), stats.tasks);
        let settled = before
            .is_some_and(|before| usage.descriptors <= before.usage.descriptors && tasks <= before.tasks);
        if settled || began.elapsed() >= SETTLING {
            return Sample { connections: stats.accepted, usage, tasks };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tell(number: usize, sample: &Sample, worst: Duration, took: Duration) -> io::Result<()> {
    let Sample { connections, usage, tasks } = sample;
    let tasks = tasks.map(|tasks| format!(", {tasks} tasks")).unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "round {number:>4}: {connections:>8} connections, {:>6} KiB resident, {} descriptors, {} threads{tasks}, \
         the longest round trip {:.0} ms, in {:.1} s",
        usage.resident >> 10,
        usage.descriptors,
        usage.threads,
        worst.as_secs_f64() * 1000.0,
        took.as_secs_f64(),
    )?;
    out.flush()
}

fn bar(duration: Duration) -> ProgressBar {
    let bar =
        if io::stderr().is_terminal() { ProgressBar::new(duration.as_secs()) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} s") {
        bar.set_style(style);
    }
    bar
}
