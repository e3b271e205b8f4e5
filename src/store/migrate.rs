//! The schema: append-only migrations, applied by whoever opens the store for owning.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Error, ErrorKind, Result};
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
const MIGRATIONS: [Migration; 5] = [
    Migration { sql: include_str!("../../migrations/0001_offices.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0002_scoped_locks.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0003_markers.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0004_runtime_status.sql"), min_writer: 1 },
    Migration { sql: include_str!("../../migrations/0005_shutdowns.sql"), min_writer: 1 },
];

/// The schema version this program writes.
#[allow(clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub(crate) const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

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
        return Ok(Contents::Store { schema_version });
    }
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application_id == 0 && schema_version == 0 && objects == 0 {
        return Ok(Contents::Empty);
    }
    Err(Error::new(
        ErrorKind::NotOurs,
        format!(
            "this SQLite database belongs to another program (application id {application_id})"
        ),
    )
    .with_hint("name another file with `--db PATH`; this one was left as it is"))
}

/// Brings the schema up to date. The exclusive transaction comes first and the version is read
/// inside it, so that of two first starts one migrates and the other finds the work done.
pub(crate) fn migrate(connection: &mut Connection, now_ms: i64) -> Result<()> {
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
