//! What becomes of the office's holder on record: ended, left, or in the way.

use std::path::Path;

use crate::claim::obstacle::Watch;
use crate::claim::older::Met;
use crate::claim::older_home::home_of_claim;
use crate::claim::{Count, Errand, Examined, Lookups, Obstacle, examine, older};
use crate::liveness::{DeadReason, Lease};
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::claim::insert;
use crate::owner::older as owner_older;
use crate::records::instances::LockNow;
use crate::records::{EndReason, Record};
use crate::store::{Inner, Tx};
use crate::{Holder, Result, owner};

/// What a claim found on its way to the office itself.
pub(crate) enum OfficeWay {
    /// Nobody, or one whose row is to be ended for this reason.
    Clear(Option<(Box<Record>, EndReason)>),
    Not(ClaimOutcome),
}

/// Looks at whoever is on record as the holder, and then for an older gateway that is not.
pub(super) fn clear_the_way(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    aside: &Lookups,
    count: Count,
) -> Result<OfficeWay> {
    let office = candidate.office;
    let legacy_home = home_of_claim(tx, office, candidate.legacy_home)?;
    let mut live = owner::live(tx, office)?;
    let legacy_home = legacy_home.or_else(|| owner_older::home_of_holder(live.as_ref()?));
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
                        return Ok(OfficeWay::Not(ClaimOutcome::AlreadyRecorded(Box::new(record))));
                    }
                    Examined::Errand(errand) => {
                        return Ok(OfficeWay::Not(ClaimOutcome::Errand(errand)));
                    }
                    Examined::InTheWay(judged) => {
                        if let Some(home) = legacy_home.as_deref()
                            && let Some(beside) =
                                beside_replaced(tx, inner, candidate, home, &record)?
                        {
                            return insert::refuse_candidate(tx, inner, candidate, count, beside)
                                .map(OfficeWay::Not);
                        }
                        // Elsewhere it takes the kernel's list of locks to tell: too long in here.
                        let judged = if judged.evidence.is_here() {
                            owner::frozen::seen(inner, &record, judged)
                        } else {
                            judged
                        };
                        let mut holder = Box::new(Holder::of(&record, office, &judged));
                        holder.add_what_it_said(tx, inner, &record)?;
                        let watch = Some(Watch::of_instance(record));
                        let obstacle = Box::new(Obstacle { holder, watch });
                        return insert::refuse_candidate(tx, inner, candidate, count, obstacle)
                            .map(OfficeWay::Not);
                    }
                }
            }
        };
        let Some(home) = legacy_home.as_deref().filter(|_| !has_met_older) else {
            return Ok(OfficeWay::Clear(over));
        };
        let claimant = candidate.subject.pid;
        live = match older::meet(tx, inner, office, home, claimant, over.as_ref())? {
            // Once: it may not have been asked to.
            Met::Coming(record) if !aside.has_awaited(record.id) => {
                let errand = Errand::AwaitOlderLock(record, home.to_owned());
                return Ok(OfficeWay::Not(ClaimOutcome::Errand(errand)));
            }
            Met::Nobody | Met::Coming(_) => return Ok(OfficeWay::Clear(over)),
            Met::Ours(obstacle) => {
                return insert::refuse_candidate(tx, inner, candidate, count, obstacle)
                    .map(OfficeWay::Not);
            }
            Met::Older(record) => Some(*record),
        };
        has_met_older = true;
    }
}

/// Whoever keeps a claim from the place of `record` that it is to replace, because it acts in
/// `home` as well: that one would be met only when the holder has ended for nothing.
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
    older::beside(tx, inner, candidate.office, home, record)
}
