//! What Link costs beside the bare socket, over loopback, in one process: `cargo bench -p link-bench --bench loopback`, and a
//! part of a name for some of it. It takes about a minute, and needs Linux and two cores.
//!
//! Each server runs on a tokio scheduler of one thread: the bare twin (`bare-echo`), and Link's echo as a stream of events
//! (`link-events`) and with a handler for each client (`link-serve`). The load comes from the bench's own thread, and is the
//! same for all of them. The times are **CPU time of the servers**, the system's code included, for each message or
//! login: what the process used, less what the load's thread did. A server that waits for the load costs nothing, so a load
//! that is slower than the servers does not hide what they cost.
//!
//! Absolute times are this machine's. What is to be compared are the rows of a group, which were measured moments apart;
//! after each group stand the ratios of Link's to the bare one's. `target/criterion` keeps the times, and the next run says
//! how they have changed.
//!
//! The command `link-bench` measures the same and more: with servers in processes of their own, on other runtimes,
//! interleaved in rounds, and held against goals.
#![allow(clippy::expect_used, clippy::arithmetic_side_effects, clippy::print_stdout)]
#![allow(missing_docs, reason = "the macros below write functions without")]

use std::{net::SocketAddr, thread, time::Duration};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use link_bench::{
    load::{Clients, logins, message, wallet},
    serve::{self, Kind, Options, cpu_time},
};
use link_soak::serve::RuntimeName;
use link_websocket::READ_BUFFER;
use rustix::time::ClockId;
use tokio::task::LocalSet;

const ECHOES: [Kind; 3] = [Kind::BareEcho, Kind::LinkEvents, Kind::LinkServe];

/// How long the servers have to become idle.
const SETTLE: Duration = Duration::from_millis(2);

/// Has a server do its work so often.
type Work = Box<dyn FnMut(u64)>;

fn ping_pong(criterion: &mut Criterion) {
    compare(criterion, "ping-pong, 128 B", &ECHOES, |kind| echo(kind, 8 << 10, 50, 1, 128));
}

fn pipelined(criterion: &mut Criterion) {
    compare(criterion, "32 under way, 128 B", &ECHOES, |kind| echo(kind, 8 << 10, 50, 32, 128));
}

fn large(criterion: &mut Criterion) {
    // What is read at a time decides most of it, so the twin gets tungstenite's default.
    compare(criterion, "1 MiB messages", &ECHOES, |kind| echo(kind, 128 << 10, 4, 1, 1 << 20));
}

fn login(criterion: &mut Criterion) {
    compare(criterion, "login", &[Kind::BareEcho, Kind::LinkEvents], |kind| {
        let at = serve(kind, READ_BUFFER);
        let wallets: Vec<_> = (0..500).map(wallet).collect();
        // Each login is another's turn, from one sample to the next too: none has the wallet of one just put away.
        let mut wallets = wallets.leak().iter().cycle();
        Box::new(move |times| logins(kind.greeting(), at, wallets.by_ref().take(times as usize)))
    });
}

/// So many clients, with `depth` messages of each under way.
fn echo(kind: Kind, read_buffer: usize, many: usize, depth: usize, size: usize) -> Work {
    let at = serve(kind, read_buffer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = LocalSet::new();
    let text = message(size);
    let connecting = Clients::connect(kind.greeting(), at, many, &text, Duration::ZERO);
    let clients = tasks.block_on(&runtime, connecting);
    Box::new(move |times| tasks.block_on(&runtime, clients.echo_exactly(depth, times)))
}

/// Starts a server, which lives as long as this process.
fn serve(kind: Kind, read_buffer: usize) -> SocketAddr {
    let options =
        Options { kind, runtime: RuntimeName::Tokio, workers: None, default_runtime: false, read_buffer };
    serve::start(options).expect("it listens").at
}

/// Measures a server of each kind, of which the first is the bare one.
fn compare(criterion: &mut Criterion, what: &str, kinds: &[Kind], prepare: impl Fn(Kind) -> Work) {
    let mut group = criterion.benchmark_group(what);
    // Each sample is many rounds of all that is under way: the first and the last ones do not show.
    group.sampling_mode(SamplingMode::Flat);
    let mut costs = Vec::new();
    for kind in kinds {
        let name = serve::name(*kind);
        // Of all samples together.
        let (mut work, mut cpu, mut times) = (None, Duration::ZERO, 0);
        group.bench_function(&name, |bencher| {
            let work = work.get_or_insert_with(|| prepare(*kind));
            bencher.iter_custom(|more| {
                let its = cpu_of_servers(|| work(more));
                (cpu, times) = (cpu + its, times + more);
                its
            });
        });
        // It may not have been asked for, and the single time of `--test` says nothing.
        let cost = (times > 1).then(|| cpu.as_secs_f64() * 1e6 / times as f64);
        costs.push((name, cost));
    }
    group.finish();
    if let Some(((_, Some(bare)), links)) = costs.split_first() {
        for (name, link) in links {
            if let Some(link) = link {
                println!(
                    "{what}: {name} takes {:.2} × the bare CPU time, {:+.2} µs",
                    link / bare,
                    link - bare
                );
            }
        }
    }
}

/// CPU time that all other threads need for this work of the calling one's.
fn cpu_of_servers(work: impl FnOnce()) -> Duration {
    let others = || {
        // What a thread on another core has used, the system counts when it pauses.
        thread::sleep(SETTLE);
        let own = cpu_time(ClockId::ThreadCPUTime);
        cpu_time(ClockId::ProcessCPUTime) - own
    };
    let before = others();
    work();
    others() - before
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = ping_pong, pipelined, large, login
}
criterion_main!(benches);
