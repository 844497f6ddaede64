//! What must hold whatever comes: an oracle for each fuzz target.
//!
//! Each is a function of some bytes that panics when Link breaks one of its promises. It reads no clock and no random
//! source, so the same bytes do the same again. `fuzz/` hands these functions to libFuzzer; the test of this crate replays the
//! corpora that are committed there, so that `cargo test` needs no fuzzer to notice what one has found.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "this crate is tests: to panic is how they fail"
)]

mod admission;
mod connection;
mod decoding;
mod driver;
mod identity;
mod reconnect;
mod sim;
mod upgrade;
mod websocket;
mod wire;
mod world;

pub use admission::admission;
pub use connection::connection;
pub use decoding::decoding;
pub use driver::driver;
pub use identity::identity;
pub use reconnect::reconnect;
pub use upgrade::upgrade;
pub use websocket::websocket;
pub use world::world;

/// An oracle.
pub type Target = fn(&[u8]);

/// Every oracle, by the name of its target.
pub const TARGETS: [(&str, Target); 9] = [
    ("decoding", decoding),
    ("identity", identity),
    ("connection", connection),
    ("admission", admission),
    ("reconnect", reconnect),
    ("upgrade", upgrade),
    ("websocket", websocket),
    ("driver", driver),
    ("world", world),
];
