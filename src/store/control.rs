//! The SQLite file control that rusqlite has no call for.

use std::ffi::{c_int, c_void};

use rusqlite::{Connection, ffi};

use crate::Result;

/// Leaves `-wal` and `-shm` in place when the last connection closes
/// (<https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpersistwal>).
pub(crate) fn persist_wal(connection: &Connection) -> Result<()> {
    let mut on: c_int = 1;
    call(connection, ffi::SQLITE_FCNTL_PERSIST_WAL, &mut on)
}

#[allow(unsafe_code, reason = "the crate's one file control")]
fn call(connection: &Connection, operation: c_int, argument: &mut c_int) -> Result<()> {
    // SAFETY: the handle is valid while `connection` lives, "main" is a NUL-terminated schema name,
    // and the operation used here reads and writes exactly one int through the pointer.
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
