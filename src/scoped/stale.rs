//! Removing every lock whose holder is dead, some at a time.
//!
//! All at once would keep every start waiting for as long as it takes: 100,000 locks are seconds.
//! The dead are looked for outside of any transaction; each transaction looks again at those that
//! it ends.

use std::collections::VecDeque;

use crate::claim::judge_to_end;
use crate::liveness::{DeadReason, Lease, Ruling};
use crate::owner::{LiveCommandLine, autopsy, ending, judgement, needs_command_line};
use crate::records::locks::ENDED_AT_ONCE;
use crate::records::{End, EndReason, LockEnd, LockRow, Record, instances, locks};
use crate::scoped::unlock::{UnlockedLock, end_if_without_purpose};
use crate::store::turns::{Progress, in_turns};
use crate::store::{Inner, Tx};
use crate::{InstanceId, Result};

/// An owner of locks that seemed to be dead, or to have let a lease run out.
struct Suspect {
    owner: InstanceId,
    command_line: LiveCommandLine,
}

pub(super) fn unlock_stale(inner: &Inner, by: &str) -> Result<Vec<UnlockedLock>> {
    let mut suspects = VecDeque::new();
    for owner in inner.read(locks::owners)? {
        suspects.extend(suspect(inner, owner)?);
    }
    let mut removed = Vec::new();
    let step = |tx: &Tx<'_>, suspect: &Suspect, batch: &mut Vec<UnlockedLock>| {
        let is_done = batch.len() < ENDED_AT_ONCE && remove_of(tx, inner, suspect, by, batch)?;
        Ok(if is_done { Progress::Done } else { Progress::Unfinished })
    };
    in_turns(inner, suspects, step, |batch| removed.extend(batch))?;
    Ok(removed)
}

fn suspect(inner: &Inner, owner: InstanceId) -> Result<Option<Suspect>> {
    let read = inner.read(|connection| instances::by_id(connection, owner))?;
    // A row that is gone has taken its locks with it.
    let Some(record) = read else { return Ok(None) };
    if !record.is_live() {
        return Ok(Some(Suspect { owner, command_line: LiveCommandLine::not_read() }));
    }
    let (is_dead, has_lease, reads_command_line) = inner.read(|connection| {
        let judged = judgement(inner, &record);
        Ok((
            matches!(judged.ruling, Ruling::Dead(_)),
            locks::has_lease(connection, owner)?,
            needs_command_line(&judged.evidence),
        ))
    })?;
    // Slow to read, and nearly never needed.
    let command_line = if reads_command_line {
        LiveCommandLine::read(&record)
    } else {
        LiveCommandLine::not_read()
    };
    let may_be_stale = is_dead || has_lease || reads_command_line;
    Ok(may_be_stale.then_some(Suspect { owner, command_line }))
}

/// Whether all is done that is to be done about this owner.
fn remove_of(
    tx: &Tx<'_>,
    inner: &Inner,
    Suspect { owner, command_line }: &Suspect,
    by: &str,
    removed: &mut Vec<UnlockedLock>,
) -> Result<bool> {
    let Some(record) = instances::by_id(tx, *owner)? else { return Ok(true) };
    if !record.is_live() {
        return Ok(!locks::end_left_of(tx, *owner)?);
    }
    match judge_to_end(inner, &record, Lease::None, command_line).ruling {
        Ruling::Dead(reason) => end_dead(tx, inner, &record, reason, by, removed),
        Ruling::Alive(_) | Ruling::Unknown(_) => {
            end_leases(tx, inner, &record, command_line, by, removed)
        }
    }
}

/// Ends locks of a dead owner, and with the last of them its row.
fn end_dead(
    tx: &Tx<'_>,
    inner: &Inner,
    record: &Record,
    reason: DeadReason,
    by: &str,
    removed: &mut Vec<UnlockedLock>,
) -> Result<bool> {
    let end = End::new(EndReason::Dead(reason)).by(by);
    let locks = locks::some_of_instance(tx, record.id, ENDED_AT_ONCE)?;
    if locks.len() < ENDED_AT_ONCE {
        // Its locks end with it.
        ending::end_other(tx, record.id, &end)?;
    } else {
        let end = autopsy::explain(tx, inner, record.id, &end)?;
        let how = LockEnd { reason: end.reason.into(), by: end.by.as_deref() };
        for lock in &locks {
            locks::end(tx, &lock.name, lock.slot, lock.fence, &how)?;
        }
    }
    let are_all = locks.len() < ENDED_AT_ONCE;
    removed.extend(locks.into_iter().map(|row| told(row, record, Ruling::Dead(reason))));
    Ok(are_all)
}

/// Ends the locks whose lease is over, of an owner that is not known to be dead.
fn end_leases(
    tx: &Tx<'_>,
    inner: &Inner,
    record: &Record,
    command_line: &LiveCommandLine,
    by: &str,
    removed: &mut Vec<UnlockedLock>,
) -> Result<bool> {
    let judged = judge_to_end(inner, record, Lease::Expired, command_line);
    let Ruling::Dead(reason) = judged.ruling else { return Ok(true) };
    let now_boot_ms = inner.clock().boot_ms();
    let mut left = false;
    let mut count = 0;
    for row in locks::of_instance(tx, record.id)? {
        if row.lease(inner.observer(), now_boot_ms) != Lease::Expired {
            continue;
        }
        if count == ENDED_AT_ONCE {
            left = true;
            break;
        }
        let how = LockEnd { reason: reason.into(), by: Some(by) };
        locks::end(tx, &row.name, row.slot, row.fence, &how)?;
        removed.push(told(row, record, judged.ruling));
        count += 1;
    }
    end_if_without_purpose(tx, record, by)?;
    Ok(!left)
}

fn told(row: LockRow, record: &Record, ruling: Ruling) -> UnlockedLock {
    UnlockedLock {
        name: row.name,
        slot: row.slot,
        profile: record.profile.clone(),
        pid: record.pid,
        instance: record.id,
        fence: row.fence,
        verdict: ruling.verdict(),
        reason: ruling.reason(),
    }
}
