//! Reading connections, made on demand and kept for the next reader.
//!
//! Few are enough: a read takes tens of microseconds. At most four are lent at once. A thread that
//! finds all of them lent waits for one, within the budget of SQLite's locks. A thread that has one
//! gets another one at once: else it would wait for itself.
//!
//! Connections are made in the thread that asks. A crate for pools (r2d2) makes them in threads of
//! its own, and fails or panics where there can be no more threads; a condition variable does the
//! same.

use std::cell::Cell;
use std::fmt;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::Connection;

use crate::{Error, ErrorKind, Result, patience};
use std::time::Duration;

/// How readers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// For programs that live long and read from many threads.
    Pooled,
    /// For programs that ask one question and end.
    Single,
}

impl Strategy {
    fn readers_max(self) -> usize {
        match self {
            // Each costs two descriptors, and more of them answer no sooner.
            Self::Pooled => 4,
            Self::Single => 1,
        }
    }
}

pub(super) struct Readers {
    /// So many are lent at once.
    max: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    lent: usize,
    /// How often all were closed: what was lent before is not kept.
    cleared: u64,
}

thread_local! {
    /// How many readers this thread has borrowed. A second one is not waited for: it could be the
    /// first that has to be given back.
    static BORROWED: Cell<usize> = const { Cell::new(0) };
}

impl Readers {
    pub(super) fn new(strategy: Strategy) -> Self {
        Self { max: strategy.readers_max(), state: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `work` on a reading connection, made by `connect` if need be.
    pub(super) fn with<T>(
        &self,
        connect: impl FnOnce() -> Result<Connection>,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let mut place = self.place()?;
        let connection = match place.connection.take() {
            Some(connection) => connection,
            None => connect()?,
        };
        work(place.connection.insert(connection))
    }

    /// A place among the readers, with a connection that waits for work if there is one.
    fn place(&self) -> Result<Place<'_>> {
        let mut state = self.state.lock();
        if BORROWED.get() == 0 {
            state = self.wait_for_place(state)?;
        }
        state.lent += 1;
        let place = Place { readers: self, connection: state.idle.pop(), cleared: state.cleared };
        BORROWED.set(BORROWED.get() + 1);
        Ok(place)
    }

    fn wait_for_place<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>> {
        while state.lent >= self.max {
            let remaining = patience::deadline().map(|deadline| deadline.remaining());
            let Some(remaining) = remaining.filter(|remaining| !remaining.is_zero()) else {
                return Err(self.all_lent());
            };
            self.returned.wait_for(&mut state, remaining);
        }
        Ok(state)
    }

    fn all_lent(&self) -> Error {
        let message = format!("all {} read connections of this process stayed busy", self.max);
        Error::new(ErrorKind::Busy, message)
            .with_hint("try again, or raise `busy_budget`")
            .with_retry_after(Duration::from_millis(100))
    }

    /// Closes the connections, those that are lent as soon as they come back.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.cleared += 1;
        let idle = std::mem::take(&mut state.idle);
        // Closing takes locks of SQLite's.
        drop(state);
        drop(idle);
    }

    /// In a forked child: lets go of the connections without closing them.
    pub(super) fn forget(&mut self) {
        let state = self.state.get_mut();
        std::mem::forget(std::mem::take(&mut state.idle));
    }
}

/// One of the readers, lent to this thread until it is dropped.
struct Place<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
    cleared: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        BORROWED.set(BORROWED.get() - 1);
        let mut connection = self.connection.take();
        // One in the middle of a transaction is left by a panic.
        let is_whole = connection.as_ref().is_some_and(Connection::is_autocommit);
        let mut state = self.readers.state.lock();
        state.lent -= 1;
        // Of nested readers there may be too many.
        let has_room = state.idle.len() + state.lent < self.readers.max;
        if is_whole && has_room && state.cleared == self.cleared {
            state.idle.extend(connection.take());
        }
        drop(state);
        self.readers.returned.notify_one();
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;
    use crate::store::open::OpenOptions;

    /// FIELD-BUGS row 140. Also readers of a thread that has one: it would wait for itself.
    #[test]
    fn whoever_finds_all_readers_lent_waits_for_one() {
        for options in [OpenOptions::new(), OpenOptions::new().single_reader()] {
            let directory = tempfile::tempdir().unwrap();
            let store = options.path(directory.path().join("state.db")).open().unwrap();
            let inner = &store.inner;
            let readers_max = inner.readers.max;
            let (all_lent, seen) = (Barrier::new(readers_max + 1), Barrier::new(readers_max + 1));
            std::thread::scope(|scope| {
                for _ in 0..readers_max {
                    scope.spawn(|| {
                        let look = |_: &Connection| {
                            all_lent.wait();
                            seen.wait();
                            inner.read(|_| inner.read(|_| inner.read(|_| Ok(()))))
                        };
                        inner.read(look).unwrap();
                    });
                }
                all_lent.wait();
                let impatient =
                    patience::with_budget(Duration::from_millis(20), || inner.read(|_| Ok(())));
                // Whatever came of it: the others would wait here for ever.
                seen.wait();
                let error = impatient.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                assert!(error.hint().is_some() && error.retry_after().is_some(), "{error:?}");
                inner.read(|_| Ok(())).unwrap();
            });
            let state = inner.readers.state.lock();
            assert_eq!((state.lent, state.idle.len() <= readers_max), (0, true));
        }
    }
}
