//! How every connection is set up: one row per setting, each with its reason, each read back.
//!
//! A power loss may lose the last transactions (`synchronous = NORMAL`); it ends every owner, too.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::{busy, control};
use crate::sys::wal_index;
use crate::{Error, Result};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write(Durability),
}

/// What survives a power loss. A crash of the process or a kill loses nothing either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The last transactions may be lost with the power. It kills every owner anyway, so no
    /// ownership is lost with them.
    #[default]
    Normal,
    /// Every transaction is synced to disk: about ten times slower.
    Full,
}

struct Pragma {
    name: &'static str,
    value: i64,
    for_writers_only: bool,
}

/// Settings that SQLite accepts in silence even where it ignores them: each is read back.
fn pragmas(durability: Durability) -> [Pragma; 4] {
    [
        // NORMAL = 1, FULL = 2.
        Pragma {
            name: "synchronous",
            value: match durability {
                Durability::Normal => 1,
                Durability::Full => 2,
            },
            for_writers_only: true,
        },
        // Waiters and locks end with their instance.
        Pragma { name: "foreign_keys", value: 1, for_writers_only: true },
        // A forged schema must not run code of its choosing in our process.
        Pragma { name: "trusted_schema", value: 0, for_writers_only: false },
        // A WAL that grew in a storm is cut back at the next checkpoint.
        Pragma { name: "journal_size_limit", value: 4 << 20, for_writers_only: true },
    ]
}

/// A connection that is not set up yet.
pub(crate) fn open(file: &Path, access: Access) -> Result<Connection> {
    wal_index::prepare();
    // No URI names: a path is a path. NOFOLLOW: links were resolved and judged once, before.
    let common = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let flags = common
        | match access {
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            // Never CREATE: the file is made beforehand, with its mode and owner.
            Access::Write(_) => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
    Ok(Connection::open_with_flags(file, flags)?)
}

/// Sets up a fresh connection. Runs under a busy budget.
pub(crate) fn apply(connection: &Connection, access: Access) -> Result<()> {
    // Before anything is read: from then on it is locked.
    wal_index::guard(connection)?;
    connection.busy_handler(Some(busy::handler))?;
    #[cfg(test)]
    super::tally::watch(connection);
    // The sidecars outlive the last close: readers without write permission, read-only mounts and
    // full disks can still read (FIELD-BUGS rows 36, 73, 78).
    control::persist_wal(connection)?;
    control::grow_in_pieces(connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // A plan never hangs on the values that are bound to it: otherwise SQLite compiles each
    // statement with `LIMIT ?` again whenever it is used, which costs more than to run it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Nobody attaches a second file through our connections.
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    // A question leaves no trace, and the last one to close must not lock the whole database for
    // its checkpoint: `sqlite3 -readonly` has no patience. Writers checkpoint as they go, see
    // `checkpoint`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let durability = match access {
        Access::Read => Durability::Normal,
        Access::Write(durability) => durability,
    };
    for pragma in pragmas(durability) {
        if pragma.for_writers_only && access == Access::Read {
            continue;
        }
        connection.pragma_update(None, pragma.name, pragma.value)?;
        let set: i64 = connection.pragma_query_value(None, pragma.name, |row| row.get(0))?;
        if set != pragma.value {
            return Err(Error::internal(format!(
                "SQLite keeps {} at {set} instead of {}",
                pragma.name, pragma.value
            )));
        }
    }
    Ok(())
}

/// Moves the WAL into the database, if that takes no time; then the next write starts it over
/// (`RESTART`), or it is emptied (`TRUNCATE`: the first one to open an idle store reads all of it).
/// `PASSIVE` keeps nobody out, `NOOP` only asks. Whether all of it is in the database: not while a
/// reader needs what was before.
pub(crate) fn checkpoint(connection: &Connection, how: &str) -> bool {
    let pragma = format!("PRAGMA wal_checkpoint({how})");
    let moved = connection.query_row(&pragma, [], |row| {
        let (is_busy, frames, moved): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!is_busy && frames == moved)
    });
    moved.unwrap_or_else(|error| {
        tracing::debug!(%error, "the WAL is left as it is");
        false
    })
}

/// Puts the database into WAL mode, if it is not, and checks that it is.
pub(crate) fn ensure_wal(connection: &Connection) -> Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(Error::internal(format!("SQLite keeps journal mode {mode:?} instead of WAL"))
        .with_flag_hint("put the store on a local filesystem", "--db PATH", ""))
}
