//! The store: one SQLite file in WAL mode, shared by every handle of a process.
//!
//! Reads never write; every change goes through [`Inner::write`], one `BEGIN IMMEDIATE` that first
//! checks that the file is still the store we opened.

mod backup;
mod begun;
pub(crate) mod busy;
mod control;
pub(crate) mod deferred;
pub(crate) mod door;
pub(crate) mod explain;
mod files;
pub(crate) mod fork;
pub(crate) mod gate;
pub(crate) mod ground;
pub(crate) mod handle;
pub(crate) mod held;
pub(crate) mod last_words;
pub(crate) mod listener;
pub(crate) mod location;
pub(crate) mod memo;
pub(crate) mod migrate;
pub(crate) mod open;
pub(crate) mod ourselves;
mod overwritten;
mod pool;
pub(crate) mod pragmas;
pub(crate) mod recovery;
mod registry;
pub(crate) mod salvage;
mod settings;
#[cfg(test)]
pub(crate) mod tally;
pub(crate) mod transaction;
pub(crate) mod turns;
pub(crate) mod wal;
pub(crate) mod watcher;
mod witnessed;

pub(crate) use crate::store::deferred::Deferred;
pub(crate) use crate::store::handle::Inner;
pub(crate) use crate::store::held::{AnchoredBy, OwnRow};
pub(crate) use crate::store::last_words::What;
pub(crate) use crate::store::location::Location;
#[cfg(test)]
pub(crate) use crate::store::registry::forked;
pub(crate) use crate::store::transaction::{BootTime, Tx};
pub(crate) use crate::store::witnessed::{ENDS_WITHIN, SeenEnd};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::{Result, patience};

/// A store of this process: the SQLite file that profiles and processes share. Clones and further
/// opens of the same file share one handle inside; the last one to go closes it and drops the
/// process' anchor.
///
/// Blocking, `Send + Sync`. Under tokio call it from `spawn_blocking`.
///
/// A change is one transaction: when the call returns, every process sees all of it, and a crash or
/// a kill of this one loses nothing of it. After an error nothing of it is there, unless the call
/// says otherwise. A question is one snapshot. It writes nothing, but for releases of this process
/// that could not be written before, and answers also where nothing can be written.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state/state.db");
/// use incumbent::{Claim, Store};
///
/// let store = Store::open(&path)?;
/// let Claim::Granted(tenure) = store.profile("default")?.claim()? else {
///     panic!("nobody else runs here");
/// };
/// assert!(store.profile("default")?.status()?.running);
/// tenure.release()?;
/// assert!(!store.profile("default")?.status()?.running);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl Store {
    /// The real path of the SQLite file, symbolic links resolved. Read it through this handle.
    /// Opening it otherwise does no harm on Linux; elsewhere it would cancel SQLite's locks when it
    /// is closed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.location.file
    }

    /// Names the store by 32 hex digits, which stay with it wherever it is moved: a copy has the
    /// same, a new one in its place another.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::Store;
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// assert_eq!(store.uuid()?.len(), 32);
    /// let another = Store::open(directory.path().join("another.db"))?;
    /// assert_ne!(store.uuid()?, another.uuid()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn uuid(&self) -> Result<String> {
        self.inner.store_uuid().map(str::to_owned)
    }

    /// Makes calls that fail fast: all that this thread does in `calls`, through whatever handle,
    /// waits for other writers for `budget` at most, together; zero waits for none. What takes
    /// longer is [`Busy`](crate::ErrorKind::Busy), with the time after which to try again. Other
    /// threads keep the store's own budget
    /// ([`OpenOptions::busy_budget`](crate::OpenOptions::busy_budget), 5 s), which this one can
    /// only shorten.
    ///
    /// A claim or an acquisition that waits ends its wait with the budget, too. A stop, a restart
    /// and a replacement go on for as long as the holder may take: no budget shortens that time,
    /// nor the up to 10 s in which a claim ends what a killed `run` left behind, nor the start of a
    /// [keeper](crate::keeper). A release may wait for a claim of another thread of this process.
    ///
    /// ```
    /// use incumbent::Store;
    /// use std::time::Duration;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let report = store.within(Duration::from_millis(50), |store| {
    ///     store.profile("work")?.status()
    /// })?;
    /// assert!(!report.running);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn within<T>(&self, budget: Duration, calls: impl FnOnce(&Self) -> T) -> T {
        patience::with_budget(budget, || calls(self))
    }

    /// How many releases could not be written yet, see [`Released`](crate::Released). They are
    /// written together with the next change that succeeds; ownership itself ends with the process
    /// in any case. In a forked child none: they are the parent's. Asks nobody, and waits for
    /// nobody.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::{Claim, Released, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { unreachable!() };
    /// assert!(matches!(tenure.release()?, Released::Free));
    /// assert_eq!(store.pending_releases(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn pending_releases(&self) -> usize {
        if self.inner.check_process().is_err() {
            return 0;
        }
        self.inner.pending.lock().iter().filter(|it| it.is_release()).count()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// Changes whenever another connection has committed (<https://sqlite.org/pragma.html>).
pub(crate) fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}
