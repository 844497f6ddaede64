//! The bounds that the driver keeps beside the protocol's own.

use std::time::Duration;

use link_core::Config;

/// The default bound on bytes that wait to be sent to one peer: 4 MiB.
pub const DEFAULT_MAX_SEND_QUEUE: usize = 4 << 20;
/// The default time that a peer may take nothing of what is sent to it. Long, since a system says only now and then
/// that a slow peer has taken something.
pub const DEFAULT_SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The default number of events that may wait for the application.
pub const DEFAULT_EVENT_CAPACITY: usize = 1024;

/// What one connection may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_message_size: usize,
    pub(crate) max_send_queue: usize,
}

impl Limits {
    pub(crate) const fn new(config: &Config, max_send_queue: usize) -> Self {
        Self { max_message_size: config.max_message_size, max_send_queue }
    }
}
