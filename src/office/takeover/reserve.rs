//! Writes down what is about to be done to a holder, and keeps its office for it.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;

use crate::claim::obstacle::Watch;
use crate::claim::waiting_row::{WaitingAs, WaitingRow};
use crate::claim::{
    Attachment, Count, Errand, Examined, Lookups, Obstacle, examine, obstacle, ours,
};
use crate::clock::millis;
use crate::environment::{Fault, planted};
use crate::liveness::{Judgement, Lease};
use crate::names::MarkerName;
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::claim::insert::refuse_candidate;
use crate::office::claim::once::claim_once;
use crate::office::options::Replace;
use crate::office::takeover::{Reserved, TakeoverStep, TakeoverTarget};
use crate::owner::{InProgress, ending, judgement};
use crate::records::profiles::check_homes_of_both;
use crate::records::reservations::Purpose;
use crate::records::{EventRecord, LockRow, Record, instances, locks, reservations};
use crate::scoped::{slots, survey};
use crate::store::{Inner, Tx, ourselves};
use crate::{Holder, LockRequest, Nonce, Office, Reason, Result, Wanted, owner, stop_budget};

/// A live holder refused the claim: reserves the office, and all locks that come with it, and
/// writes down who is asked to end. Refuses if that may not be.
pub(crate) fn reserve(
    tx: &Tx<'_>,
    inner: &Arc<Inner>,
    candidate: &Candidate<'_>,
    replace: &Replace,
    obstacle: Box<Obstacle>,
    aside: &Lookups,
    count: Count,
) -> Result<TakeoverStep> {
    let refuse = |obstacle: Box<Obstacle>| {
        refuse_candidate(tx, inner, candidate, count, obstacle).map(TakeoverStep::Claimed)
    };
    // Nobody on record, or somebody who was first.
    if obstacle.watch.is_none() || obstacle.holder.reason == Reason::Reserved {
        return refuse(obstacle);
    }
    let left = HashSet::new();
    let survey = Survey { tx, inner, candidate, replace, aside, left: &left };
    let mut targets: Vec<TakeoverTarget> = Vec::new();
    let wanted = std::iter::once(None).chain(candidate.locks.iter().map(Some));
    for wanted in wanted {
        let found = match wanted {
            None => survey.holder_of_office()?,
            Some(request) => survey.holder_of_lock(request, &targets)?,
        };
        match found {
            Inquiry::Nobody => {}
            Inquiry::Target(target) => targets.push(*target),
            Inquiry::Refused(obstacle) => return refuse(obstacle),
            Inquiry::Errand(errand) => {
                return Ok(TakeoverStep::Claimed(ClaimOutcome::Errand(errand)));
            }
        }
    }
    if let Some(record) = ours::row_in_the_way(tx, candidate.office, candidate.legacy_home)?
        && targets.iter().all(|target| target.record.id != record.id)
        && let Some(office) = record.office()
    {
        if !replace.across_homes {
            check_homes_of_both(tx, candidate.office, candidate.home, &office)?;
        }
        match survey.holder(record, &office)? {
            Inquiry::Nobody => {}
            Inquiry::Target(target) => targets.push(*target),
            Inquiry::Refused(obstacle) => return refuse(obstacle),
            Inquiry::Errand(errand) => {
                return Ok(TakeoverStep::Claimed(ClaimOutcome::Errand(errand)));
            }
        }
    }
    if targets.is_empty() {
        // Whoever stood in the way has died since, in this very instant.
        let outcome = claim_once(tx, inner, candidate, &Attachment::Own, aside, count)?;
        return Ok(TakeoverStep::Claimed(outcome));
    }
    if let Some(errand) = children_to_list(&mut targets, aside) {
        return Ok(TakeoverStep::Claimed(ClaimOutcome::Errand(errand)));
    }
    let office = Wanted::Office(candidate.office.clone());
    write_down(tx, inner, candidate, &office, targets).map(TakeoverStep::Reserved)
}

/// What the targets have started, before anybody is asked: a `run` may follow its marker at once,
/// and then they are nobody's. What has to be looked at first.
pub(super) fn children_to_list(targets: &mut [TakeoverTarget], aside: &Lookups) -> Option<Errand> {
    for target in targets.iter_mut().filter(|target| target.children.is_none()) {
        let Some(children) = aside.children(target.record.id) else {
            return Some(Errand::ListChildren(Box::new(target.record.clone())));
        };
        target.children = Some(children);
    }
    None
}

/// A holder of a lock, and what is known of it.
type Met = (LockRow, Record, Judgement);

/// A look at everybody who holds what a taker wants.
pub(super) struct Survey<'a> {
    pub(super) tx: &'a Tx<'a>,
    pub(super) inner: &'a Inner,
    pub(super) candidate: &'a Candidate<'a>,
    pub(super) replace: &'a Replace,
    pub(super) aside: &'a Lookups,
    /// The locks that the program before this one left to the claim, by their fences.
    pub(super) left: &'a HashSet<i64>,
}

/// Who holds one of the things that a taker wants.
pub(super) enum Inquiry {
    Nobody,
    /// It is to be asked to end.
    Target(Box<TakeoverTarget>),
    /// It may not be asked.
    Refused(Box<Obstacle>),
    Errand(Errand),
}

impl Inquiry {
    fn refused(holder: Holder, record: Record, fence: i64) -> Self {
        let watch = Some(Watch::new(record, fence));
        Self::Refused(Box::new(Obstacle { holder: Box::new(holder), watch }))
    }
}

impl Survey<'_> {
    fn holder_of_office(&self) -> Result<Inquiry> {
        let office = self.candidate.office;
        match owner::live(self.tx, office)? {
            Some(record) => self.holder(record, office),
            None => Ok(Inquiry::Nobody),
        }
    }

    /// The holder of `office`, which may be that of another profile with the same directory of an
    /// older program.
    fn holder(&self, record: Record, office: &Office) -> Result<Inquiry> {
        let wanted = Wanted::Office(office.clone());
        let judged = match self.examine(&record, Lease::None) {
            Examined::InTheWay(judged) => judged,
            Examined::Errand(errand) => return Ok(Inquiry::Errand(errand)),
            Examined::Over(_) | Examined::Same => return Ok(Inquiry::Nobody),
        };
        if let Some(held) = obstacle::reserved_by_another(self.tx, self.inner, &wanted, None)? {
            return Ok(Inquiry::Refused(held));
        }
        if let Some(asked) = InProgress::of(self.tx, self.inner, record.id)? {
            return Ok(asked.refused(&wanted));
        }
        if self.is_superseded(&record)? {
            let mut holder = Holder::of(&record, office, &judged);
            holder.add_what_it_said(self.tx, self.inner, &record)?;
            let fence = record.id.as_i64();
            let holder = Holder { reason: Reason::Superseded, ..holder };
            return Ok(Inquiry::refused(holder, record, fence));
        }
        Ok(Inquiry::Target(Box::new(TakeoverTarget::new(record, wanted, &judged.evidence))))
    }

    /// Of a lock whose holder is not among the `targets` already.
    pub(super) fn holder_of_lock(
        &self,
        request: &LockRequest,
        targets: &[TakeoverTarget],
    ) -> Result<Inquiry> {
        let name = request.name();
        let wanted = Wanted::Lock(name.clone());
        if let Some(held) = obstacle::reserved_by_another(self.tx, self.inner, &wanted, None)? {
            return Ok(Inquiry::Refused(held));
        }
        let mut rows = locks::all_of(self.tx, name)?;
        rows.retain(|row| targets.iter().all(|target| target.record.id != row.instance));
        // By their slots, the lowest last, and then our own.
        let (mut ours, mut living) = (Vec::new(), Vec::new());
        while let Some(row) = rows.pop() {
            let record = instances::by_id(self.tx, row.instance)?.filter(Record::is_live);
            let Some(record) = record else { continue };
            // Nobody ends itself. The claim grants what is shared, or was left to it, and is
            // refused by whatever else is its own: nobody is to be ended for that.
            if self.candidate.ours.contains(&row.instance) {
                let is_shared = row.slot.is_none()
                    && request.slots.is_none()
                    && !survey::is_of_command(self.inner, self.candidate.origin, &record);
                if !is_shared && !self.left.contains(&row.fence) {
                    let judged = judgement(self.inner, &record);
                    ours.push((row, record, judged));
                }
                continue;
            }
            let lease = row.lease(self.inner.observer(), self.inner.clock().boot_ms());
            match self.examine(&record, lease) {
                Examined::InTheWay(judged) => living.push((row, record, judged)),
                Examined::Errand(errand) => return Ok(Inquiry::Errand(errand)),
                Examined::Over(_) | Examined::Same => {}
            }
        }
        let is_ours = !ours.is_empty();
        living.extend(ours);
        if slots::has_room(request, living.iter().map(|(row, ..)| row)) {
            return Ok(Inquiry::Nobody);
        }
        let Some(met) = living.pop() else { return Ok(Inquiry::Nobody) };
        let (row, record, judged) = &met;
        // Another profile's is never taken: it has a home and a person of its own. Nor is that of
        // one among several: each of them has as good a right.
        if is_ours
            || record.profile.as_ref() != Some(&self.candidate.office.profile)
            || row.slot.is_some_and(|slot| slot.of > 1)
            || !living.is_empty()
        {
            living.reverse();
            return self.refused_for_lock(met, living);
        }
        if let Some(asked) = InProgress::of(self.tx, self.inner, record.id)? {
            return Ok(asked.refused(&wanted));
        }
        if self.is_superseded(record)? {
            let holder = self.holder_of(&met)?;
            let fence = locks::watched_fence(self.tx, row)?;
            let holder = Holder { reason: Reason::Superseded, ..holder };
            return Ok(Inquiry::refused(holder, met.1, fence));
        }
        let target = TakeoverTarget::new(record.clone(), wanted, &judged.evidence);
        Ok(Inquiry::Target(Box::new(target)))
    }

    /// The claim is refused by `met`, and by all `others` as well.
    fn refused_for_lock(&self, met: Met, others: Vec<Met>) -> Result<Inquiry> {
        let mut holder = Box::new(self.holder_of(&met)?);
        holder.others = others.iter().map(|met| self.holder_of(met)).collect::<Result<_>>()?;
        let (row, record, _) = met;
        let fence = locks::watched_fence(self.tx, &row)?;
        let others = others.into_iter().map(|(_, record, _)| record).collect();
        let watch = Some(Watch { record, others, fence });
        Ok(Inquiry::Refused(Box::new(Obstacle { holder, watch })))
    }

    fn holder_of(&self, (row, record, judged): &Met) -> Result<Holder> {
        let mut holder = Holder::of_lock(record, row, judged);
        holder.is_this_process = self.candidate.ours.contains(&record.id)
            && record.pid == Some(self.inner.observer().pid);
        holder.add_what_it_said(self.tx, self.inner, record)?;
        Ok(holder)
    }

    fn examine(&self, record: &Record, lease: Lease) -> Examined {
        examine(self.inner, self.candidate.claimant(), record, lease, self.aside)
    }

    fn is_superseded(&self, record: &Record) -> Result<bool> {
        match &self.candidate.subject.party {
            Some(party) if !self.replace.force && !planted(Fault::SupersededForgotten) => {
                reservations::is_superseded(self.tx, record.id, party)
            }
            Some(_) | None => Ok(false),
        }
    }
}

/// `wanted` is the office, or the first of the locks where the office is ours already.
pub(super) fn write_down(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    wanted: &Wanted,
    targets: Vec<TakeoverTarget>,
) -> Result<Reserved> {
    let argv = survey::masked(candidate.subject, candidate.locks);
    let as_whom = WaitingAs {
        profile: Some(&candidate.office.profile),
        kind: Some(&candidate.office.kind),
        origin: candidate.origin,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        argv: &argv,
    };
    let nonce = Nonce::random()?;
    let instance = WaitingRow::insert(tx, inner, &nonce, wanted, &as_whom)?;
    if let Some(waiter) = candidate.waiter {
        ending::end_other(tx, waiter, &instances::End::new(instances::EndReason::Released))?;
    }
    let longest = targets.iter().map(TakeoverTarget::budget).max().unwrap_or_default();
    let deadline = stop_budget::deadline(longest);
    let locks = candidate.locks.iter().map(|request| Wanted::Lock(request.name().clone()));
    // One of another profile must not come back before we are there.
    let others = targets.iter().map(|target| target.wanted.clone());
    let others = others.filter(|other| matches!(other, Wanted::Office(_)) && other != wanted);
    let office = matches!(wanted, Wanted::Office(_)).then(|| wanted.clone());
    for wanted in locks.chain(others).chain(office) {
        reservations::make(tx, &wanted, instance, Purpose::Takeover, millis(deadline))?;
    }
    let mut by = ourselves::describe_self(inner, &argv);
    if let Some(who) = candidate.replace.and_then(|replace| replace.by.as_ref()) {
        by += &format!(", {who}");
    }
    for target in &targets {
        let ttl = stop_budget::marker_lives(deadline);
        let name = MarkerName::takeover();
        crate::office::takeover::write_request(
            tx,
            inner,
            &target.record,
            &name,
            &by,
            Some(instance),
            None,
            ttl,
        )?;
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

impl InProgress {
    fn refused(self, wanted: &Wanted) -> Inquiry {
        let holder = self.holder(wanted);
        let fence = self.requester.id.as_i64();
        Inquiry::refused(holder, self.requester, fence)
    }
}
