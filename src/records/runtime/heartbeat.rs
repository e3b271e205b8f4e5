//! Heartbeats, and whether one is overdue.
//!
//! They are counted on the boot clock and written from a thread of their own, so that neither a
//! stepped clock nor a slow disk makes a gateway look dead to those who watch it. Beside each
//! stands for how long the machine had been suspended by then: nobody beats in a suspend, and a
//! laptop that woke up has missed none (FIELD-BUGS row 128). Two missing ones are reported, and
//! that is all.

use std::time::Duration;

use rusqlite::Connection;

use crate::clock::of_millis;
use crate::records::instances::Record;
use crate::records::runtime::said::RuntimeStatus;
use crate::records::runtime::write::Speaker;
use crate::records::runtime::{ASLEEP, MEMORY, has};
use crate::store::{BootTime, Inner, Tx};
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
    Err(Error::invalid(format!("a heartbeat every {} ms is out of range", cadence.as_millis()))
        .with_hint("at least 10 ms, at most 24 h"))
}

impl Speaker<'_> {
    /// Takes back the promise of a next sign of life.
    pub(crate) fn promise_nothing(&self, tx: &Tx<'_>) -> Result<()> {
        tx.prepare_cached("UPDATE instances SET heartbeat_every_ms = NULL WHERE id = ?1")?
            .execute([self.id.0])?;
        Ok(())
    }

    /// Records a sign of life, the time within which the next one is promised, and what it has in
    /// memory.
    pub(crate) fn beat(
        &self,
        tx: &Tx<'_>,
        every_ms: Option<i64>,
        memory_bytes: Option<u64>,
    ) -> Result<()> {
        // By number: the older ones leave some of them out.
        const SQL: &str = "INSERT INTO runtime_status (instance_id, heartbeat_boot_ms,
                heartbeat_asleep_ms, memory_bytes, writer, writer_pid, updated_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET heartbeat_boot_ms = excluded.heartbeat_boot_ms,
                heartbeat_asleep_ms = excluded.heartbeat_asleep_ms,
                memory_bytes = excluded.memory_bytes";
        const BEFORE_SCHEMA_10: &str = "INSERT INTO runtime_status (instance_id, heartbeat_boot_ms,
                heartbeat_asleep_ms, writer, writer_pid, updated_at_ms)
             VALUES (?1, ?2, ?3, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET heartbeat_boot_ms = excluded.heartbeat_boot_ms,
                heartbeat_asleep_ms = excluded.heartbeat_asleep_ms";
        const BEFORE_SCHEMA_9: &str = "INSERT INTO runtime_status (instance_id, heartbeat_boot_ms,
                writer, writer_pid, updated_at_ms)
             VALUES (?1, ?2, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET heartbeat_boot_ms = excluded.heartbeat_boot_ms";
        tx.prepare_cached(
            "UPDATE instances SET heartbeat_at_ms = ?2,
                heartbeat_every_ms = coalesce(?3, heartbeat_every_ms)
             WHERE id = ?1",
        )?
        .execute((self.id.0, tx.now_ms(), every_ms))?;
        let mut statement = match tx.prepare_cached(SQL) {
            Ok(statement) => statement,
            Err(error) if has(tx, MEMORY)? => return Err(error.into()),
            Err(_) if has(tx, ASLEEP)? => tx.prepare_cached(BEFORE_SCHEMA_10)?,
            Err(_) => tx.prepare_cached(BEFORE_SCHEMA_9)?,
        };
        statement.execute((
            self.id.0,
            tx.boot_time().ms,
            tx.store().clock().asleep_ms().max(0),
            memory_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
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
    inner: &Inner,
    record: &Record,
    runtime: Option<&RuntimeStatus>,
) -> Option<Duration> {
    let every_ms = record.heartbeat_every_ms?;
    let (now, asleep_ms) = (inner.boot_time(), inner.clock().asleep_ms());
    let silent_ms = silent_ms(record, runtime, now, asleep_ms)?;
    (silent_ms > every_ms.saturating_mul(2)).then(|| of_millis(silent_ms))
}

/// How long ago the owner of `record` last gave a sign of life, in milliseconds, without what the
/// machine was suspended for since (`asleep_ms`: since its start); `None` when it has promised
/// none, or it cannot be told.
fn silent_ms(
    record: &Record,
    runtime: Option<&RuntimeStatus>,
    now: BootTime<'_>,
    asleep_ms: i64,
) -> Option<i64> {
    record.heartbeat_every_ms?;
    let same_boot = record.boot_id.is_some() && record.boot_id.as_deref() == now.boot_id;
    let by_boot_clock = runtime.filter(|_| same_boot).and_then(|runtime| {
        let at_ms = runtime.heartbeat_boot_ms.filter(|at_ms| *at_ms <= now.ms)?;
        let since_ms = now.ms - at_ms;
        let then_ms = runtime.heartbeat_asleep_ms.unwrap_or(asleep_ms);
        Some(since_ms - asleep_ms.saturating_sub(then_ms).clamp(0, since_ms))
    });
    // Before the first one: since it began. A time that no clock shows yet is no sign of life.
    by_boot_clock.or_else(|| {
        let wall_ms = now.wall_ms;
        let at_ms = record.heartbeat_at_ms.filter(|at_ms| (0..=wall_ms).contains(at_ms));
        let since_ms = at_ms.unwrap_or(record.started_at_ms);
        (0..=wall_ms).contains(&since_ms).then_some(wall_ms - since_ms)
    })
}
