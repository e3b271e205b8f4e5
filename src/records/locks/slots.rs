//! The slots of a lock that several may hold at once.

use rusqlite::{CachedStatement, Connection, Row, named_params};
use serde_json::Value;

use crate::names::slot::Slot;
use crate::process::Observer;
use crate::records::locks::{COLUMNS, LockRow, NewLock, by_name};
use crate::store::Tx;
use crate::{LockName, Result};

/// Prepares a statement about slots; `None` in a store that does not know of them.
pub(crate) fn prepare_of_slots<'c>(
    connection: &'c Connection,
    sql: &str,
) -> Result<Option<CachedStatement<'c>>> {
    match connection.prepare_cached(sql) {
        Ok(statement) => Ok(Some(statement)),
        Err(error) if has_slots(connection)? => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Whether the store knows of slots.
pub(super) fn has_slots(connection: &Connection) -> Result<bool> {
    let columns: i64 = connection.query_row(
        "SELECT count(*) FROM pragma_table_info('scoped_locks') WHERE name = 'slot_of'",
        [],
        |row| row.get(0),
    )?;
    Ok(columns > 0)
}

/// The locks that several could hold at once, now or since `since_ms`: scopes and hashes.
pub(crate) fn in_slots(connection: &Connection, since_ms: i64) -> Result<Vec<(String, String)>> {
    const SQL: &str = "
        SELECT scope, slot_of FROM scoped_locks WHERE slots > 1
        UNION
        SELECT json_extract(detail, '$.scope'), json_extract(detail, '$.identity_hash')
            FROM events WHERE event = 'lock_acquired' AND at_ms >= ?1
              AND json_extract(detail, '$.slot.of') > 1";
    let Some(mut statement) = prepare_of_slots(connection, SQL)? else { return Ok(Vec::new()) };
    let text = |row: &Row<'_>, index| row.get::<_, Option<String>>(index).ok().flatten();
    let rows = statement
        .query_map([since_ms], |row| {
            Ok((text(row, 0).unwrap_or_default(), text(row, 1).unwrap_or_default()))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// The slots of a lock that are on record as held. A store that does not know of slots has none.
pub(crate) fn slots_of(connection: &Connection, name: &LockName) -> Result<Vec<LockRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scoped_locks WHERE scope = ?1 AND slot_of = ?2 ORDER BY slot"
    );
    let Some(mut statement) = prepare_of_slots(connection, &sql)? else { return Ok(Vec::new()) };
    let names = (name.scope.as_str(), name.identity_hash.as_str());
    let rows: Vec<Option<LockRow>> =
        statement.query_map(names, LockRow::from_row)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// Everybody on record as holding a lock or one of its slots.
pub(crate) fn all_of(connection: &Connection, name: &LockName) -> Result<Vec<LockRow>> {
    let without_slots = by_name(connection, name)?.filter(|row| row.slot.is_none());
    let mut rows: Vec<LockRow> = without_slots.into_iter().collect();
    rows.extend(slots_of(connection, name)?);
    Ok(rows)
}

/// Inserts a slot that nobody holds; returns its fence.
pub(crate) fn insert_slot(
    tx: &Tx<'_>,
    lock: &NewLock<'_>,
    slot: Slot,
    observer: &Observer,
    now_boot_ms: i64,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence,
            acquired_at_ms, ttl_ms, lease_until_ms, lease_boot_id, metadata, slot, slots, slot_of)
         VALUES (:scope, :identity_hash, :instance_id, :fence, :acquired_at_ms, :ttl_ms,
            :lease_until_ms, :lease_boot_id, :metadata, :slot, :slots, :slot_of)";
    let fence = tx.draw_id()?;
    let stored = lock.name.stored(Some(slot));
    tx.prepare_cached(SQL)?.execute(named_params! {
        ":scope": stored.scope.as_str(),
        ":identity_hash": stored.identity_hash.as_str(),
        ":instance_id": lock.instance.as_i64(),
        ":fence": fence,
        ":acquired_at_ms": tx.now_ms(),
        ":ttl_ms": lock.ttl_ms,
        ":lease_until_ms": lock.ttl_ms.map(|ttl_ms| now_boot_ms.saturating_add(ttl_ms)),
        ":lease_boot_id": lock.ttl_ms.and(observer.boot_id.as_deref()),
        ":metadata": lock.metadata.map(Value::to_string),
        ":slot": slot.number,
        ":slots": slot.of,
        ":slot_of": lock.name.identity_hash.as_str(),
    })?;
    Ok(fence)
}
