//! Choices, by the seed.

use std::time::Duration;

use fastrand::Rng;

/// One of them.
pub fn one_of<'a, T>(rng: &mut Rng, all: &'a [T]) -> &'a T {
    &all[rng.usize(..all.len())]
}

pub fn chance(rng: &mut Rng, one_in: u32) -> bool {
    rng.u32(..one_in) == 0
}

pub fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

/// The pace of somebody who has done something. Nothing waits for it.
pub fn pause(rng: &mut Rng, longest_ms: u64) {
    std::thread::sleep(Duration::from_millis(rng.u64(..=longest_ms)));
}
