//! What this process holds in a store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::names::IdentityHash;
use crate::names::slot::Slot;
use crate::process::older::beside::HeldBeside;
use crate::{Error, InstanceId, LockName, Nonce, Office, Wanted};

/// What came of a release. In every case this process acts for it no more.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Claim, Released, Store};
///
/// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
/// let Claim::Granted(first) = work.claim()? else { unreachable!() };
/// let Claim::Granted(second) = work.claim()? else { unreachable!() };
/// assert!(matches!(first.release()?, Released::StillShared));
/// assert!(matches!(second.release()?, Released::Free));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Released {
    /// It is free.
    Free,
    /// Another claim of this process still holds it, or the `run` does whose tenure it is.
    StillShared,
    /// It was lost before: it was somebody else's to release, or its store is gone.
    WasLost,
    /// It could not be written, and why; it is kept and written with the next change that
    /// succeeds. If this process holds nothing else in the store, others can have it at once; else
    /// they see it as held until then.
    Pending(Error),
}

/// What this process holds through one store.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) offices: HashMap<Office, HeldOffice>,
    /// The row that locks are taken from without an office. It lasts as long as they do.
    pub(crate) without_office: Option<OwnRow>,
    /// By their fences: of a lock with slots a process may hold several.
    pub(crate) locks: HashMap<i64, OwnLock>,
}

/// A row of this process, or of the `run` that it acts for.
#[derive(Clone, Debug)]
pub(crate) struct OwnRow {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
    pub(crate) anchored_by: AnchoredBy,
}

/// Who holds the anchor that a row leans on, and ends the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnchoredBy {
    /// This process.
    Us,
    /// The `run` that we are in: we act for it, and neither touch its anchor nor end its row.
    TheRun,
}

/// An office held by this process, shared by its claims.
#[derive(Clone, Debug)]
pub(crate) struct HeldOffice {
    pub(crate) row: OwnRow,
    pub(crate) claims: usize,
    /// The lock of an older program that is held with it.
    pub(crate) beside: Option<Arc<HeldBeside>>,
}

/// A lock held by this process, shared by its claims.
#[derive(Clone, Debug)]
pub(crate) struct OwnLock {
    pub(crate) name: LockName,
    pub(crate) slot: Option<Slot>,
    /// The row it was taken from.
    pub(crate) instance: InstanceId,
    pub(crate) claims: usize,
}

impl OwnLock {
    /// What nobody else can have held at the same time.
    fn held_alone(&self) -> Option<Wanted> {
        let is_alone = self.slot.is_none_or(|slot| slot.of == 1);
        is_alone.then(|| Wanted::Lock(self.name.clone()))
    }
}

impl Held {
    pub(crate) fn is_nothing(&self) -> bool {
        self.offices.is_empty() && self.without_office.is_none()
    }

    /// All rows of this process.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &OwnRow> {
        self.offices.values().map(|office| &office.row).chain(&self.without_office)
    }

    /// The identities that this process has locked, by their hashes.
    pub(super) fn identities(&self) -> HashSet<u64> {
        let hashes = self.locks.values().map(|lock| lock.name.identity_hash.as_str());
        hashes.filter_map(IdentityHash::number_of).collect()
    }

    /// Notes a granted lock. What was lost, and acquired again since, has another fence.
    pub(crate) fn hold(
        &mut self,
        name: &LockName,
        slot: Option<Slot>,
        instance: InstanceId,
        fence: i64,
    ) {
        let new = || OwnLock { name: name.clone(), slot, instance, claims: 0 };
        self.locks.entry(fence).or_insert_with(new).claims += 1;
    }

    /// Whether the program before this one left a lock to it: a row of this process has it, and no
    /// guard does.
    pub(crate) fn was_left(&self, instance: InstanceId, fence: i64) -> bool {
        let is_ours = |row: &OwnRow| row.instance == instance && row.anchored_by == AnchoredBy::Us;
        self.rows().any(is_ours) && !self.locks.contains_key(&fence)
    }

    /// Lets one claim of an office go that a `run` holds. What was locked for that `run` stays
    /// known: each lock has a guard of its own.
    pub(crate) fn leave_to_run(&mut self, office: &Office, instance: InstanceId) {
        if let Some(held) = self.offices.get_mut(office)
            && held.row.instance == instance
        {
            held.claims -= 1;
            if held.claims == 0 {
                self.offices.remove(office);
            }
        }
    }

    /// Forgets a row that has ended, and with it the locks that were taken from it.
    pub(crate) fn forget(&mut self, instance: InstanceId) {
        self.offices.retain(|_, office| office.row.instance != instance);
        self.without_office.take_if(|row| row.instance == instance);
        self.locks.retain(|_, lock| lock.instance != instance);
    }
}

/// What was held through the handle of the store that this one replaced.
#[derive(Default)]
pub(crate) struct HeldBefore(Mutex<HashSet<Wanted>>);

impl HeldBefore {
    /// Notes what was held by the row `lost`, which the store has lost.
    pub(crate) fn note_lost(&self, held: &Held, lost: InstanceId) {
        let offices = held.offices.iter().filter(|(_, it)| it.row.instance == lost);
        let locks = held.locks.values().filter(|it| it.instance == lost);
        self.0.lock().extend(
            offices
                .map(|(office, _)| Wanted::Office(office.clone()))
                .chain(locks.filter_map(OwnLock::held_alone)),
        );
    }

    /// Takes over what another handle holds, and what it had held before: the store may be replaced
    /// twice before anything is claimed again.
    pub(super) fn inherit(&self, held: &Held, before: &Self) {
        let offices = held.offices.keys().cloned().map(Wanted::Office);
        let locks = held.locks.values().filter_map(OwnLock::held_alone);
        *self.0.lock() = offices.chain(locks).chain(before.0.lock().iter().cloned()).collect();
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Whether all of `wanted` was held, and something was.
    pub(crate) fn has_all(&self, wanted: impl IntoIterator<Item = Wanted>) -> bool {
        let held = self.0.lock();
        !held.is_empty() && wanted.into_iter().all(|wanted| held.contains(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock that was taken for the `run` has a guard of its own, which still has to release it.
    #[test]
    fn an_office_that_is_left_to_its_run_leaves_the_locks() {
        let (office, instance) = (Office::default(), InstanceId(7));
        let row =
            OwnRow { instance, nonce: Nonce::random().unwrap(), anchored_by: AnchoredBy::TheRun };
        let mut held = Held::default();
        held.offices.insert(office.clone(), HeldOffice { row, claims: 2, beside: None });
        let name = LockName::new("token", "chat").unwrap();
        held.hold(&name, None, instance, 8);
        held.leave_to_run(&office, InstanceId(6));
        held.leave_to_run(&office, instance);
        assert!(held.offices.contains_key(&office), "it is shared");
        held.leave_to_run(&office, instance);
        assert!(held.is_nothing() && held.locks.contains_key(&8));
    }
}
