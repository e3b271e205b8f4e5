//! What a check is, what it finds, and what it may look at.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::claim::sweep::Force;
use crate::doctor::judged_owner;
use crate::doctor::judged_owner::{JudgedOwner, Only};
use crate::liveness::{Lease, Ruling};
use crate::owner::look;
use crate::owner::waiter::still_waits;
use crate::path_text::quoted;
use crate::process::command_line;
use crate::records::waiters::WaiterRow;
use crate::records::{Identities, instances, waiters};
use crate::store::{Inner, Location};
use crate::words::words;
use crate::{InstanceId, Kind, OpenOptions, ProfileName, Result, Store, environment, sys};

words! {
    /// How much a [`Finding`] matters; what is greater matters more. In JSON its word.
    #[non_exhaustive]
    #[derive(PartialOrd, Ord)]
    pub enum Severity {
        /// As it should be.
        Ok = "ok",
        /// Worth knowing, and nothing has to be done.
        Info = "info",
        /// Could not be looked at: neither right nor wrong.
        Unknown = "unknown",
        /// Something goes wrong until somebody acts.
        Warning = "warning",
        /// Something is broken now, or data is at risk.
        Error = "error",
    }
}

impl Severity {
    /// Whether somebody has to act now: what a probe fails for. What is over, or ends by itself,
    /// is at most [`Info`](Self::Info).
    #[must_use]
    pub fn is_problem(self) -> bool {
        matches!(self, Self::Warning | Self::Error)
    }
}

/// What one check found. In JSON an object with these fields, without `ran_short`; later versions
/// may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which check, in snake case; one that found several things has several findings. An id keeps
    /// its meaning in later versions; `docs/doctor.md` lists all of them.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was seen, as one sentence without a full stop.
    pub evidence: String,
    /// What a person can do, where there is something to do.
    pub remedy: Option<String>,
    /// Whether the look failed for want of something, and may succeed a moment later.
    #[serde(skip)]
    pub ran_short: bool,
}

impl Finding {
    pub(super) fn of(id: &'static str, seen: Observation) -> Self {
        let Observation { severity, evidence, remedy, ran_short } = seen;
        Self { id, severity, evidence, remedy, ran_short }
    }
}

/// Something to look at, of a place or of an open store.
pub(crate) struct Check<T> {
    pub(super) id: &'static str,
    /// What there is to say when nothing is found.
    pub(super) silent: &'static str,
    pub(super) look: fn(&T) -> Result<Vec<Observation>>,
}

/// A finding that does not know yet whose it is.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(super) severity: Severity,
    pub(super) evidence: String,
    pub(super) remedy: Option<String>,
    pub(super) ran_short: bool,
}

impl Observation {
    fn new(severity: Severity, evidence: impl Into<String>) -> Self {
        Self { severity, evidence: evidence.into(), remedy: None, ran_short: false }
    }

    pub(super) fn ok(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Ok, evidence)
    }

    pub(super) fn info(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Info, evidence)
    }

    pub(super) fn unknown(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Unknown, evidence)
    }

    pub(super) fn warning(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Warning, evidence)
    }

    pub(super) fn error(evidence: impl Into<String>) -> Self {
        Self::new(Severity::Error, evidence)
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Where the store is meant to be.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(super) options: OpenOptions,
    pub(super) only: Only,
    /// `None`: there is no such place, or it cannot be found out; [`place`](super::place) says
    /// which.
    pub(super) location: Option<Location>,
}

impl Scene {
    pub(super) fn new(
        options: &OpenOptions,
        profile: Option<&ProfileName>,
        kind: Option<&Kind>,
    ) -> Self {
        Self {
            options: options.clone(),
            only: Only { profile: profile.cloned(), kind: kind.cloned() },
            location: options.location().ok().flatten(),
        }
    }

    /// The store's file, or where it would be.
    pub(super) fn file(&self) -> PathBuf {
        match &self.location {
            Some(location) => location.file.clone(),
            None => self.options.requested_path().unwrap_or_default(),
        }
    }

    /// Whether there is a file where the store is meant to be.
    pub(super) fn is_there(&self) -> bool {
        let file = self.location.as_ref().map(|location| &location.file);
        file.is_some_and(|file| std::fs::symlink_metadata(file).is_ok())
    }

    pub(super) fn open(&self) -> Result<Option<Store>> {
        self.options.open_existing()
    }

    /// Where `--db` or a caller put it, `INCUMBENT_DB`, or neither.
    pub(super) fn why_there(&self) -> &'static str {
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
    pub(super) fn command(&self, verb: &str) -> String {
        match (&self.location, self.options.names_path()) {
            (Some(location), true) => {
                format!("`incumbent --db {} {verb}`", quoted(&location.file))
            }
            (Some(_) | None, _) => format!("`incumbent {verb}`"),
        }
    }
}

/// A store that can be read.
pub(crate) struct Opened {
    pub(super) scene: Scene,
    store: Store,
    owners: OnceCell<Vec<JudgedOwner>>,
}

impl Opened {
    pub(super) fn new(scene: &Scene, store: Store) -> Self {
        Self { scene: scene.clone(), store, owners: OnceCell::new() }
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.store.inner
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.inner().clock().wall_ms()
    }

    /// The verb that ends the record of an office, or that of locks without one.
    pub(super) fn evict(&self, owner: &JudgedOwner, force: Force) -> String {
        match (owner.record.office(), force) {
            (Some(office), Force::Yes) => self.scene.command(&office.verb("evict --force")),
            (Some(office), Force::No) => self.scene.command(&office.verb("evict")),
            (None, _) => self.scene.command("unlock --stale"),
        }
    }

    /// Everybody on record as live, and what is known of them.
    pub(super) fn owners(&self) -> Result<&[JudgedOwner]> {
        if let Some(owners) = self.owners.get() {
            return Ok(owners);
        }
        // Once for all checks: what the first one could not see, none of them has seen.
        let look = || judged_owner::look(self.inner(), &self.scene.only);
        let owners = self.inner().with_clear_sight(look)?;
        Ok(self.owners.get_or_init(|| owners))
    }

    /// Whether the owner of a row that has not been ended is dead; of all profiles.
    pub(super) fn is_dead(&self, id: InstanceId) -> Result<bool> {
        let inner = self.inner();
        inner.with_clear_sight(|| {
            let record = inner.read(|connection| instances::by_id(connection, id))?;
            let ruling = record.map(|record| look(inner, &record, Lease::None).ruling);
            Ok(matches!(ruling, Some(Ruling::Dead(_))))
        })
    }

    /// Whoever waits for an office or a lock, the longest first; of all profiles.
    pub(super) fn waiting(&self) -> Result<Vec<WaiterRow>> {
        let inner = self.inner();
        let mut rows = inner.read(waiters::all)?;
        inner.with_clear_sight(|| {
            rows.retain(|row| still_waits(inner, row));
            Ok(rows)
        })
    }

    /// A process for people: `pid 12 (its command line)`, without what is locked.
    pub(super) fn process(&self, pid: sys::Pid) -> String {
        let (Some(arguments), Ok(identities)) =
            (sys::command_line(pid), self.inner().read(Identities::read))
        else {
            return program(pid);
        };
        format!("pid {pid} ({})", cut(&command_line::display(&identities.command(arguments))))
    }

    pub(super) fn processes(&self, pids: &[sys::Pid]) -> String {
        pids.iter().map(|pid| self.process(*pid)).collect::<Vec<_>>().join(", ")
    }
}

/// A process by its program's name alone: where the store cannot be read, nobody knows which words
/// of a command line are locked, and secret.
pub(super) fn program(pid: sys::Pid) -> String {
    sys::program_name(pid)
        .map_or_else(|| format!("pid {pid}"), |name| format!("pid {pid} ({name})"))
}

/// The first of many, and how many more there are.
pub(super) fn listed<T>(all: &[T], shown_max: usize, show: impl Fn(&T) -> String) -> String {
    let mut text = all.iter().take(shown_max).map(show).collect::<Vec<_>>().join(", ");
    if all.len() > shown_max {
        text += &format!(" and {} more", all.len() - shown_max);
    }
    text
}

/// A file beside the database: `-wal`, `-shm`.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// `1 row`, `2 rows`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// In its largest fitting unit: `12 KiB`, `3 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .iter()
        .find(|(unit, _)| bytes >= 2 * unit)
        .map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{} {name}", bytes / unit))
}

/// At most a line or two of it.
fn cut(text: &str) -> String {
    const LENGTH_MAX: usize = 160;
    let end = text.floor_char_boundary(LENGTH_MAX);
    if end < text.len() { format!("{}...", &text[..end]) } else { text.to_owned() }
}

/// What `seen` says of each of those on record as live.
pub(super) fn each_owner(
    opened: &Opened,
    mut seen: impl FnMut(&JudgedOwner) -> Option<Observation>,
) -> Result<Vec<Observation>> {
    Ok(opened.owners()?.iter().filter_map(&mut seen).collect())
}
