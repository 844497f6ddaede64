//! `edge-link serve`: run a server.

use std::time::Duration;

use link_tokio::{BindError, Server, ServerEvent};
use serde_json::json;

use crate::{
    Failure,
    args::Serve,
    interrupted,
    output::{Printer, event},
};

pub(crate) async fn run(args: Serve) -> Result<(), Failure> {
    let printer = Printer::new(args.output);
    let second = Duration::from_secs(1);
    let mut builder = Server::builder()
        .host(args.listen.ip())
        .port(args.listen.port())
        .wallet(args.key.wallet()?)
        .replace_existing(!args.no_replace)
        .auth_timeout(args.auth_timeout)
        .auth_check_interval(args.auth_timeout.min(second))
        .heartbeat_interval(args.heartbeat_interval)
        .client_timeout(args.client_timeout)
        .client_timeout_interval(args.client_timeout.min(second));
    if let Some(whitelist) = args.whitelist {
        builder = builder.whitelist(whitelist);
    }
    let mut server = builder.bind().await.map_err(|error: BindError| Failure::failed(error))?;
    let (url, address) = (server.url(), server.address());
    printer.event(
        &event("listening", json!({ "url": url, "address": address.as_str() })),
        &format!("listening at {url} as {address}"),
    )?;

    let handle = server.handle();
    tokio::spawn(async move {
        interrupted().await;
        handle.close().await;
    });
    while let Some(happened) = server.next().await {
        report(printer, &happened, args.echo)?;
    }
    Ok(())
}

fn report(printer: Printer, happened: &ServerEvent, echo: bool) -> Result<(), Failure> {
    match happened {
        ServerEvent::Connected { remote_address, .. } if printer.verbose => printer.event(
            &event("connected", json!({ "remote": remote_address.to_string() })),
            &format!("connected from {remote_address}"),
        )?,
        ServerEvent::Authenticated(client) => printer.event(
            &event(
                "authenticated",
                json!({ "client": client.address().as_str(), "remote": client.remote_address().to_string() }),
            ),
            &format!("{} authenticated, from {}", client.address(), client.remote_address()),
        )?,
        ServerEvent::Message(client, message) => {
            printer.message(Some(client.address().as_str()), message)?;
            if echo && let Err(error) = client.send(message) {
                let (client, reason) = (client.address(), error.to_string());
                printer.event(
                    &event("error", json!({ "client": client.as_str(), "reason": reason })),
                    &format!("{client}: not sent back: {reason}"),
                )?;
            }
        }
        ServerEvent::Heartbeat(client, round_trip) if printer.verbose => {
            let (client, millis) = (client.address(), round_trip.map(|time| time.as_secs_f64() * 1000.0));
            printer.event(
                &event("heartbeat", json!({ "client": client.as_str(), "round_trip_ms": millis })),
                &format!(
                    "{client} heartbeat{}",
                    millis.map(|ms| format!(", round trip {ms:.3} ms")).unwrap_or_default()
                ),
            )?;
        }
        ServerEvent::Disconnected(client, reason) => printer.event(
            &event(
                "disconnected",
                json!({ "client": client.address().as_str(), "reason": reason.to_string() }),
            ),
            &format!("{} disconnected: {reason}", client.address()),
        )?,
        ServerEvent::Rejected { remote_address, address, reason, .. } => {
            let fields = json!({
                "client": address.map(|address| address.to_string()),
                "status": reason.status().map(link_tokio::Status::code),
                "reason": reason.to_string(),
                "remote": remote_address.to_string(),
            });
            let who = address.map_or_else(|| remote_address.to_string(), |address| address.to_string());
            printer.event(&event("rejected", fields), &format!("{who} rejected: {reason}"))?;
        }
        ServerEvent::Error(error) => {
            let reason = error.to_string();
            printer.event(&event("error", json!({ "reason": reason })), &format!("error: {reason}"))?;
        }
        ServerEvent::Close => printer.event(&event("close", json!({})), "closed")?,
        _ => {}
    }
    Ok(())
}
