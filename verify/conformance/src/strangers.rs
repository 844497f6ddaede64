//! What a server bears from those who have not proved who they are, and what it answers.

use std::{
    io::{Read, Write},
    time::Duration,
};

use futures_util::future::join;
use link_driver::{CloseReason, Runtime, Violation};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{
    raw::{self, RawPeer, authenticate, unix_millis},
    *,
};

const SHORT: Duration = Duration::from_millis(200);
const TIMED_OUT: CloseReason = CloseReason::AuthenticationTimeout(SHORT);
const ANSWER_408: &str = "HTTP/1.1 408 Request Timeout\r\n\r\n";

pub async fn a_tcp_connection_that_never_upgrades_is_answered_408_and_ended<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().auth_timeout(SHORT)).await;
    let at = echo.handle.local_address().unwrap();
    for said in ["", "GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"] {
        let answer = script(move || raw::answer_to(at, said.as_bytes()));
        let (answer, rejected) = join(answer, echo.rejected()).soon::<R>().await;
        assert_eq!(answer, ANSWER_408, "after {said:?}");
        assert_eq!(rejected, (None, TIMED_OUT));
    }
    let mut bystander = Bystander::of(&mut echo).await;
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_dripping_upgrade_does_not_outlive_the_deadline<R: Runtime>() {
    let mut server = server::<R>().auth_timeout(SHORT).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let answer = script(move || {
        let mut stream = raw::dial(at);
        let mut dripping = stream.try_clone().unwrap();
        let drip = std::thread::spawn(move || {
            let header = b"GET / HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a'));
            for byte in header.take(2000) {
                if dripping.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        drip.join().unwrap();
        answer
    });
    let (answer, rejected) = join(answer, server.rejected()).soon::<R>().await;
    assert_eq!(answer, ANSWER_408);
    assert_eq!(rejected.1, TIMED_OUT);
    server.close().soon::<R>().await;
}

pub async fn the_deadline_counts_from_the_tcp_connection<R: Runtime>() {
    let timeout = Duration::from_secs(2);
    let mut server = server::<R>().auth_timeout(timeout).bind().await.unwrap();
    let at = server.local_address().unwrap();
    let seen = script(move || {
        let stream = raw::dial(at);
        std::thread::sleep(timeout * 3 / 4);
        RawPeer::open_on(stream).until_the_end()
    });
    let began = R::now();
    let (seen, _) = join(seen, server.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec![ANSWER_408.into()], Some(4408)));
    assert!(R::now() - began < timeout * 3 / 2, "the upgrade did not start it anew");
    server.close().soon::<R>().await;
}

pub async fn a_websocket_that_says_nothing_is_told_408_in_a_text_frame<R: Runtime>() {
    let mut server = server::<R>().auth_timeout(SHORT).bind().await.unwrap();
    let at = server.local_address().unwrap();
    // Pings are no proof.
    for pinging in [false, true] {
        let seen = script(move || {
            let mut peer = RawPeer::open(at);
            if pinging {
                peer.send_frame(Message::Ping(b"anybody?".as_slice().into()));
            }
            peer.until_the_end()
        });
        let (seen, rejected) = join(seen, server.rejected()).soon::<R>().await;
        assert_eq!(seen, (vec![ANSWER_408.into()], Some(4408)));
        assert_eq!(rejected, (None, TIMED_OUT));
    }
    server.close().soon::<R>().await;
}

pub async fn a_zero_auth_timeout_switches_the_deadline_off<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().auth_timeout(Duration::ZERO)).await;
    let at = echo.handle.local_address().unwrap();
    let (tcp, upgraded) = script(move || (raw::dial(at), RawPeer::open(at))).soon::<R>().await;
    echo.connected().await;
    echo.next_event().not_for_a_while::<R>().await;

    // The window for timestamps stays.
    let stale = script(move || {
        let mut peer = upgraded;
        peer.send(&authenticate(&wallet(), unix_millis() - 60_000));
        peer.until_the_end()
    });
    let (seen, rejected) = join(stale, echo.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec!["HTTP/1.1 401 Unauthorized\r\n\r\n".into()], Some(4401)));
    assert_eq!(rejected.1, CloseReason::Violation(Violation::StaleProof));
    let builder = client(&echo.handle);
    let (honest, _) = meet(&mut echo, builder).await;
    honest.close().soon::<R>().await;
    drop(tcp);
    echo.handle.close().soon::<R>().await;
}

pub async fn the_check_interval_rounds_the_deadline_up<R: Runtime>() {
    let hour = Duration::from_secs(3600);
    let mut echo = Echo::start(server::<R>().auth_timeout(SHORT / 4).auth_check_interval(hour)).await;
    let at = echo.handle.local_address().unwrap();
    let silent = script(move || RawPeer::open(at));
    let (silent, _) = join(silent, echo.connected()).soon::<R>().await;
    // Longer than the default interval of a second.
    echo.next_event().not_within::<R>(Duration::from_millis(1200)).await;
    drop(silent);
    assert_eq!(echo.rejected().await.1, CloseReason::Lost);
    echo.handle.close().soon::<R>().await;
}

pub async fn plain_http_is_answered_426_and_rubbish_400<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    for (said, status) in [
        (&b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"[..], "HTTP/1.1 426 Upgrade Required\r\n"),
        (
            b"GET /favicon.ico HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n",
            "HTTP/1.1 426 Upgrade Required\r\n",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        (b"\0\0\0\0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        (b"rubbish\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        (
            b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
        ),
    ] {
        let answer = script(move || raw::answer_to(at, said));
        let (answer, rejected) = join(answer, echo.rejected()).soon::<R>().await;
        let said = String::from_utf8_lossy(said);
        assert!(answer.starts_with(status), "{said:?} was answered {answer:?}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer:?}");
        assert_eq!(rejected, (None, CloseReason::Violation(Violation::WebSocket)), "{said:?}");
    }
    // However much more is on its way, the answer is not overtaken by a reset.
    let answer = script(move || {
        let mut said = b"rubbish\r\n\r\n".to_vec();
        said.resize(1 << 20, 0);
        raw::answer_to(at, &said)
    });
    let (answer, _) = join(answer, echo.rejected()).soon::<R>().await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer:?}");
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn endless_headers_are_refused<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    // One header that is too long, and never ends.
    let answer =
        script(move || raw::answer_to(at, format!("GET / HTTP/1.1\r\nX-Long: {:20000}", "x").as_bytes()));
    let (answer, rejected) = join(answer, echo.rejected()).soon::<R>().await;
    assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer:?}");
    assert_eq!(rejected, (None, CloseReason::Violation(Violation::WebSocket)));

    // And more of them than fit into anything.
    script(move || {
        let mut stream = raw::dial(at);
        let mut headers = b"GET / HTTP/1.1\r\n".to_vec();
        for _ in 0..100_000 {
            headers.extend(b"X-More: and more\r\n");
        }
        // The server may well end it in the middle.
        let _ = stream.write_all(&headers);
        let _ = stream.read_to_end(&mut Vec::new());
    })
    .soon::<R>()
    .await;
    echo.rejected().await;
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn leaving_before_the_upgrade_is_no_event_for_anybody_else<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    for said in ["", "GET / HT"] {
        script(move || raw::dial(at).write_all(said.as_bytes()).unwrap()).soon::<R>().await;
        assert_eq!(echo.rejected().await, (None, CloseReason::Lost));
    }
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn before_authentication_a_message_may_have_4_kib<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let at = echo.handle.local_address().unwrap();
    let padded = |size: usize| {
        let mut proof = authenticate(&wallet(), unix_millis());
        proof["padding"] = json!("");
        let padding = size - proof.to_string().len();
        proof["padding"] = json!("x".repeat(padding));
        assert_eq!(proof.to_string().len(), size);
        proof
    };
    let proof = padded(4 << 10);
    let answer = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&proof);
        peer.text()
    });
    let (answer, _) = join(answer, echo.authenticated()).soon::<R>().await;
    assert!(answer.contains(r#""type":"authenticate""#));
    assert_eq!(echo.disconnected().await.1, CloseReason::Lost);

    let proof = padded((4 << 10) + 1);
    let seen = script(move || {
        let mut peer = RawPeer::open(at);
        peer.send(&proof);
        peer.until_the_end()
    });
    let (seen, rejected) = join(seen, echo.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec![], Some(1009)));
    assert_eq!(rejected.1, CloseReason::Violation(Violation::MessageTooLarge { limit: 4 << 10 }));
    echo.handle.close().soon::<R>().await;
}

pub async fn a_stranger_who_announces_a_megabyte_is_closed_before_it_comes<R: Runtime>() {
    // Its limit on a message that is on its way cannot change.
    if R::ASYNC_TUNGSTENITE {
        return;
    }
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    for first in [0x81, 0x82, 0x01] {
        let seen = script(move || {
            let mut peer = RawPeer::open(at);
            // The header alone: 1 MiB under a mask.
            peer.bytes(&[first, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]);
            peer.until_the_end()
        });
        let (seen, rejected) = join(seen, echo.rejected()).soon::<R>().await;
        assert_eq!(seen, (vec![], Some(1009)));
        assert_eq!(rejected.1, CloseReason::Violation(Violation::MessageTooLarge { limit: 4 << 10 }));
    }
    // In pieces, each of them short.
    let seen = script(move || {
        let mut peer = RawPeer::open(at);
        peer.bytes(&raw::frame(0x01, &[b' '; 100], true));
        for _ in 0..40 {
            peer.bytes(&raw::frame(0x00, &[b' '; 100], true));
        }
        peer.until_the_end()
    });
    let (seen, _) = join(seen, echo.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec![], Some(1009)));
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn whoever_does_not_begin_with_a_proof_is_closed_without_a_text<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    for (said, violation) in [
        ("hello", Violation::NotJson),
        ("", Violation::NotJson),
        ("{\"type\":\"authenticate\"", Violation::NotJson),
        ("null", Violation::UnexpectedMessage),
        ("[]", Violation::UnexpectedMessage),
        ("{}", Violation::UnexpectedMessage),
        (r#"{"type":"greeting"}"#, Violation::UnexpectedMessage),
        (r#"{"type":["authenticate"]}"#, Violation::UnexpectedMessage),
    ] {
        let seen = script(move || {
            let mut peer = RawPeer::open(at);
            peer.send_text(said);
            peer.until_the_end()
        });
        let (seen, rejected) = join(seen, echo.rejected()).soon::<R>().await;
        assert_eq!(seen, (vec![], Some(1008)), "after {said:?}");
        assert_eq!(rejected, (None, CloseReason::Violation(violation)), "after {said:?}");
    }
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_bad_proof_is_answered_401<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let good = || authenticate(&wallet(), unix_millis());
    let with = |field: &str, value: Value| {
        let mut proof = good();
        proof[field] = value;
        proof
    };
    let without = |field: &str| {
        let mut proof = good();
        proof.as_object_mut().unwrap().remove(field);
        proof
    };
    let signature = good()["signature"].as_str().unwrap().to_owned();
    for proof in [
        json!({ "type": "authenticate" }),
        without("address"),
        without("timestamp"),
        without("signature"),
        with("signature", Value::Null),
        with("signature", json!("00")),
        with("signature", json!("z".repeat(130))),
        with("signature", json!("0".repeat(130))),
        with("signature", json!("f".repeat(130))),
        with("signature", json!(signature)),
        with("signature", json!(signature + "00")),
        with("timestamp", json!(unix_millis().to_string())),
        with("timestamp", json!(1.7e12)),
        with("timestamp", json!(-1)),
        with("timestamp", json!([unix_millis()])),
        with("address", json!(wallet().address())),
        with("address", json!("xe_0000000000000000000000000000000000000000")),
    ] {
        let said = proof.clone();
        let seen = script(move || {
            let mut peer = RawPeer::open(at);
            peer.send(&said);
            peer.until_the_end()
        });
        let (seen, (address, _)) = join(seen, echo.rejected()).soon::<R>().await;
        assert_eq!(seen, (vec!["HTTP/1.1 401 Unauthorized\r\n\r\n".into()], Some(4401)), "{proof}");
        assert_eq!(address, None, "{proof}");
    }
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}
