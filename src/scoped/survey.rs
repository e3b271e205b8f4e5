//! Looks at all wanted locks in one transaction, before any is taken.

use crate::claim::obstacle::Watch;
use crate::claim::{Claimant, Count, Errand, Examined, Lookups, Obstacle, examine, obstacle};
use crate::names::Secret;
use crate::owner::judge::is_stopped;
use crate::patience::Stopped;
use crate::process::Subject;
use crate::process::command_line::mask;
use crate::records::conflicts::Refusal;
use crate::records::{EndReason, LockRow, Record, conflicts, instances, locks};
use crate::scoped::request::LockRequest;
use crate::store::{Inner, Tx};
use crate::{Holder, InstanceId, ProfileName, Result, Wanted};

/// Who wants which locks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockClaim<'a> {
    pub(crate) requests: &'a [LockRequest],
    pub(crate) claimant: Claimant<'a>,
    /// The claimant's profile, if it has one.
    pub(crate) profile: Option<&'a ProfileName>,
    /// The claimant's own rows: what was taken from them is its own.
    pub(crate) ours: &'a [InstanceId],
    pub(crate) stopped: Stopped,
    /// The claimant's row that something may be reserved for.
    pub(crate) waiter: Option<InstanceId>,
}

/// What must not show in any command line that is stored.
pub(super) fn secrets(requests: &[LockRequest]) -> Vec<&Secret> {
    requests.iter().map(|request| &request.identity).collect()
}

/// The command line of a process without the identities of these locks.
pub(crate) fn masked(subject: &Subject, requests: &[LockRequest]) -> Vec<String> {
    subject.argv_without(&secrets(requests))
}

/// Takes the identities of these locks out of what is recorded of the owner's command line, in all
/// rows of its process: they were made before anybody knew what is secret in it.
pub(crate) fn hide_in(tx: &Tx<'_>, owner: InstanceId, requests: &[LockRequest]) -> Result<()> {
    instances::rewrite_argv(tx, owner, |argv| mask::mask(argv, &secrets(requests)))
}

/// What a look at all locks came to.
#[derive(Debug)]
pub(crate) enum Surveyed {
    /// Nothing that cannot be taken: one way for each request.
    Clear(Vec<LockWay>),
    Errand(Errand),
    Held(Box<Obstacle>),
}

/// How a lock is to be had.
#[derive(Debug)]
pub(crate) enum LockWay {
    Free,
    /// Its owner's row was ended by an older version, which knows nothing of locks, or deleted by
    /// hand.
    LeftOver(LockRow),
    /// The claimant has it already.
    Ours(LockRow, Box<Record>),
    /// From an owner whose row ends with this.
    FromTheDead(Box<Record>, EndReason),
    /// The lock alone: its lease has run out, or its owner is stopped and may be evicted.
    LockAlone(LockRow, Box<Record>, EndReason),
}

impl LockWay {
    /// The claimant's own row that has the lock already.
    pub(super) fn owner(&self) -> Option<InstanceId> {
        match self {
            Self::Ours(row, _) => Some(row.instance),
            Self::Free | Self::LeftOver(_) | Self::FromTheDead(..) | Self::LockAlone(..) => None,
        }
    }
}

/// Looks at all locks of a claim. Writes nothing but the count of a refusal.
pub(crate) fn survey(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    aside: &Lookups,
    count: Count,
) -> Result<Surveyed> {
    let mut ways = Vec::with_capacity(claim.requests.len());
    let mut reserved = None;
    for request in claim.requests {
        if reserved.is_none() {
            let wanted = Wanted::Lock(request.name.clone());
            reserved = obstacle::reserved_by_another(tx, inner, &wanted, claim.waiter)?;
        }
        let Some(row) = locks::by_name(tx, &request.name)? else {
            ways.push(LockWay::Free);
            continue;
        };
        let record = instances::by_id(tx, row.instance)?.filter(Record::is_live);
        let Some(record) = record.map(Box::new) else {
            ways.push(LockWay::LeftOver(row));
            continue;
        };
        if claim.ours.contains(&record.id) {
            ways.push(LockWay::Ours(row, record));
            continue;
        }
        let lease = row.lease(inner.observer(), inner.clock().boot_ms());
        ways.push(match examine(inner, claim.claimant, &record, lease, aside) {
            // A script that recorded itself may have other locks, which stay with its record.
            Examined::Over(reason)
                if reason.is_of_the_lease()
                    || (reason == EndReason::ReExecuted && record.is_pid) =>
            {
                LockWay::LockAlone(row, record, reason)
            }
            Examined::Over(reason) => LockWay::FromTheDead(record, reason),
            Examined::Same => LockWay::Ours(row, record),
            Examined::Errand(errand) => return Ok(Surveyed::Errand(errand)),
            Examined::InTheWay(judged) => {
                let may_evict = claim.stopped == Stopped::Evict
                    && judged.evidence.is_here()
                    && is_stopped(&record);
                match aside.was_found_stopped(record.id) {
                    Some(true) if may_evict => LockWay::LockAlone(row, record, EndReason::Evicted),
                    None if may_evict => {
                        return Ok(Surveyed::Errand(Errand::FindStopped(record)));
                    }
                    Some(_) | None => {
                        if count == Count::Yes {
                            refuse(tx, claim, &row, judged.ruling.reason().as_str())?;
                        }
                        let mut holder = Box::new(Holder::of_lock(&record, &row, &judged));
                        holder.add_what_it_said(tx, inner, &record)?;
                        let watch = Some(Watch { record: *record, fence: row.fence });
                        return Ok(Surveyed::Held(Box::new(Obstacle { holder, watch })));
                    }
                }
            }
        });
    }
    // What is its own already is not withheld from anybody.
    let is_ours = ways.iter().all(|way| way.owner().is_some());
    match reserved.filter(|_| !is_ours) {
        Some(obstacle) => Ok(Surveyed::Held(obstacle)),
        None => Ok(Surveyed::Clear(ways)),
    }
}

fn refuse(tx: &Tx<'_>, claim: &LockClaim<'_>, row: &LockRow, reason: &str) -> Result<()> {
    let subject = claim.claimant.subject;
    conflicts::count_lock_conflict(
        tx,
        &row.name,
        &Refusal {
            holder: row.instance,
            reason,
            profile: claim.profile,
            party: subject.party.as_deref(),
            pid: subject.pid,
        },
    )
}
