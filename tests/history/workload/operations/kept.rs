//! Processes that do not link the library: `claim --pid`, `lock acquire --pid`.

use fastrand::Rng;

use super::{any_lock, any_office, ms, owners};
use crate::workload::caller::Caller;
use crate::workload::draw::{chance, millis};
use crate::workload::roles;
use crate::workload::world::Part;

/// One process, until it has ended.
pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    let mut things = Vec::new();
    if chance(rng, 2) {
        things.push(any_office(rng));
    }
    things.push(any_lock(rng));
    let part =
        Part { seed: rng.u64(..), life_ms: ms(millis(rng, 200, 2_500)), things, ..Part::default() };
    owners::role(caller, roles::KEPT, &part);
}
