//! Looks rows up.
//!
//! `COLUMNS` here and `Columns` in `row.rs` are read in order. A store of an older version may lack
//! the newer ones.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::process::{Observer, subject};
use crate::records::instances::later::{
    ABSENT_BEFORE_SCHEMA_7, ABSENT_BEFORE_SCHEMA_10, ABSENT_BEFORE_SCHEMA_11, EXIT_SEEN,
};
use crate::records::instances::row::Record;
use crate::sys::{StartTime, StartTimeUnit};
use crate::{InstanceId, Kind, Nonce, Office, ProfileName, Result, sys};

const COLUMNS: &str = "id, nonce_hash, profile, kind, origin, pid, start_time_unit, start_time,
    child_pid, child_start_time, boot_id, pid_ns, host, uid, argv, version, party, supervisor,
    stop_budget_ms, anchor, keeper_pid, started_at_ms, heartbeat_every_ms, heartbeat_at_ms,
    ended_at_ms, end_reason, ended_by, exit_code, signal, detail, anchor_inode, anchor_dev,
    anchor_fsid, process_inode, child_process_inode, keeper_process_inode, child_sid,
    command_lock, command_lock_inode, keeper2_pid, keeper2_start_time, keeper_ended_at_ms,
    written_boot_clock_ms,
    written_by, restarts, command_since_at_ms, command_since_boot_ms, exit_seen_at_ms";

/// The first column that a later version added, with as many absent values as there are from it on:
/// the latest version first.
const LATER: [(&str, &str); 3] = [
    (EXIT_SEEN, ABSENT_BEFORE_SCHEMA_11),
    ("restarts", ABSENT_BEFORE_SCHEMA_10),
    ("anchor_inode", ABSENT_BEFORE_SCHEMA_7),
];

/// Prepares a statement that selects [`COLUMNS`]. Questions do not migrate, so a store of an older
/// version may lack some of them: there they read as absent.
fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    const HAS_IT: &str = "SELECT count(*) FROM pragma_table_info('instances') WHERE name = ?1";
    let mut prepared = connection.prepare_cached(sql);
    for (first, absent) in LATER {
        if prepared.is_ok() {
            break;
        }
        let has_it: i64 = connection.query_row(HAS_IT, [first], |row| row.get(0))?;
        if has_it > 0 {
            break;
        }
        let older = COLUMNS.split_once(first).map_or(COLUMNS, |(older, _)| older);
        prepared = connection.prepare_cached(&sql.replace(COLUMNS, &format!("{older}{absent}")));
    }
    Ok(prepared?)
}

/// The live row of an office, as it was written.
pub(crate) fn live(connection: &Connection, office: &Office) -> Result<Option<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NULL"
    );
    let row = prepare(connection, &sql)?
        .query_row((office.profile.as_str(), office.kind.as_str()), Record::from_row)
        .optional()?;
    Ok(row)
}

/// All live rows for a process that `--pid` recorded, whatever their office. A row that lost its
/// start time is among them; so is what has to be told apart by its anchor. A boot id that differs
/// or is hidden is doubt (FIELD-BUGS rows 91, 103): with an equal start time it is the same
/// process.
pub(crate) fn live_of_pid(
    connection: &Connection,
    pid: sys::Pid,
    start_time: Option<StartTime>,
    observer: &Observer,
) -> Result<Vec<Record>> {
    observer.check_pids()?;
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND origin = 'pid' AND pid = ?1
           AND (start_time = ?2 OR start_time IS NULL)
           AND (start_time = ?2 OR boot_id IS ?3) AND (pid_ns IS ?4 OR pid_ns IS NULL)"
    );
    let rows = prepare(connection, &sql)?
        .query_map(
            (pid, start_time.map(|time| time.value), &observer.boot_id, &observer.pid_ns),
            Record::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// All live rows of a process of this namespace, as its own or as the command of a `run`; offices
/// first. A start time that is not known on either side tells nothing apart.
pub(crate) fn live_of_process(
    connection: &Connection,
    pid: sys::Pid,
    start_time: Option<StartTime>,
    observer: &Observer,
) -> Result<Vec<Record>> {
    observer.check_pids()?;
    // Two searches: one with OR would look at every row.
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND pid = ?1
           AND (?2 IS NULL OR start_time IS NULL OR start_time = ?2)
           AND (start_time = ?2 OR boot_id IS ?3) AND (pid_ns IS ?4 OR pid_ns IS NULL)
         UNION
         SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND child_pid = ?1
           AND (?2 IS NULL OR child_start_time IS NULL OR child_start_time = ?2)
           AND (child_start_time = ?2 OR boot_id IS ?3) AND (pid_ns IS ?4 OR pid_ns IS NULL)"
    );
    let mut rows: Vec<Record> = prepare(connection, &sql)?
        .query_map(
            (pid, start_time.map(|time| time.value), &observer.boot_id, &observer.pid_ns),
            Record::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    rows.sort_by_key(|row| (row.kind.is_none(), row.id));
    Ok(rows)
}

/// The last incarnation that a process of this pid had, as its own or as the command of a `run`,
/// and that has ended.
pub(crate) fn last_of_process(connection: &Connection, pid: sys::Pid) -> Result<Option<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE (pid = ?1 OR child_pid = ?1) AND kind IS NOT NULL AND ended_at_ms IS NOT NULL
         ORDER BY id DESC LIMIT 1"
    );
    Ok(prepare(connection, &sql)?.query_row([pid], Record::from_row).optional()?)
}

/// The rows on record as live that lean on `anchor`.
pub(crate) fn live_on(connection: &Connection, anchor: &str) -> Result<Vec<InstanceId>> {
    let ids = connection
        .prepare_cached("SELECT id FROM instances WHERE anchor = ?1 AND ended_at_ms IS NULL")?
        .query_map([anchor], |row| row.get(0).map(InstanceId))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

/// Every row that is on record as live, with and without an office, the oldest first.
pub(crate) fn all_live(connection: &Connection) -> Result<Vec<Record>> {
    /// More than any machine has processes that matter.
    const READ_MAX: i64 = 10_000;
    // Of any pid, and sorted afterwards: else SQLite would go through the ended ones, too.
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND pid >= -9223372036854775808 ORDER BY +id LIMIT ?1"
    );
    let rows = prepare(connection, &sql)?
        .query_map([READ_MAX], Record::from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Rows for locks that lean on `anchor`, were made by `--pid` before `before_ms`, and have no lock.
pub(crate) fn without_purpose(
    connection: &Connection,
    anchor: &str,
    before_ms: i64,
) -> Result<Vec<InstanceId>> {
    let ids = connection
        .prepare_cached(
            "SELECT id FROM instances AS i
             WHERE anchor = ?1 AND ended_at_ms IS NULL AND kind IS NULL AND origin = 'pid'
               AND started_at_ms < ?2
               AND NOT EXISTS (SELECT 1 FROM scoped_locks WHERE instance_id = i.id)",
        )?
        .query_map((anchor, before_ms), |row| row.get(0).map(InstanceId))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

/// The row as it was written: what was taken from an older gateway is not its successor's.
pub(crate) fn by_id(connection: &Connection, id: InstanceId) -> Result<Option<Record>> {
    let sql = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1");
    let row = prepare(connection, &sql)?.query_row([id.0], Record::from_row).optional()?;
    Ok(row)
}

/// The office of a row and the pid of its holder, if it has one.
pub(crate) fn office_of(
    connection: &Connection,
    id: InstanceId,
) -> Result<Option<(Office, Option<sys::Pid>)>> {
    let row: Option<(Option<String>, Option<String>, Option<i64>)> = connection
        .prepare_cached("SELECT profile, kind, pid FROM instances WHERE id = ?1")?
        .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((Some(profile), Some(kind), pid)) = row else { return Ok(None) };
    // Names that no program of ours writes are nobody's.
    let names = ProfileName::new(profile).ok().zip(Kind::new(kind).ok());
    Ok(names.map(|(profile, kind)| (Office { profile, kind }, pid.and_then(subject::valid_pid))))
}

/// The process that acts for a row: its own, or the command where it is a `run`.
pub(crate) fn acting_process(
    connection: &Connection,
    id: InstanceId,
) -> Result<Option<(sys::Pid, Option<StartTime>)>> {
    const SQL: &str = "SELECT coalesce(child_pid, pid),
             iif(child_pid IS NULL, start_time, child_start_time), start_time_unit
         FROM instances WHERE id = ?1";
    let found = connection
        .prepare_cached(SQL)?
        .query_row([id.0], |row| {
            // A value of another type reads as absent.
            let number = |index| row.get::<_, Option<i64>>(index).unwrap_or(None);
            let unit = row.get::<_, Option<String>>(2).unwrap_or(None);
            let unit = unit.and_then(|unit| StartTimeUnit::parse(&unit));
            let start_time = number(1).zip(unit).map(|(value, unit)| StartTime { value, unit });
            Ok(number(0).and_then(subject::valid_pid).map(|pid| (pid, start_time)))
        })
        .optional()?;
    Ok(found.flatten())
}

/// The live row that `nonce` owns: a `run` goes on in a new store with the one of the old.
pub(crate) fn live_of_nonce(connection: &Connection, nonce: &Nonce) -> Result<Option<Record>> {
    let sql =
        format!("SELECT {COLUMNS} FROM instances WHERE nonce_hash = ?1 AND ended_at_ms IS NULL");
    let row = prepare(connection, &sql)?.query_row([nonce.hash()], Record::from_row).optional()?;
    Ok(row)
}

/// Which incarnations are asked for; `None` is all of them. Times are Unix milliseconds.
#[derive(Debug, Default)]
pub(crate) struct PastSelection<'a> {
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) kind: Option<&'a Kind>,
    /// Who held an office at this time, or later.
    pub(crate) since_ms: Option<i64>,
    /// Who had it by this time.
    pub(crate) until_ms: Option<i64>,
    pub(crate) count_max: Option<usize>,
}

/// The incarnations that are asked for, newest first.
pub(crate) fn history(connection: &Connection, which: &PastSelection<'_>) -> Result<Vec<Record>> {
    // Of one office by its index.
    let of_whom = if which.profile.is_some() && which.kind.is_some() {
        "profile = ?1 AND kind = ?2"
    } else {
        "kind IS NOT NULL AND (?1 IS NULL OR profile = ?1) AND (?2 IS NULL OR kind = ?2)"
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE {of_whom}
           AND (?3 IS NULL OR ended_at_ms IS NULL OR ended_at_ms >= ?3)
           AND (?4 IS NULL OR started_at_ms <= ?4)
         ORDER BY id DESC LIMIT ?5"
    );
    let count_max = which.count_max.map_or(i64::MAX, |it| i64::try_from(it).unwrap_or(i64::MAX));
    let rows = prepare(connection, &sql)?
        .query_map(
            (
                which.profile.map(ProfileName::as_str),
                which.kind.map(Kind::as_str),
                which.since_ms,
                which.until_ms,
                count_max,
            ),
            Record::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Whether a row with this fence or a later one names `anchor`.
pub(crate) fn names_anchor_since(
    connection: &Connection,
    anchor: &str,
    fence: i64,
) -> Result<bool> {
    let named = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM instances
                 WHERE anchor = ?1 AND ended_at_ms IS NULL AND id >= ?2)
              OR EXISTS (SELECT 1 FROM instances
                 WHERE anchor = ?1 AND ended_at_ms IS NOT NULL AND id >= ?2)",
        )?
        .query_row((anchor, fence), |row| row.get(0))?;
    Ok(named)
}

/// The first generation of `office` after `id`.
pub(crate) fn next_generation(
    connection: &Connection,
    office: &Office,
    id: InstanceId,
) -> Result<Option<InstanceId>> {
    let next = connection
        .prepare_cached(
            "SELECT id FROM instances WHERE profile = ?1 AND kind = ?2 AND id > ?3
             ORDER BY id LIMIT 1",
        )?
        .query_row((office.profile.as_str(), office.kind.as_str(), id.0), |row| row.get(0))
        .optional()?;
    Ok(next.map(InstanceId))
}

/// Every office that was ever claimed, as far as the history goes.
pub(crate) fn offices(connection: &Connection) -> Result<Vec<Office>> {
    // From one name to the next by the index: there may be hundreds of rows of each.
    const NEXT: &str = "SELECT profile, kind FROM instances
         WHERE (profile, kind) > (?1, ?2) AND kind IS NOT NULL ORDER BY profile, kind LIMIT 1";
    let mut next = connection.prepare_cached(NEXT)?;
    let mut offices = Vec::new();
    let mut last = (Vec::new(), Vec::new());
    loop {
        // As bytes: a name that is no UTF-8 has to be passed by, not stumbled over.
        let text = |bytes| ToSqlOutput::Borrowed(ValueRef::Text(bytes));
        let found = next.query_row((text(&last.0), text(&last.1)), |row| {
            Ok((row.get_ref(0)?.as_bytes()?.to_vec(), row.get_ref(1)?.as_bytes()?.to_vec()))
        });
        let Some(found) = found.optional()? else { return Ok(offices) };
        last = found;
        let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        // Names that no program of ours writes are nobody's.
        let profile = name(&last.0).and_then(|name| ProfileName::new(name).ok());
        let kind = name(&last.1).and_then(|name| Kind::new(name).ok());
        offices.extend(profile.zip(kind).map(|(profile, kind)| Office { profile, kind }));
    }
}

/// The incarnation of an office that ended last.
pub(crate) fn last_ended(connection: &Connection, office: &Office) -> Result<Option<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL ORDER BY id DESC LIMIT 1"
    );
    let row = prepare(connection, &sql)?
        .query_row((office.profile.as_str(), office.kind.as_str()), Record::from_row)
        .optional()?;
    Ok(row)
}

/// The incarnation of an older gateway with this lock, whether or not it has ended; the youngest.
pub(crate) fn of_older(
    connection: &Connection,
    office: &Office,
    pid: sys::Pid,
    start_time: Option<i64>,
    anchor: &str,
) -> Result<Option<InstanceId>> {
    let id = connection
        .prepare_cached(
            "SELECT id FROM instances
             WHERE profile = ?1 AND kind = ?2 AND origin = 'pid' AND pid = ?3
               AND (?4 IS NULL OR start_time IS NULL OR start_time = ?4)
               AND (anchor = ?5 OR anchor IS NULL)
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row(
            (office.profile.as_str(), office.kind.as_str(), pid, start_time, anchor),
            |row| row.get(0).map(InstanceId),
        )
        .optional()?;
    Ok(id)
}

/// The live rows of a profile that an import made: of older gateways, and those whose version is
/// `made_by`.
pub(crate) fn imported(
    connection: &Connection,
    profile: &ProfileName,
    made_by: &str,
) -> Result<Vec<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND profile = ?1 AND origin = 'pid'
           AND (kind IS NULL AND version = ?2 OR kind IS NOT NULL)"
    );
    let rows: Vec<Record> = prepare(connection, &sql)?
        .query_map((profile.as_str(), made_by), Record::from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Live rows that hold no office, with their anchors: the oldest after that of `after`.
pub(crate) fn live_without_office(
    connection: &Connection,
    after: i64,
    count_max: usize,
) -> Result<Vec<(InstanceId, Option<String>)>> {
    const SQL: &str = "SELECT id, anchor FROM instances
         WHERE ended_at_ms IS NULL AND kind IS NULL AND id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(SQL)?;
    let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
    let rows = statement
        .query_map([after, count_max], |row| Ok((InstanceId(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
