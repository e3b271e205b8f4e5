//! Heartbeats, and whether one is overdue.
//!
//! They are counted on the boot clock and written from a thread of their own, so that neither a
//! stepped clock nor a slow disk makes a gateway look dead to those who watch it. Two missing ones
//! are reported, and that is all.

use std::time::Duration;

use rusqlite::Connection;

use crate::clock::of_millis;
use crate::records::instances::Record;
use crate::records::runtime::said::RuntimeStatus;
use crate::records::runtime::write::Speaker;
use crate::store::{BootTime, Tx};
use crate::{Error, InstanceId, Result};

/// The shortest and the longest cadence of heartbeats: each is a write, and somebody watches for
/// them.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

const HEARTBEAT_MAX: Duration = Duration::from_hours(24);

/// A cadence that somebody can be held to.
pub(crate) fn check_cadence(cadence: Duration) -> Result<()> {
    if (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&cadence) {
        return Ok(());
    }
    Err(Error::invalid(format!("no heart beats every {} ms", cadence.as_millis()))
        .with_hint("at least 10 ms, at most 24 h"))
}

impl Speaker<'_> {
    /// Takes back the promise of a next sign of life.
    pub(crate) fn promise_nothing(&self, tx: &Tx<'_>) -> Result<()> {
        tx.prepare_cached("UPDATE instances SET heartbeat_every_ms = NULL WHERE id = ?1")?
            .execute([self.id.0])?;
        Ok(())
    }

    /// Records a sign of life, and the time within which the next one is promised.
    pub(crate) fn beat(&self, tx: &Tx<'_>, every_ms: Option<i64>) -> Result<()> {
        tx.prepare_cached(
            "UPDATE instances SET heartbeat_at_ms = ?2,
                heartbeat_every_ms = coalesce(?3, heartbeat_every_ms)
             WHERE id = ?1",
        )?
        .execute((self.id.0, tx.now_ms(), every_ms))?;
        tx.prepare_cached(
            "INSERT INTO runtime_status (instance_id, heartbeat_boot_ms, writer, writer_pid,
                updated_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET heartbeat_boot_ms = excluded.heartbeat_boot_ms",
        )?
        .execute((
            self.id.0,
            tx.boot_time().ms,
            self.writer,
            self.writer_pid,
            tx.now_ms(),
        ))?;
        Ok(())
    }
}

/// Whether an instance had said that it is starting, and nothing since.
pub(crate) fn is_starting(connection: &Connection, id: InstanceId) -> Result<bool> {
    if !crate::records::runtime::exists(connection)? {
        return Ok(false);
    }
    let starting = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM runtime_status
                            WHERE instance_id = ?1 AND state = 'starting')",
        )?
        .query_row([id.0], |row| row.get(0))?;
    Ok(starting)
}

/// For how long the owner of `record` has been unresponsive: it missed two of the
/// heartbeats that it promised.
pub(crate) fn unresponsive_for(
    record: &Record,
    runtime: Option<&RuntimeStatus>,
    now: BootTime<'_>,
    wall_ms: i64,
) -> Option<Duration> {
    let every_ms = record.heartbeat_every_ms?;
    let silent_ms = crate::records::runtime::silent_ms(record, runtime, now, wall_ms)?;
    (silent_ms > every_ms.saturating_mul(2)).then(|| of_millis(silent_ms))
}
