//! An answer that may be one for want of a record.

use crate::owner::orphan;
use crate::{Error, Result, Store};

/// What a store answers.
pub(crate) enum Known<T> {
    /// It knows whom it was asked about.
    Well(T),
    /// That is no more than the lack of a record.
    ByLack(T),
}

/// Asks `store`. Before a "no" to somebody who may be an owner: its record may have been in a store
/// that was deleted or replaced a moment ago. It claims again in the new one as soon as it notices;
/// a caller that takes the "no" for a loss ends a gateway that is well. So beside an orphan there
/// is no answer by lack of a record.
pub(crate) fn ask<T>(store: &Store, question: impl Fn(&Store) -> Result<Known<T>>) -> Result<T> {
    if let Known::Well(answer) = question(store)? {
        return Ok(answer);
    }
    if let Some(orphan) = store.inner.with_clear_sight(|| orphan::orphan(&store.inner))? {
        return Err(Error::lost_owner(orphan.pid, store.path()));
    }
    // It may have claimed again since it was asked about.
    let (Known::Well(answer) | Known::ByLack(answer)) = question(store)?;
    Ok(answer)
}
