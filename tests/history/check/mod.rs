//! The checker: from a log to what is wrong with it. It knows the contract and the log, and nothing
//! of the program.
//!
//! `facts` orders the log, `lives` says who held what and when, and each other file proves one
//! promise. A call that was killed, and an answer that is an error, "unknown" or "not recorded",
//! proves nothing. What seems wrong and is allowed stands in `allowances`.

pub mod allowances;
mod answers;
mod ends;
mod facts;
mod fences;
mod kept;
mod lives;
mod markers;
mod owners;
mod reserved;
pub mod scene;
mod spans;
mod tests;
mod tokens;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::log::{Ns, Record, Thing};

pub use allowances::Allowance;
use facts::Facts;
use lives::Lives;

/// What may take long on a busy machine, and is still no hang.
pub const HANG: Duration = Duration::from_mins(3);

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// At most one owner at any instant.
    OneOwner,
    /// The fences of a name rise with time.
    FencesRise,
    /// A marker is consumed once, by whom it was for.
    MarkersOnce,
    /// What was acknowledged is there.
    Acknowledged,
    /// A `verify` that says Held was true at some instant of its call.
    HeldIsTrue,
    /// A definite "no" was true: refused, not running, lost.
    NoIsTrue,
    /// Nothing is held by the dead at the end.
    NothingForTheDead,
    /// Every incarnation has an end that fits what ended it.
    EndsFit,
    /// Every wait kept its bound.
    WaitsAreBounded,
    /// What is reserved for a takeover goes to nobody else.
    ReservationHolds,
    /// Nobody acts for an incarnation without its token.
    TokenCounts,
}

/// One promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// When it was certain.
    pub at: Ns,
    pub rule: Rule,
    /// Both sides, in one sentence.
    pub what: String,
    /// The records that say so, as indices of the log.
    pub lines: Vec<usize>,
}

impl Violation {
    /// Whether the two say the same, but for lengths of time.
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        self.rule == other.rule && timeless(&self.what).eq(timeless(&other.what))
    }
}

/// The words that are no lengths of time: see [`length`].
fn timeless(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.contains('.') || word.parse::<f64>().is_err())
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// By time.
    pub violations: Vec<Violation>,
    /// How often each allowance was needed.
    pub allowed: BTreeMap<Allowance, usize>,
}

/// Checks a log, whose records stand in the order of time.
pub fn check(records: &[Record]) -> Vec<Violation> {
    judge(records).violations
}

/// The same, and what was allowed.
pub fn judge(records: &[Record]) -> Judged {
    let facts = Facts::of(records);
    let lives = Lives::of(&facts);
    let mut court = Court { facts: &facts, lives: &lives, judged: Judged::default() };
    owners::check(&mut court);
    fences::check(&mut court);
    markers::check(&mut court);
    answers::check(&mut court);
    kept::check(&mut court);
    ends::check(&mut court);
    waits::check(&mut court);
    reserved::check(&mut court);
    tokens::check(&mut court);
    let mut judged = court.judged;
    let mut seen = BTreeSet::new();
    judged.violations.sort();
    judged.violations.retain(|it| seen.insert((it.rule, it.what.clone())));
    judged
}

/// What every rule works with.
struct Court<'f, 'a> {
    facts: &'f Facts<'a>,
    lives: &'f Lives<'a>,
    judged: Judged,
}

impl Court<'_, '_> {
    fn object(&mut self, rule: Rule, what: String, lines: &[&[usize]]) {
        let mut lines = lines.concat();
        lines.sort_unstable();
        lines.dedup();
        let at = lines.last().map_or(0, |line| self.facts.records[*line].at);
        self.judged.violations.push(Violation { at, rule, what, lines });
    }

    fn allow(&mut self, allowance: Allowance) {
        *self.judged.allowed.entry(allowance).or_default() += 1;
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Office { profile, kind, .. } => write!(f, "{profile}/{kind}"),
            Self::Lock { scope, identity, .. } => write!(f, "lock {scope}={identity}"),
        }
    }
}

/// An incarnation, or nobody that is known.
fn name(incarnation: Option<i64>) -> String {
    match incarnation {
        Some(id) => format!("incarnation {id}"),
        None => "an unknown incarnation".to_owned(),
    }
}

fn ns(duration: Duration) -> Ns {
    Ns::try_from(duration.as_nanos()).unwrap_or(Ns::MAX)
}

/// For sentences: `1.204 s`.
fn length(ns: Ns) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}
