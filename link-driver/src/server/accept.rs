//! The task that accepts transports, and the way of each one from TCP to its connection's end.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_channel::{mpsc, oneshot};
use futures_core::Stream;
use futures_util::future::{self, Either, select};
use link_core::{CloseReason, Config, Connection, Event, Overload, Status, Violation};
use tracing::{debug, warn};
use tungstenite::error::ProtocolError;

use super::{
    ServerError, ServerEvent,
    attendant::ServerAttendant,
    builder::Check,
    registry::{Arrival, Registry},
    session::Session,
};
use crate::{
    event_queue::EventSender,
    limits::Limits,
    line::{Attendant, LINGER, drive, within},
    outbox::outbox,
    runtime::{self, Runtime},
    socket::{self, WebSocket},
};

/// How long to wait when the system has no connection to give, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the program is told at most that connections are turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait while the program is behind with its events.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How long a closing server waits for its connections at most.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const UPGRADE_REQUIRED: &str = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n\
                                Connection: Upgrade, close\r\nContent-Length: 0\r\n\r\n";
const HEAD_TOO_LARGE: &str =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const OVERLOADED: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What a server's tasks share.
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) limits: Limits,
    pub(super) stall_timeout: Duration,
    pub(super) event_capacity: usize,
    pub(super) session_capacity: usize,
    pub(super) check: Option<Check>,
    pub(super) registry: Registry,
    pub(super) local_address: SocketAddr,
    /// Taken when the server is told to close.
    pub(super) close: Mutex<Option<oneshot::Sender<Infallible>>>,
    /// Ready when everything has ended.
    pub(super) gone: future::Shared<oneshot::Receiver<Infallible>>,
}

impl Shared {
    pub(super) fn shut_down(&self) {
        // Dropping the sender is the signal.
        drop(self.close.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.registry.close();
    }
}

/// Where the program wants to hear of its clients.
#[derive(Clone)]
pub(super) enum Face {
    Events(EventSender<ServerEvent>),
    Sessions(EventSender<Session>),
}

impl Face {
    /// Whether the program is behind with what it was told.
    fn is_full(&self) -> bool {
        match self {
            Self::Events(events) => events.is_full(),
            Self::Sessions(sessions) => sessions.is_full(),
        }
    }
}

/// Lives as long as the server. `_gone` is dropped, which is its signal, when all has ended.
pub(super) async fn run<R: Runtime>(
    shared: Arc<Shared>,
    mut listener: R::Listener,
    decided: oneshot::Receiver<Face>,
    mut closing: oneshot::Receiver<Infallible>,
    _gone: oneshot::Sender<Infallible>,
) {
    let face = match select(decided, &mut closing).await {
        Either::Left((Ok(face), _)) => face,
        // Closed, or dropped, before anybody wanted a client.
        _ => return,
    };
    let (alive, mut dead) = mpsc::channel::<Infallible>(0);
    accept_all::<R>(&shared, &mut listener, &face, &alive, closing).await;
    drop((listener, alive));
    let patience = runtime::sleep_until::<R>(runtime::now::<R>().mono.after(CLOSE_PATIENCE));
    select(pin!(poll_fn(|cx| Pin::new(&mut dead).poll_next(cx))), pin!(patience)).await;
    if let Face::Events(events) = face {
        let mut events = events.queue();
        events.push(ServerEvent::Close);
        let patience = runtime::sleep_until::<R>(runtime::now::<R>().mono.after(LINGER));
        select(poll_fn(|cx| events.poll_sent(cx)), pin!(patience)).await;
    }
}

async fn accept_all<R: Runtime>(
    shared: &Arc<Shared>,
    listener: &mut R::Listener,
    face: &Face,
    alive: &mpsc::Sender<Infallible>,
    mut closing: oneshot::Receiver<Infallible>,
) {
    let mut turned_away = TurnedAway::default();
    loop {
        // While the program is behind, nobody new comes in: their events would have to wait somewhere.
        while face.is_full() {
            if closed_within::<R>(&mut closing, FULL_PAUSE).await {
                return;
            }
        }
        let accepted = match select(pin!(R::accept(listener)), &mut closing).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        match accepted {
            Ok((stream, remote_address)) => match shared.registry.arrive(remote_address.ip()) {
                Some(Ok(arrival)) => {
                    let (shared, face, alive) = (shared.clone(), face.clone(), alive.clone());
                    R::spawn(async move {
                        serve::<R>(shared, stream, remote_address, arrival, face).await;
                        drop(alive);
                    });
                }
                Some(Err(overload)) => {
                    debug!(remote = %remote_address, %overload, "turned away");
                    turn_away(stream).await;
                    turned_away.note::<R>(face, remote_address, overload);
                }
                None => return,
            },
            // The peer's own doing: it was gone before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                warn!(%error, "cannot accept");
                if let Face::Events(events) = face {
                    events.queue().push_if_ready(ServerEvent::Error(ServerError::Accept(error)));
                }
                if closed_within::<R>(&mut closing, ACCEPT_PAUSE).await {
                    return;
                }
            }
        }
    }
}

/// Tells the program of connections that were turned away, at most once a second.
#[derive(Default)]
struct TurnedAway {
    told: Option<link_core::Instant>,
    others: u64,
}

impl TurnedAway {
    fn note<R: Runtime>(&mut self, face: &Face, remote_address: SocketAddr, overload: Overload) {
        let now = runtime::now::<R>().mono;
        if self.told.is_some_and(|told| now.since(told) < TURNED_AWAY_PAUSE) {
            self.others = self.others.saturating_add(1);
            return;
        }
        let others = std::mem::take(&mut self.others);
        self.told = Some(now);
        warn!(remote = %remote_address, %overload, others, "turned away");
        if let Face::Events(events) = face {
            let error = ServerError::TurnedAway { remote_address, overload, others };
            events.queue().push_if_ready(ServerEvent::Error(error));
        }
    }
}

/// Whether the server is told to close within `pause`.
async fn closed_within<R: Runtime>(closing: &mut oneshot::Receiver<Infallible>, pause: Duration) -> bool {
    let pause = runtime::sleep_until::<R>(runtime::now::<R>().mono.after(pause));
    matches!(select(pin!(pause), closing).await, Either::Right(_))
}

/// Says that there is no place, as far as that goes without waiting for anybody.
async fn turn_away<S: futures_io::AsyncWrite + Unpin>(mut stream: S) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut stream).poll_write(cx, OVERLOADED.as_bytes());
        std::task::Poll::Ready(())
    })
    .await;
}

/// One transport, from its acceptance to its end.
async fn serve<R: Runtime>(
    shared: Arc<Shared>,
    mut stream: R::Stream,
    remote_address: SocketAddr,
    arrival: Arrival,
    face: Face,
) {
    let accepted = runtime::now::<R>();
    let (outbox, mut commands) = outbox(shared.limits);
    let mut attendant = ServerAttendant::new(shared.clone(), arrival, remote_address, outbox, &face);
    drop(face);
    match upgrade::<R>(&shared, &mut stream, accepted.mono, &mut attendant).await {
        Ok(()) => {
            attendant.connected();
            let socket = WebSocket::server(stream, &shared.limits);
            // The deadline counts from the acceptance, so that it covers the upgrade as well.
            let connection = Connection::server(shared.config.clone(), accepted);
            let Shared { limits, stall_timeout, .. } = &*shared;
            drive::<R, _, _>(socket, connection, &mut commands, &mut attendant, limits, *stall_timeout).await;
        }
        Err((reason, text)) => {
            attendant.attend(Event::Closed { reason }, runtime::now::<R>());
            let started = runtime::now::<R>().mono;
            if let Some(text) = text {
                within::<R, _>(started, LINGER, socket::answer(&mut stream, text)).await;
            }
            drop(stream);
            poll_fn(|cx| attendant.poll_told(cx)).await;
        }
    }
}

/// The HTTP upgrade; or why there was none, and what to answer in plain HTTP.
async fn upgrade<R: Runtime>(
    shared: &Shared,
    stream: &mut R::Stream,
    started: link_core::Instant,
    attendant: &mut ServerAttendant,
) -> Result<(), (CloseReason, Option<&'static str>)> {
    let timeout = shared.config.auth_timeout;
    let work = within::<R, _>(started, timeout, WebSocket::upgrade(stream));
    let evicted = poll_fn(|cx| attendant.poll_eviction(cx));
    match select(pin!(work), evicted).await {
        Either::Left((Some(Ok(())), _)) => Ok(()),
        Either::Left((Some(Err(error)), _)) => {
            debug!(%error, "no WebSocket");
            Err(match error {
                tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                    (Violation::WebSocket.into(), Some(HEAD_TOO_LARGE))
                }
                tungstenite::Error::Io(_)
                | tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => {
                    (CloseReason::Lost, None)
                }
                tungstenite::Error::Protocol(
                    ProtocolError::MissingConnectionUpgradeHeader
                    | ProtocolError::MissingUpgradeWebSocketHeader,
                ) => (Violation::WebSocket.into(), Some(UPGRADE_REQUIRED)),
                _ => (Violation::WebSocket.into(), Some(BAD_REQUEST)),
            })
        }
        Either::Left((None, _)) => {
            Err((CloseReason::AuthenticationTimeout(timeout), Some(Status::RequestTimeout.text())))
        }
        Either::Right((reason, _)) => Err((reason, Some(OVERLOADED))),
    }
}
