//! Removing locks by hand.

use crate::claim::judge_to_end;
use crate::claim::sweep::{Orphans, evict_orphans};
use crate::liveness::{Judgement, Verdict};
use crate::owner::because::because;
use crate::owner::{LiveCommandLine, ending, judgement, needs_command_line};
use crate::records::{End, EndReason, LockEnd, LockRow, Record, instances, locks};
use crate::store::{Inner, Tx};
use crate::{Force, Holder, InstanceId, LockName, ProfileName, Result, Wanted, sys};

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

impl UnlockedLock {
    /// What was known of the holder, in words.
    #[must_use]
    pub fn because(&self) -> &'static str {
        because(self.reason)
    }
}

pub(super) fn unlock(inner: &Inner, name: &LockName, force: Force, by: &str) -> Result<Unlocked> {
    let command_line = command_line(inner, name)?;
    inner.write(|tx| {
        let row = if locks::exists(tx)? { locks::by_name(tx, name)? } else { None };
        let found = row.map(|row| look(tx, inner, row, &command_line)).transpose()?.flatten();
        if let Some(found) = found {
            return match found.judged.verdict {
                Verdict::Alive(_) | Verdict::Unknown(_) if force == Force::No => {
                    let mut holder = Holder::of_lock(&found.record, &found.row, &found.judged);
                    holder.add_what_it_said(tx, inner, &found.record)?;
                    Ok(Unlocked::Refused(Box::new(holder)))
                }
                Verdict::Alive(_) | Verdict::Unknown(_) | Verdict::Dead(_) => {
                    remove(tx, found, by).map(Unlocked::Done)
                }
            };
        }
        Ok(match evict_orphans(tx, inner, &Wanted::Lock(name.clone()), force, by)? {
            Orphans::None => Unlocked::Nothing,
            Orphans::Refused(holder) => Unlocked::Refused(holder),
            Orphans::Removed(count) => Unlocked::OrphansRemoved(count),
        })
    })
}

/// The command line that the verdict about the holder of `name` hangs on. Read first, because that
/// is slow; it counts only for its row.
fn command_line(inner: &Inner, name: &LockName) -> Result<LiveCommandLine> {
    let record = inner.read(|connection| {
        if !locks::exists(connection)? {
            return Ok(None);
        }
        let row = locks::by_name(connection, name)?;
        row.map_or(Ok(None), |row| instances::by_id(connection, row.instance))
    })?;
    Ok(record.map_or_else(LiveCommandLine::not_read, |record| line_of(inner, &record)))
}

/// Not read where no verdict hangs on it.
fn line_of(inner: &Inner, record: &Record) -> LiveCommandLine {
    let judged = judgement(inner, record);
    if needs_command_line(&judged.evidence) {
        LiveCommandLine::read(record)
    } else {
        LiveCommandLine::not_read()
    }
}

/// A lock on record, and what is known of its holder.
struct Found {
    row: LockRow,
    record: Record,
    judged: Judgement,
}

/// Looks at the holder of a lock. `None` when its row has ended: an older version ended it, which
/// knows nothing of locks, and nobody holds this one.
fn look(
    tx: &Tx<'_>,
    inner: &Inner,
    row: LockRow,
    command_line: &LiveCommandLine,
) -> Result<Option<Found>> {
    let record = instances::by_id(tx, row.instance)?;
    let Some(record) = record.filter(Record::is_live) else {
        return Ok(None);
    };
    let lease = row.lease(inner.observer(), inner.clock().boot_ms());
    let judged = judge_to_end(inner, &record, lease, command_line);
    Ok(Some(Found { row, record, judged }))
}

/// Ends a lock: with the row of a dead owner, alone that of any other.
fn remove(tx: &Tx<'_>, found: Found, by: &str) -> Result<UnlockedLock> {
    let Found { row, record, judged } = found;
    let reason = match judged.verdict {
        Verdict::Dead(reason) => EndReason::Dead(reason),
        Verdict::Alive(_) | Verdict::Unknown(_) => EndReason::Evicted,
    };
    if let Verdict::Dead(_) = judged.verdict
        && !reason.is_of_the_lease()
    {
        ending::end_other(tx, record.id, &End::new(reason).by(by))?;
    } else {
        let how = LockEnd { reason: reason.as_str(), by: Some(by) };
        locks::end(tx, &row.name, row.fence, how)?;
        end_if_without_purpose(tx, &record, by)?;
    }
    Ok(UnlockedLock {
        name: row.name,
        profile: record.profile,
        pid: record.pid,
        instance: record.id,
        fence: row.fence,
        verdict: judged.verdict.as_str(),
        reason: judged.verdict.reason(),
    })
}

/// A row that `lock acquire --pid` made is there for its locks alone; its keeper ends with it.
pub(crate) fn end_if_without_purpose(tx: &Tx<'_>, record: &Record, by: &str) -> Result<()> {
    let is_for_locks = record.is_pid && record.kind().is_none();
    if is_for_locks && locks::some_of_instance(tx, record.id, 1)?.is_empty() {
        ending::end_other(tx, record.id, &End::new(EndReason::Released).by(by))?;
    }
    Ok(())
}
