//! How a fault is written down: before it hurts, and after it is over.

use crate::log::{Hurt, Phase, What, now};
use crate::workload::world::World;

/// A number that no other fault has: the clock tells apart what two processes would draw alike.
pub fn number() -> u64 {
    now() ^ fastrand::u64(..)
}

/// Hurts. `harm` is told the number of the fault.
pub fn hurting<T>(world: &World, hurt: Hurt, harm: impl FnOnce(u64) -> T) -> T {
    let fault = number();
    world.log.say(What::Fault { fault, phase: Phase::Begin, hurt: hurt.clone() });
    let done = harm(fault);
    world.log.say(What::Fault { fault, phase: Phase::End, hurt });
    done
}
