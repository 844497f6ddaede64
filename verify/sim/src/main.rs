//! The command: runs worlds, and tells of those that break an invariant.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use link_sim::{Canary, Faults, Invariant, Mark, Options, Report, Seeds, campaign, run_seed, shrink};

/// Runs simulated worlds of Link connections and checks that nothing breaks in any of them.
///
/// Exits with 1 when an invariant was broken, or when --marks is given and a rare path was never taken; with --canary
/// alone, when every planted fault was caught. Exits with 2 when it was not called properly, and with 3 when its words
/// could not be written.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// How many worlds to run.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The seed of the first one.
    #[arg(long, default_value_t = 0, value_name = "S")]
    from: u64,
    /// Run the world of this seed only.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Tell the whole story of that world.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// If that world fails, look for the shortest one that fails in the same way, and tell its story.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Plant a fault in the simulator itself, which must be caught: one by name, or each in turn.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = EVERY)]
    canary: Option<String>,
    /// Only worlds without faults.
    #[arg(long)]
    calm: bool,
    /// Tell how often each rare path was taken, and fail when one never was (which a thousand seeds do anyway).
    #[arg(long, conflicts_with = "calm")]
    marks: bool,
    /// How many worlds to run at once; as many as there are processors when it is not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Arguments {
    fn options(&self) -> Options {
        let allowed = if self.calm { Faults::NONE } else { Faults::ALL };
        Options { allowed, ..Options::default() }
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
    }
}

/// The name of all canaries at once.
const EVERY: &str = "all";
/// Its words could not be written: no other outcome has this code.
const UNWRITTEN: u8 = 3;
/// Failures that are listed at most.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.canary, arguments.seed) {
        (Some(name), None) if name == EVERY => try_canaries(&arguments),
        (Some(name), Some(_)) if name == EVERY => {
            list_canaries("--seed wants the name of one canary, as in --canary <NAME>")
        }
        (Some(name), seed) => match Canary::ALL.iter().find(|canary| canary.name() == name) {
            None => list_canaries(&format!("no canary is called {name}")),
            Some(canary) => {
                let options = Options { canary: Some(*canary), ..arguments.options() };
                match seed {
                    Some(seed) => run_one(seed, options, &arguments),
                    None => run_many(options, &arguments),
                }
            }
        },
        (None, Some(seed)) => run_one(seed, arguments.options(), &arguments),
        (None, None) => run_many(arguments.options(), &arguments),
    };
    // A pipe that was closed by its reader is no news, but neither does anybody know now how the worlds went.
    outcome.unwrap_or(ExitCode::from(UNWRITTEN))
}

/// Says what is wrong, and which canaries there are.
fn list_canaries(wrong: &str) -> io::Result<ExitCode> {
    let mut out = io::stderr().lock();
    writeln!(out, "{wrong}; there are:")?;
    for canary in Canary::ALL {
        writeln!(out, "  {:<24} breaks {}", canary.name(), canary.breaks())?;
    }
    Ok(ExitCode::from(2))
}

/// The story of one world.
fn run_one(seed: u64, options: Options, arguments: &Arguments) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let options = Options { trace: arguments.trace, ..options };
    let outcome = match arguments.trace {
        // If it panics, the hook tells where, with a backtrace if one is wanted.
        true => run_seed(seed, options),
        false => quietly(|| run_seed(seed, options)),
    };
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    let (steps, time) = (outcome.steps, outcome.virtual_time);
    writeln!(out, "seed {seed}: {steps} steps, {time:?}, fingerprint {:016x}", outcome.fingerprint)?;
    let Some(failure) = outcome.failure else {
        writeln!(out, "seed {seed} holds")?;
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(out, "seed {seed} FAILS: {failure}")?;
    if arguments.shrink {
        match quietly(|| shrink(seed, Options { trace: true, ..options })) {
            None => writeln!(out, "it could not be made shorter")?,
            Some(shrunk) => {
                writeln!(out, "\nafter {} tries, {} choices are left:", shrunk.tried, shrunk.choices.len())?;
                for line in &shrunk.outcome.trace {
                    writeln!(out, "{line}")?;
                }
                let faults: Vec<_> = shrunk.options.allowed.iter().collect();
                writeln!(out, "faults: {faults:?}\nchoices: {:?}", shrunk.choices)?;
                if let Some(failure) = shrunk.outcome.failure {
                    writeln!(out, "FAILS: {failure}")?;
                }
            }
        }
    }
    Ok(ExitCode::FAILURE)
}

fn run_many(options: Options, arguments: &Arguments) -> io::Result<ExitCode> {
    let began = Instant::now();
    let report = watched(arguments, options, None);
    let took = began.elapsed();
    let mut out = io::stdout().lock();
    for (seed, failure) in report.failures.iter().take(SHOWN) {
        writeln!(out, "seed {seed} FAILS: {failure}")?;
    }
    if report.failures.len() > SHOWN {
        writeln!(out, "and {} more", report.failures.len().saturating_sub(SHOWN))?;
    }
    if arguments.marks {
        for mark in Mark::ALL {
            writeln!(out, "{:>10}  {}", report.marks.times(*mark), mark.name())?;
        }
    }
    let unreached = report.marks.unreached();
    let strict = (arguments.marks || arguments.seeds >= 1000) && !arguments.calm && options.canary.is_none();
    if !unreached.is_empty() {
        let names: Vec<_> = unreached.iter().map(|mark| mark.name()).collect();
        writeln!(out, "{} of {} rare paths never taken: {}", names.len(), Mark::ALL.len(), names.join(", "))?;
    }
    if let Some(seed) = report.failures.keys().next() {
        writeln!(out, "look at one: cargo run --release -p link-sim -- --seed {seed} --trace")?;
    }
    writeln!(out, "{}", summary(&report, took))?;
    let blind = strict && !unreached.is_empty();
    Ok(if report.failures.is_empty() && !blind { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One world after the other, with a bar for who looks at it on a terminal.
fn watched(arguments: &Arguments, options: Options, until: Option<Invariant>) -> Report {
    let bar =
        if io::stderr().is_terminal() { ProgressBar::new(arguments.seeds) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let seeds = Seeds { from: arguments.from, count: arguments.seeds, until };
    let report = quietly(|| campaign(seeds, arguments.threads(), options, &|done| bar.inc(done)));
    bar.finish_and_clear();
    report
}

/// Runs worlds whose panics are told as failures, and not by the hook as well; `--trace` shows where they come from.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    std::panic::set_hook(hook);
    result
}

fn summary(report: &Report, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let days = report.virtual_time.as_secs_f64() / 86_400.0;
    format!(
        "{} seeds, {} steps, {days:.2} days of virtual time, {} failures, {:.0} seeds a second",
        report.seeds,
        report.steps,
        report.failures.len(),
        report.seeds as f64 / seconds,
    )
}

/// Plants each fault in turn. This run must fail: it succeeds when a fault is *not* caught.
fn try_canaries(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let mut escaped = 0u32;
    for canary in Canary::ALL {
        let options = Options { canary: Some(*canary), ..arguments.options() };
        let report = watched(arguments, options, Some(canary.breaks()));
        let caught = report.failures.iter().find(|(_, failure)| failure.invariant == canary.breaks());
        match caught {
            Some((seed, failure)) => writeln!(out, "{:<24} caught by seed {seed}: {failure}", canary.name())?,
            None => {
                escaped = escaped.saturating_add(1);
                let others = report.failures.len();
                writeln!(
                    out,
                    "{:<24} NOT caught by {} in {} seeds ({others} other failures)",
                    canary.name(),
                    canary.breaks(),
                    arguments.seeds
                )?;
                for (seed, failure) in report.failures.iter().take(2) {
                    writeln!(out, "{:<24}   seed {seed}: {failure}", "")?;
                }
            }
        }
        out.flush()?;
    }
    if escaped > 0 {
        writeln!(
            out,
            "{escaped} of {} planted faults were not caught: this simulator is blind",
            Canary::ALL.len()
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "all {} planted faults were caught: this run fails, as it must", Canary::ALL.len())?;
    Ok(ExitCode::FAILURE)
}
