//! What a WebSocket runs over: the runtime's stream, with TLS on it or without.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_io::{AsyncRead, AsyncWrite};
#[cfg(feature = "tls")]
use futures_rustls::TlsStream;

/// A stream of bytes, with TLS or without.
pub(crate) enum Transport<S> {
    Plain(S),
    /// Boxed, so that a plain connection does not pay for its size.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<S>>),
}

/// Does the same with whichever it is.
macro_rules! either {
    ($transport:expr, $stream:ident => $work:expr) => {
        match $transport {
            Transport::Plain($stream) => $work,
            #[cfg(feature = "tls")]
            Transport::Tls($stream) => $work,
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_close(cx))
    }
}
