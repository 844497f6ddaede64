//! Runs the command as a person or a script would.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    thread::{self, JoinHandle},
};

use serde_json::Value;

/// A key for tests, and its address, from the identity vectors.
pub(crate) const KEY: &str = "abc";
pub(crate) const ADDRESS: &str = "xe_73FCc533201ec51F28754e5210c503B399E527D4";

/// The command, without a key or a log filter from whoever runs the tests.
pub(crate) fn edge_link(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-link"));
    command.args(args).env_remove("LINK_PRIVATE_KEY").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Finished {
    finish(edge_link(args))
}

pub(crate) fn finish(mut command: Command) -> Finished {
    command.output().unwrap().into()
}

/// Runs it to its end, with this piped into it.
pub(crate) fn run_with_input(args: &[&str], input: impl Into<Vec<u8>>) -> Finished {
    let mut command = edge_link(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.into());
    // It prints meanwhile. Where it leaves before the end of the input, writing fails.
    let writing = thread::spawn(move || stdin.write_all(&input));
    let finished = child.wait_with_output().unwrap().into();
    let _ = writing.join().unwrap();
    finished
}

#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Finished {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        Self {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Finished {
    /// The lines of stdout, which are to be JSON objects.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The messages among them.
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.events().into_iter().filter_map(|mut event| Some(event.get_mut("message")?.take())).collect()
    }
}

/// One that goes on, until it is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Read meanwhile, so that nothing waits for it.
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(&mut edge_link(args))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut running = Self::spawn_unread(command);
        let mut stderr = running.child.stderr.take().unwrap();
        running.stderr = Some(thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        }));
        running
    }

    /// Nobody reads its stderr.
    pub(crate) fn spawn_unread(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, stderr: None }
    }

    /// With a pipe to write to.
    pub(crate) fn start_piped(args: &[&str]) -> (Self, ChildStdin) {
        let mut running = Self::spawn(edge_link(args).stdin(Stdio::piped()));
        let stdin = running.child.stdin.take().unwrap();
        (running, stdin)
    }

    /// A server on a free port of the loopback, and its URL.
    pub(crate) fn serve(args: &[&str]) -> (Self, String) {
        let mut server = Self::start(&[&["serve", "--listen", "127.0.0.1:0", "--json"], args].concat());
        let listening = server.event();
        assert_eq!(listening["event"], "listening");
        (server, listening["url"].as_str().unwrap().to_owned())
    }

    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// The same, which is to be a JSON object.
    pub(crate) fn event(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// The next line with this event; others are passed over.
    pub(crate) fn next(&mut self, name: &str) -> Value {
        loop {
            let event = self.event();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// From here on, what it says on stderr cannot be written.
    pub(crate) fn close_stderr(&mut self) {
        drop(self.child.stderr.take());
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        let mut finished = Finished { code: None, stdout: String::new(), stderr: String::new() };
        self.stdout.read_to_string(&mut finished.stdout).unwrap();
        finished.stderr = self.stderr.take().unwrap().join().unwrap();
        finished.code = self.child.wait().unwrap().code();
        finished
    }

    /// Ctrl-C, and what it says and returns then.
    pub(crate) fn interrupt(mut self) -> (Option<i32>, String) {
        self.send_interrupt();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    /// The same, with all of stderr.
    pub(crate) fn interrupted(self) -> Finished {
        self.send_interrupt();
        self.finish()
    }

    fn send_interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP proxy for one client, which it connects to this server, and what it was asked.
pub(crate) fn proxy(server: &str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = server.strip_prefix("ws://").unwrap().trim_end_matches('/').to_owned();
    let asked = thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            near.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let mut far = TcpStream::connect(server).unwrap();
        near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut far, &mut near);
        let _ = near.shutdown(Shutdown::Write);
        String::from_utf8(head).unwrap()
    });
    (at, asked)
}
