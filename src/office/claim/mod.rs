//! Claiming an office: from a first look to the granted tenure or the refusal.
//!
//! Claims of one process are serialised: `Inner::held` is locked around a whole claim, then the
//! writer. `claim_once` is the transaction; `entry` is where a claim begins.

pub(crate) mod candidate;
pub(crate) mod clear_the_way;
pub(crate) mod entry;
pub(crate) mod insert;
pub(crate) mod once;

use std::sync::Arc;

use crate::claim::sweep::Force;
use crate::claim::wait::{Attempt, Turn};
use crate::claim::{ATTEMPTS, Attachment, Count, Lookups, changes_too_fast};
use crate::clock::Deadline;
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::takeover::{Plan, TakeoverStep, reserve};
use crate::office::tenure::{Shares, Tenure};
use crate::process::handover;
use crate::records::{instances, profiles};
use crate::scoped::attempt::hold;
use crate::scoped::request;
use crate::store::held::{Held, HeldOffice};
use crate::store::{Inner, Tx};
use crate::{Error, Holder, InstanceId, Reason, Result, ScopedLock, Store};

/// The answer to a claim.
#[derive(Debug)]
#[must_use = "a granted office is released when its tenure is dropped"]
pub enum Claim {
    /// This process holds the office.
    Granted(Tenure),
    /// Somebody else does, or may; they explain themselves.
    Held(Box<Holder>),
}

/// Claims what is reserved for the row `candidate.waiter`.
pub(crate) fn claim_reserved(store: &Store, candidate: &Candidate<'_>) -> Result<Claim> {
    let turn = Turn { waiter: candidate.waiter, deadline: Deadline::never() };
    Ok(match attempt(store, candidate, &turn)? {
        Attempt::Granted(Won::Tenure(tenure)) | Attempt::Shared(Won::Tenure(tenure)) => {
            Claim::Granted(tenure)
        }
        Attempt::Held(obstacle) => Claim::Held(obstacle.holder),
        Attempt::Granted(Won::Plan(_)) | Attempt::Shared(Won::Plan(_)) => {
            return Err(Error::internal("a takeover was planned twice"));
        }
    })
}

/// What a claim won.
#[derive(Debug)]
enum Won {
    Tenure(Tenure),
    /// The office is reserved for us, and its holder is to be brought to an end.
    Plan(Plan),
}

/// One claim that does not wait for the holder; retries that a person waits for are refused
/// without being counted again.
fn attempt(store: &Store, candidate: &Candidate<'_>, turn: &Turn) -> Result<Attempt<Won>> {
    let inner = &store.inner;
    let candidate = Candidate { waiter: turn.waiter, ..candidate.clone() };
    let count = if turn.waiter.is_some() { Count::No } else { Count::Yes };
    let mut aside = Lookups::default();
    for _ in 0..ATTEMPTS + request::owners_max(candidate.locks) {
        // Claims of this process are serialised, so that its own fresh row is never taken for
        // another process' one. Order: what is held, then the writer.
        let mut held = inner.lock_held()?;
        if let Some(shared) = share(store, &mut held, &candidate)? {
            return Ok(Attempt::Shared(Won::Tenure(shared)));
        }
        let ours: Vec<InstanceId> = held.rows().map(|row| row.instance).collect();
        let candidate = Candidate { ours: &ours, ..candidate.clone() };
        let step = count.if_writable(|count| {
            inner.write(|tx| claim_or_reserve(tx, inner, &candidate, &aside, count))
        })?;
        let outcome = match step {
            TakeoverStep::Claimed(outcome) => outcome,
            TakeoverStep::Reserved(reserved) => {
                return Ok(Attempt::Granted(Won::Plan(reserved.plan(inner))));
            }
        };
        match outcome {
            ClaimOutcome::Errand(errand) => {
                drop(held);
                let is_forced = candidate.replace.is_some_and(|replace| replace.force);
                let force = if is_forced { Force::Yes } else { Force::No };
                let trust = errand.trust(inner, force);
                aside.run(errand, turn.deadline, &trust)?;
            }
            ClaimOutcome::Granted(granted) => {
                let office = HeldOffice { row: granted.row.clone(), claims: 1, beside: None };
                held.offices.insert(candidate.office.clone(), office);
                let instance = granted.row.instance;
                let (own, shared): (Vec<_>, Vec<_>) =
                    granted.locks.into_iter().partition(|lock| lock.instance == instance);
                for lock in &own {
                    held.hold(&lock.name, lock.slot, lock.instance, lock.fence);
                }
                let shared: Vec<Result<ScopedLock>> =
                    shared.into_iter().map(|lock| hold(inner, &mut held, lock)).collect();
                // A guard that is dropped for an error locks it again.
                drop(held);
                let (row, evicted) = (&granted.row, granted.evicted);
                if let Some(before) = &evicted
                    && before.reason == Reason::ReExecuted
                {
                    let old = inner.read(|tx| instances::by_id(tx, before.instance));
                    let key = old.ok().flatten().and_then(|old| old.identity.anchor);
                    handover::close_what_was_left(before.instance, key.as_ref());
                }
                let tenure = Tenure::new(store, candidate.office, row, evicted, own, Shares::No);
                let shared = shared.into_iter().collect::<Result<_>>()?;
                return Ok(Attempt::Granted(Won::Tenure(tenure.with_guards(shared))));
            }
            ClaimOutcome::Held(obstacle) => return Ok(Attempt::Held(obstacle)),
            ClaimOutcome::AlreadyRecorded(record) => {
                return Err(Error::internal(format!(
                    "instance {} claims to be ours without our nonce",
                    record.id
                )));
            }
        }
    }
    Err(changes_too_fast(candidate.office))
}

/// One transaction: claims, or reserves what a live holder has if that is to be replaced.
fn claim_or_reserve(
    tx: &Tx<'_>,
    inner: &Arc<Inner>,
    candidate: &Candidate<'_>,
    aside: &Lookups,
    count: Count,
) -> Result<TakeoverStep> {
    let Some(replace) = candidate.replace.filter(|_| candidate.succession.is_none()) else {
        return once::claim_once(tx, inner, candidate, &Attachment::Own, aside, count)
            .map(TakeoverStep::Claimed);
    };
    // Not a refusal yet.
    match once::claim_once(tx, inner, candidate, &Attachment::Own, aside, Count::No)? {
        ClaimOutcome::Held(obstacle) => {
            reserve::reserve(tx, inner, candidate, replace, obstacle, aside, count)
        }
        outcome => Ok(TakeoverStep::Claimed(outcome)),
    }
}

/// The tenure this process already has, shared; `None` when it has none, or lost it.
fn share(store: &Store, held: &mut Held, candidate: &Candidate<'_>) -> Result<Option<Tenure>> {
    let office = candidate.office;
    let Some(ours) = held.offices.get_mut(office) else { return Ok(None) };
    let live = store.inner.read(|connection| {
        profiles::check_home(connection, office, candidate.home_to_check())?;
        instances::by_id(connection, ours.row.instance)
    })?;
    let is_missing = live.is_none();
    let still_ours =
        live.is_some_and(|record| record.is_live() && record.belongs_to(&ours.row.nonce));
    if !still_ours {
        let lost = ours.row.instance;
        // A live row is never deleted: this is an older copy of the store, written over it.
        if is_missing {
            store.inner.held_before.note_lost(held, lost);
        }
        held.forget(lost);
        return Ok(None);
    }
    ours.claims += 1;
    Ok(Some(Tenure::new(store, office, &ours.row, None, Vec::new(), Shares::Yes)))
}
