//! What is announced, and does not come.

use crate::*;

#[test]
fn megabytes_announced_before_login() {
    let row = Row {
        sent: "the header of a 1 MiB message, before login",
        attackers: 512,
        gets: "1009 at once",
        each: SOCKET,
        shared: 0,
    };
    row.play(&[], |scene| {
        let peers = scene.each_in_turn(|at| {
            let mut peer = RawPeer::open(at);
            peer.bytes(&announcement(MESSAGE));
            peer
        });
        for mut peer in peers {
            assert_eq!(peer.until_the_end().1, Some(1009));
        }
    });
}

#[test]
fn megabytes_announced_after_login() {
    let row = Row {
        sent: "the header of a 1 MiB message, after login, and no more",
        attackers: 256,
        gets: "408, as silent",
        each: SOCKET,
        shared: 0,
    };
    row.play(&["--client-timeout", "5s"], |scene| {
        let peers = scene.each_in_turn(|at| {
            let mut peer = login(at);
            peer.bytes(&announcement(MESSAGE));
            peer
        });
        scene.until("they count as silent", |stats| disconnected(stats, "idle") == 256);
        drop(peers);
    });
}

#[test]
fn megabytes_that_lack_a_byte() {
    let row = Row {
        sent: "a 1 MiB message but for its last byte",
        attackers: 32,
        gets: "408, as silent",
        each: SOCKET + INCOMING,
        shared: 0,
    };
    row.play(&["--client-timeout", "5s"], |scene| {
        let peers = scene.each_in_turn(|at| {
            let mut peer = login(at);
            peer.bytes(&announcement(MESSAGE));
            peer.bytes(&vec![b' '; MESSAGE - 1]);
            peer
        });
        scene.until("they count as silent", |stats| disconnected(stats, "idle") == 32);
        drop(peers);
    });
}

#[test]
fn a_megabyte_once_and_then_nothing() {
    let row = Row {
        sent: "one message of 1 MiB, and its echo read",
        attackers: 32,
        gets: "nothing: it is honest",
        // The room that it came in is given back once a KiB more has come; what was sent has left nothing.
        each: SOCKET + MESSAGE,
        shared: WAITING,
    };
    row.play(&[], |scene| {
        let text = message(MESSAGE);
        let mut peers = scene.each_in_turn(|at| {
            let mut peer = login(at);
            peer.send_text(&text);
            assert!(peer.text() == text);
            peer
        });
        scene.until("all are there", |stats| stats.authenticated == 33);
        for peer in &mut peers {
            peer.close(1000);
        }
    });
}
