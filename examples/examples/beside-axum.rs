//! Link at one path of an axum application, beside ordinary routes: `cargo run --release --example beside-axum` starts
//! it with a visitor of each kind, and ends; with an address, such as `127.0.0.1:8080`, it serves until Ctrl-C.
//!
//! The application is axum's, with its routes and its middleware. The server of Link has no listener of its own: it is [started](link_tokio::ServerBuilder::start) without, and each stream that axum has upgraded is
//! [attached](link_tokio::ServerHandle::attach) to it.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use link_tokio::{
    Client, ClientEvent, Server, ServerEvent, ServerHandle, TokioAsyncReadCompatExt, upgrade_response,
};
use serde_json::json;
use tokio::net::TcpListener;

/// `GET /link`: becomes a line of Link.
async fn link(
    State(server): State<ServerHandle>,
    ConnectInfo(remote_address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let response = match upgrade_response(&request) {
        Ok(response) => response,
        Err(error) => {
            let status = error.status().and_then(|status| StatusCode::from_u16(status).ok());
            return (status.unwrap_or(StatusCode::BAD_REQUEST), error.to_string()).into_response();
        }
    };
    // The stream is ours once axum has sent the response.
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            // From here on Link knows what to do; if it has no place, the stream is dropped.
            Ok(stream) => drop(server.attach(TokioIo::new(stream).compat(), remote_address)),
            Err(error) => println!("{remote_address}: not upgraded: {error}"),
        }
    });
    response.map(|()| Body::empty())
}

/// `GET /`: who is there, for people.
async fn people(State(server): State<ServerHandle>) -> String {
    let addresses = server.clients().into_iter().map(|client| client.address().to_string());
    addresses.collect::<Vec<_>>().join("\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Server::builder().start()?;
    let (handle, address) = (server.handle(), server.address());
    let given = std::env::args().nth(1);
    let listener = TcpListener::bind(given.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let at = listener.local_addr()?;
    println!("server   {address} at ws://{at}/link, its clients at http://{at}/");

    let app = Router::new().route("/", get(people)).route("/link", get(link)).with_state(handle.clone());
    let web = tokio::spawn(serve(listener, app));

    // The lines of Link do not end with the HTTP server, so both are told.
    let ending = tokio::spawn(async move {
        let outcome = match given {
            Some(_) => tokio::signal::ctrl_c().await.map_err(Into::into),
            None => match tokio::time::timeout(Duration::from_secs(20), visit(at, address)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("the visit takes too long".into()),
            },
        };
        web.abort();
        handle.close().await;
        outcome
    });

    while let Some(event) = server.next().await {
        match event {
            ServerEvent::Authenticated(client) => println!("server   sees {}", client.address()),
            ServerEvent::Message(client, message) => drop(client.send(&message)),
            ServerEvent::Disconnected(client, reason) => {
                println!("server   {} is gone: {reason}", client.address().short());
            }
            _ => {}
        }
    }
    ending.await?.map_err(|error| error as Box<dyn Error>)?;
    println!("done");
    Ok(())
}

/// The HTTP server. `axum::serve` would do, if nobody on the internet could reach it: it waits for ever for the end of a
/// request's head. This is the same, with a deadline for that.
async fn serve(listener: TcpListener, app: Router) {
    loop {
        let (stream, remote_address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                println!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Link batches by itself.
        drop(stream.set_nodelay(true));
        let service = TowerToHyperService::new(app.clone().layer(Extension(ConnectInfo(remote_address))));
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // What a browser does wrong is no news.
            drop(connection.await);
        });
    }
}

/// A client of Link, and a browser that asks who is there.
async fn visit(at: SocketAddr, server: link_tokio::Address) -> Result<(), Box<dyn Error + Send + Sync>> {
    let url = format!("ws://{at}/link");
    let mut client = Client::builder().url(&url).expect_server(server).connect().await?;
    client.send(&json!({ "type": "hello" }))?;
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
