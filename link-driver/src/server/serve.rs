//! A server whose program is a handler: a future for each client that was let in, run inside the connection's own task.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::FutureExt;

use super::{Server, ServerEvent, ServerHandle, Session, accept::Face};
use crate::{event_queue, runtime::Runtime};

/// What a handler may end with: nothing, or a `Result` whose error is logged.
pub trait Outcome: Send + sealed::Outcome {}

impl Outcome for () {}
impl<E: Into<Box<dyn Error + Send + Sync>> + Send> Outcome for Result<(), E> {}

mod sealed {
    use super::Error;

    pub trait Outcome {
        fn failure(self) -> Option<Box<dyn Error + Send + Sync>>;
    }

    impl Outcome for () {
        fn failure(self) -> Option<Box<dyn Error + Send + Sync>> {
            None
        }
    }

    impl<E: Into<Box<dyn Error + Send + Sync>>> Outcome for Result<(), E> {
        fn failure(self) -> Option<Box<dyn Error + Send + Sync>> {
            self.err().map(Into::into)
        }
    }
}

/// How a handler ended.
pub(super) enum Ended {
    Well,
    Failed(Box<dyn Error + Send + Sync>),
    Panicked,
}

/// A handler, as a connection runs it.
pub(super) type Running = Pin<Box<dyn Future<Output = Ended> + Send>>;
/// What makes one of a session.
pub(super) type Handler = Arc<dyn Fn(Session) -> Running + Send + Sync>;

fn handler<H, F>(handler: H) -> Handler
where
    H: Fn(Session) -> F + Send + Sync + 'static,
    F: Future<Output: Outcome> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |session| {
        let handler = handler.clone();
        // A panic there is the program's affair, and ends this connection only.
        let running = AssertUnwindSafe(async move { sealed::Outcome::failure(handler(session).await) });
        Box::pin(running.catch_unwind().map(|ended| match ended {
            Ok(None) => Ended::Well,
            Ok(Some(error)) => Ended::Failed(error),
            Err(_) => Ended::Panicked,
        }))
    })
}

impl<R: Runtime> Server<R> {
    /// Serves: calls `handler` with each client that was let in, and runs what it returns inside the connection's own task.
    /// Nothing is between the two: what a client sends is there at once, what is sent to it leaves by the same flush, and a
    /// client whose handler is slow is read slowly. So a handler should not block; what takes long belongs into a task of
    /// its own, and the [`Session`] works from there too.
    ///
    /// A handler's end closes its connection, once everything is out. An `Err` and a panic do so as well, and are logged. When
    /// the connection ends, [`Session::next`] says `None`, and the handler goes on to its own end; that of a server that is
    /// closed has five seconds for it, and is dropped then.
    ///
    /// A handler that [closes](ServerHandle::close) its own server should not wait for that: the server waits for the handler.
    ///
    /// # Panics
    /// When events were asked for already, by [`next`](Server::next) or as a stream: a server tells of its clients in one way.
    ///
    /// ```
    /// # async fn serve<R: link_driver::Runtime>() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = link_driver::Server::<R>::builder().wallet(link_driver::new_wallet()?).bind().await?;
    /// server
    ///     .serve(|mut session| async move {
    ///         while let Some(message) = session.next().await {
    ///             session.send(&message).await?;
    ///         }
    ///         Ok::<_, link_driver::SendError>(())
    ///     })
    ///     .await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<H, F>(mut self, handler: H) -> Serving<R>
    where
        H: Fn(Session) -> F + Send + Sync + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        assert!(
            matches!(self.face, super::Face::Undecided(_)),
            "a server that was asked for events cannot serve by a handler as well: call `serve` before `next`"
        );
        let (events, told) = event_queue::channel(self.handle.shared.event_capacity);
        let handler = self::handler(handler);
        self.decide(Face::Handler { handler, events }, super::Face::Events(told));
        Serving { server: self }
    }
}

/// A server that [serves](Server::serve). As a future, it is ready when the server is closed. Dropping it closes the listener
/// and every connection.
///
/// It tells also what is not about one session: [`Rejected`](ServerEvent::Rejected), [`Error`](ServerEvent::Error) and
/// [`Close`](ServerEvent::Close), in [`next`](Self::next) and as a stream. They need not be taken: while too many of them wait
/// for the program, further ones are missed.
#[must_use = "dropping it closes the server"]
pub struct Serving<R: Runtime> {
    server: Server<R>,
}

impl<R: Runtime> Serving<R> {
    /// A handle for the rest of the program.
    pub fn handle(&self) -> ServerHandle<R> {
        self.server.handle()
    }

    /// The next thing that is not about one session; `None` after the last. Nothing is lost when it is not awaited to its end.
    pub async fn next(&mut self) -> Option<ServerEvent> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// As [`Server::close`].
    pub async fn close(self) {
        self.server.close().await;
    }
}

impl<R: Runtime> Stream for Serving<R> {
    type Item = ServerEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ServerEvent>> {
        Pin::new(&mut self.server).poll_next(cx)
    }
}

/// Ready when the server is closed. What it would have told is dropped.
impl<R: Runtime> Future for Serving<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.as_mut().poll_next(cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<R: Runtime> fmt::Debug for Serving<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("server", &self.server).finish()
    }
}
