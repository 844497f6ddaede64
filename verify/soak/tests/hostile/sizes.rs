//! Each limit: at it, one below, one above.

use crate::*;

#[test]
fn sizes_around_each_limit() {
    let row = Row {
        sent: "HTTP heads, first messages, messages and pings: at the limit, one below, one above",
        attackers: 1,
        gets: "its answer; 431, 1009, 1002 one above",
        each: SOCKET + INCOMING + WAITING + UNSENT,
        shared: 0,
    };
    row.play(&[], |scene| {
        let at = scene.at;
        for (length, status) in [(MAX_HEAD - 1, "101"), (MAX_HEAD, "101"), (MAX_HEAD + 1, "431")] {
            let begin = "GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Long: ";
            let head = format!("{begin}{}\r\n\r\n", "x".repeat(length - begin.len() - 4));
            let mut stream = raw::dial(at);
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes(), "a head of {length} bytes");
        }
        for (length, gets_in) in [(FIRST_MESSAGE - 1, true), (FIRST_MESSAGE, true), (FIRST_MESSAGE + 1, false)] {
            let mut proof = authenticate(&wallet(), unix_millis());
            proof["padding"] = "".into();
            proof["padding"] = "x".repeat(length - proof.to_string().len()).into();
            let mut peer = RawPeer::open(at);
            peer.send(&proof);
            match gets_in {
                true => assert!(peer.text().contains("authenticate"), "a proof of {length} bytes"),
                false => assert_eq!(peer.until_the_end(), (vec![], Some(1009)), "a proof of {length} bytes"),
            }
        }
        for (length, comes_back) in [(MESSAGE - 1, true), (MESSAGE, true), (MESSAGE + 1, false)] {
            let text = message(length);
            let mut whole = login(at);
            whole.bytes(&frame(0x81, text.as_bytes(), true));
            let mut halves = login(at);
            halves.bytes(&frame(0x01, &text.as_bytes()[..length / 2], true));
            halves.bytes(&frame(0x80, &text.as_bytes()[length / 2..], true));
            for mut peer in [whole, halves] {
                match comes_back {
                    true => assert!(peer.text() == text, "a message of {length} bytes"),
                    false => assert_eq!(peer.until_the_end().1, Some(1009), "a message of {length} bytes"),
                }
            }
        }
        for (length, is_answered) in [(124, true), (125, true), (126, false)] {
            let payload = vec![7; length];
            let mut peer = login(at);
            peer.bytes(&frame(0x89, &payload, true));
            match is_answered {
                true => while peer.frame() != Frame::Pong(payload.clone().into()) {},
                false => assert_eq!(peer.until_the_end().1, Some(1002), "a ping of {length} bytes"),
            }
        }
    });
}
