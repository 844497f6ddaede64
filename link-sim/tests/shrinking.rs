//! A failing world is made shorter, and fails as before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use link_sim::{Canary, Choices, Options, run_with, shrink};

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
fn a_world_that_holds_is_not_made_shorter() {
    assert!(shrink(0, Options::default()).is_none());
}
