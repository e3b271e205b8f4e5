//! Which faults are tried, and what counts as wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Mutex;

use super::strace::{Fault, Traced, counts};
use super::verbs::{ALONE, May, TWO_AT_ONCE, VERBS, Verb};
use super::world::{OWNERS, Owner, State, World};
use super::{CALLS, CALLS_BEYOND, CALLS_EACH, ERRNOS, SEED, SHORTAGES};
use crate::support::Random;

/// What is tried: all of it, or so much of each verb with each owner.
#[derive(Clone, Copy)]
pub enum Extent {
    All,
    Sample(usize),
}

pub fn extent() -> Extent {
    match std::env::var("INCUMBENT_FAULTS") {
        Ok(word) if word == "all" => Extent::All,
        Ok(number) => Extent::Sample(number.parse().expect("INCUMBENT_FAULTS: all, or a number")),
        Err(_) => Extent::Sample(1),
    }
}

/// Every fault that a verb with these calls can meet, or a sample of them.
pub fn faults(
    counts: &BTreeMap<String, (usize, usize)>,
    extent: Extent,
    random: &mut Random,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (call, (before, after)) in counts {
        let each = (*after).min(CALLS_EACH);
        let rest = after - each;
        let beyond: Vec<usize> =
            (0..rest.min(CALLS_BEYOND)).map(|_| each + 1 + random.index(rest)).collect();
        for n in (1..=each).chain(beyond) {
            for errno in ERRNOS {
                faults.push(Fault { call: call.clone(), errno, n, before: *before });
            }
        }
    }
    match extent {
        Extent::All => faults,
        Extent::Sample(count) if count >= faults.len() => faults,
        Extent::Sample(count) => {
            (0..count).map(|_| faults.swap_remove(random.index(faults.len()))).collect()
        }
    }
}

/// Why an answer is wrong.
fn wrong(
    verb: &Verb,
    owner: Owner,
    expected: i32,
    fault: &Fault,
    traced: &Traced,
) -> Option<String> {
    let (words, may, _) = verb;
    let code = traced.code;
    let is_shortage = SHORTAGES.contains(&fault.errno);
    // A question that lists has no exit code for what it found.
    if code == 0
        && *may == May::Nothing
        && (words.starts_with("status") || words.starts_with("locks"))
        && traced.out.contains("\"verdict\": \"dead\"")
    {
        return Some("a living owner is called dead".to_owned());
    }
    let why = match code {
        _ if traced.err.contains("panicked") => "a panic",
        code if code == expected => return None,
        TWO_AT_ONCE => "two at once",
        75 => return None,
        4 | 70 | 78 if !is_shortage => return None,
        // What it writes are files of its own; what a keeper reports comes by a pipe.
        70 if words.starts_with("export") || traced.hits().any(|hit| hit.contains("<pipe:")) => {
            return None;
        }
        70 => "a shortage is no failure of the engine",
        78 => "a shortage is no fault of the configuration",
        4 => "a shortage is nothing unknown",
        // Of the command, or of the shell that it is.
        125..=127 if words.ends_with(ALONE) && (expected == 0 || owner == Owner::RunKilled) => {
            return None;
        }
        // It is asked whether there is something to do, and says that it could not look.
        1 if words.starts_with("doctor") && !traced.out.contains("damaged") => return None,
        // So it is: the owner lives, and could not be signalled.
        1 if words.starts_with("stop") => return None,
        0 | 1 | 3 => "a wrong answer",
        _ => "an exit code for something else",
    };
    Some(format!("{why}: {code}, not {expected}"))
}

/// Faults, those where a call failed, and the answers by exit code.
pub type Tried = (usize, usize, BTreeMap<i32, usize>);

#[derive(Default)]
pub struct Coverage {
    verbs: BTreeMap<(usize, Owner), Tried>,
    calls: BTreeMap<(String, &'static str), (usize, usize)>,
    not_tried: usize,
    /// What went wrong by what it was, with one example.
    pub wrong: BTreeMap<String, (usize, String)>,
}

impl Coverage {
    fn note(&mut self, index: usize, owner: Owner, fault: &Fault, traced: Option<&Traced>) {
        let hits = traced.map_or(0, |traced| traced.hits().count());
        let (tried, hit, codes) = self.verbs.entry((index, owner)).or_default();
        *tried += 1;
        *hit += usize::from(hits > 0);
        if let Some(traced) = traced {
            *codes.entry(traced.code).or_default() += 1;
        }
        let (tried, hit) = self.calls.entry((fault.call.clone(), fault.errno)).or_default();
        *tried += 1;
        *hit += usize::from(hits > 0);
    }

    fn complain(&mut self, what: String, example: impl FnOnce() -> String) {
        self.wrong.entry(what).or_insert_with(|| (0, example())).0 += 1;
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let (mut tried, mut hit) = (0, 0);
        for ((index, owner), (verb_tried, verb_hit, codes)) in &self.verbs {
            (tried, hit) = (tried + verb_tried, hit + verb_hit);
            let codes: Vec<String> =
                codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
            let verb = VERBS[*index].0;
            let codes = codes.join(", ");
            let _ = writeln!(text, "{verb}, {owner:?}: {verb_hit} of {verb_tried} hit; {codes}");
        }
        for ((call, errno), (tried, hit)) in &self.calls {
            let _ = writeln!(text, "{call} {errno}: {hit} of {tried} hit");
        }
        let loader = self.not_tried;
        let _ = writeln!(text, "{tried} faults, {hit} hit, {loader} of the dynamic loader");
        text
    }
}

/// One verb with one owner.
pub struct Job {
    pub index: usize,
    pub owner: Owner,
}

pub fn jobs() -> VecDeque<Job> {
    let only = std::env::var("INCUMBENT_FAULTS_ONLY").unwrap_or_default();
    let mut jobs = VecDeque::new();
    for (index, (words, _, codes)) in VERBS.iter().enumerate() {
        for owner in OWNERS {
            if codes[owner.place()] >= 0 && words.contains(&only) {
                jobs.push_back(Job { index, owner });
            }
        }
    }
    jobs
}

/// Tries one verb with one owner. `worlds` are those that the last verbs have left as they were.
pub fn walk(
    job: &Job,
    extent: Extent,
    worlds: &mut HashMap<Owner, World>,
    coverage: &Mutex<Coverage>,
) {
    let Job { index, owner } = *job;
    let verb = &VERBS[index];
    let (words_of, may, codes) = verb;
    let complain = |what: &str, fault: &str, more: &str| {
        let key = format!("{words_of}, {owner:?}: {what}");
        eprintln!("FAULT {key}: {fault}");
        coverage.lock().unwrap().complain(key, || format!("{fault}\n{more}"));
    };
    let take = |worlds: &mut HashMap<Owner, World>| {
        // A signal of the last verb may have come after the last look.
        let known = worlds.remove(&owner).filter(|world| world.state() == Ok(State::Same));
        known.unwrap_or_else(|| World::new(owner))
    };
    let world = take(worlds);
    let all = ["-e".to_owned(), format!("trace=execve,{CALLS},poll")];
    let undisturbed = Traced::run(&world, &all, words_of).unwrap();
    let expected = codes[owner.place()];
    let end = world.state();
    let changes = !matches!(end, Ok(State::Same));
    if undisturbed.code != expected || end.is_err() {
        let said = format!("{}{}", undisturbed.out, undisturbed.err);
        complain("without a fault", &format!("{} {end:?} {said}", undisturbed.code), "");
        return;
    }
    if !changes {
        worlds.insert(owner, world);
    }
    // Each job has a seed of its own: which thread takes it does not matter.
    let mut random = Random::new(SEED + (index * OWNERS.len() + owner as usize) as u64);
    for fault in faults(&counts(&undisturbed.trace), extent, &mut random) {
        let world = take(worlds);
        let traced = match Traced::with(&world, words_of, &fault) {
            Ok(traced) if traced.is_of_the_loader() => {
                coverage.lock().unwrap().not_tried += 1;
                worlds.insert(owner, world);
                continue;
            }
            Ok(traced) => traced,
            // An owner whose process cannot be proven has the time that it asked for.
            Err(_) if *may == May::EndOwner && !SHORTAGES.contains(&fault.errno) => continue,
            Err(why) => {
                complain("it hangs", &format!("{fault:?}"), &why);
                continue;
            }
        };
        coverage.lock().unwrap().note(index, owner, &fault, Some(&traced));
        let state = world.state();
        let hit: Vec<&str> = traced.hits().take(3).collect();
        let about = format!("{} {} {}: {}", fault.call, fault.errno, fault.n, hit.join(" | "));
        let said = format!("{}{}", traced.out, traced.err);
        if let Some(why) = wrong(verb, owner, expected, &fault, &traced) {
            complain(&why, &about, &said);
        }
        match state {
            Err(why) => complain(&why, &about, &said),
            Ok(state) if !may.lead_to(state, owner) => {
                complain(&format!("{state:?} (exit code {})", traced.code), &about, &said);
            }
            Ok(State::Same) if changes && traced.code == 0 => {
                complain("said done, and did nothing", &about, &said);
            }
            // A process that stays, with a lock of SQLite's that it believes to be unlocked, keeps
            // everybody out; no kernel refuses to unlock.
            Ok(State::Same) if !traced.hits().any(|hit| hit.contains("F_UNLCK")) => {
                worlds.insert(owner, world);
            }
            Ok(_) => {}
        }
    }
}
