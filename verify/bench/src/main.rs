//! The command: measures Link beside the bare socket, and prints a table.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    reason = "this program measures: to panic is how it says that there is nothing to measure"
)]

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum as _};
use link_bench::{
    goals::{Face, Settings, Threads, What, measure},
    report::HEAD,
    serve,
};
use link_soak::serve::RuntimeName;
use tokio::task::LocalSet;

/// Measures what Link costs beside the bare socket: the same load on both, in turns, as CPU time and memory of the server's
/// process.
///
/// The load and the server want a core each, and nothing else on the machine. Needs Linux, for /proc.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What to measure; without any, all of it.
    #[arg(value_name = "WHAT")]
    what: Vec<What>,
    /// The runtime of the servers, Link's and the bare one; several with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "tokio")]
    runtime: Vec<RuntimeName>,
    /// How Link's program is written: a handler for each client, or one loop over all events; or the first, over WebSockets that are not
    /// Link's own; several with commas.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "serve,events,on-async-tungstenite"
    )]
    face: Vec<Face>,
    /// On which threads the servers run, where that is measured at all; several with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "one,default")]
    threads: Vec<Threads>,
    /// How often both are measured, after a first time that does not count.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100))]
    rounds: usize,
    /// How long each load lasts.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How many idle connections have heartbeats.
    #[arg(long, value_name = "N", default_value_t = 9_900, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=25_000))]
    idle: usize,
    /// Print one JSON object a line, rather than a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the server. Started by this program itself.
    #[command(hide = true)]
    Serve(serve::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, the code has to say it.
            let _ = writeln!(io::stderr(), "link-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    // A server holds a descriptor for each of its clients, and so does this program.
    rlimit::increase_nofile_limit(u64::MAX)?;
    if let Some(Command::Serve(options)) = arguments.command {
        return serve::run(options);
    }
    let all = What::value_variants();
    let what = if arguments.what.is_empty() { all } else { &arguments.what };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if !arguments.json {
        writeln!(io::stdout(), "{HEAD}")?;
    }
    let Arguments { rounds, time, idle, .. } = arguments;
    let ways = arguments.runtime.iter().flat_map(|runtime| what.iter().map(move |what| (*runtime, *what)));
    for (name, what) in ways {
        for (face, threads) in arguments
            .face
            .iter()
            .flat_map(|face| arguments.threads.iter().map(move |threads| (*face, *threads)))
        {
            if !what.is_for(name, face, threads) {
                continue;
            }
            let settings = Settings { runtime: name, face, threads, rounds, time, idle };
            // The clients of one measurement end with it.
            let clients = LocalSet::new();
            for row in clients.block_on(&runtime, measure(what, &settings)) {
                match arguments.json {
                    true => writeln!(io::stdout(), "{}", serde_json::to_string(&row)?)?,
                    false => writeln!(io::stdout(), "{row}")?,
                }
            }
        }
    }
    Ok(())
}
