//! The locks that an owner holds, as they are shown.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::names::slot::Slot;
use crate::records::{LockRow, locks};
use crate::store::Inner;
use crate::{InstanceId, LockName, Result};

/// A lock, as the status of its holder shows it.
#[derive(Clone, Debug)]
pub struct HeldLock {
    /// Which one.
    pub name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub slot: Option<Slot>,
    /// Its fence.
    pub fence: i64,
    /// Unix milliseconds, wall time.
    pub acquired_at_ms: i64,
    /// What is left of its lease, in milliseconds, if it has one; 0 once it is over.
    pub lease_remaining_ms: Option<i64>,
    /// What the holder says about it.
    pub metadata: Option<Value>,
}

impl HeldLock {
    fn of(inner: &Inner, row: LockRow) -> Self {
        Self {
            lease_remaining_ms: remaining_ms(inner, &row),
            name: row.name,
            slot: row.slot,
            fence: row.fence,
            acquired_at_ms: row.acquired_at_ms,
            metadata: row.metadata,
        }
    }

    /// The lock as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "scope": self.name.scope.as_str(),
            "identity_hash": self.name.identity_hash.as_str(),
            "slot": Slot::json(self.slot),
            "fence": self.fence,
            "acquired_at": rfc3339(self.acquired_at_ms),
            "lease_remaining_ms": self.lease_remaining_ms,
            "metadata": self.metadata,
        })
    }
}

pub(crate) fn remaining_ms(inner: &Inner, row: &LockRow) -> Option<i64> {
    row.lease_remaining_ms(inner.observer(), inner.clock().boot_ms())
}

/// The locks that were taken from one row.
pub(crate) fn held_by(
    inner: &Inner,
    connection: &Connection,
    instance: InstanceId,
) -> Result<Vec<HeldLock>> {
    let rows = locks::of_instance(connection, instance)?;
    Ok(rows.into_iter().map(|row| HeldLock::of(inner, row)).collect())
}
