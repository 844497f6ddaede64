//! The task of a client: dials, drives, and waits, as [`Reconnect`] says.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use link_core::{Config, Connection, Frame, GiveUp, Message, Next, Reconnect};
use tracing::{debug, warn};

use super::{
    ClientError, ClientEvent, ConnectionFailure, FailureCause, LOG, Shared,
    attendant::ClientAttendant,
    dial::{Dialler, Opened},
};
use crate::{
    chain::ErrorChain,
    event_queue::EventQueue,
    line::Line,
    outbox::outbox,
    runtime::{self, Runtime},
    transport::Transport,
};

/// All that the task owns.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    pub(super) dialler: Arc<Dialler>,
    pub(super) reconnect: Reconnect,
    pub(super) events: EventQueue<ClientEvent>,
    pub(super) stop: oneshot::Receiver<Infallible>,
    pub(super) welcome: Welcome,
    pub(super) _gone: oneshot::Sender<Infallible>,
}

/// Tells whoever waits for the first authentication how it went.
pub(super) struct Welcome(pub(super) Option<oneshot::Sender<Result<(), ConnectionFailure>>>);

impl Welcome {
    pub(super) fn authenticated(&mut self) {
        self.tell(Ok(()));
    }

    /// Whether somebody waits for it, who can take no events meanwhile.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| !waiting.is_canceled())
    }

    fn tell(&mut self, outcome: Result<(), ConnectionFailure>) {
        if let Some(waiting) = self.0.take() {
            let _ = waiting.send(outcome);
        }
    }
}

/// The program wants no connection any more.
struct Stopped;

impl Run {
    pub(super) async fn run<R: Runtime>(mut self) {
        let mut cause = None;
        // The first time it just dials.
        let mut announced = true;
        loop {
            // A program that does not take its events is not dialled for.
            if self.caught_up().await.is_err() {
                self.reconnect.disconnect();
            }
            let now = runtime::now::<R>();
            let next = self.reconnect.next(now);
            let delay = match next {
                Next::Dial => Some(Duration::ZERO),
                Next::WaitUntil(until) => Some(until.since(now.mono)),
                Next::Carry | Next::GiveUp(_) => None,
            };
            // Told even when the delay was so short that it is over by now.
            if let (Some(delay), false) = (delay, announced) {
                let attempt = self.reconnect.attempts();
                debug!(target: LOG, attempt, ?delay, "reconnecting");
                self.tell(ClientEvent::Reconnecting { attempt, delay });
                announced = true;
            }
            match next {
                Next::Dial => {
                    announced = false;
                    match self.session::<R>().await {
                        Ok(ended) => cause = Some(ended),
                        Err(Stopped) => self.reconnect.disconnect(),
                    }
                }
                Next::WaitUntil(until) => {
                    let wait = runtime::sleep_until::<R>(until);
                    if self.unless_stopped(wait).await.is_err() {
                        self.reconnect.disconnect();
                    }
                }
                // Nothing is open between two rounds.
                Next::Carry => self.reconnect.failed(now),
                Next::GiveUp(reason) => {
                    if let (Some(cause), false) = (cause, reason == GiveUp::Disconnected) {
                        let failure = ConnectionFailure { cause, reason };
                        warn!(target: LOG, detail = %ErrorChain::new(&failure), "gave up");
                        let _ = self.shared.failure.set(failure.clone());
                        self.welcome.tell(Err(failure.clone()));
                        self.tell(ClientEvent::ConnectionFailed(failure));
                    }
                    return;
                }
            }
        }
    }

    /// Dials once, and drives what came of it to its end.
    async fn session<R: Runtime>(&mut self) -> Result<FailureCause, Stopped> {
        self.reconnect.dialled();
        let dialler = self.dialler.clone();
        let config = self.config.clone();
        let dialling = async move { dialler.dial::<R>(&config).await };
        match self.unless_stopped(dialling).await? {
            Ok(Opened::Own(websocket)) => Box::pin(self.converse::<R, _>(*websocket)).await,
            #[cfg(feature = "async-tungstenite")]
            Ok(Opened::AsyncTungstenite(websocket)) => Box::pin(self.converse::<R, _>(*websocket)).await,
            Ok(Opened::Foreign(websocket)) => Box::pin(self.converse::<R, _>(websocket)).await,
            Err(error) => {
                debug!(target: LOG, detail = %ErrorChain::new(&error), "cannot dial");
                self.tell(ClientEvent::Error(ClientError::Dial(error.clone())));
                self.reconnect.failed(runtime::now::<R>());
                Ok(error.into())
            }
        }
    }

    /// Drives an open WebSocket to its end.
    async fn converse<R: Runtime, T: Transport>(&mut self, websocket: T) -> Result<FailureCause, Stopped> {
        self.tell(ClientEvent::Connected);
        let opened = self.reconnect.opened(runtime::now::<R>());
        let connection = Connection::client(self.config.clone(), opened);
        let (outbox, commands) = outbox(&self.config);
        let attendant = ClientAttendant {
            shared: &self.shared,
            outbox: outbox.clone(),
            events: &mut self.events,
            reconnect: &mut self.reconnect,
            welcome: &mut self.welcome,
            ended: None,
        };
        let mut driving = Box::pin(Line::new(websocket, connection, commands, attendant).drive::<R>());
        let (stopped, (unsent, ClientAttendant { ended, .. })) =
            match select(driving.as_mut(), &mut self.stop).await {
                Either::Left((ended, _)) => (false, ended),
                Either::Right(_) => {
                    outbox.close();
                    (true, driving.as_mut().await)
                }
            };
        drop(driving);
        // A connection always says how it ended.
        let reason = ended.unwrap_or(link_core::CloseReason::Lost);
        let unsent = unsent.frames.into_iter().filter_map(message).chain(unsent.messages).collect();
        self.tell(ClientEvent::Disconnected { reason: reason.clone(), unsent });
        self.reconnect.ended(&reason, runtime::now::<R>());
        if stopped { Err(Stopped) } else { Ok(reason.into()) }
    }

    /// While somebody waits for the first authentication, nobody can take events, and those of many attempts must
    /// not pile up: what does not fit is missed.
    fn tell(&mut self, event: ClientEvent) {
        if self.welcome.is_awaited() { self.events.tell_if_ready(event) } else { self.events.tell(event) }
    }

    /// Waits until the program has taken what it was told.
    async fn caught_up(&mut self) -> Result<(), Stopped> {
        let Self { events, stop, welcome, .. } = self;
        if welcome.is_awaited() {
            return Ok(());
        }
        match select(poll_fn(|cx| events.poll_ready(cx)), stop).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Stopped),
        }
    }

    async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        match select(pin!(work), &mut self.stop).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(Stopped),
        }
    }
}

/// The program's message in a frame; the protocol's own, as a heartbeat's answer, are not for it.
fn message(frame: Frame) -> Option<Message> {
    let Frame::Text(text) = frame else { return None };
    Message::parse(text).ok().filter(|message| message.check_sendable().is_ok())
}
