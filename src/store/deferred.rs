//! What could not be written, and is written with the next change that succeeds.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::names::{InstanceId, LockName};
use crate::records::instances::{End, EndReason};
use crate::records::locks;
use crate::records::locks::LockEnd;
use crate::records::shutdowns::NewShutdown;
use crate::store::busy;
use crate::store::handle::Inner;
use crate::store::transaction::Tx;
use crate::sync::lock;

/// What could not be written, and is written with the next change that succeeds.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// The release of a row.
    Row { instance: InstanceId, nonce_hash: String, end: End },
    /// The release of a lock.
    Lock { name: LockName, fence: i64 },
    /// The last word of this process.
    Shutdown(Box<NewShutdown>),
}

impl Pending {
    pub(crate) fn is_release(&self) -> bool {
        !matches!(self, Self::Shutdown(_))
    }
}

impl Inner {
    /// Writes the releases that could not be written before, if that takes no time.
    pub(super) fn retry_pending(&self) {
        const BUDGET: Duration = Duration::from_millis(10);
        // A last word can wait for the next write; nobody reads slower for it.
        if !lock(&self.pending).iter().any(|it| it.is_release()) {
            return;
        }
        if let Err(error) = busy::with_budget(BUDGET, || self.write(|_| Ok(()))) {
            tracing::debug!(%error, "releases are still pending");
        }
    }
}

impl Tx<'_> {
    /// Writes what could not be written before, and hands it back.
    pub(crate) fn settle_pending(&self) -> Result<Vec<Arc<Pending>>> {
        let pending = lock(&self.store.pending).clone();
        for end in &pending {
            match &**end {
                Pending::Row { instance, nonce_hash, end } => {
                    crate::owner::ending::end_own(self, *instance, nonce_hash, end)?;
                }
                // A store that was restored from before there were locks has none to end.
                Pending::Lock { .. } if !locks::exists(self)? => {}
                Pending::Lock { name, fence } => {
                    let how = LockEnd { reason: EndReason::Released.as_str(), by: None };
                    locks::end(self, name, *fence, how)?;
                }
                Pending::Shutdown(word) => self.settle_word(word)?,
            }
        }
        Ok(pending)
    }
}
