//! Login: connect, authenticate and close, again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use link_driver::{ClientEvent, ConnectionFailure};
use link_tokio::ClientBuilder;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Ended, Run, bar, conclude, failure, failure_label, label, patience,
    report::Report,
    schedule::{Pacer, Schedule},
    text, unless_interrupted, watch,
};
use crate::{Failure, args::Bench};

/// How long one that failed waits, so that a server which is gone is not dialled as fast as that can be.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// Who logs in next.
#[derive(Debug)]
struct Turns {
    schedule: Option<Schedule>,
    /// Logins that are due.
    due: Semaphore,
    next: AtomicU64,
    done: AtomicU64,
}

pub(super) async fn run(
    args: &Bench,
    mut interrupt: impl Future<Output = ()> + Unpin,
) -> Result<(), Failure> {
    // Unmeasured, and alone: if this fails, so would the others.
    let first = async { args.client()?.connect().await.map_err(failure) };
    unless_interrupted(&mut interrupt, first).await?.close().await;

    let run = Arc::new(args.begin("")?);
    let schedule = args.rate.map(Schedule::new);
    let turns = Arc::new(Turns { schedule, due: Semaphore::new(0), next: 0.into(), done: 0.into() });
    let mut workers = JoinSet::new();
    for _ in 0..args.connections {
        workers.spawn(work(args.clone(), run.clone(), turns.clone()));
    }
    let pacer = match schedule {
        None => None,
        Some(schedule) => {
            let due = turns.clone();
            let pacer = Pacer::start(schedule, run.clock.clone(), move |_| due.due.add_permits(1));
            Some(pacer.map_err(|error| Failure::failed(format!("cannot start: {error}")))?)
        }
    };

    let ended = watch(&run, &bar(args), &mut interrupt, |_| true).await;
    let patience = patience(&run, ended);
    if let Some(schedule) = schedule {
        // The last ones due may be waiting for a worker still.
        let due = schedule.before(run.clock.window().end);
        let _ = tokio::time::timeout(patience, async {
            while turns.next.load(Ordering::Relaxed) < due {
                tokio::time::sleep(super::LAST_TICK).await;
            }
        })
        .await;
    }
    turns.due.close();
    let all_done = async { while workers.join_next().await.is_some() {} };
    tokio::select! {
        _ = tokio::time::timeout(patience, all_done) => {}
        () = &mut interrupt, if ended != Ended::Interrupted => {}
    }
    workers.abort_all();
    if let Some(pacer) = pacer {
        pacer.stop();
    }

    let (now, window) = (run.clock.now(), run.clock.window());
    let mut tally = run.tally();
    let begun = turns.next.load(Ordering::Relaxed);
    for _ in turns.done.load(Ordering::Relaxed)..begun {
        tally.errors.unanswered = tally.errors.unanswered.saturating_add(1);
        tally.missed(window, window.start, window.start, patience, 1);
    }
    if let Some(schedule) = schedule {
        tally.unsent(window, schedule, begun, now, patience, 1);
    }
    conclude(&Report::new(args, &run, &tally, args.connections.into(), ended), args.json)
}

/// One after the other, until the end.
async fn work(args: Bench, run: Arc<Run>, turns: Arc<Turns>) {
    loop {
        // Before the login is due: its wallet is not the server's affair.
        let Ok(client) = args.client() else { return };
        let due = match turns.schedule {
            None if run.clock.now() >= run.clock.window().end => return,
            None => {
                turns.next.fetch_add(1, Ordering::Relaxed);
                None
            }
            Some(schedule) => {
                match turns.due.try_acquire() {
                    // It was due while everybody was busy.
                    Ok(permit) => {
                        permit.forget();
                        let mut tally = run.tally();
                        tally.held = tally.held.saturating_add(1);
                    }
                    Err(_) => match turns.due.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_) => return,
                    },
                }
                Some(schedule.due(turns.next.fetch_add(1, Ordering::Relaxed)))
            }
        };
        let succeeded = login(client, due, &run).await;
        turns.done.fetch_add(1, Ordering::Relaxed);
        if !succeeded {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

/// Logs in and out. Whether that went well is in the tally, and returned.
async fn login(client: ClientBuilder, due: Option<Duration>, run: &Run) -> bool {
    let window = run.clock.window();
    let mut client = match client.start() {
        Ok(client) => client,
        Err(error) => {
            run.tally().errors.fail(label(&error), || text(&error));
            return false;
        }
    };
    let began = run.clock.now();
    let due = due.unwrap_or(began);
    run.tally().sent(window, due, began, 0);
    let authenticated = async {
        loop {
            match client.next().await {
                Some(ClientEvent::Authenticated { .. }) => return Ok(run.clock.now()),
                Some(ClientEvent::ConnectionFailed(failure)) => return Err(Some(failure)),
                Some(_) => {}
                None => return Err(None),
            }
        }
    };
    let outcome = tokio::time::timeout(run.timeout, authenticated).await.unwrap_or(Err(None));
    let succeeded = outcome.is_ok();
    enter(outcome, due, run);
    client.close().await;
    succeeded
}

/// Enters how a login went.
fn enter(outcome: Result<Duration, Option<ConnectionFailure>>, due: Duration, run: &Run) {
    let (window, mut tally) = (run.clock.window(), run.tally());
    match outcome {
        Ok(now) => {
            tally.received(window, now, 0);
            return tally.answered(window, due, now);
        }
        Err(Some(failure)) => tally.errors.fail(failure_label(&failure), || failure.cause.to_string()),
        Err(None) => {
            tally.errors.fail("timeout", || format!("not authenticated within {:?}", run.timeout));
        }
    }
    tally.missed(window, due, run.clock.now(), run.timeout, 1);
}
