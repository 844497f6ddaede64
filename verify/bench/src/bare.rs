//! The bare twins: what a program would write that needs nothing of Link, and is careful about speed.
//!
//! Each takes what is there, answers all of it, and flushes once, as Link does. They are written once, for any
//! [`Runtime`], whose sockets and timers Link uses too.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use async_channel::Receiver;
use async_tungstenite::{WebSocketStream, accept_async_with_config};
use futures_util::{AsyncWriteExt as _, Sink, SinkExt as _, Stream as _};
use link_driver::{Runtime, Timer as _};
use tungstenite::{Message, protocol::WebSocketConfig};

/// Bytes that are gathered before they are written.
const WRITE_BATCH: usize = 64 << 10;

/// Sends every message back.
pub async fn echo<R: Runtime>(mut listener: R::Listener, read_buffer: usize) {
    loop {
        let (stream, _) = R::accept(&mut listener).await.expect("a connection");
        R::spawn(async move {
            if let Ok(mut socket) = upgraded(stream, read_buffer).await {
                while answered(&mut socket).await {
                    if socket.flush().await.is_err() {
                        break;
                    }
                }
            }
        });
    }
}

/// Sends each connection a ping and a text every second, and reads what is answered.
pub async fn heartbeats<R: Runtime>(mut listener: R::Listener, read_buffer: usize, interval: Duration) {
    loop {
        let (stream, _) = R::accept(&mut listener).await.expect("a connection");
        R::spawn(async move {
            let Ok(mut socket) = upgraded(stream, read_buffer).await else { return };
            let mut timer = pin!(R::timer());
            loop {
                timer.as_mut().arm(R::now() + interval);
                // What comes meanwhile is read and dropped.
                let alive = poll_fn(|cx| {
                    loop {
                        match std::pin::Pin::new(&mut socket).poll_next(cx) {
                            Poll::Ready(Some(Ok(_))) => {}
                            Poll::Ready(_) => return Poll::Ready(false),
                            Poll::Pending => return timer.as_mut().poll(cx).map(|()| true),
                        }
                    }
                });
                if !alive.await {
                    return;
                }
                let text = r#"{"type":"heartbeat","ts":1795372174071}"#;
                let sent = async {
                    socket.feed(Message::Ping(vec![0; 8].into())).await?;
                    socket.feed(Message::text(text)).await?;
                    socket.flush().await
                };
                if sent.await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Writes a frame to every connection, as often as it is told to. The frame is prepared once.
pub async fn broadcast<R: Runtime>(mut listener: R::Listener, told: Receiver<String>) {
    let (sender, arrived) = async_channel::unbounded();
    R::spawn(async move {
        loop {
            let (mut stream, _) = R::accept(&mut listener).await.expect("a connection");
            if accept_async_with_config(&mut stream, None).await.is_ok() {
                sender.send(stream).await.expect("the other half lives");
            }
        }
    });
    let mut streams = Vec::new();
    while let Ok(text) = told.recv().await {
        while let Ok(stream) = arrived.try_recv() {
            streams.push(stream);
        }
        let frame = crate::load::frame(&text, None);
        for stream in &mut streams {
            // The frame fits into the system's buffer, so this never waits.
            stream.write_all(&frame).await.expect("a reader");
        }
    }
}

async fn upgraded<S>(stream: S, read_buffer: usize) -> Result<WebSocketStream<S>, tungstenite::Error>
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(WRITE_BATCH)
        .max_write_buffer_size(8 << 20);
    accept_async_with_config(stream, Some(config)).await
}

/// Waits for messages, and feeds all that are there back. False at the end.
async fn answered<S>(socket: &mut WebSocketStream<S>) -> bool
where
    S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin,
{
    let mut some = false;
    poll_fn(|cx| {
        let mut socket = std::pin::Pin::new(&mut *socket);
        loop {
            match socket.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(message @ (Message::Text(_) | Message::Binary(_))))) => {
                    if socket.as_mut().start_send(message).is_err() {
                        return Poll::Ready(false);
                    }
                    some = true;
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending if some => return Poll::Ready(true),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
