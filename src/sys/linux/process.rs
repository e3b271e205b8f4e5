//! Processes of Linux: pidfds where the kernel has them, and `/proc`.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};

use super::super::procfs;
use super::super::unix::{WAIT_MAX, kernel_pid, monotonic, own_pid, wait_readable};
use super::super::{
    ChildEnd, Existence, ExitInfo, OpenProcessError, Pid, ProcessFacts, ProcessNumber,
    ProcessState, StartTime, StartTimeUnit, note,
};
use super::{boottime_offset_ns, read_proc};
use crate::environment::{Fault, planted};

/// What `pidfd_open(2)` says about a number.
pub(super) enum Pidfd {
    /// It names a process, pinned by this descriptor.
    Open(OwnedFd),
    /// It names none.
    Gone,
    /// The call cannot tell: not in this kernel (before 5.3), filtered, or no descriptor left.
    Unavailable(Errno),
}

pub(super) fn pidfd_open(pid: Pid) -> Pidfd {
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
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    wait_readable(pidfd, Duration::ZERO)
}

pub fn process_facts(pid: Pid) -> ProcessFacts {
    match pidfd_open(pid) {
        Pidfd::Gone => facts_of_gone(pid),
        Pidfd::Open(pidfd) => facts_of_pinned(pid, &pidfd),
        Pidfd::Unavailable(_) => facts_by_number(pid),
    }
}

/// Of a number that a system call says is nobody's.
fn facts_of_gone(pid: Pid) -> ProcessFacts {
    let is_gone = table_agrees_it_is_gone(pid);
    let existence = if is_gone { Existence::Gone } else { Existence::Unknown };
    ProcessFacts { existence, ..ProcessFacts::UNKNOWN }
}

/// One answer of the kernel is not enough to call a process gone: a filter (seccomp, an emulation)
/// may have made it up. The process table must not show it either, or only as a thread, or as what
/// is left of it. hidepid hides all of it, and then the one answer stands.
pub(super) fn table_agrees_it_is_gone(pid: Pid) -> bool {
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
pub(super) fn number_of(pidfd: &OwnedFd) -> Option<ProcessNumber> {
    const PIDFS: i64 = 0x5049_4446;
    let filesystem = rustix::fs::fstatfs(pidfd).map_err(|errno| note(errno.into())).ok()?;
    #[allow(clippy::useless_conversion, reason = "its width differs between architectures")]
    if i64::from(filesystem.f_type) != PIDFS {
        return None;
    }
    let facts = rustix::fs::fstat(pidfd).map_err(|errno| note(errno.into())).ok()?;
    Some(ProcessNumber(facts.st_ino))
}

pub(super) fn facts_of_pinned(pid: Pid, pidfd: &OwnedFd) -> ProcessFacts {
    let stat = read_stat(pid);
    let info = pidfd_info(pidfd);
    let uid = info.map(|info| info.real_uid).or_else(|| read_status(pid).real_uid);
    // Asked last: a process that has not ended by now was the one that had this pid all the while,
    // so all of the above is about it.
    let is_gone = has_ended(pidfd) && !planted(Fault::ZombieLives);
    let existence = if is_gone { Existence::Gone } else { Existence::Present };
    let parent = info.map(|info| info.parent);
    let number = number_of(pidfd);
    ProcessFacts { number, ..process_facts_from(existence, stat, uid, parent) }
}

/// Without a pidfd: kill(2) with signal 0, which sends nothing.
pub(super) fn facts_by_number(pid: Pid) -> ProcessFacts {
    let existence = match kernel_pid(pid).map(rustix::process::test_kill_process) {
        None | Some(Err(Errno::SRCH)) => Existence::Gone,
        // EPERM: there is one, and it is not ours.
        Some(Ok(()) | Err(Errno::PERM)) => Existence::Present,
        Some(Err(_)) => Existence::Unknown,
    };
    if existence == Existence::Gone {
        return facts_of_gone(pid);
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

pub(super) fn process_facts_from(
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
pub(super) fn state_of(letter: u8) -> ProcessState {
    match letter {
        b'R' | b'S' | b'D' | b'I' | b'W' | b'K' | b'P' => ProcessState::Running,
        b'T' => ProcessState::Stopped,
        b't' => ProcessState::Traced,
        b'Z' | b'X' | b'x' => ProcessState::Zombie,
        _ => ProcessState::Unknown,
    }
}

pub(super) fn has_no_other_thread(pid: Pid) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    // An entry that cannot be read counts as a thread: unknown is never dead.
    tasks.count() == 1
}

/// Who it is, by `PIDFD_GET_INFO` (ioctl on a pidfd, Linux 6.13): no `/proc` needed, so it answers
/// under hidepid too, and is far cheaper than `/proc/<pid>/status`, which writes out everything.
#[derive(Clone, Copy)]
pub(super) struct PidfdInfo {
    pub(super) real_uid: u32,
    pub(super) saved_uid: u32,
    pub(super) parent: Pid,
}

pub(super) fn pidfd_info(pidfd: &OwnedFd) -> Option<PidfdInfo> {
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

/// The wait status of a process that has ended and was collected, by whomever (`PIDFD_INFO_EXIT`,
/// Linux 6.15).
fn exit_info(pidfd: &OwnedFd) -> ExitInfo<i32> {
    let ask = || {
        // SAFETY: a struct of integers, for which zero is valid.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        let wanted = u64::from(libc::PIDFD_INFO_EXIT);
        info.mask = wanted;
        // SAFETY: as in `pidfd_info`.
        let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        if done != 0 {
            // ENOTTY, EINVAL: Linux before 6.13. ESRCH: 6.13 and 6.14, where it was collected.
            return ExitInfo::Never;
        }
        // Without it: it lives, or it was not collected yet; or Linux is 6.13 or 6.14.
        let is_told = info.mask & wanted == wanted;
        if is_told { ExitInfo::Known(info.exit_code) } else { ExitInfo::NotYet }
    };
    match ask() {
        // ESRCH also comes in the instant in which it is collected. Then the second answer says it.
        ExitInfo::Never => ask(),
        told => told,
    }
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

pub(super) fn read_stat(pid: Pid) -> Option<procfs::Stat> {
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

pub fn is_forked_copy(pid: Pid) -> bool {
    read_stat(pid).is_some_and(|stat| stat.is_forked_copy)
}

pub(super) fn read_status(pid: Pid) -> procfs::Status {
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
pub(super) fn pid_shown_for_us() -> Option<Pid> {
    let mut target = [MaybeUninit::uninit(); 16];
    let (pid, _) = rustix::fs::readlinkat_raw(CWD, c"/proc/self", &mut target)
        .map_err(|errno| note(errno.into()))
        .ok()?;
    std::str::from_utf8(pid).ok()?.parse().ok()
}

pub(super) fn start_time_of(stat: procfs::Stat) -> Option<StartTime> {
    let ticks_per_second = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    let offset = procfs::offset_ticks(boottime_offset_ns()?, ticks_per_second)?;
    // Negative: the process is older than what the offset of its reader can be right for.
    let value = stat.start_time_ticks.checked_sub(offset)?;
    (value >= 0).then_some(StartTime { value, unit: StartTimeUnit::Ticks })
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

    pub(super) fn open_by_number(pid: Pid, errno: Errno) -> Result<Self, OpenProcessError> {
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

    pub fn can_be_polled(&self) -> bool {
        self.descriptor().is_some()
    }

    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Pidfd { pidfd, .. } => Some(pidfd.as_fd()),
            Self::Number { .. } => None,
        }
    }

    pub fn wait_ended(&self, timeout: Duration) -> bool {
        match self {
            Self::Pidfd { pidfd, .. } => wait_readable(pidfd, timeout),
            Self::Number { pid, start_time } => wait_ended_by_number(*pid, *start_time, timeout),
        }
    }

    /// See [`super::ProcessHandle::end`].
    pub fn end(&self) -> ExitInfo<ChildEnd> {
        match self {
            Self::Pidfd { pidfd, .. } => exit_info(pidfd).read(|status| {
                // As in wait(2).
                let signal = status & 0x7f;
                if signal == 0 {
                    ChildEnd::Exited((status >> 8) & 0xff)
                } else {
                    ChildEnd::Signalled(signal)
                }
            }),
            Self::Number { .. } => ExitInfo::Never,
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

    pub fn send(&self, number: i32) -> io::Result<()> {
        // EINVAL: one without a name, which kill(2) knows and rustix does not.
        self.signal(Signal::from_named_raw(number).ok_or(Errno::INVAL)?)
    }

    /// See [`super::ProcessHandle::ends_by`].
    pub fn ends_by(&self, signal: i32) -> bool {
        let (Self::Pidfd { pid, .. } | Self::Number { pid, .. }) = self;
        // signal(7): what the others do is their end.
        let is_harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
        let Ok(number) = u32::try_from(signal) else { return false };
        process_table_is_ours()
            && !is_harmless.contains(&signal)
            && read_proc(&format!("/proc/{pid}/status"))
                .and_then(|bytes| procfs::parse_dispositions(&bytes))
                .is_some_and(|found| found.leave_to_kernel(number))
            // Else it may have been that of another process.
            && !self.wait_ended(Duration::ZERO)
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
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
pub(super) fn wait_ended_by_number(pid: Pid, start_time: StartTime, timeout: Duration) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ProcessHandle as Handle;

    /// Symptom: where the kernel never tells how another one's child ended, whoever asked stayed a
    /// second longer for the answer.
    #[test]
    fn what_will_never_be_told_is_told_from_what_is_not_known_yet() {
        let no_pidfd = OwnedFd::from(File::open("/dev/null").unwrap());
        assert_eq!(exit_info(&no_pidfd), ExitInfo::Never);
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let handle = Handle::open(child.id()).unwrap();
        assert!(handle.wait_ended(Duration::from_mins(1)));
        let before = handle.end();
        child.wait().unwrap();
        match handle.end() {
            ExitInfo::Known(ended) => {
                assert_eq!((before, ended), (ExitInfo::NotYet, ChildEnd::Exited(7)));
            }
            // Before Linux 6.15.
            told => assert_eq!(told, ExitInfo::Never),
        }
    }
}
