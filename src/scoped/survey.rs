//! Looks at all wanted locks in one transaction, before any is taken.

use crate::claim::{Claimant, Count, Errand, Examined, Lookups, Obstacle, examine, obstacle};
use crate::environment::{Fault, planted};
use crate::names::Secret;
use crate::owner::judge::is_stopped;
use crate::owner::judgement;
use crate::patience::Stopped;
use crate::process::Subject;
use crate::process::command_line::mask;
use crate::records::conflicts::Refusal;
use crate::records::{EndReason, LockRow, Origin, Record, conflicts, instances, locks};
use crate::scoped::request::LockRequest;
use crate::scoped::slots;
use crate::scoped::way::{LockOver, LockWay, Look, Met, Seen, Way};
use crate::store::held::Held;
use crate::store::{Inner, Tx};
use crate::{InstanceId, ProfileName, Result, Wanted};

/// Who wants which locks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockClaim<'a> {
    pub(crate) requests: &'a [LockRequest],
    pub(crate) claimant: Claimant<'a>,
    /// The claimant's profile, if it has one.
    pub(crate) profile: Option<&'a ProfileName>,
    /// The claimant's own rows: what was taken from them is its own. A slot of theirs is held, and
    /// nobody's to take.
    pub(crate) ours: &'a [InstanceId],
    /// What its process holds, where it may go on with what the program before it left.
    pub(crate) held: Option<&'a Held>,
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
        match way(tx, inner, claim, request, aside)? {
            Way::Clear(way) => ways.push(way),
            Way::Errand(errand) => return Ok(Surveyed::Errand(errand)),
            Way::Held(met) => {
                // Threads that take turns are no conflict.
                if count == Count::Yes && !met.is_ours {
                    refuse(tx, claim, &met.row, met.judged.ruling.reason().as_str())?;
                }
                return met.obstacle(tx, inner).map(Surveyed::Held);
            }
        }
    }
    // What is its own already is not withheld from anybody.
    let is_ours = ways.iter().all(|way| way.owner().is_some());
    match reserved.filter(|_| !is_ours) {
        Some(obstacle) => Ok(Surveyed::Held(obstacle)),
        None => Ok(Surveyed::Clear(ways)),
    }
}

fn way(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    request: &LockRequest,
    aside: &Lookups,
) -> Result<Way> {
    let was_left = |row: &LockRow| claim.held.is_some_and(|held| held.was_left(row.fence));
    let row = locks::by_name(tx, &request.name)?;
    let row = match row.filter(|row| row.slot.is_none()) {
        Some(row) if request.slots.is_none() => row,
        row => {
            let rows = row.into_iter().chain(locks::slots_of(tx, &request.name)?);
            let rows: Vec<LockRow> = rows.collect();
            let is_same = |row: &&LockRow| row.slot.map(|slot| slot.of) == request.slots;
            if let Some(row) = rows.iter().filter(is_same).find(|row| was_left(row))
                && let Some(record) = instances::by_id(tx, row.instance)?.filter(Record::is_live)
            {
                return Ok(Way::Clear(LockWay::Ours(row.clone(), Box::new(record))));
            }
            return slots::way(request, rows.into_iter(), |row| {
                Ok(match look_at(tx, inner, claim, row, aside)? {
                    // In another number of slots than it is wanted in now.
                    Seen::Ours(row, _) if was_left(&row) || planted(Fault::ExclusiveShared) => {
                        Look::Over(LockOver::Left(row))
                    }
                    // Nobody shares a slot, and nobody has a slot of what is held without.
                    Seen::Ours(row, record) => {
                        Look::InTheWay(met_ourselves(inner, claim, row, *record))
                    }
                    Seen::Others(look) => look,
                })
            });
        }
    };
    Ok(match look_at(tx, inner, claim, row, aside)? {
        Seen::Ours(row, record) if is_of_command(inner, claim.claimant.origin, &record) => {
            Way::Held(met_ourselves(inner, claim, row, *record))
        }
        Seen::Ours(row, record) => Way::Clear(LockWay::Ours(row, record)),
        Seen::Others(Look::Over(over)) => Way::Clear(LockWay::Free(vec![over], None)),
        Seen::Others(Look::InTheWay(met)) => Way::Held(met),
        Seen::Others(Look::Errand(errand)) => Way::Errand(errand),
    })
}

/// Whether a lock of ours would be shared with a command, or is that of one. The command of a `run`
/// in this process is somebody else; in the command itself what the `run` holds is its own.
pub(crate) fn is_of_command(inner: &Inner, claimant: Origin, record: &Record) -> bool {
    let observer = inner.observer();
    let is_here = record.pid == Some(observer.pid) && record.pid_ns == observer.pid_ns;
    claimant == Origin::Run || record.is_run && is_here
}

/// What this process holds stands in the way of what it wants.
fn met_ourselves(inner: &Inner, claim: &LockClaim<'_>, row: LockRow, record: Record) -> Box<Met> {
    let is_ours = claim.ours.contains(&record.id) && record.pid == Some(inner.observer().pid);
    let judged = judgement(inner, &record);
    let mut met = Met::new(row, record, judged);
    met.is_ours = is_ours;
    met
}

/// Looks at the owner of a lock on record.
fn look_at(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    row: LockRow,
    aside: &Lookups,
) -> Result<Seen> {
    let record = instances::by_id(tx, row.instance)?.filter(Record::is_live);
    let Some(record) = record.map(Box::new) else {
        return Ok(Seen::Others(Look::Over(LockOver::Left(row))));
    };
    if claim.ours.contains(&record.id) {
        return Ok(Seen::Ours(row, record));
    }
    let lease = row.lease(inner.observer(), inner.clock().boot_ms());
    Ok(Seen::Others(match examine(inner, claim.claimant, &record, lease, aside) {
        // A script that recorded itself may have other locks, which stay with its record.
        Examined::Over(reason)
            if reason.is_of_the_lease() || (reason == EndReason::ReExecuted && record.is_pid) =>
        {
            Look::Over(LockOver::Alone(row, record, reason))
        }
        Examined::Over(reason) => Look::Over(LockOver::WithOwner(row, record, reason)),
        Examined::Same => return Ok(Seen::Ours(row, record)),
        Examined::Errand(errand) => Look::Errand(errand),
        Examined::InTheWay(judged) => {
            let is_asked_for = claim.stopped == Stopped::Evict || planted(Fault::StoppedEvicted);
            let may_evict = is_asked_for && judged.evidence.is_here() && is_stopped(&record);
            match aside.was_found_stopped(record.id) {
                Some(true) if may_evict => {
                    Look::Over(LockOver::Alone(row, record, EndReason::Evicted))
                }
                None if may_evict => Look::Errand(Errand::FindStopped(record)),
                Some(_) | None => Look::InTheWay(Met::new(row, *record, judged)),
            }
        }
    }))
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
