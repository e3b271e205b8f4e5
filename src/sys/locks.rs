//! Locks on files, and who holds them or has a file open.

use std::io;
use std::path::Path;

use super::file_facts::{FileKey, OpenedFile};
use super::lock_facts::{CommandLocks, ListedLock, Sharing};
use super::os;
use super::process_facts::Pid;

/// Takes two shared record locks on the existing file at `path`. One lasts until this process ends,
/// and goes along when it executes another program; the other one for as long as any process that
/// it starts keeps the descriptor open.
///
/// # Errors
/// As `open(2)` and `fcntl(2)`; `Unsupported` on Windows.
pub(crate) fn hold_command_lock(path: &Path) -> io::Result<()> {
    os::hold_command_lock(path)
}

/// Whether other processes hold these locks on the file. Never ask the command itself: closing
/// `file` there would cancel its lock.
///
/// # Errors
/// As `fcntl(2)`; `Unsupported` on Windows.
pub(crate) fn command_lock(file: &std::fs::File) -> io::Result<CommandLocks> {
    os::command_lock(file)
}

/// The file at `path`, to wait for its lock.
///
/// # Errors
/// As `open(2)`; `Unsupported` elsewhere than on Linux.
pub(crate) fn open_command_lock(path: &Path) -> io::Result<std::fs::File> {
    os::open_command_lock(path)
}

/// Waits until nobody holds the lock of the command itself on the file.
///
/// # Errors
/// As `fcntl(2)`; `Unsupported` elsewhere than on Linux.
pub(crate) fn await_command_lock(file: &std::fs::File) -> io::Result<()> {
    os::await_command_lock(file)
}

/// Notes on an anchor, for as long as this open file of it, that its owner goes on with whomever
/// its command hands over to: by a shared record lock of the open file, which changes nothing else.
///
/// # Errors
/// As `fcntl(2)`; `Unsupported` where a file has no such locks.
pub(crate) fn say_that_we_follow(anchor: &std::fs::File) -> io::Result<()> {
    os::say_that_we_follow(anchor)
}

/// Whether the owner of this anchor has said so.
pub(crate) fn owner_follows(anchor: &std::fs::File) -> bool {
    os::owner_follows(anchor)
}

/// Whether a file can be read, and renamed, while another process or handle has it locked.
pub const SHOWS_LOCKED_CONTENT: bool = cfg!(unix);

/// Whether the platform shows what other processes have open.
#[cfg_attr(not(test), allow(dead_code, reason = "where it does not, nothing is shown"))]
pub const SHOWS_OPENED_FILES: bool = cfg!(target_os = "linux");

/// Whether the platform tells who holds a record lock: where it does not, [`record_lock_holder`]
/// says nothing by `None`.
pub const SHOWS_RECORD_LOCKS: bool = cfg!(target_os = "linux");

/// Whether file locks work between processes in `directory`: a second process must be refused both
/// the advisory lock (`flock`) and the record lock (`fcntl`) that this one holds on a scratch file,
/// and get them once they are free. `Ok(Err(why))` when they do not.
///
/// # Errors
/// When the test could not be run.
pub fn lock_self_test(directory: &Path) -> io::Result<Result<(), String>> {
    os::lock_self_test(directory)
}

/// The processes that have the file at `path` open, as far as we may look (Linux: `/proc/*/fd`).
/// Slow: it looks at every process.
pub fn processes_with_open_file(path: &Path) -> Vec<Pid> {
    os::processes_with_open_file(path)
}

/// The processes but this one that have a file of `directory` open, with the file's name, as far as
/// we may look (Linux: `/proc/*/fd`). One look at every process, however many files there are.
pub fn processes_with_files_of(directory: &Path) -> Vec<(Pid, String)> {
    os::processes_with_files_of(directory)
}

impl OpenedFile {
    /// Opens the very file once more, to look at it: a regular one only.
    ///
    /// # Errors
    /// As `open(2)`; also where its process has closed it meanwhile.
    pub fn open_again(&self) -> io::Result<std::fs::File> {
        os::open_again(self)
    }

    /// Whether it is open for writing; `false` also where its process has closed it meanwhile.
    pub fn is_open_for_writing(&self) -> bool {
        os::is_open_for_writing(self)
    }

    /// Which file it is. Without opening it: it may be a database.
    ///
    /// # Errors
    /// As `stat(2)` and `statfs(2)`.
    pub fn key(&self) -> io::Result<Option<FileKey>> {
        os::linked_file_key(&self.descriptor)
    }
}

/// What `pid` has open (Linux: `/proc/<pid>/fd`); `None` when that cannot be seen.
pub fn files_opened_by(pid: Pid) -> Option<Vec<OpenedFile>> {
    os::files_opened_by(pid)
}

/// What all processes have open, this one among them, as far as we may look. Slow: it looks at
/// every process.
pub fn opened_files() -> impl Iterator<Item = OpenedFile> {
    os::opened_files()
}

/// Whether `pid` has the same mounts as we, so that its paths are ours (Linux: its mount
/// namespace); `None` when that cannot be seen.
pub fn shares_mounts_with(pid: Pid) -> Option<bool> {
    os::shares_mounts_with(pid)
}

/// Where the (absolute, real) `path` is found as `pid` sees it: its root may be another one than
/// ours.
pub fn in_root_of(pid: Pid, path: &Path) -> Option<std::path::PathBuf> {
    os::in_root_of(pid, path)
}

/// Which processes of this namespace hold a record lock of either kind on byte `offset` of the file
/// at `path`: those that lock as SQLite does by itself. `None` when that cannot be seen.
pub fn record_lock_holders(path: &Path, offset: u64) -> Option<Vec<Pid>> {
    os::record_lock_holders(path, offset)
}

/// Which process of this namespace holds an exclusive record lock on byte `offset` of the file at
/// `path` (Linux: from `/proc/locks` and `/proc/<pid>/fdinfo`). `None` when nobody does or it
/// cannot be seen.
pub fn record_lock_holder(path: &Path, offset: u64) -> Option<Pid> {
    os::record_lock_holder(path, offset)
}

/// Whether some process holds an exclusive `flock` on the file at `path`, without touching that
/// lock (Linux: from `/proc/locks`). A shared one counts as none.
pub(crate) fn listed_lock(path: &Path) -> ListedLock {
    os::listed_lock(path)
}

/// Opens a lock file that other programs use as well, or makes it: read and write, 0600 if it is
/// made, close-on-exec, no symbolic link followed, and never blocking on a FIFO.
///
/// # Errors
/// As `open(2)`; `InvalidInput` for what is no regular file.
pub(crate) fn open_foreign_lock_file(path: &Path) -> io::Result<std::fs::File> {
    os::open_foreign_lock_file(path)
}

/// Tries to take the lock that programs of other languages take on a file: `flock` on Unix, one
/// byte at 1 MiB on Windows, where locked bytes cannot be read. False when somebody else has it.
///
/// # Errors
/// When it could not be found out.
pub(crate) fn try_foreign_lock(file: &std::fs::File, sharing: Sharing) -> io::Result<bool> {
    os::try_foreign_lock(file, sharing)
}

/// Lets the lock of [`try_foreign_lock`] go, also where a forked child shares the descriptor.
pub(crate) fn foreign_unlock(file: &std::fs::File) {
    os::foreign_unlock(file);
}
