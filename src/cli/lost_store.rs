//! Before a "no" to somebody who may be an owner of a store that was lost: 75 in its place, see
//! [`keeper::ask`].

use crate::cli::args::Global;
use crate::cli::context::Existing;
use crate::keeper::Known;
use crate::process::Orphan;
use crate::{Error, ErrorKind, Result, Store, keeper};
use std::time::Duration;

/// Asks the store; `None` where there is none, and nobody is left of one.
///
/// # Errors
/// [`ErrorKind::StoreReplaced`] instead of an answer by lack of a record, where an owner of a lost
/// store is left.
pub(super) fn ask<T>(
    global: &Global,
    question: impl Fn(&Store) -> Result<Known<T>>,
) -> Result<Option<T>> {
    match global.existing_or_orphan()? {
        Existing::Store(store) => match keeper::ask(&store, question)? {
            Ok(answer) => Ok(Some(answer)),
            Err(orphan) => Err(lost(global, &orphan)?),
        },
        Existing::Orphan(orphan) => Err(lost(global, &orphan)?),
        Existing::Nothing => Ok(None),
    }
}

fn lost(global: &Global, orphan: &Orphan) -> Result<Error> {
    let path = global.options().resolved_path()?;
    let who = orphan.pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
    let message = format!(
        "{who} was on record in a store that was moved, deleted or replaced, and has not claimed \
         again in {}",
        path.display()
    );
    Ok(Error::new(ErrorKind::StoreReplaced, message)
        .at(path)
        .with_hint(
            "ask again: an owner that notices claims again within a second; `incumbent status` \
             says if it stays so",
        )
        .with_retry_after(Duration::from_secs(1)))
}
