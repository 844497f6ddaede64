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
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture, Either, select},
};
#[cfg(feature = "tls")]
use link_core::Violation;
use link_core::{CloseReason, Config, Connection, ConnectionId, Event, Now, Overload, Status};
use link_websocket::OVERLOADED;
use tracing::{Instrument, Span, debug, info, info_span, warn};

use super::{
    AttachError, LOG, ServerError, ServerEvent,
    attendant::ServerAttendant,
    builder::Check,
    registry::{Arrival, Registry},
    session::Session,
    stats::Counters,
};
use crate::{
    event_queue::EventSender,
    limits::Limits,
    line::{Attendant, LINGER, drive, within},
    outbox::{Commands, outbox},
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
    pub(super) counters: Counters,
    /// `None` without a listener.
    pub(super) local_address: Option<SocketAddr>,
    /// Streams that somebody else has upgraded, on their way to the accepting task.
    pub(super) attaching: mpsc::UnboundedSender<Attached>,
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

/// Where connections come from, until it is time to close.
pub(super) struct Sources<L> {
    pub(super) listener: Option<L>,
    pub(super) attached: mpsc::UnboundedReceiver<Attached>,
    pub(super) closing: oneshot::Receiver<Infallible>,
}

/// A stream that somebody else has upgraded, and that waits to be served.
pub(super) struct Attached {
    id: ConnectionId,
    serve: Box<dyn FnOnce(Face) -> BoxFuture<'static, ()> + Send>,
}

/// Takes a place for a stream, and hands it to the accepting task.
pub(super) fn attach<R: Runtime, S>(
    shared: &Arc<Shared>,
    stream: S,
    remote_address: SocketAddr,
) -> Result<ConnectionId, AttachError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let arrival = match shared.registry.arrive(remote_address.ip()) {
        None => return Err(AttachError::Closed),
        Some(Err(overload)) => {
            shared.counters.turned_away(overload.label());
            return Err(overload.into());
        }
        Some(Ok(arrival)) => arrival,
    };
    let (id, started, guest) = (arrival.id, runtime::now::<R>(), shared.clone());
    let serve = Box::new(move |face: Face| {
        let guest = Guest::new(guest, arrival, remote_address, &face);
        let span = guest.span();
        guest.converse::<R, S>(stream, started).instrument(span).boxed()
    });
    if shared.attaching.unbounded_send(Attached { id, serve }).is_err() {
        shared.registry.release(id);
        return Err(AttachError::Closed);
    }
    Ok(id)
}

/// Lives as long as the server. `_gone` is dropped, which is its signal, when all has ended.
pub(super) async fn run<R: Runtime>(
    shared: Arc<Shared>,
    mut sources: Sources<R::Listener>,
    decided: oneshot::Receiver<Face>,
    _gone: oneshot::Sender<Infallible>,
) {
    let address = shared.config.wallet.address();
    info!(target: LOG, %address, local = shared.local_address.map(tracing::field::display), "started");
    let face = match select(decided, &mut sources.closing).await {
        Either::Left((Ok(face), _)) => Some(face),
        // Closed, or dropped, before anybody wanted a client.
        _ => None,
    };
    let (alive, mut dead) = mpsc::channel::<Infallible>(0);
    if let Some(face) = &face {
        accept_all::<R>(&shared, &mut sources, face, &alive).await;
    }
    let Sources { listener, mut attached, .. } = sources;
    // Those who still wait will not be served.
    attached.close();
    while let Ok(Attached { id, .. }) = attached.try_recv() {
        shared.registry.release(id);
    }
    drop((listener, attached, alive));
    let patience = runtime::sleep_until::<R>(runtime::now::<R>().mono.after(CLOSE_PATIENCE));
    select(pin!(poll_fn(|cx| Pin::new(&mut dead).poll_next(cx))), pin!(patience)).await;
    info!(target: LOG, %address, "closed");
    if let Some(Face::Events(events)) = face {
        let mut events = events.queue();
        events.push(ServerEvent::Close);
        let patience = runtime::sleep_until::<R>(runtime::now::<R>().mono.after(LINGER));
        select(poll_fn(|cx| events.poll_sent(cx)), pin!(patience)).await;
    }
}

/// What the accepting task waits for.
enum Next<S> {
    Accepted(io::Result<(S, SocketAddr)>),
    Attached(Attached),
    Closing,
}

impl<L: Send + 'static> Sources<L> {
    async fn next<R: Runtime<Listener = L>>(&mut self) -> Next<R::Stream> {
        let Self { listener, attached, closing } = self;
        let accepted = pin!(async {
            match listener {
                Some(listener) => R::accept(listener).await,
                None => future::pending().await,
            }
        });
        match select(select(attached.next(), accepted), closing).await {
            Either::Left((Either::Left((Some(attached), _)), _)) => Next::Attached(attached),
            Either::Left((Either::Right((accepted, _)), _)) => Next::Accepted(accepted),
            // The other end of `attached` lives as long as the server.
            Either::Left((Either::Left((None, _)), _)) | Either::Right(_) => Next::Closing,
        }
    }
}

async fn accept_all<R: Runtime>(
    shared: &Arc<Shared>,
    sources: &mut Sources<R::Listener>,
    face: &Face,
    alive: &mpsc::Sender<Infallible>,
) {
    let mut turned_away = TurnedAway::default();
    loop {
        // While the program is behind, nobody new comes in: their events would have to wait somewhere.
        while face.is_full() {
            if closed_within::<R>(&mut sources.closing, FULL_PAUSE).await {
                return;
            }
        }
        match sources.next::<R>().await {
            Next::Closing => return,
            Next::Attached(Attached { serve, .. }) => spawn::<R>(serve(face.clone()), alive),
            Next::Accepted(Ok((stream, remote_address))) => {
                match shared.registry.arrive(remote_address.ip()) {
                    Some(Ok(arrival)) => {
                        let guest = Guest::new(shared.clone(), arrival, remote_address, face);
                        let span = guest.span();
                        spawn::<R>(guest.serve::<R>(stream).instrument(span), alive);
                    }
                    Some(Err(overload)) => {
                        shared.counters.turned_away(overload.label());
                        turn_away(stream).await;
                        turned_away.note::<R>(face, remote_address, overload);
                    }
                    None => return,
                }
            }
            // The peer's own doing: it was gone before it was accepted.
            Next::Accepted(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Next::Accepted(Err(error)) => {
                warn!(target: LOG, detail = %error, "cannot accept");
                if let Face::Events(events) = face {
                    events.queue().push_if_ready(ServerEvent::Error(ServerError::Accept(error)));
                }
                if closed_within::<R>(&mut sources.closing, ACCEPT_PAUSE).await {
                    return;
                }
            }
        }
    }
}

/// Starts the task of one connection, which is alive until it ends.
fn spawn<R: Runtime>(served: impl Future<Output = ()> + Send + 'static, alive: &mpsc::Sender<Infallible>) {
    let alive = alive.clone();
    R::spawn(async move {
        served.await;
        drop(alive);
    });
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
        let (remote, label) = (remote_address, overload.label());
        warn!(target: LOG, %remote, reason = label, others, "turned away");
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
async fn turn_away<S: AsyncWrite + Unpin>(mut stream: S) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut stream).poll_write(cx, OVERLOADED.as_bytes());
        std::task::Poll::Ready(())
    })
    .await;
}

/// One connection, from its acceptance to its end.
struct Guest {
    shared: Arc<Shared>,
    commands: Commands,
    attendant: ServerAttendant,
}

impl Guest {
    fn new(shared: Arc<Shared>, arrival: Arrival, remote_address: SocketAddr, face: &Face) -> Self {
        let (outbox, commands) = outbox(shared.limits);
        shared.counters.accepted();
        let attendant = ServerAttendant::new(shared.clone(), arrival, remote_address, outbox, face);
        Self { shared, commands, attendant }
    }

    /// Everything that is logged while this connection's task runs, the program's own check included, is within it.
    fn span(&self) -> Span {
        let (id, remote) = self.attendant.origin();
        info_span!(target: LOG, "connection", connection = id.0, %remote)
    }

    /// From a transport that was just accepted.
    async fn serve<R: Runtime>(mut self, stream: R::Stream) {
        let started = runtime::now::<R>();
        match open::<R>(&self.shared, stream, started.mono, &mut self.attendant).await {
            // The deadline counts from the acceptance, so that it covers the upgrade as well.
            Ok(stream) => self.converse::<R, _>(stream, started).await,
            Err(NotOpen { reason, answer }) => {
                let Self { mut attendant, .. } = self;
                attendant.attend(Event::Closed { reason }, runtime::now::<R>());
                if let Some((mut stream, text)) = answer {
                    let started = runtime::now::<R>().mono;
                    within::<R, _>(started, LINGER, socket::answer(&mut stream, text)).await;
                }
                poll_fn(|cx| attendant.poll_told(cx)).await;
            }
        }
    }

    /// From a WebSocket that is open.
    async fn converse<R: Runtime, S>(self, stream: S, started: Now)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { shared, mut commands, mut attendant } = self;
        attendant.connected();
        let socket = WebSocket::server(stream, &shared.limits);
        let connection = Connection::server(shared.config.clone(), started);
        drive::<R, _, _>(socket, connection, &mut commands, &mut attendant, shared.send_timeout).await;
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
    debug!(target: LOG, detail = %error, "no WebSocket");
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
            debug!(target: LOG, detail = %error, "no TLS");
            Err(match error.get_ref() {
                None => NotOpen::silent(CloseReason::Lost),
                Some(_) => NotOpen::silent(Violation::Tls),
            })
        }
        Either::Left((None, _)) => Err(NotOpen::silent(CloseReason::AuthenticationTimeout(timeout))),
        Either::Right((reason, _)) => Err(NotOpen::silent(reason)),
    }
}
