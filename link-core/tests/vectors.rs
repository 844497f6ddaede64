//! The data files of `docs/protocol.md`, section 15, say what this library does: each is made anew here and
//! compared byte for byte. [`BLESS`] writes them instead; then the difference is for a person to judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

mod support;

/// One module a file, and what they share.
mod vectors {
    pub(crate) mod admission;
    mod clients;
    pub(crate) mod conversations;
    mod document;
    mod names;
    pub(crate) mod proofs;
    mod servers;
    mod talk;
    mod wallets;
}

use std::{env, fs, path::Path};

use vectors::{admission, conversations, proofs};

const BLESS: &str = "LINK_BLESS=1 cargo test -p link-core --test vectors";

#[test]
fn proofs_v1_is_what_a_server_makes_of_first_frames() {
    assert_is_in_the_file("proofs-v1.json", &proofs::document());
}

#[test]
fn conversations_v1_is_what_each_side_does() {
    assert_is_in_the_file("conversations-v1.json", &conversations::document());
}

#[test]
fn admission_v1_is_what_a_server_remembers() {
    assert_is_in_the_file("admission-v1.json", &admission::document());
}

fn assert_is_in_the_file(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(name);
    if env::var("LINK_BLESS").is_ok_and(|bless| bless == "1") {
        return fs::write(&path, made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if let Some(difference) = first_difference(&committed, made) {
        panic!("docs/vectors/{name}, {difference}\nIf this is meant: {BLESS}");
    }
}

/// The first line in which the texts differ, as both have it.
fn first_difference(committed: &str, made: &str) -> Option<String> {
    const END: &str = "(the end)";
    // Not `lines`, to which a carriage return or a missing line feed at the end is no difference.
    let (mut committed, mut made) = (committed.split('\n'), made.split('\n'));
    for number in 1.. {
        match (committed.next(), made.next()) {
            (None, None) => break,
            (committed, made) if committed == made => {}
            (committed, made) => {
                let (committed, made) = (committed.unwrap_or(END), made.unwrap_or(END));
                return Some(format!("line {number}:\n  committed: {committed}\n  made now:  {made}"));
            }
        }
    }
    None
}

#[test]
fn every_difference_is_found_and_the_first_one_is_shown() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    for (committed, made, line, was, is) in [
        ("a\nb\nc\n", "a\nB\nC\n", 2, "b", "B"),
        ("a\r\n", "a\n", 1, "a\r", "a"),
        ("a", "a\n", 2, "(the end)", ""),
        ("a\nb\n", "a\n", 2, "b", ""),
    ] {
        let expected = format!("line {line}:\n  committed: {was}\n  made now:  {is}");
        assert_eq!(first_difference(committed, made), Some(expected));
    }
}
