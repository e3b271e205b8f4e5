//! A reading connection of one's own, for watching whether anything has changed.
//!
//! `PRAGMA data_version` compares only on one connection. This one is closed for a fork and made
//! again afterwards; a forked child closes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::store::gate;
use crate::store::handle::Inner;
use crate::sys::wal_index;
use crate::sys::wal_index::{Bell, Header};
use crate::{Result, store};

/// Watches one store.
pub(crate) struct Watcher {
    inner: Arc<Inner>,
    /// The handle has a weak reference, to close it.
    connection: Arc<Mutex<Option<Connection>>>,
    /// How many connections there were.
    opened: AtomicU64,
}

/// Equal for as long as nothing was committed, by whatever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    opened: u64,
    committed: Committed,
}

/// What changes with each commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Committed {
    /// As it is in memory: nothing is read from a file (`store/memo.rs`).
    Header(Header),
    DataVersion(i64),
}

impl Watcher {
    /// Opens the connection.
    ///
    /// # Errors
    /// As [`Inner::read`].
    pub(crate) fn new(inner: &Arc<Inner>) -> Result<Self> {
        let watcher = Self {
            inner: Arc::clone(inner),
            connection: Arc::default(),
            opened: AtomicU64::new(0),
        };
        watcher.with(|_| Ok(()))?;
        Ok(watcher)
    }

    /// Reads through the connection.
    ///
    /// # Errors
    /// As [`Inner::read`], and those of `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.inner.check_process()?;
        let _inside = gate::enter()?;
        let mut connection = self.connection.lock();
        if let Some(connection) = &*connection {
            return work(connection);
        }
        let new = connection.insert(self.inner.watcher()?);
        self.opened.fetch_add(1, Ordering::Relaxed);
        let mut watchers = self.inner.watchers.lock();
        let this = Arc::downgrade(&self.connection);
        watchers.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&this));
        watchers.push(this);
        drop(watchers);
        work(new)
    }

    /// What to compare with what it says later.
    ///
    /// # Errors
    /// As [`Inner::read`].
    pub(crate) fn version(&self) -> Result<Version> {
        self.with(|connection| {
            let committed = match wal_index::header(connection) {
                Some(header) => Committed::Header(header),
                None => Committed::DataVersion(store::data_version(connection)?),
            };
            Ok(Version { opened: self.opened.load(Ordering::Relaxed), committed })
        })
    }

    /// Whether a commit can be waited for.
    pub(crate) fn tells(&self) -> bool {
        self.bell().is_ok_and(|bell| bell.is_some())
    }

    /// What rings with the next commit. Take it before the look that finds nothing. `None` where
    /// nothing rings.
    ///
    /// # Errors
    /// As [`Inner::read`].
    pub(crate) fn bell(&self) -> Result<Option<Bell>> {
        self.with(|connection| {
            let bell = wal_index::bell(connection);
            if bell.is_some() {
                return Ok(bell);
            }
            // SQLite opens it with the first question.
            store::data_version(connection)?;
            Ok(wal_index::bell(connection))
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if self.inner.check_process().is_err() {
            // In a forked child, closing it would touch the parent's database.
            return std::mem::forget(Arc::clone(&self.connection));
        }
        let _inside = gate::enter_anyway();
        *self.connection.lock() = None;
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher(..)")
    }
}
