//! Files and directories: who they are, whose, and what may be done in a place that others can
//! write.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::file_facts::{DirectoryState, FileFacts, FileKey, Filesystem, FreeSpace};
use super::{Shortage, os};

/// Facts about the file at `path`, symbolic links followed.
///
/// # Errors
/// As `stat(2)`.
pub fn file_facts(path: &Path) -> io::Result<FileFacts> {
    os::file_facts(path)
}

/// Whether this process has hardly any descriptor left: fewer than one connection of SQLite needs,
/// which opens up to four files and does not say why it could not.
pub(crate) fn lack_of_descriptors() -> Option<Shortage> {
    const NEEDED: usize = 8;
    let opened: Result<Vec<_>, _> = (0..NEEDED).map(|_| io::pipe()).collect();
    opened.err().as_ref().and_then(Shortage::of)
}

/// Which file `path` names, as far as the platform numbers files; symbolic links are not followed.
///
/// # Errors
/// As `stat(2)` and `statfs(2)`.
pub fn file_key(path: &Path) -> io::Result<Option<FileKey>> {
    os::file_key(path)
}

/// The same of an open file.
///
/// # Errors
/// As `fstat(2)` and `fstatfs(2)`.
pub fn open_file_key(file: &std::fs::File) -> io::Result<Option<FileKey>> {
    os::open_file_key(file)
}

/// Calls `each` with every name in a directory that is text; not with `.` and `..`.
///
/// # Errors
/// As `open(2)` and `getdents(2)`.
pub(crate) fn each_name(directory: &Path, each: impl FnMut(&str)) -> io::Result<()> {
    os::each_name(directory, each)
}

/// What tells whether the names in the directory `path` have changed; `None` where the system says
/// nothing that can be relied on, or it cannot be seen.
pub(crate) fn directory_state(path: &Path) -> Option<DirectoryState> {
    os::directory_state(path)
}

/// Facts about the regular file at `path`; what a symbolic link leads to is not looked at.
///
/// # Errors
/// As `lstat(2)`; `InvalidInput` for what is no regular file.
pub(crate) fn facts_of_entry(path: &Path) -> io::Result<FileFacts> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    os::file_facts(path)
}

/// The same about an open file (never one of SQLite's).
///
/// # Errors
/// As `fstat(2)`.
pub fn open_file_facts(file: &std::fs::File) -> io::Result<FileFacts> {
    os::open_file_facts(file)
}

/// Makes `path` and its missing parents, each with mode 0700 (Windows: with the inherited ACL).
///
/// # Errors
/// As `mkdir(2)`.
pub fn create_private_dirs(path: &Path) -> io::Result<()> {
    os::create_private_dirs(path)
}

/// Whether `path` itself is a mount point: a file mounted over another name of it.
pub fn is_mount_point(path: &Path) -> bool {
    os::is_mount_point(path)
}

/// Whether this process may write to the existing `path`, by its effective user.
pub fn may_write(path: &Path) -> bool {
    os::may_write(path)
}

/// Reads at a place of an open file, as `pread(2)`: where others read by the same descriptor is
/// left as it is, but on Windows.
///
/// # Errors
/// As `pread(2)`.
pub(crate) fn read_at(file: &std::fs::File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    os::read_at(file, bytes, at)
}

/// Whether this process may read the existing `path`, by its effective user. Nothing is opened.
pub fn may_read(path: &Path) -> bool {
    os::may_read(path)
}

/// Swaps the names of two existing files or directories, so that at no moment either is missing.
///
/// # Errors
/// `Unsupported` where the kernel or the filesystem has no such thing; otherwise as `renameat2(2)`.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    os::exchange(one, other)
}

/// Opens the directory at `path` itself, not what a symbolic link there leads to.
///
/// # Errors
/// As `open(2)`; `Unsupported` on Windows.
pub(crate) fn open_directory(path: &Path) -> io::Result<std::fs::File> {
    os::open_directory(path)
}

/// Opens for reading what an open directory calls `name`, unless that is a symbolic link. Never a
/// file of SQLite's: see [`super::wal_index::keep`].
///
/// # Errors
/// As `openat(2)`; `Unsupported` on Windows.
pub(crate) fn open_in(directory: &std::fs::File, name: &OsStr) -> io::Result<std::fs::File> {
    os::open_in(directory, name)
}

/// Opens a directory to make files in it by [`path_of_open`]; follows no symbolic link in its
/// place. `None` on Windows.
///
/// # Errors
/// As `open(2)`.
pub(crate) fn pin_directory(path: &Path) -> io::Result<Option<std::fs::File>> {
    os::pin_directory(path)
}

/// A path that leads to an open directory whatever it is called by now, as long as it is open;
/// `None` where the system has no such paths (Linux: `/proc/self/fd`).
pub(crate) fn path_of_open(directory: &std::fs::File) -> Option<std::path::PathBuf> {
    os::path_of_open(directory)
}

/// Facts about what an open directory calls `name`, which may be a symbolic link.
///
/// # Errors
/// As `fstatat(2)`; `Unsupported` on Windows.
pub(crate) fn facts_in(directory: &std::fs::File, name: &OsStr) -> io::Result<FileFacts> {
    os::facts_in(directory, name)
}

/// Sets the mode of an open file or directory.
///
/// # Errors
/// As `fchmod(2)`; `Unsupported` on Windows.
pub(crate) fn set_mode(file: &std::fs::File, mode: u32) -> io::Result<()> {
    os::set_mode(file, mode)
}

/// Sets the mode of what an open directory calls `name`, if that is still the file of `expected`,
/// without opening it for reading.
///
/// # Errors
/// `NotFound` where it is another file; as `fchmodat(2)`; `Unsupported` on Windows.
pub(crate) fn set_mode_in(
    directory: &std::fs::File,
    name: &OsStr,
    expected: &FileFacts,
    mode: u32,
) -> io::Result<()> {
    os::set_mode_in(directory, name, expected, mode)
}

/// The users to whom the symbolic links on the way to `path` belong, which is absolute. Empty on
/// Windows.
pub(crate) fn owners_of_links(path: &Path) -> Vec<u32> {
    os::owners_of_links(path)
}

/// When we are root: gives an open file, which we have just made at `path`, to the owner of the
/// directory that it is in (user and group). Otherwise, and on Windows, nothing.
///
/// # Errors
/// As `fchown(2)`; when that is not where the file is, or it has another name.
pub(crate) fn give_to_owner_of_directory(file: &std::fs::File, path: &Path) -> io::Result<()> {
    os::give_to_owner_of_directory(file, path)
}

/// Renames `from`, whose directory `to` is in as well. That is looked up once: whoever swaps it
/// meanwhile leads to an error, and to no other directory.
///
/// # Errors
/// As `renameat(2)`.
pub(crate) fn rename_beside(from: &Path, to: &Path) -> io::Result<()> {
    os::rename_beside(from, to)
}

/// A second name for the file `from`, likewise. What has that name stays.
///
/// # Errors
/// As `linkat(2)`.
pub(crate) fn link_beside(from: &Path, to: &Path) -> io::Result<()> {
    os::link_beside(from, to)
}

/// Creates the file at `path`, which must not exist: read and write, 0600, close-on-exec, of the
/// owner of its directory where we are root, no symbolic link followed, also not in the place of
/// the directory; on Windows shared for reading, writing and deleting.
///
/// # Errors
/// As `open(2)` with `O_CREAT | O_EXCL`, `fchmod(2)` and `fchown(2)`.
pub fn create_anchor_file(path: &Path) -> io::Result<std::fs::File> {
    os::create_anchor_file(path)
}

/// Opens an existing anchor to look at it: read only, close-on-exec, no symbolic link followed,
/// and never blocking on a FIFO that somebody put there.
///
/// # Errors
/// As `open(2)`.
pub fn open_anchor_file(path: &Path) -> io::Result<std::fs::File> {
    os::open_anchor_file(path)
}

/// The filesystem that holds the (existing, real) `directory`. `None` when it cannot be found out.
pub fn filesystem_of(directory: &Path) -> Option<Filesystem> {
    os::filesystem_of(directory)
}

/// What is left of the filesystem that holds the (existing) `path`.
///
/// # Errors
/// As `statvfs(3)`.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    os::free_space(path)
}

/// Whether what holds the (existing) `path` is mounted read-only, so that nobody can write there,
/// whatever the modes say.
///
/// # Errors
/// As `statvfs(3)`.
pub fn is_mounted_read_only(path: &Path) -> io::Result<bool> {
    os::is_mounted_read_only(path)
}
