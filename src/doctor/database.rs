//! The file itself: its schema, its integrity, its WAL, its times.

use std::time::Duration;

use rusqlite::Connection;

use crate::clock::{Deadline, length};
use crate::doctor::check;
use crate::doctor::check::{Check, Observation, Opened, Scene, beside, counted, listed, program};
use crate::store::migrate::{SCHEMA_VERSION, is_a_version, missing_from_schema};
use crate::store::salvage::impossible_rows;
use crate::{Error, ErrorKind, Result, sys};

pub(super) const CHECKS_OF_FILES: &[Check<Scene>] =
    &[Check { id: "wal_size", silent: "the WAL is short", look: wal_size }];

pub(super) const CHECKS: &[Check<Opened>] = &[
    Check { id: "schema", silent: "", look: schema },
    Check { id: "integrity", silent: "", look: integrity },
    Check { id: "clock", silent: "no recorded time is in the future", look: clock },
];

/// A store that is there and cannot be asked.
pub(super) fn cannot_open(scene: &Scene, error: &Error) -> Observation {
    if is_damaged(scene, error) {
        return Observation::error(format!("the store is damaged: {error}")).remedy(format!(
            "{}: the file is moved aside, and readable rows are copied to a new one",
            scene.command("doctor --fix")
        ));
    }
    let evidence = format!("the store cannot be read: {error}");
    let ran_short = error.is_of_shortage();
    // What was not seen is no problem yet.
    let seen =
        if ran_short { Observation::unknown(evidence) } else { Observation::error(evidence) };
    let hint = error.command_line_hint().unwrap_or("see the other findings, then run this again");
    Observation { ran_short, ..seen.remedy(hint) }
}

/// A file to which nothing has been committed. The anchors' directory is made after the first
/// commit.
pub(super) fn empty(scene: &Scene) -> Option<Observation> {
    let location = scene.location.as_ref().filter(|_| scene.is_there())?;
    let file = location.file.display();
    if !location.anchors.is_dir() {
        return Some(Observation::info(format!(
            "{file} is empty: the next start makes a store of it"
        )));
    }
    Some(
        Observation::warning(format!(
            "{file} is empty, but lock files next to it show that it was a store"
        ))
        .remedy(
            "stop all gateways and restore it from a backup, or start a gateway: that makes a new \
             store there",
        ),
    )
}

/// SQLite says that the file is damaged, or that it is none of ours, with anchors of ours beside
/// it.
pub(super) fn is_damaged(scene: &Scene, error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Corrupt => true,
        ErrorKind::NotOurs => scene.location.as_ref().is_some_and(|it| it.anchors.is_dir()),
        _ => false,
    }
}

/// Twice what SQLite may let it grow to before it starts over, and twice that again.
const WAL_LENGTH_MAX: u64 = 16 << 20;

/// How long the repair of a long WAL may keep others from writing.
pub(super) const EMPTY_WAL_WITHIN: Duration = Duration::from_millis(500);

fn wal_length(scene: &Scene) -> u64 {
    let wal = scene.location.as_ref().map(|location| beside(&location.file, "-wal"));
    wal.and_then(|wal| std::fs::metadata(wal).ok()).map_or(0, |facts| facts.len())
}

pub(super) fn wal_is_long(scene: &Scene) -> bool {
    wal_length(scene) > WAL_LENGTH_MAX
}

/// FIELD-BUGS row 77: a reader that stays keeps the WAL from starting over.
fn wal_size(scene: &Scene) -> Result<Vec<Observation>> {
    let Some(location) = scene.location.as_ref().filter(|_| wal_is_long(scene)) else {
        return Ok(Vec::new());
    };
    let wal = beside(&location.file, "-wal");
    let users = sys::processes_with_open_file(&beside(&location.file, "-shm"));
    let who = if users.is_empty() {
        "no other visible process has the store open".to_owned()
    } else {
        let who = listed(&users, 5, |pid| program(*pid));
        format!("a long-running reader may keep it from shrinking; it is open in {who}")
    };
    Ok(vec![
        Observation::warning(format!(
            "{} has grown to {}, which slows down every read; {who}",
            wal.display(),
            check::size(wal_length(scene))
        ))
        .remedy(scene.command("doctor --fix")),
    ])
}

/// What the numbers of a schema mean for this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    Ours,
    Older,
    Newer,
    /// Newer, and closed to us as writers.
    Closed,
    /// Something of it is missing.
    Damaged,
}

fn judged(said: i64, is_whole: bool, min_writer: i64) -> Schema {
    if !is_whole {
        Schema::Damaged
    } else if min_writer > SCHEMA_VERSION {
        Schema::Closed
    } else if said > SCHEMA_VERSION {
        Schema::Newer
    } else if said < SCHEMA_VERSION {
        Schema::Older
    } else {
        Schema::Ours
    }
}

/// The schema, and the version that it says it has.
pub(super) fn schema_of(opened: &Opened) -> Result<(Schema, i64)> {
    opened.inner().read(|connection| {
        let said: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let min_writer: i64 = connection
            .prepare_cached("SELECT value FROM meta WHERE key = 'min_writer'")?
            .query_row([], |row| row.get(0))?;
        // Closed to writers of a version that nobody has made: a damaged number.
        let is_whole = is_a_version(min_writer) && missing_from_schema(connection, said)?.is_none();
        Ok((judged(said, is_whole, min_writer), said))
    })
}

/// FIELD-BUGS row 81: no question migrates, so an old schema stays until somebody owns something.
fn schema(opened: &Opened) -> Result<Vec<Observation>> {
    let (schema, said) = schema_of(opened)?;
    let fix = opened.scene.command("doctor --fix");
    Ok(vec![match schema {
        Schema::Ours => {
            Observation::ok(format!("the schema has version {said}, as this program needs it"))
        }
        Schema::Older => Observation::info(format!(
            "the schema has version {said}, and this program writes version {SCHEMA_VERSION}"
        ))
        .remedy(format!(
            "no action needed: the next `run` or `claim` brings it up to date, and so does {fix}"
        )),
        Schema::Newer => Observation::info(format!(
            "the schema has version {said}, which is newer than this program ({SCHEMA_VERSION}); \
             it can still be read and written"
        ))
        .remedy("use the same version of this program for everything that shares the store"),
        Schema::Closed => Observation::error(format!(
            "the schema has version {said}, which is too new for this program (version \
             {SCHEMA_VERSION}): it can read the store, but not claim anything"
        ))
        .remedy("upgrade this program"),
        Schema::Damaged => Observation::error(format!(
            "the schema has version {said}, and parts of it are missing or changed: the store is \
             damaged"
        ))
        .remedy(fix),
    }])
}

/// How long the database is read through.
const INTEGRITY_WITHIN: Duration = Duration::from_secs(10);

/// Problems shown of those that SQLite finds.
const LINES_SHOWN: usize = 5;

/// What reading all of the database came to.
pub(super) enum Integrity {
    Good,
    /// Pages, records or indexes are damaged; the first lines about it.
    Damaged(Vec<String>),
    /// Rows that belong to a row that is gone, by table.
    Dangling(Vec<(String, usize)>),
    TookTooLong,
}

pub(super) fn integrity_of(opened: &Opened) -> Result<Integrity> {
    // A read that failed once looks like damage, too.
    match integrity_now(opened)? {
        Integrity::Damaged(_) => integrity_now(opened),
        found => Ok(found),
    }
}

fn integrity_now(opened: &Opened) -> Result<Integrity> {
    match opened.inner().read(|connection| Ok(read_through(connection))) {
        Ok(Ok(integrity)) => Ok(integrity),
        Ok(Err(error)) | Err(error) if is_damaged(&opened.scene, &error) => {
            Ok(Integrity::Damaged(vec![error.to_string()]))
        }
        Ok(Err(error)) | Err(error) => Err(error),
    }
}

fn read_through(connection: &Connection) -> Result<Integrity> {
    /// Instructions of SQLite's between two looks at the clock: well below a millisecond.
    const LOOK_EVERY: i32 = 10_000;
    let deadline = Deadline::after(INTEGRITY_WITHIN);
    connection.progress_handler(LOOK_EVERY, Some(move || deadline.has_passed()))?;
    let found = look_through(connection);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Err(error) if error.sqlite_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            Ok(Integrity::TookTooLong)
        }
        found => found,
    }
}

fn look_through(connection: &Connection) -> Result<Integrity> {
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let lines: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if lines != ["ok"] {
        return Ok(Integrity::Damaged(lines));
    }
    let said: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if said <= SCHEMA_VERSION
        && let Some(impossible) = impossible_rows(connection)?
    {
        return Ok(Integrity::Damaged(vec![impossible]));
    }
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let tables: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut dangling: Vec<(String, usize)> = Vec::new();
    for table in tables {
        match dangling.iter_mut().find(|(known, _)| *known == table) {
            Some((_, count)) => *count += 1,
            None => dangling.push((table, 1)),
        }
    }
    Ok(if dangling.is_empty() { Integrity::Good } else { Integrity::Dangling(dangling) })
}

fn integrity(opened: &Opened) -> Result<Vec<Observation>> {
    let fix = || opened.scene.command("doctor --fix");
    Ok(vec![match integrity_of(opened)? {
        Integrity::Good => Observation::ok("the database is intact"),
        Integrity::Damaged(lines) => Observation::error(format!(
            "the database is damaged: {}",
            listed(&lines, LINES_SHOWN, |line| line.replace('\n', " "))
        ))
        .remedy(format!(
            "{}: the file is moved aside, and readable rows are copied to a new one",
            fix()
        )),
        Integrity::Dangling(tables) => Observation::warning(format!(
            "some rows belong to a holder that is not on record: {}",
            listed(&tables, 10, |(table, count)| format!(
                "{} of {table}",
                counted(*count, "row", "rows")
            ))
        ))
        .remedy(fix()),
        Integrity::TookTooLong => Observation::unknown(format!(
            "checking the whole database took longer than {} s",
            INTEGRITY_WITHIN.as_secs()
        ))
        .remedy("try again when the machine is less busy"),
    }])
}

/// Clocks are corrected by this much.
const AHEAD_MAX_MS: i64 = 60_000;

/// Ids rise with the clock, in microseconds; after a moment of haste they are ahead by that.
const IDS_AHEAD_MAX_MS: i64 = 60 * 60 * 1_000;

fn clock(opened: &Opened) -> Result<Vec<Observation>> {
    let now_ms = opened.now_ms();
    let latest_ms = now_ms.saturating_add(AHEAD_MAX_MS);
    let (rows, events, last_id): (i64, i64, i64) = opened.inner().read(|connection| {
        Ok(connection
            .prepare_cached(
                "SELECT (SELECT count(*) FROM instances
                         WHERE max(started_at_ms, coalesce(heartbeat_at_ms, 0),
                                   coalesce(ended_at_ms, 0)) > ?1),
                        (SELECT count(*) FROM events WHERE at_ms > ?1),
                        (SELECT value FROM meta WHERE key = 'last_id')",
            )?
            .query_row([latest_ms], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2).unwrap_or(0)))
            })?)
    })?;
    let mut seen = Vec::new();
    if rows + events > 0 {
        // Nobody is refused, and nothing is deleted, for what the clock says.
        seen.push(
            Observation::info(format!(
                "some recorded times are in the future ({}, {}): the clock of this machine was \
                 ahead of {now}, or is behind now",
                counted(usize::try_from(rows).unwrap_or_default(), "holder", "holders"),
                counted(usize::try_from(events).unwrap_or_default(), "event", "events"),
                now = crate::clock::rfc3339(now_ms).unwrap_or_default()
            ))
            .remedy("compare `date -u` with another clock; the store does not depend on it"),
        );
    }
    let ahead_ms = (last_id / 1_000).saturating_sub(now_ms);
    if ahead_ms > IDS_AHEAD_MAX_MS {
        seen.push(
            Observation::info(format!(
                "the last instance id is {} ahead of the clock: the clock was ahead when it was \
                 made, or is behind now",
                length(ahead_ms)
            ))
            .remedy("compare `date -u` with another clock; the store does not depend on it"),
        );
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_numbers_of_a_schema_mean() {
        const V: i64 = SCHEMA_VERSION;
        for (said, is_whole, min_writer, expected) in [
            (V, true, 1, Schema::Ours),
            (1, true, 1, Schema::Older),
            (V - 1, true, 1, Schema::Older),
            (V + 1, true, 1, Schema::Newer),
            (V + 1, true, V, Schema::Newer),
            (V + 1, true, V + 1, Schema::Closed),
            (V, true, V + 1, Schema::Closed),
            (V - 1, true, V + 1, Schema::Closed),
            (V, false, 1, Schema::Damaged),
            (V - 1, false, 1, Schema::Damaged),
        ] {
            assert_eq!(judged(said, is_whole, min_writer), expected, "{said} {is_whole}");
        }
    }
}
