//! What an idle line costs: one task on each side, and no work but that of its heartbeats. Counted, not timed.

use std::time::{Duration, Instant};

use futures_util::future::join;
use link_driver::{Client, ClientBuilder, ConnectedClient, Runtime, Server, ServerBuilder, ServerEvent};

use crate::support::{
    counted::{Alive, counted},
    *,
};

const OFF: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);
/// How often heartbeats are, where there are any, and how many are watched.
const INTERVAL: Duration = Duration::from_millis(20);
const BEATS: usize = 50;

pub async fn a_line_is_one_task_on_each_side<R: Runtime>() {
    counted!(S, Servers);
    counted!(C, Clients);
    let mut server = server::<S<R>>().bind().await.unwrap();
    let mut lines = Vec::new();
    for number in 0..4 {
        // And the server has one that accepts.
        S::<R>::reaches(Alive { tasks: 1 + number, streams: number, listeners: 1, timers: number }).await;
        C::<R>::reaches(Alive { tasks: number, streams: number, listeners: 0, timers: number }).await;
        lines.push(line::<_, C<R>>(&mut server, |builder| builder).await);
    }
    for (client, _) in lines {
        client.close().soon::<R>().await;
    }
    S::<R>::reaches(Alive { tasks: 1, listeners: 1, ..Alive::default() }).await;
    C::<R>::is_empty().await;
    server.close().soon::<R>().await;
    S::<R>::is_empty().await;
}

pub async fn without_heartbeats_nothing_is_done<R: Runtime>() {
    counted!(S, Servers);
    counted!(C, Clients);
    // Guards that are not due any time soon cost nothing either.
    for guard in [OFF, HOUR] {
        let mut server = quiet_server::<S<R>>(|builder| builder.idle_timeout(guard)).await;
        let (mut client, peer) = line::<_, C<R>>(&mut server, |builder| builder.idle_timeout(guard)).await;
        S::<R>::quiet().await;
        C::<R>::quiet().await;
        let before = (S::<R>::work(), C::<R>::work());
        pause::<R>(A_WHILE).await;
        assert_eq!((S::<R>::work(), C::<R>::work()), before);

        peer.try_send(numbered(1)).unwrap();
        assert_eq!(number_of(&client.message().await), 1, "it is alive");
        client.close().soon::<R>().await;
        server.close().soon::<R>().await;
    }
}

pub async fn a_heartbeat_takes_a_few_polls_and_one_timer<R: Runtime>() {
    counted!(S, Servers);
    counted!(C, Clients);
    let options = |builder: ServerBuilder<_>| builder.heartbeat_interval(INTERVAL).idle_timeout(PATIENCE);
    let mut server = quiet_server::<S<R>>(options).await;
    let (client, _) = line::<_, C<R>>(&mut server, |builder| builder.idle_timeout(PATIENCE)).await;
    beats(&mut server, 2).await;
    let (began, before) = (R::now(), (S::<R>::work(), C::<R>::work()));
    beats(&mut server, BEATS).await;
    let (servers, clients) = (S::<R>::work() - before.0, C::<R>::work() - before.1);

    // The timer is armed for the next heartbeat, and the idle guard needs none of its own. (Answers to a few heartbeats
    // may have been waiting for the program before.)
    assert!(servers.arms >= BEATS / 2 && servers.arms <= most_beats(began, R::now()), "{servers:?}");
    // One poll because it is time, and one because of the answer; in two pieces, that takes one more.
    assert!(servers.polls <= 3 * servers.arms + 3, "{servers:?}");
    // The client has it to read, and answers in the same poll; it may come in two pieces as well.
    assert!(clients.polls <= 2 * servers.arms + 3, "{clients:?} for {servers:?}");
    assert!(clients.arms <= 1, "{clients:?}");
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

/// How many heartbeats there can have been, the first and the last of them late and early.
fn most_beats(began: Instant, ended: Instant) -> usize {
    let beats = (ended - began).as_millis() / INTERVAL.as_millis();
    usize::try_from(beats).unwrap() + 3
}

/// Waits until so many heartbeats were answered.
async fn beats<R: Runtime>(server: &mut Server<R>, number: usize) {
    let answered = async {
        for _ in 0..number {
            while !matches!(server.next().await, Some(ServerEvent::Heartbeat(..))) {}
        }
    };
    answered.soon::<R>().await;
}

pub async fn what_is_heard_moves_the_idle_deadline_and_no_timer<R: Runtime>() {
    counted!(S, Servers);
    counted!(C, Clients);
    let mut server = quiet_server::<S<R>>(|builder| builder.idle_timeout(PATIENCE)).await;
    let options = |builder: ClientBuilder<_>| builder.idle_timeout(PATIENCE).heartbeat_interval(INTERVAL);
    let (client, _) = line::<_, C<R>>(&mut server, options).await;
    let polls_of_the_server = |number: usize| {
        let before = S::<R>::work();
        until::<R>(move || (S::<R>::work() - before).polls >= number)
    };
    polls_of_the_server(2).await;
    let (began, before) = (R::now(), (S::<R>::work(), C::<R>::work()));
    polls_of_the_server(BEATS).await;
    let (servers, clients) = (S::<R>::work() - before.0, C::<R>::work() - before.1);

    // The server has heard so many pings; its deadline is the last one's, and its timer still the first one's.
    assert_eq!(servers.arms, 0, "{servers:?}");
    // The client arms it for its next ping, and for nothing that it hears.
    assert!(clients.arms <= most_beats(began, R::now()), "{clients:?}");
    assert!(clients.polls <= 3 * clients.arms + 3, "{clients:?}");
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

/// A server without heartbeats and guards, unless the options say otherwise.
async fn quiet_server<C: Runtime>(options: impl FnOnce(ServerBuilder<C>) -> ServerBuilder<C>) -> Server<C> {
    let quiet = server().heartbeat_interval(OFF).idle_timeout(OFF).auth_timeout(HOUR);
    options(quiet).bind().await.unwrap()
}

/// A client without heartbeats and guards, unless the options say otherwise; and its peer.
async fn line<S: Runtime, C: Runtime>(
    server: &mut Server<S>,
    options: impl FnOnce(ClientBuilder<C>) -> ClientBuilder<C>,
) -> (Client<C>, ConnectedClient) {
    let at = server.local_address().unwrap();
    let quiet = client_at(at).heartbeat_interval(OFF).idle_timeout(OFF).auth_timeout(HOUR);
    let (client, peer) = join(options(quiet).connect(), server.authenticated()).soon::<S>().await;
    (client.unwrap(), peer)
}
