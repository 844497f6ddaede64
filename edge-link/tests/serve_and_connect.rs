//! `edge-link serve` and `edge-link connect`, against each other.

mod support;

use std::process::Command;

use support::{ADDRESS, KEY, Running, edge_link, finish, proxy, run};

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
        &["connect", "ws://localhost", "--proxy", "ftp://proxy.example"],
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

/// `connect` without a proxy of whoever runs the tests, to a name that only the proxy can resolve.
fn connect_through(proxy: &str) -> Command {
    let mut command =
        edge_link(&["connect", "ws://link.invalid", "--json", "--send", r#"{"a":1}"#, "--count", "1"]);
    command.args(["--proxy", proxy, "--max-reconnect-attempts", "0"]);
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    command
}

#[test]
fn connect_goes_through_a_proxy_that_is_given_or_named_by_the_environment() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    for from_environment in [false, true] {
        let (at, asked) = proxy(&url);
        let proxy = format!("http://Aladdin:open%20sesame@{at}");
        let mut command = connect_through(if from_environment { "env" } else { &proxy });
        if from_environment {
            command.env("ALL_PROXY", &proxy);
        }
        let client = finish(command);
        assert_eq!(client.code, Some(0), "{client:?}");
        assert_eq!(client.events().last().unwrap()["message"], serde_json::json!({ "a": 1 }));
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("CONNECT link.invalid:3793 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "{asked}");
    }
}

#[test]
fn the_environment_names_a_proxy_only_where_one_asks_for_it_and_not_for_excepted_servers() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    let everything = ["connect", url.as_str(), "--send", r#"{"a":1}"#, "--count", "1"];
    for (more, excepted) in [(&[][..], ""), (&["--proxy", "env"], "127.0.0.0/8")] {
        let mut command = edge_link(&[&everything, more].concat());
        // Nobody is there.
        command.env("ALL_PROXY", "http://127.0.0.1:1").env("NO_PROXY", excepted).env_remove("no_proxy");
        let client = finish(command);
        assert_eq!(client.code, Some(0), "{client:?}");
    }
}

#[test]
fn a_bad_proxy_is_wrong_usage_and_its_password_is_not_repeated() {
    for (proxy, variable, said) in [
        ("ftp://user:s3cret@proxy.example", "", "socks5://"),
        ("http://user:s3cret", "", "port"),
        ("env", "socks4://user:s3cret@proxy.example", "ALL_PROXY"),
    ] {
        let mut command = connect_through(proxy);
        command.env("ALL_PROXY", variable);
        let refused = finish(command);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(said) && !refused.stderr.contains("s3cret"), "{refused:?}");
    }
}

#[test]
fn a_proxy_that_does_not_connect_is_named_without_its_password() {
    let refused = finish(connect_through("socks5h://user:s3cret@127.0.0.1:1"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("socks5h://127.0.0.1:1"), "{refused:?}");
    assert!(!format!("{refused:?}").contains("s3cret"), "{refused:?}");
}
