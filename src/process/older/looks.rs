//! Looks at locks of the older program, in and out of a write transaction.
//!
//! Who keeps such a lock stands in the kernel's list of all locks, and whether it is kept or only
//! probed by the older program is known after some looks, 5 ms apart. While a write transaction is
//! open everybody else waits for that. So in one, nobody looks: what it wants to know is noted, the
//! transaction is rolled back, and it is done again with what was seen in between. Only a lock that
//! is free, or no longer there, is believed at once; and what was held is tried again, by a claim.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::liveness::AnchorState;
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::wire::PidRecord;

/// What was seen for one transaction, and what it wants to see yet.
#[derive(Debug, Default)]
pub(crate) struct LockLooks {
    seen: HashMap<PathBuf, Seen>,
    wanted: Vec<(PathBuf, LookBy)>,
}

#[derive(Debug)]
struct Seen {
    state: AnchorState,
    holder: (LockHolder, Option<PidRecord>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookBy {
    /// The kernel's list.
    List,
    /// Trying the lock.
    Trying,
}

thread_local! {
    /// Those of the transaction that this thread is in.
    static LOOKS: RefCell<Option<LockLooks>> = const { RefCell::new(None) };
}

impl LockLooks {
    /// Runs `work`, which sees nothing but what was seen before.
    pub(crate) fn bound<T>(&mut self, work: impl FnOnce() -> T) -> T {
        /// Also when `work` panics.
        struct Restore<'a>(&'a mut LockLooks);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                *self.0 = LOOKS.take().unwrap_or_default();
            }
        }
        LOOKS.set(Some(std::mem::take(self)));
        let _restore = Restore(self);
        work()
    }

    /// What the transaction wanted to see; what is there is noted by [`note`](Self::note).
    pub(super) fn take_wanted(&mut self) -> Vec<(PathBuf, LookBy)> {
        std::mem::take(&mut self.wanted)
    }

    pub(super) fn note(
        &mut self,
        path: PathBuf,
        state: AnchorState,
        holder: (LockHolder, Option<PidRecord>),
    ) {
        self.seen.insert(path, Seen { state, holder });
    }

    fn want(&mut self, path: &Path, by: LookBy) {
        self.wanted.push((path.to_owned(), by));
    }
}

/// Whether this thread is in a transaction that is not allowed to look.
pub(super) fn is_bound() -> bool {
    LOOKS.with_borrow(Option::is_some)
}

/// Whether the transaction has to be done again: what it saw of a lock stands for what it did not.
pub(crate) fn wants_more() -> bool {
    LOOKS.with_borrow(|looks| looks.as_ref().is_some_and(|looks| !looks.wanted.is_empty()))
}

/// What was seen of a lock that is there, and held if it was tried; `None` for whoever may look.
pub(super) fn state(path: &Path, by: LookBy) -> Option<AnchorState> {
    LOOKS.with_borrow_mut(|looks| {
        let looks = looks.as_mut()?;
        if let Some(Seen { state, .. }) = looks.seen.get(path)
            && (by == LookBy::List || *state == AnchorState::Held)
        {
            return Some(*state);
        }
        looks.want(path, by);
        Some(AnchorState::Held)
    })
}

/// The same of its holder.
pub(super) fn holder(path: &Path) -> Option<(LockHolder, Option<PidRecord>)> {
    LOOKS.with_borrow_mut(|looks| {
        let looks = looks.as_mut()?;
        if let Some(Seen { holder, .. }) = looks.seen.get(path) {
            return Some(holder.clone());
        }
        looks.want(path, LookBy::List);
        Some((LockHolder::nobody(), None))
    })
}
