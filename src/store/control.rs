//! The SQLite file controls that rusqlite has no call for.

use std::ffi::{c_int, c_void};

use rusqlite::{Connection, ffi};

use crate::Result;

/// Leaves `-wal` and `-shm` in place when the last connection closes
/// (<https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpersistwal>).
pub(crate) fn persist_wal(connection: &Connection) -> Result<()> {
    let mut on: c_int = 1;
    call(connection, ffi::SQLITE_FCNTL_PERSIST_WAL, &mut on)
}

/// The database grows by this much, bytes, also for a single page: so there is room in it for what
/// the WAL has, most of the time, when the disk is full (FIELD-BUGS row 133).
const GROWS_BY: c_int = 64 << 10;

/// Grows the file in pieces of [`GROWS_BY`]
/// (<https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlchunksize>).
pub(crate) fn grow_in_pieces(connection: &Connection) -> Result<()> {
    let mut size = GROWS_BY;
    call(connection, ffi::SQLITE_FCNTL_CHUNK_SIZE, &mut size)
}

#[allow(unsafe_code, reason = "the crate's one sort of file control")]
fn call(connection: &Connection, operation: c_int, argument: &mut c_int) -> Result<()> {
    // SAFETY: the handle is valid while `connection` lives, "main" is a NUL-terminated schema name,
    // and the operations used here read and write exactly one int through the pointer.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            operation,
            std::ptr::from_mut(argument).cast::<c_void>(),
        )
    };
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into())
}
