//! A chat with one room: what a client says is told to everybody, with its name, until the server is interrupted.
//!
//! ```sh
//! cargo run --release --example chat-server                        # at 127.0.0.1:3793
//! cargo run --release --example chat-client -- ws://127.0.0.1:3793 # as often as you like
//! ```

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, net::SocketAddr};

use link_tokio::{SendError, Server, ServerHandle, Session};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Say {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place: SocketAddr = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:3793").parse()?;
    let server = Server::builder().host(place.ip()).port(place.port()).bind().await?;
    println!("{} at {}", server.address(), server.url()?);
    let room = server.handle();
    tokio::select! {
        () = server.serve({
            let room = room.clone();
            move |session| visit(session, room.clone())
        }) => {}
        _ = tokio::signal::ctrl_c() => room.close().await,
    }
    Ok(())
}

/// One client, from its arrival to its end.
async fn visit(mut session: Session, room: ServerHandle) -> Result<(), SendError> {
    let name = session.address().short().to_string();
    room.broadcast(json!({ "type": "joined", "name": name }))?;
    while let Some(message) = session.next().await {
        match message.json::<Say>() {
            Ok(Say { text }) => _ = room.broadcast(json!({ "type": "said", "name": name, "text": text }))?,
            Err(error) => session.send(json!({ "type": "error", "text": error.to_string() })).await?,
        }
    }
    room.broadcast(json!({ "type": "left", "name": name }))?;
    Ok(())
}
