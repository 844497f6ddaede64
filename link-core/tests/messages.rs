//! Messages: what is one, what its kind is, what may be sent, and how long it may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

use std::collections::BTreeMap;

use link_core::{CloseReason, Frame, InvalidMessage, Message, Misuse, RESERVED_TYPES, Role, Violation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use support::*;

const ROLES: [Role; 2] = [Role::Server, Role::Client];

fn live(role: Role, max_message_size: usize) -> Peer {
    let mut config = if role == Role::Server { server_config() } else { client_config() };
    config.max_message_size = max_message_size;
    Peer::authenticated(role, config)
}

/// A JSON text of exactly this many bytes.
fn of_size(size: usize) -> String {
    format!(r#"{{"type":"x","p":"{}"}}"#, "p".repeat(size - 19))
}

#[test]
fn the_kind_is_the_text_in_type() {
    for (json, kind) in [
        (r#"{"type":"greeting"}"#, Some("greeting")),
        (r#"{"a":1,"type":"greeting","b":[{}]}"#, Some("greeting")),
        (" \t\r\n{ \"type\"\n:\t\"greeting\" } \n", Some("greeting")),
        (r#"{"type":""}"#, Some("")),
        (r#"{"type":"Grüße 👋"}"#, Some("Grüße 👋")),
        // Escapes say the same.
        (r#"{"type":"gr\u0065eting"}"#, Some("greeting")),
        (r#"{"\u0074ype":"greeting"}"#, Some("greeting")),
        (r#"{"type":"\"\\\/\n"}"#, Some("\"\\/\n")),
        (r#"{"type":"\ud83d\ude00"}"#, Some("😀")),
        // As in JavaScript, the last one counts.
        (r#"{"type":"first","type":"last"}"#, Some("last")),
        (r#"{"type":"first","\u0074ype":"last"}"#, Some("last")),
        (r#"{"type":"first","type":7}"#, None),
        (r#"{"type":7,"type":"last"}"#, Some("last")),
        // Only its own.
        (r#"{"body":{"type":"inner"}}"#, None),
        (r#"{"body":{"type":"inner"},"type":"outer"}"#, Some("outer")),
        (r#"{"type":"outer","body":[{"type":"inner"}]}"#, Some("outer")),
        (r#"{"Type":"x","TYPE":"x","typ":"x","types":"x"}"#, None),
        // Only a text.
        (r#"{"type":null}"#, None),
        (r#"{"type":["greeting"]}"#, None),
        (r#"{"type":{"type":"greeting"}}"#, None),
        (r#"{"type":1e400}"#, None),
        // A lone surrogate is no text that anybody could ask for; elsewhere it does no harm.
        (r#"{"type":"\ud800"}"#, None),
        (r#"{"\udfff":"\ud800\ud800","type":"greeting"}"#, Some("greeting")),
        (r#"{}"#, None),
        (r#"["type","greeting"]"#, None),
        (r#""type""#, None),
        ("null", None),
    ] {
        assert_eq!(message(json).kind(), kind, "{json}");
    }
}

#[test]
fn any_json_value_is_heard_byte_for_byte() {
    for json in [
        "null",
        "true",
        "0",
        "-0",
        "1e400",
        "123456789012345678901234567890.5e-7",
        r#""text""#,
        r#""\ud800""#,
        "[]",
        "[1, [2, {\"three\":3}]]",
        "{}",
        "{ \"type\" : \"x\" }\r\n",
        r#"{"a":1,"a":2}"#,
        r#"{"__proto__":{"type":"x"},"constructor":null}"#,
        "\"\u{2028}\u{0}\"".replace('\u{0}', "\\u0000").as_str(),
    ] {
        for role in ROLES {
            let mut peer = live(role, 1 << 20);
            peer.hears(json);
            assert_eq!(peer.did, [Did::Heard(json.into())]);
        }
        assert_eq!((message(json).as_str(), &*message(json).into_text()), (json, json));
    }
}

const NOT_JSON: [&str; 26] = [
    "",
    " ",
    "hello",
    "{",
    "}",
    "{]",
    "{}{}",
    "{} x",
    "[1,]",
    r#"{"a":1,}"#,
    r#"{"a" 1}"#,
    r#"{'a':1}"#,
    r#"{a:1}"#,
    r#"{"type":"x""#,
    r#"{"type":x}"#,
    r#"{"type":"x}"#,
    r#"{"type":"\x"}"#,
    r#""\u12""#,
    "\"line\nbreak\"",
    "01",
    "+1",
    ".5",
    "NaN",
    "\u{feff}{}",
    "\u{c}{}",
    "// comment\n{}",
];

#[test]
fn a_frame_that_is_not_json_is_reported_and_the_connection_goes_on() {
    for role in ROLES {
        let mut peer = live(role, 1 << 20);
        for text in NOT_JSON {
            assert!(matches!(Message::parse(text), Err(InvalidMessage::Json(_))), "{text:?}");
            peer.hears(text);
            assert_eq!(peer.took(), [Did::Error(Violation::NotJson)], "{role:?}: {text:?}");
        }
        peer.receives(binary([0xc3]));
        assert_eq!(peer.took(), [Did::Error(Violation::NotJson)], "{role:?}");
        peer.hears(r#"{"type":"after"}"#);
        assert_eq!(peer.heard(), [r#"{"type":"after"}"#], "{role:?}");
    }
}

#[test]
fn a_control_character_makes_a_text_no_json_wherever_it_stands() {
    for json in [
        "{\"na\u{0}me\":1}",
        "{\"\u{1f}\":1}",
        "{\"a\\u0062\n\":1}",
        "{\"ty\u{0}pe\":\"error\"}",
        "{\"type\u{0}\":1,\"type\":\"greeting\"}",
        "{\"type\":\"gree\u{0}ting\"}",
        "{\"body\":{\"na\u{0}me\":1}}",
        "[{\"na\u{0}me\":1}]",
        "\"\u{0}\"",
    ] {
        assert!(Message::parse(json).is_err(), "{json:?}");
    }
    // Beyond them, JSON allows everything; and an escape may say anything.
    assert_eq!(message("{\"\u{7f}\u{80}\":1,\"\\u0000\":2,\"type\":\"greeting\"}").kind(), Some("greeting"));
}

#[test]
fn nesting_costs_no_stack_however_deep_it_is() {
    const DEPTH: usize = 100_000;
    let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
    let (open_objects, close_objects) = (r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    let texts = [
        (format!("{open}{close}"), None),
        (format!(r#"{{"type":"deep","a":{open}{close}}}"#), Some("deep")),
        (format!(r#"{{"type":{open}{close}}}"#), None),
        (format!("{open_objects}null{close_objects}"), None),
        (format!(r#"{{"b":{open_objects}0{close_objects},"type":"deep"}}"#), Some("deep")),
    ];
    for (text, kind) in texts {
        let parsed = message(&text);
        assert_eq!(parsed.kind(), kind);
        // Whoever wants a tree is told that it is too deep.
        assert!(matches!(parsed.json::<serde_json::Value>(), Err(InvalidMessage::Shape(_))));
        assert!(format!("{parsed:?}").len() < 300);
        for role in ROLES {
            let mut peer = live(role, 1 << 20);
            peer.hears(text.clone());
            assert_eq!(peer.heard(), [text.as_str()]);
        }
    }
    for unclosed in [open.clone(), open_objects, format!(r#"{{"type":{open}"#), format!("{open}{close}]")] {
        assert!(Message::parse(unclosed).is_err());
    }
    let mut server = Peer::server(server_config());
    server.hears(format!(r#"{{"type":"authenticate","timestamp":{}"#, "[".repeat(4_000)));
    assert_eq!(server.ending(), Some(&Violation::NotJson.into()));
    let (open, close) = ("[".repeat(2_000), "]".repeat(2_000));
    for field in ["timestamp", "address", "signature", "other"] {
        let mut server = Peer::server(server_config());
        server.hears(format!(r#"{{"type":"authenticate","{field}":{open}{close}}}"#));
        assert_eq!(server.ending(), Some(&Violation::MalformedProof.into()), "{field}");
    }
}

#[test]
fn an_application_can_send_objects_only() {
    for role in ROLES {
        let mut peer = live(role, 1 << 20);
        for json in ["null", "1", r#""text""#, "[]", r#"[{"type":"x"}]"#] {
            assert_eq!(peer.sends(json), Err(InvalidMessage::NotAnObject.into()), "{json}");
        }
        for json in ["{}", r#"{"type":7}"#, " {\"type\":\"x\"}", r#"{"type":"\ud800"}"#] {
            assert_eq!(peer.sends(json), Ok(()));
            assert_eq!(peer.took(), [sent(json)], "as it is");
        }
        assert_eq!(peer.did, [], "what was refused is not sent");
    }
    for value in [json!(null), json!(1), json!("text"), json!([{ "type": "x" }])] {
        assert_eq!(Message::new(&value), Err(InvalidMessage::NotAnObject));
    }
}

#[test]
fn an_application_cannot_send_what_belongs_to_the_protocol_however_it_is_spelled() {
    assert_eq!(RESERVED_TYPES, ["authenticate", "heartbeat", "disconnect", "error"]);
    for reserved in RESERVED_TYPES {
        let refused = InvalidMessage::ReservedType(reserved);
        assert_eq!(Message::new(&json!({ "type": reserved, "x": 1 })), Err(refused.clone()));
        let (first, rest) = reserved.split_at(1);
        let escaped = format!(r#"{{"type":"\u{:04x}{rest}"}}"#, first.as_bytes()[0]);
        for json in [
            format!(r#"{{"type":"{reserved}"}}"#),
            format!(r#"{{ "x":1, "type" : "{reserved}" }}"#),
            format!(r#"{{"type":"x","type":"{reserved}"}}"#),
            escaped,
        ] {
            for role in ROLES {
                let mut peer = live(role, 1 << 20);
                assert_eq!(peer.sends(&json), Err(refused.clone().into()), "{json}");
                assert_eq!((peer.did.len(), peer.connection.is_authenticated()), (0, true));
            }
        }
        for near in [format!("{reserved}s"), reserved.to_uppercase(), format!(" {reserved}")] {
            assert!(Message::new(&json!({ "type": near })).is_ok());
        }
    }
}

#[test]
fn disconnect_and_error_of_a_peer_are_messages_like_any_other() {
    for role in ROLES {
        for json in [r#"{"type":"disconnect"}"#, r#"{"type":"error","message":"oh"}"#] {
            let mut peer = live(role, 1 << 20);
            peer.hears(json);
            assert_eq!(peer.did, [Did::Heard(json.into())]);
            assert!(peer.connection.is_authenticated());
        }
    }
}

#[test]
fn a_message_over_the_limit_ends_the_connection_and_one_at_it_does_not() {
    for role in ROLES {
        for limit in [19, 100, 1 << 20] {
            for make in [|json: String| text(json), |json: String| binary(json)] {
                let mut peer = live(role, limit);
                peer.receives(make(of_size(limit)));
                if limit > 19 {
                    peer.receives(make(of_size(limit - 1)));
                }
                assert_eq!(peer.ending(), None, "{role:?}: {limit}");
                peer.took();
                peer.receives(make(of_size(limit + 1)));
                peer.assert_ended(&[
                    Did::Sent(close_frame(1009, "message too large")),
                    Did::ClosedTransport,
                    Did::Closed(Violation::MessageTooLarge { limit }.into()),
                ]);
            }
        }
    }
}

#[test]
fn the_default_limit_is_one_mebibyte_and_four_kibibytes_before_authentication() {
    for config in [server_config(), client_config()] {
        let limits = (config.max_message_size, config.max_unauthenticated_message_size);
        assert_eq!(limits, (1_048_576, 4_096));
    }
}

/// The `authenticate` of `wallet`, made this long with a field that nobody knows.
fn padded(wallet: &link_core::Wallet, size: usize) -> String {
    let json = authenticate(wallet, WALL);
    let pad = "p".repeat(size - json.len() - r#","p":"""#.len());
    json.replace('}', &format!(r#","p":"{pad}"}}"#))
}

#[test]
fn before_authentication_the_limit_is_narrower() {
    let too_large: CloseReason = Violation::MessageTooLarge { limit: 4_096 }.into();
    for size in [4_095, 4_096, 4_097] {
        let fits = size <= 4_096;
        let ending = (!fits).then_some(&too_large);
        let frames: [fn(String) -> Frame; 2] = [|json| text(json), |json| binary(json)];
        for frame in frames {
            let json = padded(client_wallet(), size);
            assert_eq!(json.len(), size);
            let mut server = Peer::server(server_config());
            server.receives(frame(json));
            assert_eq!((server.tickets.len() == 1, server.ending()), (fits, ending));
            assert_eq!(server.said(), Vec::<&str>::new(), "no status text belongs to it");

            let mut client = Peer::client(client_config());
            client.receives(frame(padded(server_wallet(), size)));
            assert_eq!((client.connection.is_authenticated(), client.ending()), (fits, ending));

            let beat = format!(r#"{{"type":"heartbeat","p":"{}"}}"#, "p".repeat(size - 27));
            assert_eq!(beat.len(), size);
            let mut deciding = Peer::asked(server_config());
            deciding.receives(frame(beat));
            assert_eq!(deciding.ending(), ending);
        }
    }
}

#[test]
fn a_connection_says_how_long_the_next_message_may_be() {
    for (peer, limit) in [
        (Peer::server(server_config()), 4_096),
        (Peer::asked(server_config()), 4_096),
        (Peer::client(client_config()), 4_096),
        (live(Role::Server, 7_777), 7_777),
        (live(Role::Client, 7_777), 7_777),
    ] {
        assert_eq!(peer.connection.receive_limit(), limit, "{:?}", peer.connection);
    }
}

#[test]
fn a_large_message_right_behind_the_answer_is_measured_by_the_wide_limit() {
    let mut world = Pair::new();
    world.application = Application::Thinks;
    world.drive();
    let large = of_size(1 << 20);
    world.server.decides(Ok(())).unwrap();
    world.server.sends(&large).unwrap();
    world.drive();
    assert_eq!(world.client.heard(), [large]);
}

#[test]
fn the_limit_counts_bytes_and_not_characters() {
    let mut peer = live(Role::Server, 10);
    peer.hears("\"éééé\"");
    assert_eq!(peer.heard(), ["\"éééé\""]);
    peer.hears("\"ééééé\"");
    assert_eq!(peer.ending(), Some(&Violation::MessageTooLarge { limit: 10 }.into()));
}

#[test]
fn the_limit_comes_before_anything_is_read() {
    let mut peer = live(Role::Client, 10);
    peer.hears("HTTP/1.1 409 Conflict\r\n\r\n");
    assert_eq!(peer.ending(), Some(&Violation::MessageTooLarge { limit: 10 }.into()));
    let mut peer = live(Role::Server, 10);
    peer.receives(binary([0xff; 11]));
    assert_eq!(peer.ending(), Some(&Violation::MessageTooLarge { limit: 10 }.into()));
}

#[test]
fn what_is_too_long_to_be_heard_is_not_sent_and_the_connection_goes_on() {
    for role in ROLES {
        let mut peer = live(role, 100);
        assert_eq!(peer.sends(&of_size(101)), Err(Misuse::MessageTooLarge { size: 101, limit: 100 }));
        assert_eq!(peer.did, []);
        for size in [99, 100] {
            assert_eq!(peer.sends(&of_size(size)), Ok(()));
        }
        assert_eq!(peer.said().len(), 2);
    }
}

#[test]
fn messages_arrive_in_their_order_between_everything_else() {
    let mut world = Pair::authenticated();
    world.latency = millis(30);
    let numbered: Vec<String> = (0..200).map(|n| format!(r#"{{"type":"n","n":{n}}}"#)).collect();
    for json in &numbered {
        world.client.sends(json).unwrap();
        world.server.sends(json).unwrap();
        world.advance(millis(17));
    }
    world.advance(secs(1));
    assert_eq!(world.server.heard(), numbered);
    assert_eq!(world.client.heard(), numbered);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Greeting {
    r#type: String,
    text: String,
}

#[test]
fn a_message_is_written_from_and_read_as_a_type_of_the_application() {
    let greeting = Greeting { r#type: "greeting".into(), text: "grüß \"Gott\"".into() };
    let message = Message::new(&greeting).unwrap();
    assert_eq!(message.as_str(), r#"{"type":"greeting","text":"grüß \"Gott\""}"#);
    assert_eq!(message.to_string(), message.as_str());
    assert_eq!(message.json(), Ok(greeting));

    let Err(InvalidMessage::Shape(why)) = message.json::<Vec<u8>>() else { panic!("read as something else") };
    assert!(why.contains("line 1"), "{why:?} says where");
    // A map whose keys are no texts is no JSON.
    let unwritable: BTreeMap<Vec<u8>, u8> = [(vec![1], 1)].into();
    assert!(matches!(Message::new(&unwritable), Err(InvalidMessage::Json(_))));
}

#[test]
fn the_debug_form_of_a_message_is_its_type_and_length_and_never_what_it_says() {
    for (text, shown) in [
        (r#"{"type":"x","secret":1}"#.to_owned(), r#"Message("x", 23 bytes)"#.to_owned()),
        (r#"{"secret":1}"#.into(), "Message(12 bytes)".into()),
        ("[1]".into(), "Message(3 bytes)".into()),
        // A peer may choose any type.
        (
            format!(r#"{{"type":"{}"}}"#, "é".repeat(500)),
            format!("Message({:?}, 1011 bytes)", "é".repeat(64)),
        ),
    ] {
        assert_eq!(format!("{:?}", message(&text)), shown);
    }
}
