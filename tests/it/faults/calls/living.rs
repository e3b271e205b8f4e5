//! Every verb beside a living owner: whatever fails, that one is not called dead, and nobody gets
//! what it holds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::answers;
use super::answers::BOUND;
use super::coverage::Coverage;
use super::fault::{Fault, Site};
use super::observe::of_program;
use super::strace::Traced;
use super::turns::Walk;
use super::verbs::{ALONE, May, TWO_AT_ONCE, VERBS, asked};
use super::world::{OWNERS, Owner, State, World};
use crate::support::LIMIT;

/// The stop budget of an owner that published none: so long a verb may wait that ends it.
const STOP_BUDGET: Duration = Duration::from_secs(90);

pub struct Living<'a> {
    pub coverage: &'a Mutex<Coverage>,
}

/// A verb, and whose office it meets.
pub struct Row {
    number: usize,
    words: &'static str,
    may: May,
    expected: i32,
    owner: Owner,
    /// Whether it changes what the owner has, without a fault.
    changes: AtomicBool,
}

/// All, or those of the verbs with these words.
pub fn rows(only: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (words, may, codes) in VERBS.iter().filter(|(words, ..)| words.contains(only)) {
        for owner in OWNERS {
            let expected = codes[owner.place()];
            if expected >= 0 {
                let (number, changes) = (rows.len(), AtomicBool::default());
                rows.push(Row { number, words, may: *may, expected, owner, changes });
            }
        }
    }
    rows
}

/// The world that a verb has left as it was, for its next fault: with that of another verb it could
/// find what that one wrote.
type Kept = Option<(usize, World)>;

fn take(kept: &mut Kept, row: &Row) -> World {
    // A signal of the last time may have come after the last look.
    let known = kept.take().filter(|(number, _)| *number == row.number);
    let known = known.filter(|(_, world)| world.state() == Ok(State::Same));
    known.map_or_else(|| World::new(row.owner), |(_, world)| world)
}

impl Walk for Living<'_> {
    type Key = Row;
    type Kept = Kept;

    fn label(&self, row: &Row) -> String {
        format!("{}, {:?}", row.words, row.owner)
    }

    fn observe(&self, row: &Row, kept: &mut Kept) -> Result<Vec<Site>, String> {
        let world = take(kept, row);
        let traced = Traced::undisturbed(&world.sandbox, &asked(row.words, &world))?;
        let end = world.state();
        if traced.code != row.expected || end.is_err() {
            return Err(format!("{} {end:?} {}{}", traced.code, traced.out, traced.err));
        }
        let changes = end != Ok(State::Same);
        row.changes.store(changes, Ordering::Relaxed);
        if !changes {
            *kept = Some((row.number, world));
        }
        Ok(of_program(&traced.trace))
    }

    fn meet(&self, row: &Row, fault: &Fault, kept: &mut Kept) {
        let mut world = take(kept, row);
        let label = self.label(row);
        let traced = match Traced::with(&world.sandbox, &asked(row.words, &world), fault) {
            Ok(traced) if traced.is_of_the_runtime() => {
                return self.coverage.lock().unwrap().of_the_runtime();
            }
            Ok(traced) => traced,
            // An owner whose process cannot be proven has the time that it asked for.
            Err(_) if row.may == May::EndOwner && !fault.is_shortage() => return,
            Err(why) => {
                let mut coverage = self.coverage.lock().unwrap();
                return coverage.complain(format!("{label}: it hangs"), format!("{fault}\n{why}"));
            }
        };
        let class = answers::class(&traced, fault, row.expected);
        self.coverage.lock().unwrap().tried(&label, fault, traced.met(fault), class);
        let mut state = world.state();
        // To the doctor refusals are a problem.
        if state == Ok(State::Same) && !row.words.starts_with("doctor") {
            state = world.contend();
        }
        let of_answer = answers::wrong(&world.sandbox, &traced, fault);
        let of_verb = of_answer.or_else(|| row.wrong(fault, &traced));
        let of_time = row.is_slow(fault, &traced).then(|| format!("took {:?}", traced.took));
        let of_state = row.wrong_state(fault, &traced, &state, &mut world);
        for what in [of_verb, of_time, of_state].into_iter().flatten() {
            let hits = traced.hits().take(3).collect::<Vec<_>>().join(" | ");
            let example = format!("{fault}: {hits}\n{}{}", traced.out, traced.err);
            self.coverage.lock().unwrap().complain(format!("{label}: {what}"), example);
        }
        // What ends an owner may have been killed after it has begun: the end is on its way. And a
        // process that stays, with a lock of SQLite's that it believes to be unlocked, keeps
        // everybody out; no kernel refuses to unlock.
        let is_as_it_was = state == Ok(State::Same) && !row.changes.load(Ordering::Relaxed);
        if is_as_it_was && !traced.hits().any(|hit| hit.contains("F_UNLCK")) {
            *kept = Some((row.number, world));
        }
    }
}

impl Row {
    /// Why an answer is wrong beside a living owner.
    fn wrong(&self, fault: &Fault, traced: &Traced) -> Option<String> {
        let Self { words, expected, owner, .. } = self;
        let code = traced.code;
        // A question that lists has no exit code for what it found.
        if code == 0
            && self.may == May::Nothing
            && !fault.is_answer()
            && (words.starts_with("status") || words.starts_with("locks"))
            && traced.out.contains("\"verdict\": \"dead\"")
        {
            return Some("a living owner is called dead".to_owned());
        }
        let is_shortage = fault.is_shortage();
        let why = match code {
            code if code == *expected => return None,
            TWO_AT_ONCE => "two at once",
            // Of a store that is said not to be there.
            0 if fault.is_answer() && self.may != May::Claim => return None,
            0 => "a wrong yes",
            // Of the verb, or of a helper or a command of its own.
            _ if fault.kills() => return None,
            75 => return None,
            4 | 70 | 78 if !is_shortage => return None,
            // What it writes are files of its own; what a keeper reports comes by a pipe.
            70 if words.starts_with("export")
                || traced.hits().any(|hit| hit.contains("<pipe:")) =>
            {
                return None;
            }
            70 => "a shortage is no failure of the engine",
            78 => "a shortage is no fault of the configuration",
            4 => "a shortage is nothing unknown",
            // Of the command, or of the shell that it is.
            125..=127
                if words.ends_with(ALONE) && (*expected == 0 || *owner == Owner::RunKilled) =>
            {
                return None;
            }
            // It is asked whether there is something to do, and says that it could not look.
            1 if words.starts_with("doctor") && !traced.out.contains("damaged") => return None,
            // So it is: the owner lives, and could not be signalled.
            1 if words.starts_with("stop") => return None,
            // The kernel said so: also that there is no such path, which is the caller's mistake.
            1..=3 if fault.is_answer() => return None,
            1 | 3 => "a wrong no",
            _ => "an exit code for something else",
        };
        Some(format!("{why}: {code}, not {expected}"))
    }

    /// What became of the owner that must not have; with whoever has ended nobody is blocked.
    fn wrong_state(
        &self,
        fault: &Fault,
        traced: &Traced,
        state: &Result<State, String>,
        world: &mut World,
    ) -> Option<String> {
        let changes = self.changes.load(Ordering::Relaxed);
        match state {
            Err(why) => Some(why.clone()),
            Ok(state) if !self.may.lead_to(*state, self.owner) => {
                Some(format!("{state:?} (exit code {})", traced.code))
            }
            Ok(State::Same) if changes && traced.code == 0 && !fault.is_answer() => {
                Some("said done, and did nothing".to_owned())
            }
            // After a restart the office is held by the same `run`.
            Ok(State::OwnerGone) if !self.words.starts_with("restart") => world.start_again().err(),
            Ok(_) => None,
        }
    }

    fn is_slow(&self, fault: &Fault, traced: &Traced) -> bool {
        let more = if self.may == May::EndOwner { STOP_BUDGET } else { Duration::ZERO };
        let took = |fault: Option<&Fault>| {
            let world = World::new(self.owner);
            let asked = asked(self.words, &world);
            let traced = match fault {
                Some(fault) => Traced::with(&world.sandbox, &asked, fault),
                None => Traced::undisturbed(&world.sandbox, &asked),
            };
            traced.map_or(LIMIT, |traced| traced.took)
        };
        answers::is_slow(traced.took, BOUND + more, || took(Some(fault)), || took(None))
    }
}
