//! Acquiring scoped locks: first a look at everything that stands in the way, then, in the same
//! transaction, the taking of it.

use serde_json::{Value, json};

use super::{LockRequest, end_if_without_purpose};
use crate::claimant::{
    self, Aside, Attachment, Claimant, Count, Errand, Evicted, Examined, examine, is_stopped,
};
use crate::clock::rfc3339;
use crate::command_line;
use crate::error::Result;
use crate::holder::Holder;
use crate::identities;
use crate::instance::{self, End, EndReason, NewInstance, Origin, Record, Subject};
use crate::lock_table::{self, LockEnd, LockRow, NewLock, Refusal};
use crate::names::{InstanceId, LockName, Nonce, ProfileName, Secret, Wanted};
use crate::stop_budget;
use crate::store::{EventRecord, Inner, OwnRow, Tx};
use crate::wait::{Obstacle, Stopped, Watch};

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
fn secrets(requests: &[LockRequest]) -> Vec<&Secret> {
    requests.iter().map(|request| &request.identity).collect()
}

/// The command line of a process without the identities of these locks.
pub(crate) fn masked(subject: &Subject, requests: &[LockRequest]) -> Vec<String> {
    subject.argv_without(&secrets(requests))
}

/// Takes the identities of these locks out of what is recorded of the owner's command line, in all
/// rows of its process: they were made before anybody knew what is secret in it.
pub(crate) fn hide_in(tx: &Tx<'_>, owner: InstanceId, requests: &[LockRequest]) -> Result<()> {
    instance::rewrite_argv(tx, owner, |argv| command_line::mask(argv, &secrets(requests)))
}

/// What a look at all locks came to.
#[derive(Debug)]
pub(crate) enum Surveyed {
    /// Nothing that cannot be taken: one way for each request.
    Clear(Vec<Way>),
    Errand(Errand),
    Held(Box<Obstacle>),
}

/// How a lock is to be had.
#[derive(Debug)]
pub(crate) enum Way {
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

impl Way {
    /// The claimant's own row that has the lock already.
    fn owner(&self) -> Option<InstanceId> {
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
    aside: &Aside,
    count: Count,
) -> Result<Surveyed> {
    let mut ways = Vec::with_capacity(claim.requests.len());
    let mut reserved = None;
    for request in claim.requests {
        if reserved.is_none() {
            let wanted = Wanted::Lock(request.name.clone());
            reserved = claimant::reserved_by_another(tx, inner, &wanted, claim.waiter)?;
        }
        let Some(row) = lock_table::by_name(tx, &request.name)? else {
            ways.push(Way::Free);
            continue;
        };
        let record = instance::by_id(tx, row.instance)?.filter(|it| it.ended_at_ms.is_none());
        let Some(record) = record.map(Box::new) else {
            ways.push(Way::LeftOver(row));
            continue;
        };
        if claim.ours.contains(&record.id) {
            ways.push(Way::Ours(row, record));
            continue;
        }
        let lease = row.lease(inner.observer(), inner.clock().boot_ms());
        ways.push(match examine(inner, claim.claimant, &record, lease, aside) {
            // A script that recorded itself may have other locks, which stay with its record.
            Examined::Over(reason)
                if reason.is_of_the_lease()
                    || (reason == EndReason::ReExecuted && record.is_pid) =>
            {
                Way::LockAlone(row, record, reason)
            }
            Examined::Over(reason) => Way::FromTheDead(record, reason),
            Examined::Same => Way::Ours(row, record),
            Examined::Errand(errand) => return Ok(Surveyed::Errand(errand)),
            Examined::InTheWay(judged) => {
                let may_evict = claim.stopped == Stopped::Evict
                    && judged.evidence.is_here()
                    && is_stopped(&record);
                match aside.was_found_stopped(record.id) {
                    Some(true) if may_evict => Way::LockAlone(row, record, EndReason::Evicted),
                    None if may_evict => {
                        return Ok(Surveyed::Errand(Errand::FindStopped(record)));
                    }
                    Some(_) | None => {
                        if count == Count::Yes {
                            refuse(tx, claim, &row, judged.verdict.reason())?;
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
    lock_table::count_lock_conflict(
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

/// A lock that was granted.
#[derive(Clone, Debug)]
pub(crate) struct GrantedLock {
    pub(crate) name: LockName,
    /// The row it belongs to.
    pub(crate) instance: InstanceId,
    pub(crate) fence: i64,
    pub(crate) evicted: Option<Evicted>,
    pub(crate) previous: Option<PreviousLock>,
}

/// A lock as it was recorded before its holder acquired it again.
#[derive(Clone, Debug, PartialEq)]
pub struct PreviousLock {
    /// The row it was taken from.
    pub instance: InstanceId,
    /// The process it was recorded for.
    pub pid: Option<crate::sys::Pid>,
    /// Its fence, which stays.
    pub fence: i64,
    /// When it was acquired: Unix milliseconds, wall time.
    pub acquired_at_ms: i64,
    /// What it said about itself until now.
    pub metadata: Option<Value>,
}

impl PreviousLock {
    fn of(row: LockRow, record: &Record) -> Self {
        Self {
            instance: row.instance,
            pid: record.pid,
            fence: row.fence,
            acquired_at_ms: row.acquired_at_ms,
            metadata: row.metadata,
        }
    }

    /// The record as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "instance": self.instance.as_i64(),
            "pid": self.pid,
            "since": rfc3339(self.acquired_at_ms),
            "fence": self.fence,
            "metadata": self.metadata,
        })
    }
}

/// What the owner says about itself, without what it locks.
fn masked_metadata(metadata: &Value, requests: &[LockRequest]) -> Value {
    let secrets = secrets(requests).into_iter();
    let secrets: Vec<&Secret> =
        secrets.filter(|secret| identities::is_long_enough(secret.as_str())).collect();
    let mut masked = metadata.clone();
    identities::mask_strings(&mut masked, &|text| {
        command_line::mask(&[text.to_owned()], &secrets).concat()
    });
    masked
}

/// Takes what [`survey`] found to be had, for the row `instance`.
pub(crate) fn take(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    ways: Vec<Way>,
    instance: InstanceId,
    aside: &Aside,
) -> Result<Vec<GrantedLock>> {
    let (observer, now_boot_ms) = (inner.observer(), inner.clock().boot_ms());
    let mut granted = Vec::with_capacity(ways.len());
    for (request, way) in claim.requests.iter().zip(ways) {
        let metadata = request.metadata.as_ref().map(|it| masked_metadata(it, claim.requests));
        let new = NewLock {
            name: &request.name,
            instance,
            metadata: metadata.as_ref(),
            ttl_ms: request.ttl_ms,
        };
        let evicted = match way {
            Way::Ours(row, record) => {
                lock_table::replace(tx, &new, observer, now_boot_ms)?;
                granted.push(GrantedLock {
                    name: request.name.clone(),
                    instance: row.instance,
                    fence: row.fence,
                    evicted: None,
                    previous: Some(PreviousLock::of(row, &record)),
                });
                continue;
            }
            Way::Free => None,
            Way::LeftOver(row) => {
                let how = LockEnd { reason: EndReason::Released.as_str(), by: None };
                lock_table::end(tx, &row.name, row.fence, how)?;
                None
            }
            Way::FromTheDead(record, reason) => {
                let pid = claim.claimant.subject.pid;
                let end = End::new(reason).detail(format!("found by pid {pid}"));
                // Its locks end with it; false when another of them has come first.
                instance::end_other(tx, record.id, &end)?;
                // Of one with very many, this one may be left.
                if let Some(row) = lock_table::by_name(tx, &request.name)? {
                    let how = LockEnd { reason: reason.as_str(), by: None };
                    lock_table::end(tx, &row.name, row.fence, how)?;
                }
                Some(Evicted::of(&record, reason, aside))
            }
            Way::LockAlone(row, record, reason) => {
                let pid = claim.claimant.subject.pid;
                let by = match reason {
                    EndReason::Evicted => format!("pid {pid}, which found it stopped"),
                    _ => format!("pid {pid}"),
                };
                let how = LockEnd { reason: reason.as_str(), by: Some(&by) };
                lock_table::end(tx, &row.name, row.fence, how)?;
                end_if_without_purpose(tx, &record, &by)?;
                // From itself, under another record, is from nobody.
                (!reason.goes_on()).then(|| Evicted::of(&record, reason, aside))
            }
        };
        let fence = lock_table::insert(tx, &new, observer, now_boot_ms)?;
        tx.record(&EventRecord {
            event: "lock_acquired",
            profile: claim.profile,
            instance: Some(instance),
            pid: Some(claim.claimant.subject.pid),
            detail: Some(json!({
                "scope": request.name.scope.as_str(),
                "identity_hash": request.name.identity_hash.as_str(),
                "fence": fence,
                "evicted": evicted.as_ref().map(|evicted| json!({
                    "instance": evicted.instance.as_i64(),
                    "reason": evicted.reason,
                })),
            })),
            ..EventRecord::default()
        })?;
        granted.push(GrantedLock {
            name: request.name.clone(),
            instance,
            fence,
            evicted,
            previous: None,
        });
    }
    Ok(granted)
}

/// The row that locks are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    /// A live row of the claimant's.
    Row(InstanceId),
    /// A new one without an office, that leans on this.
    New(&'a Attachment),
}

/// What one transaction came to.
#[derive(Debug)]
pub(crate) enum Acquired {
    /// With the row that was made for it, if one was.
    Granted(Vec<GrantedLock>, Option<OwnRow>),
    Held(Box<Obstacle>),
    Errand(Errand),
}

/// The heart of every acquisition without a claim of an office, inside one write transaction.
/// `waiter` is the waiter's own row, which ends when it becomes the owner.
pub(crate) fn acquire_once(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    owner: Owner<'_>,
    waiter: Option<InstanceId>,
    aside: &Aside,
    count: Count,
) -> Result<Acquired> {
    tx.check_schema()?;
    // Before any row is ended; see the claim of an office.
    let named = tx.named_anchors()?;
    let ways = match survey(tx, inner, claim, aside, count)? {
        Surveyed::Clear(ways) => ways,
        Surveyed::Errand(errand) => return Ok(Acquired::Errand(errand)),
        Surveyed::Held(obstacle) => return Ok(Acquired::Held(obstacle)),
    };
    let end_waiter = || match waiter {
        Some(waiter) => instance::end_other(tx, waiter, &End::new(EndReason::Released)).map(drop),
        None => Ok(()),
    };
    let owners: Option<Vec<InstanceId>> = ways.iter().map(Way::owner).collect();
    if let Some(&[owner, ..]) = owners.as_deref() {
        end_waiter()?;
        return Ok(Acquired::Granted(take(tx, inner, claim, ways, owner, aside)?, None));
    }
    let wanted = claim.requests.iter().map(|request| Wanted::Lock(request.name.clone()));
    let sweep = claimant::sweep(tx, inner, &named, wanted)?;
    if let Some(orphan) = sweep.orphans.first() {
        let wanted = Wanted::Lock(claim.requests[0].name.clone());
        let holder = Box::new(Holder::orphan(wanted, orphan.pid));
        return Ok(Acquired::Held(Box::new(Obstacle { holder, watch: None })));
    }
    let (instance, new_row) = match owner {
        Owner::Row(instance) => (instance, None),
        Owner::New(attachment) => {
            let row = register(tx, inner, claim, attachment)?;
            (row.instance, Some(row))
        }
    };
    hide(tx, claim, instance)?;
    let granted = take(tx, inner, claim, ways, instance, aside)?;
    end_waiter()?;
    claimant::tidy(tx, inner, &sweep)?;
    Ok(Acquired::Granted(granted, new_row))
}

/// Takes the identities out of what is recorded of the owner's command line: other rows of the same
/// process were made before anybody knew what is secret in it.
fn hide(tx: &Tx<'_>, claim: &LockClaim<'_>, instance: InstanceId) -> Result<()> {
    let subject = claim.claimant.subject;
    let argv = masked(subject, claim.requests);
    if claim.claimant.origin != Origin::Pid {
        return if argv == subject.argv { Ok(()) } else { hide_in(tx, instance, claim.requests) };
    }
    hide_in(tx, instance, claim.requests)?;
    // A keeper leaves it to us, who know what has to be hidden.
    instance::rewrite_argv(tx, instance, |recorded| {
        if recorded.is_empty() { argv.clone() } else { recorded.to_vec() }
    })
}

/// A row without an office, for locks to be taken from.
fn register(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    attachment: &Attachment,
) -> Result<OwnRow> {
    let (anchor, keeper) = attachment.attach(tx, inner)?;
    let nonce = Nonce::random()?;
    let instance = NewInstance {
        profile: claim.profile,
        kind: None,
        origin: claim.claimant.origin,
        subject: claim.claimant.subject,
        argv: &masked(claim.claimant.subject, claim.requests),
        observer: inner.observer(),
        nonce: &nonce,
        anchor: anchor.as_deref(),
        keeper,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        heartbeat_every_ms: None,
    }
    .insert(tx)?;
    Ok(OwnRow { instance, nonce })
}
