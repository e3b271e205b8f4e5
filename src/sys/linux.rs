//! Linux: pidfds for existence and signals, `/proc` for everything that explains.
//!
//! Command lines are read from `/proc`, not through the crate sysinfo, which takes eight times as
//! long and drops empty arguments.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};
use rustix::time::{ClockId, clock_gettime};

pub use super::capture::capture;
pub use super::modes::{
    facts_in, open_directory, open_in, owners_of_links, path_of_open, pin_directory, set_mode,
    set_mode_in,
};
pub use super::open_files::{
    listed_lock, processes_with_files_of, processes_with_open_file, record_lock_holder,
    record_lock_holders,
};
pub use super::own_group::is_private_group;
use super::procfs;
#[cfg(feature = "cli")]
pub use super::unix::hold_command_lock;
use super::unix::{WAIT_MAX, kernel_pid, monotonic, own_pid, wait_readable};
pub use super::unix::{
    command_lock, create_anchor_file, create_private_dirs, effective_uid, file_facts, file_key,
    foreign_unlock, free_space, give_to_owner_of_directory, is_mounted_read_only, link_beside,
    linked_file_key, lock_self_test, may_read, may_write, open_anchor_file, open_file_facts,
    open_file_key, open_foreign_lock_file, read_at, rename_beside, try_foreign_lock,
};
use super::{
    Existence, Filesystem, FilesystemClass, Looks, OpenProcessError, OpenedFile, Pid, ProcessFacts,
    ProcessNumber, ProcessState, StartTime, StartTimeUnit, Supervision, note,
};

/// What `pidfd_open(2)` says about a number.
enum Pidfd {
    /// It names a process, pinned by this descriptor.
    Open(OwnedFd),
    /// It names none.
    Gone,
    /// The call cannot tell: not in this kernel (before 5.3), filtered, or no descriptor left.
    Unavailable(Errno),
}

fn pidfd_open(pid: Pid) -> Pidfd {
    let Some(pid) = kernel_pid(pid) else {
        return Pidfd::Gone;
    };
    loop {
        return match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Pidfd::Open(pidfd),
            // ESRCH: nothing has this number. EINVAL, and ENOENT since Linux 6.16: a thread has it
            // that is not the first of its process, so it is the pid of no process.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Pidfd::Gone,
            Err(Errno::INTR) => continue,
            // ENOSYS: Linux before 5.3, gVisor. EPERM: a seccomp filter. EMFILE, ENFILE, ENOMEM,
            // ENODEV: nothing that says anything about the process.
            Err(errno) => {
                note(errno.into());
                Pidfd::Unavailable(errno)
            }
        };
    }
}

/// All threads of the process have ended: then, and only then, its pidfd is readable. While its
/// first thread has ended and others run, `/proc` shows `Z` and the pidfd stays unreadable.
fn has_ended(pidfd: &OwnedFd) -> bool {
    wait_readable(pidfd, Duration::ZERO)
}

pub fn process_facts(pid: Pid) -> ProcessFacts {
    match pidfd_open(pid) {
        Pidfd::Gone => ProcessFacts {
            existence: if table_agrees_it_is_gone(pid) {
                Existence::Gone
            } else {
                Existence::Unknown
            },
            ..ProcessFacts::UNKNOWN
        },
        Pidfd::Open(pidfd) => facts_of_pinned(pid, &pidfd),
        Pidfd::Unavailable(_) => facts_by_number(pid),
    }
}

/// One answer of the kernel is not enough to call a process gone: a filter (seccomp, an emulation)
/// may have made it up. The process table must not show it either, or only as a thread, or as what
/// is left of it. hidepid hides all of it, and then the one answer stands.
fn table_agrees_it_is_gone(pid: Pid) -> bool {
    if kernel_pid(pid).is_none() || !process_table_is_ours() {
        return true;
    }
    let shown = match std::fs::read(format!("/proc/{pid}/stat")).map_err(note) {
        Ok(line) => procfs::parse_stat(&line),
        // ESRCH: it ended between open and read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return true,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    let is_dead = |stat: &procfs::Stat| state_of(stat.state) == ProcessState::Zombie;
    let is_thread = || read_status(pid).thread_group.is_some_and(|group| group != pid);
    shown.is_some_and(|stat| is_dead(&stat) && has_no_other_thread(pid))
        || is_thread()
        // It may have been reaped while we looked.
        || !Path::new(&format!("/proc/{pid}")).exists()
}

/// The inode of a pidfd is the number where pidfs provides it (Linux 6.9); before, all pidfds had
/// one inode between them.
fn number_of(pidfd: &OwnedFd) -> Option<ProcessNumber> {
    const PIDFS: i64 = 0x5049_4446;
    let filesystem = rustix::fs::fstatfs(pidfd).map_err(|errno| note(errno.into())).ok()?;
    #[allow(clippy::useless_conversion, reason = "its width differs between architectures")]
    if i64::from(filesystem.f_type) != PIDFS {
        return None;
    }
    let facts = rustix::fs::fstat(pidfd).map_err(|errno| note(errno.into())).ok()?;
    Some(ProcessNumber(facts.st_ino))
}

fn facts_of_pinned(pid: Pid, pidfd: &OwnedFd) -> ProcessFacts {
    let stat = read_stat(pid);
    let info = pidfd_info(pidfd);
    let uid = info.map(|info| info.real_uid).or_else(|| read_status(pid).real_uid);
    // Asked last: a process that has not ended by now was the one that had this pid all the while,
    // so all of the above is about it.
    let existence = if has_ended(pidfd) { Existence::Gone } else { Existence::Present };
    let parent = info.map(|info| info.parent);
    let number = number_of(pidfd);
    ProcessFacts { number, ..process_facts_from(existence, stat, uid, parent) }
}

/// Without a pidfd: kill(2) with signal 0, which sends nothing.
fn facts_by_number(pid: Pid) -> ProcessFacts {
    let existence = match kernel_pid(pid).map(rustix::process::test_kill_process) {
        None | Some(Err(Errno::SRCH)) => Existence::Gone,
        // EPERM: there is one, and it is not ours.
        Some(Ok(()) | Err(Errno::PERM)) => Existence::Present,
        Some(Err(_)) => Existence::Unknown,
    };
    if existence == Existence::Gone {
        return ProcessFacts { existence, ..ProcessFacts::UNKNOWN };
    }
    let stat = read_stat(pid);
    let status = read_status(pid);
    // kill(2) takes a thread's number too.
    let is_thread = status.thread_group.is_some_and(|group| group != pid);
    let is_zombie = stat.is_some_and(|stat| state_of(stat.state) == ProcessState::Zombie);
    let existence = if is_thread || (is_zombie && has_no_other_thread(pid)) {
        Existence::Gone
    } else {
        existence
    };
    process_facts_from(existence, stat, status.real_uid, None)
}

fn process_facts_from(
    existence: Existence,
    stat: Option<procfs::Stat>,
    uid: Option<u32>,
    parent: Option<Pid>,
) -> ProcessFacts {
    ProcessFacts {
        existence,
        start_time: stat.and_then(start_time_of),
        state: stat.map_or(ProcessState::Unknown, |stat| state_of(stat.state)),
        number: None,
        uid,
        parent: stat.map(|stat| stat.parent).or(parent).filter(|&parent| parent != 0),
    }
}

/// The letters of `proc_pid_stat(5)`, those of older kernels included (W up to 2.6, K and x up to
/// 3.13).
fn state_of(letter: u8) -> ProcessState {
    match letter {
        b'R' | b'S' | b'D' | b'I' | b'W' | b'K' | b'P' => ProcessState::Running,
        b'T' => ProcessState::Stopped,
        b't' => ProcessState::Traced,
        b'Z' | b'X' | b'x' => ProcessState::Zombie,
        _ => ProcessState::Unknown,
    }
}

fn has_no_other_thread(pid: Pid) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    // An entry that cannot be read counts as a thread: unknown is never dead.
    tasks.count() == 1
}

/// Who it is, by `PIDFD_GET_INFO` (ioctl on a pidfd, Linux 6.13): no `/proc` needed, so it answers
/// under hidepid too, and is far cheaper than `/proc/<pid>/status`, which writes out everything.
#[derive(Clone, Copy)]
struct PidfdInfo {
    real_uid: u32,
    saved_uid: u32,
    parent: Pid,
}

fn pidfd_info(pidfd: &OwnedFd) -> Option<PidfdInfo> {
    // SAFETY: a struct of integers, for which zero is valid.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CREDS);
    // SAFETY: the request's number carries the size of the struct, and the kernel writes no more
    // than that. Older kernels answer ENOTTY or EINVAL, and touch nothing.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    let both = u64::from(libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CREDS);
    (done == 0 && info.mask & both == both).then_some(PidfdInfo {
        real_uid: info.ruid,
        saved_uid: info.suid,
        parent: info.ppid,
    })
}

/// Reads a whole file of `/proc`; these files have no size to ask for.
pub(super) fn read_proc(path: &str) -> Option<Vec<u8>> {
    // A status is about 1,500 bytes.
    let mut bytes = Vec::with_capacity(4096);
    File::open(path).map_err(note).ok()?.read_to_end(&mut bytes).map_err(note).ok()?;
    Some(bytes)
}

/// Read directly: sysinfo takes eight times as long, because it reads `/proc/stat` first, and it
/// drops empty arguments.
pub fn command_line(pid: Pid) -> Option<Vec<String>> {
    const LENGTH_MAX: u64 = 64 * 1024;
    /// Most fit, and are read at once.
    const LENGTH_USUAL: usize = 4 * 1024;
    let mut bytes = Vec::with_capacity(LENGTH_USUAL);
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    file.take(LENGTH_MAX).read_to_end(&mut bytes).ok()?;
    procfs::parse_arguments(&bytes)
}

fn read_stat(pid: Pid) -> Option<procfs::Stat> {
    if !process_table_is_ours() {
        return None;
    }
    // One read gives the whole line, which the kernel makes in one piece; 52 fields of at most 20
    // digits and a name of at most 64 bytes fit. The parser refuses what is cut off all the same.
    let mut line = [0; 2048];
    let mut file = File::open(format!("/proc/{pid}/stat")).map_err(note).ok()?;
    let length = loop {
        match file.read(&mut line) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(note).ok()?,
        }
    };
    let stat = procfs::parse_stat(&line[..length])?;
    (stat.pid == pid).then_some(stat)
}

pub fn is_kernel_thread(pid: Pid) -> bool {
    read_stat(pid).is_some_and(|stat| stat.is_kernel_thread)
}

fn read_status(pid: Pid) -> procfs::Status {
    if !process_table_is_ours() {
        return procfs::Status::default();
    }
    read_proc(&format!("/proc/{pid}/status"))
        .map(|bytes| procfs::parse_status(&bytes))
        .unwrap_or_default()
}

/// `/proc/self` is a link to our pid as the mount's own namespace counts it. An outer namespace
/// could have given us the same number by chance, so `NSpid` of our status is looked at too: it
/// lists one pid per namespace from the mount's inwards, and must hold only one.
pub fn process_table_is_ours() -> bool {
    /// The process for which the namespaces have been compared; a forked child compares anew.
    static COMPARED_FOR: AtomicU32 = AtomicU32::new(0);

    let pid = own_pid();
    if pid_shown_for_us() != Some(pid) {
        return false;
    }
    if COMPARED_FOR.load(Ordering::Relaxed) == pid {
        return true;
    }
    let Some(status) = read_proc("/proc/self/status") else {
        return false;
    };
    // No such line before Linux 4.1; then the number has to do.
    let depth = procfs::parse_status(&status).namespace_depth;
    let is_ours = depth.is_none_or(|depth| depth == 1);
    if is_ours {
        COMPARED_FOR.store(pid, Ordering::Relaxed);
    }
    is_ours
}

/// Asked anew before every look into `/proc`, so it must be cheap: chroot(2) and setns(2) can put
/// another mount there.
fn pid_shown_for_us() -> Option<Pid> {
    let mut target = [MaybeUninit::uninit(); 16];
    let (pid, _) = rustix::fs::readlinkat_raw(CWD, c"/proc/self", &mut target)
        .map_err(|errno| note(errno.into()))
        .ok()?;
    std::str::from_utf8(pid).ok()?.parse().ok()
}

fn read_link(path: &str) -> Option<String> {
    let target = std::fs::read_link(path).map_err(note).ok()?;
    target.to_str().map(str::to_owned)
}

fn start_time_of(stat: procfs::Stat) -> Option<StartTime> {
    let ticks_per_second = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    let offset = procfs::offset_ticks(boottime_offset_ns()?, ticks_per_second)?;
    // Negative: the process is older than what the offset of its reader can be right for.
    let value = stat.start_time_ticks.checked_sub(offset)?;
    (value >= 0).then_some(StartTime { value, unit: StartTimeUnit::Ticks })
}

/// By how much our time namespace (`time_namespaces(7)`, Linux 5.6) shifts `CLOCK_BOOTTIME` and the
/// start times in `/proc`. `None` when it cannot be known.
///
/// Kept per pid: the namespace of a process changes only through setns(2) with a single thread. Two
/// plain atomics and no lock, because a child forked at the wrong moment would wait for the lock
/// forever; every thread of one process stores the same value.
fn boottime_offset_ns() -> Option<i64> {
    static READ_FOR: AtomicU32 = AtomicU32::new(0);
    static OFFSET_NS: AtomicI64 = AtomicI64::new(UNKNOWN);
    const UNKNOWN: i64 = i64::MIN;

    let pid = own_pid();
    let offset = if READ_FOR.load(Ordering::Acquire) == pid {
        OFFSET_NS.load(Ordering::Relaxed)
    } else {
        let looks = Looks::begin();
        let offset = read_boottime_offset_ns().unwrap_or(UNKNOWN);
        // It is known with the next look.
        if looks.shortage().is_some() {
            return None;
        }
        OFFSET_NS.store(offset, Ordering::Relaxed);
        READ_FOR.store(pid, Ordering::Release);
        offset
    };
    (offset != UNKNOWN).then_some(offset)
}

/// `/proc/self/timens_offsets` shows the namespace that our *children* will live in. Where that is
/// not ours (between unshare(2) and fork(2)), ours cannot be read anywhere.
fn read_boottime_offset_ns() -> Option<i64> {
    let bytes = match std::fs::read("/proc/self/timens_offsets") {
        Ok(bytes) => bytes,
        // A kernel without time namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(0),
        Err(error) => {
            note(error);
            return None;
        }
    };
    let ours = read_link("/proc/self/ns/time")?;
    if ours != read_link("/proc/self/ns/time_for_children")? {
        return None;
    }
    procfs::parse_boottime_offset_ns(&bytes)
}

/// `CLOCK_BOOTTIME` (`clock_gettime(2)`, Linux 2.6.39). With an offset that cannot be known the
/// clock is right only within this time namespace.
pub fn boot_clock_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    let now_ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    let since_boot_ns = now_ns - i128::from(boottime_offset_ns().unwrap_or(0));
    i64::try_from(since_boot_ns / 1_000_000).unwrap_or(i64::MAX)
}

/// machine-id(5): 32 hexadecimal digits. D-Bus' copy is older than systemd's and the same where
/// both exist.
pub fn host_id() -> Option<String> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).map_err(note).ok()?;
        let id = text.trim().to_ascii_lowercase();
        // "uninitialized" stands there during the first boot, all zeros in some images.
        let is_id = id.len() == 32
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && id.bytes().any(|byte| byte != b'0');
        is_id.then_some(id)
    })
}

/// random(4): drawn once per boot. Missing where `/proc/sys` is (`subset=pid`, Linux 5.8).
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(note).ok()?;
    let id = text.trim();
    (id.len() == 36).then(|| id.to_owned())
}

/// The inode of the link `pid:[4026531836]` (namespaces(7)). The link is about us whichever
/// namespace the `/proc` mount belongs to.
pub fn pid_namespace() -> Option<String> {
    let link = read_link("/proc/self/ns/pid")?;
    let inode = link.strip_prefix("pid:[")?.strip_suffix(']')?;
    Some(inode.to_owned())
}

/// See [`super::ProcessHandle`].
#[derive(Debug)]
pub enum ProcessHandle {
    Pidfd {
        pid: Pid,
        pidfd: OwnedFd,
    },
    /// Without `pidfd_open(2)`: the start time is compared before every act.
    Number {
        pid: Pid,
        start_time: StartTime,
    },
}

impl ProcessHandle {
    pub fn open(pid: Pid) -> Result<Self, OpenProcessError> {
        match pidfd_open(pid) {
            Pidfd::Open(pidfd) => Ok(Self::Pidfd { pid, pidfd }),
            Pidfd::Gone => Err(OpenProcessError::Gone),
            Pidfd::Unavailable(errno) => Self::open_by_number(pid, errno),
        }
    }

    fn open_by_number(pid: Pid, errno: Errno) -> Result<Self, OpenProcessError> {
        let facts = facts_by_number(pid);
        match (facts.existence, facts.start_time) {
            (Existence::Gone, _) => Err(OpenProcessError::Gone),
            (_, Some(start_time)) => Ok(Self::Number { pid, start_time }),
            // Nothing to know it by later.
            (_, None) => Err(OpenProcessError::Other(errno.into())),
        }
    }

    /// Of a process that has ended `None`, although it may still be a zombie with a start time:
    /// once it is reaped the number may name a successor, and nothing tells the two cases apart.
    pub fn start_time(&self) -> Option<StartTime> {
        match self {
            Self::Pidfd { pid, pidfd } => {
                let stat = read_stat(*pid);
                if has_ended(pidfd) {
                    return None;
                }
                stat.and_then(start_time_of)
            }
            Self::Number { start_time, .. } => Some(*start_time),
        }
    }

    pub fn number(&self) -> Option<ProcessNumber> {
        match self {
            Self::Pidfd { pidfd, .. } => number_of(pidfd),
            Self::Number { .. } => None,
        }
    }

    pub fn users(&self) -> Option<[u32; 2]> {
        let by_table = |pid: Pid| {
            let status = read_status(pid);
            Some([status.real_uid?, status.saved_uid?])
        };
        match self {
            Self::Pidfd { pid, pidfd } => {
                let told = pidfd_info(pidfd).map(|info| [info.real_uid, info.saved_uid]);
                let users = told.or_else(|| by_table(*pid));
                users.filter(|_| !has_ended(pidfd))
            }
            Self::Number { pid, .. } => by_table(*pid),
        }
    }

    pub fn wait_ended(&self, timeout: Duration) -> bool {
        match self {
            Self::Pidfd { pidfd, .. } => wait_readable(pidfd, timeout),
            Self::Number { pid, start_time } => wait_ended_by_number(*pid, *start_time, timeout),
        }
    }

    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    pub fn ask_to_end(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            Self::Pidfd { pidfd, .. } => Ok(rustix::process::pidfd_send_signal(pidfd, signal)?),
            Self::Number { pid, start_time } => {
                let facts = facts_by_number(*pid);
                if facts.existence == Existence::Gone || facts.start_time != Some(*start_time) {
                    return Err(Errno::SRCH.into());
                }
                let pid = kernel_pid(*pid).ok_or(Errno::SRCH)?;
                Ok(rustix::process::kill_process(pid, signal)?)
            }
        }
    }
}

/// Looks every 10 ms, as there is nothing that wakes us.
fn wait_ended_by_number(pid: Pid, start_time: StartTime, timeout: Duration) -> bool {
    let deadline = monotonic() + timeout.min(WAIT_MAX);
    loop {
        let facts = facts_by_number(pid);
        let is_another = facts.start_time.is_some_and(|found| found != start_time);
        if facts.existence == Existence::Gone || is_another {
            return true;
        }
        let remaining = deadline.saturating_sub(monotonic());
        if remaining.is_zero() {
            return false;
        }
        std::thread::sleep(remaining.min(Duration::from_millis(10)));
    }
}

/// One pass over the process table.
pub fn processes_and_parents() -> Vec<(Pid, Pid)> {
    if !process_table_is_ours() {
        return Vec::new();
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, read_stat(pid)?.parent)))
        .collect()
}

pub fn session_of(pid: Pid) -> Option<Pid> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    // SAFETY: getsid(2) only looks. rustix does not expect its 0: a session that was made in
    // another pid namespace, and has no number here.
    let session = unsafe { libc::getsid(pid) };
    Pid::try_from(session).ok()
}

pub fn processes_of_session(session: Pid) -> Option<Vec<Pid>> {
    if !process_table_is_ours() {
        return None;
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(note).ok()? {
        let name = entry.map_err(note).ok()?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid != own_pid() && session_of(pid) == Some(session) {
            found.push(pid);
        }
    }
    Some(found)
}

pub fn environment_of(pid: Pid) -> Option<Vec<String>> {
    if !process_table_is_ours() {
        return None;
    }
    let bytes = read_proc(&format!("/proc/{pid}/environ"))?;
    let words = bytes.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

pub fn processes_with_environment(word: &str) -> Vec<Pid> {
    let has_it = |pid: &Pid| {
        environment_of(*pid).is_some_and(|words| words.iter().any(|found| found == word))
    };
    other_processes().filter(has_it).collect()
}

/// The name of a program, as the kernel keeps it: at most 15 bytes.
pub fn program_name(pid: Pid) -> Option<String> {
    if !process_table_is_ours() {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

pub fn supervision(pid: Pid) -> Supervision {
    let directory = if pid == own_pid() {
        // About us even where the table belongs to an outer namespace.
        "/proc/self".to_owned()
    } else if process_table_is_ours() {
        format!("/proc/{pid}")
    } else {
        return Supervision::default();
    };
    let cgroup = read_proc(&format!("{directory}/cgroup")).unwrap_or_default();
    let container = procfs::container_of_cgroup(&cgroup)
        .or_else(|| {
            let mountinfo = read_proc(&format!("{directory}/mountinfo"))?;
            procfs::container_of_mounts(&mountinfo)
        })
        .or_else(|| container_by_marker(pid));
    Supervision {
        systemd_service: procfs::systemd_service(&cgroup),
        launchd_label: None,
        container,
    }
}

/// The marker files of docker and podman in the root directory. They speak for `pid` only if it
/// has the same root as we.
fn container_by_marker(pid: Pid) -> Option<String> {
    let root = |path: &str| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    if pid != own_pid() && root(&format!("/proc/{pid}/root/")) != Some(root("/")?) {
        return None;
    }
    [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")]
        .iter()
        .find(|(marker, _)| Path::new(marker).exists())
        .map(|(_, word)| (*word).to_owned())
}

/// `user_namespaces(7)`: the first namespace maps all numbers to themselves.
pub fn unmapped_uid() -> Option<u32> {
    let map = read_proc("/proc/self/uid_map")?;
    let map = String::from_utf8(map).ok()?;
    if map.split_whitespace().eq(["0", "0", "4294967295"]) {
        return None;
    }
    String::from_utf8(read_proc("/proc/sys/kernel/overflowuid")?).ok()?.trim().parse().ok()
}

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

/// Every process that this `/proc` shows, but us.
pub(super) fn other_processes() -> impl Iterator<Item = Pid> {
    let entries = process_table_is_ours().then(|| std::fs::read_dir("/proc").ok()).flatten();
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &Pid| *pid != own_pid())
}

/// XDG base directory specification, 0.8.
pub const STATE_DIRECTORY: (&str, Option<&str>) = ("XDG_STATE_HOME", Some(".local/state"));

pub fn is_mount_point(path: &Path) -> bool {
    match (mount_id(path), path.parent().and_then(mount_id)) {
        (Some(of_file), Some(of_directory)) => of_file != of_directory,
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

fn mount_id(path: &Path) -> Option<u64> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|errno| note(errno.into()))
        .ok()?;
    let has_id = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    has_id.then_some(found.stx_mnt_id)
}

/// Served by another machine: its locks may reach only this client, its memory maps are not shared
/// with other clients, and WAL needs both (sqlite.org/wal.html, "Overview", point 3).
const NETWORK: &[&str] =
    &["nfs", "nfs4", "cifs", "smb3", "smb2", "smbfs", "afs", "ncpfs", "ncp", "coda", "davfs"];

/// Cluster filesystems: several machines mount one store at once, and pids and boot ids of another
/// machine mean nothing here, even where its locks do.
const CLUSTER: &[&str] =
    &["ceph", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "glusterfs", "gfs2", "ocfs2"];

/// Bridges between a virtual machine and its host: `flock` is local to the guest or says "busy"
/// without a holder, and shared memory is not coherent (databases malformed within a minute).
const BRIDGE: &[&str] = &["9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "drvfs"];

/// FUSE servers whose files lie on another machine or on the other side of a virtual machine.
const REMOTE_FUSE: &[&str] = &[
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

fn classify(kind: &str) -> FilesystemClass {
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::sys;

    /// A child that is killed and reaped when the test ends, however it ends.
    struct Guard(Child);

    impl Guard {
        fn spawn(command: &mut Command) -> Self {
            Self(command.stdin(Stdio::null()).spawn().unwrap())
        }

        fn sleep() -> Self {
            Self::spawn(Command::new("sleep").arg("60"))
        }

        fn pid(&self) -> Pid {
            self.0.id()
        }

        fn signal(&self, signal: Signal) {
            rustix::process::kill_process(kernel_pid(self.pid()).unwrap(), signal).unwrap();
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Waits for what another process does, at most 10 s.
    fn eventually(what: &str, mut check: impl FnMut() -> bool) {
        for _ in 0..5000 {
            if check() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("did not happen: {what}");
    }

    /// Both ways to ask must agree on everything but the parent's source.
    fn facts_both_ways(pid: Pid) -> ProcessFacts {
        let pinned = process_facts(pid);
        assert_eq!(ProcessFacts { number: None, ..pinned }, facts_by_number(pid));
        pinned
    }

    #[test]
    fn this_process() {
        let facts = facts_both_ways(own_pid());
        assert_eq!(facts.number, process_facts(own_pid()).number);
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.state, ProcessState::Running);
        assert_eq!(facts.uid, Some(rustix::process::getuid().as_raw()));
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(facts.parent, parent.map(i32::unsigned_abs));
        let start_time = facts.start_time.unwrap();
        assert_eq!(start_time.unit, StartTimeUnit::Ticks);
        let now_ticks = boot_clock_ms() / 10;
        assert!(start_time.value <= now_ticks && start_time.value > now_ticks - 360_000);
    }

    #[test]
    fn pid_1_is_present() {
        let facts = facts_both_ways(1);
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.parent, None);
    }

    #[test]
    fn numbers_that_no_process_can_have_are_gone() {
        for pid in [0, i32::MAX as u32 + 1, u32::MAX] {
            assert_eq!(facts_both_ways(pid).existence, Existence::Gone);
            let opened = ProcessHandle::open(pid);
            assert!(matches!(opened, Err(OpenProcessError::Gone)));
        }
    }

    /// FIELD-BUGS 19: a takeover waited forever on a zombie.
    #[test]
    fn a_zombie_is_gone_and_still_has_its_start_time() {
        let child = Guard::spawn(Command::new("sh").args(["-c", "exit 0"]));
        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert!(handle.wait_ended(Duration::from_secs(10)));
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Gone);
        assert_eq!(facts.state, ProcessState::Zombie);
        assert!(facts.start_time.is_some());
        assert_eq!(facts.parent, Some(own_pid()));
        assert_eq!(sys::command_line(child.pid()), None);
        let pid = child.pid();
        drop(child);
        assert_eq!(process_facts(pid).existence, Existence::Gone);
        assert!(matches!(ProcessHandle::open(pid), Err(OpenProcessError::Gone)));
    }

    #[test]
    fn a_stopped_process_is_present() {
        let child = Guard::sleep();
        child.signal(Signal::STOP);
        eventually("the child stops", || process_facts(child.pid()).state == ProcessState::Stopped);
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert!(!ProcessHandle::open(child.pid()).unwrap().wait_ended(Duration::ZERO));
    }

    /// The letter Z alone is not death: `pthread_exit` in the first thread leaves it while the
    /// others run on.
    #[test]
    fn a_process_whose_first_thread_ended_is_present() {
        let script = "import ctypes, threading, time\n\
            threading.Thread(target=time.sleep, args=(60,)).start()\n\
            ctypes.CDLL(None).pthread_exit(None)\n";
        let mut command = Command::new("python3");
        command.args(["-c", script]).stderr(Stdio::null());
        if Command::new("python3").arg("--version").output().is_err() {
            eprintln!("SKIPPED: a_process_whose_first_thread_ended_is_present needs python3");
            return;
        }
        let child = Guard::spawn(&mut command);
        eventually("the first thread ends", || {
            process_facts(child.pid()).state == ProcessState::Zombie
        });
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert!(!handle.wait_ended(Duration::ZERO));
        assert_eq!(handle.start_time(), facts.start_time);
        handle.kill().unwrap();
        assert!(handle.wait_ended(Duration::from_secs(10)));
        assert_eq!(facts_both_ways(child.pid()).existence, Existence::Gone);
    }

    #[test]
    fn a_thread_is_no_process() {
        let (send, receive) = std::sync::mpsc::channel();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid()).unwrap();
            wait.recv().unwrap();
        });
        let thread_id = receive.recv().unwrap().as_raw_nonzero().get().unsigned_abs();
        assert_ne!(thread_id, own_pid());
        assert_eq!(process_facts(thread_id).existence, Existence::Gone);
        assert_eq!(facts_by_number(thread_id).existence, Existence::Gone);
        release.send(()).unwrap();
        thread.join().unwrap();
    }

    /// FIELD-BUGS 12, with a real process.
    #[test]
    fn a_process_named_like_the_fields() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("a) S 1 1");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let child = Guard::spawn(Command::new(&program).arg("60"));
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.parent, Some(own_pid()));
        assert!(facts.start_time.unwrap().value > 1);
    }

    /// FIELD-BUGS 11: EPERM says that there is a process.
    #[test]
    fn a_process_of_another_user() {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIPPED: a_process_of_another_user needs root");
            return;
        }
        let child = Guard::spawn(Command::new("sleep").arg("60").uid(65534).gid(65534));
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.uid, Some(65534));
        assert!(facts.start_time.is_some());
    }

    #[test]
    fn an_end_wakes_the_waiter_and_long_waits_do_not_overflow() {
        let child = Guard::sleep();
        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert_eq!(handle.start_time(), process_facts(child.pid()).start_time);
        assert!(!handle.wait_ended(Duration::from_millis(1)));
        let waiter = std::thread::spawn(move || (handle.wait_ended(Duration::MAX), handle));
        child.signal(Signal::TERM);
        let (ended, handle) = waiter.join().unwrap();
        assert!(ended);
        assert_eq!(handle.start_time(), None);
        // A zombie takes signals, and a reaped process has none.
        drop(child);
        let error = handle.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_number_with_its_start_time_stands_in_for_a_pidfd() {
        let child = Guard::sleep();
        let handle = ProcessHandle::open_by_number(child.pid(), Errno::NOSYS).unwrap();
        assert!(!handle.wait_ended(Duration::from_millis(1)));
        handle.kill().unwrap();
        assert!(handle.wait_ended(Duration::from_secs(10)));
        let error = handle.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        let later = StartTime { value: 1, unit: StartTimeUnit::Ticks };
        let another = ProcessHandle::Number { pid: own_pid(), start_time: later };
        assert!(another.wait_ended(Duration::ZERO));
        assert_eq!(another.kill().unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    /// Invalid UTF-8 is replaced, blanks stay inside an argument.
    #[test]
    fn the_command_line_of_one_process() {
        use std::ffi::OsStr;
        let mut command = Command::new("sh");
        command.args(["-c", "read x", "my gateway", "run"]);
        command.arg(OsStr::from_bytes(b"6\xff0"));
        // Held open until the end of the test, so that the shell stays in `read`.
        let child = Guard(command.stdin(Stdio::piped()).spawn().unwrap());
        // The parent goes on while the kernel still lays out the new program's arguments.
        eventually("the arguments are there", || sys::command_line(child.pid()).is_some());
        assert_eq!(
            sys::command_line(child.pid()).unwrap(),
            ["sh", "-c", "read x", "my gateway", "run", "6\u{fffd}0"]
        );
    }

    #[test]
    fn ids() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(process_table_is_ours());
        assert!(pid_namespace().unwrap().bytes().all(|byte| byte.is_ascii_digit()));
        if host_id().is_none() {
            eprintln!("SKIPPED: no machine-id here");
        }
    }

    #[test]
    fn filesystem_classes() {
        use FilesystemClass::{Local, Remote, UserSpace};
        for (kind, class) in [
            ("ext4", Local),
            ("tmpfs", Local),
            ("overlay", Local),
            ("zfs", Local),
            ("fuseish", Local),
            ("nfs4", Remote),
            ("9p", Remote),
            ("virtiofs", Remote),
            ("ceph", Remote),
            ("fuse.sshfs", Remote),
            ("fuse.davfs2", Remote),
            ("fuse", UserSpace),
            ("fuseblk", UserSpace),
            ("fuseblk.ntfs", UserSpace),
            ("fuse.mergerfs", UserSpace),
        ] {
            assert_eq!(classify(kind), class, "{kind}");
        }
        let proc = filesystem_of(Path::new("/proc")).unwrap();
        assert_eq!((proc.kind.as_str(), proc.class), ("proc", Local));
    }

    /// What the helper below is asked to look at.
    const LOOK_AT: &str = "INCUMBENT_TEST_LOOK_AT";

    /// No test by itself: runs in the namespaces that the tests below make, and prints what is seen
    /// of one pid from there.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "how a test speaks to its own helper")]
    fn look_from_there() {
        if let Ok(pid) = std::env::var(LOOK_AT) {
            let facts = process_facts(pid.parse().unwrap());
            let clock_s = boot_clock_ms() / 1000;
            let ours = process_table_is_ours();
            println!("\nSEEN {facts:?} clock {clock_s} ours {ours}");
        }
    }

    /// Runs the helper behind `prefix`, a shell command line that ends by executing `"$@"`.
    fn look_from(prefix: &str, pid: Pid) -> Option<String> {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIPPED: namespaces need root: {prefix}");
            return None;
        }
        let helper = concat!(module_path!(), "::look_from_there");
        let helper = helper.split_once("::").unwrap().1;
        // The nobody of some namespaces cannot enter the directory of the real executable.
        let directory = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let program = directory.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let output = Command::new("sh")
            .args(["-c", prefix, "sh"])
            .arg(&program)
            .args(["--exact", "--nocapture", helper])
            .env(LOOK_AT, pid.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let seen = text.lines().find_map(|line| line.strip_prefix("SEEN "));
        if seen.is_none() {
            let errors = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: {prefix}: {text}{errors}");
        }
        seen.map(str::to_owned)
    }

    /// FIELD-BUGS 13: ticks differ across time namespaces, unless the offset is taken off.
    #[test]
    fn a_time_namespace_changes_neither_start_time_nor_clock() {
        let child = Guard::sleep();
        let start_time = process_facts(child.pid()).start_time;
        for offset in ["86400", "-5"] {
            let prefix = format!("exec unshare --fork --time --boottime {offset} \"$@\"");
            let Some(seen) = look_from(&prefix, child.pid()) else {
                return;
            };
            assert!(seen.contains(&format!("start_time: {start_time:?}")), "{seen}");
            let now_s = boot_clock_ms() / 1000;
            let near = (now_s - 30..=now_s).any(|s| seen.contains(&format!("clock {s} ")));
            assert!(near, "{now_s}: {seen}");
        }
    }

    /// FIELD-BUGS 25: another namespace's `/proc` tells of other processes with our numbers.
    #[test]
    fn a_foreign_process_table_is_not_read() {
        let Some(seen) = look_from("exec unshare --fork --pid \"$@\"", 1) else {
            return;
        };
        assert!(seen.contains("existence: Present, start_time: None, state: Unknown"), "{seen}");
        assert!(seen.ends_with("ours false"), "{seen}");
        let own_mount = "exec unshare --fork --pid --mount-proc \"$@\"";
        let seen = look_from(own_mount, 1).unwrap();
        assert!(seen.contains("start_time: Some"), "{seen}");
        assert!(seen.ends_with("ours true"), "{seen}");
    }

    /// FIELD-BUGS 31: absence from `/proc` is not death.
    #[test]
    fn a_process_hidden_by_hidepid_is_present() {
        let prefix = "exec unshare --fork --pid --mount sh -c '\
            mount -t proc -o hidepid=2 proc /proc &&\
            setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"; true' sh \"$@\"";
        let Some(seen) = look_from(prefix, 1) else {
            return;
        };
        assert!(seen.contains("existence: Present, start_time: None"), "{seen}");
        assert!(seen.ends_with("ours true"), "{seen}");
    }
}
