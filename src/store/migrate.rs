//! The schema: append-only migrations, applied by a process that opens the store for owning.
//!
//! Schema 7 and version 0.1: `min_writer` is 7, so a 0.1 program goes on reading, holds what it
//! holds, and says `TooNew` when it writes. A live 0.1 `run` goes on after an upgrade; its end and
//! a 0.1 `stop` are not recorded; a 0.1 start is refused with that reason. Rows without
//! `written_by` are judged as rows of version 0.1: a `run` that was killed in another container is
//! dead there, whatever its command does. Nobody is ended because of a row without an inode.
//!
//! A question does not migrate. So each question about a newer table or column asks first whether
//! it is there (`records::locks::exists` and the like).

use std::collections::HashSet;

use rusqlite::{Connection, TransactionBehavior};

use crate::environment::{Fault, planted};
use crate::error::{self, Error, ErrorKind, Result};
use crate::names::hex;

/// "INCB", in the SQLite header at offset 68: this file is ours.
pub(crate) const APPLICATION_ID: i32 = 0x494e_4342;

struct Migration {
    sql: &'static str,
    /// The oldest schema version that may go on writing once this migration is applied. An
    /// additive migration repeats its predecessor's, so that an older binary keeps working.
    min_writer: i64,
}

/// Never change or remove an entry: stores in the field have applied it. Entry `i` leads to
/// schema version `i + 1`.
const MIGRATIONS: [Migration; 12] = [
    Migration { sql: include_str!("../../migrations/0001_offices.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0002_scoped_locks.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0003_markers.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0004_runtime_status.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0005_shutdowns.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0006_legacy.sql"), min_writer: 1 },
    // A program of before would give away what a living command or a lost keeper still keeps.
    Migration { sql: include_str!("../../migrations/0007_identity.sql"), min_writer: 7 },
    Migration { sql: include_str!("../../migrations/0008_slots.sql"), min_writer: 7 },
    Migration { sql: include_str!("../../migrations/0009_asleep.sql"), min_writer: 7 },
    Migration {
        sql: concat!(
            include_str!("../../migrations/0010_counters_memory.sql"),
            include_str!("../../migrations/0010_history_counted.sql"),
        ),
        min_writer: 7,
    },
    Migration { sql: include_str!("../../migrations/0011_exit_seen.sql"), min_writer: 7 },
    Migration { sql: include_str!("../../migrations/0012_fewer_pages.sql"), min_writer: 7 },
];

/// What fills the counters of migration 10 from the history.
pub(super) const COUNT_HISTORY: &str = include_str!("../../migrations/0010_history_counted.sql");

/// The schema version this program writes.
#[allow(clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub(crate) const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Whether a number may be a schema version of some program, also of one that comes after this. A
/// later one may close a store to older writers without changing its schema.
pub(crate) fn is_a_version(number: i64) -> bool {
    /// There were seven in the first year.
    const VERSION_MAX: i64 = 9_999;
    number <= VERSION_MAX
}

/// What an existing file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing has been committed to it: a store that is being made, or an empty file.
    Empty,
    /// One of ours, at this schema version.
    Store { schema_version: i64 },
}

/// Looks whether the database is ours, without changing it.
pub(crate) fn inspect(connection: &Connection) -> Result<Contents> {
    // One snapshot: between two looks another first start may commit its migration.
    let _snapshot =
        connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose()?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application_id = pragma("application_id")?;
    let schema_version = pragma("user_version")?;
    if application_id == i64::from(APPLICATION_ID) {
        check_schema_version(connection, schema_version)?;
        return Ok(Contents::Store { schema_version });
    }
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application_id == 0 && schema_version == 0 && objects == 0 {
        return Ok(Contents::Empty);
    }
    let has_our_tables: bool = connection.query_row(
        "SELECT count(*) = 3 FROM sqlite_schema
         WHERE type = 'table' AND name IN ('meta', 'profiles', 'instances')",
        [],
        |row| row.get(0),
    )?;
    if has_our_tables {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("the store has lost its mark (application id {application_id})"),
        )
        .with_hint(error::RECOVER));
    }
    Err(Error::new(
        ErrorKind::NotOurs,
        format!(
            "this SQLite database belongs to another program (application id {application_id})"
        ),
    )
    .with_flag_hint("name another file", "--db PATH", "; this one was left as it is"))
}

/// Refuses a store that has what a later version of the schema made: its number is damaged, and
/// what is there already cannot be made.
fn check_schema_version(connection: &Connection, schema_version: i64) -> Result<()> {
    if schema_version >= SCHEMA_VERSION {
        return Ok(());
    }
    let made = made_by(schema_version)?;
    let found: HashSet<Part> = parts(connection)?.into_iter().collect();
    let later = made_by(SCHEMA_VERSION)?;
    let is_of_later = |part: &Part| !made.contains(part) && found.contains(part);
    let Some((name, _)) = later.into_iter().find(is_of_later) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the store says that it has schema version {schema_version}, but it has what a later \
             one made: {name}"
        ),
    )
    .with_hint(error::RECOVER))
}

/// A table, view, index or trigger, and the words that made it.
type Part = (String, Option<String>);

fn parts(connection: &Connection) -> rusqlite::Result<Vec<Part>> {
    const SQL: &str = "SELECT type || ' ' || name, sql FROM sqlite_schema
         WHERE name NOT LIKE 'sqlite_%' ORDER BY rowid";
    connection.prepare(SQL)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The schema of one version, as it was made.
fn made_by(schema_version: i64) -> Result<Vec<Part>> {
    Ok(parts(&in_memory(schema_version)?)?)
}

/// A database that has the schema of one version, and nothing else.
pub(crate) fn in_memory(schema_version: i64) -> Result<Connection> {
    let connection = Connection::open_in_memory()?;
    let applied = usize::try_from(schema_version).unwrap_or(0).min(MIGRATIONS.len());
    for migration in &MIGRATIONS[..applied] {
        connection.execute_batch(migration.sql)?;
    }
    Ok(connection)
}

/// What of the schema of `schema_version` is not in the database as it was made, because its text
/// was damaged. What a newer program made it may have changed.
pub(crate) fn missing_from_schema(
    connection: &Connection,
    schema_version: i64,
) -> Result<Option<String>> {
    if schema_version > SCHEMA_VERSION {
        return Ok(None);
    }
    let found: HashSet<Part> = parts(connection)?.into_iter().collect();
    let missing = made_by(schema_version)?.into_iter().find(|part| !found.contains(part));
    Ok(missing.map(|(name, _)| name))
}

/// Brings the schema up to date. The exclusive transaction comes first and the version is read
/// inside it, so that of two first starts one migrates and the other finds the work done.
///
/// `lost_owners` is what a new store has to know of those who were in the one before it.
pub(crate) fn migrate(
    connection: &mut Connection,
    now_ms: i64,
    lost_owners: impl FnOnce() -> Result<Option<String>>,
) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let applied = match inspect(&transaction)? {
        Contents::Empty => 0,
        Contents::Store { schema_version } => schema_version,
    };
    let pending = usize::try_from(applied)
        .ok()
        .and_then(|applied| MIGRATIONS.get(applied..))
        .unwrap_or_default();
    if pending.is_empty() {
        return Ok(());
    }
    for migration in pending {
        transaction.execute_batch(migration.sql)?;
        set_meta(&transaction, "min_writer", migration.min_writer)?;
    }
    if applied == 0 {
        let mut uuid = [0; 16];
        getrandom::fill(&mut uuid)
            .map_err(|error| Error::internal(format!("cannot draw random bits: {error}")))?;
        set_meta(&transaction, "store_uuid", hex(&uuid))?;
        set_meta(&transaction, "created_at_ms", now_ms)?;
        set_meta(&transaction, "last_id", 0)?;
        if let Some(lost_owners) = lost_owners()? {
            set_meta(&transaction, "lost_owners", lost_owners)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.execute(
        "INSERT INTO events (at_ms, event, pid, detail)
         VALUES (?1, 'store_migrated', ?2, json_object('from', ?3, 'to', ?4, 'by', ?5))",
        (
            now_ms,
            std::process::id(),
            applied,
            SCHEMA_VERSION,
            concat!("incumbent ", env!("CARGO_PKG_VERSION")),
        ),
    )?;
    transaction.commit()?;
    Ok(())
}

fn set_meta(connection: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )?;
    Ok(())
}

pub(super) fn check_min_writer(min_writer: i64) -> Result<()> {
    if min_writer <= SCHEMA_VERSION || planted(Fault::NewerStoreWritten) {
        return Ok(());
    }
    if !is_a_version(min_writer) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the store says that it is closed to writers before version {min_writer}, which no \
                 program has"
            ),
        )
        .with_hint(error::RECOVER));
    }
    Err(Error::new(
        ErrorKind::TooNew,
        format!(
            "this program is too old to write to the store: it writes schema version \
             {SCHEMA_VERSION}, and a newer incumbent requires version {min_writer}"
        ),
    )
    .with_hint("upgrade this program; it can still read the store"))
}
