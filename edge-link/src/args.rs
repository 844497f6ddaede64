//! What can be asked for.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;
use link_driver::{Address, InvalidProxy, Message, Proxy};

/// What `bench` needs in each message for itself.
pub(crate) const MIN_SIZE: i64 = 30;
/// Beyond what any server takes.
const MAX_SIZE: i64 = 16 << 20;
/// The longest time that `bench` is asked for.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
const ENVIRONMENT: &str = "\
Environment:
  LINK_PRIVATE_KEY  the private key in hex, where no option gives one
  RUST_LOG          what to log on stderr, such as debug or link::server=debug; nothing without it";

/// Authenticated, live lines between programs that know each other by wallet address.
#[derive(Debug, Parser)]
#[command(name = "edge-link", version, max_term_width = 100, after_help = ENVIRONMENT)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server.
    Serve(Serve),
    /// Connect to a server: send lines to it, and print what it sends.
    ///
    /// Sends each line that is typed or piped in, once authenticated. A line that is a JSON object is sent as it is, any other
    /// text as {"type":"text","text":"..."}; empty lines are skipped. It reads no faster than the server takes the lines, and
    /// keeps them while the connection is lost. A line that cannot be sent is reported with its number, and the next one
    /// follows.
    ///
    /// After the end of the input it waits for answers (--linger), then closes the connection so that everything that was sent
    /// arrives. With --count it leaves as soon as so many messages have been received. With both, it waits for --count messages,
    /// and fails if they have not come within --linger.
    ///
    /// Without any input (`< /dev/null`, or a terminal with --count) it stays until --count, --linger or Ctrl-C ends it.
    ///
    /// Exit code 1 if the connection was refused or lost for good, or a piped line could not be sent.
    Connect(Connect),
    /// Put load on a server, and measure how it bears it.
    ///
    /// Opens connections, each with a wallet of its own, and measures for a while: messages a second, the distribution of
    /// the latency, and what went wrong. Works with every Link server.
    ///
    /// Without --rate each connection waits for an answer before it sends more (a closed loop): a slow server is then asked
    /// less, and the latencies are service times. With --rate messages are due at fixed times whatever the server does (an
    /// open loop), and the latency counts from when a message was due, so that a stall is felt by all that were due meanwhile.
    /// What is never answered counts as --timeout at least.
    ///
    /// Exit code 1 if anything went wrong.
    Bench(Bench),
    /// Make and use wallets.
    Wallet {
        #[command(subcommand)]
        command: Wallet,
    },
    /// Print a completion script for a shell.
    ///
    /// For bash: edge-link completions bash > ~/.local/share/bash-completion/completions/edge-link
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print a man page, or write all of them to a directory.
    ///
    /// To read one: edge-link man serve | man -l -
    Man {
        /// The subcommand that it is about, such as `serve` or `wallet new` [default: all of edge-link].
        #[arg(value_name = "COMMAND", conflicts_with = "out")]
        command: Vec<String>,
        /// Write the pages of edge-link and all its subcommands to this directory.
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Where to listen; port 0 asks the system for a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:3793", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Send every message back to who sent it.
    #[arg(long)]
    pub(crate) echo: bool,
    /// Send every message on to everybody who is connected, its sender among them.
    #[arg(long, conflicts_with = "echo")]
    pub(crate) broadcast: bool,
    /// Serve the counters to Prometheus, over HTTP at /metrics; on 127.0.0.1 when only a port is given.
    #[arg(long, value_name = "ADDR:PORT", value_parser = metrics)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Do not print messages: for a server that is to be fast.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// The only addresses that may connect.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) whitelist: Option<Vec<Address>>,
    /// Refuse an address that is connected already, instead of replacing its connection.
    #[arg(long)]
    pub(crate) no_replace: bool,
    /// How long a client may take to authenticate (0s: for ever).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) auth_timeout: Duration,
    /// How often each client is sent a heartbeat (0s: never).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) heartbeat_interval: Duration,
    /// How long a client may be silent (0s: for ever).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) client_timeout: Duration,
    /// Speak TLS, with this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The async runtime to use.
    #[arg(long, value_name = "NAME", default_value = "tokio")]
    pub(crate) runtime: RuntimeName,
    #[command(flatten)]
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Connect {
    /// The server, such as localhost:3793, ws://localhost:3793 or wss://link.example.
    #[arg(value_parser = url)]
    pub(crate) url: String,
    /// A JSON object to send once authenticated; again for more.
    #[arg(long, value_name = "JSON", value_parser = message)]
    pub(crate) send: Vec<Message>,
    /// Leave after so many received messages, even if input is left.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How long to wait for answers after the last line of the input was sent [default: 2s; with --count: as long as it takes].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) linger: Option<Duration>,
    /// An address that the server may have; again for more.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) pin: Vec<Address>,
    /// Trust the certificates that these have issued (PEM), instead of those that browsers trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Connect through this proxy: http://, socks5:// or socks5h://, with user:password@ before the host if it wants that; or
    /// env: the proxy that the environment names.
    ///
    /// With socks5h:// and http:// the proxy resolves the server's name, with socks5:// this machine does. With env, these
    /// variables are read, and the first that is set counts: for wss:// servers https_proxy, HTTPS_PROXY, all_proxy, ALL_PROXY; for
    /// ws:// servers http_proxy, all_proxy, ALL_PROXY; and no_proxy or NO_PROXY for the servers that are reached directly. Other
    /// users of this machine may see a password that is given here; in the environment they do not.
    #[arg(long, value_name = "URL|env", value_parser = proxy)]
    pub(crate) proxy: Option<Result<Proxy, InvalidProxy>>,
    /// How many times in a row to dial again.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) max_reconnect_attempts: u32,
    /// The upper bound of the first delay before dialling again; it doubles each time.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) reconnect_delay: Duration,
    /// How long the server may be silent (0s: for ever).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) server_timeout: Duration,
    /// The async runtime to use.
    #[arg(long, value_name = "NAME", default_value = "tokio")]
    pub(crate) runtime: RuntimeName,
    #[command(flatten)]
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Bench {
    /// The server, such as localhost:3793, ws://localhost:3793 or wss://link.example.
    #[arg(value_parser = url)]
    pub(crate) url: String,
    /// What to do there.
    #[arg(long, value_name = "MODE", default_value = "echo")]
    pub(crate) mode: BenchMode,
    /// How many connections; in login mode, how many at a time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// How many messages each sender may have in flight [default: 1; with --rate 1000].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) depth: Option<u32>,
    /// The length of each message in bytes, exact [default: 128].
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u32).range(MIN_SIZE..=MAX_SIZE))]
    pub(crate) size: Option<u32>,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive)]
    pub(crate) duration: Duration,
    /// How long to do the same before, unmeasured.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = bounded)]
    pub(crate) warm_up: Duration,
    /// How many messages, or logins, are due each second, over all connections.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
    /// How long an answer or a login may take.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = positive)]
    pub(crate) timeout: Duration,
    /// Trust the certificates that these have issued (PEM), instead of those that browsers trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Print the report as one JSON object. Times are in seconds, and below `..._ms` in milliseconds.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `bench` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchMode {
    /// Each connection sends; the server is to send everything back, as `edge-link serve --echo --quiet` does.
    Echo,
    /// One connection sends; the server is to send it on to everybody, as `edge-link serve --broadcast --quiet` does.
    Broadcast,
    /// Connect, authenticate and close, again and again; measures from dialling to being authenticated.
    Login,
    /// Connections that only stay; measures the round trips of their pings.
    Idle,
}

/// Where the key comes from. Without any of these, from LINK_PRIVATE_KEY; without that, it is a fresh one.
#[derive(Debug, ClapArgs)]
pub(crate) struct Key {
    /// A wallet file, as `edge-link wallet new` makes them. (Without one: LINK_PRIVATE_KEY, if it is set.)
    #[arg(long, value_name = "FILE")]
    pub(crate) wallet: Option<PathBuf>,
    /// A file that holds a private key in hex.
    #[arg(long, value_name = "FILE", conflicts_with = "wallet")]
    pub(crate) private_key_file: Option<PathBuf>,
}

/// What runs the work. They behave the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeName {
    Tokio,
    AsyncStd,
    Smol,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct Output {
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print heartbeats and connections as well.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Wallet {
    /// Make a fresh wallet, in a file that only you can read. An existing file is never overwritten.
    New {
        /// The file.
        #[arg(long, value_name = "FILE", default_value = "wallet.json")]
        out: PathBuf,
    },
    /// Show the address and the public key.
    Show {
        #[command(flatten)]
        key: Key,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Sign a text.
    Sign {
        /// The text.
        text: String,
        #[command(flatten)]
        key: Key,
    },
    /// Check that the wallet of an address signed a text; exit code 0 if it did, 1 if not.
    Verify {
        /// The address.
        address: String,
        /// The text.
        text: String,
        /// The signature, 130 hex digits.
        signature: String,
    },
    /// Check an address; exit code 0 if it is valid, 1 if not.
    Check {
        /// The address.
        address: String,
    },
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:3793 or [::1]:3793".into())
}

/// The same, where a port alone is on the loopback.
fn metrics(text: &str) -> Result<SocketAddr, String> {
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.parse().map_err(|_| {
            "give a port, such as 9464, or an IP address and a port, such as 0.0.0.0:9464 or [::1]:9464"
                .into()
        }),
    }
}

/// A URL, of which the scheme can be left out.
fn url(text: &str) -> Result<String, Infallible> {
    Ok(if text.contains("://") { text.into() } else { format!("ws://{text}") })
}

/// A bad one is reported later: clap would repeat it, with the password that it may hold.
fn proxy(text: &str) -> Result<Result<Proxy, InvalidProxy>, Infallible> {
    Ok(if text == "env" { Proxy::from_env() } else { Proxy::parse(text) })
}

fn message(text: &str) -> Result<Message, String> {
    let message = Message::parse(text).map_err(|error| error.to_string())?;
    message.check_sendable().map_err(|error| error.to_string())?;
    Ok(message)
}

/// A time that somebody can wait for.
fn bounded(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > MAX_TIME { Err("at most a day".into()) } else { Ok(time) }
}

/// The same, but not zero.
fn positive(text: &str) -> Result<Duration, String> {
    match bounded(text)? {
        time if time < Duration::from_millis(1) => Err("at least 1ms".into()),
        time => Ok(time),
    }
}
