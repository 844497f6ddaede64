//! Messages: what can be sent, how long it may be, and that it comes, whole and in order.

use std::time::Duration;

use futures_util::future::join;
use link_driver::{
    ClientError, ClientEvent, CloseReason, InvalidMessage, Message, Runtime, SendError, ServerError,
    ServerEvent, Violation,
};
use serde_json::{Value, json};
use tungstenite::Message as Frame;

use crate::support::{
    raw::{self, RawPeer},
    *,
};

const MIB: usize = 1 << 20;

/// An object of exactly so many bytes.
fn exactly(bytes: usize) -> Value {
    let filling = bytes - json!({ "filling": "" }).to_string().len();
    json!({ "filling": "x".repeat(filling) })
}

pub async fn ten_thousand_messages_come_in_order_both_ways<R: Runtime>() {
    const MANY: usize = 10_000;
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server);
    let (mut client, peer) = meet(&mut server, builder).await;
    for number in 0..MANY {
        client.try_send(numbered(number)).unwrap();
        peer.try_send(numbered(number)).unwrap();
    }
    let at_the_server = async {
        for number in 0..MANY {
            assert_eq!(number_of(&server.message().await.1), number);
        }
    };
    let at_the_client = async {
        for number in 0..MANY {
            assert_eq!(number_of(&client.message().await), number);
        }
    };
    join(at_the_server, at_the_client).soon::<R>().await;
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_mebibyte_goes_both_ways_and_a_byte_more_does_not<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let builder = client(&echo.handle);
    let (mut client, peer) = meet(&mut echo, builder).await;
    let largest = exactly(MIB);
    for _ in 0..3 {
        client.try_send(&largest).unwrap();
        let message = client.message().await;
        assert_eq!(message.as_str().len(), MIB);
        assert_eq!(message.json::<Value>().unwrap(), largest);
    }
    let too_large = exactly(MIB + 1);
    let refused = Err(SendError::TooLarge { size: MIB + 1, limit: MIB });
    assert_eq!(client.try_send(&too_large), refused);
    assert_eq!(peer.try_send(&too_large), refused);
    assert_eq!(echo.handle.try_send(&peer.address(), &too_large), refused);
    assert_eq!(echo.handle.broadcast(&too_large).map(drop), refused);
    // The line goes on as if nothing had been asked.
    client.try_send(numbered(1)).unwrap();
    assert_eq!(number_of(&client.message().await), 1);
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_server_takes_messages_up_to_its_limit<R: Runtime>() {
    const LIMIT: usize = 5000;
    let mut server = server::<R>().max_message_size(LIMIT).bind().await.unwrap();
    let builder = client(&server).max_reconnect_attempts(0);
    let (mut client, peer) = meet(&mut server, builder).await;
    client.try_send(exactly(LIMIT)).unwrap();
    assert_eq!(server.message().await.1.as_str().len(), LIMIT);
    assert_eq!(peer.try_send(exactly(LIMIT)), Ok(()), "either way");
    assert_eq!(client.message().await.as_str().len(), LIMIT);
    assert_eq!(peer.try_send(exactly(LIMIT + 1)), Err(SendError::TooLarge { size: LIMIT + 1, limit: LIMIT }));

    client.try_send(exactly(LIMIT + 1)).unwrap();
    assert_eq!(client.disconnected().await.0, CloseReason::PeerClosed { code: Some(1009) });
    let reason = CloseReason::Violation(Violation::MessageTooLarge { limit: LIMIT });
    assert_eq!(server.disconnected().await, (peer, reason));
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn a_client_takes_messages_up_to_its_limit<R: Runtime>() {
    const LIMIT: usize = 5000;
    let mut server = server::<R>().bind().await.unwrap();
    let builder = client(&server).max_message_size(LIMIT).max_reconnect_attempts(0);
    let (mut client, peer) = meet(&mut server, builder).await;
    peer.try_send(exactly(LIMIT)).unwrap();
    assert_eq!(client.message().await.as_str().len(), LIMIT);
    assert_eq!(
        client.try_send(exactly(LIMIT + 1)),
        Err(SendError::TooLarge { size: LIMIT + 1, limit: LIMIT })
    );

    peer.try_send(exactly(LIMIT + 1)).unwrap();
    let reason = CloseReason::Violation(Violation::MessageTooLarge { limit: LIMIT });
    assert_eq!(client.disconnected().await.0, reason);
    assert_eq!(server.disconnected().await, (peer, CloseReason::PeerClosed { code: Some(1009) }));
    client.close().soon::<R>().await;
    server.close().soon::<R>().await;
}

pub async fn the_smallest_limit_is_4_kib<R: Runtime>() {
    // What the protocol needs for itself.
    let mut echo = Echo::start(server::<R>().max_message_size(0)).await;
    let builder = client(&echo.handle).max_message_size(0);
    let (mut client, peer) = meet(&mut echo, builder).await;
    client.try_send(exactly(4 << 10)).unwrap();
    assert_eq!(client.message().await.as_str().len(), 4 << 10);
    let refused = Err(SendError::TooLarge { size: (4 << 10) + 1, limit: 4 << 10 });
    assert_eq!(client.try_send(exactly((4 << 10) + 1)), refused);
    assert_eq!(peer.try_send(exactly((4 << 10) + 1)), refused);
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_larger_limit_lets_larger_messages_through<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().max_message_size(3 * MIB)).await;
    let builder = client(&echo.handle).max_message_size(3 * MIB);
    let (mut client, _) = meet(&mut echo, builder).await;
    client.try_send(exactly(3 * MIB)).unwrap();
    assert_eq!(client.message().await.as_str().len(), 3 * MIB);
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn only_objects_without_a_reserved_type_can_be_sent<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let builder = client(&echo.handle);
    let (mut client, peer) = meet(&mut echo, builder).await;
    for reserved in ["authenticate", "heartbeat", "disconnect", "error"] {
        let refused = Err(SendError::Invalid(InvalidMessage::ReservedType(reserved)));
        assert_eq!(client.try_send(json!({ "type": reserved })), refused);
        assert_eq!(peer.try_send(json!({ "type": reserved })), refused);
        assert_eq!(
            client.try_send(Message::parse(json!({ "type": reserved }).to_string()).unwrap()),
            refused
        );
    }
    for no_object in [json!(null), json!([1]), json!("text"), json!(5)] {
        let refused = Err(SendError::Invalid(InvalidMessage::NotAnObject));
        assert_eq!(client.try_send(&no_object), refused);
        assert_eq!(peer.try_send(&no_object), refused);
        assert_eq!(echo.handle.broadcast(&no_object).map(drop), refused);
    }
    for fine in [json!({}), json!({ "type": 5 }), json!({ "type": "ok", "deep": { "type": "heartbeat" } })] {
        client.try_send(&fine).unwrap();
        assert_eq!(client.message().await.json::<Value>().unwrap(), fine);
    }
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn the_text_of_a_message_comes_byte_for_byte<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let builder = client(&echo.handle);
    let (mut client, _) = meet(&mut echo, builder).await;
    let text = " {\"type\" : \"caf\\u00e9\",\n\"n\":1.0e2,\"n\":2,\"smile\":\"😀\"}\t";
    client.try_send(Message::parse(text).unwrap()).unwrap();
    let message = client.message().await;
    assert_eq!(message.as_str(), text);
    assert_eq!(message.kind(), Some("café"));
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn any_json_a_peer_sends_is_a_message_and_other_text_an_error<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let texts =
        [r#"null"#, "[1,2]", r#""text""#, "5", r#"{"type":"disconnect"}"#, r#"{"type":"error"}"#, "{}"];
    let peer = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        for text in texts {
            peer.send_text(text);
        }
        // WIRE.md: a server also takes a binary frame holding the same JSON.
        peer.send_frame(Frame::binary(br#"{"type":"binary"}"#.as_slice()));
        for rubbish in ["rubbish", "", "{", "{\"type\":\"x\"}}"] {
            peer.send_text(rubbish);
        }
        peer.send_frame(Frame::binary([0xff, 0xfe].as_slice()));
        peer.send_text(r#"{"type":"last"}"#);
        peer
    });
    let (raw_peer, peer) = join(peer, server.authenticated()).soon::<R>().await;
    for text in texts.into_iter().chain([r#"{"type":"binary"}"#]) {
        let (from, message) = server.message().await;
        assert_eq!((from, message.as_str()), (peer.clone(), text));
    }
    for _ in 0..5 {
        match server.told().await {
            Some(ServerEvent::Error(ServerError::Violation { client: from, violation })) => {
                assert_eq!((from, violation), (peer.clone(), Violation::NotJson));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.message().await.1.kind(), Some("last"), "the connection goes on");
    drop(raw_peer);
    server.close().soon::<R>().await;
}

pub async fn a_client_takes_the_same_and_goes_on<R: Runtime>() {
    let (listener, at) = raw::listen();
    let texts = ["null", "[1,2]", r#"{"type":"disconnect"}"#, r#"{"type":"error"}"#];
    let peer = script(move || {
        let (mut peer, _) = RawPeer::admit(&listener, &wallet());
        for text in texts.into_iter().chain(["rubbish", r#"{"type":"last"}"#]) {
            peer.send_text(text);
        }
        peer
    });
    let (peer, client) = join(peer, client_at::<R>(at).connect()).soon::<R>().await;
    let mut client = client.unwrap();
    for text in texts {
        assert_eq!(client.message().await.as_str(), text);
    }
    let error = ClientEvent::Error(ClientError::Violation(Violation::NotJson));
    assert_eq!(client.told().await, Some(error));
    assert_eq!(client.message().await.kind(), Some("last"));
    drop(peer);
    client.close().soon::<R>().await;
}

pub async fn a_second_authenticate_changes_nothing<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let (at, first, second) = (echo.handle.local_address().unwrap(), wallet(), wallet());
    let (address, other) = (first.address(), second.address());
    let peer = script(move || {
        let mut peer = RawPeer::login(at, &first);
        peer.send(&raw::authenticate(&second, raw::unix_millis()));
        peer.send(&json!({ "type": "after" }));
        assert_eq!(peer.text(), r#"{"type":"after"}"#);
        peer
    });
    let (raw_peer, peer) = join(peer, echo.authenticated()).soon::<R>().await;
    assert_eq!(peer.address(), address);
    assert_eq!(echo.handle.client(&address), Some(peer));
    assert_eq!(echo.handle.client(&other), None);
    drop(raw_peer);
    echo.handle.close().soon::<R>().await;
}

pub async fn a_message_may_come_in_pieces_with_pings_between<R: Runtime>() {
    let mut server = server::<R>().bind().await.unwrap();
    let at = server.local_address().unwrap();
    let text = r#"{"type":"pieces","text":"caf\u00e9 é"}"#;
    let peer = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        // Cut in the middle of a character, even.
        let (first, rest) = text.as_bytes().split_at(text.len() - 3);
        peer.bytes(&raw::frame(0x01, first, true));
        peer.bytes(&raw::frame(0x89, b"between", true));
        peer.bytes(&raw::frame(0x00, b"", true));
        peer.bytes(&raw::frame(0x80, rest, true));
        loop {
            if let Frame::Pong(payload) = peer.frame() {
                assert_eq!(payload, b"between".as_slice());
                return peer;
            }
        }
    });
    let (peer, _) = join(peer, server.authenticated()).soon::<R>().await;
    assert_eq!(server.message().await.1.as_str(), text);
    drop(peer);
    server.close().soon::<R>().await;
}

pub async fn every_frame_may_come_byte_by_byte<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let text = r#"{"type":"drops"}"#;
    let peer = script(move || {
        use std::io::Write;
        let mut stream = raw::dial(at);
        // Not byte by byte: more than 64 packets are taken for an attack before the upgrade.
        let mut drip = |bytes: &[u8]| {
            for piece in bytes.chunks(8) {
                stream.write_all(piece).unwrap();
            }
        };
        drip(
            b"GET /any/path HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            answer.extend(byte);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // RFC 6455 §1.3 has this key and what is answered to it.
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        let mut peer = RawPeer::upgraded(stream);
        let proof = raw::authenticate(&wallet(), raw::unix_millis()).to_string();
        for text in [proof.as_str(), text] {
            for byte in raw::frame(0x81, text.as_bytes(), true) {
                peer.bytes(&[byte]);
            }
            peer.text();
        }
        peer
    });
    let (peer, _) = join(peer, echo.authenticated()).soon::<R>().await;
    bystander.notices_nothing().await;
    drop(peer);
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn sending_before_authentication_is_refused_and_kept_for_nobody<R: Runtime>() {
    let (listener, at) = raw::listen();
    let mut client = client_at::<R>(at).start().unwrap();
    assert_eq!(client.try_send(numbered(0)), Err(SendError::NotAuthenticated));
    let peer = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate().unwrap();
        peer
    });
    let mut peer = peer.soon::<R>().await;
    assert_eq!(client.told().await, Some(ClientEvent::Connected));
    assert_eq!(client.try_send(numbered(1)), Err(SendError::NotAuthenticated));
    assert!(!client.is_authenticated());
    assert_eq!(client.server(), None);
    // The server answers late, and only what was sent after that comes.
    client.next().not_for_a_while::<R>().await;
    let peer = script(move || {
        peer.send(&raw::authenticate(&wallet(), raw::unix_millis()));
        peer
    });
    let mut peer = peer.soon::<R>().await;
    assert!(matches!(client.told().await, Some(ClientEvent::Authenticated { .. })));
    client.try_send(numbered(2)).unwrap();
    let text = script(move || peer.text()).soon::<R>().await;
    assert_eq!(number_of(&Message::parse(text).unwrap()), 2);
    client.close().soon::<R>().await;
}

pub async fn what_a_server_says_right_after_its_answer_comes<R: Runtime>() {
    let (listener, at) = raw::listen();
    let peer = script(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.authenticate().unwrap();
        // One write: the answer, and messages at once, as a JavaScript server may.
        let mut bytes =
            raw::frame(0x81, raw::authenticate(&wallet(), raw::unix_millis()).to_string().as_bytes(), false);
        for number in 0..10 {
            let message = numbered_and_long(number, 10_000);
            bytes.extend(raw::frame(0x81, message.to_string().as_bytes(), false));
        }
        peer.bytes(&bytes);
        peer
    });
    let (peer, client) = join(peer, client_at::<R>(at).connect()).soon::<R>().await;
    let mut client = client.unwrap();
    for number in 0..10 {
        assert_eq!(number_of(&client.message().await), number);
    }
    drop(peer);
    client.close().soon::<R>().await;
}

pub async fn a_program_that_answers_at_once_is_not_too_early<R: Runtime>() {
    // The program sends on `Authenticated`; the client must get the server's proof first.
    let mut server = server::<R>().bind().await.unwrap();
    let handle = server.handle();
    R::spawn(async move {
        while let Some(event) = server.next().await {
            if let ServerEvent::Authenticated(peer) = event {
                peer.try_send(numbered(1)).unwrap();
            }
        }
    });
    for _ in 0..10 {
        let mut client = client(&handle).connect().soon::<R>().await.unwrap();
        assert_eq!(number_of(&client.message().await), 1);
        client.close().soon::<R>().await;
    }
    handle.close().soon::<R>().await;
}

pub async fn a_message_may_be_sent_at_any_time_of_an_idle_line<R: Runtime>() {
    let mut echo = Echo::start(server::<R>().heartbeat_interval(Duration::ZERO)).await;
    let builder = client(&echo.handle).heartbeat_interval(Duration::ZERO);
    let (mut client, _) = meet(&mut echo, builder).await;
    for number in 0..5 {
        // Both tasks sleep by now, and must be woken by the message alone.
        pause::<R>(Duration::from_millis(30)).await;
        client.try_send(numbered(number)).unwrap();
        assert_eq!(number_of(&client.message().await), number);
    }
    client.close().soon::<R>().await;
    echo.handle.close().soon::<R>().await;
}
