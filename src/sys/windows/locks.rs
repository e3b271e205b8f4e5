//! Locks of files on Windows: of anchors, and of the older program.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFile,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use crate::sys::{CommandLocks, Sharing};

/// So that an anchor can be looked at, and removed as garbage, while others have it open.
pub(super) const SHARE_ALL: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// Handles of std are not inherited by child processes.
pub fn create_anchor_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .share_mode(SHARE_ALL)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)
}

pub fn open_anchor_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .share_mode(SHARE_ALL)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)?;
    // A symbolic link is opened as itself by that flag.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a regular file", path.display()),
        ));
    }
    Ok(file)
}

/// A second handle stands for a second process: `LockFileEx` locks belong to handles. SQLite's
/// locks are made by the same call, so there is only one kind to test.
pub fn lock_self_test(directory: &Path) -> io::Result<Result<(), String>> {
    let scratch = tempfile::Builder::new().prefix(".lock-self-test-").tempfile_in(directory)?;
    let first = scratch.as_file();
    let second = scratch.reopen()?;
    if let Err(error) = first.try_lock() {
        return Ok(Err(format!("a lock cannot be taken: {error}")));
    }
    match second.try_lock_shared() {
        Err(std::fs::TryLockError::WouldBlock) => {}
        Ok(()) => {
            let why = "a lock was granted to a second handle while the first one held it";
            return Ok(Err(why.to_owned()));
        }
        Err(std::fs::TryLockError::Error(error)) => {
            return Ok(Err(format!("a second handle was refused a lock: {error}")));
        }
    }
    // Whether that worked is what the next lock finds out; wine 8 unlocks and reports an error.
    let _ = first.unlock();
    Ok(second
        .try_lock_shared()
        .map_err(|error| format!("a second handle did not get the lock once free: {error}")))
}

pub fn open_foreign_lock_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .share_mode(SHARE_ALL)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a regular file", path.display()),
        ));
    }
    Ok(file)
}

/// Where other programs lock one byte: a locked range cannot be read, and this lies beyond what
/// they write.
const FOREIGN_LOCK_OFFSET: u32 = 1 << 20;

pub fn say_that_we_follow(_anchor: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn owner_follows(_anchor: &File) -> bool {
    false
}

pub fn hold_command_lock(_path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There a command ends with its `run`, by the job that holds both.
pub fn command_lock(_file: &File) -> io::Result<CommandLocks> {
    Err(io::ErrorKind::Unsupported.into())
}

/// As above.
pub fn open_command_lock(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// As above.
pub fn await_command_lock(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn try_foreign_lock(file: &File, sharing: Sharing) -> io::Result<bool> {
    let mut at = OVERLAPPED::default();
    at.Anonymous.Anonymous.Offset = FOREIGN_LOCK_OFFSET;
    let flags = match sharing {
        Sharing::Shared => LOCKFILE_FAIL_IMMEDIATELY,
        Sharing::Exclusive => LOCKFILE_FAIL_IMMEDIATELY | LOCKFILE_EXCLUSIVE_LOCK,
    };
    // SAFETY: the handle is open and `at` lives until the call returns; it never waits.
    let taken = unsafe { LockFileEx(file.as_raw_handle(), flags, 0, 1, 0, &raw mut at) } != 0;
    if taken {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING) => Ok(false),
        _ => Err(error),
    }
}

pub fn foreign_unlock(file: &File) {
    // SAFETY: the handle is open. What is not locked is refused.
    unsafe { UnlockFile(file.as_raw_handle(), FOREIGN_LOCK_OFFSET, 0, 1, 0) };
}
