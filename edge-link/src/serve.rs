//! `edge-link serve`: run a server.

use std::time::Duration;

use link_driver::{
    BindError, CloseReason, ConnectedClient, ErrorChain, Message, Rejected, Runtime, SendError, Server,
    ServerEvent, ServerHandle,
};

use crate::{
    Failure,
    args::Serve,
    interrupted,
    metrics::Metrics,
    output::{Printer, in_words},
};

pub(crate) async fn run<R: Runtime>(args: Serve) -> Result<(), Failure> {
    let interrupt = interrupted();
    let printer = Printer::new(args.output);
    let second = Duration::from_secs(1);
    let mut builder = Server::<R>::builder()
        .host(args.listen.ip())
        .port(args.listen.port())
        .wallet(args.key.wallet()?)
        .replace_existing(!args.no_replace)
        .auth_timeout(args.auth_timeout)
        .auth_check_interval(args.auth_timeout.min(second))
        .heartbeat_interval(args.heartbeat_interval)
        .idle_timeout(args.client_timeout)
        .idle_check_interval(args.client_timeout.min(second));
    if let Some(whitelist) = args.whitelist {
        builder = builder.whitelist(whitelist);
    }
    if let (Some(cert), Some(key)) = (args.tls_cert, args.tls_key) {
        builder = builder.tls_cert(cert).tls_key(key);
    }
    let metrics = match args.metrics {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    let mut server =
        builder.bind().await.map_err(|error: BindError| Failure::failed(ErrorChain::new(&error)))?;
    let (url, address) = (server.url().map_err(Failure::failed)?, server.address());
    let handle = server.handle();
    let metrics_url = metrics.as_ref().map(Metrics::url);
    if let Some(metrics) = metrics {
        tokio::spawn(metrics.serve(handle.clone()));
    }
    printer.event(
        "listening",
        &[("url", (&url).into()), ("address", (&address).into()), ("metrics", metrics_url.as_deref().into())],
        &match &metrics_url {
            Some(metrics) => format!("listening at {url} as {address}; metrics at {metrics}"),
            None => format!("listening at {url} as {address}"),
        },
    )?;

    let closing = handle.clone();
    tokio::spawn(async move {
        interrupt.await;
        closing.close().await;
    });
    // What is told verbosely is told by the stream of events only.
    if args.echo && !args.broadcast && !printer.verbose {
        return echo(server, printer, args.quiet).await;
    }
    while let Some(happened) = server.next().await {
        if let ServerEvent::Message(client, message) = &happened {
            if !args.quiet {
                printer.message(Some(client.address().as_str()), message)?;
            }
            if let Err(error) = pass_on(&handle, client, message, args.echo, args.broadcast) {
                not_sent(printer, client, &error, args.echo)?;
            }
        } else {
            report(printer, &happened)?;
        }
    }
    Ok(())
}

/// Sends each client its messages back, in the task of its connection.
async fn echo<R: Runtime>(server: Server<R>, printer: Printer, quiet: bool) -> Result<(), Failure> {
    let (fails, mut failed) = tokio::sync::mpsc::channel(1);
    let mut serving = server.serve(move |mut session| {
        let fails = fails.clone();
        async move {
            let client = session.client().clone();
            let told = async {
                report(printer, &ServerEvent::Authenticated(client.clone()))?;
                while let Some(message) = session.next().await {
                    if !quiet {
                        printer.message(Some(client.address().as_str()), &message)?;
                    }
                    if let Err(error) = session.send(&message).await {
                        not_sent(printer, &client, &error, true)?;
                    }
                }
                let reason = session.close_reason().cloned().unwrap_or(CloseReason::Lost);
                report(printer, &ServerEvent::Disconnected(client.clone(), reason))
            };
            if let Err(failure) = told.await {
                // One is enough to stop for.
                let _ = fails.try_send(failure);
            }
        }
    });
    loop {
        tokio::select! {
            happened = serving.next() => match happened {
                Some(happened) => report(printer, &happened)?,
                None => return Ok(()),
            },
            Some(failure) = failed.recv() => return Err(failure),
        }
    }
}

fn not_sent(
    printer: Printer,
    client: &ConnectedClient,
    error: &SendError,
    echo: bool,
) -> Result<(), Failure> {
    let (client, reason) = (client.address(), error.to_string());
    printer.event(
        "error",
        &[("client", (&client).into()), ("reason", (&reason).into())],
        &format!("{client}: not {}: {reason}", if echo { "sent back" } else { "sent on" }),
    )?;
    Ok(())
}

/// Sends a message where it is to go.
fn pass_on<R: Runtime>(
    server: &ServerHandle<R>,
    client: &ConnectedClient,
    message: &Message,
    echo: bool,
    broadcast: bool,
) -> Result<(), SendError> {
    if broadcast {
        server.broadcast(message)?;
    } else if echo {
        client.try_send(message)?;
    }
    Ok(())
}

fn report(printer: Printer, happened: &ServerEvent) -> Result<(), Failure> {
    match happened {
        ServerEvent::Connected { remote_address, .. } if printer.verbose => {
            let remote = remote_address.to_string();
            printer.event(
                "connected",
                &[("remote", (&remote).into())],
                &format!("connected from {remote}"),
            )?;
        }
        ServerEvent::Authenticated(client) => {
            let (client, remote) = (client.address(), client.remote_address().to_string());
            printer.event(
                "authenticated",
                &[("client", (&client).into()), ("remote", (&remote).into())],
                &format!("{client} authenticated, from {remote}"),
            )?;
        }
        ServerEvent::Heartbeat(client, round_trip) if printer.verbose => {
            let (client, millis) = (client.address(), round_trip.map(|time| time.as_secs_f64() * 1000.0));
            printer.event(
                "heartbeat",
                &[("client", (&client).into()), ("round_trip_ms", millis.into())],
                &format!("{client} heartbeat{}", in_words(millis)),
            )?;
        }
        ServerEvent::Disconnected(client, reason) => {
            let (client, reason) = (client.address(), reason.to_string());
            printer.event(
                "disconnected",
                &[("client", (&client).into()), ("reason", (&reason).into())],
                &format!("{client} disconnected: {reason}"),
            )?;
        }
        ServerEvent::Rejected(rejected) => {
            let Rejected { remote_address, address, reason, .. } = &**rejected;
            let (remote, status) = (remote_address.to_string(), reason.status().map(|status| status.code()));
            let reason = reason.to_string();
            let who = address.map_or_else(|| remote.clone(), |address| address.to_string());
            printer.event(
                "rejected",
                &[
                    ("client", address.as_ref().into()),
                    ("status", status.map(u64::from).into()),
                    ("reason", (&reason).into()),
                    ("remote", (&remote).into()),
                ],
                &format!("{who} rejected: {reason}"),
            )?;
        }
        ServerEvent::Error(error) => {
            let reason = ErrorChain::new(error).to_string();
            printer.event("error", &[("reason", (&reason).into())], &format!("error: {reason}"))?;
        }
        ServerEvent::Close => printer.event("close", &[], "closed")?,
        _ => {}
    }
    Ok(())
}
