//! One side of one connection, told inputs one by one, and the record of what it did.

use std::{sync::Arc, time::Duration};

use link_core::{
    Address, Bytes, Close, CloseReason, Config, Connection, Event, Frame, Instant, Message, Now, Output,
    Refusal, Role, Ticket, UnixMillis, Violation,
};
use serde::Serialize;

use super::{
    document, names,
    wallets::{CLIENT, SERVER},
};
use crate::support::{WALL, binary, millis, text};

/// What the monotonic clock shows at first: no multiple of a check interval.
const MONO: Duration = Duration::from_millis(400);

/// What is unlike the defaults.
#[derive(Default, Serialize)]
pub(super) struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) heartbeat_interval_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_message_size: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) expected_servers: Vec<Address>,
}

impl Options {
    fn apply(&self, mut config: Config) -> Config {
        config.heartbeat_interval = self.heartbeat_interval_ms.map_or(config.heartbeat_interval, millis);
        config.max_message_size = self.max_message_size.unwrap_or(config.max_message_size);
        config.expected_servers.clone_from(&self.expected_servers);
        config
    }
}

/// A connection under way. Each method is one input, at the time that the clocks show.
pub(super) struct Talk {
    head: Head,
    connection: Connection,
    now: Now,
    ticket: Option<Ticket>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Head {
    name: String,
    role: &'static str,
    options: Options,
}

#[derive(Serialize)]
struct Step {
    at: u128,
    clock: u64,
    #[serde(rename = "do")]
    input: Input,
    #[serde(rename = "then")]
    reactions: Vec<Reaction>,
    wake: Option<u128>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Input {
    Open,
    Text(String),
    Binary(String),
    Ping(String),
    Pong(String),
    Close(Option<u16>),
    Broke(&'static str),
    Lost,
    Time,
    Admit,
    Refuse(&'static str),
    Send(String),
    End(String),
    PauseReading,
    ResumeReading,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reaction {
    Text(String),
    Ping(String),
    Close(u16, String),
    EndTransport,
    Ask { address: Address, timestamp: u64 },
    Authenticated(Address),
    Message(String),
    Heartbeat(Option<u128>),
    Error(&'static str),
    Closed(String),
    Misuse,
}

impl Talk {
    pub(super) fn open(role: Role, name: &str, options: Options) -> Self {
        let now = Now { mono: Instant::from_origin(MONO), wall: UnixMillis::new(WALL).unwrap() };
        let (role, connection) = match role {
            Role::Server => {
                let config = options.apply(Config::server(SERVER.clone()));
                ("server", Connection::server(Arc::new(config), now))
            }
            Role::Client => {
                let config = options.apply(Config::client(CLIENT.clone()));
                ("client", Connection::client(Arc::new(config), now))
            }
        };
        let head = Head { name: name.into(), role, options };
        Self { head, connection, now, ticket: None, steps: vec![] }.note(Input::Open)
    }

    /// Its rows in the file.
    pub(super) fn told(&self) -> String {
        document::story(&self.head, &self.steps)
    }

    // --- The clocks ------------------------------------------------------------------------------------------

    /// Time passes, on both clocks.
    pub(super) fn after(mut self, by: u64) -> Self {
        self.now.mono = self.now.mono.after(millis(by));
        self.now.wall = UnixMillis::new(self.now.wall.get() + by).unwrap();
        self
    }

    /// Somebody sets the wall clock.
    pub(super) fn clock(mut self, wall: u64) -> Self {
        self.now.wall = UnixMillis::new(wall).unwrap();
        self
    }

    /// Looks at the clock.
    pub(super) fn time(mut self) -> Self {
        self.connection.handle_timeout(self.now);
        self.note(Input::Time)
    }

    // --- What comes from the peer ----------------------------------------------------------------------------

    pub(super) fn text(self, json: &str) -> Self {
        self.frame(text(json), Input::Text(json.into()))
    }

    pub(super) fn binary(self, bytes: &[u8]) -> Self {
        self.frame(binary(bytes), Input::Binary(hex(bytes)))
    }

    pub(super) fn ping(self, payload: &[u8]) -> Self {
        self.frame(Frame::Ping(Bytes::copy_from_slice(payload)), Input::Ping(hex(payload)))
    }

    pub(super) fn pong(self, payload: &[u8]) -> Self {
        self.frame(Frame::Pong(Bytes::copy_from_slice(payload)), Input::Pong(hex(payload)))
    }

    /// The pong to the ping of this number.
    pub(super) fn pong_to(self, ping: u64) -> Self {
        self.pong(&ping.to_be_bytes())
    }

    pub(super) fn close(self, code: Option<u16>) -> Self {
        self.frame(Frame::Close(code.map(|code| Close { code, reason: "".into() })), Input::Close(code))
    }

    fn frame(mut self, frame: Frame, input: Input) -> Self {
        self.connection.handle_frame(frame, self.now);
        self.note(input)
    }

    // --- What comes from the WebSocket below -----------------------------------------------------------------

    pub(super) fn broke(mut self, violation: Violation) -> Self {
        self.connection.handle_violation(violation, self.now);
        self.note(Input::Broke(names::violation(violation)))
    }

    pub(super) fn lost(mut self) -> Self {
        self.connection.handle_transport_closed(self.now);
        self.note(Input::Lost)
    }

    pub(super) fn pause_reading(mut self) -> Self {
        self.connection.handle_reads_paused(self.now);
        self.note(Input::PauseReading)
    }

    pub(super) fn resume_reading(mut self) -> Self {
        self.connection.handle_reads_resumed(self.now);
        self.note(Input::ResumeReading)
    }

    // --- What comes from the application ---------------------------------------------------------------------

    pub(super) fn admit(self) -> Self {
        self.decide(Ok(()), Input::Admit)
    }

    pub(super) fn refuse(self, refusal: Refusal) -> Self {
        self.decide(Err(refusal), Input::Refuse(names::refusal(refusal)))
    }

    fn decide(mut self, verdict: Result<(), Refusal>, input: Input) -> Self {
        let ticket = self.ticket.take().unwrap();
        self.connection.decide(ticket, verdict, self.now).unwrap();
        self.note(input)
    }

    /// Text that is no message is misuse as well, though `Message` finds it and not the connection.
    pub(super) fn send(mut self, json: &str) -> Self {
        let sent = match Message::parse(json) {
            Ok(message) => self.connection.send(message, self.now).is_ok(),
            Err(_) => false,
        };
        self = self.note(Input::Send(json.into()));
        if !sent {
            let reactions = &mut self.steps.last_mut().unwrap().reactions;
            assert!(reactions.is_empty(), "misuse changes nothing");
            reactions.push(Reaction::Misuse);
        }
        self
    }

    pub(super) fn end(mut self, reason: CloseReason) -> Self {
        let input = Input::End(names::reason(&reason));
        self.connection.close(reason, self.now);
        self.note(input)
    }

    // --- The record ------------------------------------------------------------------------------------------

    /// Notes the input that was just given, and everything that came of it.
    fn note(mut self, input: Input) -> Self {
        let mut reactions = vec![];
        while let Some(output) = self.connection.poll_output() {
            reactions.push(self.reaction(output));
        }
        self.steps.push(Step {
            at: since_origin(self.now.mono),
            clock: self.now.wall.get(),
            input,
            reactions,
            wake: self.connection.poll_timeout().map(since_origin),
        });
        self
    }

    fn reaction(&mut self, output: Output) -> Reaction {
        match output {
            Output::Send(Frame::Text(text)) => Reaction::Text(text.to_string()),
            Output::Send(Frame::Ping(payload)) => Reaction::Ping(hex(&payload)),
            Output::Send(Frame::Close(Some(Close { code, reason }))) => {
                Reaction::Close(code, reason.to_string())
            }
            Output::CloseTransport => Reaction::EndTransport,
            Output::Event(Event::AdmissionRequested { ticket }) => {
                let ticket = self.ticket.insert(ticket);
                Reaction::Ask { address: ticket.address(), timestamp: ticket.timestamp().get() }
            }
            Output::Event(Event::Authenticated { address, .. }) => Reaction::Authenticated(address),
            Output::Event(Event::Message(message)) => Reaction::Message(message.as_str().into()),
            Output::Event(Event::Heartbeat { round_trip }) => {
                Reaction::Heartbeat(round_trip.map(|round_trip| round_trip.as_millis()))
            }
            Output::Event(Event::Error(violation)) => Reaction::Error(names::violation(violation)),
            Output::Event(Event::Closed { reason }) => Reaction::Closed(names::reason(&reason)),
            other => panic!("{}: {other:?} has no name yet", self.head.name),
        }
    }
}

fn since_origin(instant: Instant) -> u128 {
    instant.since_origin().as_millis()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
