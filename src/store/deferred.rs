//! What could not be written, and is written with the next change that succeeds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
