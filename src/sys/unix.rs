//! What Linux and macOS share: files, owners, modes, and the two-process lock test.

mod locks;

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Uid, accessat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

pub use self::locks::{
    await_command_lock, command_lock, foreign_unlock, lock_self_test, open_foreign_lock_file,
    try_foreign_lock,
};
pub use self::locks::{hold_command_lock, open_command_lock, owner_follows, say_that_we_follow};
use super::{DirectoryState, FileFacts, FileId, FileKey, FreeSpace, Pid, note};

/// For files and directories of ours: nobody else may read which tokens are in use.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The kernel's pid type is a positive `int`; `None` for 0 and for what does not fit, which never
/// name a process (kill(2) gives 0 and negative numbers other meanings).
pub fn kernel_pid(pid: Pid) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Our own pid, fresh: a cached one would be wrong in a forked child.
pub fn own_pid() -> Pid {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// The effective user id.
#[expect(clippy::unnecessary_wraps, reason = "a platform without user ids answers None")]
pub fn effective_uid() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

fn we_are_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn facts(metadata: &Metadata) -> FileFacts {
    FileFacts {
        id: FileId::Inode { device: metadata.dev(), inode: metadata.ino() },
        owner: Some(metadata.uid()),
        group: Some(metadata.gid()),
        mode: Some(metadata.mode() & 0o7777),
        links: metadata.nlink(),
        length: metadata.len(),
        modified: metadata.modified().ok(),
    }
}

/// The same of an entry that is not opened, but for its times.
#[allow(clippy::useless_conversion, reason = "these types differ between systems")]
pub(super) fn facts_of_stat(found: &rustix::fs::Stat) -> FileFacts {
    FileFacts {
        id: FileId::Inode { device: found.st_dev as _, inode: found.st_ino as _ },
        owner: Some(found.st_uid),
        group: Some(found.st_gid),
        mode: Some(u32::from(found.st_mode) & 0o7777),
        links: found.st_nlink as _,
        length: u64::try_from(found.st_size).unwrap_or_default(),
        modified: None,
    }
}

/// By `stat(2)`: never by opening, which for a database would cancel SQLite's locks at the close.
pub fn file_facts(path: &Path) -> io::Result<FileFacts> {
    std::fs::metadata(path).map(|metadata| facts(&metadata))
}

pub fn open_file_facts(file: &File) -> io::Result<FileFacts> {
    file.metadata().map(|metadata| facts(&metadata))
}

/// A time before 1970 is not one that the kernel gave.
pub(crate) fn directory_state(path: &Path) -> Option<DirectoryState> {
    let found = std::fs::symlink_metadata(path).ok().filter(Metadata::is_dir)?;
    let time = |seconds: i64, nanoseconds: i64| {
        let nanoseconds = u32::try_from(nanoseconds).ok().filter(|it| *it < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
    };
    Some(DirectoryState {
        device: found.dev(),
        inode: found.ino(),
        modified: time(found.mtime(), found.mtime_nsec())?,
        changed: time(found.ctime(), found.ctime_nsec())?,
    })
}

pub fn file_key(path: &Path) -> io::Result<Option<FileKey>> {
    let metadata = std::fs::symlink_metadata(path).map_err(note)?;
    let filesystem = retry(|| rustix::fs::statfs(path)).map_err(|errno| note(errno.into()))?;
    Ok(Some(key(&metadata, &filesystem)))
}

/// The same where symbolic links are followed, those of `/proc/<pid>/fd` among them.
pub fn linked_file_key(path: &Path) -> io::Result<Option<FileKey>> {
    let metadata = std::fs::metadata(path).map_err(note)?;
    let filesystem = retry(|| rustix::fs::statfs(path)).map_err(|errno| note(errno.into()))?;
    Ok(Some(key(&metadata, &filesystem)))
}

pub fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

pub fn open_file_key(file: &File) -> io::Result<Option<FileKey>> {
    let metadata = file.metadata().map_err(note)?;
    let filesystem = retry(|| rustix::fs::fstatfs(file)).map_err(|errno| note(errno.into()))?;
    Ok(Some(key(&metadata, &filesystem)))
}

/// `f_fsid` is two integers whose names differ between C libraries; all zero where the filesystem
/// has no id (tmpfs before Linux 5.19).
fn key(metadata: &Metadata, filesystem: &rustix::fs::StatFs) -> FileKey {
    // SAFETY: fsid_t is a C struct of two integers of 32 bits on Linux and macOS alike, without
    // padding.
    let halves: [u32; 2] = unsafe { std::mem::transmute(filesystem.f_fsid) };
    let id = u64::from(halves[0]) | u64::from(halves[1]) << 32;
    FileKey { inode: metadata.ino(), device: metadata.dev(), filesystem: (id != 0).then_some(id) }
}

/// How a directory on the way is opened: `O_PATH` needs no permission to read it (open(2), Linux
/// 2.6.39). macOS has nothing like it in rustix, so there a directory must be readable.
#[cfg(target_os = "linux")]
pub(super) const ANCESTOR: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
pub(super) const ANCESTOR: OFlags = OFlags::RDONLY;

/// Makes what is missing of `path`, going down by descriptors. When root makes directories for a
/// user, that user owns the place and could swap a component for a symbolic link between our
/// `mkdir` and `chown`; a descriptor opened without following links cannot be led elsewhere.
pub fn create_private_dirs(path: &Path) -> io::Result<()> {
    let open = |path: &Path| {
        let flags = ANCESTOR | OFlags::DIRECTORY | OFlags::CLOEXEC;
        retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
    };
    let mut missing = Vec::new();
    let mut existing = path;
    let mut directory = loop {
        let here = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
        match open(here) {
            Ok(directory) => break directory,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        // A path without parent is a root or empty, and both were opened above.
        let (Some(parent), Some(name)) = (existing.parent(), existing.components().next_back())
        else {
            return Err(Errno::NOENT.into());
        };
        missing.push(name.as_os_str());
        existing = parent;
    };
    for name in missing.into_iter().rev() {
        directory = create_private_dir_at(&directory, Path::new(name))?;
    }
    Ok(())
}

fn create_private_dir_at(parent: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(DIRECTORY_MODE as _);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match retry(|| rustix::fs::mkdirat(parent, name, mode)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            // Somebody was faster; theirs is left as it is, and if it is no directory the error
            // says so.
            let open = || rustix::fs::openat(parent, name, ANCESTOR | flags, Mode::empty());
            return Ok(retry(open)?);
        }
        Err(errno) => return Err(errno.into()),
    }
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW;
    let open = || rustix::fs::openat(parent, name, flags, Mode::empty());
    let directory = match retry(open) {
        // A umask such as 0777 made it unreadable even for us (never for root, so this following
        // of links has nobody to fool).
        Err(Errno::ACCESS) if !we_are_root() => {
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
            retry(open)?
        }
        opened => opened?,
    };
    let new = rustix::fs::fstat(&directory)?;
    // One of somebody else, or with something in it, was put in the place of ours.
    if new.st_uid != rustix::process::geteuid().as_raw() || !is_empty(&directory)? {
        return Ok(directory);
    }
    if Mode::from_raw_mode(new.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO) != mode {
        rustix::fs::fchmod(&directory, mode)?;
    }
    let owner = rustix::fs::fstat(parent)?;
    if we_are_root() && new.st_uid != owner.st_uid {
        rustix::fs::fchown(
            &directory,
            Some(Uid::from_raw(owner.st_uid)),
            Some(Gid::from_raw(owner.st_gid)),
        )?;
    }
    Ok(directory)
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    let mut entries = rustix::fs::Dir::read_from(directory)?;
    Ok(!entries
        .any(|entry| entry.is_ok_and(|it| !matches!(it.file_name().to_bytes(), b"." | b".."))))
}

pub fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

pub fn may_read(path: &Path) -> bool {
    accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).is_ok()
}

/// What has another name may be another's file, which was put in the place of ours. Of whom it is
/// already the group does not matter: nobody but its owner may do anything with it.
///
/// Whoever may rename a directory on the way could have led us to another one when we made the
/// file, and back when we ask whose the directory is. So the very directory that is asked has to
/// have the very file in it.
pub fn give_to_owner_of_directory(file: &File, path: &Path) -> io::Result<()> {
    if !we_are_root() {
        return Ok(());
    }
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
    let Some(name) = path.file_name() else { return refused("it has no name") };
    let directory = directory_of(path)?;
    let (owner, ours) = (rustix::fs::fstat(&directory)?, file.metadata()?);
    if ours.uid() == owner.st_uid {
        return Ok(());
    }
    if ours.nlink() > 1 {
        return refused("it has a second name (hard link), so its owner was not changed");
    }
    let entry = retry(|| rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW));
    if !entry.is_ok_and(|entry| facts_of_stat(&entry).id == facts(&ours).id) {
        return refused("somebody has moved it or its directory, so its owner stays");
    }
    std::os::unix::fs::fchown(file, Some(owner.st_uid), Some(owner.st_gid))
}

pub fn rename_beside(from: &Path, to: &Path) -> io::Result<()> {
    let (directory, from, to) = beside(from, to)?;
    Ok(retry(|| rustix::fs::renameat(&directory, from, &directory, to))?)
}

pub fn link_beside(from: &Path, to: &Path) -> io::Result<()> {
    let (directory, from, to) = beside(from, to)?;
    Ok(retry(|| rustix::fs::linkat(&directory, from, &directory, to, AtFlags::empty()))?)
}

fn beside<'a>(from: &'a Path, to: &'a Path) -> io::Result<(OwnedFd, &'a OsStr, &'a OsStr)> {
    match (from.file_name(), to.file_name()) {
        (Some(from_name), Some(to_name)) if from.parent() == to.parent() => {
            Ok((directory_of(from)?, from_name, to_name))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The directory that `path` leads to a file in.
pub(super) fn directory_of(path: &Path) -> io::Result<OwnedFd> {
    open_directory_of(path, OFlags::empty())
}

fn open_directory_of(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let flags = flags | ANCESTOR | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = parent.unwrap_or(Path::new("."));
    Ok(retry(|| rustix::fs::open(parent, flags, Mode::empty()))?)
}

/// In the directory itself: a user who puts a link in its place, while root works for him, leads to
/// no other one. Read and write, because emulations of `flock` on record locks want a writable
/// descriptor (flock(2), NFS).
pub fn create_anchor_file(path: &Path) -> io::Result<File> {
    create_in(&open_directory_of(path, OFlags::NOFOLLOW)?, path)
}

fn create_in(directory: &OwnedFd, path: &Path) -> io::Result<File> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mode = Mode::from_raw_mode(FILE_MODE as _);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(retry(|| rustix::fs::openat(directory, name, flags, mode))?);
    settle_new(&file, directory).and_then(|()| beyond_standard_streams(file)).inspect_err(|_| {
        // Nobody else knows this name yet; what stays behind would be an unlocked anchor.
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    })
}

/// Where those were closed, whoever executes a program with streams of its own closes what has
/// their numbers.
fn beyond_standard_streams(file: File) -> io::Result<File> {
    const FIRST: RawFd = 3;
    if file.as_raw_fd() >= FIRST {
        return Ok(file);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, FIRST)?.into())
}

/// The umask may have taken bits away; what root makes belongs to the owner of the directory.
fn settle_new(file: &File, directory: &OwnedFd) -> io::Result<()> {
    let made = file.metadata()?;
    if made.mode() & 0o777 != FILE_MODE {
        file.set_permissions(PermissionsExt::from_mode(FILE_MODE))?;
    }
    if we_are_root() {
        let owner = rustix::fs::fstat(directory)?;
        if made.uid() != owner.st_uid {
            std::os::unix::fs::fchown(file, Some(owner.st_uid), Some(owner.st_gid))?;
        }
    }
    Ok(())
}

/// `O_NONBLOCK` so that a FIFO without writer opens at once; it is refused a line later.
pub fn open_anchor_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    regular(file, path)
}

fn regular(file: File, path: &Path) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let text = format!("{} is not a regular file", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// `f_bavail` and `f_favail` are what is left for users other than root. Some filesystems (btrfs)
/// count no files and say 0 of 0.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let found = retry(|| rustix::fs::statvfs(path))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(FreeSpace {
        bytes: bytes(found.f_bavail),
        bytes_total: bytes(found.f_blocks),
        files: (found.f_files > 0).then_some((found.f_favail, found.f_files)),
    })
}

pub fn is_mounted_read_only(path: &Path) -> io::Result<bool> {
    let found = retry(|| rustix::fs::statvfs(path))?;
    Ok(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Waits until `descriptor` is readable or closed at the other end; false when `timeout` is over
/// first.
pub fn wait_readable(descriptor: &impl std::os::fd::AsFd, timeout: Duration) -> bool {
    let deadline = monotonic() + timeout.min(WAIT_MAX);
    loop {
        let remaining = deadline.saturating_sub(monotonic());
        let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
        let timespec = Timespec::try_from(remaining).ok();
        match poll(&mut polled, timespec.as_ref()) {
            Ok(1..) => return true,
            Ok(0) if remaining.is_zero() || monotonic() >= deadline => return false,
            Ok(_) | Err(Errno::INTR) => {}
            // No memory for the poll table: the answer is not known, so it is not "readable".
            Err(errno) if remaining.is_zero() => {
                note(errno.into());
                return false;
            }
            Err(_) => std::thread::sleep(remaining.min(Duration::from_millis(10))),
        }
    }
}

/// What is longer than this (136 years) waits this long: `Duration::MAX` fits no `timespec`.
pub const WAIT_MAX: Duration = Duration::from_secs(u32::MAX as u64);

/// `CLOCK_MONOTONIC`, the clock that `poll` counts its timeout on.
pub fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or(Duration::ZERO)
}

/// Repeats a call that a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::locks::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    use rustix::fs::FlockOperation;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        file_facts(path).unwrap().mode.unwrap()
    }

    #[test]
    fn only_new_directories_are_made_private() {
        let directory = tempfile::tempdir().unwrap();
        let existing = directory.path().join("existing");
        std::fs::create_dir(&existing).unwrap();
        std::fs::set_permissions(&existing, PermissionsExt::from_mode(0o2755)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&existing, &link).unwrap();

        let path = link.join("a/b/c");
        create_private_dirs(&path).unwrap();
        create_private_dirs(&path).unwrap();
        assert_eq!(mode_of(&existing), 0o2755);
        for made in ["a", "a/b", "a/b/c"] {
            // The bit that gives what is in it its group is inherited.
            assert_eq!(mode_of(&existing.join(made)) & 0o777, 0o700, "{made}");
        }

        let file = existing.join("file");
        std::fs::write(&file, "").unwrap();
        let error = create_private_dirs(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
        let error = create_private_dirs(&file.join("below")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        assert!(create_private_dirs(&dangling).is_err());
    }

    #[test]
    fn many_may_make_the_same_directories() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/c/d");
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    create_private_dirs(&path).unwrap();
                });
            }
        });
        assert_eq!(mode_of(&path), 0o700);
    }

    /// FIELD-BUGS 33: root opened the store once, and its user never again.
    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_place() {
        if !we_are_root() {
            eprintln!("SKIPPED: what_root_makes_belongs_to_the_owner_of_the_place needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(65534), Some(65533)).unwrap();
        let path = directory.path().join("a/b");
        create_private_dirs(&path).unwrap();
        let file = path.join("file");
        let give = |path: &Path| {
            let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
            give_to_owner_of_directory(&file, path)
        };
        give(&file).unwrap();
        for made in [path.parent().unwrap(), &path, &file] {
            let metadata = std::fs::metadata(made).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (65534, 65533));
        }
        // A file with another name is not given away.
        let system = tempfile::NamedTempFile::new().unwrap();
        let second = path.join("second");
        std::fs::hard_link(system.path(), &second).unwrap();
        assert!(give(&second).is_err());
        assert_eq!(file_facts(system.path()).unwrap().owner, Some(0));
        // Nor one that is not there where its owner is asked for.
        std::fs::remove_file(&second).unwrap();
        let elsewhere = give_to_owner_of_directory(system.as_file(), &path.join("elsewhere"));
        elsewhere.unwrap_err();
        give_to_owner_of_directory(system.as_file(), &file).unwrap_err();
        assert_eq!(file_facts(system.path()).unwrap().owner, Some(0));
    }

    #[test]
    fn anchors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        let file = create_anchor_file(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        let facts = open_file_facts(&file).unwrap();
        assert_eq!(facts.id, file_facts(&path).unwrap().id);
        assert_eq!(facts.links, 1);
        let flags = rustix::io::fcntl_getfd(&file).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let error = create_anchor_file(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);

        let looked_at = open_anchor_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(open_file_facts(&looked_at).unwrap().links, 0);
    }

    #[test]
    fn what_is_no_regular_file_is_no_anchor() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        std::fs::write(&target, "").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let error = open_anchor_file(&link).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let error = create_anchor_file(&link).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);

        // FIELD-BUGS row 106: whoever swaps the directory while root makes an anchor in it leads
        // root nowhere.
        let (others, swapped) = (directory.path().join("others"), directory.path().join("anchors"));
        std::fs::create_dir(&others).unwrap();
        std::os::unix::fs::symlink(&others, &swapped).unwrap();
        create_anchor_file(&swapped.join("x.lock")).unwrap_err();
        assert!(!others.join("x.lock").exists());

        // Opening a FIFO without a writer must not wait for one.
        let fifo = directory.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let error = open_anchor_file(&fifo).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = open_anchor_file(directory.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn locks_work_here() {
        let directory = tempfile::tempdir().unwrap();
        lock_self_test(directory.path()).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(lock_self_test(&directory.path().join("none")).is_err());
    }

    /// A host program may ignore SIGCHLD, and then no exit status is kept for anybody.
    #[test]
    fn the_self_test_works_where_children_are_reaped_by_the_kernel() {
        let test = concat!(module_path!(), "::locks_work_here");
        let status = Command::new("sh")
            .args(["-c", "trap '' CHLD; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test.split_once("::").unwrap().1])
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn the_child_reports_what_it_met() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let names = ["a", "b"].map(|name| CString::new(path(name).as_os_str().as_bytes()).unwrap());
        let missing = probe_from_child(&names).unwrap().unwrap();
        assert_eq!((missing.advisory, missing.record), (libc::ENOENT, libc::ENOENT));
        let advisory = File::create(path("a")).unwrap();
        File::create(path("b")).unwrap();
        let free = probe_from_child(&names).unwrap().unwrap();
        assert_eq!((free.advisory, free.record), (0, 0));
        rustix::fs::flock(&advisory, FlockOperation::LockExclusive).unwrap();
        let held = probe_from_child(&names).unwrap().unwrap();
        assert_eq!((held.advisory, held.record), (libc::EWOULDBLOCK, 0));
    }
}
