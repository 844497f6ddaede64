//! `edge-link connect` sends what is piped into it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use support::{Running, edge_link, finish, run, run_with_input};

/// The longest message.
const MAX: usize = 1 << 20;

/// So many numbered messages, one a line.
fn numbered(count: u32) -> String {
    (1..=count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["n"].as_u64().unwrap()).collect()
}

/// A JSON object of so many bytes.
fn object_of(size: usize) -> String {
    let frame = r#"{"a":""}"#.len();
    format!(r#"{{"a":"{}"}}"#, "x".repeat(size - frame))
}

#[test]
fn each_line_is_a_message_a_json_object_as_it_is_and_other_text_wrapped() {
    let (_server, url) = Running::serve(&["--echo"]);
    let input = "{\"b\":1,\r\"a\":2}\r\n\n   \t\n hello \r\n[1,2]\n{\"broken\"\n\r\n  {\"c\":3}\nthe last, without an end";
    let client = run_with_input(&["connect", &url, "--json"], input);
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(client.stderr, "");
    let text = |text: &str| json!({ "type": "text", "text": text });
    assert_eq!(
        client.messages(),
        [
            json!({ "b": 1, "a": 2 }),
            text(" hello "),
            text("[1,2]"),
            text("{\"broken\""),
            json!({ "c": 3 }),
            text("the last, without an end"),
        ]
    );
}

#[test]
fn ten_thousand_lines_come_back_in_order() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    let client =
        run_with_input(&["connect", &url, "--json", "--count", "10000", "--linger", "60s"], numbered(10_000));
    assert_eq!(client.code, Some(0), "{}", client.stderr);
    assert_eq!(numbers(&client.messages()), (1..=10_000).collect::<Vec<_>>());
}

/// More than any queue on the way.
#[test]
fn a_big_input_waits_for_room_and_nothing_is_dropped() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    let filler = "x".repeat(64 << 10);
    let input: String = (1..=400).map(|n| format!("{{\"n\":{n},\"filler\":\"{filler}\"}}\n")).collect();
    let client = run_with_input(&["connect", &url, "--json", "--count", "400", "--linger", "60s"], input);
    assert_eq!(client.code, Some(0), "{}", client.stderr);
    assert_eq!(client.stderr, "");
    assert_eq!(numbers(&client.messages()), (1..=400).collect::<Vec<_>>());
}

/// The server is slow, since it prints what it gets: much is still on the way when the input ends.
#[test]
fn all_of_the_input_arrives_even_if_nobody_waits_for_answers() {
    let (mut server, url) = Running::serve(&[]);
    let filler = "x".repeat(300);
    let input: String = (1..=40_000).map(|n| format!("{{\"n\":{n},\"filler\":\"{filler}\"}}\n")).collect();
    let client = thread::spawn(move || run_with_input(&["connect", &url, "--linger", "0s"], input));
    let mut received = Vec::new();
    loop {
        let event = server.event();
        match event["event"].as_str().unwrap() {
            "message" => received.push(event["message"]["n"].as_u64().unwrap()),
            "disconnected" => break,
            _ => {}
        }
    }
    assert_eq!(received, (1..=40_000).collect::<Vec<_>>());
    let client = client.join().unwrap();
    assert_eq!((client.code, client.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_file_is_input_too_and_its_end_ends_the_command() {
    let (mut server, url) = Running::serve(&[]);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"{\"n\":1}\n").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut command = edge_link(&["connect", &url, "--linger", "1ms"]);
    command.stdin(Stdio::from(file));
    assert_eq!(finish(command).code, Some(0));
    assert_eq!(server.next("message")["message"], json!({ "n": 1 }));
}

#[test]
fn a_line_that_cannot_be_sent_is_reported_with_its_number_and_the_next_one_follows() {
    let (_server, url) = Running::serve(&["--echo"]);
    let mut input = b"first\n\n{\"type\":\"heartbeat\"}\n".to_vec();
    input.extend_from_slice(b"\xff\xfe\n");
    input.extend_from_slice(object_of(MAX + 1).as_bytes());
    input.push(b'\n');
    input.extend_from_slice("y".repeat(3 * MAX).as_bytes());
    input.push(b'\n');
    // Short enough, but for what is put around it.
    input.extend_from_slice("z".repeat(MAX).as_bytes());
    input.extend_from_slice(b"\nlast\n");
    let client = run_with_input(&["connect", &url, "--json"], input);
    assert_eq!(client.code, Some(1), "{}", client.stderr);
    let texts: Vec<_> = client.messages().into_iter().map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["first", "last"]);
    let complaints: Vec<_> = client.stderr.lines().collect();
    assert_eq!(complaints.len(), 6, "{complaints:#?}");
    for (complaint, (line, why)) in complaints.iter().zip([
        (3, "\"heartbeat\" belongs to the protocol"),
        (4, "not UTF-8"),
        (5, "1048577 bytes, and a message can have at most 1048576"),
        (6, "3145729 bytes"),
        (7, "1048576"),
    ]) {
        assert!(complaint.contains(&format!("line {line} was not sent")), "{complaint}");
        assert!(complaint.contains(why), "{complaint}");
    }
    assert!(complaints[5].contains("5"), "{complaints:#?}");
}

#[test]
fn the_longest_message_fits_whatever_ends_its_line() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    let longest = object_of(MAX);
    let input = format!("{longest}\n{longest}\r\n{longest}");
    let client = run_with_input(&["connect", &url, "--json", "--count", "3"], input);
    assert_eq!(client.code, Some(0), "{}", client.stderr);
    assert_eq!(client.messages().len(), 3);
}

#[test]
fn with_count_it_leaves_although_the_input_goes_on() {
    let (_server, url) = Running::serve(&["--echo"]);
    let (client, mut stdin) = Running::start_piped(&["connect", &url, "--json", "--count", "2"]);
    stdin.write_all(b"one\ntwo\n").unwrap();
    let client = client.finish();
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(client.messages().len(), 2);
    drop(stdin);
}

#[test]
fn with_count_it_waits_for_answers_long_after_the_input_has_ended() {
    let (_server, url) = Running::serve(&["--broadcast"]);
    let (mut waiting, stdin) = Running::start_piped(&["connect", &url, "--json", "--count", "1"]);
    drop(stdin);
    waiting.next("authenticated");
    // Takes as long as it lingers, which is the default.
    assert_eq!(run_with_input(&["connect", &url], "").code, Some(0));
    assert_eq!(run(&["connect", &url, "--send", r#"{"n":1}"#, "--count", "1"]).code, Some(0));
    assert_eq!(waiting.next("message")["message"], json!({ "n": 1 }));
    assert_eq!(waiting.finish().code, Some(0));
}

#[test]
fn with_both_count_and_linger_too_few_answers_are_a_failure() {
    let (_server, url) = Running::serve(&[]);
    let client = run_with_input(&["connect", &url, "--count", "3", "--linger", "100ms"], "hello\n");
    assert_eq!(client.code, Some(1), "{client:?}");
    assert!(client.stderr.contains("0 of 3 messages came within 100ms"), "{client:?}");
}

#[test]
fn the_time_to_linger_begins_at_the_end_of_the_input() {
    let (_server, url) = Running::serve(&["--echo"]);
    let (mut client, mut stdin) = Running::start_piped(&["connect", &url, "--json", "--linger", "1ms"]);
    for line in ["one", "two"] {
        writeln!(stdin, "{line}").unwrap();
        assert_eq!(client.next("message")["message"]["text"], line);
    }
    drop(stdin);
    assert_eq!(client.finish().code, Some(0));
}

#[test]
fn without_any_input_it_stays() {
    let (_server, url) = Running::serve(&["--broadcast"]);
    // /dev/null is no input: this is how a service runs.
    let mut service = Running::start(&["connect", &url, "--json"]);
    service.next("authenticated");
    // Takes as long as it lingers after the end of an input.
    assert_eq!(run_with_input(&["connect", &url], "").code, Some(0));
    // Unless it is told how long.
    assert_eq!(run(&["connect", &url, "--send", r#"{"n":1}"#, "--linger", "10ms"]).code, Some(0));
    assert_eq!(service.next("message")["message"], json!({ "n": 1 }));
    assert_eq!(service.interrupt().0, Some(0));
}

#[test]
fn ctrl_c_ends_it_in_the_middle_of_the_input() {
    let (_server, url) = Running::serve(&["--echo"]);
    let (mut client, mut stdin) = Running::start_piped(&["connect", &url, "--json"]);
    stdin.write_all(b"one\n").unwrap();
    client.next("message");
    assert_eq!(client.interrupt().0, Some(0));
}

#[test]
fn what_is_piped_in_while_the_connection_is_lost_is_sent_on_the_next_one() {
    let (mut first, url) = Running::serve(&[]);
    let (mut client, mut stdin) = Running::start_piped(&[
        "connect",
        &url,
        "--json",
        "--reconnect-delay",
        "100ms",
        "--max-reconnect-attempts",
        "1000",
        "--linger",
        "0s",
    ]);
    stdin.write_all(b"{\"n\":1}\n").unwrap();
    assert_eq!(first.next("message")["message"], json!({ "n": 1 }));
    drop(first);
    client.next("disconnected");
    stdin.write_all(b"{\"n\":2}\n").unwrap();
    drop(stdin);
    let address = url.strip_prefix("ws://").unwrap();
    let mut second = Running::start(&["serve", "--listen", address, "--json"]);
    assert_eq!(second.next("message")["message"], json!({ "n": 2 }));
    let client = client.finish();
    assert_eq!(client.code, Some(0), "{client:?}");
}

/// A relay between the two ends the first connection in the middle, after everything that was written has passed.
#[test]
fn what_a_lost_connection_has_not_written_is_sent_on_the_next_one() {
    const LINES: u64 = 40_000;
    let (mut server, url) = Running::serve(&[]);
    let address = url.strip_prefix("ws://").unwrap().to_owned();
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay_address = relay.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for end_after in [6 << 20, u64::MAX] {
            let (client, _) = relay.accept().unwrap();
            let server = TcpStream::connect(&address).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            std::io::copy(&mut (&client).take(end_after), &mut &server).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            // Once the client has closed, whatever it wrote has passed; once the server has, that was taken. Only then does the
            // next connection take the place of this one.
            let _ = std::io::copy(&mut &client, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut &server, &mut std::io::sink());
        }
    });
    let filler = "x".repeat(300);
    let input: String = (1..=LINES).map(|n| format!("{{\"n\":{n},\"filler\":\"{filler}\"}}\n")).collect();
    let client = thread::spawn(move || {
        run_with_input(&["connect", &relay_address, "--reconnect-delay", "1ms", "--linger", "0s"], input)
    });
    let mut received = Vec::new();
    while received.last() != Some(&LINES) {
        received.push(server.next("message")["message"]["n"].as_u64().unwrap());
    }
    assert!(received.is_sorted(), "each comes once, in order");
    // But for the one that was cut in the middle.
    assert!(received.len() as u64 >= LINES - 1, "{} of {LINES} arrived", received.len());
    let client = client.join().unwrap();
    assert_eq!(client.code, Some(0), "{}", client.stderr);
    assert!(client.stdout.contains("disconnected"), "{}", client.stdout);
}

#[test]
fn send_comes_before_the_input() {
    let (_server, url) = Running::serve(&["--echo"]);
    let client = run_with_input(
        &["connect", &url, "--json", "--send", r#"{"n":1}"#, "--send", r#"{"n":2}"#],
        numbered(4),
    );
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(numbers(&client.messages()), [1, 2, 1, 2, 3, 4]);
}

#[test]
fn nobody_there_is_1_whatever_is_piped_in() {
    let lost = run_with_input(
        &["connect", "ws://127.0.0.1:1", "--max-reconnect-attempts", "1", "--reconnect-delay", "1ms"],
        numbered(1000),
    );
    assert_eq!(lost.code, Some(1));
    assert!(lost.stderr.contains("127.0.0.1:1"), "{lost:?}");
}

#[test]
fn every_runtime_sends_what_is_piped_in() {
    let (_server, url) = Running::serve(&["--echo", "--quiet"]);
    for runtime in ["tokio", "async-std", "smol"] {
        let args = ["connect", &url, "--json", "--count", "500", "--runtime", runtime];
        let client = run_with_input(&args, numbered(500));
        assert_eq!(client.code, Some(0), "{runtime}: {}", client.stderr);
        assert_eq!(numbers(&client.messages()), (1..=500).collect::<Vec<_>>(), "{runtime}");
    }
}

#[test]
fn a_url_without_a_scheme_is_ws() {
    let (_server, url) = Running::serve(&["--echo"]);
    let address = url.strip_prefix("ws://").unwrap();
    let client = run(&["connect", address, "--send", r#"{"n":1}"#, "--count", "1", "--json"]);
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(client.messages(), [json!({ "n": 1 })]);
    let bench = run(&["bench", address, "--connections", "1", "--duration", "10ms", "--warm-up", "0s"]);
    assert_eq!(bench.code, Some(0), "{bench:?}");
}

#[test]
fn help_says_how_it_ends() {
    let help = run(&["connect", "--help"]);
    for word in ["--linger", "--count", "end of the input", "piped", "/dev/null"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
}

/// As in a shell: an input that cannot be read, such as a directory.
#[test]
fn an_input_that_cannot_be_read_is_a_failure() {
    let (_server, url) = Running::serve(&[]);
    let mut command: Command = edge_link(&["connect", &url, "--linger", "0s"]);
    command.stdin(Stdio::from(std::fs::File::open(".").unwrap()));
    let client = finish(command);
    assert_eq!(client.code, Some(1), "{client:?}");
    assert!(client.stderr.contains("cannot read the input"), "{client:?}");
}
