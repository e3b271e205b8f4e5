//! Asks a store that may not be there, for somebody who may be an owner of one that was lost: 75 in
//! the place of a "no".

use crate::cli::args::Global;
use crate::{Error, Existing, Result, Store};

/// Asks the store; `None` where there is none, and nobody is left of one.
///
/// # Errors
/// [`StoreReplaced`](crate::ErrorKind::StoreReplaced) where an owner of a lost store is left.
pub(super) fn ask<T>(
    global: &Global,
    question: impl FnOnce(&Store) -> Result<T>,
) -> Result<Option<T>> {
    match global.options().find()? {
        Existing::Store(store) => question(&store).map(Some),
        Existing::LostOwner { pid, .. } => {
            Err(Error::lost_owner(pid, &global.options().resolved_path()?))
        }
        Existing::Nothing => Ok(None),
    }
}
