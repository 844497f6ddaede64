//! `edge-link connect`: connect to a server.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    pin::pin,
    time::Duration,
};

use link_driver::{Client, ClientEvent, ClientHandle, ConnectError, ErrorChain, Message, Runtime, SendError};
use tokio::time::sleep;

use crate::{
    Failure,
    args::Connect,
    input::{Input, Line, MAX_MESSAGE, Source},
    interrupted,
    output::{Printer, in_words},
};

/// How long to wait for answers after the end of the input, unless somebody says so.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes may wait for the server. Little, so that hardly anything does when the input has ended and the wait for
/// answers begins.
const MAX_SEND_QUEUE: usize = 256 << 10;

pub(crate) async fn run<R: Runtime>(args: Connect) -> Result<(), Failure> {
    let mut interrupt = pin!(interrupted());
    let printer = Printer::new(args.output);
    let mut builder = Client::<R>::builder()
        .url(&args.url)
        .wallet(args.key.wallet()?)
        .max_message_size(MAX_MESSAGE)
        .max_send_queue(MAX_SEND_QUEUE)
        .max_reconnect_attempts(args.max_reconnect_attempts)
        .reconnect_delay(args.reconnect_delay)
        .idle_timeout(args.server_timeout);
    for address in args.pin {
        builder = builder.expect_server(address);
    }
    if let Some(ca) = args.ca {
        builder = builder.tls_ca(ca);
    }
    if let Some(proxy) = args.proxy {
        builder = builder.proxy(proxy.map_err(Failure::usage)?);
    }
    let mut client = builder.start().map_err(|error| match error {
        ConnectError::Target(error) => Failure::usage(error),
        error => Failure::failed(ErrorChain::new(&error)),
    })?;

    let source = match Source::of_stdin() {
        // A script that counts may run in the background, where a read from the terminal would stop it.
        Source::Terminal if args.count.is_some() => Source::Nowhere,
        source => source,
    };
    let mut input = if source == Source::Nowhere { Input::none() } else { Input::stdin() };
    let linger = match source {
        Source::Terminal | Source::Piped if args.count.is_none() => Some(args.linger.unwrap_or(LINGER)),
        _ => args.linger,
    };
    let handle = client.handle();
    let mut outgoing = Outgoing { waiting: args.send.into(), online: false, handed_back: 0, failed: 0 };
    let mut received = 0;
    let mut was_authenticated = false;
    // Set once everything has been sent.
    let mut end_of_wait = None;
    loop {
        let room = outgoing.send_all(&client)?;
        if was_authenticated && outgoing.is_empty() {
            if args.count.is_some_and(|count| received >= count) {
                if input.has_more() {
                    complain("left because of --count, before all of the input was sent")?;
                }
                break;
            }
            if let (true, None, Some(linger)) = (input.has_ended(), &end_of_wait, linger) {
                end_of_wait = Some(Box::pin(sleep(linger)));
            }
        } else {
            end_of_wait = None;
        }
        let happened = tokio::select! {
            happened = client.next() => happened,
            () = &mut interrupt => {
                let left = !outgoing.is_empty() || input.has_more() || outgoing.failed > 0;
                leave(client, printer).await?;
                return match left && source == Source::Piped {
                    true => Err(Failure::failed("interrupted before all of the input was sent")),
                    false => Ok(()),
                };
            }
            line = input.next(), if room == Room::ForMore && !input.has_ended() => {
                if let Some(line) = line {
                    outgoing.push(line)?;
                }
                continue;
            }
            sent = wait_for_room(&handle, outgoing.waiting.front()), if room == Room::Full => {
                outgoing.note(sent)?;
                continue;
            }
            () = async { if let Some(end) = &mut end_of_wait { end.await } }, if end_of_wait.is_some() => break,
        };
        // Without a last word, the end was this side's wish.
        let Some(happened) = happened else { return Ok(()) };
        report(printer, &happened)?;
        match happened {
            ClientEvent::Authenticated { .. } => (was_authenticated, outgoing.online) = (true, true),
            ClientEvent::Message(_) => received = received.saturating_add(1),
            ClientEvent::Disconnected { unsent, .. } => outgoing.put_back(unsent),
            ClientEvent::ConnectionFailed(failure) => {
                outgoing.report_handed_back(printer)?;
                return Err(Failure::failed(ErrorChain::new(&failure)));
            }
            _ => {}
        }
    }
    leave(client, printer).await?;
    match args.count {
        Some(count) if received < count => {
            let linger = humantime::format_duration(linger.unwrap_or_default());
            Err(Failure::Failed(format!(
                "{received} of {count} messages came within {linger} of the end of the input; --linger waits longer"
            )))
        }
        // A person has seen it, and typed it again.
        _ if outgoing.failed > 0 && source == Source::Piped => {
            Err(Failure::Failed(format!("lines that were not sent: {}", outgoing.failed)))
        }
        _ => Ok(()),
    }
}

/// Closes the connection once everything that was sent has left. What comes meanwhile is not printed.
async fn leave<R: Runtime>(mut client: Client<R>, printer: Printer) -> Result<(), Failure> {
    client.disconnect();
    while let Some(happened) = client.next().await {
        if let ClientEvent::Disconnected { reason, unsent } = &happened
            && !unsent.is_empty()
        {
            report(printer, &happened)?;
            return Err(Failure::Failed(format!("messages that were not sent: {}: {reason}", unsent.len())));
        }
    }
    Ok(())
}

/// Sends as soon as there is room.
async fn wait_for_room(client: &ClientHandle, message: Option<&Message>) -> Result<(), SendError> {
    match message {
        Some(message) => client.send(message).await,
        None => std::future::pending().await,
    }
}

/// What is to be sent.
struct Outgoing {
    waiting: VecDeque<Message>,
    /// Whether there is a connection that takes messages, as far as is known.
    online: bool,
    /// How many of those that wait were accepted by a connection that was lost before it sent them.
    handed_back: usize,
    /// How many lines were not messages.
    failed: u64,
}

/// Whether more can be sent.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    ForMore,
    /// Later: too much waits for the server.
    Full,
    /// Not before there is a connection again.
    Offline,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn push(&mut self, line: Line) -> io::Result<()> {
        match line.message {
            Ok(message) => self.waiting.push_back(message),
            Err(reason) => {
                self.failed = self.failed.saturating_add(1);
                complain(&format!("line {} was not sent: {reason}", line.number))?;
            }
        }
        Ok(())
    }

    /// Hands over as many as there is room for.
    fn send_all<R: Runtime>(&mut self, client: &Client<R>) -> io::Result<Room> {
        if !self.online {
            return Ok(Room::Offline);
        }
        while let Some(message) = self.waiting.front() {
            match self.note(client.try_send(message))? {
                Room::ForMore => {}
                room => return Ok(room),
            }
        }
        Ok(Room::ForMore)
    }

    /// Notes what has become of the first of them.
    fn note(&mut self, sent: Result<(), SendError>) -> io::Result<Room> {
        match sent {
            Ok(()) => {}
            Err(SendError::Full { .. }) => return Ok(Room::Full),
            Err(SendError::NotAuthenticated | SendError::Closed) => {
                // Its end will be told.
                self.online = false;
                return Ok(Room::Offline);
            }
            Err(error) => {
                self.failed = self.failed.saturating_add(1);
                complain(&format!("not sent: {error}"))?;
            }
        }
        self.waiting.pop_front();
        self.handed_back = self.handed_back.saturating_sub(1);
        Ok(Room::ForMore)
    }

    /// The connection has ended, and these are to be sent on the next one.
    fn put_back(&mut self, unsent: Vec<Message>) {
        self.online = false;
        self.handed_back = self.handed_back.saturating_add(unsent.len());
        for message in unsent.into_iter().rev() {
            self.waiting.push_front(message);
        }
    }

    fn report_handed_back(&self, printer: Printer) -> io::Result<()> {
        match self.handed_back {
            0 => Ok(()),
            many => {
                let reason = format!("{many} messages were not sent");
                printer.event("error", &[("reason", (&reason).into())], &reason)
            }
        }
    }
}

fn complain(reason: &str) -> io::Result<()> {
    writeln!(io::stderr(), "edge-link: {reason}")
}

fn report(printer: Printer, happened: &ClientEvent) -> Result<(), Failure> {
    match happened {
        ClientEvent::Connected => printer.event("connected", &[], "connected")?,
        ClientEvent::Authenticated { server, .. } => printer.event(
            "authenticated",
            &[("server", server.into())],
            &format!("authenticated; the server is {server}"),
        )?,
        ClientEvent::Message(message) => printer.message(None, message)?,
        ClientEvent::Heartbeat { round_trip } if printer.verbose => {
            let millis = round_trip.map(|time| time.as_secs_f64() * 1000.0);
            printer.event(
                "heartbeat",
                &[("round_trip_ms", millis.into())],
                &format!("heartbeat{}", in_words(millis)),
            )?;
        }
        ClientEvent::Disconnected { reason, .. } => {
            let reason = reason.to_string();
            printer.event(
                "disconnected",
                &[("reason", (&reason).into())],
                &format!("disconnected: {reason}"),
            )?;
        }
        ClientEvent::Reconnecting { attempt, delay } => {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            printer.event(
                "reconnecting",
                &[("attempt", u64::from(*attempt).into()), ("delay_ms", millis.into())],
                &format!("dialling again in {:.1} s (attempt {attempt})", delay.as_secs_f64()),
            )?;
        }
        ClientEvent::ConnectionFailed(failure) => {
            let reason = ErrorChain::new(failure).to_string();
            printer.event(
                "connection_failed",
                &[("reason", (&reason).into())],
                &format!("connection failed: {reason}"),
            )?;
        }
        ClientEvent::Error(error) => {
            let reason = ErrorChain::new(error).to_string();
            printer.event("error", &[("reason", (&reason).into())], &format!("error: {reason}"))?;
        }
        _ => {}
    }
    Ok(())
}
