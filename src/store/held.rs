//! What this process holds in a store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::names::IdentityHash;
use crate::names::slot::Slot;
use crate::process::older::beside::HeldBeside;
use crate::{Error, InstanceId, LockName, Nonce, Office, Result, Wanted};

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
    /// The locks that the program before this one left, by their fences, until a guard has them.
    /// Others of our rows without a guard are those of processes that act for us.
    left: HashSet<i64>,
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
    fn share(&self) -> Share {
        let holders_max = self.slot.map_or(1, |slot| slot.of);
        Share { what: Wanted::Lock(self.name.clone()), holders_max }
    }
}

/// What somebody holds or wants, and how many may have it at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    pub(crate) what: Wanted,
    pub(crate) holders_max: u32,
}

impl Share {
    /// Of what one alone has.
    pub(crate) fn whole(what: Wanted) -> Self {
        Self { what, holders_max: 1 }
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
        self.left.remove(&fence);
    }

    /// Notes the locks of a row that this process goes on with, by their fences.
    pub(crate) fn inherit_locks(&mut self, fences: impl IntoIterator<Item = i64>) {
        self.left.extend(fences);
    }

    /// The locks that no guard has yet of those that were left.
    pub(crate) fn left_locks(&self) -> HashSet<i64> {
        self.left.clone()
    }

    /// Whether the program before this one left a lock to it, and no guard has it yet.
    pub(crate) fn was_left(&self, fence: i64) -> bool {
        self.left.contains(&fence)
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

/// What was held through the handle of the store that this one replaced, and how often.
#[derive(Default)]
pub(crate) struct HeldBefore(Mutex<HashMap<Share, usize>>);

impl HeldBefore {
    /// Notes what was held by the row `lost`, which the store has lost.
    pub(crate) fn note_lost(&self, held: &Held, lost: InstanceId) {
        self.note(held, |instance| instance == lost);
    }

    /// Takes over what another handle holds, and what it had held before: the store may be replaced
    /// twice before anything is claimed again.
    pub(super) fn inherit(&self, held: &Held, before: &Self) {
        let before = before.0.lock().clone();
        *self.0.lock() = before;
        self.note(held, |_| true);
    }

    /// Notes what rows of our own hold; the `run` that we act for goes on with what its row holds.
    fn note(&self, held: &Held, is_meant: impl Fn(InstanceId) -> bool) {
        let of_run: Vec<InstanceId> = held
            .rows()
            .filter(|row| row.anchored_by == AnchoredBy::TheRun)
            .map(|row| row.instance)
            .collect();
        let is_meant = |instance| is_meant(instance) && !of_run.contains(&instance);
        let offices = held.offices.iter().filter(|(_, it)| is_meant(it.row.instance));
        let offices = offices.map(|(office, _)| Share::whole(Wanted::Office(office.clone())));
        let locks = held.locks.values().filter(|it| is_meant(it.instance)).map(OwnLock::share);
        let mut counts: HashMap<Share, usize> = HashMap::new();
        for share in offices.chain(locks) {
            *counts.entry(share).or_default() += 1;
        }
        let mut before = self.0.lock();
        for (share, count) in counts {
            // What was had again since is the same as before.
            let known = before.entry(share).or_default();
            *known = count.max(*known);
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Whether all of `wanted` was held, and something was: then nobody else who was in the same
    /// store stands in its way. Of slots the others may have had the rest. So there must be no
    /// fewer now than there were, and as many as were held are had again; `has_now` says how many
    /// already are.
    pub(crate) fn has_all(
        &self,
        wanted: impl IntoIterator<Item = Share>,
        mut has_now: impl FnMut(&Wanted) -> Result<usize>,
    ) -> Result<bool> {
        let held = self.0.lock().clone();
        if held.is_empty() {
            return Ok(false);
        }
        for Share { what, holders_max } in wanted {
            let fitting =
                held.iter().filter(|(it, _)| it.what == what && it.holders_max <= holders_max);
            let is_whole = fitting.clone().any(|(it, _)| it.holders_max == 1);
            let count: usize = fitting.map(|(_, count)| count).sum();
            if !is_whole && count <= has_now(&what)? {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Symptom: a command that had a lock of its own took the office of its `run` in the store that
    /// replaced theirs, and the `run` ended it. Cause: what it acted for counted as what it had
    /// held.
    #[test]
    fn what_a_run_held_is_not_had_again_by_its_command() {
        let (office, instance) = (Office::default(), InstanceId(7));
        let row = |anchored_by| OwnRow { instance, nonce: Nonce::random().unwrap(), anchored_by };
        let name = LockName::new("token", "chat").unwrap();
        for (anchored_by, is_ours) in [(AnchoredBy::Us, true), (AnchoredBy::TheRun, false)] {
            let mut held = Held::default();
            let row = row(anchored_by);
            held.offices.insert(office.clone(), HeldOffice { row, claims: 1, beside: None });
            held.hold(&name, None, instance, 8);
            for what in [Wanted::Office(office.clone()), Wanted::Lock(name.clone())] {
                let before = HeldBefore::default();
                before.inherit(&held, &HeldBefore::default());
                let has_all = before.has_all([Share::whole(what.clone())], |_| Ok(0)).unwrap();
                assert_eq!(has_all, is_ours, "{what}, {anchored_by:?}");
            }
        }
    }

    /// Who lost a store with others has again what it had, and no more: they may have the rest.
    #[test]
    fn what_was_held_before_is_had_again_as_often() {
        let name = |identity| LockName::new("scope", identity).unwrap();
        let mut held = Held::default();
        let slots = [("alone", Some(1)), ("pool", Some(3)), ("pool", Some(3)), ("shared", None)];
        for (fence, (identity, of)) in (1..).zip(slots) {
            let slot = of.and_then(|of| Slot::new(0, of));
            held.hold(&name(identity), slot, InstanceId(7), fence);
        }
        let before = HeldBefore::default();
        before.inherit(&held, &HeldBefore::default());
        // Replaced once more: it is not had twice for that.
        let again = HeldBefore::default();
        again.inherit(&held, &before);
        for (identity, holders_max, has_now, expected) in [
            ("alone", 1, 0, true),
            ("alone", 1, 1, true),
            ("alone", 5, 0, true),
            ("shared", 1, 1, true),
            ("pool", 3, 0, true),
            ("pool", 3, 1, true),
            ("pool", 4, 1, true),
            ("pool", 3, 2, false),
            ("pool", 2, 0, false),
            ("pool", 1, 0, false),
            ("other", 1, 0, false),
        ] {
            let wanted = Share { what: Wanted::Lock(name(identity)), holders_max };
            let has_all = |it: &HeldBefore| {
                let shared = Share::whole(Wanted::Lock(name("shared")));
                it.has_all([wanted.clone(), shared], |_| Ok(has_now)).unwrap()
            };
            let case = format!("{identity}, one of {holders_max}, has {has_now}");
            assert_eq!((has_all(&before), has_all(&again)), (expected, expected), "{case}");
        }
        let nothing = HeldBefore::default();
        assert!(!nothing.has_all([], |_| Ok(0)).unwrap() && before.has_all([], |_| Ok(0)).unwrap());
    }
}
