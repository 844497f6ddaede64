//! `edge-link serve` and `edge-link connect`, against each other.

mod support;

use support::{ADDRESS, KEY, Running, edge_link, finish, run};

#[test]
fn messages_go_there_and_back_as_json_lines() {
    let (mut server, url) = Running::serve(&["--echo"]);
    let mut command = edge_link(&[
        "connect",
        &url,
        "--json",
        "--send",
        r#"{"type":"a"}"#,
        "--send",
        r#"{"b":[1,2]}"#,
        "--count",
        "2",
    ]);
    command.env("LINK_PRIVATE_KEY", KEY);
    let client = finish(command);
    assert_eq!(client.code, Some(0), "{client:?}");
    let events = client.events();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["connected", "authenticated", "message", "message"]);
    assert_eq!(events[2]["message"], serde_json::json!({ "type": "a" }));
    assert_eq!(events[3]["message"], serde_json::json!({ "b": [1, 2] }));

    assert_eq!(server.next("authenticated")["client"], ADDRESS);
    let message = server.next("message");
    assert_eq!(message["client"], ADDRESS);
    assert_eq!(message["message"], serde_json::json!({ "type": "a" }));
    let gone = server.next("disconnected");
    assert_eq!(gone["client"], ADDRESS);
    assert!(gone["reason"].is_string());
}

#[test]
fn a_server_that_broadcasts_sends_a_message_on_to_everybody_and_a_quiet_one_prints_none() {
    let (mut server, url) = Running::serve(&["--broadcast", "--quiet"]);
    let mut listener = Running::start(&["connect", &url, "--json", "--count", "1"]);
    listener.next("authenticated");
    let sender = run(&["connect", &url, "--json", "--send", r#"{"type":"a"}"#, "--count", "1"]);
    assert_eq!(sender.code, Some(0), "{sender:?}");
    assert_eq!(sender.events().last().unwrap()["message"], serde_json::json!({ "type": "a" }));
    assert_eq!(listener.next("message")["message"], serde_json::json!({ "type": "a" }));
    for event in ["authenticated", "authenticated", "disconnected", "disconnected"] {
        assert_eq!(server.event()["event"], event);
    }
}

#[test]
fn ctrl_c_closes_a_server_and_its_clients_gracefully() {
    let (mut server, url) = Running::serve(&[]);
    let mut client = Running::start(&["connect", &url, "--json", "--max-reconnect-attempts", "0"]);
    server.next("authenticated");
    client.next("authenticated");
    let (code, rest) = server.interrupt();
    assert_eq!(code, Some(0));
    assert!(
        rest.contains(r#""event":"disconnected""#) && rest.trim_end().ends_with(r#"{"event":"close"}"#),
        "{rest}"
    );
    assert!(client.next("disconnected")["reason"].as_str().unwrap().contains("1001"));
    client.next("connection_failed");
}

/// What the one above cannot find: whoever reads that it listens may be faster than the server's tasks.
#[test]
fn ctrl_c_counts_from_the_first_line_that_is_printed() {
    for runtime in ["tokio", "async-std", "smol"] {
        for _ in 0..10 {
            let (server, _) = Running::serve(&["--runtime", runtime]);
            assert_eq!(server.interrupt(), (Some(0), "{\"event\":\"close\"}\n".into()), "{runtime}");
        }
    }
}

#[test]
fn ctrl_c_ends_a_client_with_0() {
    let (mut server, url) = Running::serve(&[]);
    let mut client = Running::start(&["connect", &url, "--json"]);
    client.next("authenticated");
    assert_eq!(client.interrupt().0, Some(0));
    server.next("disconnected");
}

#[test]
fn a_refused_client_leaves_with_1_and_the_reason() {
    let (mut server, url) = Running::serve(&["--whitelist", ADDRESS]);
    let refused = run(&["connect", &url, "--json"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("403 Forbidden"), "{refused:?}");
    let rejected = server.next("rejected");
    assert_eq!(rejected["status"], 403);
    assert!(rejected["client"].is_string() && rejected["reason"].is_string());
}

#[test]
fn a_second_connection_is_refused_or_replaces_the_first() {
    let (_server, url) = Running::serve(&["--no-replace"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, KEY).unwrap();
    let key = path.to_str().unwrap();

    let mut first = Running::start(&["connect", &url, "--json", "--private-key-file", key]);
    first.next("authenticated");
    let second = run(&["connect", &url, "--private-key-file", key]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("409 Conflict"), "{second:?}");

    let (_server, url) = Running::serve(&[]);
    let mut first = Running::start(&["connect", &url, "--json", "--private-key-file", key]);
    first.next("authenticated");
    assert_eq!(run(&["connect", &url, "--private-key-file", key, "--count", "0"]).code, Some(0));
    assert!(first.next("disconnected")["reason"].as_str().unwrap().contains("replaced"));
    first.next("connection_failed");
}

#[test]
fn an_unexpected_server_is_left_with_1() {
    let (_server, url) = Running::serve(&[]);
    let refused = run(&["connect", &url, "--pin", ADDRESS]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("not among the expected servers"), "{refused:?}");
}

#[test]
fn nobody_there_is_1_and_a_port_in_use_is_1() {
    let lost =
        run(&["connect", "ws://127.0.0.1:1", "--max-reconnect-attempts", "1", "--reconnect-delay", "1ms"]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.stderr.contains("127.0.0.1:1"), "{lost:?}");

    let (_server, url) = Running::serve(&[]);
    let address = url.strip_prefix("ws://").unwrap();
    let taken = run(&["serve", "--listen", address]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("in use"), "{taken:?}");
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &["serve", "--listen", "nonsense"][..],
        &["serve", "--whitelist", "xe_12"],
        &["serve", "--auth-timeout", "soon"],
        &["serve", "--wallet", "a", "--private-key-file", "b"],
        &["serve", "--echo", "--broadcast"],
        &["connect"],
        &["connect", "http://localhost"],
        &["connect", "ws://"],
        &["connect", "ws://localhost:99999"],
        &["connect", "ws://localhost", "--send", "[1]"],
        &["connect", "ws://localhost", "--send", "{"],
        &["connect", "ws://localhost", "--send", r#"{"type":"heartbeat"}"#],
        &["connect", "ws://localhost", "--pin", "somebody"],
        &["connect", "ws://localhost", "--runtime", "glommio"],
        &["serve", "--tls-cert", "only-half.pem"],
        &["connect", "ws://localhost", "--count", "-1"],
        &["wallet", "check"],
        &["dance"],
        &[],
    ] {
        let refused = run(args);
        assert_eq!(refused.code, Some(2), "{args:?}: {refused:?}");
        assert!(!refused.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn every_runtime_talks_to_every_other_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem()));
    let runtimes = ["tokio", "async-std", "smol"];
    for serving in runtimes {
        let (_server, url) =
            Running::serve(&["--echo", "--runtime", serving, "--tls-cert", &cert, "--tls-key", &key]);
        assert!(url.starts_with("wss://127.0.0.1:"), "{url}");
        for calling in runtimes {
            let message = r#"{"type":"hello"}"#;
            let client = run(&[
                "connect",
                &url,
                "--runtime",
                calling,
                "--ca",
                &cert,
                "--send",
                message,
                "--count",
                "1",
            ]);
            assert_eq!(client.code, Some(0), "{calling} to {serving}: {client:?}");
            assert!(client.stdout.contains(message), "{client:?}");
        }
        let stranger = run(&["connect", &url, "--max-reconnect-attempts", "0"]);
        assert_eq!(stranger.code, Some(1));
        assert!(stranger.stderr.contains("certificate"), "{stranger:?}");
    }
}
