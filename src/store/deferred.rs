//! What could not be written, and is written with the next change that succeeds: of this handle, or
//! of the next one of the same file in this process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::store::handle::Inner;
use crate::store::transaction::Tx;
use crate::{InstanceId, Result, patience};

/// What could not be written, and is written with the next change that succeeds.
pub(crate) trait Deferred: fmt::Debug + Send + Sync {
    /// Writes it. What has become impossible since is nothing to be written any more, and no error.
    fn write(&self, tx: &Tx<'_>) -> Result<()>;

    /// Whether somebody is kept out until it is written.
    fn is_release(&self) -> bool {
        true
    }

    /// Whether it is the release of this row.
    fn releases(&self, _row: InstanceId) -> bool {
        false
    }
}

/// What could not be written through one handle.
pub(crate) type Pending = Mutex<Vec<Arc<dyn Deferred>>>;

/// The names of the anchors that this process let go while rows named them; see
/// [`Inner::has_abandoned`]. Those of a file, whatever handles there are of it.
pub(crate) type Abandoned = Mutex<Vec<String>>;

/// What this process did through one handle and still has to know, or to write, when that handle is
/// gone.
struct Kept {
    pid: u32,
    file: PathBuf,
    pending: Arc<Pending>,
    abandoned: Arc<Abandoned>,
}

impl Kept {
    fn is_of_a_handle(&self) -> bool {
        Arc::strong_count(&self.pending) > 1
    }

    fn is_empty(&self) -> bool {
        self.pending.lock().is_empty() && self.abandoned.lock().is_empty()
    }
}

/// Locked only where the registry is, which a forked child never meets locked.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// What a new handle of `file` begins with: the releases that could not be written through those
/// before it, and the anchors that were let go. A handle that is still there keeps its own list as
/// well: its files may come back, and to write a release twice changes nothing.
pub(super) fn kept_for(file: &Path) -> (Arc<Pending>, Arc<Abandoned>) {
    let me = std::process::id();
    let mut kept = KEPT.lock();
    // Nothing crosses a fork: the parent writes what is its own.
    kept.retain(|it| it.pid == me);
    let mut abandoned = None;
    let mut releases: Vec<Arc<dyn Deferred>> = Vec::new();
    for before in kept.iter().filter(|it| it.file == file) {
        abandoned = Some(Arc::clone(&before.abandoned));
        for release in before.pending.lock().iter().filter(|it| it.is_release()) {
            if !releases.iter().any(|known| Arc::ptr_eq(known, release)) {
                releases.push(Arc::clone(release));
            }
        }
    }
    kept.retain(|it| it.is_of_a_handle() || (it.file != file && !it.is_empty()));
    let (pending, abandoned) = (Arc::new(Mutex::new(releases)), abandoned.unwrap_or_default());
    kept.push(Kept {
        pid: me,
        file: file.to_owned(),
        pending: Arc::clone(&pending),
        abandoned: Arc::clone(&abandoned),
    });
    (pending, abandoned)
}

impl Inner {
    /// Writes the releases that could not be written before, if that takes no time.
    pub(crate) fn retry_pending(&self) {
        const BUDGET: Duration = Duration::from_millis(10);
        // A last word can wait for the next write; nobody reads slower for it.
        if !self.pending.lock().iter().any(|it| it.is_release()) {
            return;
        }
        if let Err(error) = patience::with_budget(BUDGET, || self.write(|_| Ok(()))) {
            tracing::debug!(%error, "releases are still pending");
        }
    }

    /// Whether this process has released that row, and could not write it down yet.
    pub(crate) fn has_pending_release(&self, id: InstanceId) -> bool {
        self.pending.lock().iter().any(|it| it.releases(id))
    }
}

impl Tx<'_> {
    /// Writes what could not be written before, and hands it back.
    pub(crate) fn settle_pending(&self) -> Result<Vec<Arc<dyn Deferred>>> {
        let pending = self.store.pending.lock().clone();
        pending.iter().try_for_each(|it| it.write(self))?;
        Ok(pending)
    }
}
