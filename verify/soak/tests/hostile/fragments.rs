//! Messages in pieces, without end.

use crate::*;

#[test]
fn empty_fragments_without_end_before_login() {
    let row = Row {
        sent: "empty fragments without end, before login",
        attackers: 8,
        gets: "408 at the deadline",
        each: STRANGER,
        shared: 0,
    };
    row.play(&["--auth-timeout", "1s"], |scene| {
        scene.all_at_once(|at| {
            let mut peer = RawPeer::open(at);
            peer.bytes(&frame(0x01, b"", true));
            send_without_end(&mut peer, &frame(0x00, b"", true).repeat(1000), Duration::ZERO);
        });
        scene.until("the deadline", |stats| rejected(stats, "authentication_timeout") == 8);
    });
}

#[test]
fn empty_fragments_without_end_after_login() {
    let row = Row {
        sent: "empty fragments without end, after login",
        attackers: 8,
        gets: "408, as silent",
        each: SOCKET,
        shared: 0,
    };
    row.play(&["--client-timeout", "5s"], |scene| {
        scene.all_at_once(|at| {
            let mut peer = login(at);
            peer.bytes(&frame(0x01, b"", true));
            send_without_end(&mut peer, &frame(0x00, b"", true).repeat(1000), Duration::ZERO);
        });
        scene.until("they count as silent", |stats| disconnected(stats, "idle") == 8);
    });
}

#[test]
fn fragments_of_some_bytes_without_end() {
    let row = Row {
        sent: "fragments of 16 bytes, beyond the limit",
        attackers: 8,
        gets: "1009",
        each: SOCKET + INCOMING,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            let mut peer = login(at);
            peer.bytes(&frame(0x01, &[b' '; 16], true));
            peer.bytes(&frame(0x00, &[b' '; 16], true).repeat(MESSAGE / 16));
            assert_eq!(peer.until_the_end().1, Some(1009));
        });
    });
}

#[test]
fn fragments_of_a_kilobyte_without_end() {
    let row = Row {
        sent: "fragments of 1,000 bytes, beyond the limit",
        attackers: 8,
        gets: "1009",
        each: SOCKET + INCOMING,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            let mut peer = login(at);
            peer.bytes(&frame(0x01, &[b' '; 1000], true));
            peer.bytes(&frame(0x00, &[b' '; 1000], true).repeat(MESSAGE / 1000 + 1));
            assert_eq!(peer.until_the_end().1, Some(1009));
        });
    });
}
