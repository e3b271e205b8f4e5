//! The end of an anchor, by its own process.

use std::io;
use std::sync::Arc;

use crate::process::anchor::Anchor;
use crate::process::command_lock;

/// An anchor that its process is about to let go: still locked, because rows that others can read
/// name it until the transaction that ends them is committed.
pub(crate) struct Dropped(Arc<Anchor>);

impl Dropped {
    pub(crate) fn new(anchor: Arc<Anchor>) -> Self {
        Self(anchor)
    }

    /// Whether that is `anchor`.
    pub(crate) fn is(&self, anchor: &Arc<Anchor>) -> bool {
        Arc::ptr_eq(&self.0, anchor)
    }

    /// Unlocks it, and unlinks it then: whoever has it open by now does not see a lock on a file
    /// without a name. Only once no row names it any more.
    pub(crate) fn remove(self) {
        let path = self.0.path.clone();
        drop(self.0);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
        for path in [command_lock::path_of(directory, &name.to_string_lossy()), path.clone()] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(path = %path.display(), %error, "left for the next claim to \
                                                                     collect");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}
