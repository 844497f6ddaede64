//! What waits for the application of a process.

use std::collections::VecDeque;

use link_core::{Address, CloseReason, Message};

use crate::{
    agenda::{Due, Process},
    clock::Moment,
    env::Env,
    host::Host,
    network::WireId,
    plan::Fault,
};

/// What an application is to be told.
#[derive(Debug)]
pub(crate) enum Told {
    Authenticated(Address),
    Message(Address, Message),
    Disconnected(Address, CloseReason),
}

/// What waits for the application of a process, in the order in which it happened.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<(WireId, Told)>,
    messages: usize,
    /// The application takes nothing until then.
    busy_until: Moment,
}

impl Inbox {
    pub(crate) fn push(&mut self, host: &mut Host, told: Told) {
        host.untold = host.untold.saturating_add(1);
        if let Told::Message(..) = told {
            self.messages = self.messages.saturating_add(1);
        }
        self.waiting.push_back((host.end.wire, told));
    }

    /// What the application takes next, if it takes anything now.
    pub(crate) fn next(&mut self, process: Process, env: &mut Env<'_>) -> Option<(WireId, Told)> {
        if env.now < self.busy_until && !env.calm {
            return None;
        }
        let next = self.waiting.pop_front()?;
        if let (_, Told::Message(..)) = next {
            self.messages = self.messages.saturating_sub(1);
        }
        if env.has(Fault::SlowApplication) && env.choices.once_in(4) {
            let busy = env.choices.millis(200, 9_000);
            self.be_busy(env.now.after(busy), process, env);
        }
        Some(next)
    }

    /// The application has something else to do.
    pub(crate) fn be_busy(&mut self, until: Moment, process: Process, env: &mut Env<'_>) {
        self.busy_until = self.busy_until.max(until.to_grain());
        env.plan(self.busy_until, Due::Application(process));
    }

    /// Whether the application is behind, so that nobody is to be read for it.
    pub(crate) const fn is_full(&self, capacity: usize) -> bool {
        self.messages >= capacity
    }

    pub(crate) const fn messages(&self) -> usize {
        self.messages
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
