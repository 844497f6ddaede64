//! The other side of `chat-server`: says what is typed, prints what is said, and comes back when the server was restarted.

#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use link_tokio::{Client, ClientEvent};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:3793".into());
    let mut client = Client::builder().url(&url).max_reconnect_attempts(u32::MAX).start()?;
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            event = client.next() => match event {
                Some(ClientEvent::Message(message)) => println!("{message}"),
                Some(ClientEvent::Authenticated { server, .. }) => println!("connected to {server}"),
                Some(ClientEvent::Disconnected { reason, .. }) => println!("disconnected: {reason}"),
                Some(_) => {}
                None => return Ok(()),
            },
            line = lines.next_line() => match line? {
                Some(text) => {
                    if let Err(error) = client.try_send(json!({ "type": "say", "text": text })) {
                        println!("not said: {error}");
                    }
                }
                None => break,
            },
        }
    }
    client.close().await;
    Ok(())
}
