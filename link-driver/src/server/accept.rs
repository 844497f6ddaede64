//! The task that accepts connections, from a listener or by the hands of somebody else, and gives each a task of its own.

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
use futures_io::AsyncWrite;
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture, Either, select},
};
use link_core::{Config, ConnectionId, Overload};
use link_websocket::OVERLOADED;
use tracing::{Instrument, info, warn};

use super::{
    AttachError, LOG, ServerError, ServerEvent, builder::Check, guest::Guest, registry::Registry,
    serve::Handler, stats::Counters,
};
use crate::{
    chain::ErrorChain,
    event_queue::{EventQueue, EventSender},
    line::within,
    runtime::{self, Runtime},
    transport::Transport,
};

/// How long to wait when the system has no connection to give, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the program is told at most that connections are turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How long a closing server waits for its connections, until it ends those that are left in the middle of what they say.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How long these have then. Whoever has not ended by that time is kept by the program.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What a server's tasks share.
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<futures_rustls::TlsAcceptor>,
    pub(super) event_capacity: usize,
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
    /// Ready when a closed server waits for nobody any more.
    pub(super) abandoned: future::Shared<oneshot::Receiver<Infallible>>,
}

impl Shared {
    /// Whether connections that come by the listener speak TLS.
    pub(super) const fn speaks_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    pub(super) fn shut_down(&self) {
        // Dropping the sender is the signal.
        drop(self.close.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.registry.close();
    }
}

/// How the program wants to hear of its clients.
#[derive(Clone)]
pub(super) enum Face {
    /// All of it in one place.
    Events(EventSender<ServerEvent>),
    /// By a future for each of them; the rest may be missed.
    Handler { handler: Handler, events: EventSender<ServerEvent> },
}

impl Face {
    /// Whether the program is behind with what it was told.
    fn is_full(&self) -> bool {
        match self {
            Self::Events(events) => events.is_full(),
            Self::Handler { .. } => false,
        }
    }

    /// Waits until it is not.
    pub(super) async fn room(&self) {
        if self.is_full() {
            let mut queue = self.events();
            poll_fn(|cx| queue.poll_ready(cx)).await;
        }
    }

    /// For what may be missed.
    fn events(&self) -> EventQueue<ServerEvent> {
        match self {
            Self::Events(events) | Self::Handler { events, .. } => events.queue(),
        }
    }
}

/// Where connections come from, until it is time to close.
pub(super) struct Sources<L> {
    pub(super) listener: Option<L>,
    pub(super) attached: mpsc::UnboundedReceiver<Attached>,
    /// How the program wants to hear of its clients, once it has asked for the first.
    pub(super) decided: Decided,
    pub(super) closing: oneshot::Receiver<Infallible>,
}

/// Ready once the program has decided; an error means that it never will.
pub(super) type Decided = future::Shared<oneshot::Receiver<Face>>;

/// A stream that somebody else has upgraded, on its way to a task of its own.
pub(super) type Attached = Box<dyn FnOnce(Decided) -> BoxFuture<'static, ()> + Send>;

/// Takes a place for a WebSocket, and hands it to the accepting task: that one is within its runtime, and the caller need
/// not be.
pub(super) fn attach<R: Runtime, T>(
    shared: &Arc<Shared>,
    transport: T,
    remote_address: SocketAddr,
) -> Result<ConnectionId, AttachError>
where
    T: Transport + Send + 'static,
{
    let guest = match Guest::arrive(shared, remote_address) {
        None => return Err(AttachError::Closed),
        Some(Err(overload)) => return Err(overload.into()),
        Some(Ok(guest)) => guest,
    };
    let (id, started) = (guest.id(), runtime::now::<R>());
    let span = guest.span();
    let serve: Attached = Box::new(move |decided| {
        guest.serve_attached::<R, T>(transport, started, decided).instrument(span).boxed()
    });
    match shared.attaching.unbounded_send(serve) {
        Ok(()) => Ok(id),
        Err(_) => Err(AttachError::Closed),
    }
}

/// Lives as long as the server. `gone` is dropped, which is its signal, when all has ended.
pub(super) async fn run<R: Runtime>(
    shared: Arc<Shared>,
    mut sources: Sources<R::Listener>,
    gone: oneshot::Sender<Infallible>,
    abandon: oneshot::Sender<Infallible>,
) {
    let address = shared.config.wallet.address();
    info!(target: LOG, %address, local = shared.local_address.map(tracing::field::display), "started");
    let (alive, mut dead) = mpsc::channel::<Infallible>(0);
    let face = accept_all::<R>(&shared, &mut sources, &alive).await;
    let decided = sources.decided.clone();
    // Whatever is still on its way will not be served.
    drop((sources, alive));
    if within::<R, _>(runtime::now::<R>().mono, CLOSE_PATIENCE, dead.next()).await.is_none() {
        drop(abandon);
        shared.registry.abandon();
        within::<R, _>(runtime::now::<R>().mono, LAST_PATIENCE, dead.next()).await;
    }
    info!(target: LOG, %address, "closed");
    let face = match face {
        Some(face) => Ok(face),
        // The program may ask for the first time when all is over.
        None => {
            drop(gone);
            decided.await
        }
    };
    if let Ok(face) = face {
        face.events().tell(ServerEvent::Close);
    }
}

/// What the accepting task waits for.
enum Next<S> {
    /// The program has asked for its first client, in this way.
    Decided(Face),
    Accepted(io::Result<(S, SocketAddr)>),
    Attached(Attached),
    /// The program may have caught up.
    Relief,
    Closing,
}

impl<L: Send + 'static> Sources<L> {
    async fn next<R: Runtime<Listener = L>>(&mut self, face: Option<&Face>) -> Next<R::Stream> {
        let Self { listener, attached, decided, closing } = self;
        let accepted = pin!(async {
            match (face, listener) {
                // Until somebody wants a client, nobody is accepted.
                (None, _) => match decided.clone().await {
                    Ok(face) => Next::Decided(face),
                    Err(oneshot::Canceled) => Next::Closing,
                },
                // While the program is behind, nobody is either: their events would have to wait somewhere.
                (Some(face), _) if face.is_full() => {
                    face.room().await;
                    Next::Relief
                }
                (Some(_), Some(listener)) => Next::Accepted(R::accept(listener).await),
                (Some(_), None) => future::pending().await,
            }
        });
        match select(select(attached.next(), accepted), closing).await {
            Either::Left((Either::Left((Some(attached), _)), _)) => Next::Attached(attached),
            Either::Left((Either::Right((next, _)), _)) => next,
            // The other end of `attached` lives as long as the server.
            Either::Left((Either::Left((None, _)), _)) | Either::Right(_) => Next::Closing,
        }
    }
}

/// Accepts until it is time to close; says how the program wanted to hear of it.
async fn accept_all<R: Runtime>(
    shared: &Arc<Shared>,
    sources: &mut Sources<R::Listener>,
    alive: &mpsc::Sender<Infallible>,
) -> Option<Face> {
    let mut decided: Option<Face> = None;
    let mut turned_away = TurnedAway::default();
    loop {
        let next = sources.next::<R>(decided.as_ref()).await;
        match (next, &decided) {
            (Next::Decided(face), _) => decided = Some(face),
            (Next::Attached(serve), _) => spawn::<R>(serve(sources.decided.clone()), alive),
            (Next::Accepted(Ok((stream, remote_address))), Some(face)) => {
                match Guest::arrive(shared, remote_address) {
                    Some(Ok(guest)) => {
                        let span = guest.span();
                        spawn::<R>(guest.serve::<R>(stream, face).instrument(span), alive);
                    }
                    Some(Err(overload)) => {
                        turn_away(shared, stream).await;
                        turned_away.note::<R>(face, remote_address, overload);
                    }
                    None => return decided,
                }
            }
            // The peer's own doing: it was gone before it was accepted.
            (Next::Accepted(Err(error)), _)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            (Next::Accepted(Err(error)), face) => {
                warn!(target: LOG, detail = %ErrorChain::new(&error), "cannot accept");
                if let Some(face) = face {
                    face.events().tell_if_ready(ServerEvent::Error(ServerError::Accept(error)));
                }
                let pause = pin!(pause::<R>(ACCEPT_PAUSE));
                if let Either::Right(_) = select(pause, &mut sources.closing).await {
                    return decided;
                }
            }
            // Before the program has decided, nobody is accepted.
            (Next::Relief | Next::Accepted(Ok(_)), _) => {}
            (Next::Closing, _) => return decided,
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
        let error = ServerError::TurnedAway { remote_address, overload, others };
        face.events().tell_if_ready(ServerEvent::Error(error));
    }
}

/// Waits for so long.
async fn pause<R: Runtime>(time: Duration) {
    runtime::sleep_until::<R>(runtime::now::<R>().mono.after(time)).await;
}

/// Says that there is no place, as far as that goes without waiting for anybody.
async fn turn_away<S: AsyncWrite + Unpin>(shared: &Shared, mut stream: S) {
    if shared.speaks_tls() {
        // Plain words would tell an honest client that TLS is not spoken here.
        return;
    }
    poll_fn(|cx| {
        let _ = Pin::new(&mut stream).poll_write(cx, OVERLOADED.as_bytes());
        std::task::Poll::Ready(())
    })
    .await;
}
