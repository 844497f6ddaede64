//! Somebody to serve: clients on tokio, in a thread of their own.

use std::{error::Error, io, sync::Arc, thread, time::Duration};

use link_tokio::{Address, Client, ClientEvent, Wallet, new_wallet};
use mio::Waker;
use serde_json::json;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Starts them. Once they have had their say, the loop is woken.
pub(super) fn start(url: String, server: Address, waker: Arc<Waker>) -> thread::JoinHandle<Outcome> {
    thread::spawn(move || {
        let told = story(&url, server);
        let woken: io::Result<()> = waker.wake();
        told.and(woken.map_err(Into::into))
    })
}

#[tokio::main(flavor = "current_thread")]
async fn story(url: &str, server: Address) -> Outcome {
    let story = async {
        let (ann, bob) = (new_wallet()?, new_wallet()?);
        let mut first = greet("ann", url, server, &ann).await?;
        let mut second = greet("bob", url, server, &bob).await?;
        // A server takes a proof once, and two programs of one wallet that sign in the same millisecond make the same one.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let _newer = greet("ann again", url, server, &ann).await?;
        while let Some(event) = first.next().await {
            if let ClientEvent::Disconnected { reason, .. } = event {
                println!("ann      {reason}");
            }
        }
        while let Some(event) = second.next().await {
            if let ClientEvent::Heartbeat { round_trip: Some(time) } = event {
                println!("bob      the round trip takes {time:?}");
                break;
            }
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), story).await?
}

/// A client that has said hello, and was answered.
async fn greet(
    name: &str,
    url: &str,
    server: Address,
    wallet: &Wallet,
) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let mut client =
        Client::builder().url(url).wallet(wallet.clone()).expect_server(server).connect().await?;
    client.send(json!({ "type": "hello", "from": name })).await?;
    while let Some(event) = client.next().await {
        if let ClientEvent::Message(message) = event {
            println!("{name:8} <- {message}");
            return Ok(client);
        }
    }
    Err(format!("{name} was not answered").into())
}
