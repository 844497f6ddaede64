//! `edge-link bench`, against servers that answer as they should, and against others. What is asserted is what must hold
//! however slow the machine is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::{sync::mpsc, thread, time::Duration};

use link_tokio::{ConnectedClient, Message, Server, ServerEvent};
use serde_json::{Value, json};
use support::{ADDRESS, Finished, Running, run};

/// A short run, in which an answer may take as long as it likes.
const BRIEF: [&str; 7] = ["--json", "--duration", "300ms", "--warm-up", "50ms", "--timeout", "60s"];

fn bench(url: &str, args: &[&str]) -> Finished {
    run(&[&["bench", url], args].concat())
}

/// The one line of a run that went well.
fn report(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    only_line(finished)
}

fn only_line(finished: &Finished) -> Value {
    let lines = finished.events();
    assert_eq!(lines.len(), 1, "{finished:?}");
    lines[0].clone()
}

fn no_errors() -> Value {
    json!({
        "failed_connections": {}, "lost_lines": {}, "unanswered": 0, "unsent": 0, "late_answers": 0, "duplicates": 0,
        "out_of_order": 0, "wrong_answers": 0,
    })
}

fn assert_in_order(latency: &Value) {
    let names = ["min", "p50", "p90", "p99", "p99_9", "max"];
    let values = names.map(|name| latency[name].as_f64().unwrap());
    assert!(values.is_sorted() && values[0] > 0.0, "{latency}");
}

/// A server that does as it likes with each client that comes and each message, on a thread of its own.
fn server(mut on: impl FnMut(&ConnectedClient, Option<Message>) + Send + 'static) -> String {
    let (sender, url) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut server = Server::builder().host([127, 0, 0, 1]).port(0).bind().await.unwrap();
            sender.send(server.url().unwrap()).unwrap();
            while let Some(event) = server.next().await {
                match event {
                    ServerEvent::Authenticated(client) => on(&client, None),
                    ServerEvent::Message(client, message) => on(&client, Some(message)),
                    _ => {}
                }
            }
        });
    });
    url.recv().unwrap()
}

#[test]
fn an_echo_is_measured() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    let report = report(&bench(
        &url,
        &[&BRIEF[..], &["--connections", "3", "--depth", "4", "--size", "200"]].concat(),
    ));
    assert_eq!([&report["mode"], &report["loop"], &report["ended"]], ["echo", "closed", "in_time"]);
    assert_eq!([&report["connections"], &report["depth"], &report["size"]], [3, 4, 200]);
    assert!(
        report["sent"]["count"].as_u64() > Some(0) && report["received"]["count"].as_u64() > Some(0),
        "{report}"
    );
    assert!(report["received"]["mib_per_second"].as_f64() > Some(0.0), "{report}");
    assert_in_order(&report["latency_ms"]);
    assert_eq!(report["errors"], no_errors());
    assert!(report["note"].as_str().unwrap().contains("service times"), "{report}");
}

#[test]
fn a_person_reads_the_percentiles_and_what_they_mean() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    let finished = bench(&url, &["--duration", "100ms", "--warm-up", "0s", "--timeout", "60s"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for expected in ["p50", "p99.9", "MiB/s", "service times", "none"] {
        assert!(finished.stdout.contains(expected), "{expected}: {finished:?}");
    }
    assert_eq!(finished.stderr, "");
}

#[test]
fn all_that_is_due_is_sent_and_measured_and_has_the_length_that_was_asked_for() {
    let (mut server, url) = Running::serve(&["--echo"]);
    let report = report(&bench(
        &url,
        &[&BRIEF[..], &["--connections", "3", "--rate", "100", "--size", "77"]].concat(),
    ));
    // Due at 0, 10 ms, 20 ms ...: 5 in the warm-up, and 30 after it.
    assert_eq!([&report["schedule"]["due"], &report["schedule"]["sent"]], [30, 30], "{report}");
    assert_eq!(report["latency_ms"]["count"], 30);
    assert_eq!((&report["loop"], &report["errors"]), (&json!("open"), &no_errors()));
    for _ in 0..35 {
        assert_eq!(server.next("message")["message"].to_string().len(), 77);
    }
}

#[test]
fn a_broadcast_is_measured_at_everybody() {
    let (_server, url) = Running::serve(&["--broadcast", "--quiet"]);
    let closed = report(&bench(&url, &[&BRIEF[..], &["--mode", "broadcast", "--connections", "4"]].concat()));
    let deliveries = closed["latency_ms"]["count"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries.is_multiple_of(4), "{closed}");
    assert_eq!(closed["errors"], no_errors());

    let open = &["--mode", "broadcast", "--connections", "4", "--rate", "100"];
    let open = report(&bench(&url, &[&BRIEF[..], open].concat()));
    assert_eq!([&open["schedule"]["sent"], &open["latency_ms"]["count"]], [30, 120], "{open}");
}

#[test]
fn logins_are_measured() {
    let (_server, url) = Running::serve(&["--quiet"]);
    let closed = report(&bench(&url, &[&BRIEF[..], &["--mode", "login", "--connections", "2"]].concat()));
    assert!(closed["logins"]["count"].as_u64() > Some(0), "{closed}");
    assert_in_order(&closed["latency_ms"]);
    let open = &["--mode", "login", "--connections", "2", "--rate", "20"];
    let open = report(&bench(&url, &[&BRIEF[..], open].concat()));
    assert_eq!([&open["schedule"]["due"], &open["latency_ms"]["count"]], [6, 6], "{open}");
}

#[test]
fn idle_connections_stay() {
    let (mut server, url) = Running::serve(&["--quiet"]);
    let report = report(&bench(&url, &[&BRIEF[..], &["--mode", "idle", "--connections", "2"]].concat()));
    assert_eq!((&report["ended"], &report["errors"]), (&json!("in_time"), &no_errors()));
    for event in ["authenticated", "authenticated", "disconnected", "disconnected"] {
        assert_eq!(server.event()["event"], event);
    }
}

#[test]
fn a_server_that_does_not_answer_is_told_from_a_slow_one() {
    let (_server, url) = Running::serve(&["--quiet"]);
    for rate in [&["--timeout", "300ms"][..], &["--timeout", "300ms", "--rate", "100"]] {
        let finished = bench(&url, rate);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
        assert!(finished.stderr.contains("edge-link serve --echo"), "{finished:?}");
    }
    // It sends back to the sender only.
    let (_server, url) = Running::serve(&["--quiet", "--echo"]);
    let finished = bench(&url, &["--timeout", "300ms", "--mode", "broadcast"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("edge-link serve --broadcast"), "{finished:?}");
}

#[test]
fn who_is_refused_or_finds_nobody_leaves_with_1_and_the_reason() {
    let (_server, url) = Running::serve(&["--whitelist", ADDRESS]);
    for mode in ["echo", "broadcast", "login", "idle"] {
        for (url, reason) in [(url.as_str(), "403 Forbidden"), ("ws://127.0.0.1:1", "127.0.0.1:1")] {
            let finished = bench(url, &["--mode", mode]);
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert!(finished.stderr.contains(reason), "{finished:?}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_2() {
    for args in [
        &["http://localhost"][..],
        &["ws://"],
        &["ws://localhost", "--connections", "0"],
        &["ws://localhost", "--connections", "65536"],
        &["ws://localhost", "--depth", "0"],
        &["ws://localhost", "--size", "29"],
        &["ws://localhost", "--size", "16777217"],
        &["ws://localhost", "--duration", "0s"],
        &["ws://localhost", "--duration", "25h"],
        &["ws://localhost", "--timeout", "soon"],
        &["ws://localhost", "--rate", "0"],
        &["ws://localhost", "--mode", "dance"],
        &["ws://localhost", "--mode", "login", "--depth", "2"],
        &["ws://localhost", "--mode", "login", "--size", "200"],
        &["ws://localhost", "--mode", "idle", "--rate", "2"],
        &[],
    ] {
        let refused = run(&[&["bench"], args].concat());
        assert_eq!(refused.code, Some(2), "{args:?}: {refused:?}");
        assert!(!refused.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn ctrl_c_prints_what_was_measured_so_far() {
    let (mut server, url) = Running::serve(&["--echo"]);
    let args = ["bench", &url, "--json", "--duration", "1h", "--warm-up", "0s", "--rate", "20"];
    let bench = Running::start(&args);
    server.next("message");
    server.next("message");
    let (code, rest) = bench.interrupt();
    let report: Value = serde_json::from_str(&rest).unwrap();
    assert_eq!((code, &report["ended"]), (Some(0), &json!("interrupted")), "{report}");
    assert!(report["sent"]["count"].as_u64() > Some(0), "{report}");
    assert_eq!(report["errors"]["unsent"], 0);
}

#[test]
fn a_server_that_dies_ends_the_run_with_1_and_what_was_measured_so_far() {
    for rate in [&["--depth", "1"][..], &["--rate", "20"]] {
        let (mut server, url) = Running::serve(&["--echo"]);
        let args = ["bench", &url, "--json", "--duration", "1h", "--warm-up", "0s", "--connections", "2"];
        let mut bench = Running::start(&[&args, rate].concat());
        for _ in 0..4 {
            server.next("message");
        }
        drop(server);
        let report = bench.event();
        assert_eq!(report["ended"], "early", "{report}");
        let lost = report["errors"]["lost_lines"].as_object().unwrap();
        assert_eq!(lost.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 2, "{report}");
        assert_eq!(bench.interrupt().0, Some(1));
    }
}

#[test]
fn a_message_that_is_never_answered_counts_as_the_time_out_at_least() {
    let mut seen = 0;
    let url = server(move |client, message| {
        let Some(message) = message else { return };
        seen += 1;
        if seen != 20 {
            client.try_send(&message).unwrap();
        }
    });
    let args = ["--json", "--duration", "300ms", "--warm-up", "0s", "--timeout", "3s", "--rate", "100"];
    let finished = bench(&url, &args);
    assert_eq!(finished.code, Some(1));
    let report = only_line(&finished);
    assert_eq!([&report["errors"]["unanswered"], &report["latency_ms"]["count"]], [1, 30], "{report}");
    assert!(report["latency_ms"]["max"].as_f64() >= Some(3000.0), "{report}");
}

/// A server that does nothing for half a second. What is due meanwhile cannot be sent, with one message in flight at most.
#[test]
fn a_stall_is_felt_by_all_that_were_due_meanwhile() {
    let mut seen = 0;
    let url = server(move |client, message| {
        let Some(message) = message else { return };
        seen += 1;
        if seen == 10 {
            thread::sleep(Duration::from_millis(500));
        }
        client.try_send(&message).unwrap();
    });
    let args = ["--json", "--duration", "600ms", "--warm-up", "0s", "--timeout", "60s", "--rate", "100"];
    let report = report(&bench(&url, &[&args[..], &["--connections", "1", "--depth", "1"]].concat()));
    // The tenth of the sixty is due at 90 ms, and answered at 590 ms at the earliest. The forty that are due until 490 ms wait
    // for a tenth of a second at least. Counted from when they were sent, it would have been one.
    assert_eq!(report["latency_ms"]["count"], 60);
    assert!(report["latency_ms"]["p50"].as_f64() >= Some(100.0), "{report}");
    assert!(report["schedule"]["held"].as_u64() >= Some(40), "{report}");
    assert_eq!(report["schedule"]["kept"], false);
}

#[test]
fn wrong_answers_are_counted_and_strange_messages_are_none() {
    let twice = server(|client, message| {
        let Some(message) = message else { return client.try_send(json!({ "type": "welcome" })).unwrap() };
        client.try_send(&message).unwrap();
        client.try_send(&message).unwrap();
    });
    let args = [&BRIEF[..], &["--rate", "100", "--connections", "2"]].concat();
    let finished = bench(&twice, &args);
    assert_eq!(finished.code, Some(1));
    let counted = only_line(&finished);
    assert!(counted["errors"]["duplicates"].as_u64() > Some(0), "{counted}");
    assert_eq!([&counted["errors"]["wrong_answers"], &counted["foreign"]], [0, 2], "{counted}");

    let mut last: Option<Message> = None;
    let shuffled = server(move |client, message| {
        let Some(message) = message else { return };
        match last.take() {
            // Each second one first.
            Some(held) => {
                client.try_send(&message).unwrap();
                client.try_send(&held).unwrap();
            }
            None => last = Some(message),
        }
    });
    let thirty = ["--json", "--rate", "100", "--duration", "300ms", "--warm-up", "0s"];
    let finished = bench(&shuffled, &[&thirty[..], &["--connections", "1", "--timeout", "60s"]].concat());
    let counted = only_line(&finished);
    let errors = &counted["errors"];
    assert_eq!(
        [&errors["out_of_order"], &errors["duplicates"], &errors["unanswered"]],
        [15, 0, 0],
        "{counted}"
    );

    let altered = server(|client, message| {
        let Some(message) = message else { return };
        client.try_send(Message::parse(message.as_str().replace('-', "+")).unwrap()).unwrap();
    });
    let finished = bench(&altered, &[&thirty[..], &["--connections", "1", "--timeout", "1s"]].concat());
    let counted = only_line(&finished);
    assert_eq!(
        [&counted["errors"]["wrong_answers"], &counted["errors"]["unanswered"]],
        [30, 30],
        "{counted}"
    );
}

#[test]
fn over_tls_it_trusts_whom_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem()));
    let (_server, url) = Running::serve(&["--echo", "--quiet", "--tls-cert", &cert, "--tls-key", &key]);
    for mode in ["echo", "login"] {
        let report = report(&bench(&url, &[&BRIEF[..], &["--mode", mode, "--ca", &cert]].concat()));
        assert!(report["latency_ms"]["count"].as_u64() > Some(0), "{report}");
    }
    let stranger = bench(&url, &[]);
    assert_eq!(stranger.code, Some(1));
    assert!(stranger.stderr.contains("certificate"), "{stranger:?}");
}
