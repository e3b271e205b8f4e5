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

use crate::claim::obstacle::Watch;
use crate::claim::sweep::Force;
use crate::claim::wait::{Attempt, Turn};
use crate::claim::{ATTEMPTS, Attachment, Count, Lookups, Obstacle, changes_too_fast};
use crate::clock::Deadline;
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::takeover::{Plan, TakeoverStep, reserve};
use crate::office::tenure::{Shares, Tenure};
use crate::owner::judgement;
use crate::process::handover;
use crate::records::{Origin, Record, instances, profiles};
use crate::scoped::attempt::hold;
use crate::scoped::request;
use crate::store::held::{Held, HeldOffice};
use crate::store::{AnchoredBy, Inner, Tx};
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
    let turn = Turn { waiter: candidate.waiter, deadline: Deadline::never(), count: Count::No };
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
    Plan(Box<Plan>),
}

/// One claim that does not wait for the holder.
fn attempt(store: &Store, candidate: &Candidate<'_>, turn: &Turn) -> Result<Attempt<Won>> {
    let inner = &store.inner;
    let candidate = Candidate { waiter: turn.waiter, ..candidate.clone() };
    let count = turn.count;
    let mut aside = Lookups::default();
    for _ in 0..ATTEMPTS + request::owners_max(candidate.locks) {
        // Claims of this process are serialised, so that its own fresh row is never taken for
        // another process' one. Order: what is held, then the writer.
        let mut held = inner.lock_held()?;
        if let Some(record) = held_by_us(store, &mut held, &candidate)? {
            return share(store, &mut held, &candidate, record);
        }
        let ours: Vec<InstanceId> = held.rows().map(|row| row.instance).collect();
        let candidate = Candidate { ours: &ours, ..candidate.clone() };
        let step = count.if_writable(|count| {
            inner.write(|tx| claim_or_reserve(tx, inner, &candidate, &aside, count))
        })?;
        let outcome = match step {
            TakeoverStep::Claimed(outcome) => outcome,
            TakeoverStep::Reserved(reserved) => {
                return Ok(Attempt::Granted(Won::Plan(Box::new(reserved.plan(inner)))));
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

/// The record by which this process holds the office already; `None` when it does not, or lost it.
fn held_by_us(store: &Store, held: &mut Held, candidate: &Candidate<'_>) -> Result<Option<Record>> {
    let office = candidate.office;
    let Some(ours) = held.offices.get(office) else { return Ok(None) };
    let row = ours.row.clone();
    let live = store.inner.read(|connection| {
        profiles::check_home(connection, office, candidate.home_to_check())?;
        instances::by_id(connection, row.instance)
    })?;
    let is_missing = live.is_none();
    let live = live.filter(|record| record.is_live() && record.belongs_to(&row.nonce));
    if live.is_none() {
        // A live row is never deleted: this is an older copy of the store, written over it.
        if is_missing {
            store.inner.held_before.note_lost(held, row.instance);
        }
        held.forget(row.instance);
    }
    Ok(live)
}

/// The tenure that this process has by `record`, shared; but not with a command, nor that of one:
/// of two commands in one office, or one beside us, each would be an owner.
fn share(
    store: &Store,
    held: &mut Held,
    candidate: &Candidate<'_>,
    record: Record,
) -> Result<Attempt<Won>> {
    let (inner, office) = (&store.inner, candidate.office);
    let is_of_command = |ours: &HeldOffice| {
        candidate.origin == Origin::Run || (record.is_run && ours.row.anchored_by == AnchoredBy::Us)
    };
    if let Some(ours) = held.offices.get_mut(office).filter(|ours| !is_of_command(ours)) {
        ours.claims += 1;
        let tenure = Tenure::new(store, office, &ours.row, None, Vec::new(), Shares::Yes);
        return Ok(Attempt::Shared(Won::Tenure(tenure)));
    }
    let mut holder = Holder::of(&record, office, &judgement(inner, &record));
    holder.is_this_process = record.pid == Some(inner.observer().pid);
    inner.read(|connection| holder.add_what_it_said(connection, inner, &record))?;
    let watch = Some(Watch::of_instance(record));
    Ok(Attempt::Held(Box::new(Obstacle { holder: Box::new(holder), watch })))
}
