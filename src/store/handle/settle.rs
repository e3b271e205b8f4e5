//! A change of the store, done again once what it met was waited for or looked at: an anchor
//! without a row, or a held lock of the older program (`process/older/looks.rs`).
//!
//! An anchor without a row may be about to be released. A claim that cannot be committed (a full
//! disk) releases its new anchor only after SQLite has rolled it back and given up the write lock.
//! Whoever claims in that instant finds an anchor that is held and that no row names. So it waits
//! before it calls that an orphan: outside of the transaction, because everybody else waits for
//! that, and for each anchor once, because names are never given twice.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::process::anchor::sweep::Sweep;
use crate::process::older::looks::LockLooks;
use crate::process::{Orphan, anchor};
use crate::store::handle::Inner;
use crate::store::transaction::{Rest, Tx};
use crate::{Error, Result};

/// How long an anchor without a row has to be held until it is an orphan. A rollback takes less.
const SETTLES_WITHIN: Duration = Duration::from_millis(20);

/// How often one change waits, each time for anchors that it has not met before. More of them are
/// orphans without a wait.
const ROUNDS: usize = 4;

/// How long a change removes anchors that the dead have left: its caller waits, and the next one
/// goes on.
const COLLECTS_WITHIN: Duration = Duration::from_millis(10);

/// The anchors without a row that were waited for, and stayed held.
#[derive(Debug, Default)]
pub(super) struct Orphaned(Mutex<HashSet<String>>);

/// What one transaction came to.
pub(super) enum Attempted<T> {
    Done {
        value: T,
        rests: Vec<Rest>,
        garbage: Vec<Sweep>,
    },
    /// It was rolled back: something has to be looked at first, and these anchors waited for.
    NotYet(Vec<String>),
}

/// Whether a transaction may be rolled back because of anchors without a row, or of locks of the
/// older program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    Over,
}

impl Inner {
    /// One change, all or nothing. What `work` returns as an error is rolled back. It is done again
    /// where there was no room for what it wrote, and where it met an anchor without a row or a
    /// held lock of the older program: so it changes nothing but the store.
    pub(crate) fn write<T>(&self, work: impl Fn(&Tx<'_>) -> Result<T>) -> Result<T> {
        let patience = [Patience::Waits; ROUNDS].into_iter().chain([Patience::Over]);
        let mut looks = LockLooks::default();
        for patience in patience {
            let write = || self.write_with(patience, &work);
            let written = match patience {
                Patience::Waits => looks.bound(write),
                Patience::Over => LockLooks::unbound(write),
            };
            match written? {
                Attempted::Done { value, rests, garbage } => {
                    for sweep in garbage {
                        sweep.remove_garbage(COLLECTS_WITHIN);
                    }
                    self.go_on_with(rests);
                    return Ok(value);
                }
                Attempted::NotYet(names) => {
                    self.with_clear_sight(|| {
                        looks.look();
                        Ok(())
                    })?;
                    self.await_release(names);
                }
            }
        }
        Err(Error::internal("a change waits for ever"))
    }

    /// Waits until nobody holds those anchors; what is held after that is on record as an orphan.
    fn await_release(&self, names: Vec<String>) {
        let until = Deadline::after(SETTLES_WITHIN);
        let stays_held =
            |name: &String| anchor::stays_held(&self.location.anchors.join(name), &until);
        let held: Vec<String> = names.into_iter().filter(stays_held).collect();
        self.orphaned.0.lock().extend(held);
    }

    /// Those of `found` that were not waited for yet.
    pub(in crate::store) fn not_waited_for(&self, found: &[Orphan]) -> Vec<String> {
        let known = self.orphaned.0.lock();
        let names = found.iter().map(|orphan| &orphan.name);
        names.filter(|name| !known.contains(*name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::*;
    use crate::liveness::AnchorState;
    use crate::process::older::lock;
    use crate::store::Store;
    use crate::sys;
    use crate::sys::Sharing;

    fn orphan(store: &Store) -> Orphan {
        let location = &store.inner.location;
        let anchor = anchor::Anchor::create(&location.file, &location.anchors, "ab").unwrap();
        let name = anchor.name().to_owned();
        // Held for as long as this test.
        std::mem::forget(anchor);
        Orphan { name, pid: None }
    }

    /// Symptom: whoever could not commit, on a full disk, refused whoever came next. Then: whoever
    /// met an orphan slept inside the transaction, and all others waited for that. It holds because
    /// the wait is between two of them, and for each anchor there is one.
    #[test]
    fn an_anchor_without_a_row_is_waited_for_once_and_outside_of_the_transaction() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let mut found = vec![orphan(&store)];
        for transactions in [2, 1] {
            let done = Cell::new(0);
            let written = store.inner.write(|tx| {
                done.set(done.get() + 1);
                tx.check_settled(&found)
            });
            written.unwrap();
            assert_eq!(done.get(), transactions);
        }
        // One that comes each time anew is waited for a few times.
        let done = Cell::new(0);
        let written = store.inner.write(|tx| {
            done.set(done.get() + 1);
            tx.check_settled(&[orphan(&store)])
        });
        written.unwrap();
        assert_eq!(done.get(), ROUNDS + 1);
        // And one that was released meanwhile is gone when it is looked at again.
        let location = &store.inner.location;
        let releases = anchor::Anchor::create(&location.file, &location.anchors, "ab").unwrap();
        found.push(Orphan { name: releases.name().to_owned(), pid: None });
        drop(releases);
        store.inner.write(|tx| tx.check_settled(&found)).unwrap();
        assert_eq!(store.inner.not_waited_for(&found), [found[1].name.clone()]);
    }

    /// Symptom: a claim beside an older gateway kept the write lock while it looked for it in the
    /// kernel's list, up to twelve times, 5 ms apart. It holds because what is held is looked at
    /// between two transactions; what is free is told at once.
    #[test]
    fn a_lock_of_the_older_program_is_looked_at_outside_of_the_transaction() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let path = directory.path().join("gateway.lock");
        let file = sys::open_foreign_lock_file(&path).unwrap();
        let looks: [fn(&Path) -> AnchorState; 2] = [lock::look, lock::probe];
        for (sharing, state, transactions) in [
            (None, AnchorState::Free, [2, 1]),
            (Some(Sharing::Exclusive), AnchorState::Held, [2, 2]),
        ] {
            if let Some(sharing) = sharing {
                assert!(sys::try_foreign_lock(&file, sharing).unwrap());
            }
            for (look, transactions) in looks.into_iter().zip(transactions) {
                let done = Cell::new(0);
                let seen = store.inner.write(|_| {
                    done.set(done.get() + 1);
                    Ok(look(&path))
                });
                assert_eq!((seen.unwrap(), done.get()), (state, transactions));
            }
            assert_eq!(looks.map(|look| look(&path)), [state; 2], "outside");
        }
    }
}
