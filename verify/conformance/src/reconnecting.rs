//! A client that comes back: when, how often, and what becomes of what it had to say.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::join;
use link_driver::{
    Client, ClientError, ClientEvent, CloseReason, DialError, FailureCause, GiveUp, Message, Runtime, Status,
};
use serde_json::Value;

use crate::support::{
    raw::{self, RawPeer},
    *,
};

const SHORT: Duration = Duration::from_millis(20);

/// What happens until the client is authenticated, or fails.
async fn attempts<R: Runtime>(client: &mut Client<R>) -> (Vec<(u32, Duration)>, ClientEvent) {
    let mut attempts = Vec::new();
    loop {
        match client.told().await.expect("it ends in one way or the other") {
            ClientEvent::Reconnecting { attempt, delay } => attempts.push((attempt, delay)),
            end @ (ClientEvent::Authenticated { .. } | ClientEvent::ConnectionFailed(_)) => {
                return (attempts, end);
            }
            _ => {}
        }
    }
}

pub async fn a_client_may_start_before_its_server<R: Runtime>() {
    let place = place_of_its_own();
    let mut client =
        client_at::<R>(place).max_reconnect_attempts(u32::MAX).max_reconnect_delay(SHORT).start();
    let client = client.as_mut().unwrap();
    assert!(matches!(
        client.told().await,
        Some(ClientEvent::Error(ClientError::Dial(DialError::Connect { .. })))
    ));
    assert!(matches!(client.told().await, Some(ClientEvent::Reconnecting { attempt: 1, .. })));
    let mut server = server::<R>().host(place.ip()).port(place.port()).bind().await.unwrap();
    let ((_, end), peer) = join(attempts(client), server.authenticated()).soon::<R>().await;
    let address = server.address();
    assert!(matches!(end, ClientEvent::Authenticated { server, .. } if server == address), "{end:?}");
    client.try_send(numbered(1)).unwrap();
    assert_eq!(server.message().await.0, peer);
    server.close().soon::<R>().await;
}

pub async fn connect_waits_for_a_server_that_comes_late<R: Runtime>() {
    let place = place_of_its_own();
    // However few events have room while nobody can take them.
    for capacity in [0, 1, 1024] {
        let builder = client_at::<R>(place)
            .event_capacity(capacity)
            .max_reconnect_attempts(u32::MAX)
            .max_reconnect_delay(SHORT);
        let late = async {
            pause::<R>(SHORT * 5).await;
            let mut server = server::<R>().host(place.ip()).port(place.port()).bind().await.unwrap();
            server.authenticated().await;
            server
        };
        let (client, server) = join(builder.connect(), late).soon::<R>().await;
        client.unwrap().close().soon::<R>().await;
        server.close().soon::<R>().await;
    }
}

pub async fn a_client_comes_back_to_a_server_that_was_restarted<R: Runtime>() {
    let place = place_of_its_own();
    let mut echo = Echo::start(server::<R>().host(place.ip()).port(place.port())).await;
    let builder = client_at(place).max_reconnect_attempts(u32::MAX).max_reconnect_delay(SHORT);
    let (mut client, _) = meet(&mut echo, builder).await;
    for round in 0..3 {
        echo.handle.close().soon::<R>().await;
        assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1001) });
        echo = Echo::start(server::<R>().host(place.ip()).port(place.port())).await;
        let (tried, end) = attempts(&mut client).await;
        assert!(!tried.is_empty());
        let address = echo.handle.address();
        assert!(matches!(end, ClientEvent::Authenticated { server, .. } if server == address), "{end:?}");
        client.try_send(numbered(round)).unwrap();
        assert_eq!(number_of(&client.message().await), round);
    }
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_client_gives_up_after_its_attempts<R: Runtime>() {
    let nobody = place_of_its_own();
    for (limit, delay) in [(0, 1), (1, 1), (3, 1), (3, 0)] {
        let mut client = client_at::<R>(nobody)
            .max_reconnect_attempts(limit)
            .reconnect_delay(Duration::from_millis(delay))
            .start()
            .unwrap();
        let (tried, end) = attempts(&mut client).await;
        assert!(tried.iter().map(|(attempt, _)| *attempt).eq(1..=limit), "{tried:?}");
        match end {
            ClientEvent::ConnectionFailed(failure) => {
                assert!(matches!(failure.cause, FailureCause::Dial(DialError::Connect { .. })));
                assert_eq!(failure.reason, GiveUp::Exhausted(limit));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(client.told().await, None);
        let failure_of_all = client.handle().closed().soon::<R>().await.unwrap_err();
        assert_eq!(failure_of_all.reason, GiveUp::Exhausted(limit));

        let outcome = client_at::<R>(nobody)
            .max_reconnect_attempts(limit)
            .reconnect_delay(Duration::from_millis(delay))
            .connect()
            .soon::<R>()
            .await;
        let (cause, reason) = failure(outcome);
        assert!(matches!(cause, FailureCause::Dial(DialError::Connect { .. })));
        assert!(cause.to_string().contains(&nobody.to_string()), "{cause}");
        assert_eq!(reason, GiveUp::Exhausted(limit));
    }
}

pub async fn delays_double_up_to_their_bound_and_are_waited_for<R: Runtime>() {
    let nobody = place_of_its_own();
    let (first, bound) = (Duration::from_millis(20), Duration::from_millis(50));
    let mut client = client_at::<R>(nobody)
        .max_reconnect_attempts(8)
        .reconnect_delay(first)
        .max_reconnect_delay(bound)
        .start()
        .unwrap();
    let began = R::now();
    let (tried, _) = attempts(&mut client).await;
    let took = R::now() - began;
    for (attempt, delay) in &tried {
        assert!(*delay <= bound.min(first * 2u32.pow(attempt - 1)), "{attempt}: {delay:?}");
    }
    assert!(tried.iter().map(|(_, delay)| *delay).sum::<Duration>() <= took);
    let mut delays: Vec<_> = tried.into_iter().map(|(_, delay)| delay).collect();
    delays.dedup();
    assert!(delays.len() > 1, "jitter: {delays:?}");
}

pub async fn a_session_that_lasted_starts_the_count_anew_and_a_shorter_one_does_not<R: Runtime>() {
    for (lasted, expected) in [(Duration::ZERO, [1, 1, 1]), (Duration::from_secs(3600), [1, 2, 3])] {
        let (listener, at) = raw::listen();
        let dropping = script(move || {
            for _ in 0..4 {
                drop(RawPeer::admit(&listener, &wallet()));
            }
        });
        let mut client = client_at::<R>(at)
            .reconnect_delay(Duration::from_millis(1))
            .reconnect_reset_after(lasted)
            .start()
            .unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(
                client
                    .hears(|event| match event {
                        ClientEvent::Reconnecting { attempt, .. } => Some(attempt),
                        _ => None,
                    })
                    .await,
            );
        }
        assert_eq!(seen, expected, "with sessions that lasted if they took {lasted:?}");
        dropping.soon::<R>().await;
        client.close().soon::<R>().await;
    }
}

pub async fn a_refusal_is_final_unless_one_asks_otherwise<R: Runtime>() {
    let friend = wallet();
    let mut server = server::<R>().whitelist([friend.address()]).bind().await.unwrap();
    let connecting = client(&server).connect();
    let (outcome, _) = join(connecting, server.rejected()).soon::<R>().await;
    let refused = FailureCause::Closed(CloseReason::RefusedByServer(Status::Forbidden));
    assert_eq!(failure(outcome), (refused.clone(), GiveUp::Final));

    let connecting = client(&server)
        .retry_refusals(true)
        .max_reconnect_attempts(2)
        .reconnect_delay(Duration::from_millis(1))
        .connect();
    let story = async {
        for _ in 0..3 {
            server.rejected().await;
        }
    };
    let (outcome, ()) = join(connecting, story).soon::<R>().await;
    assert_eq!(failure(outcome), (refused, GiveUp::Exhausted(2)));
    server.next().not_for_a_while::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn what_never_left_is_handed_back<R: Runtime>() {
    let (listener, at) = raw::listen();
    let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
    let connecting = client_at::<R>(at)
        .idle_timeout(PATIENCE * 2)
        .max_reconnect_attempts(0)
        .max_send_queue(1 << 20)
        .connect();
    let (mut never_read, client) = join(admit, connecting).soon::<R>().await;
    let mut client = client.unwrap();
    let sent = send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.try_send(message)).await;

    // The server says goodbye, and reads after all what was on its way.
    let reading = script(move || {
        never_read.close(1001);
        let mut numbers = Vec::new();
        loop {
            match never_read.frame() {
                tungstenite::Message::Text(text) => {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    numbers.push(usize::try_from(value["number"].as_u64().unwrap()).unwrap());
                }
                tungstenite::Message::Close(_) => return numbers,
                _ => {}
            }
        }
    });
    let (mut numbers, (reason, unsent)) = join(reading, client.disconnected()).soon::<R>().await;
    assert_eq!(reason, CloseReason::PeerClosed { code: Some(1001) });
    assert!(!unsent.is_empty());
    numbers.extend(unsent.iter().map(number_of));
    assert!(numbers.iter().copied().eq(0..sent), "each message arrived or came back, once and in order");
    assert!(matches!(client.told().await, Some(ClientEvent::ConnectionFailed(_))));
    client.close().soon::<R>().await;
}

pub async fn a_cut_hands_the_waiting_messages_back_in_order<R: Runtime>() {
    let (listener, at) = raw::listen();
    let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
    let connecting = client_at::<R>(at)
        .idle_timeout(PATIENCE * 2)
        .max_reconnect_attempts(0)
        .max_send_queue(1 << 20)
        .connect();
    let (never_read, client) = join(admit, connecting).soon::<R>().await;
    let mut client = client.unwrap();
    let sent = send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.try_send(message)).await;
    drop(never_read);
    let (reason, unsent) = client.disconnected().await;
    assert_eq!(reason, CloseReason::Lost);
    let first = number_of(unsent.first().expect("some were waiting"));
    assert!(unsent.iter().map(number_of).eq(first..sent), "the last ones, in order");
    let waiting: usize = unsent.iter().map(|message| message.as_str().len()).sum();
    assert!(waiting > 900 << 10, "the queue was full: {waiting} bytes");
    // They can be sent again as they are.
    let _: Message = unsent.into_iter().next().unwrap();
    client.close().soon::<R>().await;
}

/// A stream that takes so many bytes more, and then waits for ever or breaks.
struct Narrow<S> {
    stream: S,
    room: Arc<AtomicUsize>,
    breaks: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Narrow<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Narrow<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.room.load(Ordering::Relaxed);
        if room == 0 {
            return if self.breaks.load(Ordering::Relaxed) {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            } else {
                Poll::Pending
            };
        }
        let most = bytes.len().min(room);
        let polled = Pin::new(&mut self.stream).poll_write(cx, &bytes[..most]);
        if let Poll::Ready(Ok(written)) = &polled {
            self.room.fetch_sub(*written, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

pub async fn a_message_arrives_or_comes_back_unless_it_was_begun<R: Runtime>() {
    // Of what it was given, nothing comes back.
    if R::ASYNC_TUNGSTENITE {
        return;
    }
    // The line breaks, or the program leaves while it is stuck; short messages, and long ones of which a turn takes three.
    for (breaks, sent, bytes, room_for) in [
        (true, 400, 100, 200),
        (false, 400, 100, 10),
        (true, 30, 100_000, 10),
        (true, 30, 100_000, 11),
        (false, 30, 100_000, 10),
    ] {
        let (listener, at) = raw::listen();
        let admit = script(move || RawPeer::admit(&listener, &wallet()).0);
        let room = Arc::new(AtomicUsize::new(usize::MAX));
        let broken = Arc::new(AtomicBool::new(false));
        let (left, cut) = (room.clone(), broken.clone());
        let connecting = client_at::<R>(at)
            .idle_timeout(PATIENCE * 2)
            .send_timeout(A_WHILE)
            .max_reconnect_attempts(0)
            .max_send_queue(4 << 20)
            .connector(move |_| {
                let (room, breaks) = (left.clone(), cut.clone());
                async move {
                    let stream = R::connect(&at.ip().to_string(), at.port()).await?;
                    Ok(Narrow { stream, room, breaks })
                }
            })
            .connect();
        let (mut peer, client) = join(admit, connecting).soon::<R>().await;
        let mut client = client.unwrap();
        room.store(0, Ordering::Relaxed);
        for number in 0..sent {
            client.try_send(numbered_and_long(number, bytes)).unwrap();
        }
        room.store(room_for * bytes + bytes / 2, Ordering::Relaxed);
        broken.store(breaks, Ordering::Relaxed);
        let reading = script(move || {
            // Wakes the client.
            peer.send_frame(tungstenite::Message::Ping("".into()));
            let mut numbers = Vec::new();
            while let Some(text) = peer.try_text() {
                let value: Value = serde_json::from_str(&text).unwrap();
                numbers.push(usize::try_from(value["number"].as_u64().unwrap()).unwrap());
            }
            numbers
        });
        if !breaks {
            client.disconnect();
        }
        let (arrived, (reason, unsent)) = join(reading, client.disconnected()).soon::<R>().await;
        assert_eq!(reason, if breaks { CloseReason::Lost } else { CloseReason::Local });
        assert!(arrived.iter().copied().eq(0..arrived.len()), "{arrived:?}");
        let unsent: Vec<_> = unsent.iter().map(number_of).collect();
        // Where it was cut was within a frame, or between two.
        let first = arrived.len() + usize::from(unsent.first() != Some(&arrived.len()));
        assert!(
            unsent.iter().copied().eq(first..sent),
            "{} arrived, and back came {unsent:?}",
            arrived.len()
        );
        client.close().soon::<R>().await;
    }
}

pub async fn a_cut_while_the_program_is_behind_loses_none_of_the_waiting_messages<R: Runtime>() {
    let (listener, at) = raw::listen();
    let admit = script(move || {
        let (mut peer, _) = RawPeer::admit(&listener, &wallet());
        for number in 0..100 {
            peer.send(&numbered(number));
        }
        peer
    });
    let builder = client_at::<R>(at).idle_timeout(PATIENCE * 2).max_reconnect_attempts(0);
    let connecting = builder.event_capacity(1).max_send_queue(1 << 20).connect();
    let (never_read, client) = join(admit, connecting).soon::<R>().await;
    let mut client = client.unwrap();
    let sent = send_until_stuck::<R>(16 << 10, A_WHILE, |message| client.try_send(message)).await;
    drop(never_read);
    // The line is dead by now; the program has yet to hear of it.
    pause::<R>(A_WHILE).await;
    let (reason, unsent) = client
        .hears(|event| match event {
            ClientEvent::Disconnected { reason, unsent } => Some((reason, unsent)),
            _ => None,
        })
        .await;
    assert_eq!(reason, CloseReason::Lost);
    let first = number_of(unsent.first().expect("some were waiting"));
    assert!(unsent.iter().map(number_of).eq(first..sent), "the last ones, in order");
    let waiting: usize = unsent.iter().map(|message| message.as_str().len()).sum();
    assert!(waiting > 900 << 10, "the queue was full: {waiting} bytes");
    client.close().soon::<R>().await;
}

pub async fn something_else_than_a_websocket_server_is_named<R: Runtime>() {
    let (listener, at) = raw::listen();
    let http = script(move || {
        use std::io::{Read, Write};
        for answer in ["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "SSH-2.0-hello\r\n", ""] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for _ in 0..3 {
        let outcome = client_at::<R>(at).max_reconnect_attempts(0).connect().soon::<R>().await;
        let (cause, reason) = failure(outcome);
        assert!(matches!(cause, FailureCause::Dial(DialError::Upgrade { .. })), "{cause:?}");
        assert!(cause.to_string().contains(&at.to_string()), "{cause}");
        assert_eq!(reason, GiveUp::Exhausted(0));
    }
    http.soon::<R>().await;
}

pub async fn a_server_that_never_upgrades_is_given_up_after_the_connect_timeout<R: Runtime>() {
    let (listener, at) = raw::listen();
    let timeout = Duration::from_millis(100);
    let outcome =
        client_at::<R>(at).connect_timeout(timeout).max_reconnect_attempts(0).connect().soon::<R>().await;
    let (cause, _) = failure(outcome);
    assert!(matches!(cause, FailureCause::Dial(DialError::Timeout { timeout: t, .. }) if t == timeout));
    drop(listener);
}

pub async fn a_zero_connect_timeout_waits_as_long_as_it_takes<R: Runtime>() {
    let (_listener, at) = raw::listen();
    client_at::<R>(at).connect_timeout(Duration::ZERO).connect().not_for_a_while::<R>().await;
}
