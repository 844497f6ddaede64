//! How long each operation takes: `cargo bench -p link-core --bench operations`, and a part of a name for some of them.
#![allow(missing_docs, reason = "the macros below write functions without")]

mod cases;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn operations(criterion: &mut Criterion) {
    for case in cases::all() {
        let mut operation = (case.prepare)();
        criterion.bench_function(case.name, |bencher| bencher.iter(&mut operation));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = operations
}
criterion_main!(benches);
