//! Single operations of the library, for watching them from change to change:
//! `cargo bench --bench operations`.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark may die of a surprise")]

use criterion::{Criterion, criterion_group, criterion_main};
use incumbent::liveness::{AnchorState, Evidence, judge};
use incumbent::{Claim, Kind, Store};

fn operations(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let store = Store::open(directory.path().join("state.db")).expect("a store");
    let profile = store.profile("default").expect("a profile");
    let kind = Kind::default();

    criterion.bench_function("claim and release", |bencher| {
        bencher.iter(|| {
            let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
            tenure.release().expect("released")
        });
    });
    let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
    criterion.bench_function("verify", |bencher| bencher.iter(|| tenure.verify()));
    criterion.bench_function("running pid", |bencher| {
        bencher.iter(|| profile.running_pid(&kind));
    });
    criterion.bench_function("status", |bencher| bencher.iter(|| profile.status()));
    criterion.bench_function("judge", |bencher| {
        let mut held = Evidence::nothing_seen();
        held.anchor = AnchorState::Held;
        bencher.iter(|| judge(std::hint::black_box(held)));
    });
}

criterion_group!(benches, operations);
criterion_main!(benches);
