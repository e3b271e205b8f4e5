//! An older gateway's row, as the process that holds its lock now.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::clock::now_ms;
use crate::liveness::AnchorState;
use crate::process::command_line::redact;
use crate::process::older::lock;
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::wire::PidRecord;
use crate::records::instances::LockNow;
use crate::records::{Record, instances, profiles};
use crate::sys::StartTime;
use crate::{Office, Result, clock, sys};

/// The directory of an older gateway on record.
pub(crate) fn home_of_holder(record: &Record) -> Option<PathBuf> {
    Some(lock::path_of(record.anchor.as_deref()?)?.parent()?.to_owned())
}

/// The live row of an office; that of an older gateway as whoever holds its lock now.
pub(crate) fn live(connection: &Connection, office: &Office) -> Result<Option<Record>> {
    let row = instances::live(connection, office)?;
    row.map(|record| refreshed(connection, record)).transpose()
}

/// A live row whose lock another older gateway holds by now, as that one: the row is about the
/// lock, and nobody has written down yet that it changed hands. One whose lock a `run` of ours
/// holds is over, whoever it names: that `run` has a row of its own.
pub(crate) fn refreshed(connection: &Connection, mut record: Record) -> Result<Record> {
    let path = record.anchor.as_deref().and_then(lock::path_of);
    let Some(path) = path.filter(|_| record.is_live()) else { return Ok(record) };
    // On record as one whose lock is free or gone, it is as dead as it looks.
    if !matches!(lock::look(path), AnchorState::Held | AnchorState::Unreadable) {
        return Ok(record);
    }
    let looked = Looked::at(path);
    let is_of_run = looked.found.owner.is_some();
    // It holds its lock itself, whatever else is on record for the process that started it.
    if !is_of_run && looked.keeper(&record) != Keeps::Another {
        return Ok(record);
    }
    if is_of_run || row_of(connection, &looked, |_| true)?.is_some() {
        record.older_lock = LockNow::Ours;
        return Ok(record);
    }
    let found = looked.found;
    record.argv = redact::redact(&found.argv);
    record.pid = Some(found.pid);
    record.start_time = found.start_time;
    record.pid_ns = if found.is_here { sys::pid_namespace() } else { None };
    record.older_lock = LockNow::Successors;
    if let Some(age_ms) =
        sys::process_age_ms(found.pid, clock::unix_time()).filter(|_| found.is_here)
    {
        record.started_at_ms = now_ms().saturating_sub(age_ms);
        record.identity.written_boot_clock_ms = Some(sys::boot_clock_ms().saturating_sub(age_ms));
    }
    Ok(record)
}

/// Whether the process of `record` is not to be signalled for a lock of the older program, because
/// that is not its own (any more): it only looked whether it is held, or another one has it by now.
pub(crate) fn has_let_go(record: &Record) -> bool {
    let Some(path) = record.anchor.as_deref().and_then(lock::path_of) else { return false };
    match lock::look(path) {
        AnchorState::Held => who_keeps(record, path) == Keeps::Another,
        AnchorState::Free => true,
        AnchorState::Missing | AnchorState::Unreadable | AnchorState::None => false,
    }
}

/// Whose a lock is that is held, seen from the row of an older gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    Itself,
    /// It has ended, and something that it started keeps the lock.
    WhatItLeft,
    Another,
    /// Nobody says.
    Unknown,
}

/// Who keeps the lock of `record`, at `path`, which is held.
pub(crate) fn who_keeps(record: &Record, path: &Path) -> Keeps {
    Looked::at(path).keeper(record)
}

fn is_another(record: &Record, found: &LockHolder) -> bool {
    match (record.start_time, found.start_time) {
        (Some(recorded), Some(now)) if recorded != now => true,
        // Another pid may be the same process', counted in another namespace.
        (Some(_), Some(_)) if !found.is_here || record.pid_ns != sys::pid_namespace() => false,
        (Some(_) | None, Some(_) | None) => record.pid != Some(found.pid),
    }
}

/// A held lock that was looked at once, for any number of rows.
pub(crate) struct Looked {
    pub(crate) found: LockHolder,
    said: Option<PidRecord>,
    home: PathBuf,
    /// What the holder descends from, without itself; looked for once, when it is asked for.
    ancestors: OnceCell<Vec<(sys::Pid, StartTime)>>,
}

impl Looked {
    pub(crate) fn at(path: &Path) -> Self {
        let (found, said) = lock::look_for_holder(path);
        let home = path.parent().unwrap_or(path).to_owned();
        Self { found, said, home, ancestors: OnceCell::new() }
    }

    /// Who keeps the lock, which is on record as that of the older gateway `record`.
    pub(crate) fn keeper(&self, record: &Record) -> Keeps {
        if self.found.pid == 0 {
            Keeps::Unknown
        } else if is_another(record, &self.found) {
            Keeps::Another
        } else if self.found.has_left_it {
            Keeps::WhatItLeft
        } else {
            Keeps::Itself
        }
    }

    /// Whether the lock is held for the process of `record`, which is no older gateway's row: by
    /// itself or by the command of a `run`. It may run in another container, and then the words in
    /// the file are its own. What else it has started may be anybody's gateway, of another
    /// directory (a terminal, a process manager): that counts only in the directory that the
    /// profile stands for.
    pub(crate) fn is_kept_for(&self, connection: &Connection, record: &Record) -> Result<bool> {
        if self.is_in_its_words(record) {
            return Ok(true);
        }
        if !self.found.is_here || record.pid_ns != sys::pid_namespace() {
            return Ok(false);
        }
        if self.is_held_by(record.pid, record.start_time)
            || self.is_held_by(record.child_pid, record.child_start_time)
        {
            return Ok(true);
        }
        let Some(profile) = record.profile.as_ref().filter(|_| self.descends_from(record)) else {
            return Ok(false);
        };
        let bound = profiles::legacy_home(connection, profile)?;
        Ok(bound.is_some_and(|bound| bound == Path::new(self.home.to_string_lossy().as_ref())))
    }

    fn is_in_its_words(&self, record: &Record) -> bool {
        let is_named = self.said.as_ref().is_some_and(|said| {
            Some(said.pid) == record.pid
                && said.start_time.is_some()
                && said.start_time() == record.start_time
        });
        is_named && !(self.found.is_here && differ(self.found.start_time, record.start_time))
    }

    fn is_held_by(&self, pid: Option<sys::Pid>, start_time: Option<StartTime>) -> bool {
        pid == Some(self.found.pid) && !differ(self.found.start_time, start_time)
    }

    fn descends_from(&self, record: &Record) -> bool {
        let owner = record.pid.zip(record.start_time);
        let child = record.child_pid.zip(record.child_start_time);
        let ancestors = self.ancestors.get_or_init(|| ancestors_of(self.found.pid));
        ancestors.iter().any(|it| Some(*it) == owner || Some(*it) == child)
    }
}

fn differ(one: Option<StartTime>, other: Option<StartTime>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

fn ancestors_of(pid: sys::Pid) -> Vec<(sys::Pid, StartTime)> {
    /// No real chain of parents is longer; a loop in a racing process table is.
    const GENERATIONS_MAX: usize = 1_024;
    std::iter::successors(sys::process_facts(pid).parent, |pid| sys::process_facts(*pid).parent)
        .take(GENERATIONS_MAX)
        .filter_map(|pid| Some((pid, sys::process_facts(pid).start_time?)))
        .collect()
}

/// The row for which the lock is held that was looked at ([`Looked::is_kept_for`]): no older
/// gateway's.
pub(crate) fn row_of(
    connection: &Connection,
    looked: &Looked,
    is_wanted: impl Fn(&Record) -> bool,
) -> Result<Option<Record>> {
    for row in instances::all_live(connection)? {
        let is_older = row.anchor.as_deref().and_then(lock::path_of).is_some();
        if row.office().is_some()
            && !is_older
            && is_wanted(&row)
            && looked.is_kept_for(connection, &row)?
        {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
