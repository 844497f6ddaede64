//! `edge-link connect`: connect to a server.

use std::{
    io::{BufRead as _, IsTerminal as _},
    thread,
};

use link_driver::{Client, ClientEvent, ConnectError, Message, Runtime, SendError};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    Failure,
    args::Connect,
    interrupted,
    output::{Printer, in_words},
};

pub(crate) async fn run<R: Runtime>(args: Connect) -> Result<(), Failure> {
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    let printer = Printer::new(args.output);
    let mut builder = Client::<R>::builder()
        .url(&args.url)
        .wallet(args.key.wallet()?)
        .max_reconnect_attempts(args.max_reconnect_attempts)
        .reconnect_delay(args.reconnect_delay)
        .server_timeout(args.server_timeout);
    for address in args.pin {
        builder = builder.expect_server(address);
    }
    if let Some(ca) = args.ca {
        builder = builder.ca(ca);
    }
    if let Some(proxy) = args.proxy {
        builder = builder.proxy(proxy.map_err(Failure::usage)?);
    }
    let mut client = builder.start().map_err(|error| match error {
        ConnectError::Target(error) => Failure::usage(error),
        error => Failure::failed(error),
    })?;

    let mut typed = typed_lines(args.count.is_none() && std::io::stdin().is_terminal());
    let mut to_send = args.send;
    let mut missing = args.count;
    let mut authenticated = false;
    loop {
        let happened = tokio::select! {
            happened = client.next() => happened,
            () = &mut interrupt => {
                client.close().await;
                return Ok(());
            }
            Some(line) = typed.recv() => {
                send(&client, &typed_message(&line))?;
                continue;
            }
        };
        // Without a last word, the end was this side's wish.
        let Some(happened) = happened else { return Ok(()) };
        report(printer, &happened)?;
        match happened {
            ClientEvent::Authenticated { .. } => {
                authenticated = true;
                // Only the first session gets them: whether they arrived there, v1 cannot say.
                for message in to_send.drain(..) {
                    send(&client, &Ok(message))?;
                }
            }
            ClientEvent::Message(_) => missing = missing.map(|missing| missing.saturating_sub(1)),
            ClientEvent::Disconnected { unsent, .. } if !unsent.is_empty() => {
                let many = unsent.len();
                let reason = format!("{many} messages were not sent");
                printer.event("error", &[("reason", (&reason).into())], &reason)?;
            }
            ClientEvent::ConnectionFailed(failure) => return Err(Failure::failed(failure)),
            _ => {}
        }
        if authenticated && missing == Some(0) {
            client.close().await;
            return Ok(());
        }
    }
}

/// Sends, and complains on stderr if that cannot be done now; what a person typed is not worth ending for.
fn send<R: Runtime>(client: &Client<R>, message: &Result<Message, String>) -> Result<(), Failure> {
    let sent = match message {
        Ok(message) => client.send(message).map_err(|error: SendError| error.to_string()),
        Err(reason) => Err(reason.clone()),
    };
    if let Err(reason) = sent {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "edge-link: not sent: {reason}")?;
    }
    Ok(())
}

/// A typed line: JSON, or text that is wrapped.
fn typed_message(line: &str) -> Result<Message, String> {
    let message = match Message::parse(line) {
        Ok(message) if line.trim_start().starts_with('{') => message,
        _ => {
            return Message::new(&json!({ "type": "text", "text": line })).map_err(|error| error.to_string());
        }
    };
    message.check_sendable().map_err(|error| error.to_string())?;
    Ok(message)
}

/// The lines that a person types. A thread reads them, since a read from a terminal cannot be given up.
fn typed_lines(wanted: bool) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    if wanted {
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if !line.trim().is_empty() && sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    }
    lines
}

fn report(printer: Printer, happened: &ClientEvent) -> Result<(), Failure> {
    match happened {
        ClientEvent::Connected => printer.event("connected", &[], "connected")?,
        ClientEvent::Authenticated { server } => printer.event(
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
            let reason = failure.to_string();
            printer.event(
                "connection_failed",
                &[("reason", (&reason).into())],
                &format!("connection failed: {reason}"),
            )?;
        }
        ClientEvent::Error(error) => {
            let reason = error.to_string();
            printer.event("error", &[("reason", (&reason).into())], &format!("error: {reason}"))?;
        }
        _ => {}
    }
    Ok(())
}
