//! The stores of a process, closed for a fork.
//!
//! What a child would inherit of an open store, and why each is in the way there:
//!
//! * `SQLite`'s bookkeeping of its locks. They are record locks, which belong to the parent; the
//!   child's copy says that they are held, and a connection made in the child would go by that. Nor
//!   may it be taken down there: `sqlite3_close` writes to a database that others have open
//!   (<https://sqlite.org/howtocorrupt.html>, section 2.6).
//! * Mutexes that other threads of the parent were holding ([`gate`](crate::store::gate)).
//! * The descriptors of the three files. Closing them in the child cancels no lock of the parent's:
//!   record locks are those of the process (fcntl(2)), and ours of open files last while the parent
//!   has the files open.
//! * The descriptor of the anchor. Its `flock` belongs to the open file, which both have: it is
//!   free once both have closed it, or one of them unlocks it. So the child closes it and never
//!   unlocks, and the parent's office stays held; a child that kept it would keep the office of a
//!   parent that is gone. The same of the lock of an older program that is held beside an office.
//!
//! So the parent closes its connections, and nothing else: no row is changed, no lock released. The
//! child gives the anchors back ([`registry::begin_process`]) and opens its own handles. Where the
//! parent did not close, nothing of this can be made good in the child, on any system: the store
//! stays [`Forked`](crate::ErrorKind::Forked) there.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::process::Anchor;
use crate::store::gate::GATE;
use crate::store::handle::Inner;
use crate::store::{Store, registry};
use crate::{Error, ErrorKind, Result, patience};

/// How long calls of other threads may take to finish: as long as one may wait for the store.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How long a handle takes to be dropped, about.
const DROPS_WITHIN: Duration = Duration::from_millis(1);

/// How long the parent may take to open its stores again. What fails is done with the next call.
const OPEN_WITHIN: Duration = Duration::from_millis(250);

impl Store {
    /// Closes all stores of this process for a fork; what it returns opens them again, when it is
    /// dropped after the fork, in the parent and in the child.
    ///
    /// In the parent everything goes on as before: its offices and locks stay held meanwhile, by
    /// the kernel's locks and for everybody who asks, and all its handles work again. Calls of its
    /// other threads (heartbeats, watches) wait until then; calls of this thread are
    /// [`Busy`](ErrorKind::Busy).
    ///
    /// In the child the inherited handles stay what they are in any fork: every call is
    /// [`Forked`](ErrorKind::Forked), and dropping them does nothing. But it can open the same
    /// stores again, and claim what is free in them. What the parent holds is held by somebody else
    /// there. Call it in front of every fork whose child works on a store.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// # unsafe extern "C" {
    /// #     fn fork() -> i32;
    /// #     fn _exit(code: i32) -> !;
    /// #     fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
    /// # }
    /// use incumbent::{Claim, Standing, Store};
    ///
    /// let store = Store::open(&path)?;
    /// let Claim::Granted(tenure) = store.profile("default")?.claim()? else { unreachable!() };
    /// let closed = Store::close_for_fork()?;
    /// let child = unsafe { fork() };
    /// drop(closed);
    /// if child == 0 {
    ///     // The worker sees the gateway, and has its own handle.
    ///     let sees_it = || Store::open(&path)?.profile("default")?.status();
    ///     let is_held = sees_it().is_ok_and(|report| report.running);
    ///     unsafe { _exit(if is_held { 0 } else { 1 }) }
    /// }
    /// assert_eq!(tenure.verify()?, Standing::Held);
    /// # let mut status = -1;
    /// # assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
    /// assert_eq!(status, 0);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) where calls of other threads do not finish within 5 s, or the
    /// stores are closed for a fork already; [`Forked`](ErrorKind::Forked) in a child that was
    /// itself forked while its parent was opening or closing a store. Nothing is closed then.
    ///
    /// # Platform
    /// Unix. On Windows there is no fork: [`Unsupported`](ErrorKind::Unsupported).
    pub fn close_for_fork() -> Result<ClosedForFork> {
        if cfg!(windows) {
            return Err(Error::new(ErrorKind::Unsupported, "this system has no fork"));
        }
        registry::begin_process()?;
        let until = Deadline::after(FINISH_WITHIN);
        loop {
            GATE.close(until.remaining())?;
            if registry::close_all(Inner::close_for_fork) {
                return Ok(ClosedForFork { closer_pid: std::process::id() });
            }
            // Whose drop it is gets on now.
            GATE.open();
            std::thread::sleep(DROPS_WITHIN);
        }
    }
}

/// The stores of this process are closed for a fork; dropping it opens them again, in the parent
/// and in the child. See [`Store::close_for_fork`].
#[derive(Debug)]
#[must_use = "dropping it opens the stores again"]
pub struct ClosedForFork {
    closer_pid: u32,
}

impl Drop for ClosedForFork {
    fn drop(&mut self) {
        if self.closer_pid != std::process::id() {
            if let Err(error) = registry::begin_process() {
                tracing::warn!(%error, "a forked child cannot open stores");
            }
            return;
        }
        let handles = registry::all_open::<Inner>();
        GATE.open();
        for handle in handles {
            handle.open_after_fork();
        }
    }
}

impl Inner {
    /// Nobody is at work on it. What stays locked is its anchor.
    fn close_for_fork(&self) -> Option<Arc<Anchor>> {
        // Others must not take the WAL for one that nobody uses, and delete it.
        if !self.files.stay() {
            self.files.forget();
        }
        self.writer.lock().take();
        self.readers.clear();
        for connection in self.watchers.lock().drain(..).filter_map(|it| it.upgrade()) {
            connection.lock().take();
        }
        self.own_anchor()
    }

    fn open_after_fork(&self) {
        let opened = patience::with_budget(OPEN_WITHIN, || {
            self.relearn_files()?;
            self.read(|_| Ok(()))
        });
        match opened {
            Ok(()) => self.files.leave(),
            // What others must not delete stays locked until the connections are closed again.
            Err(error) => tracing::debug!(%error, "a store is opened later"),
        }
    }
}
