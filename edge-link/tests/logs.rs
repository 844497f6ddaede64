//! `RUST_LOG` says what is logged on stderr; stdout is for what the command prints.

mod support;

use support::{Running, edge_link, finish, run};

#[test]
fn without_rust_log_nothing_is_logged() {
    let (server, url) = Running::serve(&["--echo"]);
    let client = run(&["connect", &url, "--send", r#"{"n":1}"#, "--count", "1"]);
    assert_eq!((client.code, client.stderr.as_str()), (Some(0), ""));
    let server = server.interrupted();
    assert_eq!((server.code, server.stderr.as_str()), (Some(0), ""));
}

#[test]
fn with_rust_log_each_command_logs_on_stderr_and_stdout_stays_json() {
    let mut command =
        edge_link(&["serve", "--listen", "127.0.0.1:0", "--echo", "--json", "--metrics", "127.0.0.1:0"]);
    let mut server = Running::spawn(command.env("RUST_LOG", "trace"));
    let url = server.next("listening")["url"].as_str().unwrap().to_owned();

    let mut command = edge_link(&["connect", &url, "--send", r#"{"secret":1}"#, "--count", "1", "--json"]);
    command.env("RUST_LOG", "link::client=info");
    let client = finish(command);
    assert_eq!(client.code, Some(0), "{client:?}");
    let names: Vec<_> = client.events().into_iter().map(|event| event["event"].clone()).collect();
    assert_eq!(names, ["connected", "authenticated", "message"]);
    assert!(client.stderr.contains("link::client: authenticated"), "{client:?}");

    let mut command =
        edge_link(&["bench", &url, "--connections", "1", "--duration", "10ms", "--warm-up", "0s", "--json"]);
    command.env("RUST_LOG", "debug");
    let bench = finish(command);
    assert_eq!(bench.code, Some(0), "{bench:?}");
    assert_eq!(bench.events().len(), 1);
    assert!(bench.stderr.contains("authenticated"), "{bench:?}");

    let server = server.interrupted();
    assert!(server.stderr.contains("link::server: authenticated"), "{server:?}");
    // Also at the level trace, payloads stay out of the log.
    assert!(!server.stderr.contains("secret"), "{server:?}");
    server.events();
}

#[test]
fn an_invalid_rust_log_is_a_warning_that_says_what_would_be_valid() {
    let mut command = edge_link(&["wallet", "check", support::ADDRESS]);
    command.env("RUST_LOG", "a=b=c");
    let checked = finish(command);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stderr.contains("RUST_LOG is invalid") && checked.stderr.contains("link::server=debug"));
    for nothing in ["", "off"] {
        let mut command = edge_link(&["wallet", "check", support::ADDRESS]);
        command.env("RUST_LOG", nothing);
        assert_eq!(finish(command).stderr, "");
    }
}

#[test]
fn a_server_outlives_whoever_read_its_log() {
    let mut command = edge_link(&["serve", "--listen", "127.0.0.1:0", "--echo", "--json"]);
    let mut server = Running::spawn_unread(command.env("RUST_LOG", "debug"));
    let url = server.next("listening")["url"].as_str().unwrap().to_owned();
    server.close_stderr();
    for _ in 0..3 {
        let client = run(&["connect", &url, "--send", r#"{"n":1}"#, "--count", "1"]);
        assert_eq!(client.code, Some(0), "{client:?}");
    }
    assert_eq!(server.interrupt().0, Some(0));
}
