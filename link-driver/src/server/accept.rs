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
use link_websocket::OVERLOADED;
use tracing::{debug, warn};

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
    transport::Transport,
};

/// How long to wait when the system has no connection to give, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the program is told at most that connections are turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait while the program is behind with its events.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How long a closing server waits for its connections at most.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What a server's tasks share.
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<futures_rustls::TlsAcceptor>,
    pub(super) limits: Limits,
    pub(super) send_timeout: Duration,
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
    stream: R::Stream,
    remote_address: SocketAddr,
    arrival: Arrival,
    face: Face,
) {
    let accepted = runtime::now::<R>();
    let (outbox, mut commands) = outbox(shared.limits);
    let mut attendant = ServerAttendant::new(shared.clone(), arrival, remote_address, outbox, &face);
    drop(face);
    match open::<R>(&shared, stream, accepted.mono, &mut attendant).await {
        Ok(stream) => {
            attendant.connected();
            let socket = WebSocket::server(stream, &shared.limits);
            // The deadline counts from the acceptance, so that it covers the upgrade as well.
            let connection = Connection::server(shared.config.clone(), accepted);
            let send_timeout = shared.send_timeout;
            drive::<R, _, _>(socket, connection, &mut commands, &mut attendant, send_timeout).await;
        }
        Err(NotOpen { reason, answer }) => {
            attendant.attend(Event::Closed { reason }, runtime::now::<R>());
            if let Some((mut stream, text)) = answer {
                let started = runtime::now::<R>().mono;
                within::<R, _>(started, LINGER, socket::answer(&mut stream, text)).await;
            }
            poll_fn(|cx| attendant.poll_told(cx)).await;
        }
    }
}

/// Why a transport did not become a WebSocket, and what to answer on it in plain HTTP.
struct NotOpen<S> {
    reason: CloseReason,
    answer: Option<(Transport<S>, &'static str)>,
}

impl<S> NotOpen<S> {
    /// There is nobody to be answered, or no way to.
    fn silent(reason: impl Into<CloseReason>) -> Self {
        Self { reason: reason.into(), answer: None }
    }

    fn answered(reason: impl Into<CloseReason>, stream: Transport<S>, text: &'static str) -> Self {
        Self { reason: reason.into(), answer: Some((stream, text)) }
    }
}

/// From an accepted transport to a WebSocket: TLS, if there is to be, and the HTTP upgrade, all before the
/// authentication deadline.
async fn open<R: Runtime>(
    shared: &Shared,
    stream: R::Stream,
    started: link_core::Instant,
    attendant: &mut ServerAttendant,
) -> Result<Transport<R::Stream>, NotOpen<R::Stream>> {
    let timeout = shared.config.auth_timeout;
    let mut stream = secure::<R>(shared, stream, started, attendant).await?;
    let outcome = {
        let work = within::<R, _>(started, timeout, WebSocket::upgrade(&mut stream));
        let evicted = poll_fn(|cx| attendant.poll_eviction(cx));
        match select(pin!(work), evicted).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right((reason, _)) => Err(reason),
        }
    };
    let error = match outcome {
        Err(reason) => return Err(NotOpen::answered(reason, stream, OVERLOADED)),
        Ok(Some(Ok(()))) => return Ok(stream),
        Ok(Some(Err(error))) => error,
        Ok(None) => {
            let reason = CloseReason::AuthenticationTimeout(timeout);
            return Err(NotOpen::answered(reason, stream, Status::RequestTimeout.text()));
        }
    };
    debug!(%error, "no WebSocket");
    Err(match error.answer() {
        None => NotOpen::silent(error.reason()),
        Some(answer) => NotOpen::answered(error.reason(), stream, answer),
    })
}

#[cfg(not(feature = "tls"))]
#[allow(clippy::unused_async, reason = "with TLS, it waits")]
async fn secure<R: Runtime>(
    _: &Shared,
    stream: R::Stream,
    _: link_core::Instant,
    _: &mut ServerAttendant,
) -> Result<Transport<R::Stream>, NotOpen<R::Stream>> {
    Ok(Transport::Plain(stream))
}

/// The server's half of the TLS handshake, if this server speaks TLS.
#[cfg(feature = "tls")]
async fn secure<R: Runtime>(
    shared: &Shared,
    stream: R::Stream,
    started: link_core::Instant,
    attendant: &mut ServerAttendant,
) -> Result<Transport<R::Stream>, NotOpen<R::Stream>> {
    let Some(acceptor) = &shared.tls else { return Ok(Transport::Plain(stream)) };
    let timeout = shared.config.auth_timeout;
    let work = within::<R, _>(started, timeout, acceptor.accept(stream));
    let evicted = poll_fn(|cx| attendant.poll_eviction(cx));
    match select(pin!(work), evicted).await {
        Either::Left((Some(Ok(stream)), _)) => Ok(Transport::Tls(Box::new(stream.into()))),
        // What there is to say, TLS has said in an alert.
        Either::Left((Some(Err(error)), _)) => {
            debug!(%error, "no TLS");
            Err(match error.get_ref() {
                None => NotOpen::silent(CloseReason::Lost),
                Some(_) => NotOpen::silent(Violation::Tls),
            })
        }
        Either::Left((None, _)) => Err(NotOpen::silent(CloseReason::AuthenticationTimeout(timeout))),
        Either::Right((reason, _)) => Err(NotOpen::silent(reason)),
    }
}
