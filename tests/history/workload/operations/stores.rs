//! What is done to whole stores by people of good will: export, import, backup, repair; and
//! programs that know SQLite, but not us.

use fastrand::Rng;

use super::any_office;
use crate::log::{Call, Thing};
use crate::support::has;
use crate::workload::caller::Caller;
use crate::workload::sqlite;
use crate::workload::world::{MAIN, OTHER};

pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    match rng.u32(..6) {
        0 => export_and_import(caller, rng),
        1 => {
            let office = any_office(rng);
            let call = Call::Other { verb: "doctor --fix".to_owned() };
            caller.ask(call, &office, &["doctor", "--fix"]);
        }
        _ if !has("sqlite3") => {}
        2 => sqlite::back_up(caller),
        3 => sqlite::read(caller, MAIN, rng.u64(200..5_000)),
        4 => sqlite::write(caller, MAIN, rng.u64(10..1_500)),
        _ => sqlite::checkpoint(caller, MAIN),
    }
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
