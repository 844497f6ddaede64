//! The bounds that the driver keeps beside the protocol's own.

use std::time::Duration;

use link_core::Config;

/// The default bound on bytes that wait to be sent to one peer: 4 MiB.
pub const DEFAULT_MAX_SEND_QUEUE: usize = 4 << 20;
/// The default number of events that may wait for the application.
pub const DEFAULT_EVENT_CAPACITY: usize = 1024;

/// What one connection may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_message_size: usize,
    pub(crate) max_unauthenticated_message_size: usize,
    pub(crate) max_send_queue: usize,
}

impl Limits {
    pub(crate) const fn new(config: &Config, max_send_queue: usize) -> Self {
        Self {
            max_message_size: config.max_message_size,
            max_unauthenticated_message_size: config.max_unauthenticated_message_size,
            max_send_queue,
        }
    }
}

/// How long a peer may take nothing of what is sent to it: as long as it may be silent, or this if there is no such
/// time-out.
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) const fn stall_timeout(idle_timeout: Duration) -> Duration {
    if idle_timeout.is_zero() { DEFAULT_STALL_TIMEOUT } else { idle_timeout }
}
