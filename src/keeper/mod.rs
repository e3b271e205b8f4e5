//! Records and locks for processes that do not link the library.
//!
//! Such a process cannot hold an anchor. A keeper holds one for it, and releases it when the
//! process ends. `claim --pid` starts a keeper, which makes the record itself and so creates the
//! anchor that it holds. A second record for the same process leans on the first keeper. Whether
//! the keeper still keeps is decided inside the transaction, and the keeper drops its anchor only
//! inside one.

pub(crate) mod acquire;
pub(crate) mod arrival;
pub(crate) mod keep;
pub(crate) mod kept;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod pair;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod speak;
pub(crate) mod target;

use crate::owner::orphan;
use crate::process::Orphan;
use crate::{Result, Store};

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
/// is no answer by lack of a record: `Err`, with the orphan.
pub(crate) fn ask<T>(
    store: &Store,
    question: impl Fn(&Store) -> Result<Known<T>>,
) -> Result<std::result::Result<T, Orphan>> {
    if let Known::Well(answer) = question(store)? {
        return Ok(Ok(answer));
    }
    if let Some(orphan) = store.inner.with_clear_sight(|| orphan::orphan(&store.inner))? {
        return Ok(Err(orphan));
    }
    // It may have claimed again since it was asked about.
    let (Known::Well(answer) | Known::ByLack(answer)) = question(store)?;
    Ok(Ok(answer))
}
