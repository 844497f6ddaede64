//! Echo and broadcast: messages that come back.

use std::sync::{Arc, atomic::Ordering};

use tokio::task::JoinSet;

use super::{
    Ended, GOODBYE, LAST_TICK, bar, conclude,
    group::Group,
    patience,
    report::Report,
    schedule::{Pacer, Schedule},
    unless_interrupted, watch,
};
use crate::{
    Failure,
    args::{Bench, BenchMode},
};

pub(super) async fn run(
    args: &Bench,
    mut interrupt: impl Future<Output = ()> + Unpin,
) -> Result<(), Failure> {
    let (clients, errors) = unless_interrupted(&mut interrupt, args.connect()).await?;
    let connected = clients.len();
    let handles: Vec<_> = clients.iter().map(|client| client.handle()).collect();
    let name = handles.first().map(|first| first.address().as_str().to_owned()).unwrap_or_default();

    let run = Arc::new(args.begin(name.trim_start_matches("xe_"))?);
    run.tally().errors = errors;
    let schedule = args.rate.map(Schedule::new);
    let groups: Arc<Vec<Group>> = Arc::new(match args.mode {
        BenchMode::Broadcast => handles
            .first()
            .map(|sender| Group::new(0, sender.clone(), connected, schedule))
            .into_iter()
            .collect(),
        _ => {
            let turns = u64::try_from(connected).unwrap_or(u64::MAX);
            (0..=u16::MAX)
                .zip(&handles)
                .map(|(number, handle)| {
                    let own = schedule.map(|schedule| schedule.part(turns, number.into()));
                    Group::new(number, handle.clone(), 1, own)
                })
                .collect()
        }
    });

    let mut receivers = JoinSet::new();
    for (place, client) in clients.into_iter().enumerate() {
        let (groups, run) = (groups.clone(), run.clone());
        let (group, member) = if args.mode == BenchMode::Broadcast { (0, place) } else { (place, 0) };
        receivers.spawn(async move {
            if let Some(group) = groups.get(group) {
                group.receive(member, client, &run).await;
            }
        });
    }
    let pacer = match schedule {
        None => {
            groups.iter().for_each(|group| group.send(&run));
            None
        }
        Some(schedule) => {
            let (groups, run) = (groups.clone(), run.clone());
            let turns = u64::try_from(groups.len()).unwrap_or(u64::MAX);
            let clock = run.clock.clone();
            let send = move |number: u64| {
                let place = number.checked_rem(turns).and_then(|place| usize::try_from(place).ok());
                if let Some(group) = place.and_then(|place| groups.get(place)) {
                    group.send(&run);
                }
            };
            Some(
                Pacer::start(schedule, clock, send)
                    .map_err(|error| Failure::failed(format!("cannot start: {error}")))?,
            )
        }
    };

    let answered = || groups.iter().any(|group| group.answered.load(Ordering::Relaxed));
    let ended = watch(&run, &bar(args), &mut interrupt, |now| {
        groups.iter().for_each(|group| group.expire(now, &run));
        !groups.iter().all(Group::is_over) && (answered() || now < run.timeout)
    })
    .await;

    let end = run.clock.window().end;
    let patience = patience(&run, ended);
    // A server that has answered nothing so far has had its time.
    let hopeless = ended == Ended::Early && !answered();
    while !hopeless
        && run.clock.now() < end.saturating_add(patience)
        && !groups.iter().all(|group| group.is_done(end))
    {
        tokio::select! {
            () = tokio::time::sleep(LAST_TICK) => {}
            () = &mut interrupt, if ended != Ended::Interrupted => break,
        }
        groups.iter().for_each(|group| group.expire(run.clock.now(), &run));
    }
    if let Some(pacer) = pacer {
        pacer.stop();
    }
    groups.iter().for_each(|group| group.finish(patience, &run));

    let outcome = {
        let tally = run.tally();
        let errors = &tally.errors;
        match ended != Ended::Interrupted && !answered() && errors.lost.is_empty() && errors.wrong == 0 {
            true => Err(nobody_answers(args, tally.foreign)),
            false => conclude(&Report::new(args, &run, &tally, connected, ended), args.json),
        }
    };
    handles.iter().for_each(|handle| handle.disconnect());
    // One that does not let go has had its time as well.
    let all_gone = async { while receivers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GOODBYE, all_gone).await;
    outcome
}

/// What to say when no message ever came back.
fn nobody_answers(args: &Bench, foreign: u64) -> Failure {
    let (whom, how, option) = match args.mode {
        BenchMode::Broadcast => ("anybody else", "sends messages on to everybody", "--broadcast"),
        _ => ("anybody", "sends messages back", "--echo"),
    };
    let others = match foreign {
        0 => String::new(),
        many => format!(" ({many} messages came that are not ours)"),
    };
    Failure::Failed(format!(
        "no message came back to {whom}{others}: is it a server that {how}, such as `edge-link serve {option}`?"
    ))
}
