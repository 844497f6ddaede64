//! A client that says something each second, and comes back when the server does. Start `simple-server` first (or
//! later: it waits), or pass another URL.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, time::Duration};

use link_tokio::{Client, ClientEvent};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://localhost:3793".into());
    // `start` does not wait for the server, as `connect` would.
    let mut client = Client::builder().url(&url).max_reconnect_attempts(20).start()?;
    println!("{} looks for {url}; Ctrl-C ends", client.address());

    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut number = 0u64;
    loop {
        tokio::select! {
            event = client.next() => match event {
                None => return Ok(()),
                Some(ClientEvent::Authenticated { server, .. }) => println!("the server is {server}"),
                Some(ClientEvent::Message(message)) => println!("<- {message}"),
                Some(ClientEvent::Disconnected { reason, .. }) => println!("{reason}"),
                Some(ClientEvent::Reconnecting { attempt, delay }) => println!("attempt {attempt} in {delay:?}"),
                Some(ClientEvent::ConnectionFailed(failure)) => return Err(failure.into()),
                Some(_) => {}
            },
            _ = second.tick() => {
                number = number.wrapping_add(1);
                // Without a line there is nothing to be done: nothing is kept for later.
                if let Err(error) = client.send(json!({ "type": "count", "number": number })).await {
                    println!("{number} not sent: {error}");
                }
            }
            _ = tokio::signal::ctrl_c() => {
                client.close().await;
                return Ok(());
            }
        }
    }
}
