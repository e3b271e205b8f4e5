//! What this process holds in a store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::process::older::beside::HeldBeside;
use crate::{Error, IdentityHash, InstanceId, LockName, Nonce, Office, Wanted};

/// What came of a release.
#[derive(Debug)]
pub enum Released {
    /// It is free.
    Free,
    /// Another claim of this process still holds it.
    StillShared,
    /// It was lost before.
    WasLost,
    /// It could not be written; it is kept and written with the next change that succeeds.
    Pending(Error),
}

/// What this process holds through one store.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) offices: HashMap<Office, HeldOffice>,
    /// The row that locks are taken from without an office. It lasts as long as they do.
    pub(crate) without_office: Option<OwnRow>,
    pub(crate) locks: HashMap<LockName, OwnLock>,
}

/// A row of this process.
#[derive(Clone, Debug)]
pub(crate) struct OwnRow {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
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
    /// The row it was taken from.
    pub(crate) instance: InstanceId,
    pub(crate) fence: i64,
    pub(crate) claims: usize,
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
        let hashes = self.locks.keys().map(|name| name.identity_hash.as_str());
        hashes.filter_map(IdentityHash::number_of).collect()
    }

    /// Notes a granted lock; what is left of one of the same name that was lost does not count.
    pub(crate) fn hold(&mut self, name: &LockName, instance: InstanceId, fence: i64) {
        let held = self.locks.entry(name.clone()).or_insert(OwnLock { instance, fence, claims: 0 });
        if held.fence != fence {
            *held = OwnLock { instance, fence, claims: 0 };
        }
        held.claims += 1;
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
        let locks = held.locks.iter().filter(|(_, it)| it.instance == lost);
        self.0.lock().extend(
            offices
                .map(|(office, _)| Wanted::Office(office.clone()))
                .chain(locks.map(|(name, _)| Wanted::Lock(name.clone()))),
        );
    }

    /// Takes over what another handle holds, and what it had held before: the store may be replaced
    /// twice before anything is claimed again.
    pub(super) fn inherit(&self, held: &Held, before: &Self) {
        let offices = held.offices.keys().cloned().map(Wanted::Office);
        let locks = held.locks.keys().cloned().map(Wanted::Lock);
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
