//! What a connection takes from the allocator: nothing at all while it lives, and little to live.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::arithmetic_side_effects)]

#[path = "../benches/cases/mod.rs"]
mod cases;

use std::time::Duration;

use allocation_counter::measure;
use cases::{Configs, after, handshake};
use link_core::{ByteString, Connection, Frame};

#[test]
fn messages_heartbeats_and_time_outs_allocate_nothing() {
    for case in cases::STEADY {
        let mut operation = (case.prepare)();
        // The queue and the room for heartbeats come with the first ones.
        (0..10).for_each(|_| operation());
        let cost = measure(|| (0..1_000).for_each(|_| operation()));
        assert_eq!(cost.count_total, 0, "{}: {cost:?}", case.name);
    }
}

/// A server's side that is authenticated and has beaten once, and how many bytes it holds beside its own.
fn idle_server() -> (Connection, i64) {
    let configs = Configs::new();
    let mut made = None;
    let cost = measure(|| {
        let mut server = handshake(&configs, after(Duration::ZERO)).server;
        server.handle_timeout(after(Duration::from_secs(1)));
        while server.poll_output().is_some() {}
        made = Some(server);
    });
    (made.unwrap(), cost.bytes_current)
}

#[test]
fn an_idle_connection_takes_little_more_than_half_a_kilobyte() {
    let (server, held) = idle_server();
    let size = i64::try_from(size_of_val(&server)).unwrap() + held;
    assert!(size <= 540, "{size} bytes, of which {held} are allocated");
}

#[test]
fn a_burst_leaves_no_room_behind() {
    let (mut server, _) = idle_server();
    let message = Frame::Text(ByteString::from_static(cases::MESSAGE));
    let mut burst = |size| {
        let cost = measure(|| {
            (0..size).for_each(|_| server.handle_frame(message.clone(), after(Duration::from_secs(1))));
            while server.poll_output().is_some() {}
        });
        cost.bytes_current
    };
    burst(8);
    assert_eq!(burst(10_000), 0, "bytes are kept after it");
    assert_eq!(burst(8), 0, "and they were needed again");
}
