//! What is measured, and the goal that it is held against.

use std::{env, net::SocketAddr, process::Command, thread, time::Duration};

use clap::ValueEnum;
use link_driver::Wallet;
use link_soak::{process::ServerProcess, serve::RuntimeName};
use link_websocket::READ_BUFFER;
use rustix::time::ClockId;

use crate::{
    load::{Clients, Greeting, logins, message, wallet},
    report::{Goal, Round, Row},
    serve::{CPU, Kind, cpu_time, name},
};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Echo of 128-byte messages, one under way on each of 50 connections.
    PingPong,
    /// The same, with 32 under way on each.
    Pipelined,
    /// Connecting and authenticating, beside connecting alone.
    Login,
    /// Memory of idle connections.
    Memory,
    /// One message to a thousand clients, beside writing a prepared frame to a thousand sockets.
    Broadcast,
    /// Heartbeats of idle connections, beside sending and reading the same frames.
    Heartbeats,
    /// Echo of 1 MiB messages.
    Large,
    /// Echo and logins on two threads, beside the same on one.
    Contention,
}

/// How Link's program is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Face {
    /// A handler for each client.
    Serve,
    /// One loop over the events of all clients.
    Events,
    /// A handler for each client, over WebSockets of async-tungstenite in the place of Link's own.
    OnAsyncTungstenite,
}

/// On which threads a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Threads {
    /// All of it on one.
    One,
    /// tokio's default runtime: as many as there are processors, and the program's own.
    Default,
}

impl What {
    /// Whether it is measured in this way too.
    pub fn is_for(self, runtime: RuntimeName, face: Face, threads: Threads) -> bool {
        match self {
            // What the default is better at, in figures.
            Self::PingPong | Self::Pipelined | Self::Memory | Self::Large
                if face == Face::OnAsyncTungstenite =>
            {
                threads == Threads::One
            }
            _ if face == Face::OnAsyncTungstenite => false,
            Self::PingPong | Self::Pipelined => threads == Threads::One || runtime == RuntimeName::Tokio,
            Self::Broadcast | Self::Contention => (face, threads) == (Face::Events, Threads::One),
            _ => threads == Threads::One,
        }
    }
}

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Both servers' runtime.
    pub runtime: RuntimeName,
    /// How Link's program is written.
    pub face: Face,
    /// tokio: on which of its runtimes both servers run.
    pub threads: Threads,
    /// How often both are measured.
    pub rounds: usize,
    /// For how long each time, where that is not a number of things.
    pub time: Duration,
    /// How many idle connections there are, for their heartbeats.
    pub idle: usize,
}

/// The rows of it.
pub async fn measure(what: What, settings: &Settings) -> Vec<Row> {
    match what {
        What::PingPong => {
            let goal = match (settings.face, settings.threads) {
                (Face::Serve | Face::OnAsyncTungstenite, Threads::Default) => 1.08,
                (Face::Events, Threads::Default) => 1.45,
                (_, Threads::One) => 1.10,
            };
            vec![echo(settings, "ping-pong", 50, 1, 128, Goal::RatioAtMost(goal)).await]
        }
        What::Pipelined => {
            let goal = match (settings.face, settings.threads) {
                (Face::Events, Threads::Default) => 1.90,
                _ => 1.40,
            };
            vec![echo(settings, "32 under way", 50, 32, 128, Goal::RatioAtMost(goal)).await]
        }
        What::Login => login(settings),
        What::Memory => memory(settings).await,
        What::Broadcast => vec![broadcast(settings).await],
        What::Heartbeats => vec![heartbeats(settings).await],
        What::Large => large(settings).await,
        What::Contention => contention(settings).await,
    }
}

/// A server, and what it had used when it was last asked.
struct Server {
    process: ServerProcess,
    greeting: Greeting,
}

impl Server {
    fn start(settings: &Settings, kind: Kind, workers: Option<usize>, read_buffer: usize) -> Self {
        let mut command = Command::new(env::current_exe().expect("a path"));
        command.arg("serve");
        command.args(["--kind", &name(kind)]);
        command.args(["--runtime", &name(settings.runtime)]);
        command.args(["--read-buffer", &read_buffer.to_string()]);
        if let Some(workers) = workers {
            command.args(["--workers", &workers.to_string()]);
        }
        if settings.threads == Threads::Default {
            command.arg("--default-runtime");
        }
        let threads = workers.unwrap_or(1).to_string();
        command.env("SMOL_THREADS", &threads).env("ASYNC_STD_THREAD_COUNT", &threads);
        Self { process: ServerProcess::start(&mut command), greeting: kind.greeting() }
    }

    /// Link's server, as the settings want it.
    fn link(settings: &Settings, workers: Option<usize>) -> Self {
        let kind = match settings.face {
            Face::Serve => Kind::LinkServe,
            Face::Events => Kind::LinkEvents,
            Face::OnAsyncTungstenite => Kind::LinkOnAsyncTungstenite,
        };
        Self::start(settings, kind, workers, 0)
    }

    fn at(&self) -> SocketAddr {
        self.process.address()
    }

    async fn clients(&self, many: usize, text: &str) -> Clients {
        Clients::connect(self.greeting, self.at(), many, text, Duration::ZERO).await
    }

    fn cpu_micros(&mut self) -> f64 {
        self.process.ask::<Duration>(CPU).as_secs_f64() * 1e6
    }

    /// Server CPU in microseconds for each message of a load.
    async fn cpu_per_echo(&mut self, clients: &Clients, depth: usize, time: Duration) -> f64 {
        let before = self.cpu_micros();
        let messages = clients.echo(depth, time).await;
        (self.cpu_micros() - before) / messages as f64
    }
}

/// Bytes that the bare echo reads at a time: room for all that a client has under way.
const ECHO_BUFFER: usize = 8 << 10;

/// Who is measured first changes from round to round: the bare one is 0.
const fn order(round: usize) -> [usize; 2] {
    if round.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

/// Both servers, each with as many clients.
async fn sides(bare: Server, link: Server, many: usize, text: &str) -> [(Server, Clients); 2] {
    let clients = [bare.clients(many, text).await, link.clients(many, text).await];
    let [to_bare, to_link] = clients;
    [(bare, to_bare), (link, to_link)]
}

/// Where it was measured, in words.
fn on(settings: &Settings) -> String {
    let threads = match settings.threads {
        Threads::One => "",
        Threads::Default => ", default runtime",
    };
    format!("{}, {}{threads}", name(settings.runtime), name(settings.face))
}

async fn echo(
    settings: &Settings,
    what: &'static str,
    many: usize,
    depth: usize,
    size: usize,
    goal: Goal,
) -> Row {
    let bare = Server::start(settings, Kind::BareEcho, None, ECHO_BUFFER);
    let mut sides = sides(bare, Server::link(settings, None), many, &message(size)).await;
    let mut rounds = Vec::new();
    for round in 0..=settings.rounds {
        let mut measured = [0.0; 2];
        for turn in order(round) {
            let (server, clients) = &mut sides[turn];
            measured[turn] = server.cpu_per_echo(clients, depth, settings.time).await;
        }
        let [bare, link] = measured;
        // The first warms up.
        if round > 0 {
            rounds.push(Round { bare, link });
        }
    }
    Row::new(what, on(settings), "µs CPU a message", goal, &rounds)
}

async fn large(settings: &Settings) -> Vec<Row> {
    const MANY: usize = 4;
    // What is read at a time decides most of it, so the twin gets tungstenite's default.
    let bare = Server::start(settings, Kind::BareEcho, None, 128 << 10);
    let mut sides = sides(bare, Server::link(settings, None), MANY, &message(1 << 20)).await;
    let (mut through, mut cpu) = (Vec::new(), Vec::new());
    for round in 0..=settings.rounds {
        let mut measured = [(0.0, 0.0); 2];
        for turn in order(round) {
            let (server, clients) = &mut sides[turn];
            let (before, began) = (server.cpu_micros(), std::time::Instant::now());
            let messages = clients.echo(1, settings.time).await as f64;
            let seconds = began.elapsed().as_secs_f64();
            measured[turn] = (messages / seconds, (server.cpu_micros() - before) / messages);
        }
        if round > 0 {
            through.push(Round { bare: measured[0].0, link: measured[1].0 });
            cpu.push(Round { bare: measured[0].1, link: measured[1].1 });
        }
    }
    let on = on(settings);
    vec![
        Row::new("1 MiB messages, throughput", on.clone(), "messages/s", Goal::RatioAtLeast(0.9), &through),
        Row::new("1 MiB messages, CPU", on, "µs CPU a message", Goal::RatioAtMost(1.0 / 0.9), &cpu),
    ]
}

/// Server CPU in microseconds for each login. A few come at once, so that the server has always something to do: one that is
/// woken for each step pays for that as well.
fn cpu_per_login(server: &mut Server, wallets: &[Wallet]) -> f64 {
    const AT_ONCE: usize = 4;
    let (before, greeting, at) = (server.cpu_micros(), server.greeting, server.at());
    thread::scope(|scope| {
        for some in wallets.chunks(wallets.len().div_ceil(AT_ONCE)) {
            scope.spawn(move || logins(greeting, at, some));
        }
    });
    // The last ones are being put away.
    thread::sleep(Duration::from_millis(50));
    (server.cpu_micros() - before) / wallets.len() as f64
}

/// CPU in microseconds of what a login cannot do without: to make one signature, and to check one.
fn cpu_per_pair_of_signatures() -> f64 {
    const TIMES: u64 = 200;
    let wallet = wallet(0);
    let before = cpu_time(ClockId::ThreadCPUTime);
    for time in 0..TIMES {
        let text = time.to_string();
        assert!(wallet.sign(&text).verify(&text, &wallet.address()));
    }
    (cpu_time(ClockId::ThreadCPUTime) - before).as_secs_f64() * 1e6 / TIMES as f64
}

/// The second row allows a quarter more than the two signatures take here and now: processors differ most in these.
fn login(settings: &Settings) -> Vec<Row> {
    let mut servers =
        [Server::start(settings, Kind::BareEcho, None, READ_BUFFER), Server::link(settings, None)];
    let wallets: Vec<_> = (0..500).map(wallet).collect();
    let (mut whole, mut above) = (Vec::new(), Vec::new());
    for round in 0..=settings.rounds {
        let mut measured = [0.0; 2];
        for turn in order(round) {
            measured[turn] = cpu_per_login(&mut servers[turn], &wallets);
        }
        let [bare, link] = measured;
        let signatures = cpu_per_pair_of_signatures();
        if round > 0 {
            whole.push(Round { bare, link });
            above.push(Round { bare: signatures, link: link - bare });
        }
    }
    let on = on(settings);
    vec![
        Row::new("login", on.clone(), "µs CPU", Goal::ExtraAtMost(150.0), &whole),
        Row::new(
            "login above the bare upgrade, beside its two signatures",
            on,
            "µs CPU",
            Goal::RatioAtMost(150.0 / 120.0),
            &above,
        ),
    ]
}

async fn memory(settings: &Settings) -> Vec<Row> {
    const MANY: usize = 2000;
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds.min(3) {
        let mut measured = Vec::new();
        for bare in [true, false] {
            let server = match bare {
                true => Server::start(settings, Kind::BareEcho, None, READ_BUFFER),
                false => Server::link(settings, None),
            };
            // What is allocated once is there already.
            let first = server.clients(1, &message(128)).await;
            first.echo(1, Duration::from_millis(100)).await;
            let before = server.process.usage().resident;
            let many = server.clients(MANY, &message(128)).await;
            // Three heartbeats of each.
            tokio::time::sleep(Duration::from_secs(4)).await;
            measured.push((server.process.usage().resident - before) as f64 / MANY as f64 / 1024.0);
            drop(many);
        }
        rounds.push(Round { bare: measured[0], link: measured[1] });
    }
    let on = on(settings);
    let above = "memory of an idle connection, above the bare one";
    let all = Row::new(above, on.clone(), "KiB", Goal::ExtraAtMost(1.5), &rounds);
    let whole: Vec<_> = rounds.iter().map(|round| Round { bare: 0.0, link: round.link }).collect();
    let goal = match settings.face {
        Face::Serve | Face::OnAsyncTungstenite => 5.5,
        Face::Events => 6.0,
    };
    vec![all, Row::new("memory of an idle connection, whole", on, "KiB", Goal::ExtraAtMost(goal), &whole)]
}

async fn broadcast(settings: &Settings) -> Row {
    const MANY: usize = 1000;
    const TIMES: usize = 50;
    let bare = Server::start(settings, Kind::BareBroadcast, None, READ_BUFFER);
    let link = Server::start(settings, Kind::LinkEvents, None, 0);
    let text = message(128);
    let mut sides = sides(bare, link, MANY, &text).await;
    let mut rounds = Vec::new();
    for round in 0..=settings.rounds {
        let mut measured = [0.0; 2];
        for turn in order(round) {
            let (server, clients) = &mut sides[turn];
            let before = server.cpu_micros();
            for _ in 0..TIMES {
                clients.each_receives(|| server.process.tell(&text)).await;
            }
            measured[turn] = (server.cpu_micros() - before) / (MANY * TIMES) as f64;
        }
        if round > 0 {
            rounds.push(Round { bare: measured[0], link: measured[1] });
        }
    }
    Row::new("broadcast", on(settings), "µs CPU a delivery", Goal::RatioAtMost(1.2), &rounds)
}

async fn heartbeats(settings: &Settings) -> Row {
    /// Longer than a login takes.
    const PACE: Duration = Duration::from_micros(700);
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds.min(3) {
        let mut measured = Vec::new();
        // One after the other, since there are not descriptors for both.
        for bare in [true, false] {
            let mut server = match bare {
                true => Server::start(settings, Kind::BareHeartbeats, None, READ_BUFFER),
                false => Server::link(settings, None),
            };
            let (at, text) = (server.at(), message(128));
            let clients = Clients::connect(server.greeting, at, settings.idle, &text, PACE).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (before, cpu) = (clients.heartbeats(), server.cpu_micros());
            tokio::time::sleep(Duration::from_secs(5)).await;
            let rounds = clients.heartbeats() - before;
            assert!(rounds as usize >= settings.idle * 4, "the heartbeats come once a second: {rounds}");
            measured.push((server.cpu_micros() - cpu) / rounds as f64);
        }
        rounds.push(Round { bare: measured[0], link: measured[1] });
    }
    Row::new("heartbeats, idle", on(settings), "µs CPU a round", Goal::RatioAtMost(1.15), &rounds)
}

/// Here 'bare' is Link on one thread, and 'Link' is Link on two. The bare twin's own rows say what the runtime costs.
async fn contention(settings: &Settings) -> Vec<Row> {
    const MANY: usize = 500;
    let goal = Goal::RatioAtMost(1.15);
    let text = message(128);
    let wallets: Vec<_> = (0..500).map(|number| wallet(10_000 + number)).collect();
    let mut rows = Vec::new();
    for bare in [true, false] {
        let start = |workers| match bare {
            true => Server::start(settings, Kind::BareEcho, Some(workers), READ_BUFFER),
            false => Server::link(settings, Some(workers)),
        };
        let (mut one, mut two) = (start(1), start(2));
        let (to_one, to_two) = (one.clients(MANY, &text).await, two.clients(MANY, &text).await);
        let (mut messages, mut logins) = (Vec::new(), Vec::new());
        for round in 0..=settings.rounds {
            let message = Round {
                bare: one.cpu_per_echo(&to_one, 1, settings.time).await,
                link: two.cpu_per_echo(&to_two, 1, settings.time).await,
            };
            let login =
                Round { bare: cpu_per_login(&mut one, &wallets), link: cpu_per_login(&mut two, &wallets) };
            if round > 0 {
                messages.push(message);
                logins.push(login);
            }
        }
        let on = if bare {
            "bare: one thread, two".to_owned()
        } else {
            format!("{}: one thread, two", on(settings))
        };
        rows.push(Row::new("contention, messages", on.clone(), "µs CPU a message", goal, &messages));
        rows.push(Row::new("contention, logins", on, "µs CPU", goal, &logins));
    }
    rows
}
