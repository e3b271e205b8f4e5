//! Every verb that writes: what it said to have done is there, what it had half done is in nobody's
//! way.

use std::sync::Mutex;
use std::time::Duration;

use super::answers;
use super::answers::{BOUND, document};
use super::coverage::Coverage;
use super::fault::{Fault, Site};
use super::observe::of_program;
use super::scene::{Before, Promise, Scene};
use super::strace::{Asked, Traced};
use super::turns::Walk;
use crate::support::LIMIT;

pub struct Acts<'a> {
    pub coverage: &'a Mutex<Coverage>,
}

/// What is asked, when, and what holds from then on. `OTHER` is a process that lives, and `RAN` a
/// command that leaves a word.
type Act = (&'static str, &'static [Before], Promise);

const RAN: &str = "RAN";

const ANYBODY: &[Before] = &[Before::Nothing, Before::Free, Before::Dead];

const ACTS: &[Act] = &[
    ("run --no-backoff -- RAN", ANYBODY, Promise::Ran),
    ("run --no-backoff --wait=5s --lock k=k -- RAN", &[Before::Free, Before::Dead], Promise::Ran),
    ("claim --pid OTHER", ANYBODY, Promise::Office),
    ("claim --pid OTHER --no-keeper", ANYBODY, Promise::Office),
    ("lock acquire k k --pid OTHER", ANYBODY, Promise::Lock),
    ("lock acquire k k --pid OTHER --no-keeper", ANYBODY, Promise::Lock),
    ("lock renew k k --pid OTHER", &[Before::Held], Promise::Lock),
    ("lock release k k --pid OTHER", &[Before::Held], Promise::NoLock),
    ("lock release --all --pid OTHER", &[Before::Held], Promise::NoLock),
    ("unlock k k", &[Before::Dead], Promise::NoLock),
    ("unlock --stale", &[Before::Dead], Promise::NoLock),
    ("unlock k k --force", &[Before::Held], Promise::NoLock),
    ("release --pid OTHER", &[Before::Held], Promise::NoOffice),
    ("evict", &[Before::Dead], Promise::NoOffice),
    ("evict --force", &[Before::Held], Promise::NoOffice),
    ("stop --timeout 10s", &[Before::Held], Promise::NoOffice),
    ("marker write word --pid OTHER", &[Before::Held], Promise::Marker),
    ("marker consume word --pid OTHER", &[Before::Marked], Promise::NoMarker),
    ("marker clear word --pid OTHER", &[Before::Marked], Promise::NoMarker),
    ("status-set --pid OTHER --state draining", &[Before::Held], Promise::Draining),
    ("desired stopped", ANYBODY, Promise::Desired),
];

pub struct Row {
    words: &'static str,
    before: Before,
    promise: Promise,
}

/// All, or those of the verbs with these words.
pub fn rows(only: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (words, states, promise) in ACTS.iter().filter(|(words, ..)| words.contains(only)) {
        rows.extend(states.iter().map(|before| Row { words, before: *before, promise: *promise }));
    }
    rows
}

impl Row {
    fn asked(&self, scene: &Scene) -> Asked {
        let mut arguments = vec!["--json".to_owned()];
        for word in self.words.split(' ') {
            match word {
                "OTHER" => arguments.push(scene.other.pid().to_string()),
                RAN => arguments.extend(["/bin/sh", "-c", Scene::RAN].map(str::to_owned)),
                other => arguments.push(other.to_owned()),
            }
        }
        Asked { arguments, environment: Vec::new() }
    }

    /// Whether the verb said that it is done.
    fn is_acknowledged(traced: &Traced) -> bool {
        let said = document(&traced.out);
        let says = |name: &str| said.as_ref().and_then(|said| said.get(name)?.as_bool());
        // Consumed, and that could not be written: the next one may get it as well, and that is
        // said.
        if says("recorded") == Some(false) {
            return false;
        }
        // It may have been killed after it had answered.
        traced.code == 0 || (traced.code == 137 && says("granted") == Some(true))
    }

    /// Why what it said is wrong.
    fn wrong(&self, fault: &Fault, traced: &Traced) -> Option<String> {
        let code = traced.code;
        let is_right = match code {
            0 | 4 | 70 | 75 | 78 => true,
            // Killed, or a helper of it was.
            _ if fault.kills() => true,
            // Whoever is told that there is no such thing says so.
            1 | 3 => fault.is_answer() || self.words.starts_with("stop"),
            // Of the command, which is a shell: it could not be started, or could not write.
            2 | 126 | 127 => self.promise == Promise::Ran,
            _ => false,
        };
        // A shell whose own call failed says 1.
        let is_of_shell = code == 1 && self.promise == Promise::Ran;
        (!is_right && !is_of_shell).then(|| format!("exit code {code}"))
    }

    /// What is said to be done and is not.
    fn broken(&self, fault: &Fault, traced: &Traced, scene: &Scene) -> Option<String> {
        // Of a store that is said not to be there.
        if fault.is_answer() {
            return None;
        }
        let is_broken = Self::is_acknowledged(traced) && !scene.keeps(self.promise);
        is_broken.then(|| format!("said done, and it is not: {:?}", self.promise))
    }

    fn is_slow(&self, fault: &Fault, traced: &Traced) -> bool {
        let took = |fault: Option<&Fault>| {
            let scene = Scene::new(self.before);
            let asked = self.asked(&scene);
            let traced = match fault {
                Some(fault) => Traced::with(&scene.sandbox, &asked, fault),
                None => Traced::undisturbed(&scene.sandbox, &asked),
            };
            traced.map_or(LIMIT, |traced| traced.took)
        };
        // `stop` may wait for the time that it was given.
        let asked_for = Duration::from_secs(10);
        answers::is_slow(traced.took, BOUND + asked_for, || took(Some(fault)), || took(None))
    }
}

impl Walk for Acts<'_> {
    type Key = Row;
    type Kept = ();

    fn label(&self, row: &Row) -> String {
        format!("{}, {:?}", row.words, row.before)
    }

    fn observe(&self, row: &Row, (): &mut ()) -> Result<Vec<Site>, String> {
        let mut scene = Scene::new(row.before);
        // A renewal changes nothing of who holds it.
        if row.promise != Promise::Lock && scene.keeps(row.promise) {
            return Err("it is done before it is asked for".to_owned());
        }
        let traced = Traced::undisturbed(&scene.sandbox, &row.asked(&scene))?;
        if traced.code != 0 || !scene.keeps(row.promise) {
            return Err(format!("{}: {}{}", traced.code, traced.out, traced.err));
        }
        scene.start_again()?;
        Ok(of_program(&traced.trace))
    }

    fn meet(&self, row: &Row, fault: &Fault, (): &mut ()) {
        let mut scene = Scene::new(row.before);
        let label = self.label(row);
        let traced = match Traced::with(&scene.sandbox, &row.asked(&scene), fault) {
            Ok(traced) if traced.is_of_the_runtime() => {
                return self.coverage.lock().unwrap().of_the_runtime();
            }
            Ok(traced) => traced,
            Err(why) => {
                let mut coverage = self.coverage.lock().unwrap();
                return coverage.complain(format!("{label}: it hangs"), format!("{fault}\n{why}"));
            }
        };
        let class = answers::class(&traced, fault, 0);
        self.coverage.lock().unwrap().tried(&label, fault, traced.met(fault), class);
        let of_answer = answers::wrong(&scene.sandbox, &traced, fault);
        let of_verb = of_answer.or_else(|| row.wrong(fault, &traced));
        let of_promise = row.broken(fault, &traced, &scene).or_else(|| scene.ran_twice());
        if !fault.kills() && traced.code != 0 && scene.keeps(row.promise) {
            self.coverage.lock().unwrap().done_though_failed(&label);
        }
        let of_time = row.is_slow(fault, &traced).then(|| format!("took {:?}", traced.took));
        let of_leftover = scene.start_again().err();
        for what in [of_verb, of_promise, of_time, of_leftover].into_iter().flatten() {
            let hits = traced.hits().take(3).collect::<Vec<_>>().join(" | ");
            let example = format!("{fault}: {hits}\n{}{}", traced.out, traced.err);
            self.coverage.lock().unwrap().complain(format!("{label}: {what}"), example);
        }
    }
}
