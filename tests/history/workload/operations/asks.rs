//! Questions, and what is said in passing.

use fastrand::Rng;

use super::{any_how, any_office};
use crate::log::Call;
use crate::workload::caller::Caller;
use crate::workload::draw::one_of;

pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    let how = any_how(caller.world, rng);
    if rng.u32(..3) > 0 {
        caller.ask_as(&how, Call::Status { thing: office.clone() }, &office, &["status"]);
        return;
    }
    let verbs: [&[&str]; 9] = [
        &["locks"],
        &["history"],
        &["events"],
        &["status", "--all"],
        &["doctor"],
        &["sql", "SELECT count(*) FROM instances"],
        &["desired"],
        &["desired", "running"],
        &["path"],
    ];
    let verb = *one_of(rng, &verbs);
    let call = Call::Other { verb: verb.join(" ") };
    caller.ask_as(&how, call, &office, verb);
}
