//! Link over WebSockets that somebody else has, as a stream and a sink of frames: both sides here are async-tungstenite's, over
//! a pipe in memory, with virtual time. What it finds that the suite cannot: `Framed`, and the connector of WebSockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::{Future, ready},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message as Word,
        protocol::{Role, WebSocketConfig},
    },
};
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use link_tokio::{
    Client, ClientEvent, CloseReason, Frame, Framed, Incoming, SendError, Server, ServerEvent,
    TokioAsyncReadCompatExt as _,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{sleep, timeout},
};

const SOON: Duration = Duration::from_secs(3600);

fn framed(
    socket: WebSocketStream<link_tokio::Compat<DuplexStream>>,
) -> Framed<impl Stream<Item = Result<Frame, Error>> + Sink<Frame, Error = Error> + Unpin + Send> {
    let frames = socket.filter_map(|read| {
        ready(match link_websocket::incoming(read) {
            Incoming::Frame(frame) => Some(Ok(frame)),
            Incoming::Violation(_) | Incoming::Ended => Some(Err(Error::ConnectionClosed)),
            _ => None,
        })
    });
    Framed::new(frames.with(|frame| ready(Ok(link_websocket::outgoing(frame)) as Result<Word, Error>)))
}

async fn open(
    pipe: DuplexStream,
    role: Role,
) -> Framed<impl Stream<Item = Result<Frame, Error>> + Sink<Frame, Error = Error> + Unpin + Send> {
    // Its own buffer is small, as `Framed` asks for where lines are slow.
    let config = WebSocketConfig::default().write_buffer_size(1 << 10);
    framed(WebSocketStream::from_raw_socket(pipe.compat(), role, Some(config)).await)
}

/// A client whose WebSockets are attached to the server as they are opened.
fn client(server: &Server, pipe: usize) -> impl Future<Output = Client> + use<> {
    let handle = Arc::new(server.handle());
    let connecting = Client::builder().max_reconnect_attempts(0).websocket_connector(move |_| {
        let handle = handle.clone();
        async move {
            let (near, far) = tokio::io::duplex(pipe);
            let remote = SocketAddr::from(([192, 0, 2, 7], 1));
            handle.attach_websocket(open(far, Role::Server).await, remote).map_err(io::Error::other)?;
            Ok(open(near, Role::Client).await)
        }
    });
    async move { connecting.connect().await.unwrap() }
}

async fn told(client: &mut Client) -> ClientEvent {
    timeout(SOON, client.next()).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn both_sides_talk_over_a_pipe_that_is_much_shorter_than_what_they_say() {
    let server = Server::builder().start().unwrap();
    let handle = server.handle();
    let connecting = client(&server, 1 << 10);
    let serving = tokio::spawn(server.serve(|mut session| async move {
        while let Some(message) = session.next().await {
            session.send(message).await?;
        }
        Ok::<_, SendError>(())
    }));
    let mut client = connecting.await;
    for number in 0..200 {
        client.try_send(json!({ "n": number, "fill": "x".repeat(5_000) })).unwrap();
    }
    let mut numbers = Vec::new();
    while numbers.len() < 200 {
        if let ClientEvent::Message(message) = told(&mut client).await {
            numbers.push(message.json::<Value>().unwrap()["n"].as_u64().unwrap());
        }
    }
    assert_eq!(numbers, Vec::from_iter(0..200));
    timeout(SOON, client.close()).await.unwrap();
    timeout(SOON, handle.close()).await.unwrap();
    timeout(SOON, serving).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_says_why_and_what_was_sent_before_it_arrives() {
    let mut server = Server::builder().start().unwrap();
    let connecting = client(&server, 1 << 10);
    let server_side = async {
        loop {
            match server.next().await.unwrap() {
                ServerEvent::Authenticated(peer) => {
                    for number in 0..50 {
                        peer.try_send(json!({ "n": number, "fill": "x".repeat(5_000) })).unwrap();
                    }
                    peer.close();
                }
                ServerEvent::Disconnected(_, reason) => return reason,
                _ => {}
            }
        }
    };
    let client_side = async {
        let mut client = connecting.await;
        let mut messages = 0;
        loop {
            match told(&mut client).await {
                ClientEvent::Message(_) => messages += 1,
                ClientEvent::Disconnected { reason, .. } => return (messages, reason),
                _ => {}
            }
        }
    };
    let (server_reason, (messages, reason)) = tokio::join!(server_side, client_side);
    assert_eq!((server_reason, messages), (CloseReason::Local, 50));
    assert_eq!(reason, CloseReason::PeerClosed { code: Some(1000) });
    timeout(SOON, server.close()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_4_kib_also_where_the_websocket_itself_allows_more() {
    let mut server = Server::builder().start().unwrap();
    let (near, far) = tokio::io::duplex(1 << 20);
    let remote = SocketAddr::from(([192, 0, 2, 7], 1));
    server.handle().attach_websocket(open(far, Role::Server).await, remote).unwrap();
    let mut stranger = WebSocketStream::from_raw_socket(near.compat(), Role::Client, None).await;
    stranger.send(Word::text("x".repeat(5_000))).await.unwrap();
    loop {
        if let ServerEvent::Rejected(rejected) = timeout(SOON, server.next()).await.unwrap().unwrap() {
            assert_eq!(rejected.reason.label(), "message_too_large");
            break;
        }
    }
    let Some(Ok(Word::Close(Some(close)))) = timeout(SOON, stranger.next()).await.unwrap() else {
        panic!("a close frame");
    };
    assert_eq!(u16::from(close.code), 1009);
    timeout(SOON, server.close()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up() {
    let mut server = Server::builder().idle_timeout(Duration::ZERO).start().unwrap();
    let connecting = client(&server, 1 << 10);
    let mut client = None;
    let (reason, ()) = tokio::join!(
        async {
            loop {
                match server.next().await.unwrap() {
                    ServerEvent::Authenticated(peer) => {
                        for _ in 0..500 {
                            peer.try_send(json!({ "fill": "x".repeat(5_000) })).unwrap();
                        }
                    }
                    ServerEvent::Disconnected(_, reason) => return reason,
                    _ => {}
                }
            }
        },
        // Its program takes nothing, so it reads nothing either.
        async { client = Some(connecting.await) }
    );
    assert_eq!(reason, CloseReason::SlowPeer);
    drop(client);
    timeout(SOON, server.close()).await.unwrap();
}

/// Passes bytes on: all at once, or from some time on 500 of them each five seconds.
async fn pass_on(
    from: tokio::io::ReadHalf<DuplexStream>,
    to: tokio::io::WriteHalf<DuplexStream>,
    slow: Arc<AtomicBool>,
) {
    let (mut from, mut to, mut piece) = (from, to, [0; 500]);
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if slow.load(Ordering::Relaxed) {
            sleep(Duration::from_secs(5)).await;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_moves_is_not_given_up_however_long_it_takes_for_what_it_has_to_carry() {
    // 250 KiB, for which it takes most of an hour, with a ping and a `heartbeat` each second.
    const MESSAGES: usize = 250;
    let builder = Server::builder().idle_timeout(Duration::ZERO).max_message_size(10 << 10);
    let mut server = builder.start().unwrap();
    let (handle, slow) = (Arc::new(server.handle()), Arc::new(AtomicBool::new(false)));
    let line_is_slow = slow.clone();
    let connecting = Client::builder()
        .idle_timeout(Duration::ZERO)
        .max_reconnect_attempts(0)
        .websocket_connector(move |_| {
            let (handle, slow) = (handle.clone(), slow.clone());
            async move {
                let ((near, one), (other, far)) = (tokio::io::duplex(512), tokio::io::duplex(512));
                let ((up, to_client), (down, to_server)) = (tokio::io::split(one), tokio::io::split(other));
                tokio::spawn(pass_on(up, to_server, Arc::default()));
                tokio::spawn(pass_on(down, to_client, slow));
                let remote = SocketAddr::from(([192, 0, 2, 7], 1));
                handle.attach_websocket(open(far, Role::Server).await, remote).map_err(io::Error::other)?;
                Ok(open(near, Role::Client).await)
            }
        });
    let server_side = async {
        loop {
            match server.next().await.unwrap() {
                ServerEvent::Authenticated(peer) => {
                    line_is_slow.store(true, Ordering::Relaxed);
                    for number in 0..MESSAGES {
                        peer.try_send(json!({ "n": number, "fill": "x".repeat(1_000) })).unwrap();
                    }
                }
                ServerEvent::Disconnected(_, reason) => return reason,
                _ => {}
            }
        }
    };
    let client_side = async {
        let mut client = connecting.connect().await.unwrap();
        for number in 0..MESSAGES {
            loop {
                match timeout(SOON, client.next()).await.unwrap().unwrap() {
                    ClientEvent::Message(message) => {
                        assert_eq!(message.json::<Value>().unwrap()["n"], number);
                        break;
                    }
                    ClientEvent::Disconnected { reason, .. } => panic!("{reason} after {number}"),
                    _ => {}
                }
            }
        }
        client.close().await;
    };
    let (reason, ()) = tokio::join!(server_side, client_side);
    assert_eq!(reason, CloseReason::PeerClosed { code: Some(1000) });
    timeout(SOON, server.close()).await.unwrap();
}
