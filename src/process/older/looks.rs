//! Looks at locks of the older program, in and out of a write transaction.
//!
//! Who keeps such a lock stands in the kernel's list of all locks, and whether it is kept or only
//! probed by the older program is known after some looks, 5 ms apart. While a write transaction is
//! open everybody else waits for that. So what one wants to know is noted, the transaction is
//! rolled back, and it is done again with what was seen in between. Only in the last of some rounds
//! (`store/handle/settle.rs`) it looks itself.
//!
//! What was seen in the list is believed for a moment only: the wait for the store may have been
//! long. A claim tries the lock again inside its transaction, and there a lock that is free, gone
//! or unreadable needs no other look.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Deadline;
use crate::liveness::AnchorState;
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::wire::PidRecord;

/// How long a look at the list counts.
const COUNTS_FOR: Duration = Duration::from_millis(100);

/// What was seen for one transaction, and what it wants to see yet.
#[derive(Debug, Default)]
pub(crate) struct LockLooks {
    seen: HashMap<PathBuf, Seen>,
    wanted: HashMap<PathBuf, LookBy>,
}

#[derive(Debug)]
struct Seen {
    state: AnchorState,
    holder: (LockHolder, Option<PidRecord>),
    counts_until: Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookBy {
    /// The kernel's list.
    List,
    /// Trying the lock, which says more.
    Trying,
}

thread_local! {
    /// Those of the transaction that this thread is in. Gone while the thread ends: then whoever
    /// still writes looks himself.
    static LOOKS: RefCell<Option<LockLooks>> = const { RefCell::new(None) };
}

impl LockLooks {
    /// Runs `work`, which sees nothing but what was seen before.
    pub(crate) fn bound<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (seen, result) = with_looks(Some(std::mem::take(self)), work);
        *self = seen.unwrap_or_default();
        result
    }

    /// Runs `work`, which looks itself.
    pub(crate) fn unbound<T>(work: impl FnOnce() -> T) -> T {
        with_looks(None, work).1
    }

    /// What the transaction wanted to see; what is there is noted by [`note`](Self::note).
    pub(super) fn take_wanted(&mut self) -> HashMap<PathBuf, LookBy> {
        std::mem::take(&mut self.wanted)
    }

    pub(super) fn note(
        &mut self,
        path: PathBuf,
        state: AnchorState,
        holder: (LockHolder, Option<PidRecord>),
    ) {
        let counts_until = Deadline::after(COUNTS_FOR);
        self.seen.insert(path, Seen { state, holder, counts_until });
    }

    fn want(&mut self, path: &Path, by: LookBy) {
        let wanted = self.wanted.entry(path.to_owned()).or_insert(by);
        if by == LookBy::Trying {
            *wanted = by;
        }
    }

    fn seen(&self, path: &Path) -> Option<&Seen> {
        self.seen.get(path)
    }
}

/// Runs `work` with these looks in the place of those before, which come back, also when it panics.
fn with_looks<T>(looks: Option<LockLooks>, work: impl FnOnce() -> T) -> (Option<LockLooks>, T) {
    struct Restore {
        outer: Option<LockLooks>,
        is_done: bool,
    }
    impl Restore {
        fn restore(&mut self) -> Option<LockLooks> {
            if std::mem::replace(&mut self.is_done, true) {
                return None;
            }
            let outer = self.outer.take();
            LOOKS.try_with(|looks| looks.replace(outer)).ok().flatten()
        }
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            self.restore();
        }
    }
    let outer = LOOKS.try_with(|place| place.replace(looks)).ok().flatten();
    let mut restore = Restore { outer, is_done: false };
    let result = work();
    (restore.restore(), result)
}

fn ask<T>(question: impl FnOnce(&mut LockLooks) -> T) -> Option<T> {
    LOOKS.try_with(|looks| looks.borrow_mut().as_mut().map(question)).ok().flatten()
}

/// Whether this thread is in a transaction that is not allowed to look.
pub(super) fn is_bound() -> bool {
    ask(|_| ()).is_some()
}

/// Whether the transaction has to be done again: what it saw of a lock stands for what it did not.
pub(crate) fn wants_more() -> bool {
    ask(|looks| !looks.wanted.is_empty()).unwrap_or(false)
}

/// What was seen of a lock that is there, and held if it was tried; `None` for whoever may look.
pub(super) fn state(path: &Path, by: LookBy) -> Option<AnchorState> {
    ask(|looks| {
        let seen = looks.seen(path).filter(|seen| match by {
            LookBy::List => !seen.counts_until.has_passed(),
            // It was tried just now, too.
            LookBy::Trying => seen.state == AnchorState::Held,
        });
        let state = seen.map(|seen| seen.state);
        if state.is_none() {
            looks.want(path, by);
        }
        state.unwrap_or(AnchorState::Held)
    })
}

/// The same of its holder.
pub(super) fn holder(path: &Path) -> Option<(LockHolder, Option<PidRecord>)> {
    ask(|looks| {
        let holder = looks.seen(path).map(|seen| seen.holder.clone());
        if holder.is_none() {
            looks.want(path, LookBy::List);
        }
        holder.unwrap_or_else(|| (LockHolder::nobody(), None))
    })
}
