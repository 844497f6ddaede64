//! A failing world is made shorter, and fails as before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::panic::catch_unwind;

use link_sim::{Canary, Choices, Invariant, Options, run_seed, run_with, shrink};

#[test]
fn a_failing_world_is_made_shorter() {
    let options = Options { canary: Some(Canary::LeaksAddresses), ..Options::default() };
    let seed = (0..100)
        .find(|seed| run_with(Choices::seeded(*seed), options).failure.is_some())
        .expect("a planted fault is caught");
    let long = run_with(Choices::seeded(seed).recording(), options);
    let short = shrink(seed, Options { trace: true, ..options }).expect("it fails");
    let (before, after) = (long.failure.unwrap(), short.outcome.failure.clone().unwrap());
    assert_eq!(before.invariant, after.invariant);
    assert!(short.choices.len() < long.choices.len(), "{} choices", short.choices.len());
    assert!(!short.outcome.trace.is_empty());
    let again = run_with(Choices::replayed(&short.choices), short.options);
    assert_eq!(again.failure.unwrap(), after);
}

#[test]
fn a_world_that_panics_is_made_shorter() {
    let options = Options { canary: Some(Canary::TripsOverNull), ..Options::default() };
    let panics = |seed: &u64| {
        let failure = run_seed(*seed, options).failure;
        failure.is_some_and(|failure| failure.invariant == Invariant::NothingPanics)
    };
    let seed = (0..100).find(panics).expect("a planted fault is caught");
    let short = shrink(seed, Options { trace: true, ..options }).expect("it fails");
    let failure = short.outcome.failure.unwrap();
    assert_eq!((failure.invariant, &*failure.detail), (Invariant::NothingPanics, "a planted fault"));
    assert!(short.choices.len() < 1_000, "{} choices", short.choices.len());
    let told = short.outcome.trace.last().expect("the story is told up to the panic");
    assert!(told.ends_with("null"), "{told}");
    let again = catch_unwind(|| run_with(Choices::replayed(&short.choices), short.options));
    assert_eq!(again.unwrap_err().downcast_ref::<&str>(), Some(&"a planted fault"));
}

#[test]
fn a_world_that_holds_is_not_made_shorter() {
    assert!(shrink(0, Options::default()).is_none());
}
