//! Reads what can be read of a damaged database, row by row, and writes it to a new one.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use super::migrate::{self, SCHEMA_VERSION};
use super::transaction::{ID_MAX, is_store_id};
use crate::Result;

/// More rows than any table of a sound store has by far: pages that lead in circles end there.
const ROWS_MAX: u64 = 1_000_000;

/// What was saved of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) table: String,
    /// Rows that are in the new store now.
    pub(crate) rows: u64,
    /// Rows that could be read, and that no sound store could have.
    pub(crate) refused: u64,
    /// Whether some of it could not be read.
    pub(crate) has_gaps: bool,
}

impl Saved {
    /// Whether something of it is lost.
    pub(crate) fn is_damaged(&self) -> bool {
        self.has_gaps || self.refused > 0
    }
}

/// Fills the tables of `new` from `damaged`, in one transaction.
pub(super) fn save(damaged: &Connection, new: &mut Connection) -> Result<Vec<Saved>> {
    new.pragma_update(None, "foreign_keys", 0)?;
    let transaction = new.transaction()?;
    // It tells its own story.
    transaction.execute("DELETE FROM events", [])?;
    let saved = copy(damaged, &transaction)?;
    drop_what_leans_on_nothing(&transaction)?;
    save_meta(damaged, &transaction)?;
    transaction.commit()?;
    Ok(saved)
}

/// Whether a sound database has rows that no program of ours writes: a damaged value, where the
/// pages are whole. It is tried in memory, because SQLite leaves the CHECKs out of what it verifies
/// for a reader.
pub(crate) fn impossible_rows(connection: &Connection) -> Result<Option<String>> {
    let rehearsal = migrate::in_memory(SCHEMA_VERSION)?;
    rehearsal.pragma_update(None, "foreign_keys", 0)?;
    let refused = copy(connection, &rehearsal)?.into_iter().find(|it| it.refused > 0);
    Ok(refused.map(|it| {
        format!("{} of {} have values that no program writes", rows(it.refused), it.table)
    }))
}

fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

/// Fills the tables of `new`, but for what describes the store itself.
fn copy(damaged: &Connection, new: &Connection) -> Result<Vec<Saved>> {
    /// The trigger that counts each new row of `starts`.
    const COUNTS_ROWS: &str = "count_start";
    let tables: Vec<(String, bool)> = new
        .prepare(
            "SELECT name, wr FROM pragma_table_list
             WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'
                AND name <> 'meta'
             ORDER BY name",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    // What it would count is among the rows already. The others keep two holders of one lock out.
    let counts_rows: String = new.query_row(
        "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?1",
        [COUNTS_ROWS],
        |row| row.get(0),
    )?;
    new.execute_batch(&format!("DROP TRIGGER {COUNTS_ROWS}"))?;
    let mut saved = Vec::new();
    for (table, without_rowid) in tables {
        if let Some(mut copy) = Copy::of(&table, damaged, new)? {
            if without_rowid {
                copy.by_key()?;
            } else {
                copy.by_rowid()?;
            }
            saved.push(copy.saved);
        }
    }
    new.execute_batch(&counts_rows)?;
    // As a migration would have done.
    if !damaged.table_exists(None, "counters").unwrap_or(false) {
        new.execute_batch(migrate::COUNT_HISTORY)?;
    }
    Ok(saved)
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    Complete,
    Broken,
}

/// One table on its way.
struct Copy<'a> {
    damaged: &'a Connection,
    new: &'a Connection,
    columns: String,
    insert: String,
    saved: Saved,
}

impl<'a> Copy<'a> {
    /// `None` where the damaged store has no such table, or does not say what is in it.
    fn of(table: &str, damaged: &'a Connection, new: &'a Connection) -> Result<Option<Self>> {
        let known = columns(damaged, table).unwrap_or_default();
        let shared: Vec<String> =
            columns(new, table)?.into_iter().filter(|name| known.contains(name)).collect();
        if shared.is_empty() {
            return Ok(None);
        }
        let places = vec!["?"; shared.len()].join(", ");
        let columns = shared.join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})");
        let table = table.to_owned();
        let saved = Saved { table, rows: 0, refused: 0, has_gaps: false };
        Ok(Some(Self { damaged, new, columns, insert, saved }))
    }

    /// Goes on behind what cannot be read, first by small steps, then by larger ones; and comes
    /// back from the other end.
    fn by_rowid(&mut self) -> Result<()> {
        const FIRST: i64 = i64::MIN;
        let (columns, table) = (self.columns.clone(), self.saved.table.clone());
        let forward = format!(
            "SELECT {columns}, rowid FROM {table} NOT INDEXED WHERE rowid >= ?1 ORDER BY rowid"
        );
        let (mut next, mut step) = (FIRST, 1_i64);
        let mut last = None;
        loop {
            let before = last;
            if self.scan(&forward, next, |rowid| {
                // Pages that lead in circles.
                let rises = last.is_none_or(|last| rowid > last);
                last = Some(rowid).filter(|_| rises).or(last);
                rises
            })? == Scan::Complete
            {
                break;
            }
            self.saved.has_gaps = true;
            step = if last == before { step.saturating_mul(2) } else { 1 };
            let base = if last == before { next } else { last.unwrap_or(0) };
            let jumped = if base == FIRST { 0 } else { base.saturating_add(step) };
            if jumped == i64::MAX {
                break;
            }
            next = jumped;
        }
        if self.saved.has_gaps {
            let backward = format!(
                "SELECT {columns}, rowid FROM {table} NOT INDEXED WHERE rowid <= ?1
                 ORDER BY rowid DESC"
            );
            let mut last = None;
            self.scan(&backward, i64::MAX, |rowid| {
                let falls = last.is_none_or(|last| rowid < last);
                last = Some(rowid);
                falls
            })?;
        }
        Ok(())
    }

    /// From both ends, up to what cannot be read.
    fn by_key(&mut self) -> Result<()> {
        let (columns, table) = (self.columns.clone(), self.saved.table.clone());
        let key: Vec<String> = self
            .new
            .prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?
            .query_map([&table], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for direction in ["ASC", "DESC"] {
            let order: Vec<String> = key.iter().map(|name| format!("{name} {direction}")).collect();
            let sql = format!(
                "SELECT {columns}, 0 FROM {table} WHERE ?1 = 0 ORDER BY {}",
                order.join(", ")
            );
            if self.scan(&sql, 0, |_| true)? == Scan::Complete {
                return Ok(());
            }
            self.saved.has_gaps = true;
        }
        Ok(())
    }

    /// Saves each row that `sql` yields, as long as `goes_on` with its rowid, its last column.
    fn scan(
        &mut self,
        sql: &str,
        parameter: i64,
        mut goes_on: impl FnMut(i64) -> bool,
    ) -> Result<Scan> {
        let Ok(mut statement) = self.damaged.prepare(sql) else { return Ok(Scan::Broken) };
        let count = statement.column_count() - 1;
        let Ok(mut rows) = statement.query([parameter]) else { return Ok(Scan::Broken) };
        let mut seen = 0;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Scan::Complete),
                Err(_) => return Ok(Scan::Broken),
            };
            seen += 1;
            let Ok(rowid) = row.get(count) else { return Ok(Scan::Broken) };
            if !goes_on(rowid) || seen > ROWS_MAX {
                return Ok(Scan::Broken);
            }
            let Ok(values) = values_of(row, count) else { return Ok(Scan::Broken) };
            let inserted = self.new.prepare_cached(&self.insert)?.execute(params_from_iter(values));
            match inserted {
                // Behind a gap the rows of the other end come once more.
                Ok(0) if self.saved.has_gaps => {}
                Ok(0) => self.saved.refused += 1,
                Ok(_) => self.saved.rows += 1,
                // A value of another type than its column has.
                Err(error)
                    if error.sqlite_error_code()
                        == Some(rusqlite::ErrorCode::ConstraintViolation) =>
                {
                    self.saved.refused += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM pragma_table_info(?1)")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// The first `count` values of a row. Text that is not UTF-8 is taken as far as it goes, not
/// refused.
pub(crate) fn values_of(row: &Row<'_>, count: usize) -> rusqlite::Result<Vec<Value>> {
    (0..count)
        .map(|index| {
            Ok(match row.get_ref(index)? {
                ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Real(number) => Value::Real(number),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            })
        })
        .collect()
}

/// Takes away what belongs to rows that are lost: a lock without its holder would be nobody's.
fn drop_what_leans_on_nothing(new: &Connection) -> Result<()> {
    let links: Vec<(String, String, String, String)> = new
        .prepare(
            "SELECT t.name, f.\"from\", f.\"table\", f.\"to\"
             FROM pragma_table_list AS t JOIN pragma_foreign_key_list(t.name) AS f
             WHERE t.schema = 'main' AND t.type = 'table'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (table, from, parent, to) in links {
        new.execute(
            &format!(
                "DELETE FROM {table}
                 WHERE {from} IS NOT NULL AND {from} NOT IN (SELECT {to} FROM {parent})"
            ),
            [],
        )?;
    }
    Ok(())
}

/// The same store goes on: its id is in the names of the anchors that its owners hold, and numbers
/// go on rising. What cannot be believed begins anew.
fn save_meta(damaged: &Connection, new: &Connection) -> Result<()> {
    let read = |key: &str| -> Option<Value> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        damaged.query_row(sql, [key], |row| row.get(0)).ok()
    };
    let set = |key: &str, value: Value| {
        new.execute("UPDATE meta SET value = ?2 WHERE key = ?1", (key, value))
    };
    if let Some(Value::Text(uuid)) = read("store_uuid")
        && is_store_id(&uuid)
    {
        set("store_uuid", Value::Text(uuid))?;
    }
    if let Some(Value::Integer(version)) = read("min_writer")
        && (1..=SCHEMA_VERSION).contains(&version)
    {
        new.execute("UPDATE meta SET value = max(value, ?1) WHERE key = 'min_writer'", [version])?;
    }
    // Whoever holds an anchor that was deleted goes on with that.
    if let Some(Value::Text(lost)) = read("lost_owners") {
        new.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('lost_owners', ?1)", [lost])?;
    }
    let newest: i64 = new.query_row(
        "SELECT max(coalesce((SELECT max(id) FROM instances), 0),
                    coalesce((SELECT max(fence) FROM scoped_locks), 0))",
        [],
        |row| row.get(0),
    )?;
    let now_us: i64 =
        new.query_row("SELECT value * 1000 FROM meta WHERE key = 'created_at_ms'", [], |row| {
            row.get(0)
        })?;
    let last_id = match read("last_id") {
        Some(Value::Integer(id)) if id > newest && id < ID_MAX => id,
        Some(_) | None => newest,
    };
    set("last_id", Value::Integer(last_id))?;
    if let Some(Value::Integer(created_at_ms)) = read("created_at_ms")
        && (0..=now_us / 1_000).contains(&created_at_ms)
    {
        set("created_at_ms", Value::Integer(created_at_ms))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of this schema version with a holder, 7, whose predecessor crashed.
    fn store(version: i64) -> Connection {
        let store = migrate::in_memory(version).unwrap();
        store
            .execute_batch(
                "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, stop_budget_ms,
                                        started_at_ms, ended_at_ms, end_reason, exit_code)
                 VALUES (6, 'a', 'p', 'gateway', 'run', 1, 1, 1, 2, 'exited', 3),
                        (7, 'b', 'p', 'gateway', 'run', 1, 1, 1, NULL, NULL, NULL);
                 INSERT INTO starts (profile, kind, outcome, pid, counted, at_ms, at_boot_ms)
                 VALUES ('p', 'gateway', 'granted', 1, 0, 1, 1),
                        ('p', 'gateway', 'granted', 1, 0, 1, 1),
                        ('p', 'gateway', 'refused', 1, 0, 1, 1);",
            )
            .unwrap();
        store
    }

    fn counters(store: &Connection) -> Vec<String> {
        store
            .prepare(
                "SELECT concat_ws(' ', name, reason, exit_code, count) FROM counters ORDER BY name",
            )
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap()
    }

    /// Symptom: a damaged store of the schema before was recovered with counters that began at 0,
    /// and one of this schema would have counted its starts twice.
    #[test]
    fn what_was_counted_is_counted_on() {
        for (version, ends) in [(SCHEMA_VERSION, None), (9, Some("ends exited 3 1"))] {
            let (old, new) = (store(version), migrate::in_memory(SCHEMA_VERSION).unwrap());
            copy(&old, &new).unwrap();
            let mut expected = vec!["refusals   1".to_owned(), "starts   2".to_owned()];
            expected.splice(0..0, ends.map(str::to_owned));
            assert_eq!(counters(&new), expected, "{version}");
            new.execute(
                "INSERT INTO starts (profile, kind, outcome, pid, counted, at_ms, at_boot_ms)
                 VALUES ('p', 'gateway', 'granted', 1, 0, 1, 1)",
                [],
            )
            .unwrap();
            assert_eq!(counters(&new).last().map(String::as_str), Some("starts   3"), "{version}");
        }
    }

    /// Two holders of one lock in a damaged store are not both holders in the recovered one.
    #[test]
    fn a_lock_is_not_saved_beside_its_slots() {
        const TRIGGER: &str = "SELECT sql FROM sqlite_schema WHERE name = 'lock_beside_its_slots'";
        let (old, new) = (store(SCHEMA_VERSION), migrate::in_memory(SCHEMA_VERSION).unwrap());
        old.execute_batch(
            "DROP TRIGGER lock_beside_its_slots;
             INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms,
                                       slot, slots, slot_of)
             VALUES ('s', '0000000000000001', 7, 1, 1, 1, 2, '0000000000000009'),
                    ('s', '0000000000000009', 7, 2, 1, NULL, NULL, NULL);",
        )
        .unwrap();
        let saved = copy(&old, &new).unwrap();
        let locks = saved.iter().find(|it| it.table == "scoped_locks").unwrap();
        assert_eq!((locks.rows, locks.refused), (1, 1));
        assert!(new.query_row(TRIGGER, [], |row| row.get::<_, String>(0)).is_ok());
    }
}
