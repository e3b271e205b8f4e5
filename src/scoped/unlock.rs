//! Removing locks by hand.

use crate::claimant::{Orphans, evict_orphans, judge_record};
use crate::error::Result;
use crate::holder::Holder;
use crate::instance::{self, End, EndReason, Record};
use crate::liveness::{Lease, Verdict};
use crate::lock_table::{self, LockEnd, LockRow};
use crate::names::{InstanceId, LockName, ProfileName, Wanted};
use crate::observe::{LiveCommandLine, needs_command_line};
use crate::standing::Force;
use crate::store::{Inner, Tx};
use crate::sys;

/// What came of [`Store::unlock`](crate::Store::unlock).
#[derive(Clone, Debug)]
pub enum Unlocked {
    /// Nobody is on record as holding it: nothing to do.
    Nothing,
    /// It was removed.
    Done(UnlockedLock),
    /// Anchors whose records were lost with their store no longer stand in the way; their
    /// processes were left alone.
    OrphansRemoved(usize),
    /// Its holder lives or may live, and nobody said `force`.
    Refused(Box<Holder>),
}

/// A lock that was removed, and what was known of its holder.
#[derive(Clone, Debug)]
pub struct UnlockedLock {
    /// Which lock.
    pub name: LockName,
    /// The holder's profile, if it has one.
    pub profile: Option<ProfileName>,
    /// The holder's recorded pid.
    pub pid: Option<sys::Pid>,
    /// The holder's row.
    pub instance: InstanceId,
    /// The fence, which the next holder's exceeds.
    pub fence: i64,
    /// What was known of the holder: `alive`, `dead` or `unknown`.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
}

pub(super) fn unlock(inner: &Inner, name: &LockName, force: Force, by: &str) -> Result<Unlocked> {
    let command_line = command_lines(inner, Some(name))?.pop().unwrap_or_default();
    inner.write(|tx| {
        let row = if lock_table::exists(tx)? { lock_table::by_name(tx, name)? } else { None };
        if let Some(row) = row {
            return unlock_row(tx, inner, row, &command_line, force, by);
        }
        Ok(match evict_orphans(tx, inner, &Wanted::Lock(name.clone()), force, by)? {
            Orphans::None => Unlocked::Nothing,
            Orphans::Refused(holder) => Unlocked::Refused(holder),
            Orphans::Removed(count) => Unlocked::OrphansRemoved(count),
        })
    })
}

pub(super) fn unlock_stale(inner: &Inner, by: &str) -> Result<Vec<UnlockedLock>> {
    let command_lines = command_lines(inner, None)?;
    inner.write(|tx| {
        let mut unlocked = Vec::new();
        for row in lock_table::all(tx)? {
            let command_line = command_lines.iter().find(|line| line.is_for(row.instance));
            let command_line = command_line.cloned().unwrap_or_default();
            if let Unlocked::Done(done) = unlock_row(tx, inner, row, &command_line, Force::No, by)?
            {
                unlocked.push(done);
            }
        }
        Ok(unlocked)
    })
}

/// The command lines that verdicts hang on. Read first, because that is slow; each counts only for
/// its row.
fn command_lines(inner: &Inner, only: Option<&LockName>) -> Result<Vec<LiveCommandLine>> {
    let records = inner.read(|connection| {
        let rows = lock_table::all(connection)?;
        rows.iter()
            .filter(|row| only.is_none_or(|name| *name == row.name))
            .filter_map(|row| instance::by_id(connection, row.instance).transpose())
            .collect::<Result<Vec<Record>>>()
    })?;
    let needs = |record: &&Record| {
        let judged = judge_record(inner, record, Lease::None, &LiveCommandLine::not_read());
        needs_command_line(&judged.evidence)
    };
    Ok(records.iter().filter(needs).map(LiveCommandLine::read).collect())
}

fn unlock_row(
    tx: &Tx<'_>,
    inner: &Inner,
    row: LockRow,
    command_line: &LiveCommandLine,
    force: Force,
    by: &str,
) -> Result<Unlocked> {
    let Some(record) = instance::by_id(tx, row.instance)? else { return Ok(Unlocked::Nothing) };
    if record.ended_at_ms.is_some() {
        // Ended by an older version, which knows nothing of locks: nobody holds it.
        end(tx, &row, EndReason::Released, by)?;
        return Ok(Unlocked::Nothing);
    }
    let lease = row.lease(inner.observer(), inner.clock().boot_ms());
    let judged = judge_record(inner, &record, lease, command_line);
    match (judged.verdict, force) {
        (Verdict::Dead(reason), _) if !EndReason::Dead(reason).is_of_the_lease() => {
            instance::end_other(tx, record.id, &End::new(EndReason::Dead(reason)).by(by))?;
        }
        (Verdict::Dead(reason), _) => end(tx, &row, EndReason::Dead(reason), by)?,
        (Verdict::Alive(_) | Verdict::Unknown(_), Force::Yes) => {
            end(tx, &row, EndReason::Evicted, by)?;
        }
        (Verdict::Alive(_) | Verdict::Unknown(_), Force::No) => {
            return Ok(Unlocked::Refused(Box::new(Holder::of_lock(&record, &row, &judged))));
        }
    }
    end_if_without_purpose(tx, &record, by)?;
    Ok(Unlocked::Done(UnlockedLock {
        name: row.name,
        profile: record.profile,
        pid: record.pid,
        instance: record.id,
        fence: row.fence,
        verdict: judged.verdict.as_str(),
        reason: judged.verdict.reason(),
    }))
}

fn end(tx: &Tx<'_>, row: &LockRow, reason: EndReason, by: &str) -> Result<()> {
    let how = LockEnd { reason: reason.as_str(), by: Some(by) };
    lock_table::end(tx, &row.name, row.fence, how).map(drop)
}

/// A row that `lock acquire --pid` made is there for its locks alone; its keeper ends with it.
pub(crate) fn end_if_without_purpose(tx: &Tx<'_>, record: &Record, by: &str) -> Result<()> {
    let is_for_locks = record.is_pid && record.kind().is_none();
    if is_for_locks && lock_table::of_instance(tx, record.id)?.is_empty() {
        instance::end_other(tx, record.id, &End::new(EndReason::Released).by(by))?;
    }
    Ok(())
}
