//! A server and a client in one process: `cargo run --release --example quickstart`.
//!
//! Both prove who they are, talk, measure the round trip, and end.

#![allow(
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    reason = "an example talks, and counts to three"
)]

use std::error::Error;

use link_tokio::{Client, ClientEvent, Server, ServerEvent};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server: a fresh wallet, a free port, and an answer to every message.
    let mut server = Server::builder().host([127, 0, 0, 1]).port(0).bind().await?;
    let (url, address) = (server.url()?, server.address());
    println!("server   {address} at {url}");
    let handle = server.handle();
    let serving = tokio::spawn(async move {
        while let Some(event) = server.next().await {
            match event {
                ServerEvent::Authenticated(client) => println!("server   sees {}", client.address()),
                ServerEvent::Message(client, message) => {
                    println!("server   <- {message}");
                    if let Err(error) = client.try_send(json!({ "type": "answer", "to": message.kind() })) {
                        println!("server   {error}");
                    }
                }
                ServerEvent::Disconnected(client, reason) => {
                    println!("server   {} is gone: {reason}", client.address().short());
                }
                _ => {}
            }
        }
    });

    // The client: a fresh wallet too, and it takes no other server for this one.
    let mut client = Client::builder().url(&url).expect_server(address).connect().await?;
    println!("client   {}", client.address());
    for word in ["one", "two", "three"] {
        client.send(json!({ "type": word })).await?;
    }
    let mut answers = 0;
    while let Some(event) = client.next().await {
        match event {
            ClientEvent::Authenticated { server, .. } => println!("client   sees {server}"),
            ClientEvent::Message(message) => {
                println!("client   <- {message}");
                answers += 1;
            }
            // One comes each second; the first round trip is known with the second.
            ClientEvent::Heartbeat { round_trip: Some(time) } if answers == 3 => {
                println!("client   the round trip takes {time:?}");
                break;
            }
            _ => {}
        }
    }

    client.close().await;
    handle.close().await;
    serving.await?;
    println!("done");
    Ok(())
}
