//! The client that must notice nothing.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use link_driver::Message;
use link_tokio::{Client, ClientEvent};

use crate::{serve::BROADCAST, until};

/// How long it waits between an answer and its next message.
const PAUSE: Duration = Duration::from_millis(20);

/// A client of Link's own that is connected once, sends one message after the other, and wants each of them back, in order
/// and in time. If it does not get that, it panics, and so does [`leave`](Self::leave).
#[derive(Debug)]
pub struct Honest {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    leaving: AtomicBool,
    round_trips: AtomicU64,
    worst_micros: AtomicU64,
}

impl Honest {
    /// One that is authenticated, over TLS if it is told whom to trust, and waits for an answer no longer than that.
    pub fn arrive(at: SocketAddr, ca: Option<&Path>, patience: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let mut builder = Client::builder().host(at.ip().to_string()).port(at.port());
        if let Some(ca) = ca {
            builder = builder.tls(true).tls_ca(ca);
        }
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let client = builder.connect().await.expect("an honest client gets in");
                    shared.talk(client, patience).await;
                });
            }
        });
        let honest = Self { shared, thread };
        honest.goes_on();
        honest
    }

    /// Waits until it has had a few more answers.
    pub fn goes_on(&self) {
        let before = self.round_trips();
        until("an honest client is answered", || {
            self.must_be_there();
            self.round_trips() >= before + 5
        });
    }

    /// Panics if it has noticed something.
    pub fn must_be_there(&self) {
        assert!(!self.thread.is_finished(), "an honest client noticed something, and has said what");
    }

    /// The longest that an answer has taken since the last time that this was asked.
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.shared.worst_micros.swap(0, Ordering::Relaxed))
    }

    /// How many answers it has had.
    fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::Relaxed)
    }

    /// It has had enough.
    pub fn leave(self) {
        self.shared.leaving.store(true, Ordering::Relaxed);
        self.thread.join().expect("an honest client noticed something, and has said what");
    }
}

impl Shared {
    async fn talk(&self, mut client: Client, patience: Duration) {
        while !self.leaving.load(Ordering::Relaxed) {
            let number = self.round_trips.load(Ordering::Relaxed);
            let text = format!(r#"{{"type":"honest","number":{number}}}"#);
            let message = Message::parse(text.clone()).expect("a message");
            let asked = Instant::now();
            let sent = client.try_send(message);
            let answered = async {
                while let Some(event) = client.next().await {
                    match event {
                        ClientEvent::Message(answer) if answer.as_str() == text => return,
                        ClientEvent::Message(other) if other.kind() == Some(BROADCAST) => {}
                        ClientEvent::Connected
                        | ClientEvent::Authenticated { .. }
                        | ClientEvent::Heartbeat { .. } => {}
                        other => panic!("an honest client noticed {other:?}"),
                    }
                }
                panic!("an honest client's line is over: {sent:?}");
            };
            if tokio::time::timeout(patience, answered).await.is_err() {
                panic!("an honest client had no answer within {patience:?}");
            }
            self.worst_micros.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
            self.round_trips.store(number + 1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        client.close().await;
    }
}
