//! Rows that were made for locks, and have none.

use std::time::Duration;

use rusqlite::Connection;

use crate::Result;
use crate::owner::{ending, is_held};
use crate::records::{End, EndReason, instances, waiters};
use crate::store::Inner;

/// How long a keeper keeps a row that no lock was taken from: the verb that wanted one is waiting
/// for it, or was killed.
pub(super) const UNUSED_FOR_MAX: Duration = Duration::from_mins(1);

/// Ends rows on our anchor that were made for locks, long ago, and have none. Not while somebody of
/// that profile waits for one: it may be wanted for that.
pub(super) fn end_unused(inner: &Inner) -> Result<()> {
    let Some(anchor) = inner.own_anchor() else { return Ok(()) };
    let limit_ms = i64::try_from(UNUSED_FOR_MAX.as_millis()).unwrap_or(i64::MAX);
    let unused = |connection: &Connection, now_ms: i64| {
        let mut unused = Vec::new();
        let before_ms = now_ms.saturating_sub(limit_ms);
        for id in instances::without_purpose(connection, anchor.name(), before_ms)? {
            let record = instances::by_id(connection, id)?;
            let waiting = match record.and_then(|record| record.profile) {
                Some(profile) => waiters::anchors(connection, &profile)?,
                None => Vec::new(),
            };
            if !waiting.iter().any(|anchor| is_held(inner, anchor)) {
                unused.push(id);
            }
        }
        Ok(unused)
    };
    if inner.read(|connection| unused(connection, inner.clock().wall_ms()))?.is_empty() {
        return Ok(());
    }
    inner.write(|tx| {
        for id in unused(tx, tx.now_ms())? {
            ending::end_other(tx, id, &End::new(EndReason::Released))?;
        }
        Ok(())
    })
}
