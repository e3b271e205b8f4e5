//! What was tried, what could have been, and what came of it: the tables of docs/testing.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::fault::{Fault, How};

/// Faults that are possible, that were tried, and that were met by a call.
#[derive(Default)]
struct Count {
    possible: usize,
    tried: usize,
    met: usize,
}

#[derive(Default)]
pub struct Coverage {
    verbs: BTreeMap<String, Count>,
    /// And the errors that each call was given.
    calls: BTreeMap<String, (BTreeSet<&'static str>, Count)>,
    outcomes: BTreeMap<String, usize>,
    unlisted: BTreeSet<String>,
    of_the_runtime: usize,
    /// Said that it failed, and what it was asked for is done.
    done_though_failed: BTreeMap<String, usize>,
    /// What went wrong by what it was, with one example.
    wrong: BTreeMap<String, (usize, String)>,
}

impl Coverage {
    pub fn possible(&mut self, verb: &str, faults: &[Fault], unlisted: BTreeSet<String>) {
        self.verbs.entry(verb.to_owned()).or_default().possible += faults.len();
        for Fault { call, how, .. } in faults {
            let (errnos, count) = self.calls.entry(call.clone()).or_default();
            count.possible += 1;
            if let How::Fails(errno) = how {
                errnos.insert(*errno);
            }
        }
        self.unlisted.extend(unlisted);
    }

    pub fn tried(&mut self, verb: &str, fault: &Fault, is_met: bool, outcome: String) {
        let of_verb = self.verbs.entry(verb.to_owned()).or_default();
        let of_call = &mut self.calls.entry(fault.call.clone()).or_default().1;
        for count in [of_verb, of_call] {
            count.tried += 1;
            count.met += usize::from(is_met);
        }
        if is_met {
            *self.outcomes.entry(outcome).or_default() += 1;
        }
    }

    pub fn of_the_runtime(&mut self) {
        self.of_the_runtime += 1;
    }

    pub fn done_though_failed(&mut self, verb: &str) {
        *self.done_though_failed.entry(verb.to_owned()).or_default() += 1;
    }

    pub fn complain(&mut self, what: String, example: String) {
        eprintln!("FAULT {what}: {}", example.lines().next().unwrap_or_default());
        self.wrong.entry(what).or_insert_with(|| (0, example)).0 += 1;
    }

    /// What went wrong; empty where nothing did.
    pub fn complaints(&self) -> String {
        let mut wrong = String::new();
        for (what, (count, example)) in &self.wrong {
            let _ = writeln!(wrong, "{what}: {count} times, e.g. {example}");
        }
        wrong
    }

    pub fn met(&self) -> usize {
        self.verbs.values().map(|count| count.met).sum()
    }

    /// Markdown.
    pub fn table(&self, what: &str) -> String {
        let sum = |of: fn(&Count) -> usize| self.verbs.values().map(of).sum::<usize>();
        let mut text = format!(
            "### {what}\n\n{} rows of verbs, {} kinds of calls; {} faults possible, {} tried, {} \
             met by a call; {} more ended the loader or Rust's runtime.\n",
            self.verbs.len(),
            self.calls.len(),
            sum(|count| count.possible),
            sum(|count| count.tried),
            self.met(),
            self.of_the_runtime,
        );
        text += "\n| call | fails with (and SIGKILL) | possible | tried | met |\n";
        text += "|---|---|---|---|---|\n";
        for (call, (errnos, Count { possible, tried, met })) in &self.calls {
            let errnos = errnos.iter().copied().collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "| {call} | {errnos} | {possible} | {tried} | {met} |");
        }
        text += "\n| came of it | times |\n|---|---|\n";
        for (outcome, times) in &self.outcomes {
            let _ = writeln!(text, "| {outcome} | {times} |");
        }
        text += "\n| asked | possible | tried | met |\n|---|---|---|---|\n";
        for (verb, Count { possible, tried, met }) in &self.verbs {
            let _ = writeln!(text, "| {verb} | {possible} | {tried} | {met} |");
        }
        for (verb, times) in &self.done_though_failed {
            let _ = writeln!(text, "\n{verb}: {times} times it failed, and it was done.");
        }
        if !self.unlisted.is_empty() {
            let _ = writeln!(text, "\nCalls without a line in errnos.rs: {:?}", self.unlisted);
        }
        text
    }
}
