//! One connection of a server, from its acceptance to its end: TLS, the HTTP upgrade, and the loop.

use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc};

use futures_util::future::{BoxFuture, Either, select};
#[cfg(feature = "tls")]
use link_core::Violation;
use link_core::{CloseReason, Connection, ConnectionId, Event, Now, Overload, Status};
use link_websocket::OVERLOADED;
use tracing::{Span, debug, info_span};

use super::{
    LOG,
    accept::{Decided, Face, Shared},
    attendant::ServerAttendant,
};
#[cfg(feature = "async-tungstenite")]
use crate::async_tungstenite::AsyncTungstenite;
use crate::{
    line::{Attendant, LINGER, Line, within},
    maybe_tls::MaybeTls,
    outbox::{Commands, outbox},
    runtime::{self, Runtime},
    socket::{self, WebSocket},
    transport::Transport,
};

/// One connection, until it is a [`Line`]. The future of each phase is in a box of its own: a task keeps room for all that
/// its future ever holds.
pub(super) struct Guest {
    shared: Arc<Shared>,
    commands: Commands,
    attendant: ServerAttendant,
}

impl Guest {
    /// A transport was accepted. `None` while the server closes.
    pub(super) fn arrive(shared: &Arc<Shared>, remote_address: SocketAddr) -> Option<Result<Self, Overload>> {
        let (outbox, commands) = outbox(&shared.config);
        let arrived = shared.registry.arrive(remote_address.ip(), &outbox)?;
        if let Err(overload) = arrived {
            shared.counters.turned_away(overload.label());
        }
        Some(arrived.map(|id| {
            shared.counters.accepted();
            let attendant = ServerAttendant::new(shared.clone(), id, remote_address, outbox);
            Self { shared: shared.clone(), commands, attendant }
        }))
    }

    pub(super) const fn id(&self) -> ConnectionId {
        self.attendant.origin().0
    }

    /// Everything that is logged while this connection's task runs, the program's own check included, is within it.
    pub(super) fn span(&self) -> Span {
        let (id, remote) = self.attendant.origin();
        info_span!(target: LOG, "connection", connection = id.get(), %remote)
    }

    /// From a transport that was just accepted.
    pub(super) fn serve<R: Runtime>(
        mut self,
        stream: R::Stream,
        face: &Face,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.attendant.tell_to(face);
        // No `async fn`, since that would keep room for its arguments beside what becomes of them.
        let opening = Box::pin(async move {
            let started = runtime::now::<R>();
            match open::<R>(&mut self, stream, started.mono).await {
                // The deadline counts from the acceptance, so that it covers the upgrade as well.
                #[cfg(feature = "async-tungstenite")]
                Ok(stream) if R::ASYNC_TUNGSTENITE => {
                    let websocket = AsyncTungstenite::server(stream, &self.shared.config).await;
                    let conversation: BoxFuture<'static, ()> =
                        Box::pin(self.converse::<R, _>(websocket, started));
                    Some(Either::Right(conversation))
                }
                // In a box, so that its room is not kept twice: where it comes from, and where it is awaited.
                Ok(stream) => Some(Either::<_, BoxFuture<'static, ()>>::Left(Box::pin(
                    self.converse::<R, _>(WebSocket::server(stream), started),
                ))),
                Err(NotOpen { reason, answer }) => {
                    let Self { mut attendant, .. } = self;
                    attendant.attend(Event::Closed { reason }, runtime::now::<R>());
                    if let Some((mut stream, text)) = answer {
                        let started = runtime::now::<R>().mono;
                        within::<R, _>(started, LINGER, socket::answer(&mut stream, text)).await;
                    }
                    poll_fn(|cx| attendant.poll_told(cx)).await;
                    None
                }
            }
        });
        async move {
            match opening.await {
                None => {}
                Some(Either::Left(conversation)) => conversation.await,
                Some(Either::Right(conversation)) => conversation.await,
            }
        }
    }

    /// From a WebSocket that somebody else has. It waits until the program wants to hear of it, and no longer
    /// than it has for authenticating.
    pub(super) async fn serve_attached<R: Runtime, T: Transport>(
        mut self,
        transport: T,
        started: Now,
        decided: Decided,
    ) {
        let timeout = self.shared.config.auth_timeout;
        let wanted = Box::pin(within::<R, _>(started.mono, timeout, async {
            let face = decided.await.ok()?;
            face.room().await;
            Some(face)
        }));
        let reason = match select(wanted, poll_fn(|cx| self.commands.poll_eviction(cx))).await {
            Either::Left((Some(Some(face)), _)) => {
                self.attendant.tell_to(&face);
                return self.converse::<R, T>(transport, started).await;
            }
            Either::Left((Some(None), _)) => CloseReason::ShuttingDown,
            Either::Left((None, _)) => CloseReason::AuthenticationTimeout(timeout),
            Either::Right((reason, _)) => reason,
        };
        self.attendant.attend(Event::Closed { reason }, runtime::now::<R>());
    }

    /// From a WebSocket that is open.
    fn converse<R: Runtime, T: Transport>(
        self,
        transport: T,
        started: Now,
    ) -> impl Future<Output = ()> + use<R, T> {
        let Self { shared, commands, mut attendant } = self;
        attendant.connected();
        let connection = Connection::server(shared.config.clone(), started);
        let line = Line::new(transport, connection, commands, attendant);
        // What is returned is dropped with all that it holds.
        async move { drop(line.drive::<R>().await) }
    }
}

/// Why a transport did not become a WebSocket, and what to answer on it in plain HTTP.
struct NotOpen<S> {
    reason: CloseReason,
    answer: Option<(MaybeTls<S>, &'static str)>,
}

impl<S> NotOpen<S> {
    /// There is nobody to be answered, or no way to.
    fn silent(reason: impl Into<CloseReason>) -> Self {
        Self { reason: reason.into(), answer: None }
    }

    fn answered(reason: impl Into<CloseReason>, stream: MaybeTls<S>, text: &'static str) -> Self {
        Self { reason: reason.into(), answer: Some((stream, text)) }
    }
}

/// From an accepted transport to a WebSocket: TLS, if there is to be, and the HTTP upgrade, all before the
/// authentication deadline.
async fn open<R: Runtime>(
    guest: &mut Guest,
    stream: R::Stream,
    started: link_core::Instant,
) -> Result<MaybeTls<R::Stream>, NotOpen<R::Stream>> {
    let timeout = guest.shared.config.auth_timeout;
    let mut stream = secure::<R>(guest, stream, started).await?;
    let outcome = {
        let work = within::<R, _>(started, timeout, WebSocket::upgrade(&mut stream));
        let evicted = poll_fn(|cx| guest.commands.poll_eviction(cx));
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
    _: &mut Guest,
    stream: R::Stream,
    _: link_core::Instant,
) -> Result<MaybeTls<R::Stream>, NotOpen<R::Stream>> {
    Ok(MaybeTls::Plain(stream))
}

/// The server's half of the TLS handshake, if this server speaks TLS.
#[cfg(feature = "tls")]
async fn secure<R: Runtime>(
    guest: &mut Guest,
    stream: R::Stream,
    started: link_core::Instant,
) -> Result<MaybeTls<R::Stream>, NotOpen<R::Stream>> {
    let Some(acceptor) = &guest.shared.tls else { return Ok(MaybeTls::Plain(stream)) };
    let timeout = guest.shared.config.auth_timeout;
    let work = within::<R, _>(started, timeout, acceptor.accept(stream));
    let evicted = poll_fn(|cx| guest.commands.poll_eviction(cx));
    match select(pin!(work), evicted).await {
        Either::Left((Some(Ok(stream)), _)) => Ok(MaybeTls::Tls(Box::new(stream.into()))),
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
