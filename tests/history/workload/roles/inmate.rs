//! Somebody in a pid namespace: an actor of his own, on the same store.

use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use super::in_ms;
use crate::workload::caller::Caller;
use crate::workload::operations::{asks, kept, missing, owners, runs, verbs};
use crate::workload::reaper::Reaper;
use crate::workload::world::{Part, World};

pub fn play() -> i32 {
    let (part, world) = (Part::inherited(), Arc::new(World::inherited()));
    // What takes a program to be found out, before all programs are collected.
    let _ = missing();
    let reaper = Reaper::start(Arc::clone(&world));
    let caller = Caller { world: &world, reaper: &reaper };
    let mut rng = Rng::with_seed(part.seed);
    let until = in_ms(part.life_ms);
    while Instant::now() < until {
        match rng.u32(..8) {
            0..3 => runs::one(caller, &mut rng),
            3..5 => owners::one(caller, &mut rng),
            5 => kept::one(caller, &mut rng),
            6 => verbs::one(caller, &mut rng),
            _ => asks::one(caller, &mut rng),
        }
    }
    0
}
