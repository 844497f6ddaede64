//! Many connections, many logins.

use crate::*;

#[test]
fn thousands_of_idle_sockets() {
    const IDLE: usize = 2000;
    const PLACES: usize = 1024;
    let row = Row {
        sent: "nothing",
        attackers: IDLE,
        gets: "503 at once, beyond 1,024 from one address; 408 at the deadline",
        each: 0,
        shared: PLACES * SOCKET,
    };
    row.play(&["--auth-timeout", "3s"], |scene| {
        // In pieces, each of which the server has seen before the next one: a system whose queue is full lets a connection seem
        // open to its client, and hands it over seconds later.
        let mut idle = Vec::new();
        while idle.len() < IDLE {
            idle.extend((0..100).map(|_| raw::dial(scene.at)));
            scene.until("the server sees them", |stats| {
                // The honest client is one of those accepted.
                (stats.accepted - 1 + stats.turned_away) as usize == idle.len()
            });
        }
        scene.until("the deadline", |stats| {
            assert!(stats.unauthenticated as usize <= PLACES, "{stats:?}");
            stats.turned_away as usize + rejected(stats, "authentication_timeout") >= IDLE
        });
        let stats = scene.server.stats();
        assert_eq!(stats.turned_away as usize + rejected(&stats, "authentication_timeout"), IDLE);
        assert!(stats.accepted as usize >= PLACES && stats.turned_away > 0, "{stats:?}");
        drop(idle);
    });
}

#[test]
fn a_storm_of_bad_logins() {
    let row = Row {
        sent: "bad proofs, stale or of somebody else, 60 one after the other",
        attackers: 8,
        gets: "401 each time",
        each: 4 * STRANGER,
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            for number in 0..60 {
                let mut peer = RawPeer::open(at);
                let mut proof = authenticate(&wallet(), unix_millis() - 60_000 * (number % 2));
                if number % 2 == 0 {
                    proof["address"] = wallet().address().to_string().into();
                }
                peer.send(&proof);
                let (texts, code) = peer.until_the_end();
                assert_eq!((&*texts[0], code), ("HTTP/1.1 401 Unauthorized\r\n\r\n", Some(4401)));
            }
        });
        scene.until("half and half", |stats| {
            (rejected(stats, "bad_signature"), rejected(stats, "stale_proof")) == (240, 240)
        });
    });
}

#[test]
fn replays() {
    let row = Row {
        sent: "a good proof, and the same one 5 times, 20 times over",
        attackers: 8,
        gets: "401 each time but the first",
        each: 4 * STRANGER,
        // Used proofs, of about 100 bytes each.
        shared: 8 * 20 * 100,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            for _ in 0..20 {
                let proof = authenticate(&wallet(), unix_millis());
                let mut owner = RawPeer::open(at);
                owner.send(&proof);
                assert!(owner.text().contains("authenticate"));
                for _ in 0..5 {
                    let mut peer = RawPeer::open(at);
                    peer.send(&proof);
                    let (texts, code) = peer.until_the_end();
                    assert_eq!((&*texts[0], code), ("HTTP/1.1 401 Unauthorized\r\n\r\n", Some(4401)));
                }
                // Its owner is still there.
                owner.send_text(r#"{"type":"there"}"#);
                assert_eq!(owner.text(), r#"{"type":"there"}"#);
            }
        });
        scene.until("all are refused", |stats| rejected(stats, "replayed") == 800);
    });
}

#[test]
fn heads_without_end() {
    let row = Row {
        sent: "an HTTP head of 16 KiB, a pause, and 1 MiB more of it",
        attackers: 64,
        gets: "431",
        each: SOCKET + HEAD,
        shared: 0,
    };
    row.play(&[], |scene| {
        let streams = scene.each_in_turn(|at| {
            let mut stream = raw::dial(at);
            let begin = "GET / HTTP/1.1\r\n";
            let headers = "X-More: and more\r\n".repeat((MAX_HEAD - begin.len()) / 18);
            stream.write_all(format!("{begin}{headers}").as_bytes()).unwrap();
            stream
        });
        scene.until("all are there", |stats| stats.unauthenticated == 64);
        let mut told = 0;
        for mut stream in streams {
            let more = "X-More: and more\r\n".repeat(MIB / 18);
            // The server may well end it in the middle.
            let _ = stream.write_all(more.as_bytes());
            let answer = raw::all_or_reset(&mut stream);
            // What is on its way when the other side's socket goes may be lost.
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
            told += usize::from(!answer.is_empty());
        }
        assert!(told > 0, "nobody heard why");
        scene.until("all are refused", |stats| rejected(stats, "websocket") == 64);
    });
}
