//! The options that a server and a client share.

use std::time::Duration;

use link_core::{
    Config, DEFAULT_AUTH_TIMEOUT, DEFAULT_MAX_MESSAGE_SIZE, DEFAULT_MAX_SEND_QUEUE, DEFAULT_SEND_TIMEOUT,
    PrivateKey, Wallet,
};

use crate::{
    event_queue::DEFAULT_EVENT_CAPACITY,
    wallet::{Identity, IdentityError},
};

/// Each is described where it can be set: at the builders.
pub(crate) struct Options {
    identity: Identity,
    pub(crate) auth_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_message_size: usize,
    pub(crate) max_send_queue: usize,
    pub(crate) send_timeout: Duration,
    pub(crate) event_capacity: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            identity: Identity::default(),
            auth_timeout: DEFAULT_AUTH_TIMEOUT,
            heartbeat_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            max_message_size: DEFAULT_MAX_MESSAGE_SIZE,
            max_send_queue: DEFAULT_MAX_SEND_QUEUE,
            send_timeout: DEFAULT_SEND_TIMEOUT,
            event_capacity: DEFAULT_EVENT_CAPACITY,
        }
    }
}

impl Options {
    pub(crate) fn set_wallet(&mut self, wallet: Wallet) {
        self.identity.wallet = Some(wallet);
    }

    pub(crate) fn set_private_key(&mut self, hex: &str) {
        self.identity.private_key = Some(PrivateKey::from_hex(hex));
    }

    /// The core's configuration of one side.
    pub(crate) fn resolve(self, side: impl FnOnce(Wallet) -> Config) -> Result<Config, IdentityError> {
        let mut config = side(self.identity.resolve()?);
        config.auth_timeout = self.auth_timeout;
        // Without a deadline there is still a window.
        config.auth_window =
            if self.auth_timeout.is_zero() { DEFAULT_AUTH_TIMEOUT } else { self.auth_timeout };
        config.heartbeat_interval = self.heartbeat_interval;
        config.idle_timeout = self.idle_timeout;
        config.max_message_size = self.max_message_size.max(config.max_unauthenticated_message_size);
        config.max_send_queue = self.max_send_queue;
        config.send_timeout = self.send_timeout;
        Ok(config)
    }
}
