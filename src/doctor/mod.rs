//! What is wrong with a store, its surroundings and those who use it: a list of findings, each with
//! evidence and remedy. Looking writes nothing.
//!
//! A check is one function that reads as its rule, in the file of what it looks at; [`examine`]
//! runs them all. What a check cannot look at is a finding of its own, and not a problem, so that a
//! store that is locked, damaged or gone gets an answer, too. Anchors are probed before rows are
//! read again, because gateways come and go meanwhile: a busy store is not a broken one.
//! [`repair()`] does what is safe and can be undone, and records it.

#![allow(
    clippy::unnecessary_wraps,
    reason = "every check answers alike, also one that cannot fail"
)]

pub(crate) mod check;
mod contention;
mod database;
mod judged_owner;
mod lost_files;
mod namesakes;
mod owners;
mod place;
mod repair;
mod stale;
mod surroundings;

use std::time::Duration;

use crate::doctor::check::{Check, Observation, Opened, Scene};
use crate::error::with_clear_sight;
use crate::patience::with_budget;
use crate::{ErrorKind, Kind, OpenOptions, ProfileName};

pub use crate::doctor::check::{Finding, Severity};
pub use crate::doctor::repair::{Act, Outcome, Repair, repair};
pub use crate::doctor::stale::StaleRecord;

/// Looks at a store, at what is around it and at those who use it. Never fails and never writes:
/// what cannot be looked at is a finding that says why. Every check that finds nothing says so with
/// one finding of [`Severity::Ok`]; where there is no store, those that need one are left out.
///
/// Each look has a bound of its own: 10 s for the integrity of the database, 2 s for systemd, 1 s
/// for the `sqlite3` on the path, 250 ms for the store's locks.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state/state.db");
/// use incumbent::{OpenOptions, doctor};
///
/// for finding in doctor::examine(&OpenOptions::new().path(path)) {
///     assert!(!finding.severity.is_problem() || finding.remedy.is_some(), "{finding:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn examine(options: &OpenOptions) -> Vec<Finding> {
    examine_only(options, None, None)
}

/// The same, where only the owners, conflicts and markers of one profile or of one kind of office
/// matter (`None`: of all); what concerns all of them (the file, its place, orphaned anchors) is
/// looked at anyway.
#[must_use]
pub fn examine_only(
    options: &OpenOptions,
    profile: Option<&ProfileName>,
    kind: Option<&Kind>,
) -> Vec<Finding> {
    let scene = Scene::new(options, profile, kind);
    let mut findings = run(place::CHECKS, &scene);
    if scene.is_there() {
        for checks in
            [place::CHECKS_OF_FILES, database::CHECKS_OF_FILES, contention::CHECKS_OF_FILES]
        {
            findings.extend(run(checks, &scene));
        }
    }
    match with_budget(LOCKS_WITHIN, || scene.open()) {
        Ok(Some(store)) => {
            findings.push(Finding::of("open", Observation::ok("the store can be opened and read")));
            let opened = Opened::new(&scene, store);
            for checks in [database::CHECKS, owners::CHECKS, contention::CHECKS] {
                findings.extend(run(checks, &opened));
            }
            findings.extend(run(surroundings::CHECKS_WITH_STORE, &opened));
        }
        Ok(None) => {
            findings.extend(database::empty(&scene).map(|seen| Finding::of("open", seen)));
        }
        Err(error) => findings.push(Finding::of("open", database::cannot_open(&scene, &error))),
    }
    findings.extend(run(namesakes::CHECKS, &scene));
    findings.extend(run(lost_files::CHECKS, &scene));
    findings.extend(run(surroundings::CHECKS, &scene));
    findings
}

/// How long one check waits for the store's locks. No writer keeps a reader waiting; only whoever
/// has the whole database for himself does.
const LOCKS_WITHIN: Duration = Duration::from_millis(250);

fn run<T>(checks: &[Check<T>], at: &T) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in checks {
        let seen = match with_budget(LOCKS_WITHIN, || {
            with_clear_sight(|| "look at all of it", || (check.look)(at))
        }) {
            Ok(seen) if seen.is_empty() => vec![Observation::ok(check.silent)],
            Ok(seen) => seen,
            Err(error) => {
                let unknown = Observation::unknown(format!("cannot be looked at: {error}"));
                let ran_short = error.is_of_shortage();
                // What to do about a damaged store is said once, by `integrity`.
                let hint = error.command_line_hint().filter(|_| error.kind() != ErrorKind::Corrupt);
                vec![Observation { remedy: hint.map(str::to_owned), ran_short, ..unknown }]
            }
        };
        findings.extend(seen.into_iter().map(|seen| Finding::of(check.id, seen)));
    }
    findings
}
