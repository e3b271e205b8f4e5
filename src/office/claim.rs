//! Claiming an office: one transaction that looks, judges, ends the dead and inserts.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::ledger::{self, Start};
use super::storm;
use super::tenure::Tenure;
use super::{ClaimOptions, Holder};
use crate::anchor::{self, Sweep};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{self, End, EndReason, NewInstance, Origin, Record, Subject};
use crate::liveness::{AliveReason, AnchorState, DeadReason, Evidence, Judgement, Verdict, judge};
use crate::names::{InstanceId, Nonce, Office, ProfileName};
use crate::observe::{LiveCommandLine, needs_command_line, observe};
use crate::store::{EventRecord, HeldOffice, Inner, Store, Tx, lock, with_budget};
use crate::sys::{self, OpenProcessError, ProcessHandle, StartTime};
use crate::wait::{Waited, Waiter};

/// How long a claimant waits for a killed child to be gone. A killed process goes in milliseconds
/// unless it hangs in the kernel (a dead disk), and then nobody else can help either.
const CHILD_GONE_WITHIN: Duration = Duration::from_secs(5);

/// How often one claim looks again because what it had read before belonged to another
/// generation, or a child had to be ended first. More would mean an office that changes hands
/// faster than it can be looked at.
const ATTEMPTS: usize = 8;

/// One claim in so many prunes the history of its office: ids are microseconds, and so as good as
/// random here.
const PRUNE_EVERY: i64 = 8;

/// The answer to a claim.
#[derive(Debug)]
#[must_use = "a granted office is released when its tenure is dropped"]
pub enum Claim {
    /// This process holds the office.
    Granted(Tenure),
    /// Somebody else does, or may; they explain themselves.
    Held(Holder),
}

/// The dead holder whose record a claim ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its recorded pid.
    pub pid: Option<sys::Pid>,
    /// Its profile.
    pub profile: ProfileName,
    /// Its generation.
    pub instance: InstanceId,
    /// Why it counted as dead, in snake case.
    pub reason: &'static str,
}

/// What a new row relies on for its liveness.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// This process' own anchor.
    Own,
    /// This process' own anchor, held for another process that we keep.
    Keeper { pid: sys::Pid, start_time: Option<StartTime> },
    /// The anchor of a keeper that already keeps the recorded process.
    Kept { anchor: String, keeper: sys::Pid, keeper_start_time: Option<StartTime> },
    /// None: only pid and start time tell.
    None,
}

/// Everything a claim needs to know before it opens its transaction.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) office: &'a Office,
    pub(crate) home: Option<&'a Path>,
    pub(crate) origin: Origin,
    pub(crate) subject: &'a Subject,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    pub(crate) heartbeat_every_ms: Option<u64>,
    /// The waiter's own row, which ends when it becomes the owner.
    pub(crate) waiter: Option<InstanceId>,
}

/// A row was inserted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
    pub(crate) evicted: Option<Evicted>,
}

/// What one transaction came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Answer),
    /// To be run outside the transaction, because it is slow; claim again afterwards.
    Errand(Errand),
}

#[derive(Debug)]
pub(crate) enum Answer {
    Granted(Granted),
    /// The recorded process holds the office already, by a row that `--pid` made.
    AlreadyRecorded(Box<Record>),
    Held(Box<(Record, Holder)>),
    /// The holder's store is gone, its anchor is not.
    Orphaned(Holder),
}

#[derive(Debug)]
pub(crate) enum Errand {
    /// The verdict hangs on the command line of this holder.
    ReadCommandLine(Box<Record>),
    /// This holder's `run` is gone, and its command must be ended first.
    EndChild(Box<Record>),
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
    let subject = inner.myself();
    let mut candidate = Candidate {
        office,
        home,
        origin: options.origin,
        subject,
        version: options.version.as_deref(),
        stop_budget_ms: options.stop_budget_ms()?,
        heartbeat_every_ms: options
            .heartbeat_every
            .map(|cadence| u64::try_from(cadence.as_millis()).unwrap_or(u64::MAX)),
        waiter: None,
    };
    let mut waiter: Option<Waiter> = None;
    let deadline = options.wait.deadline();
    let mut last_holder: Option<Holder> = None;
    loop {
        // The deadline holds for the store's locks as well.
        let patience = if options.wait.waits() { deadline.remaining() } else { Duration::MAX };
        let attempted = with_budget(patience, || attempt(store, &candidate, waiter.is_some()));
        let (record, holder) = match attempted {
            Err(error) if error.kind() == ErrorKind::Busy && deadline.has_passed() => {
                return last_holder.map(Claim::Held).ok_or(error);
            }
            Err(error) => return Err(error),
            Ok(attempt) => match attempt {
                Attempt::Granted(tenure) => {
                    if let Some(waiter) = waiter {
                        waiter.granted();
                    }
                    return Ok(Claim::Granted(tenure));
                }
                Attempt::Held(record, holder) => (record, holder),
            },
        };
        if !options.wait.waits() {
            return Ok(Claim::Held(holder));
        }
        let waiting = match &mut waiter {
            Some(waiter) => waiter,
            none => {
                let registered = with_budget(deadline.remaining(), || {
                    Waiter::register(store, office, subject, options, deadline)
                });
                match registered {
                    Ok(waiter) => none.insert(waiter),
                    Err(error) if error.kind() == ErrorKind::Busy && deadline.has_passed() => {
                        return Ok(Claim::Held(holder));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        candidate.waiter = Some(waiting.instance());
        last_holder = Some(holder.clone());
        match waiting.wait_for_change(record.as_deref())? {
            Waited::Changed => {}
            Waited::DeadlinePassed | Waited::Cancelled => return Ok(Claim::Held(holder)),
        }
    }
}

enum Attempt {
    Granted(Tenure),
    Held(Option<Box<Record>>, Holder),
}

/// One claim that does not wait for the holder; retries that a person waits for are refused
/// without being counted again.
fn attempt(store: &Store, candidate: &Candidate<'_>, counted_before: bool) -> Result<Attempt> {
    let inner = &store.inner;
    // Claims of this process are serialised, so that its own fresh row is never taken for another
    // process' one. Order: tenures, then the writer.
    let mut aside = Aside::default();
    for _ in 0..ATTEMPTS {
        let mut tenures = lock(&inner.tenures);
        if let Some(shared) = share(store, &mut tenures, candidate)? {
            return Ok(Attempt::Granted(shared));
        }
        let outcome = inner.write(|tx| {
            let count = if counted_before { Count::No } else { Count::Yes };
            claim_once(tx, inner, candidate, &Attachment::Own, &aside, count)
        })?;
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Errand(errand) => {
                drop(tenures);
                aside.run(errand);
                continue;
            }
        };
        return match answer {
            Answer::Granted(granted) => {
                let held = HeldOffice {
                    instance: granted.instance,
                    nonce: granted.nonce.clone(),
                    claims: 1,
                };
                tenures.insert(candidate.office.clone(), held);
                Ok(Attempt::Granted(Tenure::new(store, candidate.office, granted)))
            }
            Answer::Held(held) => {
                let (record, holder) = *held;
                Ok(Attempt::Held(Some(Box::new(record)), holder))
            }
            Answer::Orphaned(holder) => Ok(Attempt::Held(None, holder)),
            Answer::AlreadyRecorded(record) => Err(Error::internal(format!(
                "instance {} claims to be ours without our nonce",
                record.id
            ))),
        };
    }
    Err(changes_too_fast(candidate.office))
}

pub(crate) fn changes_too_fast(office: &Office) -> Error {
    Error::new(ErrorKind::Busy, format!("{office} changes hands too fast to be claimed"))
        .with_hint("try again")
        .retry_after(1_000)
}

/// What a claim learns and does between two transactions, because it is too slow for one.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    command_line: LiveCommandLine,
    /// The holder whose command could not be ended: it is refused like any other.
    spared: Option<InstanceId>,
}

impl Aside {
    pub(crate) fn run(&mut self, errand: Errand) {
        match errand {
            Errand::ReadCommandLine(record) => {
                self.command_line = LiveCommandLine::read(&record);
            }
            Errand::EndChild(record) => {
                if !kill_child(&record) {
                    self.spared = Some(record.id);
                }
            }
        }
    }
}

/// The tenure this process already has, shared; `None` when it has none, or lost it.
fn share(
    store: &Store,
    tenures: &mut std::collections::HashMap<Office, HeldOffice>,
    candidate: &Candidate<'_>,
) -> Result<Option<Tenure>> {
    let office = candidate.office;
    let Some(held) = tenures.get_mut(office) else { return Ok(None) };
    let live = store.inner.read(|connection| {
        ledger::check_home(connection, office, candidate.home)?;
        instance::by_id(connection, held.instance)
    })?;
    let still_ours =
        live.is_some_and(|record| record.ended_at_ms.is_none() && record.belongs_to(&held.nonce));
    if !still_ours {
        tenures.remove(office);
        return Ok(None);
    }
    held.claims += 1;
    Ok(Some(Tenure::shared(store, office, held)))
}

/// Whether a refusal is recorded. A waiter is refused once, however often it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Yes,
    No,
}

/// The heart of every claim, inside one write transaction.
pub(crate) fn claim_once(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    attachment: &Attachment,
    aside: &Aside,
    count: Count,
) -> Result<Outcome> {
    let office = candidate.office;
    ledger::check_home(tx, office, candidate.home)?;
    // Before any row is ended: what relies on an anchor now loses it with a later claim at the
    // earliest, when this one is certain to have been committed.
    let named = tx.named_anchors()?;
    let live = instance::live(tx, office)?;
    let mut evicted = None;
    let mut abnormal = None;
    if let Some(record) = live {
        let judged = judge_record(inner, &record, &aside.command_line);
        let end = match judged.verdict {
            _ if is_another_life_of_ours(inner, candidate, &record, &judged) => {
                End::new(EndReason::ReExecuted)
            }
            Verdict::Dead(reason) => End::new(EndReason::Dead(reason))
                .detail(format!("found by pid {}", candidate.subject.pid)),
            _ if candidate.origin == Origin::Pid
                && judged.evidence.is_here()
                && is_recorded_for(candidate, &record) =>
            {
                return Ok(Outcome::Answer(Answer::AlreadyRecorded(Box::new(record))));
            }
            _ if needs_command_line(&judged.evidence) && !aside.command_line.is_for(record.id) => {
                return Ok(Outcome::Errand(Errand::ReadCommandLine(Box::new(record))));
            }
            Verdict::Alive(AliveReason::ChildLives) if aside.spared != Some(record.id) => {
                return Ok(Outcome::Errand(Errand::EndChild(Box::new(record))));
            }
            Verdict::Alive(_) | Verdict::Unknown(_) => {
                return refuse(tx, inner, candidate, count, record, &judged);
            }
        };
        abnormal = Some(match end.reason {
            EndReason::Dead(reason) => reason != DeadReason::Rebooted,
            _ => false,
        });
        instance::end_other(tx, record.id, &end)?;
        evicted = Some(Evicted {
            pid: record.pid,
            profile: office.profile.clone(),
            instance: record.id,
            reason: end.reason.as_str(),
        });
    }
    let sweep = sweep(tx, inner, &named)?;
    if let Some(orphan) = sweep.orphans.first() {
        let mut holder = Holder::orphan(office, orphan.pid);
        if count == Count::Yes {
            record_refusal(tx, inner, candidate, None, holder.reason)?;
        }
        holder.retry_after_ms = backoff_ms(tx, inner, candidate)?;
        return Ok(Outcome::Answer(Answer::Orphaned(holder)));
    }
    let after_abnormal_end = match abnormal {
        Some(abnormal) => abnormal,
        None => ledger::last_end_was_abnormal(tx, office)?,
    };
    let granted = insert(tx, inner, candidate, attachment, evicted, after_abnormal_end)?;
    sweep.remove_garbage();
    let is_held =
        |anchor: &str| anchor::probe(&inner.location.anchors.join(anchor)) == AnchorState::Held;
    let death =
        |record: &Record| match judge_record(inner, record, &LiveCommandLine::not_read()).verdict {
            Verdict::Dead(reason) => Some(reason),
            Verdict::Alive(_) | Verdict::Unknown(_) => None,
        };
    instance::sweep_without_office(tx, death, is_held)?;
    if granted.instance.as_i64() % PRUNE_EVERY == 0 {
        instance::prune_history(tx, office, is_held)?;
    }
    Ok(Outcome::Answer(Answer::Granted(granted)))
}

/// Looks at a recorded owner and judges it.
pub(crate) fn judge_record(
    inner: &Inner,
    record: &Record,
    command_line: &LiveCommandLine,
) -> Judgement {
    judge(observe(record, inner.observer(), &inner.location.anchors, command_line, inner.matcher()))
}

/// The process executed itself anew (same pid, same start time, its anchor released by the exec),
/// or lost track of a grant that was committed all the same (the row names our very anchor).
fn is_another_life_of_ours(
    inner: &Inner,
    candidate: &Candidate<'_>,
    record: &Record,
    judged: &Judgement,
) -> bool {
    if candidate.origin == Origin::Pid || record.pid != Some(candidate.subject.pid) {
        return false;
    }
    let Evidence { anchor, start_time, .. } = judged.evidence;
    let names_our_anchor =
        inner.own_anchor().is_some_and(|anchor| record.anchor.as_deref() == Some(anchor.name()));
    let re_executed = anchor == AnchorState::Free
        && judged.evidence.is_here()
        && start_time == crate::liveness::StartTimeMatch::Equal
        && record.child_pid.is_none();
    names_our_anchor || re_executed
}

/// Whether a live row made by `--pid` is about the very process that asks again.
fn is_recorded_for(candidate: &Candidate<'_>, record: &Record) -> bool {
    record.is_pid
        && record.pid == Some(candidate.subject.pid)
        && record.start_time.is_some()
        && record.start_time == candidate.subject.start_time
}

fn refuse(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    count: Count,
    record: Record,
    judged: &Judgement,
) -> Result<Outcome> {
    let mut holder = Holder::of(&record, candidate.office, judged);
    if count == Count::Yes {
        record_refusal(tx, inner, candidate, Some(record.id), holder.reason)?;
    }
    holder.retry_after_ms = backoff_ms(tx, inner, candidate)?;
    Ok(Outcome::Answer(Answer::Held(Box::new((record, holder)))))
}

fn record_refusal(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    holder: Option<InstanceId>,
    reason: &str,
) -> Result<()> {
    ledger::record_start(
        tx,
        candidate.office,
        candidate.subject,
        inner.observer(),
        inner.clock().boot_ms(),
        Start::Refused { holder, reason },
    )
}

fn backoff_ms(tx: &Tx<'_>, inner: &Inner, candidate: &Candidate<'_>) -> Result<Option<u64>> {
    let Some(party) = &candidate.subject.party else { return Ok(None) };
    let now = inner.clock().boot_ms();
    let boot_id = inner.observer().boot_id.as_deref();
    let storm = storm::of(tx, candidate.office, party, boot_id, now)?;
    Ok(storm.map(|storm| storm.remaining_ms(now)))
}

/// Looks for anchors without a row: orphans stand in the way, garbage is collected.
pub(super) fn sweep(tx: &Tx<'_>, inner: &Inner, named: &HashSet<String>) -> Result<Sweep> {
    let own = inner.own_anchor();
    anchor::sweep(
        &inner.location.anchors,
        inner.store_uuid()?,
        named,
        own.as_ref().map(|anchor| anchor.name()),
        |name| instance::names_anchor(tx, name),
    )
}

fn insert(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    attachment: &Attachment,
    evicted: Option<Evicted>,
    after_abnormal_end: bool,
) -> Result<Granted> {
    let (anchor, keeper) = match attachment {
        Attachment::Own => (Some(inner.anchor(tx)?.name().to_owned()), None),
        Attachment::Keeper { pid, start_time } => {
            (Some(inner.anchor(tx)?.name().to_owned()), Some((*pid, *start_time)))
        }
        Attachment::Kept { anchor, keeper, keeper_start_time } => {
            (Some(anchor.clone()), Some((*keeper, *keeper_start_time)))
        }
        Attachment::None => (None, None),
    };
    ledger::bind_home(tx, candidate.office, candidate.home)?;
    let nonce = Nonce::random()?;
    let instance = NewInstance {
        profile: Some(&candidate.office.profile),
        kind: Some(&candidate.office.kind),
        origin: candidate.origin,
        subject: candidate.subject,
        observer: inner.observer(),
        nonce: &nonce,
        anchor: anchor.as_deref(),
        keeper,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        heartbeat_every_ms: candidate.heartbeat_every_ms,
    }
    .insert(tx)?;
    if let Some(waiter) = candidate.waiter {
        instance::end_other(tx, waiter, &End::new(EndReason::Released))?;
    }
    ledger::record_start(
        tx,
        candidate.office,
        candidate.subject,
        inner.observer(),
        inner.clock().boot_ms(),
        Start::Granted { instance, after_abnormal_end },
    )?;
    tx.record(&EventRecord {
        event: "office_claimed",
        office: Some(candidate.office),
        instance: Some(instance),
        pid: Some(candidate.subject.pid),
        detail: evicted.as_ref().map(|evicted| {
            json!({"evicted": {"instance": evicted.instance.as_i64(), "reason": evicted.reason}})
        }),
    })?;
    Ok(Granted { instance, nonce, evicted })
}

/// Ends the command that a killed `run` left behind, proven by its start time on a pinned process,
/// and waits until it is gone. False when it lives on, because we may not or cannot end it.
fn kill_child(record: &Record) -> bool {
    let (Some(pid), Some(start_time)) = (record.child_pid, record.child_start_time) else {
        return false;
    };
    if is_ancestor(pid) {
        return false;
    }
    let handle = match ProcessHandle::open(pid) {
        Ok(handle) => handle,
        Err(OpenProcessError::Gone) => return true,
        Err(OpenProcessError::Denied | OpenProcessError::Other(_)) => return false,
    };
    match handle.start_time() {
        Some(live) if live == start_time => {}
        // The pid was recycled: the child is gone, and this is somebody else's process.
        Some(_) => return true,
        None => return handle.has_ended(),
    }
    tracing::warn!(pid, "ending the command that a killed run left behind");
    match handle.kill() {
        Ok(()) => handle.wait_ended(CHILD_GONE_WITHIN),
        Err(error) => {
            tracing::warn!(pid, %error, "cannot end it");
            handle.has_ended()
        }
    }
}

/// Whether `pid` started this process: the command that a killed `run` left behind may be the very
/// script that asks for the office now.
fn is_ancestor(pid: sys::Pid) -> bool {
    /// No real chain of parents is longer; a loop in a racing process table is.
    const GENERATIONS_MAX: usize = 1_024;
    std::iter::successors(Some(std::process::id()), |pid| sys::process_facts(*pid).parent)
        .take(GENERATIONS_MAX)
        .any(|ancestor| ancestor == pid)
}
