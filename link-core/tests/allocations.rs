//! What a connection takes from the allocator: nothing at all while it lives, and little to live.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::arithmetic_side_effects)]

#[path = "../benches/cases/mod.rs"]
mod cases;

use allocation_counter::measure;

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
