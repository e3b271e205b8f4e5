//! Acquiring locks for a process: its own row, and the attempt.

use std::sync::Arc;

use crate::claim::wait::{Attempt, Turn, WaitOptions, until_granted};
use crate::claim::{ATTEMPTS, Attachment, Claimant, Lookups, OwnedRow, changes_too_fast};
use crate::patience::Stopped;
use crate::records::{Origin, instances, reservations};
use crate::scoped::acquire::{Acquired, GrantedLock, LockSource, LockSources, acquire_once};
use crate::scoped::guard::ScopedLock;
use crate::scoped::request;
use crate::scoped::request::{AcquireOptions, LockRequest};
use crate::scoped::survey::{LockClaim, masked};
use crate::store::held::Held;
use crate::store::{AnchoredBy, Inner, transaction};
use crate::{Error, ErrorKind, Holder, InstanceId, Office, Result, Store, stop_budget};

/// The answer to a request for locks.
#[derive(Debug)]
#[must_use = "granted locks are released when their guards are dropped"]
pub enum Acquire<T = ScopedLock> {
    /// This process holds what it asked for.
    Granted(T),
    /// Somebody else does, or may; they explain themselves.
    Held(Box<Holder>),
}

/// The held office that locks are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenancy<'a> {
    pub(crate) instance: InstanceId,
    pub(crate) office: &'a Office,
    /// Whoever was brought to an end for these locks.
    pub(crate) replaced: &'a [InstanceId],
}

impl Tenancy<'_> {
    /// Whoever started those that were replaced does not replace us in turn, unless a person says
    /// so.
    fn supersede(&self, tx: &transaction::Tx<'_>, party: Option<&str>) -> Result<()> {
        for replaced in self.replaced {
            reservations::supersede(tx, self.instance, party, *replaced)?;
        }
        Ok(())
    }
}

pub(crate) fn only(acquire: Acquire<Vec<ScopedLock>>) -> Acquire {
    match acquire {
        Acquire::Granted(mut locks) => Acquire::Granted(locks.swap_remove(0)),
        Acquire::Held(holder) => Acquire::Held(holder),
    }
}

pub(crate) fn acquire_for_myself(
    store: &Store,
    from: Option<&Tenancy<'_>>,
    requests: &[LockRequest],
    options: &AcquireOptions,
) -> Result<Acquire<Vec<ScopedLock>>> {
    request::check(requests)?;
    store.inner.check_process()?;
    let wait_options = WaitOptions {
        wait: options.wait,
        cancel: &options.cancel,
        for_whom: None,
        office: None,
        subject: store.inner.myself(),
        profile: from.map(|from| &from.office.profile),
        origin: Origin::Library,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        argv: masked(store.inner.myself(), requests),
        stopped: options.stopped,
    };
    let answer = until_granted(store, &wait_options, |turn| {
        attempt(store, from, requests, options.stopped, turn)
    })?;
    Ok(match answer {
        Ok(locks) => Acquire::Granted(locks),
        Err(holder) => Acquire::Held(holder),
    })
}

/// One attempt that does not wait for the holder.
pub(crate) fn attempt(
    store: &Store,
    from: Option<&Tenancy<'_>>,
    requests: &[LockRequest],
    stopped: Stopped,
    turn: &Turn,
) -> Result<Attempt<Vec<ScopedLock>>> {
    let inner = &store.inner;
    let claimant = Claimant { origin: Origin::Library, subject: inner.myself() };
    let mut aside = Lookups::default();
    for _ in 0..ATTEMPTS + request::owners_max(requests) {
        // As for an office: attempts of this process are serialised, so that its own fresh lock is
        // never taken for another process' one.
        let mut held = inner.lock_held()?;
        let ours: Vec<InstanceId> = held.rows().map(|row| row.instance).collect();
        let claim = LockClaim {
            requests,
            claimant,
            profile: from.map(|from| &from.office.profile),
            ours: &ours,
            held: Some(&held),
            stopped,
            waiter: turn.waiter,
        };
        let acquired = turn.count.if_writable(|count| {
            inner.write(|tx| {
                let sources = own_rows(tx, &held, from)?;
                let acquired =
                    acquire_once(tx, inner, &claim, sources, turn.waiter, &aside, count)?;
                if let (Acquired::Granted(..), Some(from)) = (&acquired, from) {
                    from.supersede(tx, claimant.subject.party.as_deref())?;
                }
                Ok(acquired)
            })
        })?;
        match acquired {
            Acquired::Granted(granted, new_row) => {
                if let Some(row) = new_row
                    && let Some(ended) = held.without_office.replace(row)
                {
                    held.forget(ended.instance);
                }
                let locks: Vec<Result<ScopedLock>> =
                    granted.into_iter().map(|lock| hold(inner, &mut held, lock)).collect();
                // A guard that is dropped for another one's error locks it again.
                drop(held);
                return Ok(Attempt::Granted(locks.into_iter().collect::<Result<_>>()?));
            }
            Acquired::Held(obstacle) => return Ok(Attempt::Held(obstacle)),
            Acquired::Errand(errand) => {
                drop(held);
                aside.run(errand, turn.deadline, inner.trust())?;
            }
        }
    }
    Err(changes_too_fast(requests[0].name()))
}

/// The rows that this process takes its locks from: that of its office, or the one without.
///
/// The row of a `run` that it acts for outlives it. What one guard has for itself would stay held
/// there when its process is killed or executes another program, and nobody could have it again: so
/// that is taken from the process' own row.
fn own_rows<'a>(
    tx: &transaction::Tx<'_>,
    held: &Held,
    from: Option<&Tenancy<'_>>,
) -> Result<LockSources<'a>> {
    let is_live = |instance| {
        Ok::<_, Error>(instances::standing(tx, instance)?.is_some_and(|row| row.ended.is_none()))
    };
    let without_office = || {
        Ok::<_, Error>(match &held.without_office {
            Some(row) if is_live(row.instance)? => LockSource::Row(row.instance),
            Some(_) | None => LockSource::New(&Attachment::Own),
        })
    };
    let Some(from) = from else { return Ok(without_office()?.into()) };
    let row = held.rows().find(|row| row.instance == from.instance);
    let Some(row) = row else { return Err(is_lost(from)) };
    if !is_live(row.instance)? {
        return Err(is_lost(from));
    }
    let shared = LockSource::Row(row.instance);
    let for_one = match row.anchored_by {
        AnchoredBy::Us => shared,
        AnchoredBy::TheRun => without_office()?,
    };
    Ok(LockSources { shared, for_one })
}

fn is_lost(from: &Tenancy<'_>) -> Error {
    let message = format!("{} is no longer held by this tenure", from.office);
    Error::new(ErrorKind::NotOwner, message).with_hint("claim it again first")
}

/// Notes a granted lock as this process' own, and makes a guard of it.
pub(crate) fn hold(
    inner: &Arc<Inner>,
    held: &mut Held,
    granted: GrantedLock,
) -> Result<ScopedLock> {
    let footing = held
        .rows()
        .find(|row| row.instance == granted.instance)
        .map(|row| OwnedRow::of(inner, row))
        .ok_or_else(|| Error::internal("a lock was granted to a row that is not ours"))?;
    held.hold(&granted.name, granted.slot, granted.instance, granted.fence);
    Ok(ScopedLock::new(footing, granted))
}
