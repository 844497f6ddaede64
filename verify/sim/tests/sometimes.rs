//! A thousand worlds hold, and between them they take every rare path.

use link_sim::{Options, Seeds, campaign};

#[test]
fn a_thousand_seeds_hold_and_take_every_rare_path() {
    let seeds = Seeds { from: 0, count: 1_000, until: None };
    let report = campaign(seeds, 2, Options::default(), &|_| {});
    assert_eq!(report.failures.len(), 0, "{:?}", report.failures);
    let unreached: Vec<_> = report.marks.unreached().into_iter().map(link_sim::Mark::name).collect();
    assert!(unreached.is_empty(), "never taken: {unreached:?}");
}
