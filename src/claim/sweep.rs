//! Ends dead owners that nobody claims from, and looks for anchors that no row accounts for.

use std::collections::HashSet;

use crate::environment::{Fault, planted};
use crate::liveness::Ruling;
use crate::owner::{ending, judge, judgement};
use crate::process::anchor::sweep;
use crate::process::anchor::sweep::Sweep;
use crate::records::{EventRecord, Record, instances, locks};
use crate::store::held::Share;
use crate::store::{Inner, Tx, ourselves};
use crate::{Holder, Result, Wanted};

/// Looks for anchors without a row: orphans stand in the way of what is `wanted`, garbage is
/// collected.
///
/// A process that goes on from a store that was replaced meets the anchors of those who were in it,
/// too. What it held there, none of them can hold; of anything else they may be the owners.
pub(crate) fn sweep(
    tx: &Tx<'_>,
    inner: &Inner,
    named: &HashSet<String>,
    wanted: impl IntoIterator<Item = Share>,
) -> Result<Sweep> {
    let own = inner.own_anchor();
    let lost_store = match &own {
        Some(own) => {
            let has_now = |what: &Wanted| slots_on(tx, own.name(), what);
            if inner.held_before.has_all(wanted, has_now)? { own.store_id() } else { None }
        }
        None => None,
    };
    let mut sweep = sweep::sweep(
        &inner.location.anchors,
        inner.store_uuid()?,
        named,
        own.as_ref().map(|anchor| anchor.name()),
        lost_store,
        |name| ourselves::names_anchor(tx, name),
        |name, fence| instances::names_anchor_since(tx, name, fence),
    )?;
    tx.check_settled(&sweep.orphans)?;
    if lost_store.is_none() {
        sweep.orphans.extend(tx.lost_anchors()?);
    }
    if planted(Fault::OrphansIgnored) {
        sweep.orphans.clear();
    }
    Ok(sweep)
}

/// How many slots of a lock are held by rows that lean on this anchor.
fn slots_on(tx: &Tx<'_>, anchor: &str, what: &Wanted) -> Result<usize> {
    let mut count = 0;
    if let Wanted::Lock(name) = what {
        for row in locks::slots_of(tx, name)? {
            let owner = instances::by_id(tx, row.instance)?.filter(Record::is_live);
            count += usize::from(owner.is_some_and(|it| it.anchor.as_deref() == Some(anchor)));
        }
    }
    Ok(count)
}

/// What came of looking for anchors that stand in the way without a record.
#[derive(Debug)]
pub(crate) enum Orphans {
    None,
    Refused(Box<Holder>),
    Removed(usize),
}

/// Nobody is on record, yet an anchor without a record may refuse every claim: there is a way out
/// of that as well, if a person says so.
pub(crate) fn evict_orphans(
    tx: &Tx<'_>,
    inner: &Inner,
    wanted: &Wanted,
    force: Force,
    by: &str,
) -> Result<Orphans> {
    let sweep = sweep(tx, inner, &tx.named_anchors()?, [Share::whole(wanted.clone())])?;
    let Some(orphan) = sweep.orphans.first() else { return Ok(Orphans::None) };
    if force == Force::No {
        return Ok(Orphans::Refused(Box::new(Holder::orphan(wanted.clone(), orphan.pid))));
    }
    sweep.remove_orphans(&inner.location.anchors)?;
    tx.forget_lost_owners()?;
    let office = match wanted {
        Wanted::Office(office) => Some(office),
        Wanted::Lock(_) => None,
    };
    tx.record(&EventRecord {
        event: "orphans_evicted",
        office,
        detail: Some(serde_json::json!({
            "by": by,
            "anchors": sweep.orphans.iter().map(|orphan| &orphan.name).collect::<Vec<_>>(),
        })),
        ..EventRecord::default()
    })?;
    Ok(Orphans::Removed(sweep.orphans.len()))
}

/// After a grant: collects anchors that nobody uses, and ends the rows of processes without an
/// office that died. Nobody else would.
pub(crate) fn tidy(tx: &Tx<'_>, inner: &Inner, sweep: &Sweep) -> Result<()> {
    sweep.remove_garbage();
    let death = |record: &Record| match judgement(inner, record).ruling {
        Ruling::Dead(reason) => Some(reason),
        Ruling::Alive(_) | Ruling::Unknown(_) => None,
    };
    ending::sweep_without_office(tx, death, |anchor| judge::is_held(inner, anchor))?;
    if tx.prunes() {
        instances::prune_without_office(tx, |anchor| judge::is_held(inner, anchor))?;
    }
    Ok(())
}

/// Whether to end a record whose owner is not known to be dead. No process is signalled either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Only the dead.
    No,
    /// Whoever it is: a person has decided.
    Yes,
}
