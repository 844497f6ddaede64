//! Between one connection of a server and the program: admission, registration, events.

use std::{
    convert::Infallible,
    mem,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_channel::oneshot;
use futures_util::{FutureExt, future};
use link_core::{Address, CloseReason, ConnectionId, Event, Now, Protection, Refusal, Ticket, Traffic};
use tracing::{debug, error, info, warn};

use super::{
    LOG, Rejected, ServerError, ServerEvent,
    accept::{Face, Shared},
    builder::Candidate,
    connected_client::ConnectedClient,
    registry::Told,
    serve::{Ended, Handler},
    session::Open,
};
use crate::{chain::ErrorChain, event_queue::EventQueue, line::Attendant, outbox::Outbox};

pub(super) struct ServerAttendant {
    shared: Arc<Shared>,
    id: ConnectionId,
    remote_address: SocketAddr,
    outbox: Outbox,
    /// We ended before the program had heard of our predecessor's end. Until it has, it counts as not told of ours, or a
    /// successor of ours could be told of too early.
    predecessor: Option<Told>,
    /// The registry knows that the program has been told of our end.
    told: bool,
    /// The address that we had, if we were admitted.
    had: Option<Address>,
    /// The reason of our end, if we were not authenticated. It is counted when our place is free.
    rejected: Option<&'static str>,
    stage: Stage,
    program: Program,
}

enum Stage {
    Unknown,
    /// Policy is being asked.
    Proved {
        address: Address,
        decision: Option<(Ticket, Decision)>,
    },
    /// Let in, and registered; the program has yet to hear of the end of the one whose place it takes.
    Succeeding {
        peer: ConnectedClient,
        ticket: Ticket,
        predecessor: Told,
    },
    /// Let in, and registered.
    Admitted(ConnectedClient),
    Authenticated(ConnectedClient),
    Ended,
}

/// Who is let in, and when the program has heard of the end of its predecessor, if there was one.
type Admission = (ConnectedClient, Option<Told>);
type Decision = Pin<Box<dyn Future<Output = Result<Admission, Refusal>> + Send>>;

/// How the program hears of us.
enum Program {
    Events(EventQueue<ServerEvent>),
    Handler {
        handler: Handler,
        /// For what may be missed.
        events: EventQueue<ServerEvent>,
        open: Option<Open>,
        /// Ready when a closed server waits for no handler any more; looked for once there is nothing else to wait for.
        abandoned: Option<future::Shared<oneshot::Receiver<Infallible>>>,
    },
    /// It has been told everything, or is not to be told yet.
    Told,
}

impl ServerAttendant {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        remote_address: SocketAddr,
        outbox: Outbox,
    ) -> Self {
        Self {
            shared,
            id,
            remote_address,
            outbox,
            predecessor: None,
            told: false,
            had: None,
            rejected: None,
            stage: Stage::Unknown,
            program: Program::Told,
        }
    }

    /// From here on the program hears of this connection.
    pub(super) fn tell_to(&mut self, face: &Face) {
        self.program = match face {
            Face::Events(events) => Program::Events(events.queue()),
            Face::Handler { handler, events } => Program::Handler {
                handler: handler.clone(),
                events: events.queue(),
                open: None,
                abandoned: None,
            },
        };
    }

    /// Which connection this is, and where it comes from.
    pub(super) const fn origin(&self) -> (ConnectionId, SocketAddr) {
        (self.id, self.remote_address)
    }

    /// The transport has become a WebSocket.
    pub(super) fn connected(&mut self) {
        debug!(target: LOG, connection = self.id.get(), remote = %self.remote_address, "connected");
        self.tell(ServerEvent::Connected { id: self.id, remote_address: self.remote_address });
    }

    fn ask(&mut self, ticket: Ticket, now: Now) {
        let address = ticket.address();
        let screened = self.shared.registry.screen(ticket.proof(), now.wall);
        let decision = decide(
            self.shared.clone(),
            screened,
            Candidate { address, remote_address: self.remote_address },
            self.id,
            self.outbox.clone(),
        );
        self.stage = Stage::Proved { address, decision: Some((ticket, Box::pin(decision))) };
    }

    fn authenticated(&mut self, protection: Protection) {
        let Stage::Admitted(peer) = std::mem::replace(&mut self.stage, Stage::Unknown) else { return };
        let (remote, address) = (self.remote_address, peer.address());
        info!(target: LOG, connection = self.id.get(), %remote, %address, "authenticated");
        self.shared.counters.authenticated();
        peer.begin(protection);
        if let Program::Handler { handler, open, .. } = &mut self.program {
            *open = Some(Open::new(peer.clone(), &**handler));
        }
        self.tell(ServerEvent::Authenticated(peer.clone()));
        self.stage = Stage::Authenticated(peer);
    }

    fn ended(&mut self, reason: CloseReason) {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        if let Stage::Authenticated(peer) | Stage::Admitted(peer) | Stage::Succeeding { peer, .. } = &stage {
            // From here on the address is free, and lookups do not find us. (A stranger has its place until its
            // task is done: it has a socket until after its farewell.)
            self.shared.registry.end(peer);
            self.had = Some(peer.address());
        }
        let (connection, remote, label) = (self.id.get(), self.remote_address, reason.label());
        let address = match stage {
            Stage::Authenticated(peer) => {
                let address = peer.address();
                info!(target: LOG, connection, %remote, %address, reason = label, detail = %reason, "disconnected");
                self.shared.counters.disconnected(label);
                peer.end(reason.clone());
                return self.tell(ServerEvent::Disconnected(peer, reason));
            }
            Stage::Succeeding { peer, predecessor, .. } => {
                peer.end(reason.clone());
                self.predecessor = Some(predecessor);
                Some(peer.address())
            }
            Stage::Admitted(peer) => {
                peer.end(reason.clone());
                Some(peer.address())
            }
            Stage::Proved { address, .. } => Some(address),
            Stage::Unknown | Stage::Ended => None,
        };
        match address {
            Some(address) => {
                info!(target: LOG, connection, %remote, %address, reason = label, detail = %reason, "rejected");
            }
            // Anybody at all can bring this about: no flood of it at the usual level.
            None => debug!(target: LOG, connection, %remote, reason = label, detail = %reason, "rejected"),
        }
        self.rejected = Some(label);
        let Self { id, remote_address, .. } = *self;
        self.tell(ServerEvent::Rejected(Box::new(Rejected { id, remote_address, address, reason })));
    }

    fn tell(&mut self, event: ServerEvent) {
        match (&mut self.program, &event) {
            (Program::Events(events), _) => events.push(event),
            // The rest is about one session.
            (Program::Handler { events, .. }, ServerEvent::Rejected(_)) => events.push_if_ready(event),
            _ => {}
        }
    }

    /// What the program is to be told, is where it finds it.
    fn hand_over(&mut self) {
        if let Program::Events(events) | Program::Handler { events, .. } = &mut self.program {
            events.hand_over();
        }
    }

    /// The handler has ended, and the connection is to.
    fn handled(&self, ended: Ended) {
        let connection = self.id.get();
        match ended {
            Ended::Well => {}
            // It may well have failed because its client is gone.
            Ended::Failed(error) if matches!(self.stage, Stage::Ended) => {
                debug!(target: LOG, connection, detail = %ErrorChain::new(&*error), "the handler failed, after its connection had ended");
            }
            Ended::Failed(error) => {
                warn!(target: LOG, connection, detail = %ErrorChain::new(&*error), "the handler failed");
            }
            Ended::Panicked => error!(target: LOG, connection, "the handler panicked"),
        }
        self.outbox.close();
    }
}

/// Asks policy about a proved address, and registers it if all say yes.
async fn decide(
    shared: Arc<Shared>,
    screened: Result<(), Refusal>,
    candidate: Candidate,
    id: ConnectionId,
    outbox: Outbox,
) -> Result<Admission, Refusal> {
    screened?;
    let Candidate { address, remote_address } = candidate;
    let data = match &shared.check {
        None => None,
        // A panic there is the program's affair; its client is refused, and told so.
        Some(check) => match AssertUnwindSafe(async { check(candidate).await }).catch_unwind().await {
            Ok(verdict) => verdict.into_data()?,
            Err(_) => {
                error!(target: LOG, connection = id.get(), %address, "on_authenticate panicked");
                return Err(Refusal::Denied);
            }
        },
    };
    let peer = ConnectedClient::new(id, address, remote_address, data, outbox);
    let predecessor = shared.registry.admit(&peer)?;
    Ok((peer, predecessor))
}

impl Attendant for ServerAttendant {
    fn attend(&mut self, event: Event, now: Now) {
        match (event, &self.stage) {
            (Event::AdmissionRequested { ticket }, _) => self.ask(ticket, now),
            (Event::Authenticated { protection, .. }, _) => self.authenticated(protection),
            (Event::Message(message), Stage::Authenticated(peer)) => match &mut self.program {
                Program::Events(events) => {
                    let bytes = message.as_str().len();
                    events.push_weighing(ServerEvent::Message(peer.clone(), message), bytes);
                }
                Program::Handler { open: Some(open), .. } => open.push(message),
                _ => {}
            },
            (Event::Heartbeat { round_trip }, Stage::Authenticated(peer)) => {
                if let Some(time) = round_trip {
                    self.shared.counters.round_trip(time);
                }
                if let Program::Events(events) = &mut self.program {
                    events.push_if_ready(ServerEvent::Heartbeat(peer.clone(), round_trip));
                }
            }
            (Event::Error(violation), Stage::Authenticated(peer)) => {
                let (connection, address, label) = (self.id.get(), peer.address(), violation.label());
                debug!(target: LOG, connection, %address, reason = label, detail = %violation, "violation");
                let peer = peer.clone();
                self.tell(ServerEvent::Error(ServerError::Violation { client: peer, violation }));
            }
            (Event::Closed { reason }, _) => self.ended(reason),
            _ => {}
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.program {
            // Who is not known yet has little to tell, and a deadline.
            Program::Events(events) if matches!(self.stage, Stage::Authenticated(_)) => events.poll_ready(cx),
            Program::Handler { open: Some(open), .. } => open.poll_room(cx),
            Program::Events(_) | Program::Handler { open: None, .. } | Program::Told => Poll::Ready(()),
        }
    }

    fn poll_program(&mut self, cx: &mut Context<'_>) {
        if let Program::Handler { open: Some(open), .. } = &mut self.program
            && let Poll::Ready(ended) = open.poll(cx)
        {
            self.handled(ended);
        }
    }

    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.hand_over();
        if let Some(predecessor) = &mut self.predecessor {
            let _ = ready!(Pin::new(predecessor).poll(cx));
            self.predecessor = None;
        }
        // A handler is told by its session; how long it goes on does not hold up a successor.
        if !mem::replace(&mut self.told, true) {
            self.shared.registry.told(self.id);
        }
        self.poll_program(cx);
        if let Program::Handler { open: Some(open), abandoned, .. } = &mut self.program
            && !open.is_over()
        {
            let abandoned = abandoned.get_or_insert_with(|| self.shared.abandoned.clone());
            // An error is the signal.
            let _ = ready!(abandoned.poll_unpin(cx));
        }
        self.program = Program::Told;
        Poll::Ready(())
    }

    fn poll_decision(&mut self, cx: &mut Context<'_>) -> Poll<(Ticket, Result<(), Refusal>)> {
        if let Stage::Proved { decision, .. } = &mut self.stage {
            let Some((_, deciding)) = decision else { return Poll::Pending };
            let verdict = ready!(deciding.as_mut().poll(cx));
            let Some((ticket, _)) = decision.take() else { return Poll::Pending };
            match verdict {
                Ok((peer, Some(predecessor))) => {
                    self.stage = Stage::Succeeding { peer, ticket, predecessor };
                }
                Ok((peer, None)) => {
                    self.stage = Stage::Admitted(peer);
                    return Poll::Ready((ticket, Ok(())));
                }
                Err(refusal) => return Poll::Ready((ticket, Err(refusal))),
            }
        }
        let Stage::Succeeding { predecessor, .. } = &mut self.stage else { return Poll::Pending };
        // The program hears of the old one's end before it hears of us.
        let _ = ready!(Pin::new(predecessor).poll(cx));
        let Stage::Succeeding { peer, ticket, .. } = std::mem::replace(&mut self.stage, Stage::Unknown)
        else {
            return Poll::Pending;
        };
        self.stage = Stage::Admitted(peer);
        Poll::Ready((ticket, Ok(())))
    }

    fn end_turn(&mut self, traffic: Traffic) {
        self.hand_over();
        if traffic != Traffic::default() {
            self.shared.counters.traffic(traffic);
        }
    }

    fn release_spare_room(&mut self) {
        if let Program::Events(events) = &mut self.program {
            events.release_spare_room();
        }
    }
}

/// However the task ends, it is counted, told as far as there is room, and nothing stays behind in the registry.
impl Drop for ServerAttendant {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Ended) {
            self.ended(CloseReason::Lost);
        }
        // A successor may be told of as soon as the registry knows.
        self.hand_over();
        self.shared.registry.release(self.id, self.had);
        // Once the counters say that it is gone, its place is free.
        if let Some(label) = self.rejected {
            self.shared.counters.rejected(label);
        }
    }
}
