//! The `-shm` of our connections, with locks that nobody cancels by accident.
//!
//! SQLite locks with POSIX record locks, which belong to the process: any open and close of one of
//! the files in it cancels them (a hash, a backup, `sqlite3.connect` in a Python gateway), and a
//! second SQLite in the same process takes them for its own
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2; FIELD-BUGS row 98). Open-file-description
//! locks (fcntl(2), Linux 3.15) belong to the open file: no other close cancels them, and the
//! kernel arbitrates between them and record locks.
//!
//! So each of our connections opens the `-shm` for itself and takes there, by the same bytes as
//! SQLite, the locks of a writer, a checkpointer and a reader, and the shared lock on the byte that
//! keeps others from beginning the file again. On the database, in WAL mode, SQLite holds one
//! shared record lock; its loss would let others delete `-wal` and `-shm`. So a descriptor of ours
//! holds the same lock a second time. The consequence: nobody can change the journal mode
//! meanwhile.
//!
//! The methods replace SQLite's for one open file (`SQLITE_FCNTL_FILE_POINTER`) and follow its
//! `os_unix.c` and <https://sqlite.org/walformat.html>. Other databases of the process are not
//! touched. A writer also locks a byte of the database that SQLite leaves alone, because another
//! `-shm` (the first was deleted) is another set of locks on one `-wal`.
//!
//! Closing a descriptor of ours would cancel the record locks of every other SQLite connection in
//! the process. So descriptors are kept for the next connection, until our last one to that
//! database closes. A forked child closes ours at once and does not map them (`pthread_atfork(3)`;
//! a mapping keeps its open file, and so the lock). A child made by a bare system call holds them
//! until it ends.

mod bell;
mod descriptors;
mod index;
mod layout;
mod system_calls;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;

pub use self::bell::{Bell, Heard, Stop, take_turn};
use self::descriptors::{
    CHILDREN, Descriptor, Key, close_in_children, locked_by, open, range, set,
};
use self::index::{NotOpened, OpenIndex};
pub use self::layout::Header;
use self::layout::{
    DATABASE_COUNT, DATABASE_FIRST, DATABASE_SHARED, DATABASE_WRITER, IN_USE, LOCKS, beside,
};
use crate::environment::{Guard, is_in_force};

/// What stands in the place of SQLite's own methods for one open database.
#[repr(C)]
struct Guarded {
    /// First, because it is what the open file points to.
    methods: ffi::sqlite3_io_methods,
    original: *const ffi::sqlite3_io_methods,
    database: CString,
    key: Key,
    index: Index,
}

enum Index {
    /// It is not in WAL mode, as far as we know.
    Closed,
    Open(Box<OpenIndex>),
    /// It cannot be opened for writing, and is left to SQLite: who cannot write holds nothing.
    Left,
}

/// Whether the kernel has such locks. Asked once, of a pipe; if there cannot be one, it is taken to
/// have them, and an attempt to lock says so if that is wrong.
fn has_open_file_locks() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    if !is_in_force(Guard::Locks) {
        return false;
    }
    if let Some(has) = HAS.get() {
        return *has;
    }
    let Ok((pipe, _)) = io::pipe() else { return true };
    let mut asked = range(libc::F_WRLCK, 0, 1);
    // SAFETY: `asked` is a whole `flock`, which the kernel fills in.
    let code = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) };
    let is_unknown = code != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    *HAS.get_or_init(|| !is_unknown)
}

/// A descriptor of a file of the store, for looking at it: its close cancels no lock.
///
/// # Errors
/// As `open(2)`.
pub fn keep(path: &Path, database: &Path) -> io::Result<Option<Kept>> {
    if !has_open_file_locks() {
        return Ok(None);
    }
    let key = Key::of(&path_of(database)?)?;
    open(&path_of(path)?, libc::O_RDONLY, 0, key).map(|descriptor| Some(Kept(descriptor)))
}

/// See [`keep`].
#[derive(Debug)]
pub struct Kept(Descriptor);

impl std::ops::Deref for Kept {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0.file
    }
}

/// Says by kept descriptors that the database and its `-shm` are in use, as a connection does;
/// whether that was possible.
pub fn stay(database: &Kept, index: &Kept) -> bool {
    let is_set = set(&index.0, libc::F_RDLCK, IN_USE, 1)
        .and_then(|()| set(&database.0, libc::F_RDLCK, DATABASE_SHARED, 1));
    if is_set.is_err() {
        leave(database, index);
    }
    is_set.is_ok()
}

/// Undoes [`stay`].
pub fn leave(database: &Kept, index: &Kept) {
    let _ = set(&database.0, libc::F_UNLCK, DATABASE_SHARED, 1);
    let _ = set(&index.0, libc::F_UNLCK, IN_USE, 1);
}

fn path_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The right to a database that nobody else has open, until it is dropped.
pub struct Alone(Descriptor);

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = set(&self.0, libc::F_UNLCK, DATABASE_FIRST, DATABASE_COUNT);
    }
}

/// Locks all of a database, as SQLite does; `None` where somebody has it open.
///
/// # Errors
/// As `open(2)` and `fcntl(2)`.
pub fn lock_alone(database: &Path) -> io::Result<Option<Alone>> {
    lock_bytes(database, DATABASE_FIRST, DATABASE_COUNT).map(|file| file.map(Alone))
}

/// The right to write to a database, until it is dropped.
pub struct Writer(Descriptor);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = set(&self.0, libc::F_UNLCK, DATABASE_WRITER, 1);
    }
}

/// Keeps all of our writers out, whatever `-shm` they have open; `None` where one is at work.
///
/// # Errors
/// As `open(2)` and `fcntl(2)`.
pub fn lock_writer(database: &Path) -> io::Result<Option<Writer>> {
    lock_bytes(database, DATABASE_WRITER, 1).map(|file| file.map(Writer))
}

fn lock_bytes(database: &Path, first: i64, count: i64) -> io::Result<Option<Descriptor>> {
    let path = path_of(database)?;
    let file = open(&path, libc::O_RDWR, 0, Key::of(&path)?)?;
    match set(&file, libc::F_WRLCK, first, count) {
        Ok(()) => Ok(Some(file)),
        Err(ffi::SQLITE_BUSY) => Ok(None),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Whether somebody is moving the WAL into the database just now, by an open `-shm`.
pub fn is_checkpointing(index: &File) -> bool {
    /// `WAL_CKPT_LOCK`, the second of the eight.
    const CHECKPOINT: i64 = LOCKS + 1;
    is_locked(index, CHECKPOINT)
}

/// Whether somebody uses an open `-shm`.
pub fn is_in_use(index: &File) -> bool {
    is_locked(index, IN_USE)
}

/// By somebody else's open file, in whatever way.
fn is_locked(file: &File, byte: i64) -> bool {
    locked_by(file, byte, 1).is_some()
}

/// Before the first file is opened: one that somebody has put in the place of a file of the store
/// may be a FIFO.
pub fn prepare() {
    system_calls::replace();
}

/// Puts our methods in the place of SQLite's for the database that `connection` has just opened and
/// not yet read.
///
/// # Errors
/// Those of the file control that asks for the open file.
pub fn guard(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    if !has_open_file_locks() {
        return Ok(());
    }
    close_in_children();
    let file = open_file(connection)?;
    // SAFETY: the handle is valid while `connection` lives, and so is the name, which is copied.
    let database = unsafe {
        let name = ffi::sqlite3_db_filename(connection.handle(), c"main".as_ptr());
        if name.is_null() {
            return Ok(());
        }
        CStr::from_ptr(name).to_owned()
    };
    let key = Key::of(&database)
        .map_err(|_| rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), None))?;
    // SAFETY: SQLite keeps the open file until it calls `xClose`, and nobody uses `connection`
    // meanwhile. Its methods are a constant of SQLite's, at least of version 2, which has those of
    // the wal-index.
    unsafe {
        if file.is_null() || (*file).pMethods.is_null() || (*(*file).pMethods).iVersion < 2 {
            return Ok(());
        }
        let original = (*file).pMethods;
        let mut methods = *original;
        methods.xClose = Some(close);
        methods.xFileSize = Some(file_size);
        methods.xShmMap = Some(map);
        methods.xShmLock = Some(lock);
        methods.xShmUnmap = Some(unmap);
        CHILDREN.with(|shared| shared.enter(key));
        let guarded = Guarded { methods, original, database, key, index: Index::Closed };
        (*file).pMethods = Box::into_raw(Box::new(guarded)).cast();
    }
    Ok(())
}

/// The header as it is now; `None` where the connection has not mapped it, or it is just being
/// written. Nothing is read from a file.
pub fn header(connection: &rusqlite::Connection) -> Option<Header> {
    with_index(connection, |index| index.header()).flatten()
}

/// What rings with the next commit after now. `None` where `connection` has not read anything yet,
/// or has a `-shm` that is not ours to lock: then nothing tells of a commit.
pub fn bell(connection: &rusqlite::Connection) -> Option<Bell> {
    with_index(connection, |index| index.bell()).flatten()
}

/// Wakes those who wait for what `connection` has just committed.
pub fn ring(connection: &rusqlite::Connection) {
    let _ = with_index(connection, OpenIndex::ring);
}

fn with_index<T>(
    connection: &rusqlite::Connection,
    work: impl FnOnce(&mut OpenIndex) -> T,
) -> Option<T> {
    let file = open_file(connection).ok()?;
    // SAFETY: SQLite keeps the open file until it calls `xClose`. A `Connection` is used by one
    // thread at a time, and SQLite is not inside of a method of ours, because `connection` is
    // borrowed here.
    unsafe {
        if file.is_null() || (*file).pMethods.is_null() {
            return None;
        }
        let is_ours: unsafe extern "C" fn(*mut ffi::sqlite3_file) -> c_int = close;
        if !ptr::fn_addr_eq((*(*file).pMethods).xClose?, is_ours) {
            return None;
        }
        match &mut guarded(file).index {
            Index::Open(index) if !index.is_inherited() => Some(work(index)),
            Index::Open(_) | Index::Closed | Index::Left => None,
        }
    }
}

/// SQLite's open file of a database.
fn open_file(connection: &rusqlite::Connection) -> rusqlite::Result<*mut ffi::sqlite3_file> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is valid while `connection` lives, "main" is a NUL-terminated schema name,
    // and this control writes one pointer.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast(),
        )
    };
    if code == ffi::SQLITE_OK {
        return Ok(file);
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

/// Ours of an open file that [`guard`] has prepared.
///
/// # Safety
/// `file` is such a file, and SQLite calls its methods one after another.
unsafe fn guarded<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Guarded {
    // SAFETY: the methods are the first field of a `Guarded` that lives until `close`.
    unsafe { &mut *(*file).pMethods.cast_mut().cast::<Guarded>() }
}

/// What SQLite itself would do.
macro_rules! original {
    ($guarded:expr, $method:ident ( $($argument:expr),* )) => {
        match (*$guarded.original).$method {
            Some(method) => method($($argument),*),
            None => ffi::SQLITE_INTERNAL,
        }
    };
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: called by SQLite on a guarded file, for the last time; its own methods are put back
    // first.
    unsafe {
        let guarded = Box::from_raw((*file).pMethods.cast_mut().cast::<Guarded>());
        (*file).pMethods = guarded.original;
        let code = original!(guarded, xClose(file));
        let Guarded { index, key, .. } = *guarded;
        drop(index);
        CHILDREN.with(|shared| shared.leave(key));
        code
    }
}

/// A database that has become empty under its WAL was cut off by somebody else. SQLite would take
/// it for a new one and delete the `-wal`, with all that is in it.
unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: called by SQLite on a guarded file, with a place for the size.
    unsafe {
        let guarded = guarded(file);
        let code = original!(guarded, xFileSize(file, size));
        let is_empty = code == ffi::SQLITE_OK && *size == 0;
        if is_empty && length_of(&beside(&guarded.database, "-wal")).is_some_and(|it| it > 0) {
            return EMPTIED;
        }
        code
    }
}

unsafe extern "C" fn map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    // SAFETY: called by SQLite on a guarded file, with a place for the address.
    unsafe {
        let guarded = guarded(file);
        *mapped = ptr::null_mut();
        if matches!(guarded.index, Index::Closed) {
            // SQLite holds its shared lock by now, so nobody is just changing the mode.
            if says_rollback(guarded, file) {
                return IN_ROLLBACK_MODE;
            }
            guarded.index = match OpenIndex::open(&guarded.database, guarded.key) {
                Ok(index) => Index::Open(Box::new(index)),
                Err(NotOpened::Left) => Index::Left,
                Err(NotOpened::Code(code)) => return code,
            };
        }
        match &mut guarded.index {
            Index::Open(index) => {
                let (Ok(region), Ok(size)) = (usize::try_from(region), usize::try_from(size))
                else {
                    return ffi::SQLITE_MISUSE;
                };
                match index.region(region, size, extend != 0) {
                    Ok(address) => {
                        *mapped = address;
                        ffi::SQLITE_OK
                    }
                    Err(code) => code,
                }
            }
            Index::Closed | Index::Left => {
                original!(guarded, xShmMap(file, region, size, extend, mapped))
            }
        }
    }
}

unsafe extern "C" fn lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: called by SQLite on a guarded file.
    unsafe {
        let guarded = guarded(file);
        match &mut guarded.index {
            Index::Open(index) => index.lock(first, count, flags),
            Index::Closed => ffi::SQLITE_IOERR_SHMLOCK,
            Index::Left => original!(guarded, xShmLock(file, first, count, flags)),
        }
    }
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: called by SQLite on a guarded file.
    unsafe {
        let guarded = guarded(file);
        match std::mem::replace(&mut guarded.index, Index::Closed) {
            Index::Open(index) => {
                drop(index);
                if delete != 0 {
                    libc::unlink(beside(&guarded.database, "-shm").as_ptr());
                }
                ffi::SQLITE_OK
            }
            Index::Closed => ffi::SQLITE_OK,
            Index::Left => original!(guarded, xShmUnmap(file, delete)),
        }
    }
}

fn length_of(path: &CStr) -> Option<i64> {
    // SAFETY: plain numbers, for which zero is valid, filled in by the call.
    unsafe {
        let mut facts: libc::stat = std::mem::zeroed();
        (libc::stat(path.as_ptr(), &raw mut facts) == 0).then_some(facts.st_size)
    }
}

/// The database is empty, and there is a `-wal`.
pub const EMPTIED: c_int = ffi::SQLITE_CORRUPT | (0x71 << 8);

/// The database says that it is in rollback-journal mode, and there is a `-wal`: then that is
/// another one's.
pub const IN_ROLLBACK_MODE: c_int = ffi::SQLITE_CORRUPT | (0x72 << 8);

/// Bytes 18 and 19 of a database: 1 is the rollback journal, 2 is WAL.
///
/// # Safety
/// As [`guarded`].
unsafe fn says_rollback(guarded: &Guarded, file: *mut ffi::sqlite3_file) -> bool {
    let mut versions = [0_u8; 2];
    // SAFETY: two bytes are read into two bytes.
    let code = unsafe { original!(guarded, xRead(file, versions.as_mut_ptr().cast(), 2, 18)) };
    code == ffi::SQLITE_OK && versions == [1, 1]
}
