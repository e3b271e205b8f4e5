//! Answers that are given again without being read again, for as long as nothing was committed.
//!
//! Every commit, of whatever program, changes the first 48 bytes of the wal-index, which SQLite has
//! mapped into our memory: a counter, the length of the WAL, checksums. By the same bytes SQLite
//! itself decides whether the pages that a connection has read before still count
//! (`walIndexTryHdr` in wal.c). So an equal header means that a read would find what it found.
//!
//! * *The answer is of now.* The header is read within the call; what was committed before the call
//!   began is in it, because the memory is shared.
//! * *It is never newer than its answer.* It is remembered as it was before the snapshot began. A
//!   commit in between makes it old at once, which costs one more read.
//! * *The memory is that of a connection which is lent at that moment.* No address outlives the
//!   call, so none can outlive its mapping.
//! * *The files are looked at as for every read:* one that was deleted or replaced is a loss, and
//!   one that was written to past SQLite has another `Files::generation`. So has a store whose
//!   connections were all closed: the next one may begin the wal-index anew.
//!
//! What is remembered grants nothing: a claim reads in its own transaction. Only what hangs on the
//! rows alone may be remembered, and neither on the time nor on what the kernel says of processes.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::Result;
use crate::environment::{Fault, planted};
use crate::store::files::CompareBy;
use crate::store::handle::Inner;
use crate::store::handle::lost::Content;
use crate::store::handle::write::Before;
use crate::sys::wal_index;
use crate::sys::wal_index::Header;

/// Equal for as long as nothing was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glance {
    header: Header,
    generation: u64,
}

/// The last answer to a question that is asked with some `K`.
#[derive(Debug)]
pub(crate) struct Memo<K, T>(Mutex<Option<(Glance, K, Arc<T>)>>);

impl<K, T> Default for Memo<K, T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<K: PartialEq, T> Memo<K, T> {
    fn get(&self, glance: Glance, key: &K) -> Option<Arc<T>> {
        let last = self.0.lock();
        let (at, asked, answer) = last.as_ref()?;
        let is_same = *at == glance || planted(Fault::CommitUnnoticed);
        (is_same && asked == key).then(|| Arc::clone(answer))
    }
}

impl Inner {
    /// As [`Inner::read`], of the same `work` with the same `key`: not read again while nothing was
    /// committed. What `work` returns hangs on `key` and on the rows, and on nothing else.
    pub(crate) fn read_once<K: PartialEq, T>(
        &self,
        memo: &Memo<K, T>,
        key: K,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<Arc<T>> {
        let seen = Cell::new(None);
        let before = |connection: &Connection| {
            seen.set(self.glance(connection));
            let Some(glance) = seen.get() else { return Ok(Before::Read) };
            let Some(answer) = memo.get(glance, &key) else { return Ok(Before::Read) };
            Ok(match self.check_files(CompareBy::Descriptor)? {
                Content::Changed => Before::Again,
                Content::AsRead if self.files.generation() == glance.generation => {
                    Before::Known(answer)
                }
                Content::AsRead => Before::Read,
            })
        };
        let answer = self.read_after(before, |connection| work(connection).map(Arc::new))?;
        if let Some(glance) = seen.get() {
            *memo.0.lock() = Some((glance, key, Arc::clone(&answer)));
        }
        Ok(answer)
    }

    fn glance(&self, connection: &Connection) -> Option<Glance> {
        if !self.files.are_watched() {
            return None;
        }
        let generation = self.files.generation();
        Some(Glance { header: wal_index::header(connection)?, generation })
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use super::*;
    use crate::store::{Store, tally};

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(directory.path().join("state.db")).unwrap()
    }

    fn newest(store: &Store, memo: &Memo<(), i64>) -> i64 {
        const SQL: &str = "SELECT max(id) FROM events";
        let read = |connection: &Connection| Ok(connection.query_row(SQL, [], |row| row.get(0))?);
        *store.inner.read_once(memo, (), read).unwrap()
    }

    /// It is read once, and again after each commit: of this handle, of another program, and of one
    /// that changes nothing that is asked for.
    #[test]
    fn what_was_committed_is_read_again_and_else_nothing() {
        const INSERT: &str = "INSERT INTO events (at_ms, event) VALUES (1, 'of a test')";
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let memo = Memo::default();
        // The first connection maps the wal-index when it reads.
        newest(&store, &memo);
        let first = newest(&store, &memo);
        let other = Connection::open(store.path()).unwrap();
        let reads = |expected: i64, runs: u64, what: &str| {
            let (seen, tally) = tally::of(|| newest(&store, &memo));
            assert_eq!(seen, expected, "{what}");
            assert_eq!(tally.runs() > 0, runs > 0, "{what}: {tally:?}");
        };
        reads(first, 0, "nothing has happened");
        store.inner.write(|tx| Ok(tx.execute(INSERT, [])?)).unwrap();
        reads(first + 1, 1, "written by us");
        reads(first + 1, 0, "nothing more");
        other.execute_batch(INSERT).unwrap();
        reads(first + 2, 1, "written by another program");
        other.execute_batch("UPDATE meta SET value = value + 1 WHERE key = 'last_id'").unwrap();
        reads(first + 2, 1, "something else was written");
        other.execute_batch(&format!("BEGIN; {INSERT}; ROLLBACK")).unwrap();
        reads(first + 2, 0, "rolled back");
        for how in ["PASSIVE", "TRUNCATE"] {
            other.execute_batch(&format!("PRAGMA wal_checkpoint({how})")).unwrap();
            assert_eq!(newest(&store, &memo), first + 2, "{how}");
            reads(first + 2, 0, how);
        }
        other.execute_batch(INSERT).unwrap();
        reads(first + 3, 1, "after the WAL was emptied");
        store.inner.close_connections();
        reads(first + 3, 1, "all connections were closed");
    }

    /// A question with another key is another question.
    #[test]
    fn an_answer_is_that_of_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let memo = Memo::default();
        for key in [1, 2, 2, 1] {
            assert_eq!(*store.inner.read_once(&memo, key, |_| Ok(key)).unwrap(), key);
        }
        let failed = store
            .inner
            .read_once(&memo, 3, |_| -> Result<i32> { Err(crate::Error::internal("of a test")) });
        assert!(failed.is_err());
        assert_eq!(*store.inner.read_once(&memo, 3, |_| Ok(3)).unwrap(), 3, "no answer is kept");
    }

    /// A store that is deleted, replaced, or written over in place says so as for every read.
    #[test]
    fn a_store_that_is_not_there_any_more_is_not_remembered() {
        type Loss = fn(&Store);
        let losses: [(&str, Loss); 3] = [
            ("deleted", |store| std::fs::remove_file(store.path()).unwrap()),
            ("without its -shm", |store| {
                std::fs::remove_file(format!("{}-shm", store.path().display())).unwrap();
            }),
            ("emptied in place", |store| {
                std::fs::File::options()
                    .write(true)
                    .open(store.path())
                    .unwrap()
                    .set_len(0)
                    .unwrap();
            }),
        ];
        for (what, lose) in losses {
            let directory = tempfile::tempdir().unwrap();
            let store = store(&directory);
            let memo = Memo::default();
            for _ in 0..2 {
                newest(&store, &memo);
            }
            let (_, tally) = tally::of(|| newest(&store, &memo));
            assert_eq!(tally.runs(), 0, "{what}");
            lose(&store);
            let read = store.inner.read_once(&memo, (), |_| Ok(0));
            let kind = read.map_err(|error| error.kind());
            assert_eq!(kind.unwrap_err(), crate::ErrorKind::StoreReplaced, "{what}");
        }
    }

    /// A copy of the same length that is written over the database while connections are open.
    #[test]
    fn a_copy_that_is_written_over_the_store_in_place_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let other = Connection::open(store.path()).unwrap();
        other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let before = std::fs::read(store.path()).unwrap();
        other
            .execute_batch(
                "INSERT INTO events (at_ms, event) VALUES (1, 'of a test');
                 PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .unwrap();
        let memo = Memo::default();
        newest(&store, &memo);
        let (newest_then, _) = (newest(&store, &memo), newest(&store, &memo));
        let (again, tally) = tally::of(|| newest(&store, &memo));
        assert_eq!((again, tally.runs()), (newest_then, 0));
        // Filesystems write times in steps.
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::write(store.path(), before).unwrap();
        let (_, tally) = tally::of(|| store.inner.read_once(&memo, (), |_| Ok(0)));
        assert!(tally.runs() > 0, "{tally:?}");
    }
}
