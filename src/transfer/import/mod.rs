//! Importing the files of the older program: one row for each of them, and one transaction for all.
//!
//! No file is changed or deleted. What is found out twice is written once: a second import changes
//! nothing.

pub(crate) mod files;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod status;

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::claim::older_home::home_of_claim;
use crate::claim::{older, ours};
use crate::liveness::{AnchorState, Lease, Ruling};
use crate::owner::older::Looked;
use crate::owner::{LiveCommandLine, ending, judge_record};
use crate::process::older::wire::{PidRecord, Unusable};
use crate::process::older::{LOCK_FILE, PID_FILE, lock};
use crate::records::instances::LockNow;
use crate::records::{End, EndReason, EventRecord, Record, profiles};
use crate::store::{Inner, Tx};
use crate::transfer::import::files::OlderFiles;
use crate::words::words;
use crate::{Office, Result, Store, owner, path_text, sys};

/// What an import made of one file. In JSON an object with `file`, `verdict`, `reason`, `pid` and
/// `detail`; later versions may add others.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportedFile {
    /// Which file.
    pub file: PathBuf,
    /// What was found.
    pub finding: ImportFinding,
}

/// What was found in a file of the older program.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ImportFinding {
    /// What became of it.
    pub verdict: FileVerdict,
    /// Why, in snake case.
    pub reason: String,
    /// The pid of the process that it is about, where it names one.
    pub pid: Option<sys::Pid>,
    /// More, for people.
    pub detail: Option<String>,
    /// Whether two act for what only one may act for.
    pub is_conflict: bool,
}

words! {
    /// What became of a file. In JSON its word.
    #[non_exhaustive]
    pub enum FileVerdict {
        /// What it says is in the store.
        Imported = "imported",
        /// It is about a process that lives, and that is on record now or must not be.
        Live = "live",
        /// It is about a process that has ended: nothing was imported.
        Stale = "stale",
        /// It cannot be understood.
        Corrupt = "corrupt",
        /// It is not there.
        Missing = "missing",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

impl ImportedFile {
    /// A directory that was named, and whose files cannot be read: the rest is imported.
    fn left_out(directory: &Path, why: &std::io::Error) -> Self {
        let finding = match why.kind() {
            std::io::ErrorKind::NotFound => {
                ImportFinding::new(FileVerdict::Missing, "no_directory", None)
            }
            std::io::ErrorKind::NotADirectory => {
                ImportFinding::new(FileVerdict::Missing, "not_a_directory", None)
            }
            _ => ImportFinding::unknown("unreadable", None).detail(why.to_string()),
        };
        Self { file: directory.to_owned(), finding }
    }

    /// The row as the CLI's JSON shows it.
    fn document(&self) -> Value {
        let mut document = json!({
            "file": null,
            "verdict": self.finding.verdict,
            "reason": self.finding.reason,
            "pid": self.finding.pid,
            "detail": self.finding.detail,
        });
        path_text::put(&mut document, "file", &self.file);
        document
    }
}

impl Serialize for ImportedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

impl OlderFiles {
    /// The directory of locks that was named and cannot be read: the rest is imported.
    #[must_use]
    pub fn left_out(&self) -> Option<ImportedFile> {
        self.left_out.as_ref().map(|(directory, why)| ImportedFile::left_out(directory, why))
    }
}

impl ImportFinding {
    fn new(verdict: FileVerdict, reason: impl Into<String>, pid: Option<sys::Pid>) -> Self {
        Self { verdict, reason: reason.into(), pid, detail: None, is_conflict: false }
    }

    fn imported(reason: impl Into<String>, pid: Option<sys::Pid>) -> Self {
        Self::new(FileVerdict::Imported, reason, pid)
    }

    fn live(reason: impl Into<String>, pid: Option<sys::Pid>) -> Self {
        Self::new(FileVerdict::Live, reason, pid)
    }

    fn stale(reason: impl Into<String>, pid: Option<sys::Pid>) -> Self {
        Self::new(FileVerdict::Stale, reason, pid)
    }

    fn unknown(reason: impl Into<String>, pid: Option<sys::Pid>) -> Self {
        Self::new(FileVerdict::Unknown, reason, pid)
    }

    fn of(verdict: Ruling, pid: Option<sys::Pid>) -> Self {
        let word = match verdict {
            Ruling::Alive(_) => FileVerdict::Live,
            Ruling::Dead(_) => FileVerdict::Stale,
            Ruling::Unknown(_) => FileVerdict::Unknown,
        };
        Self::new(word, verdict.reason().as_str(), pid)
    }

    /// `None` for a file that is not there.
    fn unusable(why: Unusable) -> Option<Self> {
        match why {
            Unusable::Missing => None,
            Unusable::Corrupt(why) => {
                Some(Self::new(FileVerdict::Corrupt, "corrupt", None).detail(why))
            }
            Unusable::Unreadable(why) => Some(Self::unknown("unreadable", None).detail(why)),
        }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn conflict(mut self, detail: impl Into<String>) -> Self {
        self.is_conflict = true;
        self.detail(detail)
    }
}

/// What an import has at hand.
struct Import<'a> {
    tx: &'a Tx<'a>,
    inner: &'a Inner,
    office: &'a Office,
    files: &'a OlderFiles,
    /// How often the store was changed.
    changes: usize,
    rows: Vec<ImportedFile>,
}

/// Why the holder of the lock does not get a row.
enum Beside {
    /// Two act for one office.
    Older(String),
    /// It has one, of another profile, or in another store.
    Ours(String),
}

/// The older gateway that lives, as far as the files of others are its own.
struct Gateway {
    /// Its row.
    record: Record,
    /// How its own files name it, which may be in the numbers of another container.
    said: Option<PidRecord>,
}

impl Gateway {
    /// Whether a file is of this gateway.
    fn wrote(&self, record: &PidRecord) -> bool {
        let is_same = |pid: Option<sys::Pid>, start_time: Option<i64>| {
            let start_times = start_time.zip(record.start_time);
            pid == Some(record.pid) && start_times.is_none_or(|(one, other)| one == other)
        };
        is_same(self.record.pid, self.record.start_time.map(|time| time.value))
            || self.said.as_ref().is_some_and(|said| is_same(Some(said.pid), said.start_time))
    }
}

impl Store {
    /// Imports the files of an older program for `office`, in one transaction; no file is changed.
    /// A second import changes nothing. One row for each file, in the order of their paths. What
    /// was imported is visible to others when this returns, and from then on the profile stands for
    /// that directory. An example is at the [module](crate::transfer).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an office that is not of kind
    /// `gateway`, or when the profile stands for another directory;
    /// [`TooOld`](crate::ErrorKind::TooOld) for a store that was opened for asking only; and those
    /// of [`Profile::set_desired`](crate::Profile::set_desired).
    pub fn import(&self, office: &Office, files: &OlderFiles) -> Result<Vec<ImportedFile>> {
        files.check(office)?;
        let inner = &self.inner;
        inner.check_process()?;
        let mut rows = inner.write(|tx| {
            tx.check_schema()?;
            home_of_claim(tx, office, Some(&files.home))?;
            let mut import = Import { tx, inner, office, files, changes: 0, rows: Vec::new() };
            if profiles::bind_legacy_home(tx, office, &files.home)? {
                import.changes += 1;
            }
            let gateway = import.gateway()?;
            import.status(gateway.as_ref())?;
            import.locks(gateway.as_ref())?;
            import.markers(gateway.as_ref())?;
            import.rows.sort_by(|one, other| one.file.cmp(&other.file));
            import.record()?;
            Ok(import.rows)
        })?;
        rows.extend(files.left_out());
        Ok(rows)
    }
}

impl Import<'_> {
    fn add(&mut self, file: PathBuf, finding: ImportFinding) {
        self.rows.push(ImportedFile { file, finding });
    }

    /// Says once what came of it, if anything did.
    fn record(&self) -> Result<()> {
        if self.changes == 0 {
            return Ok(());
        }
        let mut detail = json!({"from": self.files.home.to_string_lossy()});
        for row in &self.rows {
            let count = detail[row.finding.verdict.as_str()].as_u64().unwrap_or(0);
            detail[row.finding.verdict.as_str()] = (count + 1).into();
        }
        self.tx.record(&EventRecord {
            event: "legacy_imported",
            office: Some(self.office),
            pid: Some(self.inner.observer().pid),
            detail: Some(detail),
            ..EventRecord::default()
        })
    }

    fn judge(&self, record: &PidRecord, file: &Path) -> (Record, Ruling) {
        older::judge(self.inner, record, file)
    }

    /// The two files that say which gateway runs.
    fn gateway(&mut self) -> Result<Option<Gateway>> {
        let (lock, pid) = (self.files.home.join(LOCK_FILE), self.files.home.join(PID_FILE));
        let (in_lock, in_pid) = (PidRecord::read(&lock), PidRecord::read(&pid));
        match lock::probe(&lock) {
            AnchorState::Held => self.locked_gateway(lock, in_lock, pid, in_pid),
            AnchorState::Missing | AnchorState::None => self.unlocked_gateway(pid, in_pid),
            AnchorState::Free => {
                for (file, said) in [(lock, in_lock), (pid, in_pid)] {
                    let finding = match said {
                        Ok(said) => Some(ImportFinding::stale("anchor_released", Some(said.pid))),
                        // The older program lets an empty file be.
                        Err(why) => ImportFinding::unusable(why),
                    };
                    if let Some(finding) = finding {
                        self.add(file, finding);
                    }
                }
                Ok(None)
            }
            AnchorState::Unreadable => {
                let why = "it is unknown whether its lock is held";
                self.add(lock, ImportFinding::unknown("unreadable", None).detail(why));
                let said = in_pid.map(|said| ImportFinding::unknown("unreadable", Some(said.pid)));
                if let Some(finding) = said.map_or_else(ImportFinding::unusable, Some) {
                    self.add(pid, finding);
                }
                Ok(None)
            }
        }
    }

    /// Somebody holds the lock.
    fn locked_gateway(
        &mut self,
        lock: PathBuf,
        in_lock: Result<PidRecord, Unusable>,
        pid: PathBuf,
        in_pid: Result<PidRecord, Unusable>,
    ) -> Result<Option<Gateway>> {
        let looked = Looked::at(&lock);
        let (record, conflict) = self.holder_of_lock(&lock, &looked)?;
        let found = looked.found;
        let holder = Some(found.pid).filter(|pid| *pid > 0);
        let mut finding = ImportFinding::live("anchor_held", holder);
        if let Err(Unusable::Corrupt(why) | Unusable::Unreadable(why)) = &in_lock {
            finding = finding.detail(format!("its text cannot be used: {why}"));
        }
        if found.has_left_it {
            finding = finding.detail("it has ended, and what it started keeps the lock");
        }
        match conflict {
            Some(Beside::Older(why)) => finding = finding.conflict(why),
            Some(Beside::Ours(why)) => finding = finding.detail(format!("left alone: {why}")),
            None => {}
        }
        self.add(lock, finding);
        let of_holder = |said: &PidRecord| {
            Some(said.pid) == holder || in_lock.as_ref().is_ok_and(|lock| lock.pid == said.pid)
        };
        let finding = match in_pid {
            Ok(said) if of_holder(&said) => {
                Some(ImportFinding::live("anchor_held", Some(said.pid)))
            }
            Ok(said) => Some(
                ImportFinding::stale("pid_mismatch", Some(said.pid))
                    .detail("another process holds the lock"),
            ),
            Err(why) => ImportFinding::unusable(why),
        };
        if let Some(finding) = finding {
            self.add(pid, finding);
        }
        Ok(record.map(|record| Gateway { record, said: in_lock.ok() }))
    }

    /// The row of whoever holds the lock at `path`; and what is wrong where somebody else has the
    /// office.
    fn holder_of_lock(
        &mut self,
        path: &Path,
        looked: &Looked,
    ) -> Result<(Option<Record>, Option<Beside>)> {
        let live = owner::live(self.tx, self.office)?;
        let is_ours = match &live {
            Some(live) if live.older_lock != LockNow::Ours => looked.is_kept_for(self.tx, live)?,
            Some(_) | None => false,
        };
        if !is_ours
            && let Some(other) = ours::obstacle(self.tx, self.inner, self.office, &self.files.home)?
        {
            return Ok((None, Some(Beside::Ours(other.holder.to_string()))));
        }
        let Some(live) = live else {
            return Ok((Some(self.record_holder()?), None));
        };
        let is_of_this_lock =
            live.anchor.as_deref().and_then(lock::path_of).is_some_and(|it| it == path);
        if is_of_this_lock && live.older_lock == LockNow::AsRecorded {
            return Ok((Some(live), None));
        }
        // Ours, with the lock of the older program beside its own.
        if !is_of_this_lock && is_ours {
            return Ok((None, None));
        }
        let reason = if is_of_this_lock {
            crate::liveness::DeadReason::AnchorReleased
        } else {
            match self.verdict_of(&live) {
                Ruling::Dead(reason) => reason,
                Ruling::Alive(_) | Ruling::Unknown(_) => {
                    return Ok((None, Some(Beside::Older(two_owners(self.office, &live)))));
                }
            }
        };
        let found_by = format!("found by pid {}", self.inner.observer().pid);
        let end = End::new(EndReason::Dead(reason)).detail(found_by);
        ending::end_other(self.tx, live.id, &end)?;
        Ok((Some(self.record_holder()?), None))
    }

    fn record_holder(&mut self) -> Result<Record> {
        self.changes += 1;
        older::record_holder(self.tx, self.inner, self.office, &self.files.home)
    }

    fn verdict_of(&self, record: &Record) -> Ruling {
        judge_record(self.inner, record, Lease::None, &LiveCommandLine::read(record)).ruling
    }

    /// There is no lock file: the oldest programs had none. The process decides.
    fn unlocked_gateway(
        &mut self,
        pid: PathBuf,
        in_pid: Result<PidRecord, Unusable>,
    ) -> Result<Option<Gateway>> {
        let said = match in_pid {
            Ok(said) => said,
            Err(why) => {
                if let Some(finding) = ImportFinding::unusable(why) {
                    self.add(pid, finding);
                }
                return Ok(None);
            }
        };
        let (told, verdict) = self.judge(&said, &pid);
        let finding = ImportFinding::of(verdict, Some(said.pid));
        if let Ruling::Dead(_) = verdict {
            self.add(pid, finding);
            return Ok(None);
        }
        if let Some(live) = owner::live(self.tx, self.office)? {
            match self.verdict_of(&live) {
                Ruling::Dead(reason) => {
                    ending::end_other(self.tx, live.id, &End::new(EndReason::Dead(reason)))?;
                }
                Ruling::Alive(_) | Ruling::Unknown(_) if live.pid == told.pid => {
                    self.add(pid, finding);
                    return Ok(live.is_pid.then_some(Gateway { record: live, said: Some(said) }));
                }
                Ruling::Alive(_) | Ruling::Unknown(_) => {
                    self.add(pid, finding.conflict(two_owners(self.office, &live)));
                    return Ok(None);
                }
            }
        }
        let found = older::found(&said, verdict);
        let insert = older::insert;
        let home = &self.files.home;
        let record = insert(self.tx, self.inner, self.office, &found, home, None, told.uid)?;
        self.changes += 1;
        self.add(pid, finding);
        Ok(Some(Gateway { record, said: Some(said) }))
    }
}

fn two_owners(office: &Office, live: &Record) -> String {
    let holder = live.pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    format!("but {holder} holds {office}: two gateways are running; stop one of them")
}
