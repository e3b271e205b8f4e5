//! The rows of the runtime status: all their SQL.
//!
//! Rows belong to one instance, and only its owner writes them. A stored value that no program of
//! ours could have written spoils its own cell: it reads as nothing, is named as damaged, and the
//! next write to its row replaces it.

pub(crate) mod heartbeat;
pub(crate) mod said;
pub(crate) mod serves;
pub(crate) mod write;

use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};
use serde_json::Value;

use crate::clock::rfc3339;
use crate::environment::{Fault, planted};
use crate::{InstanceId, Office, ProfileName, Result, sys};

pub(crate) use self::heartbeat::{check_cadence, is_starting, unresponsive_for};
pub(crate) use self::said::{PlatformStatus, RuntimeStatus};
pub(crate) use self::serves::{served, servers, serves};
pub(crate) use self::write::{Speaker, said_at};

/// Whether there is a runtime status at all: a store that an older version made has none, and what
/// asks or ends something does not migrate it.
pub(crate) fn exists(connection: &Connection) -> Result<bool> {
    Ok(connection.table_exists(None, "runtime_status")?)
}

/// Reads the cells of a row one after the other, and notes those that are damaged. By position,
/// because rusqlite looks a name up among all names each time.
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
    active_agents, extra, heartbeat_boot_ms, heartbeat_asleep_ms, writer, writer_pid,
    updated_at_ms, memory_bytes";

/// Those of them that later versions added: of schema 9, and of schema 10.
const ASLEEP: &str = "heartbeat_asleep_ms";
const MEMORY: &str = "memory_bytes";

/// Prepares a statement that selects [`RUNTIME_COLUMNS`], or some of them. A store of an older
/// version lacks a few, which read as absent there.
fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    let refused = match connection.prepare_cached(sql) {
        Ok(statement) => return Ok(statement),
        Err(error) => error,
    };
    let mut older = sql.to_owned();
    for column in [ASLEEP, MEMORY] {
        if !has(connection, column)? {
            older = older.replace(column, "NULL");
        }
    }
    if older == sql {
        return Err(refused.into());
    }
    Ok(connection.prepare_cached(&older)?)
}

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
            heartbeat_asleep_ms: cells.parse(ASLEEP, |ms: i64| (ms >= 0).then_some(ms)),
            writer: cells.text("writer"),
            writer_pid: cells.parse("writer_pid", |pid: i64| sys::Pid::try_from(pid).ok()),
            updated_at_ms: cells.time("updated_at_ms"),
            memory_bytes: cells.parse(MEMORY, |bytes: i64| u64::try_from(bytes).ok()),
            damaged: cells.damaged,
        }
    }
}

impl PlatformStatus {
    /// Expects [`PLATFORM_COLUMNS`], in their order.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        // Of the key at least something is to be seen, whatever its bytes are; and no two are
        // alike.
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
    let newest = "?1 ORDER BY updated_at_ms DESC LIMIT 1";
    let whose = if planted(Fault::StatusOfFormer) { newest } else { "instance_id = ?1" };
    let sql = format!("SELECT {RUNTIME_COLUMNS} FROM runtime_status WHERE {whose}");
    let status = prepare(connection, &sql)?
        .query_row([id.0], |row| Ok(RuntimeStatus::from_row(row)))
        .optional()?;
    Ok(status)
}

/// What the instance on record as the holder of an office says of itself; `None` when there is
/// none, or it has said nothing.
pub(crate) fn of_office(connection: &Connection, office: &Office) -> Result<Option<RuntimeStatus>> {
    let sql = format!(
        "SELECT {RUNTIME_COLUMNS} FROM runtime_status WHERE instance_id =
             (SELECT id FROM instances
              WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NULL)"
    );
    let status = prepare(connection, &sql)?
        .query_row((office.profile.as_str(), office.kind.as_str()), |row| {
            Ok(RuntimeStatus::from_row(row))
        })
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

/// How many platforms an instance speaks of, for all profiles.
pub(crate) fn platform_count(connection: &Connection, id: InstanceId) -> Result<i64> {
    let count = connection
        .prepare_cached("SELECT count(*) FROM platform_status WHERE instance_id = ?1")?
        .query_row([id.0], |row| row.get(0))?;
    Ok(count)
}

/// What instances had in memory at their last heartbeats, in bytes; none where the store does not
/// say.
pub(crate) fn memory(connection: &Connection, ids: &[InstanceId]) -> Result<Vec<Option<u64>>> {
    const SQL: &str = "SELECT memory_bytes FROM runtime_status WHERE instance_id = ?1";
    if !exists(connection)? {
        return Ok(vec![None; ids.len()]);
    }
    let mut statement = prepare(connection, SQL)?;
    let mut memory = Vec::with_capacity(ids.len());
    for id in ids {
        let found = statement.query_row([id.0], |row| Ok(row.get::<_, i64>(0).ok())).optional()?;
        memory.push(found.flatten().and_then(|bytes| u64::try_from(bytes).ok()));
    }
    Ok(memory)
}

/// Whether the runtime status has this column: one of an older version, which a status does not
/// migrate, may lack it.
fn has(connection: &Connection, column: &str) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM pragma_table_info('runtime_status') WHERE name = ?1";
    let count: i64 = connection.prepare_cached(SQL)?.query_row([column], |row| row.get(0))?;
    Ok(count > 0)
}
