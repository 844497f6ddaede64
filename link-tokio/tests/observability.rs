//! What Link logs by `tracing`: names and fields that alerts may hang on, and never a key or a payload.
//!
//! A program has one global subscriber, so this is a program of its own, with one test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code: to panic is how it fails")]

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use link_tokio::{Client, ClientEvent, PrivateKey, Server, ServerEvent, Verdict, Wallet};
use serde_json::json;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

const KEY: &str = "00000000000000000000000000000000000000000000000000000000c0ffee01";
const OTHER_KEY: &str = "00000000000000000000000000000000000000000000000000000000c0ffee02";
const PAYLOAD: &str = "a payload that is nobody else's business";
const HEADER: &str = "Bearer of a secret";

/// What was logged: the target and level, what happened, and the fields, those of the spans around it in front.
#[derive(Debug, Clone)]
struct Line {
    target: String,
    level: Level,
    fields: BTreeMap<String, String>,
    spans: Vec<(String, BTreeMap<String, String>)>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context.event_scope(event).into_iter().flatten();
        let spans = spans.map(|span| {
            let fields = span.extensions().get::<Fields>().map(|fields| fields.0.clone());
            (format!("{}/{}", span.metadata().target(), span.name()), fields.unwrap_or_default())
        });
        self.0.lock().unwrap().push(Line {
            target: event.metadata().target().into(),
            level: *event.metadata().level(),
            fields: fields.0,
            spans: spans.collect(),
        });
    }
}

impl Log {
    fn lines(&self) -> Vec<Line> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.target.starts_with("link")).cloned().collect()
    }

    /// The one line of that target and message for which these fields are so.
    fn only(&self, target: &str, message: &str, fields: &[(&str, &str)]) -> Line {
        let has =
            |line: &Line, (name, value): &(&str, &str)| line.fields.get(*name).map(|v| &**v) == Some(*value);
        let mut found = self.lines();
        found.retain(|line| {
            line.target == target
                && has(line, &("message", message))
                && fields.iter().all(|field| has(line, field))
        });
        match <[Line; 1]>::try_from(found) {
            Ok([line]) => line,
            Err(found) => panic!("{target} {message} {fields:?}: {found:?} in {:#?}", self.lines()),
        }
    }
}

fn wallet(key: &str) -> Wallet {
    Wallet::from_private_key(PrivateKey::from_hex(key).unwrap())
}

#[tokio::test]
async fn what_happens_is_logged_with_stable_names_and_without_secrets() {
    let log = Log::default();
    tracing_subscriber::registry().with(log.clone()).init();
    let (known, unknown) = (wallet(KEY).address().to_string(), wallet(OTHER_KEY).address().to_string());

    let allowed = wallet(KEY).address();
    let mut server = Server::builder()
        .host([127, 0, 0, 1])
        .port(0)
        .on_authenticate(move |candidate| async move {
            tracing::info!(target: "program", "asked");
            if candidate.address == allowed { Verdict::allow() } else { Verdict::deny() }
        })
        .bind()
        .await
        .unwrap();
    let (handle, url) = (server.handle(), server.url().unwrap());
    let serving = tokio::spawn(async move {
        while let Some(event) = server.next().await {
            if let ServerEvent::Message(peer, message) = event {
                peer.try_send(&message).unwrap();
            }
        }
    });
    let builder = || Client::builder().url(&url).header("Authorization", HEADER).max_reconnect_attempts(0);
    let mut client = builder().private_key(KEY).connect().await.unwrap();
    client.try_send(json!({ "type": "secret", "text": PAYLOAD })).unwrap();
    loop {
        if let ClientEvent::Message(message) = client.next().await.unwrap() {
            assert!(message.as_str().contains(PAYLOAD));
            break;
        }
    }
    let (server_address, remote) =
        (handle.address().to_string(), handle.clients().first().unwrap().remote_address().to_string());
    builder().private_key(OTHER_KEY).connect().await.unwrap_err();
    // Nobody listens there any more.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Client::builder()
        .port(nobody)
        .max_reconnect_attempts(1)
        .reconnect_delay(Duration::from_millis(1))
        .connect()
        .await
        .unwrap_err();
    client.close().await;
    handle.close().await;
    serving.await.unwrap();

    // The server's side.
    let started = log.only("link::server", "started", &[("address", &server_address)]);
    assert_eq!((started.level, started.fields["local"].as_str()), (Level::INFO, &url["ws://".len()..]));
    log.only("link::server", "connected", &[("connection", "0"), ("remote", &remote)]);
    let with = |more: &[(&'static str, String)]| -> BTreeMap<String, String> {
        more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    let line = log.only("link::server", "authenticated", &[("connection", "0")]);
    let fields = [
        ("message", "authenticated".into()),
        ("connection", "0".into()),
        ("remote", remote.clone()),
        ("address", known.clone()),
    ];
    assert_eq!((line.level, &line.fields), (Level::INFO, &with(&fields)));
    let span = [("connection", "0".into()), ("remote", remote.clone())];
    assert_eq!(line.spans, [("link::server/connection".to_owned(), with(&span))]);
    let line = log.only("link::server", "disconnected", &[("connection", "0"), ("reason", "peer_closed")]);
    assert_eq!((line.level, &line.fields["address"]), (Level::INFO, &known));
    assert!(line.fields.contains_key("detail") && line.fields.contains_key("remote"));
    let line = log.only("link::server", "rejected", &[("connection", "1"), ("reason", "denied")]);
    assert_eq!((line.level, &line.fields["address"]), (Level::INFO, &unknown));
    log.only("link::server", "closed", &[("address", &server_address)]);
    // What the program logs in its own check is within the connection's span.
    let asked = log.0.lock().unwrap().iter().find(|line| line.target == "program").cloned().unwrap();
    assert_eq!(asked.spans, [("link::server/connection".to_owned(), with(&span))]);

    // The client's side.
    let at = url.strip_prefix("ws://").unwrap().to_owned();
    let line = log.only("link::client", "authenticated", &[("server", &server_address)]);
    assert_eq!(line.spans, [("link::client/client".to_owned(), with(&[("address", known), ("server", at)]))]);
    log.only("link::client", "disconnected", &[("reason", "local")]);
    let line = log.only("link::client", "disconnected", &[("reason", "refused_by_server")]);
    assert_eq!(line.level, Level::INFO);
    log.only("link::client", "reconnecting", &[("attempt", "1")]);
    let gave_up: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| line.fields["message"] == "gave up")
        .map(|line| line.level)
        .collect();
    assert_eq!(gave_up, [Level::WARN; 2], "the refused one, and the one that found nobody");

    // Nothing that is secret.
    let all = format!("{:?}", log.0.lock().unwrap());
    for secret in [KEY, OTHER_KEY, "c0ffee", PAYLOAD, HEADER, "signature", "timestamp"] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
}
