//! Every input of every corpus, and some that nobody has chosen, without a fuzzer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code: to panic is how it fails")]

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use link_fuzz::{TARGETS, Target};

/// Inputs without a corpus, for each target.
const DRAWN: u64 = 300;

/// A module for each target, so that they run side by side and are told apart.
macro_rules! targets {
    ($($name:ident)*) => {
        $(mod $name {
            #[test]
            fn keeps_its_promises_on_every_input_of_its_corpus() {
                super::replay_corpus(stringify!($name), link_fuzz::$name);
            }

            #[test]
            fn keeps_its_promises_on_inputs_that_nobody_has_chosen() {
                super::replay_drawn(stringify!($name), link_fuzz::$name);
            }
        })*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), [$(stringify!($name)),*]);
        }
    };
}

targets! { decoding identity connection admission reconnect upgrade websocket driver world }

fn replay_corpus(name: &str, target: Target) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut inputs: Vec<PathBuf> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    // In the same order on every machine.
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    for input in inputs {
        replay(name, target, &fs::read(&input).unwrap(), &input.display().to_string());
    }
}

fn replay_drawn(name: &str, target: Target) {
    for seed in 0..DRAWN {
        let mut drawn = fastrand::Rng::with_seed(seed);
        let length = drawn.usize(0..600);
        let input: Vec<u8> = std::iter::repeat_with(|| drawn.u8(..)).take(length).collect();
        replay(name, target, &input, &format!("seed {seed}"));
    }
}

fn replay(name: &str, target: Target, input: &[u8], origin: &str) {
    if catch_unwind(|| target(input)).is_err() {
        panic!("{name} fails on {origin}");
    }
}
