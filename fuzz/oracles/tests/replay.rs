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

#[test]
fn every_input_of_every_corpus_keeps_its_promises() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for (name, target) in TARGETS {
        let mut inputs: Vec<PathBuf> =
            fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        // In the same order on every machine.
        inputs.sort();
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            replay(name, target, &fs::read(&input).unwrap(), &input.display().to_string());
        }
    }
}

#[test]
fn inputs_that_nobody_has_chosen_keep_them_too() {
    for (name, target) in TARGETS {
        for seed in 0..DRAWN {
            let mut drawn = fastrand::Rng::with_seed(seed);
            let length = drawn.usize(0..600);
            let input: Vec<u8> = std::iter::repeat_with(|| drawn.u8(..)).take(length).collect();
            replay(name, target, &input, &format!("seed {seed}"));
        }
    }
}

fn replay(name: &str, target: Target, input: &[u8], origin: &str) {
    if catch_unwind(|| target(input)).is_err() {
        panic!("{name} fails on {origin}");
    }
}
