//! A server that sends every message back: `cargo run --release --example simple-server`, and in another terminal
//! `cargo run --release --example simple-client`. It takes another address to listen at, such as `127.0.0.1:4000`.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, net::SocketAddr};

use link_tokio::{Server, ServerEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Server::builder();
    if let Some(address) = std::env::args().nth(1) {
        let address: SocketAddr = address.parse()?;
        builder = builder.host(address.ip()).port(address.port());
    }
    let mut server = builder.bind().await?;
    println!("{} at {}; Ctrl-C ends", server.address(), server.url()?);

    let handle = server.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.close().await;
        }
    });

    while let Some(event) = server.next().await {
        match event {
            ServerEvent::Authenticated(client) => println!("{} is here", client.address()),
            ServerEvent::Message(client, message) => {
                println!("{}: {message}", client.address().short());
                if let Err(error) = client.try_send(&message) {
                    println!("{}: not answered: {error}", client.address().short());
                }
            }
            ServerEvent::Disconnected(client, reason) => println!("{} is gone: {reason}", client.address()),
            ServerEvent::Rejected(rejected) => println!("{}: {}", rejected.remote_address, rejected.reason),
            _ => {}
        }
    }
    Ok(())
}
