//! Bounds on time that hold on a busy machine.

use std::time::{Duration, Instant};

use super::Sandbox;

/// Asserts that something took less than `bound`. That is for an idle machine; on a busy one it may take as much
/// longer as thirty ordinary starts take just now, so that it is a ratio there.
#[track_caller]
pub fn assert_within(bound: Duration, took: Duration, what: &str) {
    if took < bound {
        return;
    }
    let sandbox = Sandbox::new();
    let started = Instant::now();
    for _ in 0..10 {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    let thirty = started.elapsed() * 3;
    assert!(
        took < bound + thirty,
        "{what}: took {took:?}; the bound is {bound:?} and the {thirty:?} of thirty starts"
    );
}
