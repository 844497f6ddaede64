//! Between one connection of a client and the program.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use link_core::{CloseReason, Event, Now, Reconnect, Refusal, Ticket, Traffic};
use tracing::{debug, info};

use super::{ClientError, ClientEvent, LOG, OpenLine, Shared, run::Welcome};
use crate::{event_queue::EventQueue, line::Attendant, outbox::Outbox};

pub(super) struct ClientAttendant<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) outbox: Outbox,
    pub(super) events: &'a mut EventQueue<ClientEvent>,
    pub(super) reconnect: &'a mut Reconnect,
    pub(super) welcome: &'a mut Welcome,
    /// How it ended, once it has.
    pub(super) ended: Option<CloseReason>,
}

impl Attendant for ClientAttendant<'_> {
    fn attend(&mut self, event: Event, now: Now) {
        match event {
            Event::Authenticated { address: server, protection } => {
                info!(target: LOG, %server, "authenticated");
                self.reconnect.authenticated(now);
                *self.shared.line() = Some(OpenLine { server, outbox: self.outbox.clone() });
                self.events.push(ClientEvent::Authenticated { server, protection });
                self.welcome.authenticated();
            }
            Event::Message(message) => {
                let bytes = message.as_str().len();
                self.events.push_weighing(ClientEvent::Message(message), bytes);
            }
            Event::Heartbeat { round_trip } => {
                self.events.push_if_ready(ClientEvent::Heartbeat { round_trip });
            }
            Event::Error(violation) => {
                debug!(target: LOG, reason = violation.label(), detail = %violation, "violation");
                self.events.push(ClientEvent::Error(ClientError::Violation(violation)));
            }
            Event::Closed { reason } => {
                info!(target: LOG, reason = reason.label(), detail = %reason, "disconnected");
                // From here on `send` refuses, and nothing more is queued.
                *self.shared.line() = None;
                self.ended = Some(reason);
            }
            // Nobody asks a client for admission.
            _ => {}
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Until then nobody can take events: a queue that is full of the attempts before would never empty.
        if self.welcome.is_awaited() { Poll::Ready(()) } else { self.events.poll_ready(cx) }
    }

    fn poll_told(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.events.hand_over();
        Poll::Ready(())
    }

    fn poll_program(&mut self, _: &mut Context<'_>) {
        // It has a task of its own.
    }

    fn poll_decision(&mut self, _: &mut Context<'_>) -> Poll<(Ticket, Result<(), Refusal>)> {
        Poll::Pending
    }

    fn end_turn(&mut self, _: Traffic) {
        self.events.hand_over();
    }

    fn release_spare_room(&mut self) {
        self.events.release_spare_room();
    }
}
