//! A Link server in a process of its own, so that what it uses of the system can be measured: memory, file descriptors,
//! threads, tasks.
//!
//! Two things lean on that. The command, `cargo run --release -p link-soak`, keeps such a server busy for minutes or
//! hours, with connects, messages, cuts, replacements and refusals, and wants it to need no more at the end than
//! after its warm-up. And `tests/hostile.rs` is a table of what hostile peers do, with how much of the memory each
//! of them may take, and an honest client beside them that must notice nothing.
//!
//! - [`serve`]: the server, and what it tells about itself.
//! - [`process`]: its process, started, asked, measured and stopped.
//! - [`honest`]: the client that must notice nothing.
//! - [`rounds`]: what a soak does with a server.
//! - [`judge`]: what a soak makes of what it has measured.
//!
//! The other side is mostly `link_conformance::raw`: blocking scripts, which can say what no honest peer would.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "this crate is a test: to panic is how it fails"
)]

pub mod honest;
pub mod judge;
pub mod process;
pub mod rounds;
pub mod serve;

use std::time::{Duration, Instant};

/// How long anything may take that has to happen. Reached only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again, until it is so; panics when it never is.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
