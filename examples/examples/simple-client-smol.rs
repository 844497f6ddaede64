//! `simple-client` on smol: a client that says something each second, and comes back when the server does. Start any
//! of the simple servers first (or later: it waits), or pass another URL. Ctrl-C ends it.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::{error::Error, time::Duration};

use link_smol::{Client, ClientEvent};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(talk())
}

async fn talk() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://localhost:3793".into());
    // `start` does not wait for the server, as `connect` would.
    let mut client = Client::builder().url(&url).max_reconnect_attempts(20).start()?;
    println!("{} looks for {url}; Ctrl-C ends", client.address());

    let handle = client.handle();
    smol::spawn(async move {
        for number in 1u64.. {
            // Without a line there is nothing to be done: nothing is kept for later.
            if let Err(error) = handle.send(json!({ "type": "count", "number": number })).await {
                println!("{number} not sent: {error}");
            }
            smol::Timer::after(Duration::from_secs(1)).await;
        }
    })
    .detach();

    while let Some(event) = client.next().await {
        match event {
            ClientEvent::Authenticated { server, .. } => println!("the server is {server}"),
            ClientEvent::Message(message) => println!("<- {message}"),
            ClientEvent::Disconnected { reason, .. } => println!("{reason}"),
            ClientEvent::Reconnecting { attempt, delay } => println!("attempt {attempt} in {delay:?}"),
            ClientEvent::ConnectionFailed(failure) => return Err(failure.into()),
            _ => {}
        }
    }
    Ok(())
}
