//! What is done to whole stores by people of good will: export, import, backup, repair; and
//! programs that know SQLite, but not us.

use fastrand::Rng;

use super::any_office;
use crate::log::{Answer, Call, Hurt, Phase, Thing, What, now};
use crate::support::has;
use crate::workload::caller::Caller;
use crate::workload::nemesis::faults::number;
use crate::workload::sqlite;
use crate::workload::world::{MAIN, OTHER};

pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    match rng.u32(..6) {
        0 => export_and_import(caller, rng),
        1 => {
            let office = any_office(rng);
            repair(caller, &office);
        }
        _ if !has("sqlite3") => {}
        2 => sqlite::back_up(caller),
        3 => sqlite::read(caller, MAIN, rng.u64(200..5_000)),
        4 => sqlite::write(caller, MAIN, rng.u64(10..1_500)),
        _ => sqlite::checkpoint(caller, MAIN),
    }
}

/// A repair of a damaged store begins a new one. Whether it did is known only afterwards: a loss
/// of the store, from the moment that it was asked for.
pub fn repair(caller: Caller<'_>, office: &Thing) {
    let begin = now();
    let store = office.store().to_owned();
    let asked = caller.ask(Call::Repair { store: store.clone() }, office, &["doctor", "--fix"]);
    if !matches!(asked.answer, None | Some(Answer::Yes)) {
        return;
    }
    let (fault, log) = (number(), &caller.world.log);
    let hurt = Hurt::StoreLost { store, how: "repaired".to_owned() };
    log.say_at(begin, What::Fault { fault, phase: Phase::Begin, hurt: hurt.clone() });
    log.say(What::Fault { fault, phase: Phase::End, hurt });
}

/// The files of an older program, of an office that may be held; the other store takes them over.
fn export_and_import(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    let directory = caller.world.file("exported");
    let _ = std::fs::create_dir_all(&directory);
    let at = directory.to_string_lossy().into_owned();
    let locks = directory.join("gateway-locks").to_string_lossy().into_owned();
    caller.ask(Call::Other { verb: "export".to_owned() }, &office, &["export", &at]);
    let Thing::Office { profile, kind, .. } = office else { return };
    let target = Thing::Office { store: OTHER.to_owned(), profile, kind };
    let import = ["import", &at, "--lock-dir", &locks];
    caller.ask(Call::Other { verb: "import".to_owned() }, &target, &import);
    let _ = std::fs::remove_dir_all(&directory);
}
