//! What waits for whom: bounds, and who feels it when one side is slow.

use std::{io::Write as _, time::Duration};

use futures_util::future::{join, join_all};
use link_driver::{Client, CloseReason, Message, Runtime, SendError};
use serde_json::json;
use tungstenite::Message as Frame;

use crate::support::{
    raw::{self, RawPeer},
    *,
};

const KIB: usize = 1 << 10;
const BOUND: usize = 256 * KIB;
const PIECE: usize = 16 * KIB;
/// Beyond what a test takes.
const LONG: Duration = Duration::from_secs(60);
/// A time-out, and how long nothing moves before a test calls it stuck: several time-outs.
const SHORT: Duration = Duration::from_millis(400);
const STUCK: Duration = Duration::from_millis(1300);

pub async fn a_full_queue_is_an_error_until_the_client_reads<R: Runtime>() {
    // Without any timer: nothing but the room itself wakes who waits for it.
    let builder = server::<R>().max_send_queue(BOUND).idle_timeout(LONG).auth_timeout(LONG);
    let builder = builder.heartbeat_interval(Duration::ZERO);
    let mut server = builder.bind().await.unwrap();
    let at = server.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    let (mut reader, peer) = join(login, server.authenticated()).soon::<R>().await;

    let sent = send_until_stuck::<R>(PIECE, A_WHILE, |message| peer.try_send(message)).await;
    let full = Err(SendError::Full { limit: BOUND });
    assert_eq!(peer.try_send(numbered_and_long(0, PIECE)), full);
    assert_eq!(server.handle().try_send(&peer.address(), numbered_and_long(0, PIECE)), full);
    assert!(peer.is_connected(), "a full queue ends nothing by itself");

    // The peer reads at last, and all that was taken comes.
    let read = script(move || {
        for number in 0..sent {
            assert_eq!(number_of(&Message::parse(reader.text()).unwrap()), number);
        }
        reader
    });
    let mut reader = read.soon::<R>().await;
    peer.try_send(numbered(sent)).unwrap();
    let last = script(move || reader.text()).soon::<R>().await;
    assert_eq!(number_of(&Message::parse(last).unwrap()), sent);
    server.close().soon::<R>().await;
}

pub async fn sending_waits_for_room_and_loses_nothing<R: Runtime>() {
    let mut server = server::<R>().max_send_queue(BOUND).bind().await.unwrap();
    let builder = client(&server).max_send_queue(BOUND);
    let (mut line, peer) = meet(&mut server, builder).await;
    const MANY: usize = 200;
    // Several times the bounds of both sides, and neither program reads while it sends.
    let from_client = async {
        for number in 0..MANY {
            line.send(numbered_and_long(number, PIECE)).await.unwrap();
        }
    };
    let at_server = async {
        for number in 0..MANY {
            let (from, message) = server.message().await;
            assert_eq!((from, number_of(&message)), (peer.clone(), number));
        }
    };
    join(from_client, at_server).soon::<R>().await;
    let from_server = async {
        for number in 0..MANY {
            peer.send(numbered_and_long(number, PIECE)).await.unwrap();
        }
    };
    let at_client = async {
        for number in 0..MANY {
            assert_eq!(number_of(&line.message().await), number);
        }
    };
    join(from_server, at_client).soon::<R>().await;
    line.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn whoever_waits_for_room_hears_of_the_end<R: Runtime>() {
    let builder = server::<R>().max_send_queue(BOUND).idle_timeout(LONG).send_timeout(LONG);
    let mut server = builder.bind().await.unwrap();
    let at = server.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    let (never_reads, peer) = join(login, server.authenticated()).soon::<R>().await;
    send_until_stuck::<R>(PIECE, A_WHILE, |message| peer.try_send(message)).await;
    let (sending, closed) = (peer.send(numbered_and_long(0, PIECE)), peer.closed());
    let gone = async {
        pause::<R>(A_WHILE).await;
        drop(never_reads);
    };
    let ((sent, reason), ()) = join(join(sending, closed), gone).soon::<R>().await;
    assert_eq!((sent, reason), (Err(SendError::Closed), CloseReason::Lost));
    assert_eq!((peer.closed().await, peer.close_reason()), (CloseReason::Lost, Some(&CloseReason::Lost)));
    server.close().soon::<R>().await;
}

pub async fn a_clients_full_queue_is_an_error_until_the_server_reads<R: Runtime>() {
    let (listener, at) = raw::listen();
    let builder = client_at::<R>(at).max_send_queue(BOUND).idle_timeout(LONG);
    let connecting = builder.auth_timeout(LONG).heartbeat_interval(Duration::ZERO).connect();
    let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
    let (mut reader, client) = join(admit, connecting).soon::<R>().await;
    let client = client.unwrap();

    let sent = send_until_stuck::<R>(PIECE, A_WHILE, |message| client.try_send(message)).await;
    assert_eq!(client.try_send(numbered_and_long(0, PIECE)), Err(SendError::Full { limit: BOUND }));
    assert!(client.is_authenticated());
    let read = script(move || {
        for number in 0..sent {
            assert_eq!(number_of(&Message::parse(reader.text()).unwrap()), number);
        }
        reader
    });
    let mut reader = read.soon::<R>().await;
    client.try_send(numbered(sent)).unwrap();
    let last = script(move || reader.text()).soon::<R>().await;
    assert_eq!(number_of(&Message::parse(last).unwrap()), sent);
    client.close().soon::<R>().await;
}

pub async fn one_message_fits_into_the_smallest_queue<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().max_send_queue(0)).await;
    let builder = client(&echo.handle).max_send_queue(0);
    let (mut client, _) = meet(&mut echo, builder).await;
    for number in 0..3 {
        client.try_send(numbered_and_long(number, PIECE)).unwrap();
        assert_eq!(number_of(&client.message().await), number);
    }
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_broadcast_reaches_everybody<R: Runtime>() {
    let echo = Echo::start(server::<R>()).await;
    assert_eq!(echo.handle.broadcast(numbered(0)), Ok(0));
    let connecting = (0..5).map(|_| client(&echo.handle).connect());
    let mut clients: Vec<_> =
        join_all(connecting).soon::<R>().await.into_iter().map(|client| client.unwrap()).collect();
    for number in 0..100 {
        assert_eq!(echo.handle.broadcast(numbered(number)), Ok(5));
    }
    for client in &mut clients {
        for number in 0..100 {
            assert_eq!(number_of(&client.message().await), number);
        }
    }
    join_all(clients.into_iter().map(Client::close)).soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_broadcast_drops_who_never_reads_and_delays_nobody_else<R: Runtime>() {
    const MANY: usize = 2000;
    let mut echo = Echo::start(server::<R>().max_send_queue(BOUND).idle_timeout(LONG)).await;
    let builder = client(&echo.handle);
    let (mut honest, _) = meet(&mut echo, builder).await;
    let at = echo.handle.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    let (never_reads, slow) = join(login, echo.authenticated()).soon::<R>().await;

    let mut dropped_at = None;
    for number in 0..MANY {
        let reached = echo.handle.broadcast(numbered_and_long(number, 4 * PIECE)).unwrap();
        assert!(reached >= 1);
        assert_eq!(number_of(&honest.message().await), number, "the honest client misses nothing");
        if reached == 1 {
            dropped_at = Some(number);
            break;
        }
    }
    assert!(dropped_at.is_some(), "after {MANY} broadcasts it is still there");
    assert_eq!(echo.disconnected().await, (slow.clone(), CloseReason::SlowPeer));
    assert_eq!(slow.try_send(numbered(0)), Err(SendError::Closed));
    assert_eq!(echo.handle.broadcast(numbered(MANY)), Ok(1));
    assert_eq!(number_of(&honest.message().await), MANY);
    drop(never_reads);
    honest.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn who_takes_nothing_for_as_long_as_the_send_timeout_is_dropped_however_much_it_talks<
    R: Runtime,
>() {
    let timeout = Duration::from_millis(800);
    let mut echo = Echo::start(server::<R>().send_timeout(timeout)).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let login = script(move || RawPeer::login(at, &wallet()));
    let (mut never_reads, slow) = join(login, echo.authenticated()).soon::<R>().await;
    let talk = script(move || {
        let pong = raw::frame(0x8a, b"", true);
        while never_reads.stream().write_all(&pong).is_ok() {
            std::thread::sleep(timeout / 20);
        }
    });
    let flood = async {
        loop {
            match slow.try_send(numbered_and_long(0, 4 * PIECE)) {
                Ok(()) => {}
                Err(SendError::Full { .. }) => pause::<R>(Duration::from_millis(5)).await,
                Err(error) => return error,
            }
        }
    };
    assert_eq!(flood.soon::<R>().await, SendError::Closed);
    assert_eq!(echo.disconnected().await, (slow, CloseReason::SlowPeer));
    talk.soon::<R>().await;
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_slow_program_stops_the_reads_and_loses_nothing<R: Runtime>() {
    let builder = server::<R>().event_capacity(4).idle_timeout(SHORT).heartbeat_interval(SHORT / 5);
    let mut server = builder.bind().await.unwrap();
    let builder = client(&server).max_send_queue(BOUND).idle_timeout(LONG).heartbeat_interval(SHORT / 5);
    let (client, peer) = meet(&mut server, builder).await;

    // The program takes no events: what it does not take stays with the client.
    let sent = send_until_stuck::<R>(PIECE, STUCK, |message| client.try_send(message)).await;
    assert!(sent * PIECE > BOUND);
    assert!(peer.is_connected(), "its silence says nothing while nobody listens");
    assert_eq!(server.clients(), std::slice::from_ref(&peer));

    // It comes back, and everything is there, in order.
    for number in 0..sent {
        let (from, message) = server.message().await;
        assert_eq!((from, number_of(&message)), (peer.clone(), number));
    }
    client.try_send(numbered(sent)).unwrap();
    assert_eq!(number_of(&server.message().await.1), sent);
    client.close().soon::<R>().await;
    assert_eq!(server.disconnected().await, (peer, CloseReason::PeerClosed { code: Some(1000) }));
    server.close().soon::<R>().await;
}

pub async fn a_slow_clients_program_stops_the_reads_and_loses_nothing<R: Runtime>() {
    let builder = server::<R>().max_send_queue(BOUND).idle_timeout(LONG).heartbeat_interval(SHORT / 5);
    let mut server = builder.bind().await.unwrap();
    let builder = client(&server).event_capacity(4).idle_timeout(SHORT).heartbeat_interval(SHORT / 5);
    let (mut client, peer) = meet(&mut server, builder).await;
    let sent = send_until_stuck::<R>(PIECE, STUCK, |message| peer.try_send(message)).await;
    assert!(client.is_authenticated());
    for number in 0..sent {
        assert_eq!(number_of(&client.message().await), number);
    }
    peer.try_send(numbered(sent)).unwrap();
    assert_eq!(number_of(&client.message().await), sent);
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn long_messages_wait_in_bytes_not_only_in_number<R: Runtime>() {
    // A thousand events have room by default. Of a thousand long ones, only the first few are read.
    let mut server = server::<R>().idle_timeout(LONG).bind().await.unwrap();
    let builder = client(&server).max_send_queue(BOUND).idle_timeout(LONG);
    let (client, _) = meet(&mut server, builder).await;
    let sent = send_until_stuck::<R>(8 * PIECE, A_WHILE, |message| client.try_send(message)).await;
    for number in 0..sent {
        assert_eq!(number_of(&server.message().await.1), number);
    }
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;

    // The same for a client, and for a session.
    let server = self::server::<R>().max_send_queue(BOUND).idle_timeout(LONG).bind().await.unwrap();
    let mut lobby = Lobby::new(server);
    let builder = self::client(&lobby.handle).max_send_queue(BOUND).idle_timeout(LONG);
    let (mut client, mut session) = lobby.meet(builder).await;
    let sent = send_until_stuck::<R>(8 * PIECE, A_WHILE, |message| client.try_send(message)).await;
    let back = send_until_stuck::<R>(8 * PIECE, A_WHILE, |message| session.try_send(message)).await;
    for number in 0..sent {
        assert_eq!(number_of(&session.next().soon::<R>().await.unwrap()), number);
    }
    for number in 0..back {
        assert_eq!(number_of(&client.message().await), number);
    }
    client.close().soon::<R>().await;
    drop(session);
    lobby.serving.close().soon::<R>().await;
}

pub async fn a_slow_program_still_sends<R: Runtime>() {
    // It takes no events, yet what it sends goes out: the two directions do not wait for each other.
    let mut server = server::<R>().event_capacity(1).idle_timeout(LONG).bind().await.unwrap();
    let builder = client(&server).max_send_queue(BOUND).idle_timeout(LONG);
    let (mut client, peer) = meet(&mut server, builder).await;
    send_until_stuck::<R>(PIECE, A_WHILE, |message| client.try_send(message)).await;
    for number in 0..100 {
        peer.try_send(numbered(number)).unwrap();
        assert_eq!(number_of(&client.message().await), number);
    }
    drop(client);
    server.close().soon::<R>().await;
}

pub async fn a_flood_of_pings_stalls_nobody<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let flood = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        let pings = raw::frame(0x89, &[7; 125], true).repeat(500);
        for _ in 0..40 {
            peer.bytes(&pings);
        }
        peer.send(&json!({ "type": "after the flood" }));
        assert_eq!(peer.text(), r#"{"type":"after the flood"}"#);
        peer.send_frame(Frame::Close(None));
    });
    let beside = async {
        for _ in 0..20 {
            bystander.notices_nothing().await;
        }
    };
    join(flood, beside).soon::<R>().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}
