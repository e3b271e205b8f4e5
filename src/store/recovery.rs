//! A damaged store is moved aside whole, what can be read of it is saved, and a new one begins.
//!
//! SQLite takes a `-wal` that it finds beside a database for that database's own. So the old files
//! must not be moved one after the other while somebody may open what is left: the database first
//! changes places with a *directory* (`renameat2`, at once), which nobody can open by mistake. Then
//! its `-wal` and `-shm` follow it, and last the new store changes places with that directory. A
//! process that comes meanwhile is told to try again. The directory says where the old files went,
//! so that an interrupted recovery is continued; a failure puts everything back.
//!
//! The write lock of the old file is held all the time, and every commit looks afterwards whether
//! its file is still there (`Inner::write`). What lands in a file that nobody looks at any more was
//! not granted.
//!
//! Damage is found by trying (`condition`): the integrity check, the text of the schema, a write
//! that is rolled back. The new store keeps the id of the old one, because live owners hold anchors
//! by that name. It also keeps the rows of live owners, which are judged like all others.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::clock::Clock;
use crate::process::anchor::lost;
use crate::process::anchor::recovery_lock::RecoveryLock;
use crate::store::busy::BUSY_BUDGET_DEFAULT;
use crate::store::location::{
    IfMissing, Location, MOVED_TO, NAME_LENGTH_MAX, free_name, is_being_recovered, with_sidecars,
};
use crate::store::migrate::{Contents, SCHEMA_VERSION};
use crate::store::pragmas::{Access, Durability};
use crate::store::salvage::Saved;
use crate::store::{
    busy, gate, ground, location, migrate, pragmas, registry, salvage, transaction,
};
use crate::{Error, ErrorKind, Result, clock, patience, sys};

/// What came of a recovery.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    /// What was wrong.
    pub(crate) damage: String,
    /// Where the damaged file is now; its `-wal` and `-shm` are beside it.
    pub(crate) aside: PathBuf,
    /// What was saved of each table.
    pub(crate) tables: Vec<Saved>,
}

/// What is the matter with a store's file.
#[derive(Debug)]
enum Condition {
    Sound,
    Damaged(String),
    /// The file was moved aside already, by a recovery that did not come to its end.
    Interrupted {
        aside: PathBuf,
    },
}

/// See [`OpenOptions::recover`](crate::OpenOptions::recover); `path` is the store.
pub(super) fn recover(path: &Path, clock: &dyn Clock, by: &str) -> Result<Option<Recovered>> {
    registry::begin_process()?;
    let _inside = gate::enter()?;
    let Some(location) = location::resolve_place(path, IfMissing::Leave)? else { return Ok(None) };
    ground::check(&location)?;
    ground::check_sidecars(&location)?;
    let was_a_store = location.anchors.is_dir();
    if std::fs::symlink_metadata(&location.file).is_err() {
        return Ok(None);
    }
    // Somebody else may have done it while we waited for a person to read.
    if let Condition::Sound = condition(&location, was_a_store)? {
        return Ok(None);
    }
    ground::prepare_anchors(&location)?;
    let _lock = RecoveryLock::take(&location.anchors)?;
    remove_leftovers(&location);
    let (aside, damage, _writers) = match condition(&location, was_a_store)? {
        Condition::Sound => return Ok(None),
        Condition::Damaged(damage) => {
            let writers = keep_writers_out(&location)?;
            (move_aside(&location, clock)?, damage, writers)
        }
        Condition::Interrupted { aside } => {
            let damage = "a recovery was interrupted after it had moved the store aside";
            (aside, damage.to_owned(), None)
        }
    };
    let begun = move_sidecars(&location.file, &aside)
        .and_then(|()| begin_anew(&location, &aside, clock, by));
    match begun {
        Ok(tables) => Ok(Some(Recovered { damage, aside, tables })),
        Err(error) => {
            move_back(&location, &aside);
            Err(error)
        }
    }
}

/// Looks at everything, and tries what a claim would do, without leaving a trace in the file.
fn condition(location: &Location, was_a_store: bool) -> Result<Condition> {
    if location.file.is_dir() {
        return Ok(Condition::Interrupted { aside: aside_of_interrupted(location)? });
    }
    location::check_file(location)?;
    // A read that failed once looks like damage, too.
    match condition_now(location, was_a_store) {
        Ok(Condition::Damaged(_)) => condition_now(location, was_a_store),
        found => found,
    }
}

/// What one look at a file says, which is there.
fn condition_now(location: &Location, was_a_store: bool) -> Result<Condition> {
    let found = patience::with_budget(BUSY_BUDGET_DEFAULT, || {
        let connection = connect(&location.file, Access::Write(Durability::Normal))?;
        try_out(&connection)
    });
    let error = match found {
        Ok(None) => return Ok(Condition::Sound),
        Ok(Some(damage)) => return Ok(Condition::Damaged(damage)),
        Err(error) => error,
    };
    if let Some(shortage) = sys::lack_of_descriptors() {
        let what = format!("open {}", location.file.display());
        return Err(Error::shortage(shortage, &what).at(&location.file).caused_by(error));
    }
    match error.kind() {
        // Internal: a value that is not what its column holds.
        ErrorKind::Corrupt | ErrorKind::Internal => Ok(Condition::Damaged(error.to_string())),
        // Its first page is garbage: that it was one of ours is told by what we keep beside it.
        ErrorKind::NotOurs if was_a_store => Ok(Condition::Damaged(error.to_string())),
        // The header says that nobody may write, and the file system says otherwise.
        ErrorKind::CannotWrite
            if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly)
                && location::unwritable(location).is_none() =>
        {
            Ok(Condition::Damaged(error.to_string()))
        }
        ErrorKind::Busy if error.is_of_a_lock() => Err(busy_with(location, error)),
        _ => Err(error.at(&location.file)),
    }
}

/// Where an interrupted recovery has put the store, by the words that it left. They are believed
/// only if they name a file that it could have made: whoever repairs may be root, in somebody
/// else's directory.
fn aside_of_interrupted(location: &Location) -> Result<PathBuf> {
    let moved_to = location.file.join(MOVED_TO);
    let mut name = String::new();
    // No link is followed, and no pipe waited for.
    sys::open_anchor_file(&moved_to)
        .and_then(|file| file.take(NAME_LENGTH_MAX as u64).read_to_string(&mut name))
        .map_err(|error| Error::io("read", &moved_to, error))?;
    let aside = location.directory.join(&name);
    let is_plain = aside.file_name().is_some_and(|file| *file == *name);
    let is_of_ours = name.starts_with(&aside_prefix(location));
    let is_file = std::fs::symlink_metadata(&aside).is_ok_and(|facts| facts.is_file());
    let owner = |path: &Path| sys::file_facts(path).ok().and_then(|facts| facts.owner);
    if is_plain && is_of_ours && is_file && owner(&aside) == owner(&location.directory) {
        return Ok(aside);
    }
    Err(Error::new(
        ErrorKind::NotOurs,
        format!("{} does not name where the damaged store is", moved_to.display()),
    )
    .at(moved_to)
    .with_hint(format!(
        "find the file {}..., remove the directory {}, and give the file its place",
        aside_prefix(location),
        location.file.display()
    )))
}

/// How the names of damaged stores begin.
fn aside_prefix(location: &Location) -> String {
    format!("{}.damaged-", file_name(location))
}

/// How the files of a recovery begin until it is finished.
fn unfinished_prefix(location: &Location) -> String {
    format!("{}.recovered-", file_name(location))
}

fn file_name(location: &Location) -> String {
    location.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Holds the write lock of the damaged store while it is moved and read, so that no commit lands in
/// a file that nobody will look at; `None` where it is too damaged for that.
fn keep_writers_out(location: &Location) -> Result<Option<Connection>> {
    let held = patience::with_budget(BUSY_BUDGET_DEFAULT, || {
        let connection = connect(&location.file, Access::Write(Durability::Normal))?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok::<_, Error>(connection)
    });
    match held {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if error.kind() == ErrorKind::Busy => Err(busy_with(location, error)),
        Err(error) => {
            tracing::debug!(%error, "nobody can write to the damaged store");
            Ok(None)
        }
    }
}

fn busy_with(location: &Location, error: Error) -> Error {
    match error.into_sqlite() {
        Ok(cause) => busy::error(&location.file, cause),
        Err(error) => error,
    }
}

fn connect(file: &Path, access: Access) -> Result<Connection> {
    let connection = pragmas::open(file, access)?;
    pragmas::apply(&connection, access)?;
    Ok(connection)
}

/// What is wrong with an open store, if anything is.
fn try_out(connection: &Connection) -> Result<Option<String>> {
    let Contents::Store { schema_version } = migrate::inspect(connection)? else {
        return Ok(None);
    };
    let is_newer = schema_version > SCHEMA_VERSION;
    if !is_newer && let Some(missing) = migrate::missing_from_schema(connection, schema_version)? {
        return Ok(Some(format!("the schema has lost {missing}")));
    }
    // Before the check, which takes a moment: may anybody write at all?
    let trial = connection.unchecked_transaction()?;
    trial.execute(
        "INSERT INTO events (at_ms, event, detail) VALUES (0, 'recovery_trial', NULL)",
        [],
    )?;
    let state = transaction::read_state(&trial)?;
    trial.rollback()?;
    if !migrate::is_a_version(state.min_writer) {
        return Ok(Some(format!(
            "it says that it is closed to writers before version {}, which no program has",
            state.min_writer
        )));
    }
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return if is_newer { Ok(None) } else { salvage::impossible_rows(connection) };
    }
    if is_newer {
        return Err(Error::new(
            ErrorKind::TooNew,
            format!(
                "the store is damaged, and has schema version {schema_version}; this program knows \
                 version {SCHEMA_VERSION}, and would lose what came after it"
            ),
        )
        .with_hint("use the newer incumbent for `doctor --fix`"));
    }
    Ok(Some(format!("SQLite's integrity check says: {}", verdict.trim())))
}

/// Takes away what recoveries left that were killed: files that were to be a new store, and
/// directories that were to stand, or stood, in the place of one. Nothing of anybody's is in them.
fn remove_leftovers(location: &Location) {
    let (unfinished, aside) = (unfinished_prefix(location), aside_prefix(location));
    for entry in std::fs::read_dir(&location.directory).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_ours = name.starts_with(&unfinished) || name.starts_with(&aside);
        let removed = if is_directory && is_ours && is_being_recovered(&path) {
            std::fs::remove_dir_all(&path)
        } else if !is_directory && name.starts_with(&unfinished) {
            std::fs::remove_file(&path)
        } else {
            continue;
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "is left over, and cannot be removed");
        }
    }
}

fn fail<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |error| {
        Error::io(what, path, error)
            .with_hint("end the gateways that use the store, then run it again")
    }
}

/// Puts a directory in the place of the database; where the database is now.
fn move_aside(location: &Location, clock: &dyn Clock) -> Result<PathBuf> {
    let aside = free_name(&location.file, "damaged", clock.wall_ms());
    let name = aside.file_name().unwrap_or_default();
    sys::create_private_dirs(&aside).map_err(fail("create", &aside))?;
    let moved_to = aside.join(MOVED_TO);
    write_to_disk(&moved_to, name.as_encoded_bytes()).map_err(fail("write", &moved_to))?;
    swap(&location.file, &aside)
        .inspect_err(|_| drop(std::fs::remove_dir_all(&aside)))
        .map_err(fail("move aside", &location.file))?;
    Ok(aside)
}

/// A power loss must not leave a directory that says nothing. What lies there already is not ours.
fn write_to_disk(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = sys::create_anchor_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Swaps two names; where the kernel cannot do that at once, there is a moment in which the first
/// one names nothing.
fn swap(first: &Path, second: &Path) -> std::io::Result<()> {
    match sys::exchange(first, second) {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        result => return result,
    }
    let mut between = second.as_os_str().to_owned();
    between.push(".swap");
    let between = PathBuf::from(between);
    sys::rename_beside(second, &between)?;
    if let Err(error) = sys::rename_beside(first, second) {
        sys::rename_beside(&between, second)?;
        return Err(error);
    }
    sys::rename_beside(&between, first)
}

/// The `-wal` and `-shm` go where their database is.
fn move_sidecars(from: &Path, to: &Path) -> Result<()> {
    for (from, to) in with_sidecars(from).zip(with_sidecars(to)).skip(1) {
        match sys::rename_beside(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(fail("move aside", &from)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// After a failure: everything as it was. What cannot be undone now, the next recovery goes on
/// with.
fn move_back(location: &Location, aside: &Path) {
    // Not into the place of a store that somebody has begun meanwhile.
    let undone = if is_being_recovered(&location.file) {
        move_sidecars(aside, &location.file).is_ok()
            && swap(&location.file, aside).is_ok()
            && std::fs::remove_dir_all(aside).is_ok()
    } else {
        std::fs::symlink_metadata(&location.file).is_err()
            && move_sidecars(aside, &location.file).is_ok()
            && sys::rename_beside(aside, &location.file).is_ok()
    };
    if !undone {
        tracing::error!(aside = %aside.display(), "the damaged store stays aside");
    }
}

/// Makes the new store beside the old one, and puts it in its place.
fn begin_anew(
    location: &Location,
    aside: &Path,
    clock: &dyn Clock,
    by: &str,
) -> Result<Vec<Saved>> {
    let new = ground::new_file(&location.directory, &unfinished_prefix(location))
        .map_err(fail("create a new store in", &location.directory))?;
    let tables = fill(&new, location, aside, clock, by)?;
    match sys::exchange(&new, &location.file) {
        Ok(()) => {
            // Now the temporary name is that of the directory.
            let directory =
                new.keep().map_err(|error| fail("keep", &location.file)(error.error))?;
            if let Err(error) = std::fs::remove_dir_all(&directory) {
                tracing::warn!(path = %directory.display(), %error, "cannot be removed");
            }
            return Ok(tables);
        }
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        Err(error) => return Err(fail("put a new store at", &location.file)(error)),
    }
    std::fs::remove_dir_all(&location.file).map_err(fail("remove", &location.file))?;
    new.persist_noclobber(&location.file)
        .map_err(|error| fail("put a new store at", &location.file)(error.error))?;
    Ok(tables)
}

/// Makes the schema in the file `new`, and saves what can be read of `aside`.
fn fill(
    new: &Path,
    location: &Location,
    aside: &Path,
    clock: &dyn Clock,
    by: &str,
) -> Result<Vec<Saved>> {
    let now_ms = clock.wall_ms();
    let mut connection = pragmas::open(new, Access::Write(Durability::Normal))?;
    migrate::migrate(&mut connection, now_ms, || lost::find_lost(location.as_site(clock)))?;
    let tables = match connect_to_damaged(aside) {
        Ok(damaged) => salvage::save(&damaged, &mut connection)?,
        // Not a database any more.
        Err(error) => {
            tracing::warn!(%error, "nothing of the damaged store can be read");
            Vec::new()
        }
    };
    let counts: serde_json::Map<_, _> = tables
        .iter()
        .map(|it| (it.table.clone(), json!({"saved": it.rows, "damaged": it.is_damaged()})))
        .collect();
    let detail = json!({
        "by": by,
        "aside": aside.file_name().map(|name| name.to_string_lossy()),
        "tables": counts,
    });
    connection.execute(
        "INSERT INTO events (at_ms, event, pid, detail) VALUES (?1, 'store_recovered', ?2, ?3)",
        (now_ms, std::process::id(), detail.to_string()),
    )?;
    // The last connection takes the `-wal` away when it closes: the new store is one file.
    pragmas::ensure_wal(&connection)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(tables)
}

/// Read-only: the bytes of the damaged store stay as they are.
fn connect_to_damaged(aside: &Path) -> Result<Connection> {
    const TIME_MAX: Duration = Duration::from_secs(30);
    let connection = pragmas::open(aside, Access::Read)?;
    // What of the schema cannot be read is left out.
    connection.pragma_update(None, "writable_schema", 1)?;
    connection.pragma_update(None, "trusted_schema", 0)?;
    connection.pragma_update(None, "cell_size_check", 1)?;
    // Damaged pages may lead in circles.
    let deadline = clock::Deadline::after(TIME_MAX);
    connection.progress_handler(10_000, Some(move || deadline.has_passed()))?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}
