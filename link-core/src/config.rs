//! What a [`Connection`](crate::Connection) and its [`Endpoint`](crate::Endpoint) are told once, and may share with thousands of others.

use alloc::vec::Vec;
use core::time::Duration;

use crate::identity::{Address, Wallet};

/// The default time for authentication, and the default window for a signed timestamp.
pub const DEFAULT_AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// The default limit of a message: 1 MiB.
pub const DEFAULT_MAX_MESSAGE_SIZE: usize = 1 << 20;
/// The default limit of a message before authentication: 4 KiB.
pub const DEFAULT_MAX_UNAUTHENTICATED_MESSAGE_SIZE: usize = 4 << 10;

/// The default bound on bytes that wait to be sent to one peer: 4 MiB.
pub const DEFAULT_MAX_SEND_QUEUE: usize = 4 << 20;
/// The default time that a peer may take nothing of what is sent to it. Long, since a system says only now and then
/// that a slow peer has taken something.
pub const DEFAULT_SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// What both sides need to know.
///
/// A zero time-out or interval switches that guard off.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Who this side is.
    pub wallet: Wallet,
    /// How long the other side may take to authenticate. Default 5 s.
    pub auth_timeout: Duration,
    /// By how much that deadline may be rounded up, so that many connections share a wake-up. Default 1 s for a
    /// server, zero for a client.
    pub auth_check_interval: Duration,
    /// How far a signed timestamp may lie from this side's wall clock. Default 5 s. Zero accepts only the same
    /// millisecond; it is no guard that can be switched off.
    pub auth_window: Duration,
    /// How often this side sends a ping (and, a server, a `heartbeat`). Default 1 s.
    pub heartbeat_interval: Duration,
    /// How long the other side may be silent. Default 5 s.
    pub idle_timeout: Duration,
    /// By how much that deadline may be rounded up. Default 1 s for a server, zero for a client.
    pub idle_check_interval: Duration,
    /// The longest message, in bytes, either way. Default 1 MiB.
    pub max_message_size: usize,
    /// The longest message taken before authentication, in bytes. Default 4 KiB.
    pub max_unauthenticated_message_size: usize,
    /// Client side: the addresses that the server may have; empty for any. Default empty.
    pub expected_servers: Vec<Address>,
    /// Of an [`Endpoint`](crate::Endpoint): how many bytes of messages may wait to be sent, 64 being added for each. Default
    /// 4 MiB. One message always fits.
    pub max_send_queue: usize,
    /// Of an [`Endpoint`](crate::Endpoint): how long the other side may take nothing of what is sent to it. Default 30 s.
    pub send_timeout: Duration,
    /// Of an [`Endpoint`](crate::Endpoint): how many frames it reads in one turn, and one at least. Default 128.
    pub max_turn_frames: usize,
    /// Of an [`Endpoint`](crate::Endpoint): how many bytes of messages it sends in one turn, and one message more. Default
    /// 256 KiB.
    pub max_turn_bytes: usize,
}

impl Config {
    /// The defaults for a server.
    pub fn server(wallet: Wallet) -> Self {
        let second = Duration::from_secs(1);
        Self { auth_check_interval: second, idle_check_interval: second, ..Self::client(wallet) }
    }

    /// The defaults for a client.
    pub const fn client(wallet: Wallet) -> Self {
        Self {
            wallet,
            auth_timeout: DEFAULT_AUTH_TIMEOUT,
            auth_check_interval: Duration::ZERO,
            auth_window: DEFAULT_AUTH_TIMEOUT,
            heartbeat_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            idle_check_interval: Duration::ZERO,
            max_message_size: DEFAULT_MAX_MESSAGE_SIZE,
            max_unauthenticated_message_size: DEFAULT_MAX_UNAUTHENTICATED_MESSAGE_SIZE,
            expected_servers: Vec::new(),
            max_send_queue: DEFAULT_MAX_SEND_QUEUE,
            send_timeout: DEFAULT_SEND_TIMEOUT,
            max_turn_frames: 128,
            max_turn_bytes: 256 << 10,
        }
    }
}
