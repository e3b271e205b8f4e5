//! Programs that link the library, and what they hand over.

use fastrand::Rng;

use super::{any_office, ms};
use crate::log::{Answer, Call, Death, What};
use crate::support::LIMIT;
use crate::workload::caller::Caller;
use crate::workload::draw::millis;
use crate::workload::reaper::{Sort, exit_code};
use crate::workload::roles;
use crate::workload::world::{Part, complaints};

/// One of them, until it has ended. What it does, it writes down itself; its heirs are nobody's.
pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    let part = Part {
        seed: rng.u64(..),
        life_ms: ms(millis(rng, 300, 4_000)),
        things: vec![any_office(rng)],
        ..Part::default()
    };
    role(caller, roles::OWNER, &part);
}

/// A part of this program, from its beginning to its end.
pub fn role(caller: Caller<'_>, role: &str, part: &Part) {
    let world = caller.world;
    let op = world.log.begin(&world.from, Call::Other { verb: role.to_owned() });
    let mut command = world.role(role, part);
    let complaints = std::fs::OpenOptions::new().append(true).open(complaints(&world.place));
    if let Ok(file) = complaints {
        command.stdout(std::process::Stdio::null()).stderr(file);
    }
    let answer = match caller.reaper.spawn(&mut command, Sort::Holder) {
        Ok(pid) => {
            if world.sees_pids() {
                world.log.say(What::Started { op, pid });
            }
            match caller.reaper.wait(pid, LIMIT, role) {
                how @ Death::Exit { .. } => Answer::Exit { code: exit_code(how) },
                // It was killed.
                Death::Signal { .. } | Death::Gone => return,
            }
        }
        Err(error) => Answer::Error { kind: "not_started".to_owned(), text: error.to_string() },
    };
    world.log.end(op, answer);
}
