//! Odd JSON.

use crate::*;

#[test]
fn deep_and_double_json() {
    let row = Row {
        sent: "JSON 100,000 deep, keys 100,000 times over, keys of 500 kB, odd numbers and surrogates",
        attackers: 8,
        gets: "each of them back, byte for byte",
        each: SOCKET + INCOMING + WAITING + UNSENT,
        shared: 0,
    };
    row.play(&[], |scene| {
        let deep = |open: &str, close: &str| {
            format!(r#"{{"type":"deep","x":{}1{}}}"#, open.repeat(100_000), close.repeat(100_000))
        };
        let odd = [
            deep("[", "]"),
            deep(r#"{"x":"#, "}"),
            deep(r#"[{"":"#, "}]"),
            format!(r#"{{"type":"many",{}"z":0}}"#, r#""k":0,"#.repeat(100_000)),
            format!(r#"{{"type":"long","{}":1}}"#, "k".repeat(500_000)),
            r#"{"type":"a","type":"b","x":1e400,"y":-0,"z":"\ud800"}"#.into(),
        ];
        scene.all_at_once(|at| {
            let mut peer = login(at);
            for text in &odd {
                peer.send_text(text);
                assert!(peer.text() == *text, "{} comes back as it was", &text[..40]);
            }
            peer.close(1000);
        });
    });
}

#[test]
fn deep_and_double_first_messages() {
    let row = Row {
        sent: "as its first message, JSON 2,000 deep, or a proof with each field twice",
        attackers: 64,
        gets: "1008 or 401",
        each: STRANGER,
        shared: 0,
    };
    row.play(&[], |scene| {
        let proof = authenticate(&wallet(), unix_millis()).to_string();
        let inner = &proof[1..proof.len() - 1];
        let double = format!("{{{inner},{inner}}}");
        let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
        scene.all_at_once(|at| {
            for (text, code) in [(&deep, 1008), (&double, 4401)] {
                let mut peer = RawPeer::open(at);
                peer.send_text(text);
                assert_eq!(peer.until_the_end().1, Some(code));
            }
        });
    });
}
