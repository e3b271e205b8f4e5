//! The locks that an owner holds, as they are shown.

use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;

use crate::clock::{as_millis, as_rfc3339, of_millis};
use crate::names::slot::Slot;
use crate::records::{LockRow, locks};
use crate::store::Inner;
use crate::{InstanceId, LockName, Result};
use std::time::Duration;

/// A lock, as the status of its holder shows it. In JSON an object with these fields, with `scope`
/// and `identity_hash` in place of the name, `acquired_at` (RFC 3339, UTC, milliseconds) and
/// `lease_remaining_ms`; later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HeldLock {
    /// Which one.
    #[serde(flatten)]
    pub name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub slot: Option<Slot>,
    /// Its fence.
    pub fence: i64,
    /// When it was acquired: Unix milliseconds, wall time.
    #[serde(rename = "acquired_at", serialize_with = "as_rfc3339")]
    pub acquired_at_ms: i64,
    /// What is left of its lease; zero once it is over, `None` without a lease.
    #[serde(rename = "lease_remaining_ms", serialize_with = "as_millis")]
    pub lease_remaining: Option<Duration>,
    /// What the holder says about it.
    pub metadata: Option<Value>,
}

impl HeldLock {
    fn of(inner: &Inner, row: LockRow) -> Self {
        Self {
            lease_remaining: remaining(inner, &row),
            name: row.name,
            slot: row.slot,
            fence: row.fence,
            acquired_at_ms: row.acquired_at_ms,
            metadata: row.metadata,
        }
    }
}

pub(crate) fn remaining(inner: &Inner, row: &LockRow) -> Option<Duration> {
    row.lease_remaining_ms(inner.observer(), inner.clock().boot_ms()).map(of_millis)
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
