//! What will happen, in the order of time. At one moment, the order is a matter of the weather.

use std::collections::BTreeMap;

use crate::{
    clock::Moment,
    network::{End, WireId},
};

/// A process of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Process {
    Server(usize),
    Client(usize),
}

impl core::fmt::Display for Process {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Server(number) => write!(f, "server {number}"),
            Self::Client(number) => write!(f, "client {number}"),
        }
    }
}

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// What is under way to this end may be there.
    Arrival(End),
    /// This end may write again, or look again at why it cannot.
    Writable(End),
    /// The timer of the connection at this end.
    Timer(End),
    /// The application may take what waits for it.
    Application(Process),
    /// The application's check has made up its mind.
    Verdict { server: usize, wire: WireId, admitted: bool },
    /// A replaced connection notices.
    Eviction { server: usize, wire: WireId, of: Eviction },
    /// A dial reaches the server.
    Knock { client: usize, dial: u64 },
    /// The client learns that its WebSocket is open.
    Opened { client: usize, dial: u64, wire: WireId },
    /// The client learns that there will be none.
    DialFailed { client: usize, dial: u64 },
    /// The client's wait is over.
    Redial { client: usize },
    /// An application has a thought of its own.
    Tick(Process),
    /// A suspended process goes on.
    Resume { process: Process, pause: u64 },
    /// A dead process comes back.
    Restart(Process),
    /// A server that was shutting down is gone.
    Gone(Process),
    /// Something breaks.
    Fault,
    /// The adversary moves.
    Adversary,
    /// The faults stop.
    Heal,
    /// Somebody looks after those who gave up, once the faults have stopped.
    Operator,
    /// A look at the world, and nothing else.
    Look,
}

/// Why a server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    Replaced,
    Kicked,
    ShuttingDown,
}

/// Who goes first when several things are due at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// What was planned first.
    Planned,
    /// Timers, then input.
    TimersFirst,
    /// Input, then timers.
    InputsFirst,
    /// Anybody.
    Anybody,
}

#[derive(Debug, Default)]
pub(crate) struct Agenda {
    items: BTreeMap<(Moment, u64, u64), Due>,
    planned: u64,
}

impl Agenda {
    pub(crate) fn plan(&mut self, at: Moment, tie: u64, due: Due) {
        self.planned = self.planned.wrapping_add(1);
        self.items.insert((at, tie, self.planned), due);
    }

    pub(crate) fn next(&mut self) -> Option<(Moment, Due)> {
        self.items.pop_first().map(|((at, _, _), due)| (at, due))
    }

    /// Whether something else is due at this moment.
    pub(crate) fn has_more_at(&self, at: Moment) -> bool {
        self.items.first_key_value().is_some_and(|((next, _, _), _)| *next == at)
    }

    pub(crate) fn forget_faults(&mut self) {
        self.items.retain(|_, due| {
            !matches!(due, Due::Fault | Due::Adversary | Due::Heal | Due::Gone(_) | Due::Restart(_))
        });
    }
}
