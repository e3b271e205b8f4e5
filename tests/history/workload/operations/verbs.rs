//! Verbs that act on what others hold: stop, restart, evict, unlock.

use fastrand::Rng;

use super::{any_how, any_lock, any_office, lock_words};
use crate::log::{Call, Thing, Wait};
use crate::workload::caller::Caller;
use crate::workload::draw::chance;

/// `--force` ends a record without ending its process, so two may act at once for a while: seldom,
/// or nothing else would be seen.
const FORCE_ONE_IN: u32 = 12;

pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    match rng.u32(..10) {
        0..3 => stop(caller, rng),
        3..6 => restart(caller, rng),
        6..8 => evict(caller, rng),
        8 => unlock(caller, rng),
        _ => {
            let office = any_office(rng);
            let call = Call::Other { verb: "unlock --stale".to_owned() };
            caller.ask(call, &office, &["unlock", "--stale"]);
        }
    }
}

fn stop(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    let force = chance(rng, 4);
    let ms = if force { 5_000 } else { rng.u64(100..4_000) };
    let timeout = format!("{ms}ms");
    let mut verb = vec!["stop", "--reason", "soak", "--timeout", &timeout];
    if force {
        verb.push("--force");
    }
    let call = Call::Stop { thing: office.clone(), wait: Wait::AtMost { ms }, force };
    caller.ask(call, &office, &verb);
}

fn restart(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    let ms = rng.u64(500..4_000);
    let timeout = format!("{ms}ms");
    let call = Call::Restart { thing: office.clone(), wait: Wait::AtMost { ms } };
    caller.ask(call, &office, &["restart", "--timeout", &timeout]);
}

fn evict(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    remove(caller, rng, &office, vec!["evict"]);
}

fn unlock(caller: Caller<'_>, rng: &mut Rng) {
    let lock = any_lock(rng);
    let [scope, identity] = lock_words(&lock).map(str::to_owned);
    remove(caller, rng, &lock, vec!["unlock", &scope, &identity]);
}

fn remove(caller: Caller<'_>, rng: &mut Rng, thing: &Thing, mut verb: Vec<&str>) {
    let force = chance(rng, FORCE_ONE_IN);
    if force {
        verb.push("--force");
    }
    let how = any_how(caller.world, rng);
    caller.ask_as(&how, Call::Evict { thing: thing.clone(), force }, thing, &verb);
}
