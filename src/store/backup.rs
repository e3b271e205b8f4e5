//! Copies a store to a file: [`Store::backup`].
//!
//! SQLite's backup API copies what one read transaction sees, so that writers go on meanwhile. The
//! copy is made beside its name and gets that at last: whatever cuts it off, no half a copy is
//! taken for a whole one.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::store::Store;
use crate::{Error, Result, sys};

/// A copy that is not finished yet is called like this, and something behind it.
const UNFINISHED: &str = ".incumbent-backup-";

impl Store {
    /// Copies the store to a new file, which must not exist, and says how many bytes that has. The
    /// copy is what one transaction saw, also while gateways run: none of them waits. It is one
    /// SQLite file, closed to other users, checked, and synced to the disk.
    ///
    /// To restore it, end every owner first, remove the store's `-wal` and `-shm`, and copy it over
    /// the store. Ids and fences that are drawn from then on are higher than all that were drawn
    /// before; an owner on record in it that has ended is dead, as ever.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::Store;
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let _tenure = store.profile("work")?.claim()?;
    /// let copy = directory.path().join("copy.db");
    /// let bytes = store.backup(&copy)?;
    /// assert_eq!(std::fs::metadata(&copy)?.len(), bytes);
    /// assert!(store.backup(&copy).is_err(), "nothing is overwritten");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`InvalidInput`](crate::ErrorKind::InvalidInput): there is something by that name, or no
    ///   directory to make it in.
    /// * [`CannotWrite`](crate::ErrorKind::CannotWrite),
    ///   [`Permission`](crate::ErrorKind::Permission): the copy could not be written.
    /// * Those of [`Profile::status_of`](crate::Profile::status_of), about the store.
    pub fn backup(&self, file: impl AsRef<Path>) -> Result<u64> {
        let target = target(file.as_ref())?;
        let directory = target.parent().unwrap_or(Path::new("/"));
        // Made by us, so that an error is the system's own.
        let unfinished = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .make_in(directory, sys::create_anchor_file)
            .map_err(|error| Error::io("make a file in", directory, error))?
            .into_temp_path();
        let mut copied = Ok(());
        let read = self.inner.read(|source| {
            copied = copy(source, &unfinished);
            Ok(())
        });
        // Not while the source is read: nothing can be written back into its file meanwhile.
        match copied.and_then(|()| check(&unfinished)) {
            Ok(()) => read?,
            // Page by page it is the store's own.
            Err(error) if is_damage(&error) => self.inner.read(|_| Err(error.into()))?,
            // What else is wrong with the copy is nothing of the store's: no room for it, say.
            Err(error) => return Err(Error::from(error).at(&target)),
        }
        let written = File::options().write(true).open(&unfinished).and_then(|file| {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        let bytes = written.map_err(|error| Error::io("sync", &target, error))?;
        unfinished.persist_noclobber(&target).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(&target),
            _ => Error::io("make", &target, error.error),
        })?;
        // Its name, too. Not everywhere can a directory be opened.
        if let Ok(directory) = File::open(directory) {
            let _ = directory.sync_all();
        }
        Ok(bytes)
    }
}

/// The file to be made, in a directory that exists.
fn target(file: &Path) -> Result<PathBuf> {
    let Some(name) = file.file_name() else {
        return Err(Error::invalid(format!("{} is not the name of a file", file.display()))
            .at(file)
            .with_hint("name a file that does not exist yet"));
    };
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // SQLite follows no links.
    let directory = std::fs::canonicalize(directory).map_err(|error| {
        let message = format!("cannot make a file in {}: {error}", directory.display());
        Error::invalid(message).at(directory).with_hint("name a directory that exists")
    })?;
    let target = directory.join(name);
    if std::fs::symlink_metadata(&target).is_ok() {
        return Err(exists(&target));
    }
    Ok(target)
}

fn exists(target: &Path) -> Error {
    Error::invalid(format!("{} exists already", target.display()))
        .at(target)
        .with_hint("name a file that does not exist yet: nothing is overwritten")
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// The file is there, empty.
fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(file, flags)
}

fn copy(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut copy = open(to)?;
    let backup = Backup::new(source, &mut copy)?;
    // All pages at once, of the transaction that `source` is in.
    loop {
        match backup.step(-1)? {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else knows of the copy.
            _ => {
                let busy = ffi::Error::new(ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None));
            }
        }
    }
    drop(backup);
    copy.close().map_err(|(_, error)| error)
}

/// Looks for damage in a finished copy.
fn check(copy: &Path) -> rusqlite::Result<()> {
    let copy = open(copy)?;
    // It is in WAL mode, as the store, so that it can be put in its place as it is; read here
    // without a `-shm`, and its `-wal` goes with this connection.
    copy.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let found: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let damaged = ffi::Error::new(ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(damaged, Some(found)));
    }
    copy.close().map_err(|(_, error)| error)
}
