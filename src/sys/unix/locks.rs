//! Locks on files, and whether they work between two processes.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};

use super::super::{CommandLocks, Sharing};
use super::open_anchor_file;
use super::{create_in, directory_of, regular, retry, wait_readable};

/// `O_NONBLOCK` as above. The mode and the owner of a file that is there are its owner's business;
/// what root makes belongs to the owner of the directory.
pub fn open_foreign_lock_file(path: &Path) -> io::Result<File> {
    /// Each further round means that somebody removed or made the file in between.
    const ROUNDS_MAX: usize = 8;
    for _ in 0..ROUNDS_MAX {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return regular(opened?, path),
        }
        match create_in(&directory_of(path)?, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// From which number on a descriptor is out of the way of programs that close or use the first few.
pub(super) const COMMAND_LOCK_DESCRIPTOR_MIN: i32 = 64;

/// The descriptor that the file is opened with is closed before the lock is taken: any later close
/// of that file by this process would cancel the lock (fcntl(2), "Record locks").
pub fn hold_command_lock(path: &Path) -> io::Result<()> {
    let opened = open_anchor_file(path)?;
    let kept = rustix::io::fcntl_dupfd_cloexec(&opened, COMMAND_LOCK_DESCRIPTOR_MIN)?;
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty())?;
    drop(opened);
    let set = |command, byte| {
        let shared = record_lock(lock_kind::READ, byte);
        // SAFETY: `shared` is a whole `flock` that the kernel only reads.
        let done = unsafe { libc::fcntl(kept.as_raw_fd(), command, &raw const shared) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    set_shared(|| set(libc::F_SETLK, COMMAND_BYTE))?;
    // Of the open file, which whatever the command starts inherits. Before Linux 3.15, and on
    // macOS, there are no such locks, and then nobody is known by one.
    #[cfg(target_os = "linux")]
    let _ = set(libc::F_OFD_SETLK, DESCENDANTS_BYTE);
    // It ends with the process, whatever program that becomes.
    std::mem::forget(kept);
    Ok(())
}

/// Whoever waits for the lock to be free has it for a moment ([`await_command_lock`]).
fn set_shared(mut set: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    const ATTEMPTS: u32 = 200;
    for _ in 0..ATTEMPTS {
        match set() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
    set()
}

/// For writing: only then a lock can be waited for that excludes the shared ones.
#[cfg(target_os = "linux")]
pub fn open_command_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    regular(options.open(path)?, path)
}

/// By a lock of the open file, which is waited for without an end, and given back at once. Nobody
/// who looks sees one who waits, and whoever looks in that instant takes the command for alive.
#[cfg(target_os = "linux")]
pub fn await_command_lock(file: &File) -> io::Result<()> {
    let set = |command, kind| {
        let lock = record_lock(kind, COMMAND_BYTE);
        // SAFETY: `lock` is a whole `flock` that the kernel only reads.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    };
    retry(|| set(libc::F_OFD_SETLKW, lock_kind::WRITE))?;
    retry(|| set(libc::F_OFD_SETLK, lock_kind::NONE))?;
    Ok(())
}

/// There are no locks of an open file.
#[cfg(not(target_os = "linux"))]
pub fn open_command_lock(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub fn await_command_lock(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The kinds of record locks, in the type of their field; some systems have another type for the
/// constants.
#[allow(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    reason = "the values are 0 to 3"
)]
pub(super) mod lock_kind {
    pub const READ: libc::c_short = libc::F_RDLCK as libc::c_short;
    pub const WRITE: libc::c_short = libc::F_WRLCK as libc::c_short;
    pub const NONE: libc::c_short = libc::F_UNLCK as libc::c_short;
}

/// The byte that the command locks, and the one that is locked for as long as anything has the
/// descriptor open that it inherited from the command.
pub(super) const COMMAND_BYTE: libc::off_t = 0;

pub(super) const DESCENDANTS_BYTE: libc::off_t = 1;

pub(super) fn record_lock(kind: libc::c_short, byte: libc::off_t) -> libc::flock {
    // SAFETY: plain numbers, for which zero is valid: SEEK_SET, and no pid, as OFD locks want it.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind;
    range.l_start = byte;
    range.l_len = 1;
    range
}

pub fn command_lock(file: &File) -> io::Result<CommandLocks> {
    Ok(CommandLocks {
        command: is_locked(file, COMMAND_BYTE)?,
        descendants: is_locked(file, DESCENDANTS_BYTE)?,
    })
}

/// Whether another process or open file has a record lock on this byte.
fn is_locked(file: &File, byte: libc::off_t) -> io::Result<bool> {
    let mut asked = record_lock(lock_kind::WRITE, byte);
    retry(|| {
        // SAFETY: `asked` is a whole `flock`, which the kernel fills in.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut asked) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    })?;
    Ok(asked.l_type != lock_kind::NONE)
}

/// The byte of an anchor that its owner locks who follows its command.
const FOLLOWS_BYTE: libc::off_t = 0;

#[cfg(target_os = "linux")]
pub fn say_that_we_follow(anchor: &File) -> io::Result<()> {
    let shared = record_lock(lock_kind::READ, FOLLOWS_BYTE);
    // SAFETY: `shared` is a whole `flock` that the kernel only reads.
    let done = unsafe { libc::fcntl(anchor.as_raw_fd(), libc::F_OFD_SETLK, &raw const shared) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// There are no locks of an open file.
#[cfg(not(target_os = "linux"))]
pub fn say_that_we_follow(_anchor: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn owner_follows(anchor: &File) -> bool {
    is_locked(anchor, FOLLOWS_BYTE).unwrap_or(false)
}

pub fn try_foreign_lock(file: &File, sharing: Sharing) -> io::Result<bool> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match retry(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Fails only for a descriptor that is none.
pub fn foreign_unlock(file: &File) {
    let _ = retry(|| rustix::fs::flock(file, FlockOperation::NonBlockingUnlock));
}

/// How long the test's child may take. It makes six system calls; on a hung FUSE server they never
/// return.
pub(super) const SELF_TEST_LIMIT: Duration = Duration::from_secs(5);

/// Two scratch files, one per kind of lock: an emulation of `flock` by record locks would make the
/// two fight over one file within this very process.
pub fn lock_self_test(directory: &Path) -> io::Result<Result<(), String>> {
    let scratch = |kind: &str| {
        tempfile::Builder::new().prefix(&format!(".lock-self-test-{kind}-")).tempfile_in(directory)
    };
    let advisory = scratch("flock")?;
    let record = scratch("fcntl")?;
    let names = [
        CString::new(advisory.path().as_os_str().as_bytes())?,
        CString::new(record.path().as_os_str().as_bytes())?,
    ];
    let lock = FlockOperation::NonBlockingLockExclusive;
    let unlock = FlockOperation::NonBlockingUnlock;

    if let Err(errno) = retry(|| rustix::fs::flock(advisory.as_file(), lock)) {
        return Ok(Err(format!("flock cannot be taken: {errno}")));
    }
    if let Err(errno) = retry(|| rustix::fs::fcntl_lock(record.as_file(), lock)) {
        return Ok(Err(format!("a record lock cannot be taken: {errno}")));
    }
    let Some(held) = probe_from_child(&names)? else {
        return Ok(Err(hung()));
    };
    let refused = |kind: &str, errno: i32, accepted: &[i32]| match errno {
        0 => Err(format!("{kind} was granted to a second process while the first one held it")),
        _ if accepted.contains(&errno) => Ok(()),
        _ => Err(failed(kind, "a second process was refused", errno)),
    };
    // flock(2) knows one errno for "held by another"; fcntl(2) leaves the choice between two.
    if let Err(why) = refused("flock", held.advisory, &[libc::EWOULDBLOCK])
        .and_then(|()| refused("a record lock", held.record, &[libc::EAGAIN, libc::EACCES]))
    {
        return Ok(Err(why));
    }

    retry(|| rustix::fs::flock(advisory.as_file(), unlock))?;
    retry(|| rustix::fs::fcntl_lock(record.as_file(), unlock))?;
    let Some(free) = probe_from_child(&names)? else {
        return Ok(Err(hung()));
    };
    let granted = |kind: &str, errno: i32| match errno {
        0 => Ok(()),
        _ => Err(failed(kind, "a second process did not get it once free", errno)),
    };
    Ok(granted("flock", free.advisory).and_then(|()| granted("a record lock", free.record)))
}

pub(super) fn failed(kind: &str, what: &str, errno: i32) -> String {
    format!("{kind}: {what}: {}", io::Error::from_raw_os_error(errno))
}

pub(super) fn hung() -> String {
    format!("a second process got no answer within {} s", SELF_TEST_LIMIT.as_secs())
}

/// What the child met: an errno each, 0 when it got the lock.
pub(super) struct ChildReport {
    pub(super) advisory: i32,
    pub(super) record: i32,
}

/// Forks a child that tries both locks, and reads its report from a pipe: the exit status may be
/// taken from us by a host program that ignores SIGCHLD or reaps everything. `None` when there is
/// no answer in time.
pub(super) fn probe_from_child(names: &[CString; 2]) -> io::Result<Option<ChildReport>> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: after fork in a process that may have threads the child calls only functions that
    // signal-safety(7) lists (open, flock via its bare system call, fcntl, write, _exit), neither
    // allocates nor takes a lock, and never returns.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: we are that child, and the names live in memory it has its own copy of.
        0 => unsafe { report_and_exit(names, writer.as_raw_fd()) },
        _ => drop(writer),
    }
    let report = read_report(reader);
    reap(child, matches!(report, Ok(None)));
    report
}

/// # Safety
/// Only in a freshly forked child; it ends the process.
pub(super) unsafe fn report_and_exit(names: &[CString; 2], writer: i32) -> ! {
    // SAFETY: the names end in NUL, `writer` is open, the report is plain bytes of its own length.
    // Locks and descriptors go with the process.
    unsafe {
        let report = [try_flock(&names[0]), try_record_lock(&names[1])];
        libc::write(writer, report.as_ptr().cast(), size_of_val(&report));
        libc::_exit(0)
    }
}

/// # Safety
/// Async-signal-safe by itself; meant for the forked child.
pub(super) unsafe fn try_flock(name: &CString) -> i32 {
    // SAFETY: `name` ends in NUL; a descriptor of -1 is never used.
    unsafe {
        let file = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if file == -1 || libc::flock(file, libc::LOCK_SH | libc::LOCK_NB) == -1 {
            return last_errno();
        }
    }
    0
}

/// # Safety
/// As [`try_flock`].
pub(super) unsafe fn try_record_lock(name: &CString) -> i32 {
    // SAFETY: `flock` is plain numbers, for which zero is valid; the rest as in `try_flock`.
    unsafe {
        let file = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        let mut range: libc::flock = std::mem::zeroed();
        range.l_type = lock_kind::WRITE;
        if file == -1 || libc::fcntl(file, libc::F_SETLK, &raw const range) == -1 {
            return last_errno();
        }
    }
    0
}

pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub(super) fn read_report(mut reader: io::PipeReader) -> io::Result<Option<ChildReport>> {
    if !wait_readable(&reader, SELF_TEST_LIMIT) {
        return Ok(None);
    }
    // One write of eight bytes is atomic (pipe(7)), so this never waits for a second half.
    let mut word = || -> io::Result<i32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes)?;
        Ok(i32::from_ne_bytes(bytes))
    };
    Ok(Some(ChildReport { advisory: word()?, record: word()? }))
}

/// Takes the child's exit status, that very child's and no other's. ECHILD means that the host
/// program took it first or has none kept.
pub(super) fn reap(child: libc::pid_t, hung: bool) {
    let Some(child) = rustix::process::Pid::from_raw(child) else {
        return;
    };
    if !hung {
        let _ = retry(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
        return;
    }
    // Neither a byte nor the end of the pipe came: the child still has the writing end, so it has
    // not ended and the number is its own.
    let _ = rustix::process::kill_process(child, Signal::KILL);
    // SIGKILL waits for a file system that does not answer. One second for one that can be
    // interrupted; after that a zombie may stay until this process ends.
    for _ in 0..100 {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(None) | Err(Errno::INTR) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
}
