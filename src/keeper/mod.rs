//! Records and locks for processes that do not link the library.
//!
//! Such a process cannot hold an anchor. A keeper holds one for it, and releases it when the
//! process ends. A claim starts a keeper, which makes the record itself and so creates the anchor
//! that it holds. A second record for the same process leans on the first keeper. When the store is
//! replaced the keeper goes on in the new one.
//!
//! A keeper executes the [program for helpers](crate::helper). What it was started for outlives
//! the process that started it.

pub(crate) mod acquire;
pub(crate) mod arrival;
pub(crate) mod keep;
pub(crate) mod kept;
pub(crate) mod life;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod report;
pub(crate) mod speak;
pub(crate) mod start;
pub(crate) mod target;
pub(crate) mod words;

pub use crate::keeper::process::{
    Anchoring, KeptClaim, KeptGrant, KeptLock, KeptProcess, KeptRecord, KeptRelease, KeptStanding,
    Whom,
};

use crate::owner::orphan;
use crate::{Error, Result, Store};

/// The hidden verb of a keeper.
pub(crate) const VERB: &str = "__keeper";

/// That of the second one.
pub(crate) const VERB_OF_SECOND: &str = "__keeper-second";

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
