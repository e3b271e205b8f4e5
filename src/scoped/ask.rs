//! Questions about scoped locks: who holds what, is it alive, and who wants it. Reads only.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::liveness::{Flags, Judgement, Verdict};
use crate::owner::{LiveCommandLine, because, held_lock, judge_record, judgement, look};
use crate::process::command_line;
use crate::records::{LockRow, Record, conflicts, instances, locks, waiters};
use crate::scoped::request::LockRequest;
use crate::store::Inner;
use crate::{Conflict, InstanceId, Kind, LockName, ProfileName, Result, sys};

/// How often the question starts over because locks changed hands while it was looking.
const ATTEMPTS: usize = 4;

/// A lock on record, what is true of its holder, and who wants it.
#[derive(Clone, Debug)]
pub struct LockReport {
    /// Which lock.
    pub name: LockName,
    /// The holder's profile, if it has one.
    pub profile: Option<ProfileName>,
    /// The kind of the holder's office, if it has one.
    pub kind: Option<Kind>,
    /// The recorded process, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// The command that the holder, a `run`, supervises.
    pub child_pid: Option<sys::Pid>,
    /// The holder's row.
    pub instance: InstanceId,
    /// Rises with every change of holder.
    pub fence: i64,
    /// `alive`, `dead` or `unknown`: a dead holder's lock is free for whoever asks.
    pub verdict: &'static str,
    /// Why, in snake case.
    pub reason: &'static str,
    /// What else is to be known of the holder.
    pub flags: Flags,
    /// When it was acquired: Unix milliseconds, wall time.
    pub acquired_at_ms: i64,
    /// What is left of its lease, in milliseconds, if it has one; 0 once it is over.
    pub lease_remaining_ms: Option<i64>,
    /// What the holder says about itself.
    pub metadata: Option<Value>,
    /// The holder's redacted command line.
    pub command: Option<String>,
    /// Who waits for it, the longest first.
    pub waiters: Vec<LockWaiter>,
    /// Who was refused by this holder, the latest first.
    pub conflicts: Vec<Conflict>,
}

/// A process that waits for a lock.
#[derive(Clone, Debug)]
pub struct LockWaiter {
    /// Its profile, if it has one.
    pub profile: Option<ProfileName>,
    /// Its pid, in its own namespace.
    pub pid: Option<sys::Pid>,
    /// Its own row.
    pub instance: InstanceId,
    /// Since when: Unix milliseconds, wall time.
    pub since_ms: i64,
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
            verdict: judged.verdict.as_str(),
            reason: judged.verdict.reason(),
            flags: judged.flags,
            acquired_at_ms: row.acquired_at_ms,
            lease_remaining_ms: held_lock::remaining_ms(inner, &row),
            metadata: row.metadata,
            command: (!record.argv.is_empty()).then(|| command_line::display(&record.argv)),
            waiters,
            conflicts,
            name: row.name,
        }
    }

    /// Why the verdict was reached, as a clause for people.
    #[must_use]
    pub fn because(&self) -> &'static str {
        because(self.reason)
    }

    /// The lock as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "scope": self.name.scope.as_str(),
            "identity_hash": self.name.identity_hash.as_str(),
            "profile": self.profile.as_ref().map(ProfileName::as_str),
            "kind": self.kind.as_ref().map(Kind::as_str),
            "pid": self.pid,
            "child_pid": self.child_pid,
            "instance": self.instance.as_i64(),
            "fence": self.fence,
            "verdict": self.verdict,
            "reason": self.reason,
            "flags": self.flags.names(),
            "acquired_at": rfc3339(self.acquired_at_ms),
            "lease_remaining_ms": self.lease_remaining_ms,
            "metadata": self.metadata,
            "command": self.command,
            "waiters": self.waiters.iter().map(LockWaiter::to_json).collect::<Vec<_>>(),
            "conflicts": self.conflicts.iter().map(Conflict::to_json).collect::<Vec<_>>(),
        })
    }
}

impl LockWaiter {
    /// The waiter as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "profile": self.profile.as_ref().map(ProfileName::as_str),
            "pid": self.pid,
            "instance": self.instance.as_i64(),
            "since": rfc3339(self.since_ms),
        })
    }
}

/// What one snapshot of the store says of a lock.
struct Entry {
    row: LockRow,
    record: Record,
    waiters: Vec<LockWaiter>,
    conflicts: Vec<Conflict>,
}

fn entries(inner: &Inner, connection: &Connection) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for row in locks::all(connection)? {
        // A row that ended, ended by an older version that knows nothing of locks, holds none.
        let record = instances::by_id(connection, row.instance)?;
        let Some(record) = record.filter(Record::is_live) else { continue };
        let waiters = waiters::of_lock(connection, &row.name)?
            .into_iter()
            .filter_map(|(id, since_ms)| waiter(inner, connection, id, since_ms).transpose())
            .collect::<Result<_>>()?;
        let conflicts = conflicts::lock_conflicts(connection, &row.name, row.instance)?;
        entries.push(Entry { row, record, waiters, conflicts });
    }
    Ok(entries)
}

/// A waiter that is not dead: the row of one that was killed stays until the next grant.
fn waiter(
    inner: &Inner,
    connection: &Connection,
    id: InstanceId,
    since_ms: i64,
) -> Result<Option<LockWaiter>> {
    let Some(record) = instances::by_id(connection, id)? else { return Ok(None) };
    let judged = judgement(inner, &record);
    Ok(match judged.verdict {
        Verdict::Dead(_) => None,
        Verdict::Alive(_) | Verdict::Unknown(_) => {
            Some(LockWaiter { profile: record.profile, pid: record.pid, instance: id, since_ms })
        }
    })
}

/// Whether any of these locks has a holder that is not known to be dead.
pub(crate) fn any_is_held(inner: &Inner, requests: &[LockRequest]) -> Result<bool> {
    inner.read(|connection| {
        for request in requests {
            let Some(row) = locks::by_name(connection, &request.name)? else { continue };
            let record = instances::by_id(connection, row.instance)?;
            let Some(record) = record.filter(Record::is_live) else { continue };
            let lease = row.lease(inner.observer(), inner.clock().boot_ms());
            let judged = judge_record(inner, &record, lease, &LiveCommandLine::not_read());
            match judged.verdict {
                Verdict::Dead(_) => {}
                Verdict::Alive(_) | Verdict::Unknown(_) => return Ok(true),
            }
        }
        Ok(false)
    })
}

/// All locks on record.
pub(super) fn locks(inner: &Inner) -> Result<Vec<LockReport>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let entries = inner.read(|connection| entries(inner, connection))?;
        let report = |entry: Entry| {
            let lease = entry.row.lease(inner.observer(), inner.clock().boot_ms());
            let judged = look(inner, &entry.record, lease);
            LockReport::new(inner, entry, &judged)
        };
        let reports: Vec<LockReport> =
            inner.with_clear_sight(|| Ok(entries.into_iter().map(report).collect()))?;
        let dead: Vec<&LockReport> =
            reports.iter().filter(|report| report.verdict == "dead").collect();
        // A holder may have let go, and another one come, since the snapshot was taken.
        let changed = !dead.is_empty()
            && inner.read(|connection| {
                let mut changed = false;
                for report in &dead {
                    let row = locks::by_name(connection, &report.name)?;
                    changed |= row.is_none_or(|row| row.fence != report.fence);
                }
                Ok(changed)
            })?;
        if !changed || attempts == ATTEMPTS {
            return Ok(reports);
        }
    }
}
