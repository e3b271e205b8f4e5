//! Planned endings of somebody else's tenure: taking its office over, stopping it, having it start
//! anew.
//!
//! All of them first write down what they are about to do, and reserve the office, in one
//! transaction; only then is anybody signalled. Whoever dies on the way leaves a reservation that
//! counts no more, and an owner that was asked to end or was not.

mod pursuit;
mod restart;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

pub use pursuit::LeftOver;
pub(crate) use pursuit::trust_in;
use pursuit::{Asking, Insistence, Pursued, Pursuit};
pub use restart::{Restart, RestartOptions};
pub use stop::{StopOptions, StopOutcome, StopReport};

use crate::claimant::{self, Aside, Attachment, Count, Errand, Examined, examine, judge_record};
use crate::error::Result;
use crate::holder::{self, Holder};
use crate::instance::{self, Record};
use crate::legacy;
use crate::liveness::{Evidence, Judgement, Lease, Verdict};
use crate::lock_table;
use crate::marker::{self, millis};
use crate::marker_table::{self, Marker, NewMarker};
use crate::names::{InstanceId, LockName, MarkerName, Nonce, Office, ProfileName, Wanted};
use crate::observe::LiveCommandLine;
use crate::office::{
    Candidate, Claim, Outcome, check_homes_of_both, claim_once, claim_reserved, refuse_candidate,
};
use crate::reservation::{self, Purpose};
use crate::scoped;
use crate::standing::Force;
use crate::stop_budget::{self, KILL_GRACE};
use crate::store::{EventRecord, Inner, Store, Tx};
use crate::sys::{Pid, Unproven};
use crate::wait::{Cancel, Obstacle, WaitingAs, WaitingRow, Watch};

/// How to take over an office that a live process holds, see [`ClaimOptions::replace`].
///
/// [`ClaimOptions::replace`]: crate::ClaimOptions::replace
#[derive(Clone, Debug, Default)]
pub struct Replace {
    pub(crate) force: bool,
    pub(crate) reap: bool,
    pub(crate) across_homes: bool,
}

impl Replace {
    /// The holder is asked to end, given the time that it said it may take, and killed after that.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also when our party was superseded: a person decides. Without it, whoever was replaced by
    /// another party does not replace that one in turn.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Also ends the processes that the holder had started and that outlive it.
    #[must_use]
    pub fn reap(mut self) -> Self {
        self.reap = true;
        self
    }

    /// Also when the profile is bound to another home, which it leaves for ours, and from a profile of another
    /// home that stands for the same directory of an older gateway.
    #[must_use]
    pub fn across_homes(mut self) -> Self {
        self.across_homes = true;
        self
    }
}

/// Whose place a takeover took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replaced {
    /// Its recorded pid.
    pub pid: Option<Pid>,
    /// Its profile: another one than ours, if both stand for the directory of one older gateway.
    pub profile: Option<ProfileName>,
    /// Its generation.
    pub instance: InstanceId,
    /// Whether it had to be killed, because it did not end in its time.
    pub killed: bool,
    /// What it had started and that outlived it.
    pub left_over: Vec<LeftOver>,
}

/// An owner to be brought to an end.
#[derive(Debug)]
struct Target {
    record: Record,
    /// What is wanted of it.
    wanted: Wanted,
    /// What it had started before it was asked; `None` while nobody has looked.
    children: Option<Vec<LeftOver>>,
}

impl Target {
    fn new(record: Record, wanted: Wanted, seen: &Evidence) -> Self {
        // The numbers of another namespace are those of strangers here.
        let children = if seen.is_here() { None } else { Some(Vec::new()) };
        Self { record, wanted, children }
    }

    fn budget(&self) -> Duration {
        stop_budget::of(&self.record)
    }
}

/// A takeover that is written down and reserved, and that nobody was told of yet.
#[derive(Debug)]
pub(crate) struct Plan {
    row: WaitingRow,
    targets: Vec<Target>,
}

/// What a successor is to do beside claiming.
#[derive(Clone, Debug)]
pub(crate) struct Succession {
    /// The owners that were asked to end.
    pub(crate) replaced: Vec<InstanceId>,
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Step {
    Claimed(Outcome),
    Reserved(Reserved),
}

/// A reservation inside its transaction; it becomes a [`Plan`] with the commit.
#[derive(Debug)]
pub(crate) struct Reserved {
    instance: InstanceId,
    nonce: Nonce,
    targets: Vec<Target>,
}

impl Reserved {
    pub(crate) fn plan(self, inner: &Arc<Inner>) -> Plan {
        let Self { instance, nonce, targets } = self;
        Plan { row: WaitingRow::new(inner, instance, nonce), targets }
    }
}

/// A live holder refused the claim: reserves the office, and all locks that come with it, and writes
/// down who is asked to end. Refuses if that may not be.
pub(crate) fn reserve(
    tx: &Tx<'_>,
    inner: &Arc<Inner>,
    candidate: &Candidate<'_>,
    replace: &Replace,
    obstacle: Box<Obstacle>,
    aside: &Aside,
    count: Count,
) -> Result<Step> {
    let refuse = |obstacle: Box<Obstacle>| {
        refuse_candidate(tx, inner, candidate, count, obstacle).map(Step::Claimed)
    };
    // Nobody on record, or somebody who was first.
    if obstacle.watch.is_none() || obstacle.holder.reason == holder::RESERVED {
        return refuse(obstacle);
    }
    let survey = Survey { tx, inner, candidate, replace, aside };
    let mut targets: Vec<Target> = Vec::new();
    let wanted = std::iter::once(None).chain(candidate.locks.iter().map(Some));
    for wanted in wanted {
        let found = match wanted {
            None => survey.holder_of_office()?,
            Some(request) => survey.holder_of_lock(request.name(), &targets)?,
        };
        match found {
            Found::Nobody => {}
            Found::Target(target) => targets.push(*target),
            Found::Refused(obstacle) => return refuse(obstacle),
            Found::Errand(errand) => return Ok(Step::Claimed(Outcome::Errand(errand))),
        }
    }
    if let Some(record) = legacy::row_in_the_way(tx, candidate.office, candidate.legacy_home)?
        && targets.iter().all(|target| target.record.id != record.id)
        && let Some(office) = record.office()
    {
        if !replace.across_homes {
            check_homes_of_both(tx, candidate.office, candidate.home, &office)?;
        }
        match survey.holder(record, &office)? {
            Found::Nobody => {}
            Found::Target(target) => targets.push(*target),
            Found::Refused(obstacle) => return refuse(obstacle),
            Found::Errand(errand) => return Ok(Step::Claimed(Outcome::Errand(errand))),
        }
    }
    if targets.is_empty() {
        // Whoever stood in the way has died since, in this very instant.
        let outcome = claim_once(tx, inner, candidate, &Attachment::Own, aside, count)?;
        return Ok(Step::Claimed(outcome));
    }
    // Before anybody is asked: a `run` may follow its marker at once, and then they are nobody's.
    for target in targets.iter_mut().filter(|target| target.children.is_none()) {
        let Some(children) = aside.children(target.record.id) else {
            let errand = Errand::ListChildren(Box::new(target.record.clone()));
            return Ok(Step::Claimed(Outcome::Errand(errand)));
        };
        target.children = Some(children);
    }
    write_down(tx, inner, candidate, targets).map(Step::Reserved)
}

/// A look at everybody who holds what a taker wants.
struct Survey<'a> {
    tx: &'a Tx<'a>,
    inner: &'a Inner,
    candidate: &'a Candidate<'a>,
    replace: &'a Replace,
    aside: &'a Aside,
}

/// Who holds one of the things that a taker wants.
enum Found {
    Nobody,
    /// It is to be asked to end.
    Target(Box<Target>),
    /// It may not be asked.
    Refused(Box<Obstacle>),
    Errand(Errand),
}

impl Found {
    fn refused(holder: Holder, record: Record, fence: i64) -> Self {
        let watch = Some(Watch { record, fence });
        Self::Refused(Box::new(Obstacle { holder: Box::new(holder), watch }))
    }
}

impl Survey<'_> {
    fn holder_of_office(&self) -> Result<Found> {
        let office = self.candidate.office;
        match instance::live(self.tx, office)? {
            Some(record) => self.holder(record, office),
            None => Ok(Found::Nobody),
        }
    }

    /// The holder of `office`, which may be that of another profile with the same directory of an older
    /// program.
    fn holder(&self, record: Record, office: &Office) -> Result<Found> {
        let wanted = Wanted::Office(office.clone());
        let judged = match self.examine(&record, Lease::None) {
            Examined::InTheWay(judged) => judged,
            Examined::Errand(errand) => return Ok(Found::Errand(errand)),
            Examined::Over(_) | Examined::Same => return Ok(Found::Nobody),
        };
        if let Some(held) = claimant::reserved_by_another(self.tx, self.inner, &wanted, None)? {
            return Ok(Found::Refused(held));
        }
        if let Some(asked) = InProgress::of(self.tx, self.inner, record.id)? {
            return Ok(asked.refused(&wanted));
        }
        if self.is_superseded(&record)? {
            let mut holder = Holder::of(&record, office, &judged);
            holder.add_what_it_said(self.tx, self.inner, &record)?;
            let fence = record.id.as_i64();
            let holder = Holder { reason: holder::SUPERSEDED, ..holder };
            return Ok(Found::refused(holder, record, fence));
        }
        Ok(Found::Target(Box::new(Target::new(record, wanted, &judged.evidence))))
    }

    /// Of a lock whose holder is not among the `targets` already.
    fn holder_of_lock(&self, name: &LockName, targets: &[Target]) -> Result<Found> {
        let wanted = Wanted::Lock(name.clone());
        if let Some(held) = claimant::reserved_by_another(self.tx, self.inner, &wanted, None)? {
            return Ok(Found::Refused(held));
        }
        let Some(row) = lock_table::by_name(self.tx, name)? else { return Ok(Found::Nobody) };
        if targets.iter().any(|target| target.record.id == row.instance) {
            return Ok(Found::Nobody);
        }
        let record = instance::by_id(self.tx, row.instance)?.filter(|it| it.ended_at_ms.is_none());
        let Some(record) = record else { return Ok(Found::Nobody) };
        let lease = row.lease(self.inner.observer(), self.inner.clock().boot_ms());
        let judged = match self.examine(&record, lease) {
            Examined::InTheWay(judged) => judged,
            Examined::Errand(errand) => return Ok(Found::Errand(errand)),
            Examined::Over(_) | Examined::Same => return Ok(Found::Nobody),
        };
        let mut holder = Holder::of_lock(&record, &row, &judged);
        holder.add_what_it_said(self.tx, self.inner, &record)?;
        // Another profile's is never taken: it has a home and a person of its own.
        if record.profile.as_ref() != Some(&self.candidate.office.profile) {
            return Ok(Found::refused(holder, record, row.fence));
        }
        if let Some(asked) = InProgress::of(self.tx, self.inner, record.id)? {
            return Ok(asked.refused(&wanted));
        }
        if self.is_superseded(&record)? {
            let holder = Holder { reason: holder::SUPERSEDED, ..holder };
            return Ok(Found::refused(holder, record, row.fence));
        }
        Ok(Found::Target(Box::new(Target::new(record, wanted, &judged.evidence))))
    }

    fn examine(&self, record: &Record, lease: Lease) -> Examined {
        examine(self.inner, self.candidate.claimant(), record, lease, self.aside)
    }

    fn is_superseded(&self, record: &Record) -> Result<bool> {
        match &self.candidate.subject.party {
            Some(party) if !self.replace.force => {
                reservation::is_superseded(self.tx, record.id, party)
            }
            Some(_) | None => Ok(false),
        }
    }
}

fn write_down(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    targets: Vec<Target>,
) -> Result<Reserved> {
    let office = Wanted::Office(candidate.office.clone());
    let argv = scoped::masked(candidate.subject, candidate.locks);
    let as_whom = WaitingAs {
        profile: Some(&candidate.office.profile),
        origin: candidate.origin,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        argv: &argv,
    };
    let nonce = Nonce::random()?;
    let instance = WaitingRow::insert(tx, inner, &nonce, &office, &as_whom)?;
    if let Some(waiter) = candidate.waiter {
        instance::end_other(tx, waiter, &instance::End::new(instance::EndReason::Released))?;
    }
    let longest = targets.iter().map(Target::budget).max().unwrap_or_default();
    let deadline = stop_budget::deadline(longest);
    let locks = candidate.locks.iter().map(|request| Wanted::Lock(request.name().clone()));
    // One of another profile must not come back before we are there.
    let others = targets.iter().map(|target| target.wanted.clone());
    let others = others.filter(|wanted| matches!(wanted, Wanted::Office(_)) && *wanted != office);
    for wanted in locks.chain(others).chain([office.clone()]) {
        reservation::make(tx, &wanted, instance, Purpose::Takeover, millis(deadline))?;
    }
    let by = marker::describe_self(inner, &argv);
    for target in &targets {
        let ttl = stop_budget::marker_lives(deadline);
        let name = MarkerName::takeover();
        write_request(tx, inner, &target.record, &name, &by, Some(instance), None, ttl)?;
    }
    tx.record(&EventRecord {
        event: "takeover_begun",
        office: Some(candidate.office),
        instance: Some(instance),
        pid: Some(candidate.subject.pid),
        detail: Some(json!({
            "from": targets.iter().map(|it| it.record.id.as_i64()).collect::<Vec<_>>(),
        })),
        ..EventRecord::default()
    })?;
    Ok(Reserved { instance, nonce, targets })
}

/// Writes the marker of a request to the owner of `record`; `None` when nobody could read it.
#[allow(clippy::too_many_arguments, reason = "the columns of one row")]
fn write_request(
    tx: &Tx<'_>,
    inner: &Inner,
    record: &Record,
    name: &MarkerName,
    by: &str,
    requester: Option<InstanceId>,
    reason: Option<&str>,
    ttl: Duration,
) -> Result<Option<Marker>> {
    let Some((instance, process)) = NewMarker::target(record) else { return Ok(None) };
    let observer = inner.observer();
    let new = NewMarker {
        name,
        instance: Some(instance),
        process: &process,
        by,
        by_pid: observer.pid,
        by_uid: observer.uid,
        requester,
        reason,
        ttl_ms: millis(ttl),
    };
    new.write(tx).map(|written| Some(written.marker))
}

/// Brings the owners to an end, and claims.
pub(crate) fn carry_out(
    store: &Store,
    candidate: &Candidate<'_>,
    replace: &Replace,
    plan: Plan,
    cancel: &Cancel,
) -> Result<Claim> {
    let Plan { mut row, targets } = plan;
    let inner = &store.inner;
    // All of them at once: each takes its own time, and they take it together.
    let force = if replace.force { Force::Yes } else { Force::No };
    let pursuits: Vec<Pursuit<'_>> = targets
        .iter()
        .map(|target| {
            let budget = target.budget();
            Pursuit::begin(inner, target, budget, KILL_GRACE, Asking::Ask, force)
        })
        .collect();
    let mut killed = Vec::new();
    for (target, pursuit) in targets.iter().zip(&pursuits) {
        match pursuit.finish(Insistence::Kill, cancel) {
            Pursued::Over { killed: was_killed } => killed.push(was_killed),
            Pursued::Cancelled | Pursued::TimedOut => {
                return Ok(Claim::Held(still_there(inner, target, holder::TIMED_OUT)?));
            }
            Pursued::CannotSignal(why) => {
                tracing::warn!(pid = target.record.pid, %why, "cannot end the holder");
                let mut holder = still_there(inner, target, holder::CANNOT_SIGNAL)?;
                holder.is_our_ancestor = why == Unproven::Ancestor;
                return Ok(Claim::Held(holder));
            }
        }
    }
    let mut left_over: Vec<LeftOver> = pursuits.into_iter().flat_map(Pursuit::left_over).collect();
    if replace.reap {
        left_over = LeftOver::reap(left_over, inner.trust());
    }
    let succession =
        Succession { replaced: targets.iter().map(|target| target.record.id).collect() };
    let candidate = Candidate {
        waiter: Some(row.instance),
        succession: Some(&succession),
        ..candidate.clone()
    };
    Ok(match claim_reserved(store, &candidate)? {
        Claim::Granted(tenure) => {
            row.has_ended = true;
            let first = &targets[0].record;
            Claim::Granted(tenure.in_the_place_of(Replaced {
                pid: first.pid,
                profile: first.profile.clone(),
                instance: first.id,
                killed: killed.contains(&true),
                left_over,
            }))
        }
        held @ Claim::Held(_) => held,
    })
}

/// Whoever was to be replaced, and why it was not.
fn still_there(inner: &Inner, target: &Target, reason: &'static str) -> Result<Box<Holder>> {
    let judged = claimant::look(inner, &target.record, Lease::None);
    let mut holder = match &target.wanted {
        Wanted::Office(office) => Holder::of(&target.record, office, &judged),
        Wanted::Lock(name) => {
            match inner.read(|connection| lock_table::by_name(connection, name))? {
                Some(row) => Holder::of_lock(&target.record, &row, &judged),
                None => Holder {
                    wanted: target.wanted.clone(),
                    ..Holder::of(&target.record, &Office::default(), &judged)
                },
            }
        }
    };
    inner.read(|connection| holder.add_what_it_said(connection, inner, &target.record))?;
    Ok(Box::new(Holder { reason, ..holder }))
}

/// An end that somebody has asked of an instance, who lives and waits for it.
pub(crate) struct InProgress {
    pub(crate) marker: Marker,
    requester: Record,
    judged: Judgement,
}

impl InProgress {
    pub(crate) fn of(
        connection: &Connection,
        inner: &Inner,
        instance: InstanceId,
    ) -> Result<Option<Self>> {
        if !marker_table::exists(connection)? {
            return Ok(None);
        }
        let asked = marker_table::asked_end(connection, inner.boot_time(), instance)?;
        let Some((marker, id)) = asked.and_then(|marker| marker.requester.map(|id| (marker, id)))
        else {
            return Ok(None);
        };
        let requester = instance::by_id(connection, id)?.filter(|it| it.ended_at_ms.is_none());
        let Some(requester) = requester else { return Ok(None) };
        let judged = judge_record(inner, &requester, Lease::None, &LiveCommandLine::not_read());
        let is_dead = matches!(judged.verdict, Verdict::Dead(_));
        Ok((!is_dead).then_some(Self { marker, requester, judged }))
    }

    /// Who asked for it, as what keeps others from it.
    pub(crate) fn holder(&self, wanted: &Wanted) -> Holder {
        /// Nobody knows how long it will take; looking again costs nothing.
        const LOOK_AGAIN_MS: u64 = 1_000;
        Holder::reserved(wanted, &self.requester, &self.judged, LOOK_AGAIN_MS)
    }

    fn refused(self, wanted: &Wanted) -> Found {
        let holder = self.holder(wanted);
        let fence = self.requester.id.as_i64();
        Found::refused(holder, self.requester, fence)
    }
}

/// What is asked of a `run`.
#[derive(Debug)]
pub(crate) enum Request {
    /// To end, by somebody who lives and waits for it.
    End(Marker),
    /// To start its command anew.
    Restart(Marker),
}

/// What is asked of the holder of an office by a marker alone: it acts on it without a signal, which
/// may never come. A marker that somebody wrote by hand announces a signal, and asks for nothing.
pub(crate) fn request_to(inner: &Inner, instance: InstanceId) -> Result<Option<Request>> {
    inner.read(|connection| {
        if let Some(asked) = InProgress::of(connection, inner, instance)? {
            return Ok(Some(Request::End(asked.marker)));
        }
        if !marker_table::exists(connection)? {
            return Ok(None);
        }
        let now = inner.boot_time();
        let restart = marker_table::unserved_restart(connection, now, instance)?;
        Ok(restart.map(Request::Restart))
    })
}

/// The takeover or planned stop that was asked of a generation, whoever wrote it.
pub(crate) fn asked_to_end(inner: &Inner, instance: InstanceId) -> Result<Option<Marker>> {
    inner.read(|connection| {
        if !marker_table::exists(connection)? {
            return Ok(None);
        }
        marker_table::asked_end(connection, inner.boot_time(), instance)
    })
}
