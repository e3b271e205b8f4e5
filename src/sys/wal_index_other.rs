//! Where the kernel has no locks that belong to an open file, SQLite keeps its own. Then the
//! comparison of the three files alone is left (`store/files.rs`).

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Nothing has to be prepared here.
pub fn prepare() {}

/// Leaves the connection as it is.
///
/// # Errors
/// None.
#[allow(clippy::unnecessary_wraps, reason = "as where it can fail")]
pub fn guard(_connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    Ok(())
}

/// There is none here: SQLite's own is not reached into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {}

/// Not known here.
pub fn header(_connection: &rusqlite::Connection) -> Option<Header> {
    None
}

/// A descriptor whose close cancels no lock: there is none here.
#[derive(Debug)]
pub enum Kept {}

impl std::ops::Deref for Kept {
    type Target = std::fs::File;

    fn deref(&self) -> &std::fs::File {
        match *self {}
    }
}

/// None.
///
/// # Errors
/// None.
#[allow(clippy::unnecessary_wraps, reason = "as where it can fail")]
pub fn keep(_path: &Path, _database: &Path) -> io::Result<Option<Kept>> {
    Ok(None)
}

/// Not possible here.
pub fn stay(_database: &Kept, _index: &Kept) -> bool {
    false
}

/// Undoes nothing.
pub fn leave(_database: &Kept, _index: &Kept) {}

/// Never told here.
pub const EMPTIED: i32 = -1;

/// Never told here.
pub const IN_ROLLBACK_MODE: i32 = -2;

/// The right to write to a database.
pub struct Writer;

/// As [`lock_alone`].
///
/// # Errors
/// `Unsupported`.
pub fn lock_writer(_database: &Path) -> io::Result<Option<Writer>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The right to a database that nobody else has open.
pub struct Alone;

/// Not supported here: it needs open-file-description locks.
///
/// # Errors
/// `Unsupported`.
pub fn lock_alone(_database: &Path) -> io::Result<Option<Alone>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Cannot be seen.
pub fn is_checkpointing(_index: &std::fs::File) -> bool {
    true
}

/// Cannot be seen.
pub fn is_in_use(_index: &std::fs::File) -> bool {
    false
}

/// Nothing tells of a commit here.
#[derive(Clone, Copy, Debug)]
pub enum Bell {}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something may have happened.
    Ring,
    /// Time is up.
    Nothing,
    /// Nobody can wait for it here.
    Deaf,
}

impl Bell {
    /// There is none.
    pub fn seen(self) -> u32 {
        match self {}
    }

    /// There is none.
    pub fn wait(self, _stop: &Stop, _timeout: Duration) -> Heard {
        match self {}
    }

    /// There is none.
    pub fn wait_for_turn(self, _timeout: Duration) -> Heard {
        match self {}
    }

    /// There is none.
    pub fn has_rung(self) -> bool {
        match self {}
    }
}

/// Nobody waits with it here.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Says it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was said.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sleeps so long.
    pub fn wait(&self, timeout: Duration) {
        std::thread::sleep(timeout);
    }
}

/// None.
pub fn bell(_connection: &rusqlite::Connection) -> Option<Bell> {
    None
}

/// Wakes nobody.
pub fn ring(_connection: &rusqlite::Connection) {}

/// Nothing to wait for.
pub fn take_turn() -> Option<Bell> {
    None
}
