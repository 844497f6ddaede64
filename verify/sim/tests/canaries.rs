//! The oracle is not blind: each fault that is planted in the simulator's own host is caught, by the invariant that it
//! breaks.

use link_sim::{Canary, Options, Seeds, campaign};

/// The canaries are shared out, so that they are tried side by side.
fn every_third_is_caught(first: usize) {
    for canary in Canary::ALL.iter().copied().skip(first).step_by(3) {
        let seeds = Seeds { from: 0, count: 4_000, until: Some(canary.breaks()) };
        let options = Options { canary: Some(canary), ..Options::default() };
        let report = campaign(seeds, 2, options, &|_| {});
        let caught = report.failures.values().any(|failure| failure.invariant == canary.breaks());
        assert!(caught, "{} is not caught by {}: {:?}", canary.name(), canary.breaks(), report.failures);
    }
}

#[test]
fn planted_faults_are_caught() {
    every_third_is_caught(0);
}

#[test]
fn planted_faults_are_caught_too() {
    every_third_is_caught(1);
}

#[test]
fn planted_faults_are_caught_as_well() {
    every_third_is_caught(2);
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = Canary::ALL.iter().map(|canary| canary.name()).collect();
    names.extend(link_sim::Mark::ALL.iter().map(|mark| mark.name()));
    names.extend(link_sim::Invariant::ALL.iter().map(|invariant| invariant.name()));
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), before);
}
