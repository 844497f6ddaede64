//! What can be asked for.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use link_driver::{Address, Message};

/// Authenticated, live lines between programs that know each other by wallet address.
#[derive(Debug, Parser)]
#[command(name = "edge-link", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server.
    Serve(Serve),
    /// Connect to a server.
    Connect(Connect),
    /// Make and use wallets.
    Wallet {
        #[command(subcommand)]
        command: Wallet,
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
    /// The server, such as ws://localhost:3793 or wss://link.example.
    pub(crate) url: String,
    /// A JSON object to send once authenticated; again for more.
    #[arg(long, value_name = "JSON", value_parser = message)]
    pub(crate) send: Vec<Message>,
    /// Leave after so many received messages.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// An address that the server may have; again for more.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) pin: Vec<Address>,
    /// Trust the certificates that these have issued (PEM), instead of those that browsers trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
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

fn message(text: &str) -> Result<Message, String> {
    let message = Message::parse(text).map_err(|error| error.to_string())?;
    message.check_sendable().map_err(|error| error.to_string())?;
    Ok(message)
}
