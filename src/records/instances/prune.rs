//! Keeps the newest rows.
//!
//! History keeps 200 incarnations of an office, however old: 90 days can be told only by a clock
//! that can be trusted, and there is none.

use std::time::Duration;

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::records::locks;
use crate::store::Tx;
use crate::{InstanceId, Office, Result};

/// Incarnations kept per office.
const HISTORY_KEPT: i64 = 200;

/// Keeps the newest incarnations of an office, however long ago they were: a clock that is wrong
/// once would delete all that came before (FIELD-BUGS row 129). Of an anchor that is still held one
/// row stays: without any it would look like one whose store was lost.
pub(crate) fn prune_history(
    tx: &Tx<'_>,
    office: &Office,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    const OLD: &str = "WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL
          AND id <= (SELECT id FROM instances WHERE profile = ?1 AND kind = ?2
                     ORDER BY id DESC LIMIT 1 OFFSET ?3)";
    let kept = if planted(Fault::HistoryForgotten) { 1 } else { HISTORY_KEPT };
    let parameters = (office.profile.as_str(), office.kind.as_str(), kept);
    delete_unless_held(tx, OLD, parameters, is_held)
}

/// How many rows one pruning deletes: as a rule there are a few.
const DELETED_AT_ONCE: usize = 500;

/// How long one pruning looks for them: of whoever holds an anchor that no live row names a row
/// stays.
const PRUNED_WITHIN: Duration = Duration::from_millis(10);

/// Deletes some of the rows that `which` selects, but for the youngest row of an anchor that is
/// held.
fn delete_unless_held(
    tx: &Tx<'_>,
    which: &str,
    parameters: impl rusqlite::Params,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    let sql = format!(
        "SELECT id, anchor, EXISTS (
             SELECT 1 FROM instances AS live
             WHERE live.anchor = instances.anchor AND live.ended_at_ms IS NULL
         ) OR EXISTS (
             SELECT 1 FROM instances AS younger
             WHERE younger.anchor = instances.anchor AND younger.ended_at_ms IS NOT NULL
               AND younger.id > instances.id)
         FROM instances {which}"
    );
    let until = Deadline::after(PRUNED_WITHIN);
    let mut over: Vec<i64> = Vec::new();
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query(parameters)?;
    // Not those that are looked at: many that have to stay would be in the way of the others for
    // ever.
    while over.len() < DELETED_AT_ONCE
        && let Some(row) = rows.next()?
    {
        let (anchor, is_named_again): (Option<String>, bool) = (row.get(1)?, row.get(2)?);
        if is_named_again || !anchor.is_some_and(|anchor| is_held(&anchor)) {
            over.push(row.get(0)?);
        }
        if until.has_passed() {
            break;
        }
    }
    drop(rows);
    for id in over {
        // With the row its locks would go, however many they are.
        if !locks::end_left_of(tx, InstanceId(id))? {
            tx.prepare_cached("DELETE FROM instances WHERE id = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

/// Keeps the newest rows without an office, and those whose anchor is held, as [`prune_history`]
/// does. The index by which the live ones are found has the ended ones by their times, which a
/// wrong clock may have made. There are hardly more than are kept, so they are sorted.
pub(crate) fn prune_without_office(tx: &Tx<'_>, is_held: impl Fn(&str) -> bool) -> Result<()> {
    const OLD: &str = "WHERE kind IS NULL AND ended_at_ms > -9223372036854775808
          AND id <= (
            SELECT id FROM instances WHERE kind IS NULL AND ended_at_ms > -9223372036854775808
            ORDER BY id DESC LIMIT 1 OFFSET ?1)";
    // And one that lives: whoever prunes has just taken something, or waited.
    delete_unless_held(tx, OLD, [HISTORY_KEPT - 1], is_held)
}
