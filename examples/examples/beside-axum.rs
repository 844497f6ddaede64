//! Link at one path of an axum application, beside ordinary routes: `cargo run --release --example beside-axum` starts
//! it with a visitor of each kind, and ends; with an address, such as `127.0.0.1:8080`, it serves until Ctrl-C.
//!
//! The server of Link has no listener of its own: it is [started](link_tokio::ServerBuilder::start) without, and each WebSocket
//! that axum has opened is [attached](link_tokio::ServerHandle::attach_websocket) to it. (On the internet, put something in
//! front of `axum::serve` that ends slow requests: it waits for ever for the rest of a head.)

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, future::ready, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, State, WebSocketUpgrade, ws},
    response::Response,
    routing::get,
};
use futures_util::{SinkExt as _, StreamExt as _};
use link_tokio::{Client, ClientEvent, Close, Frame, Framed, SendError, Server, ServerHandle};
use serde_json::json;
use tokio::net::TcpListener;

/// `GET /link`: becomes a line of Link.
async fn link(
    upgrade: WebSocketUpgrade,
    State(server): State<ServerHandle>,
    ConnectInfo(remote_address): ConnectInfo<SocketAddr>,
) -> Response {
    upgrade.max_message_size(1 << 20).on_upgrade(async move |socket| {
        let frames = socket.map(|message| message.map(frame)).with(|frame| ready(Ok(message(frame))));
        // From here on Link knows what to do; if it has no place, the WebSocket is dropped.
        let _ = server.attach_websocket(Framed::new(frames), remote_address);
    })
}

/// axum's word for it, in Link's.
fn frame(message: ws::Message) -> Frame {
    match message {
        ws::Message::Text(text) => Frame::Text(text.as_str().into()),
        ws::Message::Binary(bytes) => Frame::Binary(bytes),
        ws::Message::Ping(payload) => Frame::Ping(payload),
        ws::Message::Pong(payload) => Frame::Pong(payload),
        ws::Message::Close(close) => {
            Frame::Close(close.map(|close| Close { code: close.code, reason: close.reason.as_str().into() }))
        }
    }
}

/// And back.
fn message(frame: Frame) -> ws::Message {
    match frame {
        Frame::Text(text) => ws::Message::text(&*text),
        Frame::Binary(bytes) => ws::Message::Binary(bytes),
        Frame::Ping(payload) => ws::Message::Ping(payload),
        Frame::Pong(payload) => ws::Message::Pong(payload),
        Frame::Close(close) => ws::Message::Close(
            close.map(|close| ws::CloseFrame { code: close.code, reason: (*close.reason).into() }),
        ),
    }
}

/// `GET /`: who is there, for people.
async fn people(State(server): State<ServerHandle>) -> String {
    let addresses = server.clients().into_iter().map(|client| client.address().to_string());
    addresses.collect::<Vec<_>>().join("\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Server::builder().start()?;
    let (handle, address) = (server.handle(), server.address());
    let given = std::env::args().nth(1);
    let listener = TcpListener::bind(given.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let at = listener.local_addr()?;
    println!("server   {address} at ws://{at}/link, its clients at http://{at}/");

    let app = Router::new().route("/", get(people)).route("/link", get(link)).with_state(handle.clone());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let web = tokio::spawn(async move { axum::serve(listener, app).await });
    let serving = tokio::spawn(server.serve(|mut session| async move {
        println!("server   sees {}", session.address());
        while let Some(message) = session.next().await {
            session.send(message).await?;
        }
        Ok::<_, SendError>(())
    }));

    match given {
        Some(_) => tokio::signal::ctrl_c().await?,
        None => tokio::time::timeout(Duration::from_secs(20), visit(at, address)).await??,
    }
    // The lines of Link do not end with the HTTP server, so both are told.
    web.abort();
    handle.close().await;
    serving.await?;
    println!("done");
    Ok(())
}

/// A client of Link, and a browser that asks who is there.
async fn visit(at: SocketAddr, server: link_tokio::Address) -> Result<(), Box<dyn Error + Send + Sync>> {
    let url = format!("ws://{at}/link");
    let mut client = Client::builder().url(&url).expect_server(server).connect().await?;
    client.send(json!({ "type": "hello" })).await?;
    while let Some(event) = client.next().await {
        if let ClientEvent::Message(message) = event {
            println!("client   <- {message}");
            break;
        }
    }
    for path in ["/", "/link"] {
        let answer = ask(at, path).await?;
        println!("browser  {path} is answered {answer}");
    }
    client.close().await;
    Ok(())
}

/// A plain HTTP request: the status, and the body.
async fn ask(at: SocketAddr, path: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok(format!("{}: {body}", head.lines().next().unwrap_or_default()))
}
