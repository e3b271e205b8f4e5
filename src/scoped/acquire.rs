//! Acquiring scoped locks: first a look at everything that stands in the way, then, in the same
//! transaction, the taking of it.
//!
//! `survey` looks at every lock of a claim and writes nothing but the count of a refusal; `take`
//! follows when nothing stands in the way: all or none. An owner found dead loses its row, and with
//! it all its locks (`owner/ending.rs`). A lease that ran out, and an eviction of a stopped owner,
//! take that lock alone. A lock's row is never updated to another holder but deleted and inserted,
//! with a new fence: a guard holds exactly as long as the row has its fence.

use serde::Serialize;
use serde_json::{Value, json};

use crate::claim::examine::Evicted;
use crate::claim::sweep::Extent;
use crate::claim::{Attachment, Count, Errand, Lookups, Obstacle, sweep};
use crate::clock::as_rfc3339;
use crate::names::Secret;
use crate::names::slot::Slot;
use crate::owner::ending;
use crate::process::command_line::mask;
use crate::records::locks::NewLock;
use crate::records::{
    End, EndReason, EventRecord, LockEnd, LockRow, NewInstance, Origin, Record, identities,
    instances, locks,
};
use crate::scoped::request::LockRequest;
use crate::scoped::survey;
use crate::scoped::survey::{LockClaim, Surveyed};
use crate::scoped::unlock::end_if_without_purpose;
use crate::scoped::way::{LockOver, LockWay};
use crate::store::{AnchoredBy, Inner, OwnRow, Tx};
use crate::{Holder, InstanceId, LockName, Nonce, Result, Wanted};

/// A lock that was granted. In JSON an object with these fields, and with `scope` and
/// `identity_hash` in place of the name; later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GrantedLock {
    /// Which lock.
    #[serde(flatten)]
    pub name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub slot: Option<Slot>,
    /// The row it belongs to.
    pub instance: InstanceId,
    /// Rises with every change of holder: hand it to the resource, which refuses a lower one.
    pub fence: i64,
    /// The holder whose place was taken, if there was one.
    pub evicted: Option<Evicted>,
    /// The lock as it was recorded, if the process held it before.
    pub previous: Option<PreviousLock>,
}

/// A lock as it was recorded before its holder acquired it again. In JSON an object with these
/// fields, the time as `since` (RFC 3339, UTC, milliseconds); later versions may add others.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PreviousLock {
    /// The row it was taken from.
    pub instance: InstanceId,
    /// The process it was recorded for, in its own pid namespace.
    pub pid: Option<crate::sys::Pid>,
    /// When it was acquired: Unix milliseconds, wall time.
    #[serde(rename = "since", serialize_with = "as_rfc3339")]
    pub acquired_at_ms: i64,
    /// Its fence, which stays.
    pub fence: i64,
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
}

/// What the owner says about itself, without what it locks.
fn masked_metadata(metadata: &Value, requests: &[LockRequest]) -> Value {
    let secrets = survey::secrets(requests).into_iter();
    let secrets: Vec<&Secret> =
        secrets.filter(|secret| identities::is_long_enough(secret.as_str())).collect();
    let mut masked = metadata.clone();
    identities::mask_strings(&mut masked, &|text| {
        mask::mask(&[text.to_owned()], &secrets).concat()
    });
    masked
}

/// Takes what [`survey`] found to be had, each lock for one of the rows `owners`.
pub(crate) fn take(
    tx: &Tx<'_>,
    inner: &Inner,
    claim: &LockClaim<'_>,
    ways: Vec<LockWay>,
    owners: impl IntoIterator<Item = InstanceId>,
    aside: &Lookups,
) -> Result<Vec<GrantedLock>> {
    let (observer, now_boot_ms) = (inner.observer(), inner.clock().boot_ms());
    let mut granted = Vec::with_capacity(ways.len());
    for ((request, way), instance) in claim.requests.iter().zip(ways).zip(owners) {
        let metadata = request.metadata.as_ref().map(|it| masked_metadata(it, claim.requests));
        let new = NewLock {
            name: &request.name,
            instance,
            metadata: metadata.as_ref(),
            ttl_ms: request.ttl_ms,
        };
        let (over, slot) = match way {
            LockWay::Free(over, slot) => (over, slot),
            LockWay::Ours(row, record) => {
                locks::replace(tx, &new, row.slot, observer, now_boot_ms)?;
                granted.push(GrantedLock {
                    name: request.name.clone(),
                    slot: row.slot,
                    instance: row.instance,
                    fence: row.fence,
                    evicted: None,
                    previous: Some(PreviousLock::of(row, &record)),
                });
                continue;
            }
        };
        let mut evicted = None;
        for over in over {
            evicted = end(tx, claim, over, aside)?.or(evicted);
        }
        let fence = match slot {
            Some(slot) => locks::insert_slot(tx, &new, slot, observer, now_boot_ms)?,
            None => locks::insert(tx, &new, observer, now_boot_ms)?,
        };
        let mut detail = json!({
            "scope": request.name.scope.as_str(),
            "identity_hash": request.name.identity_hash.as_str(),
            "fence": fence,
            "evicted": evicted.as_ref().map(|evicted| json!({
                "instance": evicted.instance.as_i64(),
                "reason": evicted.reason,
            })),
        });
        Slot::tell(slot, &mut detail);
        tx.record(&EventRecord {
            event: "lock_acquired",
            profile: claim.profile,
            instance: Some(instance),
            pid: Some(claim.claimant.subject.pid),
            detail: Some(detail),
            ..EventRecord::default()
        })?;
        granted.push(GrantedLock {
            name: request.name.clone(),
            slot,
            instance,
            fence,
            evicted,
            previous: None,
        });
    }
    Ok(granted)
}

/// Ends a lock that is over; whose place was taken by that.
fn end(
    tx: &Tx<'_>,
    claim: &LockClaim<'_>,
    over: LockOver,
    aside: &Lookups,
) -> Result<Option<Evicted>> {
    let pid = claim.claimant.subject.pid;
    let end = |row: &LockRow, reason: EndReason, by: Option<&str>| {
        let how = LockEnd { reason: reason.into(), by };
        locks::end(tx, &row.name, row.slot, row.fence, &how)
    };
    match over {
        LockOver::Left(row) => {
            end(&row, EndReason::Released, None)?;
            Ok(None)
        }
        LockOver::WithOwner(row, record, reason) => {
            let owner = End::new(reason).detail(format!("found by pid {pid}"));
            // Its locks end with it; false when another of them has come first.
            ending::end_other(tx, record.id, &owner)?;
            // Of one with very many, this one may be left.
            end(&row, reason, None)?;
            Ok(Some(Evicted::of(&record, reason, aside)))
        }
        LockOver::Alone(row, record, reason) => {
            let by = match reason {
                EndReason::Evicted => format!("pid {pid}, which found it stopped"),
                _ => format!("pid {pid}"),
            };
            end(&row, reason, Some(&by))?;
            end_if_without_purpose(tx, &record, &by)?;
            // From itself, under another record, is from nobody.
            Ok((!reason.goes_on()).then(|| Evicted::of(&record, reason, aside)))
        }
    }
}

/// The row that locks are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LockSource<'a> {
    /// A live row of the claimant's.
    Row(InstanceId),
    /// A new one without an office, that leans on this.
    New(&'a Attachment),
}

/// The rows that locks are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockSources<'a> {
    pub(crate) shared: LockSource<'a>,
    /// What one guard has for itself: exclusive locks, and slots.
    pub(crate) for_one: LockSource<'a>,
}

impl<'a> From<LockSource<'a>> for LockSources<'a> {
    fn from(source: LockSource<'a>) -> Self {
        Self { shared: source, for_one: source }
    }
}

impl<'a> LockSources<'a> {
    fn of(&self, request: &LockRequest) -> LockSource<'a> {
        if request.slots.is_some() { self.for_one } else { self.shared }
    }
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
    sources: LockSources<'_>,
    waiter: Option<InstanceId>,
    aside: &Lookups,
    count: Count,
) -> Result<Acquired> {
    tx.check_schema()?;
    let ways = match survey::survey(tx, inner, claim, aside, count)? {
        Surveyed::Clear(ways) => ways,
        Surveyed::Errand(errand) => return Ok(Acquired::Errand(errand)),
        Surveyed::Held(obstacle) => return Ok(Acquired::Held(obstacle)),
    };
    let end_waiter = || match waiter {
        Some(waiter) => ending::end_other(tx, waiter, &End::new(EndReason::Released)).map(drop),
        None => Ok(()),
    };
    let owners: Option<Vec<InstanceId>> = ways.iter().map(LockWay::owner).collect();
    if let Some(&[owner, ..]) = owners.as_deref() {
        end_waiter()?;
        let owners = std::iter::repeat(owner);
        return Ok(Acquired::Granted(take(tx, inner, claim, ways, owners, aside)?, None));
    }
    let wanted = claim.requests.iter().map(LockRequest::share);
    let sweep = sweep::sweep(tx, inner, Extent::Unknown, wanted)?;
    if let Some(orphan) = sweep.orphans.first() {
        let wanted = Wanted::Lock(claim.requests[0].name.clone());
        let holder = Box::new(Holder::orphan(wanted, orphan.pid));
        return Ok(Acquired::Held(Box::new(Obstacle { holder, watch: None })));
    }
    let mut new_row: Option<OwnRow> = None;
    let mut owners: Vec<InstanceId> = Vec::with_capacity(claim.requests.len());
    for request in claim.requests {
        let made = new_row.as_ref().map(|row| row.instance);
        owners.push(match (sources.of(request), made) {
            (LockSource::Row(instance), _) | (LockSource::New(_), Some(instance)) => instance,
            (LockSource::New(attachment), None) => {
                new_row.insert(register(tx, inner, claim, attachment)?).instance
            }
        });
    }
    hide_from(tx, claim, sources, &owners)?;
    let granted = take(tx, inner, claim, ways, owners, aside)?;
    end_waiter()?;
    sweep::tidy(tx, inner, sweep)?;
    Ok(Acquired::Granted(granted, new_row))
}

/// Hides the identities in each row that something was taken from, and in the one whose owner gave
/// the command line.
fn hide_from(
    tx: &Tx<'_>,
    claim: &LockClaim<'_>,
    sources: LockSources<'_>,
    owners: &[InstanceId],
) -> Result<()> {
    let shared = match sources.shared {
        LockSource::Row(instance) => Some(instance),
        LockSource::New(_) => None,
    };
    let mut rows: Vec<InstanceId> = owners.iter().copied().chain(shared).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.into_iter().try_for_each(|row| hide(tx, claim, row))
}

/// Takes the identities out of what is recorded of the owner's command line: other rows of the same
/// process were made before anybody knew what is secret in it.
fn hide(tx: &Tx<'_>, claim: &LockClaim<'_>, instance: InstanceId) -> Result<()> {
    let subject = claim.claimant.subject;
    let argv = survey::masked(subject, claim.requests);
    if claim.claimant.origin != Origin::Pid {
        return if argv == subject.argv {
            Ok(())
        } else {
            survey::hide_in(tx, instance, claim.requests)
        };
    }
    survey::hide_in(tx, instance, claim.requests)?;
    // A keeper leaves it to us, who know what has to be hidden.
    instances::rewrite_argv(tx, instance, |recorded| {
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
        origin: claim.claimant.origin,
        argv: &survey::masked(claim.claimant.subject, claim.requests),
        anchor: anchor.as_deref(),
        keeper,
        ..NewInstance::without_office(claim.claimant.subject, inner.observer(), &nonce)
    }
    .insert(tx)?;
    Ok(OwnRow { instance, nonce, anchored_by: AnchoredBy::Us })
}
