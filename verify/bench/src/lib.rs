//! What Link costs beside the bare socket.
//!
//! Two servers run in processes of their own: Link, through its public face, and its *bare twin*, which does the same with
//! async-tungstenite on the same runtime and nothing else. The same load goes to the one and to the other, in turns, and
//! what is compared is the CPU time that the server's process has used, or its memory. So the figures are ratios within one
//! run; on another machine, or a busy one, both sides move together.
//!
//! - [`serve`]: Link's servers, and the process that either kind runs in.
//! - [`bare`]: the bare twins.
//! - [`load`]: the clients, which are the same for both.
//! - [`goals`]: what is measured, one function each, and the goal that it is held against.
//! - [`report`]: ratios of rounds, and the table.
//!
//! `benches/loopback.rs` measures echo and login in one process, with criterion: `cargo bench -p link-bench --bench loopback`.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "this crate measures: to panic is how it says that there is nothing to measure"
)]

pub mod bare;
pub mod goals;
pub mod load;
pub mod report;
pub mod serve;
