//! What a WebSocket runs over: the runtime's stream or the program's own, with TLS on it or without.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_io::{AsyncRead, AsyncWrite};
#[cfg(feature = "tls")]
use futures_rustls::TlsStream;

/// A stream of bytes, with TLS or without.
pub(crate) enum MaybeTls<S> {
    Plain(S),
    /// Boxed, so that a plain connection does not pay for its size.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<S>>),
}

/// What a client has dialled: the runtime's stream, or one that the program has connected in its own way.
pub(crate) enum Dialled<S> {
    Own(S),
    Foreign(Box<dyn ByteStream>),
}

/// Any stream of bytes.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// Does the same with whichever of its streams a type has.
macro_rules! forward {
    ($type:ident: $($(#[$attribute:meta])* $variant:ident),*) => {
        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for $type<S> {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_read(cx, buffer),)*
                }
            }
        }

        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $type<S> {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_write(cx, bytes),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_flush(cx),)*
                }
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_close(cx),)*
                }
            }
        }
    };
}

forward!(MaybeTls: Plain, #[cfg(feature = "tls")] Tls);
forward!(Dialled: Own, Foreign);
