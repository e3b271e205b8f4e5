//! Claiming an office: one transaction that looks, judges, ends the dead and inserts.

use crate::claim::examine::Evicted;
use crate::claim::sweep::Extent;
use crate::claim::{Attachment, Count, Lookups, Obstacle, obstacle, sweep};
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::claim::clear_the_way::OfficeWay;
use crate::office::claim::{clear_the_way, insert};
use crate::owner::{ending, judge};
use crate::patience::Stopped;
use crate::records::{End, EndReason, instances, locks, profiles, starts};
use crate::scoped::survey::{LockClaim, Surveyed};
use crate::scoped::{acquire, survey};
use crate::store::held::Share;
use crate::store::{Inner, Tx};
use crate::{Holder, LockRequest, Reason, Result, Wanted};

/// The heart of every claim, inside one write transaction. Looks at everything before it ends
/// anything: a refused claim changes nobody.
pub(crate) fn claim_once(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    attachment: &Attachment,
    aside: &Lookups,
    count: Count,
) -> Result<ClaimOutcome> {
    let office = candidate.office;
    profiles::check_home(tx, office, candidate.home_to_check())?;
    let over = match clear_the_way::clear_the_way(tx, inner, candidate, aside, count)? {
        OfficeWay::Clear(over) => over,
        OfficeWay::Not(outcome) => return Ok(outcome),
    };
    let wanted = Wanted::Office(office.clone());
    if let Some(obstacle) = obstacle::reserved_by_another(tx, inner, &wanted, candidate.waiter)? {
        return insert::refuse_candidate(tx, inner, candidate, count, obstacle);
    }
    let lock_claim = LockClaim {
        requests: candidate.locks,
        claimant: candidate.claimant(),
        profile: Some(&office.profile),
        ours: candidate.ours,
        held: None,
        stopped: Stopped::Respect,
        waiter: candidate.waiter,
    };
    let ways = match survey::survey(tx, inner, &lock_claim, aside, count)? {
        Surveyed::Clear(ways) => ways,
        Surveyed::Errand(errand) => return Ok(ClaimOutcome::Errand(errand)),
        Surveyed::Held(obstacle) => {
            return insert::refuse_candidate(tx, inner, candidate, count, obstacle);
        }
    };
    let shares = candidate.locks.iter().map(LockRequest::share);
    let wanted = shares.chain([Share::whole(Wanted::Office(office.clone()))]);
    let sweep = sweep::sweep(tx, inner, Extent::Unknown, wanted)?;
    if let Some(orphan) = sweep.orphans.first() {
        let holder = Box::new(Holder::orphan(Wanted::Office(office.clone()), orphan.pid));
        let obstacle = Box::new(Obstacle { holder, watch: None });
        return insert::refuse_candidate(tx, inner, candidate, count, obstacle);
    }
    // The command of a `run --exec` that claims by itself: nobody may get its locks in between.
    let goes_on = over
        .as_ref()
        .filter(|(record, reason)| *reason == EndReason::ReExecuted && record.is_in_place())
        .map(|(record, _)| record.id);
    let (evicted, after_abnormal_end) = match over {
        Some((record, reason)) => {
            let mut end = End::new(reason);
            if let EndReason::Dead(_) = reason {
                end = end.detail(format!("found by pid {}", candidate.subject.pid));
            }
            let recorded = match goes_on {
                Some(_) => ending::end_but_for_locks(tx, record.id, &end)?,
                None => ending::end_other(tx, record.id, &end)?,
            };
            let abnormal =
                recorded.is_some_and(|reason| instances::is_abnormal(&reason.into(), None));
            (Some(Evicted::of(&record, reason, aside)), abnormal)
        }
        None => (None, starts::last_end_was_abnormal(tx, office)?),
    };
    let mut granted =
        insert::insert(tx, inner, candidate, attachment, evicted, after_abnormal_end)?;
    let owners = std::iter::repeat(granted.row.instance);
    granted.locks = acquire::take(tx, inner, &lock_claim, ways, owners, aside)?;
    if let Some(before) = goes_on {
        locks::follow(tx, before, granted.row.instance, Reason::ReExecuted)?;
    }
    sweep::tidy(tx, inner, sweep)?;
    if tx.prunes() {
        instances::prune_history(tx, office, |anchor| judge::is_held(inner, anchor))?;
        instances::forget_notes_of_earlier(tx, office)?;
    }
    Ok(ClaimOutcome::Granted(granted))
}
