//! Two of SQLite's system calls, for a process that works in the directory of somebody else.
//!
//! SQLite follows links that are in the place of what it keeps beside a database. As root it gives
//! each `-wal`, `-shm` and `-journal` that it opens to the owner of the database, also one that was
//! there already; and an `open(2)` of a FIFO in the place of one never returns.

use std::cell::RefCell;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::{io, mem, ptr};

use rusqlite::ffi;
use rustix::fs::{AtFlags, FileType};

use crate::sys::unix::{directory_of, retry};

/// Puts ours in the place of SQLite's, once; for every connection of the process.
pub fn replace() {
    static REPLACED: Once = Once::new();
    REPLACED.call_once(|| {
        // SAFETY: the default VFS lives as long as the process, and for Unix has this method. The
        // functions have the types by which SQLite calls what it has under these names.
        unsafe {
            let vfs = ffi::sqlite3_vfs_find(ptr::null());
            if vfs.is_null() || (*vfs).iVersion < 3 {
                return;
            }
            let Some(set) = (*vfs).xSetSystemCall else { return };
            let open = mem::transmute::<Open, unsafe extern "C" fn()>(open);
            let give = mem::transmute::<Chown, unsafe extern "C" fn()>(give);
            set(vfs, c"open".as_ptr(), Some(open));
            set(vfs, c"fchown".as_ptr(), Some(give));
        }
    });
}

type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type Chown = unsafe extern "C" fn(c_int, libc::uid_t, libc::gid_t) -> c_int;

thread_local! {
    /// What SQLite has opened last: it gives a file away right after that. Its path by `/proc` is
    /// not to be had everywhere.
    static OPENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite calls it with a NUL-terminated path.
    let bytes = unsafe { CStr::from_ptr(path).to_bytes() };
    // SQLite follows a link in the place of a `-wal` or `-journal`, and root would write to what a
    // user puts there.
    let is_companion = database_of(Path::new(OsStr::from_bytes(bytes))).is_some();
    let no_link = if is_companion { libc::O_NOFOLLOW } else { 0 };
    // SAFETY: as SQLite calls it. For regular files `O_NONBLOCK` means nothing.
    let fd = unsafe { libc::open(path, flags | libc::O_NONBLOCK | no_link, mode) };
    let _ = OPENED.try_with(|opened| {
        if let Ok(mut opened) = opened.try_borrow_mut() {
            opened.clear();
            opened.extend_from_slice(bytes);
        }
    });
    fd
}

/// What cannot be given stays as it is, as with SQLite.
unsafe extern "C" fn give(fd: c_int, _uid: libc::uid_t, _gid: libc::gid_t) -> c_int {
    // SAFETY: SQLite keeps it open for as long as this call; it is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let path = OPENED.try_with(|opened| opened.try_borrow().map(|it| it.clone()));
    let Ok(Ok(path)) = path else { return -1 };
    give_to_owner_of_database(&file, Path::new(OsStr::from_bytes(&path))).map_or(-1, |()| 0)
}

/// Gives a file that root has just made to the owner of the database that it is beside: in the very
/// directory that it is found in by `path`, by which it was opened. One that is not empty was there
/// before, and is its owner's.
pub fn give_to_owner_of_database(file: &File, path: &Path) -> io::Result<()> {
    let made = rustix::fs::fstat(file)?;
    let Some((name, database)) = path.file_name().zip(database_of(path)) else { return Ok(()) };
    let directory = directory_of(path)?;
    let look =
        |name: &Path| retry(|| rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW));
    let (entry, owner) = (look(Path::new(name))?, look(&database)?);
    let is_there = (entry.st_dev, entry.st_ino) == (made.st_dev, made.st_ino);
    let is_new = made.st_size == 0 && made.st_nlink == 1;
    let is_database = FileType::from_raw_mode(owner.st_mode) == FileType::RegularFile;
    if made.st_uid != owner.st_uid && is_there && is_new && is_database && owner.st_nlink == 1 {
        std::os::unix::fs::fchown(file, Some(owner.st_uid), Some(owner.st_gid))?;
    }
    Ok(())
}

/// The name of the database that `path` is a companion of.
fn database_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.as_bytes();
    let suffixes: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];
    let database = suffixes.into_iter().find_map(|suffix| name.strip_suffix(suffix))?;
    Some(PathBuf::from(OsString::from_vec(database.to_owned())))
}
