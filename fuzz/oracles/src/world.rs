//! A simulated world in which a fuzzer makes every choice: faults, an adversary, what applications do and when. The oracle is
//! the simulator's own, with an invariant for each promise.

use link_sim::{Choices, run};

/// Runs the world that `input` draws.
pub fn world(input: &[u8]) {
    if let Some(failure) = run(Choices::bytes(input)).failure {
        panic!("{failure:?}");
    }
}
