//! What a server has counted, for whatever metrics library its program uses.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use link_core::Traffic;

/// What a server has counted since it started, at one moment. [`ServerHandle::stats`](super::ServerHandle::stats) hands it
/// out; nothing is reset by that.
///
/// The labels are those of [`CloseReason::label`](link_core::CloseReason::label) and
/// [`Overload::label`](link_core::Overload::label): short, few, and the same in each version. Each accepted connection is
/// in exactly one place: `accepted` is `unauthenticated`, `authenticated` and all of `rejected` and `disconnected` together.
///
/// ```
/// # fn export(stats: link_driver::ServerStats) -> String {
/// let mut text = format!("link_clients {}\nlink_received_bytes_total {}\n", stats.authenticated, stats.bytes_received);
/// for (reason, count) in stats.rejected {
///     text += &format!("link_rejected_total{{reason=\"{reason}\"}} {count}\n");
/// }
/// # text }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections that are there and have yet to authenticate, or have failed to and are being seen off. Each has a place,
    /// of which there are [`max_unauthenticated`](super::ServerBuilder::max_unauthenticated).
    pub unauthenticated: u64,
    /// Connections that are there and authenticated.
    pub authenticated: u64,
    /// Connections that were given a place, ever.
    pub accepted: u64,
    /// Connections that were not, by the label of the reason.
    pub turned_away: BTreeMap<&'static str, u64>,
    /// Connections that ended before they were authenticated, by the label of the reason; their places are free.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Connections that ended after they were authenticated, by the label of the reason.
    pub disconnected: BTreeMap<&'static str, u64>,
    /// Messages of clients' applications that came.
    pub messages_received: u64,
    /// Their length in bytes.
    pub bytes_received: u64,
    /// Messages of this server's application that were handed to a socket.
    pub messages_sent: u64,
    /// Their length in bytes.
    pub bytes_sent: u64,
    /// The round trips of heartbeats.
    pub round_trips: RoundTrips,
}

/// A summary of round trips, one for each heartbeat that was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTrips {
    /// How many were measured.
    pub count: u64,
    /// All of them together.
    pub total: Duration,
    /// The shortest; zero while there is none.
    pub shortest: Duration,
    /// The longest; zero while there is none.
    pub longest: Duration,
}

impl RoundTrips {
    /// The mean, if there was one at least.
    pub fn mean(&self) -> Option<Duration> {
        // In nanoseconds, since a `Duration` is divided by 32 bits only.
        let nanos = self.total.as_nanos().checked_div(self.count.into())?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn note(&mut self, time: Duration) {
        self.shortest = if self.count == 0 { time } else { self.shortest.min(time) };
        self.longest = self.longest.max(time);
        self.count = self.count.saturating_add(1);
        self.total = self.total.saturating_add(time);
    }
}

/// Where a server counts.
///
/// What comes with each message is added up by its connection, and noted here once a turn; the rest is seldom, and
/// locked.
#[derive(Debug, Default)]
pub(super) struct Counters {
    messages_received: AtomicU64,
    bytes_received: AtomicU64,
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    seldom: Mutex<Seldom>,
}

#[derive(Debug, Default)]
struct Seldom {
    accepted: u64,
    authentications: u64,
    turned_away: BTreeMap<&'static str, u64>,
    rejected: BTreeMap<&'static str, u64>,
    disconnected: BTreeMap<&'static str, u64>,
    round_trips: RoundTrips,
}

impl Counters {
    pub(super) fn accepted(&self) {
        let mut seldom = self.seldom();
        seldom.accepted = seldom.accepted.saturating_add(1);
    }

    pub(super) fn turned_away(&self, label: &'static str) {
        note(&mut self.seldom().turned_away, label);
    }

    pub(super) fn authenticated(&self) {
        let mut seldom = self.seldom();
        seldom.authentications = seldom.authentications.saturating_add(1);
    }

    pub(super) fn rejected(&self, label: &'static str) {
        note(&mut self.seldom().rejected, label);
    }

    pub(super) fn disconnected(&self, label: &'static str) {
        note(&mut self.seldom().disconnected, label);
    }

    pub(super) fn round_trip(&self, time: Duration) {
        self.seldom().round_trips.note(time);
    }

    pub(super) fn traffic(&self, traffic: Traffic) {
        let Traffic { messages_received, bytes_received, messages_sent, bytes_sent } = traffic;
        if messages_received > 0 {
            self.messages_received.fetch_add(messages_received, Ordering::Relaxed);
            self.bytes_received.fetch_add(bytes_received, Ordering::Relaxed);
        }
        if messages_sent > 0 {
            self.messages_sent.fetch_add(messages_sent, Ordering::Relaxed);
            self.bytes_sent.fetch_add(bytes_sent, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> ServerStats {
        let seldom = self.seldom();
        let all = |counts: &BTreeMap<_, u64>| counts.values().fold(0u64, |all, one| all.saturating_add(*one));
        let (rejected, disconnected) = (all(&seldom.rejected), all(&seldom.disconnected));
        ServerStats {
            unauthenticated: seldom.accepted.saturating_sub(seldom.authentications).saturating_sub(rejected),
            authenticated: seldom.authentications.saturating_sub(disconnected),
            accepted: seldom.accepted,
            turned_away: seldom.turned_away.clone(),
            rejected: seldom.rejected.clone(),
            disconnected: seldom.disconnected.clone(),
            messages_received: self.messages_received.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            messages_sent: self.messages_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            round_trips: seldom.round_trips,
        }
    }

    fn seldom(&self) -> MutexGuard<'_, Seldom> {
        // Nothing here panics while it holds the lock; and if it did, the data would still be whole.
        self.seldom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(counts: &mut BTreeMap<&'static str, u64>, label: &'static str) {
    let count = counts.entry(label).or_default();
    *count = count.saturating_add(1);
}
