//! `proofs-v1.json`: first frames, and what a server makes of them.

use std::{sync::Arc, time::Duration};

use link_core::{Config, Connection, Event, Frame, Instant, Now, Output, UnixMillis};
use serde::Serialize;

use super::{
    document, names,
    wallets::{CLIENT, OTHER, SERVER},
};
use crate::support::{WALL, authenticate, authenticate_as, high_s, text};

pub(crate) fn document() -> String {
    let cases: Vec<_> =
        cases().iter().map(|(name, text, clock)| document::json(&Case::judge(name, text, *clock))).collect();
    let window = Config::server(SERVER.clone()).auth_window;
    document::document("What a server makes of a first text frame", Some(window), "proofs", &cases)
}

#[derive(Serialize)]
struct Case<'a> {
    name: &'a str,
    clock: u64,
    text: &'a str,
    verdict: String,
    status: Option<String>,
    close: Option<u16>,
}

impl<'a> Case<'a> {
    /// Shows `text` to a fresh server whose wall clock says `clock`.
    fn judge(name: &'a str, first: &'a str, clock: u64) -> Self {
        let now = Now { mono: Instant::from_origin(Duration::ZERO), wall: UnixMillis::new(clock).unwrap() };
        let mut server = Connection::server(Arc::new(Config::server(SERVER.clone())), now);
        server.handle_frame(text(first), now);

        let (mut verdict, mut status, mut close) = (None, None, None);
        // A ticket that is dropped refuses, but only with the next input, which never comes.
        while let Some(output) = server.poll_output() {
            match output {
                Output::Event(Event::AdmissionRequested { .. }) => verdict = Some("accept".into()),
                Output::Event(Event::Closed { reason }) => verdict = Some(names::reason(&reason)),
                Output::Send(Frame::Text(text)) => status = Some(text.to_string()),
                Output::Send(Frame::Close(Some(frame))) => close = Some(frame.code),
                Output::CloseTransport => {}
                other => panic!("{name}: {other:?}"),
            }
        }
        Self { name, clock, text: first, verdict: verdict.unwrap(), status, close }
    }
}

/// A name, the frame, and what the server's clock says.
fn cases() -> Vec<(&'static str, String, u64)> {
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const FIVE: &str = "0000000000000000000000000000000000000000000000000000000000000005";

    let good = authenticate(&CLIENT, WALL);
    let a = CLIENT.address().to_string();
    let s = CLIENT.sign(&WALL.to_string()).to_string();
    let (r, s_and_id) = s.split_at(64);
    let r_and_s = &s[..128];

    let with = |old: &str, new: &str| {
        let changed = good.replace(old, new);
        assert_ne!(changed, good, "{old}");
        changed
    };
    let without = |member: &str| with(member, "");
    let first = |member: &str| with("{", &format!("{{{member},"));
    let last = |member: &str| with("}", &format!(",{member}}}"));
    let address = |new: &str| with(&a, new);
    let signature = |new: &str| with(&s, new);
    // The timestamp as it is written, and what is signed.
    let timestamp = |written: &str, signed: &str| authenticate_as(&CLIENT, written, signed);
    let long = |bytes: usize| first(&format!(r#""pad":"{}""#, "x".repeat(bytes - good.len() - 9)));

    vec![
        ("as every peer writes it", good.clone(), WALL),
        // The window.
        ("window, late, last", good.clone(), WALL + 5000),
        ("window, late, over", good.clone(), WALL + 5001),
        ("window, early, last", good.clone(), WALL - 5000),
        ("window, early, over", good.clone(), WALL - 5001),
        // The JSON.
        (
            "other order, space, further fields",
            format!(
                " {{ \"signature\" : \"{s}\", \"x\": [1, {{}}], \"timestamp\":\t{WALL},\r\n\
                 \"address\":\"{a}\",\"type\":\"authenticate\" }}\n"
            ),
            WALL,
        ),
        ("further field twice", first(r#""x":1,"x":2"#), WALL),
        (
            "escapes in fields",
            with("xe_", r"\u0078e_")
                .replace(r#""timestamp""#, r#""\u0074imestamp""#)
                .replace(r#""authenticate""#, r#""\u0061uthenticate""#),
            WALL,
        ),
        ("signature in upper case", signature(&s.to_uppercase()), WALL),
        ("byte order mark", format!("\u{feff}{good}"), WALL),
        ("not JSON", without("}"), WALL),
        ("trailing text", format!("{good}x"), WALL),
        ("null", "null".into(), WALL),
        ("array", format!("[{good}]"), WALL),
        // The type.
        ("no type", without(r#""type":"authenticate","#), WALL),
        ("other type", with(r#""authenticate""#, r#""Authenticate""#), WALL),
        ("type twice, last one counts: authenticate", first(r#""type":"x""#), WALL),
        ("type twice, last one counts: x", last(r#""type":"x""#), WALL),
        // The address.
        ("address missing", without(&format!(r#""address":"{a}","#)), WALL),
        ("address twice", last(&format!(r#""address":"{a}""#)), WALL),
        ("address null", with(&format!("\"{a}\""), "null"), WALL),
        ("address, all letters upper-case", address(&format!("xe_{}", a[3..].to_uppercase())), WALL),
        ("address, all letters lower-case", address(&a.to_lowercase()), WALL),
        ("address of somebody else", address(OTHER.address().as_str()), WALL),
        // The timestamp.
        ("timestamp missing", without(&format!(r#""timestamp":{WALL},"#)), WALL),
        ("timestamp twice", last(&format!(r#""timestamp":{WALL}"#)), WALL),
        ("timestamp as text", timestamp("\"1795372174071\"", "1795372174071"), WALL),
        ("timestamp with exponent", timestamp("1.795372174071e12", "1795372174071"), WALL),
        ("timestamp with fraction", timestamp("1795372174071.0", "1795372174071"), WALL),
        ("timestamp negative", timestamp("-1", "-1"), 0),
        ("timestamp minus zero", timestamp("-0", "0"), 0),
        ("timestamp with leading zero", timestamp("01795372174071", "1795372174071"), WALL),
        ("timestamp zero", timestamp("0", "0"), 0),
        ("timestamp 2^53-1", timestamp("9007199254740991", "9007199254740991"), (1 << 53) - 1),
        ("timestamp 2^53", timestamp("9007199254740992", "9007199254740992"), (1 << 53) - 1),
        ("timestamp null", timestamp("null", "null"), WALL),
        ("timestamp array", timestamp("[1795372174071]", "1795372174071"), WALL),
        ("any text that a wallet ever signed", timestamp("\"hello\"", "hello"), WALL),
        // The signature.
        ("signature over another time", with(&WALL.to_string(), &(WALL + 1).to_string()), WALL),
        ("signature missing", without(&format!(r#","signature":"{s}""#)), WALL),
        ("signature null", with(&format!("\"{s}\""), "null"), WALL),
        ("signature empty", signature(""), WALL),
        ("signature without recovery id", signature(r_and_s), WALL),
        ("signature with trailing digits", signature(&format!("{s}00")), WALL),
        ("signature not hex", signature(&format!("zz{}", &s[2..])), WALL),
        ("signature high-S", signature(&high_s(&s)), WALL),
        ("signature with the other recovery id", signature(&format!("{r_and_s}00")), WALL),
        ("signature with recovery id 2", signature(&format!("{r_and_s}02")), WALL),
        ("signature with recovery id 1b", signature(&format!("{r_and_s}1b")), WALL),
        ("signature, r zero", signature(&format!("{ZERO}{s_and_id}")), WALL),
        ("signature, s zero", signature(&format!("{r}{ZERO}01")), WALL),
        ("signature, r the group order", signature(&format!("{ORDER}{s_and_id}")), WALL),
        ("signature, r not on the curve", signature(&format!("{FIVE}{s_and_id}")), WALL),
        // What is judged first.
        ("stale and badly signed: the time is judged first", signature("00"), WALL + 5001),
        ("malformed and stale: the shape is judged first", with(&format!("\"{s}\""), "null"), WALL + 5001),
        ("4096 bytes", long(4096), WALL),
        ("4097 bytes", long(4097), WALL),
    ]
}
