//! Worlds hold, whatever their choices come from; and the same choices make the same world.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects)]

use link_sim::{Choices, Fault, Faults, Options, Seeds, campaign, run, run_with};

const TRACED: Options = Options { trace: true, canary: None, allowed: Faults::ALL };

fn seeds(from: u64, count: u64) -> Seeds {
    Seeds { from, count, until: None }
}

#[test]
fn the_same_seed_makes_the_same_world_word_for_word() {
    for seed in 0..60 {
        let (first, second) =
            (run_with(Choices::seeded(seed), TRACED), run_with(Choices::seeded(seed), TRACED));
        assert!(!first.trace.is_empty());
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn a_world_that_is_written_down_goes_as_one_that_is_not() {
    for seed in 0..20 {
        let (written, silent) = (run_with(Choices::seeded(seed), TRACED), run(Choices::seeded(seed)));
        assert_eq!((written.fingerprint, written.steps), (silent.fingerprint, silent.steps), "seed {seed}");
    }
}

#[test]
fn different_seeds_make_different_worlds() {
    let mut fingerprints: Vec<_> = (0..50).map(|seed| run(Choices::seeded(seed)).fingerprint).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 50);
}

#[test]
fn what_comes_of_many_worlds_does_not_depend_on_how_many_threads_there_are() {
    let one = campaign(seeds(500, 64), 1, Options::default(), &|_| {});
    let three = campaign(seeds(500, 64), 3, Options::default(), &|_| {});
    assert_eq!(one, three);
    assert_eq!(one.failures.len(), 0, "{:?}", one.failures);
}

#[test]
fn a_world_without_faults_has_no_rare_paths_of_the_unhappy_kind() {
    let options = Options { allowed: Faults::NONE, ..Options::default() };
    let report = campaign(seeds(0, 60), 2, options, &|_| {});
    assert_eq!(report.failures.len(), 0, "{:?}", report.failures);
    for mark in [link_sim::Mark::Overslept, link_sim::Mark::SlowPeer, link_sim::Mark::BadSignature] {
        assert_eq!(report.marks.times(mark), 0, "{}", mark.name());
    }
}

#[test]
fn a_fault_that_is_not_allowed_does_not_happen() {
    let allowed = Faults::ALL.without(Fault::ClientCrash);
    let report = campaign(seeds(0, 60), 2, Options { allowed, ..Options::default() }, &|_| {});
    assert_eq!(report.marks.times(link_sim::Mark::ClientDied), 0);
    assert_eq!(report.failures.len(), 0, "{:?}", report.failures);
}

#[test]
fn bytes_steer_a_world_as_a_seed_does() {
    // Bytes such as a fuzzer might make: none, all alike, a ramp, noise.
    let mut noise = 1u64;
    let noise: Vec<u8> = (0..4_000)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        })
        .collect();
    let ramp: Vec<u8> = (0..2_000u32).map(|at| at as u8).collect();
    let inputs = [vec![], vec![0; 300], vec![0xff; 300], vec![0xff; 5_000], ramp, noise];
    let mut fingerprints = vec![];
    for bytes in &inputs {
        let first = run(Choices::bytes(bytes));
        assert_eq!(first.failure, None, "{bytes:?}");
        assert_eq!(first, run(Choices::bytes(bytes)));
        fingerprints.push(first.fingerprint);
    }
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), inputs.len());
}

#[test]
fn bytes_that_run_dry_end_the_faults() {
    let noise: Vec<u8> = (0..200u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for length in 0..noise.len() {
        let outcome = run(Choices::bytes(&noise[..length]));
        assert_eq!(outcome.failure, None, "the first {length} bytes");
    }
}

#[test]
fn choices_that_were_written_down_make_the_same_world_again() {
    for seed in 0..20 {
        let first = run(Choices::seeded(seed).recording());
        let again = run(Choices::replayed(&first.choices));
        assert_eq!((first.fingerprint, first.steps), (again.fingerprint, again.steps), "seed {seed}");
    }
}
