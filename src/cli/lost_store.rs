//! Before a "no" to somebody who may be an owner: its record may have been in a store that was
//! deleted or replaced a moment ago. It claims again in the new one as soon as it notices; a caller
//! that takes the "no" for a loss ends a gateway that is well. So beside an orphan such a verb
//! answers 75 in place of the "no".

use crate::Store;
use crate::cli::Existing;
use crate::cli::args::Global;
use crate::error::{Error, ErrorKind, Result};
use crate::keeper::Known;
use crate::owner::orphan;
use crate::process::anchor::sweep::Orphan;

/// Asks the store; `None` where there is none, and nobody is left of one.
///
/// # Errors
/// [`ErrorKind::StoreReplaced`] instead of an answer by lack of a record, where an owner of a lost store is left.
pub(super) fn ask<T>(
    global: &Global,
    question: impl Fn(&Store) -> Result<Known<T>>,
) -> Result<Option<T>> {
    let store = match global.existing_or_orphan()? {
        Existing::Store(store) => store,
        Existing::Orphan(orphan) => return Err(lost(global, &orphan)?),
        Existing::Nothing => return Ok(None),
    };
    let answer = match question(&store)? {
        Known::Well(answer) => return Ok(Some(answer)),
        Known::ByLack(answer) => answer,
    };
    if let Some(orphan) = store.inner.with_clear_sight(|| orphan::orphan(&store.inner))? {
        return Err(lost(global, &orphan)?);
    }
    drop(answer);
    // It may have claimed again since it was asked about.
    Ok(Some(question(&store)?.answer()))
}

fn lost(global: &Global, orphan: &Orphan) -> Result<Error> {
    let path = global.options().resolved_path()?;
    let who = orphan.pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
    let message = format!(
        "{who} was on record in a store that was moved, deleted or replaced, and has not claimed again in {}",
        path.display()
    );
    Ok(Error::new(ErrorKind::StoreReplaced, message)
        .at(path)
        .with_hint(
            "ask again: an owner that notices claims again within a second; `incumbent status` says if it stays so",
        )
        .retry_after(1_000))
}
