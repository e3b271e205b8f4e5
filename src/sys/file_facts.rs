//! What can be seen of a file and of where it is, in the terms that all platforms share.

use super::process_facts::Pid;

/// Identifies a file while it exists: device and inode, or the path where there are none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileId {
    /// Device and inode.
    Inode {
        /// `st_dev`
        device: u64,
        /// `st_ino`
        inode: u64,
    },
    /// The real path, in lower case: on Windows, for filesystems that number no files.
    #[cfg_attr(unix, allow(dead_code, reason = "every Unix filesystem numbers its files"))]
    Path(std::path::PathBuf),
}

/// Which file it is, also after its filesystem was mounted again: the inode, and the device or the
/// filesystem's own id. overlayfs and btrfs have another device at each mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// `st_ino`
    pub inode: u64,
    /// `st_dev`
    pub device: u64,
    /// `f_fsid` of statfs(2); `None` where the filesystem has none.
    pub filesystem: Option<u64>,
}

impl FileKey {
    /// Whether both mean one file.
    pub fn is(&self, other: &Self) -> bool {
        let same_filesystem = self.filesystem.is_some() && self.filesystem == other.filesystem;
        self.inode == other.inode && (self.device == other.device || same_filesystem)
    }
}

/// What `stat` says of a path, as far as the crate cares. Taken by path: opening and closing a
/// database file outside SQLite would cancel its POSIX locks (sqlite.org/howtocorrupt.html, 2.2).
#[derive(Clone, Debug)]
pub struct FileFacts {
    /// The file's identity.
    pub id: FileId,
    /// The owner's user id, where there is one.
    pub owner: Option<u32>,
    /// The owning group's id, where there is one.
    pub group: Option<u32>,
    /// The permission bits (`0o7777`), where there are any.
    pub mode: Option<u32>,
    /// Hard links; 0 once unlinked. 1 where it cannot be known.
    pub links: u64,
    /// In bytes.
    pub length: u64,
    /// When its content was last changed, where that is known.
    pub modified: Option<std::time::SystemTime>,
}

/// What changes with every name that is made in a directory, or taken out of it. Equal values mean
/// that the names are the same, if the first was seen when it [was settled](Self::is_settled).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(windows, allow(dead_code, reason = "there is none on Windows"))]
pub(crate) struct DirectoryState {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// `st_mtime`, since the Unix epoch. A person can set it back (tar, rsync), but not the other.
    pub(super) modified: std::time::Duration,
    /// `st_ctime`, the same.
    pub(super) changed: std::time::Duration,
}

impl DirectoryState {
    /// Whether whatever is done to the directory from `now` on, by the wall clock, gives it other
    /// times. Filesystems write them in steps: of the kernel's clock (up to 10 ms), of 10 ms
    /// (exFAT), or of one or two seconds (ext4 with small inodes, HFS+, FAT; there nothing is left
    /// behind the second).
    pub(crate) fn is_settled(&self, now: std::time::Duration) -> bool {
        use std::time::Duration;
        const STEP: Duration = Duration::from_millis(20);
        const STEP_WHOLE_SECONDS: Duration = Duration::from_secs(3);
        let last = self.modified.max(self.changed);
        let is_whole = self.modified.subsec_nanos() == 0 || self.changed.subsec_nanos() == 0;
        let step = if is_whole { STEP_WHOLE_SECONDS } else { STEP };
        now.checked_sub(last).is_some_and(|age| age > step)
    }
}

/// How far a filesystem can be trusted with SQLite's WAL and with advisory locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesystemClass {
    /// One kernel sees all its users: locks and shared memory work.
    Local,
    /// Served by another machine or across a VM bridge: refused.
    Remote,
    /// Implemented in user space: must pass the lock self-test.
    UserSpace,
}

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// The type as the kernel names it: `ext4`, `nfs4`, `fuse.sshfs`, `apfs`, `NTFS`.
    pub kind: String,
    /// What follows from the type.
    pub class: FilesystemClass,
}

/// What is left of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that this user may still write.
    pub bytes: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Files that may still be made, and those in all; `None` where they are not counted.
    pub files: Option<(u64, u64)>,
}

/// How it is known that a user is in a group: that of a pod is in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// This process is.
    Ours,
    /// The user has made a file where only root and the group can.
    Shown,
}

/// A file that a process has open, by what the kernel calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedFile {
    /// The process.
    pub pid: Pid,
    /// The file's path, in the mount namespace of whoever opened it.
    pub path: std::path::PathBuf,
    /// That name is gone.
    pub is_deleted: bool,
    /// What leads to the file, whatever became of its name.
    pub(super) descriptor: std::path::PathBuf,
}
