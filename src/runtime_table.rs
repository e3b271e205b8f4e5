//! The rows of the runtime status: all their SQL.
//!
//! Rows belong to one instance, and only its owner writes them. A stored value that no program of ours
//! could have written spoils its own cell: it reads as nothing, is named as damaged, and the next write
//! to its row replaces it.

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::error::Result;
use crate::instance::Record;
use crate::names::{InstanceId, Kind, Office, ProfileName};
use crate::runtime::{PlatformStatus, RuntimeStatus};
use crate::store::{BootTime, EventRecord, Tx};
use crate::sys;

/// Whether there is a runtime status at all: a store that an older version made has none, and what
/// asks or ends something does not migrate it.
pub(crate) fn exists(connection: &Connection) -> Result<bool> {
    Ok(connection.table_exists(None, "runtime_status")?)
}

/// Reads the cells of a row one after the other, and notes those that are damaged. By position, because
/// rusqlite looks a name up among all names each time.
struct Cells<'a> {
    row: &'a Row<'a>,
    next: usize,
    damaged: Vec<&'static str>,
}

impl Cells<'_> {
    fn take<T: FromSql>(&mut self, name: &'static str) -> Option<T> {
        let index = self.next;
        self.next += 1;
        self.row.get(index).unwrap_or_else(|_| {
            self.damaged.push(name);
            None
        })
    }

    /// A value that passes `parse`, or none.
    fn parse<T: FromSql, U>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(T) -> Option<U>,
    ) -> Option<U> {
        let stored: T = self.take(name)?;
        let parsed = parse(stored);
        if parsed.is_none() {
            self.damaged.push(name);
        }
        parsed
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.take(name)
    }

    fn word(&mut self, name: &'static str) -> Option<String> {
        self.parse(name, |text: String| (!text.is_empty()).then_some(text))
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.parse(name, |number: i64| match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }

    fn json(&mut self, name: &'static str) -> Option<Value> {
        self.parse(name, |text: String| serde_json::from_str(&text).ok())
    }

    /// A wall time that some clock could have shown.
    fn time(&mut self, name: &'static str) -> Option<i64> {
        self.parse(name, |ms: i64| rfc3339(ms).map(|_| ms))
    }
}

const RUNTIME_COLUMNS: &str = "state, state_since_at_ms, exit_reason, restart_requested,
    active_agents, extra, heartbeat_boot_ms, writer, writer_pid, updated_at_ms";

const PLATFORM_COLUMNS: &str = "profile, platform, state, state_since_at_ms, error_code,
    error_message, needs_attention, retrying_since_at_ms, extra, writer, writer_pid, updated_at_ms";

impl RuntimeStatus {
    /// Expects [`RUNTIME_COLUMNS`], in their order.
    fn from_row(row: &Row<'_>) -> Self {
        let mut cells = Cells { row, next: 0, damaged: Vec::new() };
        Self {
            state: cells.word("state"),
            state_since_ms: cells.time("state_since_at_ms"),
            exit_reason: cells.text("exit_reason"),
            restart_requested: cells.flag("restart_requested"),
            active_agents: cells.parse("active_agents", |count: i64| u64::try_from(count).ok()),
            extra: cells.json("extra"),
            heartbeat_boot_ms: cells.parse("heartbeat_boot_ms", |ms: i64| (ms >= 0).then_some(ms)),
            writer: cells.text("writer"),
            writer_pid: cells.parse("writer_pid", |pid: i64| sys::Pid::try_from(pid).ok()),
            updated_at_ms: cells.time("updated_at_ms"),
            damaged: cells.damaged,
        }
    }
}

impl PlatformStatus {
    /// Expects [`PLATFORM_COLUMNS`], in their order.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        // Of the key at least something is to be seen, whatever its bytes are; and no two are alike.
        let key = |index| {
            let bytes =
                row.get_ref(index)?.as_bytes_or_null().unwrap_or_default().unwrap_or_default();
            let text = str::from_utf8(bytes);
            Ok::<_, rusqlite::Error>(
                text.map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned),
            )
        };
        let (profile, platform) = (key(0)?, key(1)?);
        let mut cells = Cells { row, next: 2, damaged: Vec::new() };
        Ok(Self {
            profile,
            platform,
            state: cells.word("state"),
            state_since_ms: cells.time("state_since_at_ms"),
            error_code: cells.text("error_code"),
            error_message: cells.text("error_message"),
            needs_attention: cells.flag("needs_attention"),
            retrying_since_ms: cells.time("retrying_since_at_ms"),
            extra: cells.json("extra"),
            writer: cells.text("writer"),
            writer_pid: cells.parse("writer_pid", |pid: i64| sys::Pid::try_from(pid).ok()),
            updated_at_ms: cells.time("updated_at_ms"),
            damaged: cells.damaged,
        })
    }
}

/// What an instance says of itself; `None` when it has said nothing.
pub(crate) fn runtime(connection: &Connection, id: InstanceId) -> Result<Option<RuntimeStatus>> {
    let sql = format!("SELECT {RUNTIME_COLUMNS} FROM runtime_status WHERE instance_id = ?1");
    let status = connection
        .prepare_cached(&sql)?
        .query_row([id.0], |row| Ok(RuntimeStatus::from_row(row)))
        .optional()?;
    Ok(status)
}

/// What an instance says of its platforms, for its own profile or for one that it serves.
pub(crate) fn platforms(
    connection: &Connection,
    id: InstanceId,
    profile: &ProfileName,
) -> Result<Vec<PlatformStatus>> {
    let sql = format!(
        "SELECT {PLATFORM_COLUMNS} FROM platform_status
         WHERE instance_id = ?1 AND profile = ?2 ORDER BY platform"
    );
    let statuses = connection
        .prepare_cached(&sql)?
        .query_map((id.0, profile.as_str()), PlatformStatus::from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(statuses)
}

pub(crate) fn platform(
    connection: &Connection,
    id: InstanceId,
    profile: &ProfileName,
    platform: &str,
) -> Result<Option<PlatformStatus>> {
    let sql = format!(
        "SELECT {PLATFORM_COLUMNS} FROM platform_status
         WHERE instance_id = ?1 AND profile = ?2 AND platform = ?3"
    );
    let status = connection
        .prepare_cached(&sql)?
        .query_row((id.0, profile.as_str(), platform), PlatformStatus::from_row)
        .optional()?;
    Ok(status)
}

/// The profiles that an instance serves, beside that of its office.
pub(crate) fn serves(connection: &Connection, id: InstanceId) -> Result<Vec<ProfileName>> {
    let names: Vec<Option<String>> = connection
        .prepare_cached("SELECT profile FROM serves WHERE instance_id = ?1 ORDER BY profile")?
        .query_map([id.0], |row| Ok(row.get(0).unwrap_or(None)))?
        .collect::<rusqlite::Result<_>>()?;
    // Names that no program of ours writes are nobody's.
    Ok(names.into_iter().flatten().filter_map(|name| ProfileName::new(name).ok()).collect())
}

/// The offices of the live instances that serve the profile of `office`, the youngest first.
pub(crate) fn servers(connection: &Connection, office: &Office) -> Result<Vec<Office>> {
    let profiles: Vec<Option<String>> = connection
        .prepare_cached(
            "SELECT i.profile FROM serves AS s JOIN instances AS i ON i.id = s.instance_id
             WHERE s.profile = ?1 AND i.kind = ?2 AND i.profile <> ?1 AND i.ended_at_ms IS NULL
             ORDER BY i.id DESC",
        )?
        .query_map((office.profile.as_str(), office.kind.as_str()), |row| {
            Ok(row.get(0).unwrap_or(None))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let office_of = |profile: String| {
        let profile = ProfileName::new(profile).ok()?;
        Some(Office { profile, kind: office.kind.clone() })
    };
    Ok(profiles.into_iter().flatten().filter_map(office_of).collect())
}

/// The offices that are served by live instances, whoever else holds them; and those that the last
/// incarnation of an office served, which nobody may serve now.
pub(crate) fn served(connection: &Connection) -> Result<Vec<Office>> {
    let offices: Vec<Option<Office>> = connection
        .prepare_cached(
            "SELECT DISTINCT s.profile, i.kind
             FROM serves AS s JOIN instances AS i ON i.id = s.instance_id
             WHERE i.kind IS NOT NULL AND (i.ended_at_ms IS NULL OR i.id = (
                 SELECT id FROM instances AS last
                 WHERE last.profile = i.profile AND last.kind = i.kind
                   AND last.ended_at_ms IS NOT NULL ORDER BY id DESC LIMIT 1))",
        )?
        .query_map([], |row| {
            let name = |index| row.get::<_, Option<String>>(index).unwrap_or(None);
            let profile = name(0).and_then(|name| ProfileName::new(name).ok());
            let kind = name(1).and_then(|name| Kind::new(name).ok());
            Ok(profile.zip(kind).map(|(profile, kind)| Office { profile, kind }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(offices.into_iter().flatten().collect())
}

/// Notes that all of what an instance says now was said at another time, in Unix milliseconds.
pub(crate) fn said_at(tx: &Tx<'_>, id: InstanceId, at_ms: i64) -> Result<()> {
    for table in ["runtime_status", "platform_status"] {
        let sql = format!(
            "UPDATE {table} SET updated_at_ms = ?2, state_since_at_ms = min(state_since_at_ms, ?2)
             WHERE instance_id = ?1"
        );
        tx.prepare_cached(&sql)?.execute((id.0, at_ms))?;
    }
    Ok(())
}

/// The row's owner, as events name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) id: InstanceId,
    pub(crate) office: &'a Office,
    pub(crate) pid: Option<sys::Pid>,
    pub(crate) writer: &'a str,
    pub(crate) writer_pid: sys::Pid,
}

impl Owner<'_> {
    fn record(
        &self,
        tx: &Tx<'_>,
        event: &'static str,
        office: &Office,
        detail: Value,
    ) -> Result<()> {
        tx.record(&EventRecord {
            event,
            office: Some(office),
            instance: Some(self.id),
            pid: self.pid,
            detail: Some(detail),
            ..EventRecord::default()
        })
    }

    /// Writes what the instance says of itself now; `before` is what it said until now.
    pub(crate) fn set_runtime(
        &self,
        tx: &Tx<'_>,
        before: Option<&RuntimeStatus>,
        now: &RuntimeStatus,
    ) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO runtime_status (instance_id, state,
                state_since_at_ms, exit_reason, restart_requested, active_agents, extra,
                heartbeat_boot_ms, writer, writer_pid, updated_at_ms)
             VALUES (:instance_id, :state, :state_since, :exit_reason, :restart_requested,
                :active_agents, :extra, :heartbeat, :writer, :writer_pid, :now)";
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":instance_id": self.id.0,
            ":state": now.state,
            ":state_since": now.state_since_ms,
            ":exit_reason": now.exit_reason,
            ":restart_requested": now.restart_requested,
            ":active_agents": now.active_agents.and_then(|count| i64::try_from(count).ok()),
            ":extra": now.extra.as_ref().map(Value::to_string),
            ":heartbeat": now.heartbeat_boot_ms,
            ":writer": self.writer,
            ":writer_pid": self.writer_pid,
            ":now": tx.now_ms(),
        })?;
        if before.unwrap_or(&RuntimeStatus::default()).says_the_same(now) {
            return Ok(());
        }
        self.record(tx, "status_changed", self.office, now.as_event())
    }

    /// Writes what the instance says of one platform now.
    pub(crate) fn set_platform(
        &self,
        tx: &Tx<'_>,
        profile: &ProfileName,
        before: Option<&PlatformStatus>,
        now: &PlatformStatus,
    ) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO platform_status (instance_id, profile, platform,
                state, state_since_at_ms, error_code, error_message, needs_attention,
                retrying_since_at_ms, extra, writer, writer_pid, updated_at_ms)
             VALUES (:instance_id, :profile, :platform, :state, :state_since, :error_code,
                :error_message, :needs_attention, :retrying_since, :extra, :writer, :writer_pid,
                :now)";
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":instance_id": self.id.0,
            ":profile": profile.as_str(),
            ":platform": now.platform,
            ":state": now.state,
            ":state_since": now.state_since_ms,
            ":error_code": now.error_code,
            ":error_message": now.error_message,
            ":needs_attention": now.needs_attention,
            ":retrying_since": now.retrying_since_ms,
            ":extra": now.extra.as_ref().map(Value::to_string),
            ":writer": self.writer,
            ":writer_pid": self.writer_pid,
            ":now": tx.now_ms(),
        })?;
        if before.is_some_and(|before| before.says_the_same(now)) {
            return Ok(());
        }
        self.record(tx, "platform_changed", &self.office_of(profile), now.as_event())
    }

    /// Forgets one platform of a profile; `None`: all of them.
    pub(crate) fn remove_platforms(
        &self,
        tx: &Tx<'_>,
        profile: &ProfileName,
        platform: Option<&str>,
    ) -> Result<()> {
        let removed: Vec<String> = tx
            .prepare_cached(
                "DELETE FROM platform_status
                 WHERE instance_id = ?1 AND profile = ?2 AND (?3 IS NULL OR platform = ?3)
                 RETURNING platform",
            )?
            .query_map((self.id.0, profile.as_str(), platform), |row| {
                Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned())
            })?
            .collect::<rusqlite::Result<_>>()?;
        for platform in removed {
            let detail = json!({"platform": platform});
            self.record(tx, "platform_removed", &self.office_of(profile), detail)?;
        }
        Ok(())
    }

    /// Writes which profiles the instance serves. What it said of the platforms of the others goes.
    pub(crate) fn set_serves(&self, tx: &Tx<'_>, profiles: &[ProfileName]) -> Result<()> {
        let before = serves(tx, self.id)?;
        for profile in before.iter().filter(|profile| !profiles.contains(profile)) {
            tx.prepare_cached("DELETE FROM serves WHERE instance_id = ?1 AND profile = ?2")?
                .execute((self.id.0, profile.as_str()))?;
            if *profile != self.office.profile {
                self.remove_platforms(tx, profile, None)?;
                let detail = json!({"served_by": null});
                self.record(tx, "served_by_changed", &self.office_of(profile), detail)?;
            }
        }
        for profile in profiles {
            tx.prepare_cached(
                "INSERT INTO serves (instance_id, profile, since_at_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
            )?
            .execute((self.id.0, profile.as_str(), tx.now_ms()))?;
            if !before.contains(profile) && *profile != self.office.profile {
                let detail = json!({"served_by": self.office.profile.as_str()});
                self.record(tx, "served_by_changed", &self.office_of(profile), detail)?;
            }
        }
        let now = serves(tx, self.id)?;
        if now == before {
            return Ok(());
        }
        let names: Vec<&str> = now.iter().map(ProfileName::as_str).collect();
        self.record(tx, "serves_changed", self.office, json!({"serves": names}))
    }

    fn office_of(&self, profile: &ProfileName) -> Office {
        Office { profile: profile.clone(), kind: self.office.kind.clone() }
    }

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

/// How many platforms an instance speaks of, for all profiles.
pub(crate) fn platform_count(connection: &Connection, id: InstanceId) -> Result<i64> {
    let count = connection
        .prepare_cached("SELECT count(*) FROM platform_status WHERE instance_id = ?1")?
        .query_row([id.0], |row| row.get(0))?;
    Ok(count)
}

/// Whether an instance had said that it is starting, and nothing since.
pub(crate) fn is_starting(connection: &Connection, id: InstanceId) -> Result<bool> {
    if !exists(connection)? {
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

/// How long ago the owner of `record` last gave a sign of life, in milliseconds; `None` when it has
/// promised none, or it cannot be told.
pub(crate) fn silent_ms(
    record: &Record,
    runtime: Option<&RuntimeStatus>,
    now: BootTime<'_>,
    wall_ms: i64,
) -> Option<i64> {
    record.heartbeat_every_ms?;
    let same_boot = record.boot_id.is_some() && record.boot_id.as_deref() == now.boot_id;
    let by_boot_clock = runtime
        .and_then(|runtime| runtime.heartbeat_boot_ms)
        .filter(|at_ms| same_boot && *at_ms <= now.ms)
        .map(|at_ms| now.ms - at_ms);
    // Before the first one: since it began. A time that no clock shows yet is no sign of life.
    by_boot_clock.or_else(|| {
        let at_ms = record.heartbeat_at_ms.filter(|at_ms| (0..=wall_ms).contains(at_ms));
        let since_ms = at_ms.unwrap_or(record.started_at_ms);
        (0..=wall_ms).contains(&since_ms).then_some(wall_ms - since_ms)
    })
}

/// For how long the owner of `record` has been unresponsive, in milliseconds: it missed two of the
/// heartbeats that it promised.
pub(crate) fn unresponsive_ms(
    record: &Record,
    runtime: Option<&RuntimeStatus>,
    now: BootTime<'_>,
    wall_ms: i64,
) -> Option<u64> {
    let every_ms = record.heartbeat_every_ms?;
    let silent_ms = silent_ms(record, runtime, now, wall_ms)?;
    (silent_ms > every_ms.saturating_mul(2)).then(|| silent_ms.unsigned_abs())
}
