//! Claiming an office: one transaction that looks, judges, ends the dead and inserts.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::ClaimOptions;
use super::ledger::{self, Start};
use super::storm;
use super::tenure::{Shares, Tenure};
use crate::claimant::{
    self, ATTEMPTS, Aside, Attachment, Claimant, Count, Errand, Evicted, Examined,
    changes_too_fast, examine,
};
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::holder::Holder;
use crate::instance::{self, End, EndReason, LockNow, NewInstance, Origin, Record, Subject};
use crate::legacy::{self, Met};
use crate::liveness::{DeadReason, Lease};
use crate::marker::by_or_self;
use crate::names::{InstanceId, Nonce, Office, Wanted};
use crate::reservation;
use crate::runtime_table::Owner;
use crate::scoped::{self, GrantedLock, LockClaim, LockRequest, Surveyed};
use crate::standing::Force;
use crate::stop_budget;
use crate::store::{EventRecord, Held, HeldOffice, Inner, OwnRow, Store, Tx, lock};
use crate::takeover::{self, Plan, Replace, Step, Succession};
use crate::wait::{Attempt, Obstacle, Stopped, Turn, WaitOptions, Watch, until_granted};

/// The answer to a claim.
#[derive(Debug)]
#[must_use = "a granted office is released when its tenure is dropped"]
pub enum Claim {
    /// This process holds the office.
    Granted(Tenure),
    /// Somebody else does, or may; they explain themselves.
    Held(Box<Holder>),
}

/// Everything a claim needs to know before it opens its transaction.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) office: &'a Office,
    pub(crate) home: Option<&'a Path>,
    /// The directory of an older program that the profile is to stand for.
    pub(crate) legacy_home: Option<&'a Path>,
    pub(crate) origin: Origin,
    pub(crate) subject: &'a Subject,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    pub(crate) heartbeat_every_ms: Option<u64>,
    /// Locks without which the office is not wanted.
    pub(crate) locks: &'a [LockRequest],
    /// The proof of ownership to go on with, in place of a new one.
    pub(crate) nonce: Option<&'a Nonce>,
    /// The waiter's own row, which ends when it becomes the owner.
    pub(crate) waiter: Option<InstanceId>,
    /// Whether a live holder is to be replaced.
    pub(crate) replace: Option<&'a Replace>,
    /// Set once it was: what is left to do is to claim.
    pub(crate) succession: Option<&'a Succession>,
}

impl<'a> Candidate<'a> {
    /// For a process that does not link the library.
    pub(crate) fn by_pid(office: &'a Office, home: Option<&'a Path>, subject: &'a Subject) -> Self {
        Self {
            office,
            home,
            legacy_home: None,
            origin: Origin::Pid,
            subject,
            version: None,
            stop_budget_ms: stop_budget::DEFAULT_MS,
            heartbeat_every_ms: None,
            locks: &[],
            nonce: None,
            waiter: None,
            replace: None,
            succession: None,
        }
    }

    pub(crate) fn claimant(&self) -> Claimant<'a> {
        Claimant { origin: self.origin, subject: self.subject }
    }

    /// The home that the profile has to be bound to, if to any.
    fn home_to_check(&self) -> Option<&'a Path> {
        self.home.filter(|_| !self.replace.is_some_and(|replace| replace.across_homes))
    }
}

/// A row was inserted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) row: OwnRow,
    pub(crate) evicted: Option<Evicted>,
    pub(crate) locks: Vec<GrantedLock>,
}

/// What one transaction came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Granted(Granted),
    /// The recorded process holds the office already, by a row that `--pid` made.
    AlreadyRecorded(Box<Record>),
    Held(Box<Obstacle>),
    Errand(Errand),
}

/// Claims `office` for this process.
pub(super) fn claim_for_myself(
    store: &Store,
    home: Option<&Path>,
    office: &Office,
    options: &ClaimOptions,
) -> Result<Claim> {
    let inner = &store.inner;
    inner.check_process()?;
    let candidate = Candidate {
        office,
        home,
        legacy_home: options.legacy_home.as_deref(),
        origin: options.origin,
        subject: inner.myself(),
        version: options.version.as_deref(),
        stop_budget_ms: options.stop_budget_ms()?,
        heartbeat_every_ms: options.heartbeat_every_ms()?,
        locks: &options.locks,
        nonce: options.nonce.as_ref(),
        waiter: None,
        replace: options.replace.as_ref(),
        succession: None,
    };
    let wait_options = WaitOptions {
        wait: options.wait,
        cancel: &options.cancel,
        for_whom: None,
        profile: Some(&office.profile),
        origin: candidate.origin,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        argv: scoped::masked(candidate.subject, candidate.locks),
        stopped: Stopped::Respect,
    };
    let answer = until_granted(store, &wait_options, |turn| attempt(store, &candidate, turn))?;
    Ok(match (answer, candidate.replace) {
        (Ok(Won::Tenure(tenure)), _) => Claim::Granted(tenure),
        (Ok(Won::Plan(plan)), Some(replace)) => {
            takeover::carry_out(store, &candidate, replace, plan, &options.cancel)?
        }
        (Ok(Won::Plan(_)), None) => {
            return Err(Error::internal("a takeover was planned that nobody asked for"));
        }
        (Err(holder), _) => Claim::Held(holder),
    })
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
    let mut aside = Aside::default();
    for _ in 0..ATTEMPTS + candidate.locks.len() {
        // Claims of this process are serialised, so that its own fresh row is never taken for
        // another process' one. Order: what is held, then the writer.
        let mut held = lock(&inner.held);
        if let Some(shared) = share(store, &mut held, &candidate)? {
            return Ok(Attempt::Shared(Won::Tenure(shared)));
        }
        let step = count.if_writable(|count| {
            inner.write(|tx| claim_or_reserve(tx, inner, &candidate, &aside, count))
        })?;
        let outcome = match step {
            Step::Claimed(outcome) => outcome,
            Step::Reserved(reserved) => {
                return Ok(Attempt::Granted(Won::Plan(reserved.plan(inner))));
            }
        };
        match outcome {
            Outcome::Errand(errand) => {
                drop(held);
                let is_forced = candidate.replace.is_some_and(|replace| replace.force);
                let force = if is_forced { Force::Yes } else { Force::No };
                let trust = errand.trust(inner, force);
                aside.run(errand, turn.deadline, &trust)?;
            }
            Outcome::Granted(granted) => {
                let office = HeldOffice { row: granted.row.clone(), claims: 1 };
                held.offices.insert(candidate.office.clone(), office);
                for lock in &granted.locks {
                    held.hold(&lock.name, lock.instance, lock.fence);
                }
                return Ok(Attempt::Granted(Won::Tenure(Tenure::new(
                    store,
                    candidate.office,
                    &granted.row,
                    granted.evicted,
                    granted.locks,
                    Shares::No,
                ))));
            }
            Outcome::Held(obstacle) => return Ok(Attempt::Held(obstacle)),
            Outcome::AlreadyRecorded(record) => {
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
    aside: &Aside,
    count: Count,
) -> Result<Step> {
    let Some(replace) = candidate.replace.filter(|_| candidate.succession.is_none()) else {
        return claim_once(tx, inner, candidate, &Attachment::Own, aside, count).map(Step::Claimed);
    };
    // Not a refusal yet.
    match claim_once(tx, inner, candidate, &Attachment::Own, aside, Count::No)? {
        Outcome::Held(obstacle) => {
            takeover::reserve(tx, inner, candidate, replace, obstacle, aside, count)
        }
        outcome => Ok(Step::Claimed(outcome)),
    }
}

/// The tenure this process already has, shared; `None` when it has none, or lost it.
fn share(store: &Store, held: &mut Held, candidate: &Candidate<'_>) -> Result<Option<Tenure>> {
    let office = candidate.office;
    let Some(ours) = held.offices.get_mut(office) else { return Ok(None) };
    let live = store.inner.read(|connection| {
        ledger::check_home(connection, office, candidate.home_to_check())?;
        instance::by_id(connection, ours.row.instance)
    })?;
    let is_missing = live.is_none();
    let still_ours = live
        .is_some_and(|record| record.ended_at_ms.is_none() && record.belongs_to(&ours.row.nonce));
    if !still_ours {
        let lost = ours.row.instance;
        // A live row is never deleted: this is an older copy of the store, written over it.
        if is_missing {
            store.inner.note_lost(held, lost);
        }
        held.forget(lost);
        return Ok(None);
    }
    ours.claims += 1;
    Ok(Some(Tenure::new(store, office, &ours.row, None, Vec::new(), Shares::Yes)))
}

/// The heart of every claim, inside one write transaction. Looks at everything before it ends
/// anything: a refused claim changes nobody.
pub(crate) fn claim_once(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    attachment: &Attachment,
    aside: &Aside,
    count: Count,
) -> Result<Outcome> {
    let office = candidate.office;
    ledger::check_home(tx, office, candidate.home_to_check())?;
    // Before any row is ended: what relies on an anchor now loses it with a later claim at the
    // earliest, when this one is certain to have been committed.
    let named = tx.named_anchors()?;
    let over = match clear_the_way(tx, inner, candidate, aside, count)? {
        Way::Clear(over) => over,
        Way::Not(outcome) => return Ok(outcome),
    };
    let wanted = Wanted::Office(office.clone());
    if let Some(obstacle) = claimant::reserved_by_another(tx, inner, &wanted, candidate.waiter)? {
        return refuse_candidate(tx, inner, candidate, count, obstacle);
    }
    let lock_claim = LockClaim {
        requests: candidate.locks,
        claimant: candidate.claimant(),
        profile: Some(&office.profile),
        ours: &[],
        stopped: Stopped::Respect,
        waiter: candidate.waiter,
    };
    let ways = match scoped::survey(tx, inner, &lock_claim, aside, count)? {
        Surveyed::Clear(ways) => ways,
        Surveyed::Errand(errand) => return Ok(Outcome::Errand(errand)),
        Surveyed::Held(obstacle) => {
            return refuse_candidate(tx, inner, candidate, count, obstacle);
        }
    };
    let locks = candidate.locks.iter().map(|lock| Wanted::Lock(lock.name.clone()));
    let wanted = locks.chain([Wanted::Office(office.clone())]);
    let sweep = claimant::sweep(tx, inner, &named, wanted)?;
    if let Some(orphan) = sweep.orphans.first() {
        let holder = Box::new(Holder::orphan(Wanted::Office(office.clone()), orphan.pid));
        let obstacle = Box::new(Obstacle { holder, watch: None });
        return refuse_candidate(tx, inner, candidate, count, obstacle);
    }
    let (evicted, after_abnormal_end) = match over {
        Some((record, reason)) => {
            let mut end = End::new(reason);
            if let EndReason::Dead(_) = reason {
                end = end.detail(format!("found by pid {}", candidate.subject.pid));
            }
            let recorded = instance::end_other(tx, record.id, &end)?;
            let abnormal =
                recorded.is_some_and(|reason| instance::is_abnormal(reason.as_str(), None));
            (Some(Evicted::of(&record, reason, aside)), abnormal)
        }
        None => (None, ledger::last_end_was_abnormal(tx, office)?),
    };
    let mut granted = insert(tx, inner, candidate, attachment, evicted, after_abnormal_end)?;
    granted.locks = scoped::take(tx, inner, &lock_claim, ways, granted.row.instance, aside)?;
    claimant::tidy(tx, inner, &sweep)?;
    if tx.prunes() {
        instance::prune_history(tx, office, |anchor| claimant::is_held(inner, anchor))?;
        instance::forget_notes_of_earlier(tx, office)?;
    }
    Ok(Outcome::Granted(granted))
}

/// What a claim found on its way to the office itself.
enum Way {
    /// Nobody, or one whose row is to be ended for this reason.
    Clear(Option<(Box<Record>, EndReason)>),
    Not(Outcome),
}

/// Looks at whoever is on record as the holder, and then for an older gateway that is not.
fn clear_the_way(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    aside: &Aside,
    count: Count,
) -> Result<Way> {
    let office = candidate.office;
    let legacy_home = legacy::home_of_claim(tx, office, candidate.legacy_home)?;
    let mut live = instance::live(tx, office)?;
    let legacy_home = legacy_home.or_else(|| legacy::home_of_holder(live.as_ref()?));
    let mut has_met_older = false;
    loop {
        let over = match live {
            None => None,
            // Its lock was let go, and another one has taken it.
            Some(record) if record.older_lock == LockNow::Successors && !has_met_older => {
                Some((Box::new(record), EndReason::Dead(DeadReason::AnchorReleased)))
            }
            Some(record) => {
                match examine(inner, candidate.claimant(), &record, Lease::None, aside) {
                    Examined::Over(reason) => Some((Box::new(record), reason)),
                    Examined::Same => {
                        return Ok(Way::Not(Outcome::AlreadyRecorded(Box::new(record))));
                    }
                    Examined::Errand(errand) => return Ok(Way::Not(Outcome::Errand(errand))),
                    Examined::InTheWay(judged) => {
                        if let Some(home) = legacy_home.as_deref()
                            && let Some(beside) =
                                beside_replaced(tx, inner, candidate, home, &record)?
                        {
                            return refuse_candidate(tx, inner, candidate, count, beside)
                                .map(Way::Not);
                        }
                        let mut holder = Box::new(Holder::of(&record, office, &judged));
                        holder.add_what_it_said(tx, inner, &record)?;
                        let watch = Some(Watch { fence: record.id.as_i64(), record });
                        let obstacle = Box::new(Obstacle { holder, watch });
                        return refuse_candidate(tx, inner, candidate, count, obstacle)
                            .map(Way::Not);
                    }
                }
            }
        };
        let Some(home) = legacy_home.as_deref().filter(|_| !has_met_older) else {
            return Ok(Way::Clear(over));
        };
        let claimant = candidate.subject.pid;
        live = match legacy::meet(tx, inner, office, home, claimant, over.as_ref())? {
            // Once: it may not have been asked to.
            Met::Coming(record) if !aside.has_awaited(record.id) => {
                let errand = Errand::AwaitOlderLock(record, home.to_owned());
                return Ok(Way::Not(Outcome::Errand(errand)));
            }
            Met::Nobody | Met::Coming(_) => return Ok(Way::Clear(over)),
            Met::Ours(obstacle) => {
                return refuse_candidate(tx, inner, candidate, count, obstacle).map(Way::Not);
            }
            Met::Older(record) => Some(*record),
        };
        has_met_older = true;
    }
}

/// Whoever keeps a claim from the place of `record` that it is to replace, because it acts in `home` as well:
/// that one would be met only when the holder has ended for nothing.
fn beside_replaced(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    home: &Path,
    record: &Record,
) -> Result<Option<Box<Obstacle>>> {
    if candidate.replace.is_none() || candidate.succession.is_some() {
        return Ok(None);
    }
    legacy::beside(tx, inner, candidate.office, home, record)
}

/// Counts a refusal, and says when the next start may come.
pub(crate) fn refuse_candidate(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    count: Count,
    mut obstacle: Box<Obstacle>,
) -> Result<Outcome> {
    let holder = &mut *obstacle.holder;
    if count == Count::Yes {
        let (instance, reason) = (holder.instance, holder.reason);
        let refused = match &holder.wanted {
            Wanted::Office(_) => Start::Refused { holder: instance, reason },
            Wanted::Lock(_) => Start::RefusedForLock { holder: instance, reason },
        };
        record_start(tx, inner, candidate, refused)?;
    }
    let backoff_ms = backoff_ms(tx, inner, candidate)?;
    holder.retry_after_ms = backoff_ms.or(holder.retry_after_ms);
    Ok(Outcome::Held(obstacle))
}

fn record_start(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    start: Start<'_>,
) -> Result<()> {
    let now_boot_ms = inner.clock().boot_ms();
    ledger::record_start(
        tx,
        candidate.office,
        candidate.subject,
        inner.observer(),
        now_boot_ms,
        start,
    )
}

fn backoff_ms(tx: &Tx<'_>, inner: &Inner, candidate: &Candidate<'_>) -> Result<Option<u64>> {
    let Some(party) = &candidate.subject.party else { return Ok(None) };
    let now = inner.clock().boot_ms();
    let boot_id = inner.observer().boot_id.as_deref();
    let storm = storm::of(tx, candidate.office, party, boot_id, now)?;
    Ok(storm.map(|storm| storm.remaining_ms(now)))
}

fn insert(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    attachment: &Attachment,
    evicted: Option<Evicted>,
    after_abnormal_end: bool,
) -> Result<Granted> {
    let (anchor, keeper) = attachment.attach(tx, inner)?;
    ledger::bind_home(tx, candidate.office, candidate.home)?;
    if let Some(home) = candidate.legacy_home {
        ledger::bind_legacy_home(tx, candidate.office, home)?;
    }
    let nonce = match candidate.nonce {
        Some(nonce) => nonce.clone(),
        None => Nonce::random()?,
    };
    let instance = NewInstance {
        profile: Some(&candidate.office.profile),
        kind: Some(&candidate.office.kind),
        origin: candidate.origin,
        subject: candidate.subject,
        argv: &scoped::masked(candidate.subject, candidate.locks),
        observer: inner.observer(),
        nonce: &nonce,
        anchor: anchor.as_deref(),
        keeper,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        heartbeat_every_ms: candidate.heartbeat_every_ms,
    }
    .insert(tx)?;
    if candidate.heartbeat_every_ms.is_some() {
        // The claim is the first sign of life: the next one is expected from now on.
        let writer = by_or_self(inner, None);
        let owner = Owner {
            id: instance,
            office: candidate.office,
            pid: Some(candidate.subject.pid),
            writer: &writer,
            writer_pid: inner.observer().pid,
        };
        owner.beat(tx, None)?;
    }
    if let Some(waiter) = candidate.waiter {
        instance::end_other(tx, waiter, &End::new(EndReason::Released))?;
    }
    for replaced in candidate.succession.iter().flat_map(|succession| &succession.replaced) {
        let party = candidate.subject.party.as_deref();
        reservation::supersede(tx, instance, party, *replaced)?;
    }
    record_start(tx, inner, candidate, Start::Granted { instance, after_abnormal_end })?;
    tx.record(&EventRecord {
        event: "office_claimed",
        office: Some(candidate.office),
        instance: Some(instance),
        pid: Some(candidate.subject.pid),
        detail: evicted.as_ref().map(|evicted| {
            json!({"evicted": {"instance": evicted.instance.as_i64(), "reason": evicted.reason}})
        }),
        ..EventRecord::default()
    })?;
    Ok(Granted { row: OwnRow { instance, nonce }, evicted, locks: Vec::new() })
}
