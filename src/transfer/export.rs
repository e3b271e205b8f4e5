//! Writing what the store knows of an office into files as the older program keeps them, once.
//!
//! Each file is written beside its place and renamed. Not so `gateway.lock`: somebody may hold its
//! lock, and a file in its place would be another lock.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::claim::older::judge;
use crate::claim::older_home;
use crate::liveness::{AnchorState, Ruling};
use crate::owner::held_lock::HeldLock;
use crate::owner::older;
use crate::owner::older::Looked;
use crate::process::older::said::{Said, SaidOfPlatform};
use crate::process::older::wire::{PidRecord, Unusable, python_time, recognised};
use crate::process::older::write::{scratch, write_whole};
use crate::process::older::{LOCK_FILE, PID_FILE, STATUS_FILE, lock, marker_file};
use crate::records::{Record, instances};
use crate::status::answer;
use crate::store::Inner;
use crate::sys::StartTimeUnit;
use crate::{Error, Office, Report, Result, Store, Verdict, path_text, state, sys};

/// What an export did with one file. In JSON an object with `file`, `verdict` and `detail`; later
/// versions may add others.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportedFile {
    /// Which file.
    pub file: PathBuf,
    /// Whether it was written.
    pub is_written: bool,
    /// Why it was left as it is, for people; `None` where it was written.
    pub detail: Option<String>,
}

impl ExportedFile {
    fn written(file: PathBuf) -> Self {
        Self { file, is_written: true, detail: None }
    }

    fn left(file: PathBuf, why: impl Into<String>) -> Self {
        Self { file, is_written: false, detail: Some(why.into()) }
    }

    /// `written` or `left`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.is_written { "written" } else { "left" }
    }

    /// The row as the CLI's JSON shows it.
    fn document(&self) -> Value {
        let mut document = json!({
            "file": null,
            "verdict": self.verdict(),
            "detail": self.detail,
        });
        path_text::put(&mut document, "file", &self.file);
        document
    }
}

impl Serialize for ExportedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

/// What came of an export.
#[derive(Debug)]
#[non_exhaustive]
pub enum Exported {
    /// What was done with each file.
    Files(Vec<ExportedFile>),
    /// Nothing was written: these files are of a process that lives, and is not the holder.
    InUse(String),
}

/// What the files are about.
struct Export<'a> {
    inner: &'a Inner,
    home: &'a Path,
    lock_dir: &'a Path,
    report: Report,
    /// The holder that the report is about, whether or not it lives.
    record: Option<Record>,
    files: Vec<ExportedFile>,
}

impl Store {
    /// Writes what the store knows of `office` to `directory` as files of the older program, once;
    /// and one file for each of its locks to `lock_dir`, else to `gateway-locks` in it. Missing
    /// directories are made (0700). Each file appears whole; the store is only read. An example is
    /// at the [module](crate::transfer).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an office that is not of kind
    /// `gateway`; [`Permission`](crate::ErrorKind::Permission) for another user's directory, or one
    /// that may not be written; [`CannotWrite`](crate::ErrorKind::CannotWrite) and
    /// [`Internal`](crate::ErrorKind::Internal) where a file cannot be written for another reason;
    /// and those of [`Profile::status_of`](crate::Profile::status_of). What was written until then
    /// stays.
    pub fn export(
        &self,
        office: &Office,
        directory: impl AsRef<Path>,
        lock_dir: Option<&Path>,
    ) -> Result<Exported> {
        let directory = directory.as_ref();
        older_home::check_kind(&office.kind)?;
        sys::create_private_dirs(directory)
            .map_err(|error| Error::io("create the directory", directory, error))?;
        let home = older_home::home(directory, &office.kind)?;
        let lock_dir = lock_dir.map_or_else(|| home.join("gateway-locks"), Path::to_owned);
        export(self, office, &home, &lock_dir)
    }
}

fn export(store: &Store, office: &Office, home: &Path, lock_dir: &Path) -> Result<Exported> {
    let inner = &store.inner;
    let report = answer::report(inner, office)?;
    let record = match report.instance {
        Some(id) => inner.read(|connection| instances::by_id(connection, id))?,
        None => None,
    };
    let refreshed = |record| inner.read(|connection| older::refreshed(connection, record));
    let record = record.map(refreshed).transpose()?;
    let export = Export { inner, home, lock_dir, report, record, files: Vec::new() };
    match export.is_in_use()? {
        Some(why) => Ok(Exported::InUse(why)),
        None => export.write().map(Exported::Files),
    }
}

impl Export<'_> {
    /// Whoever holds the office, or may.
    fn holder(&self) -> Option<&Record> {
        self.record.as_ref().filter(|_| self.report.verdict != Verdict::Dead)
    }

    /// Whose the files are, if they are another's.
    fn is_in_use(&self) -> Result<Option<String>> {
        let (lock, pid) = (self.home.join(LOCK_FILE), self.home.join(PID_FILE));
        match lock::probe(&lock) {
            AnchorState::Held if !self.is_of_run(&lock)? => {
                let pid = match lock::whoever_holds(&lock).pid {
                    0 => "unknown".to_owned(),
                    pid => pid.to_string(),
                };
                let why = "an older gateway holds it, and writes these files itself";
                return Ok(Some(format!("{}: {why} (pid {pid})", lock.display())));
            }
            AnchorState::Unreadable => {
                let why = "it cannot be looked at, so an older gateway may hold it";
                return Ok(Some(format!("{}: {why}", lock.display())));
            }
            AnchorState::Held | AnchorState::Free | AnchorState::Missing | AnchorState::None => {}
        }
        Ok(self.other_in(&pid).map(|why| format!("{}: {why}", pid.display())))
    }

    /// Whether the lock, which is held, is that of a `run` beside the office.
    fn is_of_run(&self, lock: &Path) -> Result<bool> {
        let Some(holder) = self.holder().filter(|holder| lockfile_of(holder).is_none()) else {
            return Ok(false);
        };
        let looked = Looked::at(lock);
        self.inner.read(|connection| looked.is_kept_for(connection, holder))
    }

    /// Whose a file is, if it is not known to be our holder's, or that of a process that has ended.
    fn other_in(&self, file: &Path) -> Option<String> {
        let said = match PidRecord::read(file) {
            Ok(said) => said,
            Err(Unusable::Missing | Unusable::Corrupt(_)) => return None,
            Err(Unusable::Unreadable(why)) => {
                return Some(format!("it is unknown whose it is: {why}"));
            }
        };
        let is_ours = self.holder().is_some_and(|holder| {
            let start_times = holder.start_time.zip(said.start_time());
            holder.pid == Some(said.pid) && start_times.is_none_or(|(one, other)| one == other)
        });
        if is_ours {
            return None;
        }
        let lives = match judge(self.inner, &said, file).1 {
            Ruling::Dead(_) => return None,
            Ruling::Alive(_) => "lives",
            Ruling::Unknown(_) => "may be alive",
        };
        Some(format!("it names pid {}, which {lives}, and is not the holder here", said.pid))
    }

    fn write(mut self) -> Result<Vec<ExportedFile>> {
        self.write_records()?;
        self.write_status()?;
        for lock in std::mem::take(&mut self.report.locks) {
            // The older program knows one holder of each.
            if lock.slot.is_none_or(|slot| slot.of == 1) {
                self.write_lock(&lock)?;
            }
        }
        self.write_markers()?;
        Ok(self.files)
    }

    fn write_file(&mut self, directory: &Path, name: &str, document: &Value) -> Result<()> {
        write_whole(directory, name, &document.to_string())?;
        self.files.push(ExportedFile::written(directory.join(name)));
        Ok(())
    }

    fn write_records(&mut self) -> Result<()> {
        let (lock, pid) = (self.home.join(LOCK_FILE), self.home.join(PID_FILE));
        let Some(record) = self.holder().and_then(pid_record) else {
            for file in [lock, pid] {
                if file.symlink_metadata().is_ok() {
                    let why = "nobody holds the office, so there is nothing to write";
                    self.files.push(ExportedFile::left(file, why));
                }
            }
            return Ok(());
        };
        let document = record.to_json();
        if lock.symlink_metadata().is_ok() {
            let why = "its lock may be held: a lock file is never replaced";
            self.files.push(ExportedFile::left(lock, why));
        } else {
            self.write_new_lock_file(lock, &document)?;
        }
        self.write_file(self.home, PID_FILE, &document)
    }

    /// Never over one that came in this very moment.
    fn write_new_lock_file(&mut self, path: PathBuf, document: &Value) -> Result<()> {
        let failed = |error: std::io::Error| Error::io("write", &path, error);
        let mut scratch = scratch(self.home).map_err(failed)?;
        scratch.write_all(document.to_string().as_bytes()).map_err(failed)?;
        sys::give_to_owner_of_directory(scratch.as_file(), scratch.path()).map_err(failed)?;
        let row = match sys::link_beside(scratch.path(), &path) {
            Ok(()) => ExportedFile::written(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                ExportedFile::left(path, "another process has just made it")
            }
            // A filesystem without second names.
            Err(_) => match scratch.persist_noclobber(&path) {
                Ok(_) => ExportedFile::written(path),
                Err(error) => return Err(failed(error.error)),
            },
        };
        self.files.push(row);
        Ok(())
    }

    fn write_status(&mut self) -> Result<()> {
        let Some(record) = self.record.as_ref().and_then(pid_record) else { return Ok(()) };
        let now_ms = self.inner.clock().wall_ms();
        let mut said = said(&self.report, state::STARTING, now_ms);
        if self.holder().is_none() {
            state::STOPPED.clone_into(&mut said.state);
        }
        let document = said.document(&record);
        self.write_file(self.home, STATUS_FILE, &document)
    }

    fn write_lock(&mut self, lock: &HeldLock) -> Result<()> {
        let Some(record) = self.holder().and_then(pid_record) else { return Ok(()) };
        sys::create_private_dirs(self.lock_dir)
            .map_err(|error| Error::io("create the directory", self.lock_dir, error))?;
        let name = format!("{}-{}.lock", lock.name.scope, lock.name.identity_hash);
        let path = self.lock_dir.join(&name);
        if let Some(why) = self.other_in(&path) {
            self.files.push(ExportedFile::left(path, why));
            return Ok(());
        }
        let mut document = record.to_json();
        document["scope"] = lock.name.scope.as_str().into();
        document["identity_hash"] = lock.name.identity_hash.as_str().into();
        document["metadata"] = lock.metadata.clone().unwrap_or_else(|| json!({}));
        document["updated_at"] = python_time(lock.acquired_at_ms).into();
        self.write_file(self.lock_dir, &name, &document)
    }

    fn write_markers(&mut self) -> Result<()> {
        let Some(record) = self.holder().and_then(pid_record) else { return Ok(()) };
        for marker in std::mem::take(&mut self.report.markers) {
            let (name, by, at_ms) = (&marker.name, marker.by_pid, marker.written_at_ms);
            let file = marker_file::document(name, &record, by, at_ms);
            let Some((file, document)) = file else { continue };
            self.write_file(self.home, file, &document)?;
        }
        Ok(())
    }
}

/// What `report` says of its gateway: `state` where that has said none, and the time `at_ms` where
/// it has said nothing.
pub(crate) fn said(report: &Report, state: &str, at_ms: i64) -> Said {
    let runtime = report.runtime.clone().unwrap_or_default();
    let platforms = report.platforms.iter().map(|said| SaidOfPlatform {
        platform: said.platform.clone(),
        state: said.state.clone(),
        error_code: said.error_code.clone(),
        error_message: said.error_message.clone(),
        updated_at_ms: said.updated_at_ms.unwrap_or(at_ms),
    });
    Said {
        state: report.state.clone().unwrap_or_else(|| state.to_owned()),
        exit_reason: runtime.exit_reason,
        restart_requested: runtime.restart_requested.unwrap_or(false),
        active_agents: runtime.active_agents.unwrap_or(0),
        platforms: platforms.collect(),
        updated_at_ms: runtime.updated_at_ms.unwrap_or(at_ms),
    }
}

fn lockfile_of(record: &Record) -> Option<&Path> {
    lock::path_of(record.anchor.as_deref()?)
}

fn pid_record(record: &Record) -> Option<PidRecord> {
    let ticks = record.start_time.filter(|time| time.unit == StartTimeUnit::Ticks);
    Some(PidRecord {
        pid: record.pid?,
        start_time: ticks.map(|time| time.value),
        argv: recognised(record.argv.clone()),
        owner: None,
    })
}
