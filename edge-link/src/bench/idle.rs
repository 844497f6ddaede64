//! Idle: connections that only stay.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use link_driver::{ClientEvent, CloseReason};
use link_tokio::Client;
use tokio::task::JoinSet;

use super::{GOODBYE, Run, bar, conclude, report::Report, unless_interrupted, watch};
use crate::{Failure, args::Bench};

pub(super) async fn run(
    args: &Bench,
    mut interrupt: impl Future<Output = ()> + Unpin,
) -> Result<(), Failure> {
    let (clients, errors) = unless_interrupted(&mut interrupt, args.connect()).await?;
    let connected = clients.len();
    let handles: Vec<_> = clients.iter().map(|client| client.handle()).collect();
    let run = Arc::new(args.begin("")?);
    run.tally().errors = errors;
    let alive = Arc::new(AtomicUsize::new(connected));
    let mut staying = JoinSet::new();
    for client in clients {
        let (run, alive) = (run.clone(), alive.clone());
        staying.spawn(async move {
            stay(client, &run).await;
            alive.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let ended = watch(&run, &bar(args), &mut interrupt, |_| alive.load(Ordering::Relaxed) > 0).await;
    let outcome = conclude(&Report::new(args, &run, &run.tally(), connected, ended), args.json);
    handles.iter().for_each(|handle| handle.disconnect());
    let all_gone = async { while staying.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GOODBYE, all_gone).await;
    outcome
}

/// Notes round trips until the line ends.
async fn stay(mut client: Client, run: &Run) {
    let mut last = None;
    while let Some(event) = client.next().await {
        match event {
            // The server's heartbeats come with the round trip of our last ping, which may be an old one.
            ClientEvent::Heartbeat { round_trip: Some(round_trip) } if last != Some(round_trip) => {
                last = Some(round_trip);
                let now = run.clock.now();
                run.tally().answered(run.clock.window(), now.saturating_sub(round_trip), now);
            }
            ClientEvent::Disconnected { reason, .. } if reason != CloseReason::Local => {
                run.tally().errors.lose(reason.label(), || reason.to_string());
            }
            _ => {}
        }
    }
}
