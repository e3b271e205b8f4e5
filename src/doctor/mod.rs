//! What is wrong with a store, its surroundings and those who use it: a list of findings, each with
//! evidence and remedy. Looking writes nothing.
//!
//! A check is one function that reads as its rule, in the file of what it looks at; [`examine`]
//! runs them all. What a check cannot look at is a finding of its own, so that a store that is
//! locked, damaged or gone gets an answer, too. [`repair()`] does what is safe and can be undone,
//! and records it.

#![allow(
    clippy::unnecessary_wraps,
    reason = "every check answers alike, also one that cannot fail"
)]

mod contention;
mod database;
mod lost_files;
mod namesakes;
mod owners;
mod place;
mod repair;
mod stale;
mod surroundings;

use std::cell::OnceCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

pub use repair::{Act, Outcome, Repair, repair};
pub use stale::StaleRecord;

use crate::command_line;
use crate::environment;
use crate::error::{ErrorKind, Result, with_clear_sight};
use crate::identities::Identities;
use crate::names::{Kind, ProfileName};
use crate::path_text::quoted;
use crate::store::{Inner, Location, OpenOptions, Store, with_budget};
use crate::sys;
use owners::Owner;

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// Could not be looked at: neither right nor wrong.
    Unknown,
    /// Something will go wrong, or has gone wrong.
    Warning,
    /// Somebody is kept from working, or data is at risk.
    Error,
}

impl Severity {
    /// As one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Whether somebody should act.
    #[must_use]
    pub fn is_problem(self) -> bool {
        matches!(self, Self::Warning | Self::Error)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one check found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which check, in snake case; one that found several things has several findings.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was seen, as one sentence without a full stop.
    pub evidence: String,
    /// What a person can do, where there is something to do.
    pub remedy: Option<String>,
    /// Whether the look failed for want of something, and may succeed a moment later.
    pub(crate) ran_short: bool,
}

impl Finding {
    /// As the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "severity": self.severity.as_str(),
            "evidence": self.evidence,
            "remedy": self.remedy,
        })
    }

    fn of(id: &'static str, seen: Seen) -> Self {
        let Seen { severity, evidence, remedy, ran_short } = seen;
        Self { id, severity, evidence, remedy, ran_short }
    }
}

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
/// matter; what concerns all of them (the file, its place, orphaned anchors) is looked at all the
/// same.
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
            findings.push(Finding::of("open", Seen::ok("the store can be opened and read")));
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

/// Something to look at, of a place or of an open store.
struct Check<T> {
    id: &'static str,
    /// What there is to say when nothing is found.
    silent: &'static str,
    look: fn(&T) -> Result<Vec<Seen>>,
}

fn run<T>(checks: &[Check<T>], at: &T) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in checks {
        let seen = match with_budget(LOCKS_WITHIN, || {
            with_clear_sight(|| "look at all of it", || (check.look)(at))
        }) {
            Ok(seen) if seen.is_empty() => vec![Seen::ok(check.silent)],
            Ok(seen) => seen,
            Err(error) => {
                let unknown = Seen::unknown(format!("cannot be looked at: {error}"));
                let ran_short = error.is_of_shortage();
                // What to do about a damaged store is said once, by `integrity`.
                let hint = error.hint().filter(|_| error.kind() != ErrorKind::Corrupt);
                vec![Seen { remedy: hint.map(str::to_owned), ran_short, ..unknown }]
            }
        };
        findings.extend(seen.into_iter().map(|seen| Finding::of(check.id, seen)));
    }
    findings
}

/// A finding that does not know yet whose it is.
#[derive(Debug)]
struct Seen {
    severity: Severity,
    evidence: String,
    remedy: Option<String>,
    ran_short: bool,
}

impl Seen {
    fn new(severity: Severity, evidence: impl Into<String>) -> Self {
        Self { severity, evidence: evidence.into(), remedy: None, ran_short: false }
    }

    fn ok(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Ok, evidence)
    }

    fn info(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Info, evidence)
    }

    fn unknown(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Unknown, evidence)
    }

    fn warning(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Warning, evidence)
    }

    fn error(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Error, evidence)
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Whom the checks of owners are about.
#[derive(Clone, Debug, Default)]
struct Only {
    profile: Option<ProfileName>,
    kind: Option<Kind>,
}

impl Only {
    /// Something without a profile concerns everybody.
    fn concerns(&self, profile: Option<&str>, kind: Option<&str>) -> bool {
        let fits = |wanted: Option<&str>, found: Option<&str>| match (wanted, found) {
            (Some(wanted), Some(found)) => wanted == found,
            (Some(_), None) | (None, _) => true,
        };
        fits(self.profile.as_ref().map(ProfileName::as_str), profile)
            && fits(self.kind.as_ref().map(Kind::as_str), kind)
    }
}

/// Where the store is meant to be.
#[derive(Clone)]
struct Scene {
    options: OpenOptions,
    only: Only,
    /// `None`: there is no such place, or it cannot be found out; [`place`] says which.
    location: Option<Location>,
}

impl Scene {
    fn new(options: &OpenOptions, profile: Option<&ProfileName>, kind: Option<&Kind>) -> Self {
        Self {
            options: options.clone(),
            only: Only { profile: profile.cloned(), kind: kind.cloned() },
            location: options.location().ok().flatten(),
        }
    }

    /// The store's file, or where it would be.
    fn file(&self) -> PathBuf {
        match &self.location {
            Some(location) => location.file.clone(),
            None => self.options.requested_path().unwrap_or_default(),
        }
    }

    /// Whether there is a file where the store is meant to be.
    fn is_there(&self) -> bool {
        let file = self.location.as_ref().map(|location| &location.file);
        file.is_some_and(|file| std::fs::symlink_metadata(file).is_ok())
    }

    fn open(&self) -> Result<Option<Store>> {
        self.options.open_existing()
    }

    /// Where `--db` or a caller put it, `INCUMBENT_DB`, or neither.
    fn why_there(&self) -> &'static str {
        if self.options.names_path() {
            "as it was asked for"
        } else if environment::value(environment::DB).is_some() {
            "by INCUMBENT_DB"
        } else {
            "the default"
        }
    }

    /// How the command line is called for this store, whatever is in the environment of who reads
    /// it.
    fn command(&self, verb: &str) -> String {
        match (&self.location, self.options.names_path()) {
            (Some(location), true) => {
                format!("`incumbent --db {} {verb}`", quoted(&location.file))
            }
            (Some(_) | None, _) => format!("`incumbent {verb}`"),
        }
    }
}

/// A store that can be read.
struct Opened {
    scene: Scene,
    store: Store,
    owners: OnceCell<Vec<Owner>>,
}

impl Opened {
    fn new(scene: &Scene, store: Store) -> Self {
        Self { scene: scene.clone(), store, owners: OnceCell::new() }
    }

    fn inner(&self) -> &Inner {
        &self.store.inner
    }

    fn now_ms(&self) -> i64 {
        self.inner().clock().wall_ms()
    }

    /// Everybody on record as live, and what is known of them.
    fn owners(&self) -> Result<&[Owner]> {
        if let Some(owners) = self.owners.get() {
            return Ok(owners);
        }
        // Once for all checks: what the first one could not see, none of them has seen.
        let look = || owners::look(self.inner(), &self.scene.only);
        let owners = self.inner().with_clear_sight(look)?;
        Ok(self.owners.get_or_init(|| owners))
    }

    /// A process for people: `pid 12 (its command line)`, without what is locked.
    fn process(&self, pid: sys::Pid) -> String {
        let (Some(arguments), Ok(identities)) =
            (sys::command_line(pid), self.inner().read(Identities::read))
        else {
            return program(pid);
        };
        format!("pid {pid} ({})", cut(&command_line::display(&identities.command(arguments))))
    }

    fn processes(&self, pids: &[sys::Pid]) -> String {
        pids.iter().map(|pid| self.process(*pid)).collect::<Vec<_>>().join(", ")
    }
}

/// A process by its program's name alone: where the store cannot be read, nobody knows which words
/// of a command line are locked, and secret.
fn program(pid: sys::Pid) -> String {
    sys::program_name(pid)
        .map_or_else(|| format!("pid {pid}"), |name| format!("pid {pid} ({name})"))
}

/// At most a line or two of it.
fn cut(text: &str) -> String {
    const LENGTH_MAX: usize = 160;
    let end = text.floor_char_boundary(LENGTH_MAX);
    if end < text.len() { format!("{}...", &text[..end]) } else { text.to_owned() }
}

/// The first of many, and how many more there are.
fn listed<T>(all: &[T], shown_max: usize, show: impl Fn(&T) -> String) -> String {
    let mut text = all.iter().take(shown_max).map(show).collect::<Vec<_>>().join(", ");
    if all.len() > shown_max {
        text += &format!(" and {} more", all.len() - shown_max);
    }
    text
}

/// A file beside the database: `-wal`, `-shm`.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// `1 row`, `2 rows`.
fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_one_profile_hears_of_no_other() {
        let only = |profile: Option<&str>, kind: Option<&str>| Only {
            profile: profile.map(|name| ProfileName::new(name).unwrap()),
            kind: kind.map(|name| Kind::new(name).unwrap()),
        };
        for (asked, profile, kind, expected) in [
            (only(None, None), Some("a"), Some("gateway"), true),
            (only(Some("a"), None), Some("a"), Some("gateway"), true),
            (only(Some("a"), None), Some("b"), Some("gateway"), false),
            (only(Some("a"), None), None, None, true),
            (only(None, Some("cron")), Some("a"), Some("gateway"), false),
            (only(Some("a"), Some("cron")), Some("a"), Some("cron"), true),
        ] {
            assert_eq!(asked.concerns(profile, kind), expected, "{asked:?} {profile:?} {kind:?}");
        }
    }
}
