//! Questions about scoped locks: who holds what, is it alive, and who wants it. Reads only.

use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;

use crate::clock::{as_millis, as_rfc3339};
use crate::liveness::{Flags, Judgement, Ruling};
use crate::names::slot::Slot;
use crate::owner::waiter::{Waiter, waiting};
use crate::owner::{LiveCommandLine, held_lock, judge_record, look};
use crate::process::command_line;
use crate::records::conflicts::Conflict;
use crate::records::waiters::WaiterRow;
use crate::records::{LockRow, Record, conflicts, instances, locks, waiters};
use crate::scoped::request::LockRequest;
use crate::scoped::slots;
use crate::store::Inner;
use crate::{InstanceId, Kind, LockName, ProfileName, Reason, Result, Verdict, sys};
use std::time::Duration;

/// How often the question starts over because locks changed hands while it was looking.
const ATTEMPTS: usize = 4;

/// A lock on record, what is true of its holder, and who wants it. In JSON an object with these
/// fields, with `scope` and `identity_hash` in place of the name, `acquired_at` (RFC 3339, UTC,
/// milliseconds) and `lease_remaining_ms`; later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LockReport {
    /// Which lock.
    #[serde(flatten)]
    pub name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub slot: Option<Slot>,
    /// The holder's profile; `None` for a process that took it without one.
    pub profile: Option<ProfileName>,
    /// The kind of the holder's office, if it has one.
    pub kind: Option<Kind>,
    /// The recorded process, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// The pid of the command that the holder, a `run`, supervises.
    pub child_pid: Option<sys::Pid>,
    /// The holder's row.
    pub instance: InstanceId,
    /// Rises with every change of holder.
    pub fence: i64,
    /// Whether its holder is alive; a dead holder's lock is free for the next who asks.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What else is to be known of the holder.
    pub flags: Flags,
    /// When it was acquired: Unix milliseconds, wall time.
    #[serde(rename = "acquired_at", serialize_with = "as_rfc3339")]
    pub acquired_at_ms: i64,
    /// What is left of its lease; zero once it is over, `None` without a lease.
    #[serde(rename = "lease_remaining_ms", serialize_with = "as_millis")]
    pub lease_remaining: Option<Duration>,
    /// What the holder says about itself.
    pub metadata: Option<Value>,
    /// The holder's redacted command line.
    pub command: Option<String>,
    /// Who waits for it, the longest first.
    pub waiters: Vec<Waiter>,
    /// Who was refused by this holder, the latest first.
    pub conflicts: Vec<Conflict>,
}

impl LockReport {
    fn new(inner: &Inner, entry: Entry, judged: &Judgement) -> Self {
        let Entry { row, record, waiters, conflicts } = entry;
        Self {
            profile: record.profile.clone(),
            kind: record.kind().cloned(),
            pid: record.pid,
            child_pid: record.child_pid,
            instance: record.id,
            fence: row.fence,
            verdict: judged.ruling.verdict(),
            reason: judged.ruling.reason(),
            flags: judged.flags,
            acquired_at_ms: row.acquired_at_ms,
            lease_remaining: held_lock::remaining(inner, &row),
            metadata: row.metadata,
            command: (!record.argv.is_empty()).then(|| command_line::display(&record.argv)),
            waiters: waiting(inner, waiters),
            conflicts,
            slot: row.slot,
            name: row.name,
        }
    }

    /// Why the verdict was reached, as a clause for people.
    #[must_use]
    pub fn because(&self) -> &'static str {
        self.reason.because()
    }
}

/// What one snapshot of the store says of a lock.
struct Entry {
    row: LockRow,
    record: Record,
    waiters: Vec<WaiterRow>,
    conflicts: Vec<Conflict>,
}

fn entries(inner: &Inner, connection: &Connection, rows: Vec<LockRow>) -> Result<Vec<Entry>> {
    let since_ms = inner.clock().wall_ms().saturating_sub(conflicts::CURRENT_FOR_MS);
    let mut entries = Vec::new();
    for row in rows {
        // A row that ended, ended by an older version that knows nothing of locks, holds none.
        let record = instances::by_id(connection, row.instance)?;
        let Some(record) = record.filter(Record::is_live) else { continue };
        let waiters = waiters::of_lock(connection, &row.name)?;
        let conflicts = conflicts::lock_conflicts(connection, &row.name, row.instance, since_ms)?;
        entries.push(Entry { row, record, waiters, conflicts });
    }
    Ok(entries)
}

/// Whether any of these locks is not to be had, because of holders that are not known to be dead.
pub(crate) fn any_is_held(inner: &Inner, requests: &[LockRequest]) -> Result<bool> {
    inner.read(|connection| {
        for request in requests {
            let mut rows = Vec::new();
            for row in locks::all_of(connection, &request.name)? {
                let record = instances::by_id(connection, row.instance)?;
                let Some(record) = record.filter(Record::is_live) else { continue };
                let lease = row.lease(inner.observer(), inner.clock().boot_ms());
                let judged = judge_record(inner, &record, lease, &LiveCommandLine::not_read());
                match judged.ruling {
                    Ruling::Dead(_) => {}
                    Ruling::Alive(_) | Ruling::Unknown(_) => rows.push(row),
                }
            }
            if !slots::has_room(request, rows.iter()) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// All locks on record.
pub(super) fn locks(inner: &Inner) -> Result<Vec<LockReport>> {
    reports(inner, locks::all)
}

/// One of them. Of several holders the first that is not known to be dead.
pub(super) fn lock(inner: &Inner, name: &LockName) -> Result<Option<LockReport>> {
    let rows = |connection: &Connection| {
        if locks::exists(connection)? { locks::all_of(connection, name) } else { Ok(Vec::new()) }
    };
    let mut reports = reports(inner, rows)?;
    let lives = |report: &LockReport| report.verdict != Verdict::Dead;
    let which = reports.iter().position(lives).unwrap_or_default();
    Ok((which < reports.len()).then(|| reports.swap_remove(which)))
}

fn reports(
    inner: &Inner,
    rows: impl Fn(&Connection) -> Result<Vec<LockRow>>,
) -> Result<Vec<LockReport>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let read = |connection: &Connection| entries(inner, connection, rows(connection)?);
        let entries = inner.read(read)?;
        let report = |entry: Entry| {
            let lease = entry.row.lease(inner.observer(), inner.clock().boot_ms());
            let judged = look(inner, &entry.record, lease);
            LockReport::new(inner, entry, &judged)
        };
        let reports: Vec<LockReport> =
            inner.with_clear_sight(|| Ok(entries.into_iter().map(report).collect()))?;
        let dead: Vec<&LockReport> =
            reports.iter().filter(|report| report.verdict == Verdict::Dead).collect();
        // A holder may have let go, and another one come, since the snapshot was taken.
        let changed = !dead.is_empty()
            && inner.read(|connection| {
                let mut changed = false;
                for report in &dead {
                    let fence = locks::fence_at(connection, &report.name, report.slot)?;
                    changed |= fence != Some(report.fence);
                }
                Ok(changed)
            })?;
        if !changed || attempts == ATTEMPTS {
            return Ok(reports);
        }
    }
}
