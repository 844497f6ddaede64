//! Readers that do not read.

use crate::*;

#[test]
fn pings_into_a_closed_window_before_login() {
    let row = Row {
        sent: "pings, whose pongs it does not read, before login",
        attackers: 8,
        gets: "the end, by the deadline",
        each: STRANGER,
        shared: 0,
    };
    row.play(&["--auth-timeout", "2s"], |scene| {
        let pings = frame(0x89, &[7; 125], true).repeat(500);
        scene.all_at_once(|at| send_without_end(&mut RawPeer::open(at), &pings, Duration::ZERO));
        scene.until("they are ended", |stats| stats.rejected.values().sum::<u64>() == 8);
    });
}

#[test]
fn pings_into_a_closed_window_after_login() {
    let row = Row {
        sent: "pings, whose pongs it does not read, after login",
        attackers: 8,
        gets: "the end, as a slow peer",
        each: SOCKET + UNSENT,
        shared: 0,
    };
    row.play(&["--send-timeout", "1s"], |scene| {
        let pings = frame(0x89, &[7; 125], true).repeat(500);
        scene.all_at_once(|at| send_without_end(&mut login(at), &pings, Duration::ZERO));
        scene.until("they are ended", |stats| disconnected(stats, "slow_peer") == 8);
    });
}

#[test]
fn echoes_that_nobody_reads() {
    let row = Row {
        sent: "messages of 256 KiB without end, whose echoes it does not read",
        attackers: 6,
        gets: "the end, as a slow peer",
        each: SOCKET + INCOMING + WAITING + SEND_QUEUE + UNSENT,
        shared: 0,
    };
    row.play(&["--send-timeout", "1s"], |scene| {
        // Echoes that no queue of Link's has room for are not made; so it goes on until the system's buffers are full as well.
        let text = frame(0x81, message(256 * KIB).as_bytes(), true);
        let peers = scene.all_at_once(|at| {
            let mut peer = login(at);
            send_without_end(&mut peer, &text, Duration::from_millis(5));
            peer
        });
        scene.until("they are ended", |stats| disconnected(stats, "slow_peer") == 6);
        drop(peers);
    });
}

#[test]
fn broadcasts_that_some_do_not_read() {
    let row = Row {
        sent: "nothing, while 24 MiB are broadcast",
        attackers: 16,
        gets: "the end, as a slow peer",
        each: SOCKET + UNSENT,
        // A broadcast is shared by everybody who has yet to get it.
        shared: SEND_QUEUE + INCOMING + WAITING + UNSENT,
    };
    row.play(&[], |scene| {
        let peers = scene.each_in_turn(login);
        let mut speaker = login(scene.at);
        let text = format!(r#"{{"type":"broadcast","x":"{}"}}"#, "x".repeat(256 * KIB));
        for _ in 0..96 {
            speaker.send_text(&text);
            assert!(speaker.text() == text, "it hears itself");
        }
        scene.until("they are ended", |stats| disconnected(stats, "slow_peer") == 16);
        speaker.close(1000);
        drop(peers);
    });
}
