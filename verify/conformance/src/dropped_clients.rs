//! Dropping a client leaves nothing behind: no task, no socket, no timer, at whatever moment it is dropped. They are
//! counted; and what the program still holds of it, its handle, keeps none of them.

use std::{io::Write as _, net::TcpStream, pin::pin, time::Duration};

use futures_util::future::{Either, join, select};
use link_driver::{Client, ClientBuilder, ClientEvent, DEFAULT_SEND_TIMEOUT, Runtime};

use crate::{
    support::{
        counted::{Alive, Counted, counted},
        raw::{self, RawPeer},
        *,
    },
    tls::Authority,
};

/// A client at work on one connection.
const CONNECTED: Alive = Alive { tasks: 1, streams: 1, listeners: 0, timers: 1 };
const HOUR: Duration = Duration::from_secs(3600);

pub async fn between_any_two_steps_of_its_life<R: Runtime>() {
    counted!(C);
    let echo = Echo::start(server::<R>()).await;
    let at = echo.handle.place();
    // By name as well, for which a thread may have to be asked.
    for host in ["127.0.0.1", "localhost"] {
        let live = || live_through::<C<R>, R>(&echo, client_at(at).host(host));
        let polls = C::<R>::dropped_after_each_poll(live).await;
        assert!(polls >= 3, "{polls}");
    }
    echo.handle.close().soon::<R>().await;
}

pub async fn between_any_two_steps_of_its_life_over_tls<R: Runtime>() {
    counted!(C);
    let authority = Authority::new();
    let echo = Echo::start(authority.server::<R>("127.0.0.1")).await;
    let at = echo.handle.place();
    let live = || live_through::<C<R>, R>(&echo, client_at(at).tls(true).tls_ca(authority.ca()));
    let polls = C::<R>::dropped_after_each_poll(live).await;
    assert!(polls >= 3, "{polls}");
    echo.handle.close().soon::<R>().await;
}

/// A client's whole life: it connects, talks, is sent away, comes back, and goes.
async fn live_through<C: Runtime, R: Runtime>(echo: &Echo<R>, builder: ClientBuilder<C>) {
    let mut client = builder.start().unwrap();
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    assert!(matches!(client.told().await, Some(ClientEvent::Authenticated { .. })));
    client.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&client.message().await), 1);
    echo.handle.client(&client.address()).expect("it is there").close();
    client.disconnected().await;
    client.hears(|event| matches!(event, ClientEvent::Authenticated { .. }).then_some(())).await;
    client.close().await;
}

pub async fn between_any_two_steps_of_connect<R: Runtime>() {
    counted!(C);
    let echo = Echo::start(server::<R>()).await;
    let at = echo.handle.place();
    let connect = || async move { drop(client_at::<C<R>>(at).connect().await.unwrap()) };
    let polls = C::<R>::dropped_after_each_poll(connect).await;
    assert!(polls >= 1, "{polls}");
    // A future that nobody polls starts nothing.
    drop(client_at::<C<R>>(at).connect());
    assert_eq!(C::<R>::alive(), Alive::default());
    echo.handle.close().soon::<R>().await;
}

pub async fn while_it_dials<R: Runtime>() {
    counted!(C);
    C::<R>::let_dials_hang();
    let nowhere = place_of_its_own();
    let client = client_at::<C<R>>(nowhere).connect_timeout(HOUR).start().unwrap();
    C::<R>::reaches(Alive { tasks: 1, timers: 1, ..Alive::default() }).await;
    leaves_nothing(client).await;

    let connecting = client_at::<C<R>>(nowhere).connect_timeout(HOUR).connect();
    connecting.not_for_a_while::<R>().await;
    C::<R>::is_empty().await;
}

pub async fn while_nobody_upgrades_its_connection<R: Runtime>() {
    counted!(C);
    for tls in [false, true] {
        let (listener, at) = raw::listen();
        let builder = client_at::<C<R>>(at).connect_timeout(HOUR).tls(tls);
        let client = builder.start().unwrap();
        let silent = script(move || listener.accept().unwrap().0).soon::<R>().await;
        C::<R>::reaches(CONNECTED).await;
        leaves_nothing(client).await;
        is_at_its_end::<R>(silent).await;
    }
}

pub async fn while_the_server_does_not_prove_itself<R: Runtime>() {
    counted!(C);
    let (listener, at) = raw::listen();
    let mut client = client_at::<C<R>>(at).auth_timeout(HOUR).idle_timeout(HOUR).start().unwrap();
    let peer = script(move || RawPeer::accept(&listener)).soon::<R>().await;
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    C::<R>::reaches(CONNECTED).await;
    // Its peer answers nothing, not even the close.
    leaves_nothing(client).await;
    drop(peer);
}

pub async fn while_it_is_authenticated<R: Runtime>() {
    counted!(C);
    let (client, peer) = admitted::<C<R>, R>(|builder| builder).await;
    C::<R>::reaches(CONNECTED).await;
    leaves_nothing(client).await;
    drop(peer);
}

pub async fn while_messages_wait_for_a_server_that_does_not_read<R: Runtime>() {
    counted!(C);
    // Nobody but the send time-out is to notice.
    let timeout = Duration::from_secs(2);
    let (client, peer) =
        admitted::<C<R>, R>(|builder| builder.send_timeout(timeout).idle_timeout(Duration::ZERO)).await;
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.try_send(message)).await;
    assert_eq!(C::<R>::alive(), CONNECTED);
    leaves_nothing(client).await;
    drop(peer);
}

pub async fn while_messages_wait_and_no_time_out_is_set<R: Runtime>() {
    counted!(C);
    let off = Duration::ZERO;
    let options = |builder: ClientBuilder<_>| builder.send_timeout(off).idle_timeout(off);
    let (client, mut peer) = admitted::<C<R>, R>(options).await;
    send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.try_send(message)).await;
    let leaving = leaves_nothing(client);
    // It has the default time to send what it was given, and that only. The clock is put forward as often as the system
    // has taken another piece, and something comes, so that it looks at it.
    assert_eq!(C::<R>::alive(), CONNECTED);
    let time_passes = async {
        loop {
            C::<R>::put_forward(DEFAULT_SEND_TIMEOUT);
            // An error means that it is gone.
            let _ = peer.stream().write(&raw::frame(0x89, b"", false));
            pause::<R>(A_WHILE).await;
        }
    };
    select(pin!(leaving), pin!(time_passes)).await;
}

pub async fn while_it_waits_to_dial_again<R: Runtime>() {
    counted!(C);
    let builder = client_at::<C<R>>(place_of_its_own());
    let mut client = builder.reconnect_delay(HOUR).max_reconnect_delay(HOUR).start().unwrap();
    assert!(matches!(client.told().await, Some(ClientEvent::Error(_))));
    assert!(matches!(client.told().await, Some(ClientEvent::Reconnecting { .. })));
    C::<R>::reaches(Alive { tasks: 1, timers: 1, ..Alive::default() }).await;
    leaves_nothing(client).await;

    let builder = client_at::<C<R>>(place_of_its_own());
    let connecting = builder.reconnect_delay(HOUR).max_reconnect_delay(HOUR).connect();
    connecting.not_for_a_while::<R>().await;
    C::<R>::is_empty().await;
}

pub async fn when_it_has_given_up<R: Runtime>() {
    counted!(C);
    // Nobody has taken its last events: they wait for the program, and nothing waits with them.
    let builder = client_at::<C<R>>(place_of_its_own()).max_reconnect_attempts(0).event_capacity(1);
    let mut client = builder.start().unwrap();
    C::<R>::is_empty().await;
    assert!(matches!(client.told().await, Some(ClientEvent::Error(_))));
    assert!(matches!(client.told().await, Some(ClientEvent::ConnectionFailed(_))));
    leaves_nothing(client).await;

    // Somebody has: then nothing is left to be dropped.
    let builder = client_at::<C<R>>(place_of_its_own()).max_reconnect_attempts(0);
    let mut client = builder.start().unwrap();
    client.hears(|event| matches!(event, ClientEvent::ConnectionFailed(_)).then_some(())).await;
    C::<R>::is_empty().await;
    leaves_nothing(client).await;

    failure(client_at::<C<R>>(place_of_its_own()).max_reconnect_attempts(0).connect().soon::<R>().await);
    C::<R>::is_empty().await;
}

pub async fn while_nobody_takes_its_events<R: Runtime>() {
    counted!(C);
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client_at::<C<R>>(server.place()).event_capacity(1);
    let (client, peer) = join(builder.connect(), server.authenticated()).soon::<R>().await;
    for number in 0..1000 {
        peer.try_send(numbered_and_long(number, 2 << 10)).unwrap();
    }
    C::<R>::quiet().await;
    assert_eq!(C::<R>::alive(), CONNECTED);
    leaves_nothing(client.unwrap()).await;
    server.close().soon::<R>().await;
}

pub async fn by_a_close_that_nobody_waits_for<R: Runtime>() {
    counted!(C);
    let (client, peer) = admitted::<C<R>, R>(|builder| builder).await;
    let handle = client.handle();
    // The peer does not answer, so that it takes a while.
    match select(Box::pin(client.close()), Box::pin(pause::<R>(Duration::from_millis(100)))).await {
        Either::Left(_) => panic!("closed without the peer's answer"),
        Either::Right((_, closing)) => drop(closing),
    }
    C::<R>::is_empty().await;
    handle.close().soon::<R>().await;
    drop(peer);

    // Before it was polled, and by a handle.
    let (client, peer) = admitted::<C<R>, R>(|builder| builder).await;
    drop(client.close());
    C::<R>::is_empty().await;
    drop(peer);
    let (client, peer) = admitted::<C<R>, R>(|builder| builder).await;
    let handle = client.handle();
    assert!(within::<R, _>(Duration::from_millis(100), handle.close()).await.is_none());
    leaves_nothing(client).await;
    drop(peer);
}

/// Drops it, and nothing is there any more; though a handle is.
#[track_caller]
fn leaves_nothing<R: Runtime, Tag: 'static>(client: Client<Counted<R, Tag>>) -> impl Future<Output = ()> {
    let handle = client.handle();
    drop(client);
    let empty = Counted::<R, Tag>::is_empty();
    async move {
        empty.await;
        assert!(!handle.is_authenticated());
        handle.close().soon::<R>().await;
    }
}

/// A client, and a peer that has let it in and says and reads no more.
async fn admitted<C: Runtime, R: Runtime>(
    options: impl FnOnce(ClientBuilder<C>) -> ClientBuilder<C>,
) -> (Client<C>, RawPeer) {
    let (listener, at) = raw::listen();
    let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
    let (peer, client) = join(admit, options(client_at(at)).connect()).soon::<R>().await;
    (client.unwrap(), peer)
}

/// The other side has really let go of it.
async fn is_at_its_end<R: Runtime>(mut stream: TcpStream) {
    script(move || raw::all_of(&mut stream)).soon::<R>().await;
}
