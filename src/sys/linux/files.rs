//! Filesystems, mounts and open files.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, StatxFlags, statx};
use rustix::io::Errno;

use super::super::procfs;
use super::super::unix::{own_pid, retry};
use super::super::{Filesystem, FilesystemClass, OpenedFile, Pid, note};
use super::{other_processes, read_proc};

/// The mount id is exact; the longest mount point serves kernels before 5.8.
pub fn filesystem_of(directory: &Path) -> Option<Filesystem> {
    let mountinfo = std::fs::read("/proc/self/mountinfo").map_err(note).ok()?;
    let kind = mount_id(directory)
        .and_then(|id| procfs::filesystem_of_mount(&mountinfo, id))
        .or_else(|| procfs::filesystem_of_path(&mountinfo, directory.as_os_str().as_bytes()))?;
    let class = classify(&kind);
    Some(Filesystem { kind, class })
}

pub fn files_opened_by(pid: Pid) -> Option<Vec<OpenedFile>> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(note).ok()?;
    let file = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).map_err(note).ok()?.into_os_string();
        // "path (deleted)", where the path is that of the name which is gone.
        let (path, is_deleted) = match target.as_bytes().strip_suffix(b" (deleted)") {
            Some(path) => (PathBuf::from(OsStr::from_bytes(path)), true),
            None => (PathBuf::from(target), false),
        };
        Some(OpenedFile { pid, path, is_deleted, descriptor: entry.path() })
    };
    // Pipes, sockets and the like have links that are no paths.
    Some(open.flatten().filter_map(file).filter(|file| file.path.is_absolute()).collect())
}

/// By the system call itself: an entry of the standard library's is some allocations, and there is
/// one for each process that uses a store.
pub(crate) fn each_name(directory: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = retry(|| rustix::fs::open(directory, flags, Mode::empty()))?;
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => each(name),
        }
    }
    Ok(())
}

/// Every process that this `/proc` shows, and what it has open as far as we may look.
pub fn opened_files() -> impl Iterator<Item = OpenedFile> {
    other_processes().chain([own_pid()]).filter_map(files_opened_by).flatten()
}

/// The access mode of open(2), as the line `flags:` of `proc_pid_fdinfo(5)` shows it, in octal.
pub fn is_open_for_writing(opened: &OpenedFile) -> bool {
    let descriptor = opened.descriptor.to_string_lossy().replace("/fd/", "/fdinfo/");
    let access = read_proc(&descriptor).and_then(|fdinfo| procfs::access_mode(&fdinfo));
    access.is_some_and(|access| access != libc::O_RDONLY)
}

/// The link leads to the very file, also where no path does any more. It is looked at first: a FIFO
/// or a device may do something when it is opened.
pub fn open_again(opened: &OpenedFile) -> io::Result<File> {
    if !std::fs::metadata(&opened.descriptor).map_err(note)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(&opened.descriptor).map_err(note)
}

pub fn shares_mounts_with(pid: Pid) -> Option<bool> {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/mnt")).map_err(note).ok();
    Some(namespace("self")? == namespace(&pid.to_string())?)
}

/// An absolute symbolic link on the way would be followed in our root: the caller compares what it
/// finds.
pub fn in_root_of(pid: Pid, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix("/").ok()?;
    Some(Path::new(&format!("/proc/{pid}/root")).join(below))
}

pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|error| match error {
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => io::ErrorKind::Unsupported.into(),
        error => error.into(),
    })
}

pub fn is_mount_point(path: &Path) -> bool {
    match (mount_id(path), path.parent().and_then(mount_id)) {
        (Some(of_file), Some(of_directory)) => of_file != of_directory,
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

pub(super) fn mount_id(path: &Path) -> Option<u64> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|errno| note(errno.into()))
        .ok()?;
    let has_id = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    has_id.then_some(found.stx_mnt_id)
}

/// Served by another machine: its locks may reach only this client, its memory maps are not shared
/// with other clients, and WAL needs both (sqlite.org/wal.html, "Overview", point 3).
pub(super) const NETWORK: &[&str] =
    &["nfs", "nfs4", "cifs", "smb3", "smb2", "smbfs", "afs", "ncpfs", "ncp", "coda", "davfs"];

/// Cluster filesystems: several machines mount one store at once, and pids and boot ids of another
/// machine mean nothing here, even where its locks do.
pub(super) const CLUSTER: &[&str] =
    &["ceph", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "glusterfs", "gfs2", "ocfs2"];

/// Bridges between a virtual machine and its host: `flock` is local to the guest or says "busy"
/// without a holder, and shared memory is not coherent (databases malformed within a minute).
pub(super) const BRIDGE: &[&str] = &["9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "drvfs"];

/// FUSE servers whose files lie on another machine or on the other side of a virtual machine.
pub(super) const REMOTE_FUSE: &[&str] = &[
    "ceph-fuse",
    "curlftpfs",
    "davfs",
    "davfs2",
    "gcsfuse",
    "glusterfs",
    "goofys",
    "grpcfuse",
    "juicefs",
    "moosefs",
    "osxfs",
    "portal",
    "rclone",
    "s3fs",
    "smbnetfs",
    "sshfs",
    "vmhgfs-fuse",
];

pub(super) fn classify(kind: &str) -> FilesystemClass {
    if [NETWORK, CLUSTER, BRIDGE].iter().any(|list| list.contains(&kind)) {
        return FilesystemClass::Remote;
    }
    match kind.strip_prefix("fuse.") {
        Some(server) if REMOTE_FUSE.contains(&server) => FilesystemClass::Remote,
        Some(_) => FilesystemClass::UserSpace,
        // `fuseblk` is a local block device (ntfs-3g, exfat-fuse), but its locks are the server's
        // business like any other FUSE's.
        None if matches!(kind, "fuse" | "fuseblk") || kind.starts_with("fuseblk.") => {
            FilesystemClass::UserSpace
        }
        // Everything else is the kernel's own, on memory or local blocks.
        None => FilesystemClass::Local,
    }
}
