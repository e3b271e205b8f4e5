//! Removing locks by hand.

use serde::Serialize;

use crate::claim::judge_to_end;
use crate::claim::sweep::Force;
use crate::claim::sweep::{Orphans, evict_orphans};
use crate::environment::{Fault, planted};
use crate::liveness::{Judgement, Ruling};
use crate::names::slot;
use crate::names::slot::Slot;
use crate::owner::{LiveCommandLine, ending, judgement, needs_command_line};
use crate::records::{End, EndReason, LockEnd, LockRow, Record, instances, locks};
use crate::store::{Inner, Tx};
use crate::{Holder, InstanceId, LockName, ProfileName, Reason, Result, Verdict, Wanted, sys};

/// What came of [`Store::unlock`](crate::Store::unlock), where the example is. Of a lock with slots
/// one is removed at a time: that of a dead holder if there is one.
#[derive(Clone, Debug)]
#[non_exhaustive]
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

/// A lock that was removed, and what was known of its holder. In JSON an object with these fields,
/// and with `scope` and `identity_hash` in place of the name; later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UnlockedLock {
    /// Which lock.
    #[serde(flatten)]
    pub name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub slot: Option<Slot>,
    /// The holder's profile, if it has one.
    pub profile: Option<ProfileName>,
    /// The holder's recorded pid, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// The holder's row.
    pub instance: InstanceId,
    /// The fence, which the next holder's exceeds.
    pub fence: i64,
    /// What was known of the holder.
    pub verdict: Verdict,
    /// Why the verdict was reached.
    pub reason: Reason,
}

impl UnlockedLock {
    /// Why the verdict was reached, as a clause for people.
    #[must_use]
    pub fn because(&self) -> &'static str {
        self.reason.because()
    }
}

/// Of a lock with slots one goes: that of a dead holder if there is one, else of one that may be
/// dead, else the lowest.
pub(super) fn unlock(inner: &Inner, name: &LockName, force: Force, by: &str) -> Result<Unlocked> {
    let command_lines = command_lines(inner, name)?;
    inner.write(|tx| {
        let mut found = Vec::new();
        for row in if locks::exists(tx)? { locks::all_of(tx, name)? } else { Vec::new() } {
            found.extend(look(tx, inner, row, &command_lines)?);
        }
        let lives = |found: &Found| match found.judged.ruling {
            Ruling::Dead(_) => 0,
            Ruling::Unknown(_) => 1,
            Ruling::Alive(_) => 2,
        };
        if let Some(which) = (0..found.len()).min_by_key(|&at| lives(&found[at])) {
            let words = found.iter().map(|found| found.row.slot.map(|slot| slot.of));
            let has_room = found.len() < slot::limit(words);
            let found = found.swap_remove(which);
            let is_dead = matches!(found.judged.ruling, Ruling::Dead(_));
            // No holder keeps anybody out then.
            if !is_dead
                && has_room
                && let Some(unlocked) = unlock_orphans(tx, inner, name, force, by)?
            {
                return Ok(unlocked);
            }
            if is_dead || force == Force::Yes || planted(Fault::UnlockUnasked) {
                return remove(tx, found, by).map(Unlocked::Done);
            }
            let mut holder = Holder::of_lock(&found.record, &found.row, &found.judged);
            holder.add_what_it_said(tx, inner, &found.record)?;
            return Ok(Unlocked::Refused(Box::new(holder)));
        }
        Ok(unlock_orphans(tx, inner, name, force, by)?.unwrap_or(Unlocked::Nothing))
    })
}

/// Those who lost another store stand in the way where no holder does; `None` where nobody does.
fn unlock_orphans(
    tx: &Tx<'_>,
    inner: &Inner,
    name: &LockName,
    force: Force,
    by: &str,
) -> Result<Option<Unlocked>> {
    Ok(match evict_orphans(tx, inner, &Wanted::Lock(name.clone()), force, by)? {
        Orphans::None => None,
        Orphans::Refused(holder) => Some(Unlocked::Refused(holder)),
        Orphans::Removed(count) => Some(Unlocked::OrphansRemoved(count)),
    })
}

/// The command lines that the verdicts about the holders of `name` hang on. Read first, because
/// that is slow; each counts only for its row.
fn command_lines(inner: &Inner, name: &LockName) -> Result<Vec<LiveCommandLine>> {
    let records = inner.read(|connection| {
        let mut records = Vec::new();
        if locks::exists(connection)? {
            for row in locks::all_of(connection, name)? {
                records.extend(instances::by_id(connection, row.instance)?);
            }
        }
        Ok(records)
    })?;
    Ok(records.iter().map(|record| line_of(inner, record)).collect())
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
    command_lines: &[LiveCommandLine],
) -> Result<Option<Found>> {
    let record = instances::by_id(tx, row.instance)?;
    let Some(record) = record.filter(Record::is_live) else {
        return Ok(None);
    };
    let lease = row.lease(inner.observer(), inner.clock().boot_ms());
    let none = LiveCommandLine::not_read();
    let command_line = command_lines.iter().find(|it| it.is_for(record.id)).unwrap_or(&none);
    let judged = judge_to_end(inner, &record, lease, command_line);
    Ok(Some(Found { row, record, judged }))
}

/// Ends a lock: with the row of a dead owner, alone that of any other.
fn remove(tx: &Tx<'_>, found: Found, by: &str) -> Result<UnlockedLock> {
    let Found { row, record, judged } = found;
    let reason = match judged.ruling {
        Ruling::Dead(reason) => EndReason::Dead(reason),
        Ruling::Alive(_) | Ruling::Unknown(_) => EndReason::Evicted,
    };
    if let Ruling::Dead(_) = judged.ruling
        && !reason.is_of_the_lease()
    {
        ending::end_other(tx, record.id, &End::new(reason).by(by))?;
    } else {
        let how = LockEnd { reason: reason.into(), by: Some(by) };
        locks::end(tx, &row.name, row.slot, row.fence, &how)?;
        end_if_without_purpose(tx, &record, by)?;
    }
    Ok(UnlockedLock {
        name: row.name,
        slot: row.slot,
        profile: record.profile,
        pid: record.pid,
        instance: record.id,
        fence: row.fence,
        verdict: judged.ruling.verdict(),
        reason: judged.ruling.reason(),
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
