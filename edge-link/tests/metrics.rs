//! `edge-link serve --metrics`, scraped as Prometheus would, and as somebody who means harm.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use support::{ADDRESS, Running, edge_link, run, run_with_input};

/// How long an answer may take: less than what a silent connection may last.
const PATIENCE: Duration = Duration::from_secs(8);

/// A server with metrics, its URL, and where they are.
fn serve(args: &[&str]) -> (Running, String, String) {
    let mut server = Running::start(
        &[&["serve", "--listen", "127.0.0.1:0", "--json", "--quiet", "--metrics", "0"], args].concat(),
    );
    let (url, metrics) = where_it_is(&mut server);
    (server, url, metrics)
}

fn where_it_is(server: &mut Running) -> (String, String) {
    let listening = server.next("listening");
    let text = |name: &str| listening[name].as_str().unwrap().to_owned();
    let metrics = text("metrics");
    let address = metrics.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    assert!(address.starts_with("127.0.0.1:"), "a port alone is on the loopback: {address}");
    (text("url"), address.to_owned())
}

fn dial(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What is answered to this, head and body.
fn ask(address: &str, request: &str) -> (String, String) {
    let mut stream = dial(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.to_ascii_lowercase(), body.to_owned())
}

fn scrape(address: &str) -> String {
    let (head, body) = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    body
}

/// Each sample's value, by its name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

#[test]
fn what_a_client_does_moves_the_counters_on_every_runtime() {
    for runtime in ["tokio", "async-std", "smol"] {
        let (mut server, url, metrics) =
            serve(&["--echo", "--runtime", runtime, "--heartbeat-interval", "10ms"]);
        let before = scrape(&metrics);
        let before = samples(&before);
        assert_eq!(before["link_connections_accepted_total"], 0.0);
        assert_eq!(before["link_connections{state=\"authenticated\"}"], 0.0);
        assert_eq!(before["link_messages_received_total"], 0.0);

        let mut staying = Running::start(&["connect", &url, "--json"]);
        staying.next("authenticated");
        let input = "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n";
        assert_eq!(run_with_input(&["connect", &url, "--count", "3"], input).code, Some(0));
        server.next("disconnected");

        let after = scrape(&metrics);
        let after = samples(&after);
        assert_eq!(after["link_connections_accepted_total"], 2.0, "{after:?}");
        assert_eq!(after["link_connections{state=\"authenticated\"}"], 1.0);
        assert_eq!(after["link_connections{state=\"unauthenticated\"}"], 0.0);
        assert_eq!(after["link_connections_disconnected_total{reason=\"peer_closed\"}"], 1.0);
        for way in ["received", "sent"] {
            assert_eq!(after[&*format!("link_messages_{way}_total")], 3.0, "{runtime}: {after:?}");
            assert_eq!(after[&*format!("link_{way}_bytes_total")], 21.0);
        }
        // Heartbeats go on while nobody looks.
        loop {
            let text = scrape(&metrics);
            let samples = samples(&text);
            if samples["link_heartbeat_round_trip_seconds_count"] > 0.0 {
                assert!(samples["link_heartbeat_round_trip_seconds_sum"] > 0.0, "{text}");
                break;
            }
        }
    }
}

#[test]
fn who_is_refused_is_counted_by_the_reason() {
    let (mut server, url, metrics) = serve(&["--whitelist", ADDRESS]);
    assert_eq!(run(&["connect", &url]).code, Some(1));
    server.next("rejected");
    let text = scrape(&metrics);
    let rejected: Vec<_> = samples(&text)
        .into_iter()
        .filter(|(name, _)| name.starts_with("link_connections_rejected_total{reason=\""))
        .map(|(_, count)| count)
        .collect();
    assert_eq!(rejected, [1.0], "{text}");
}

/// As OpenMetrics and Prometheus want them: a help text and a type for each, base units, `_total` for what only grows.
#[test]
fn the_text_follows_the_conventions() {
    let (mut server, url, metrics) = serve(&["--echo"]);
    assert_eq!(run(&["connect", &url, "--send", r#"{"a":1}"#, "--count", "1"]).code, Some(0));
    server.next("disconnected");
    let text = scrape(&metrics);
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let types: BTreeMap<_, _> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for name in types.keys() {
        assert!(name.starts_with("link_"), "{name}");
        let help = format!("# HELP {name} ");
        assert!(
            text.lines().any(|line| line.strip_prefix(&help).is_some_and(|help| !help.is_empty())),
            "{name}"
        );
    }
    let samples = samples(&text);
    assert!(samples.len() >= 10, "{text}");
    for sample in samples.keys() {
        let name = sample.split('{').next().unwrap();
        let described = match name.strip_suffix("_total") {
            Some(counter) => types.get(counter) == Some(&"counter"),
            None => match ["_sum", "_count", "_bucket"].iter().find_map(|part| name.strip_suffix(part)) {
                Some(histogram) => types.get(histogram) == Some(&"histogram"),
                None => types.get(name) == Some(&"gauge"),
            },
        };
        assert!(described, "{sample}: {types:?}");
    }
}

#[test]
fn only_get_and_only_metrics() {
    let (_server, _, metrics) = serve(&[]);
    let (head, body) = ask(&metrics, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("http/1.1 404 ") && body.contains("/metrics"), "{head} {body}");
    let (head, _) = ask(&metrics, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(head.starts_with("http/1.1 405 ") && head.contains("allow: get, head"), "{head}");
    let (head, body) = ask(&metrics, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{head} {body}");
    let (head, _) = ask(&metrics, "not HTTP at all\r\n\r\n");
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    scrape(&metrics);
}

#[test]
fn an_endless_request_is_refused() {
    let (_server, _, metrics) = serve(&[]);
    let mut stream = dial(&metrics);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ").unwrap();
    // It is refused long before that; then writing fails.
    let refused = (0..1 << 12).any(|_| stream.write_all(&[b'x'; 64 << 10]).is_err());
    assert!(refused, "256 MiB of a header were taken");
    scrape(&metrics);
}

#[test]
fn a_silent_scraper_is_dropped_after_a_while() {
    let (_server, _, metrics) = serve(&[]);
    let mut silent = dial(&metrics);
    silent.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    match silent.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    scrape(&metrics);
}

/// The process has few file descriptors, so that connections that are kept would be noticed.
#[test]
fn scrapers_that_stay_stop_neither_the_others_nor_clients() {
    let limited = r#"ulimit -n 80; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_edge-link")]).stdin(Stdio::null());
    command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--quiet", "--echo", "--metrics", ":0"]);
    let mut server = Running::spawn(&mut command);
    let (url, metrics) = where_it_is(&mut server);
    let staying: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = dial(&metrics);
            // Some say nothing, others begin a request.
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n");
            }
            stream
        })
        .collect();
    scrape(&metrics);
    let client =
        run(&["connect", &url, "--send", r#"{"a":1}"#, "--count", "1", "--max-reconnect-attempts", "0"]);
    assert_eq!(client.code, Some(0), "{client:?}");
    drop(staying);
}

#[test]
fn without_metrics_nothing_is_said_of_them_and_a_port_in_use_is_1() {
    let mut plain = Running::start(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    assert!(plain.next("listening").get("metrics").is_none());
    let (_server, _, metrics) = serve(&[]);
    let taken = run(&["serve", "--listen", "127.0.0.1:0", "--metrics", &metrics]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stderr.contains(&format!("cannot serve metrics at {metrics}")), "{taken:?}");
    for wrong in ["65536", "localhost", "localhost:1", "", "127.0.0.1"] {
        let refused = run(&["serve", "--metrics", wrong]);
        assert_eq!(refused.code, Some(2), "{wrong}: {refused:?}");
        assert!(refused.stderr.contains("give a port"), "{wrong}: {refused:?}");
    }
}

#[test]
fn for_people_the_first_line_says_where_the_metrics_are() {
    let mut server = edge_link(&["serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let mut server = Running::spawn(&mut server);
    let line = server.line();
    let (_, metrics) = line.split_once("metrics at http://").unwrap_or_else(|| panic!("{line}"));
    scrape(metrics.trim_end().strip_suffix("/metrics").unwrap());
}
