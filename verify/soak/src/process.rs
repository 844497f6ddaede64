//! The process of a server: started, asked, measured and stopped.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde::de::DeserializeOwned;

use crate::{
    PATIENCE,
    serve::{Listening, Stats},
    until,
};

/// A server in a process of its own.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Taken when it is to end.
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    at: SocketAddr,
}

/// What a process uses of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of it that are in memory now.
    pub resident: u64,
    /// The most that it ever was.
    pub peak: u64,
    /// File descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl ServerProcess {
    /// Starts a program that is to be one, as [`serve`](crate::serve) says, and waits until it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        // A thread, since a read from a pipe cannot lose its patience.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        let Listening { at } = hear(&lines);
        Self { child, stdin, stdout: lines, at }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.at
    }

    /// What it has counted.
    pub fn stats(&mut self) -> Stats {
        self.ask("stats")
    }

    /// What it answers to a line.
    pub fn ask<T: DeserializeOwned>(&mut self, line: &str) -> T {
        self.tell(line);
        hear(&self.stdout)
    }

    /// Sends it a line.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("it was not stopped"), "{line}").expect("the server hears");
    }

    /// What it uses now.
    pub fn usage(&self) -> Usage {
        let folder = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{folder}/status"))
            .expect("the system tells of a process under /proc, as Linux does, and it is alive");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            number.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        Usage {
            resident: field("VmRSS") << 10,
            peak: field("VmHWM") << 10,
            descriptors: fs::read_dir(format!("{folder}/fd")).expect("descriptors").count() as u64,
            threads: field("Threads"),
        }
    }

    /// Tells it to end, and waits until it has, in good order.
    pub fn stop(mut self) {
        self.stdin = None;
        let mut status = None;
        until("the server ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "the server ended with {status:?}");
    }
}

/// In a failure there is no good order.
impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear<T: DeserializeOwned>(lines: &Receiver<String>) -> T {
    let line = lines.recv_timeout(PATIENCE).expect("the server answers");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}
