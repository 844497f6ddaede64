//! Link on a runtime that none of its adapters knows, made of small parts as a program of yours may have them: it does
//! what every adapter must.
//!
//! Sockets and timers are those of `async-io`, which has a thread that waits for the system's events. The tasks run on
//! an `async-executor`, on one thread; names are resolved on those of `blocking`.

use std::{
    future::{Future, pending},
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    panic::catch_unwind,
    pin::Pin,
    sync::Once,
    task::{Context, Poll, ready},
    thread,
    time::Instant,
};

use async_executor::Executor;
use async_io::Async;
use futures_io::{AsyncRead, AsyncWrite};
use link_driver::Runtime;

/// The runtime. There is never a value of it: Link only needs a type to ask.
enum Own {}

impl Runtime for Own {
    type Stream = Stream;
    type Listener = Async<TcpListener>;
    type Timer = Timer;

    async fn connect(host: &str, port: u16) -> io::Result<Stream> {
        // The system's call that resolves names blocks, which a thread that runs tasks must not.
        let name = (host.to_owned(), port);
        let addresses = blocking::unblock(move || name.to_socket_addrs()).await?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match Async::<TcpStream>::connect(address).await {
                Ok(stream) => return Ok(Stream::new(stream)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn bind(address: SocketAddr) -> io::Result<Self::Listener> {
        Async::<TcpListener>::bind(address)
    }

    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.get_ref().local_addr()
    }

    async fn accept(listener: &mut Self::Listener) -> io::Result<(Stream, SocketAddr)> {
        let (stream, remote_address) = listener.accept().await?;
        Ok((Stream::new(stream), remote_address))
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        static EXECUTOR: Executor<'static> = Executor::new();
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            thread::spawn(|| {
                loop {
                    // A task that panics ends, and the others go on.
                    catch_unwind(|| async_io::block_on(EXECUTOR.run(pending::<()>()))).ok();
                }
            });
        });
        EXECUTOR.spawn(task).detach();
    }

    fn timer() -> Timer {
        Timer(async_io::Timer::never())
    }
}

/// A socket.
struct Stream(Async<TcpStream>);

impl Stream {
    fn new(stream: Async<TcpStream>) -> Self {
        // Link writes once a turn; the system need not wait for more. Where that fails, the peer has reset the connection, and
        // the first read says so.
        let _ = stream.get_ref().set_nodelay(true);
        Self(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Ends our direction, so that the peer hears of it; that of `Async` only flushes.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().shutdown(Shutdown::Write))
    }
}

/// A timer that can be armed again and again.
struct Timer(async_io::Timer);

impl link_driver::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.set_at(deadline);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Once it is over it is pending, until it is armed again.
        ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(())
    }
}

link_conformance::conformance!(Own, async_io::block_on);
