//! What a keeper keeps, and what it sees of it.

use rusqlite::Connection;

use crate::Result;
use crate::records::{LockRow, Record, instances, locks};

/// A row on our anchor, and the locks that were taken from it.
#[derive(Clone)]
pub(crate) struct KeptRow {
    pub(super) record: Record,
    pub(super) locks: Vec<LockRow>,
}

/// What a look at the store shows.
pub(crate) enum StoreLook {
    Rows(Vec<KeptRow>),
    /// Rows are not deleted while they live, and locks not without a trace: it is an older copy.
    IsOlder,
    /// The same, and it is not known to us what it lacks (FIELD-BUGS row 97).
    LacksAGrant,
}

impl KeptRow {
    /// Whether the grant with this fence is one that we have seen.
    pub(super) fn has_grant(&self, fence: i64) -> bool {
        self.record.id.as_i64() == fence || self.locks.iter().any(|row| row.fence == fence)
    }

    /// Whether the row, or one of its locks, is gone without having ended.
    pub(super) fn is_missing(&self, connection: &Connection) -> Result<bool> {
        let Some(record) = self.find(connection)? else { return Ok(true) };
        if !record.is_live() {
            return Ok(false);
        }
        for row in &self.locks {
            let fence = locks::fence_at(connection, &row.name, row.slot)?;
            let is_there = fence.is_some_and(|fence| fence >= row.fence);
            if !is_there && locks::how_it_ended(connection, row.instance, row.fence)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The row itself, live or ended; `None` in a store that does not have it.
    pub(super) fn find(&self, connection: &Connection) -> Result<Option<Record>> {
        let found = instances::by_id(connection, self.record.id)?;
        Ok(found.filter(|record| record.nonce_hash == self.record.nonce_hash))
    }
}
