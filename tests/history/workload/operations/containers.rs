//! Pid namespaces on the same store: in each of them somebody does what others do outside.

use fastrand::Rng;

use super::ms;
use crate::log::{Call, Origin};
use crate::support::container;
use crate::workload::actors::Stage;
use crate::workload::draw::millis;
use crate::workload::reaper::Sort;
use crate::workload::roles;
use crate::workload::world::{Part, World};

/// One container, until it has ended. Its init is a shell, which collects what is left to it, as an
/// init has to.
pub fn one(stage: &Stage, rng: &mut Rng) {
    const INIT: &str = "\"$@\" > /dev/null 2>> complaints & wait $!";
    let Some(words) = container() else { return };
    let Some(_inside) = stage.weather.enter(&stage.world) else { return };
    let world = &stage.world;
    let part = Part { seed: rng.u64(..), life_ms: ms(millis(rng, 300, 3_000)), ..Part::default() };
    let mut command = world.program(words[0]);
    command.args(&words[1..]).args(["--kill-child", "setsid", "/bin/sh", "-c", INIT, "sh"]);
    command.args(world.words_of_this_program());
    part.give(&mut command, roles::INMATE);
    World::name_namespace(&mut command, &format!("namespace-{:x}", part.seed));
    let call = Call::Other { verb: "container".to_owned() };
    let _ = stage.caller().go(command, call, &Origin::default(), Sort::Container);
}
