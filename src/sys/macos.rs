//! macOS: `kill(2)` for existence, `proc_pidinfo` for everything that explains, kqueue for ends.
//!
//! There is neither a pidfd nor a process handle, so the start time is compared again before every
//! act. Compiled and type-checked; what is said here about XNU is from its published source.

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::kqueue::{
    Event, EventFilter, EventFlags, ProcessEvents, kevent_timespec, kqueue,
};
use rustix::io::Errno;
use rustix::process::Signal;

pub use super::capture::capture;
pub(crate) use super::elsewhere::each_name;
pub use super::elsewhere::{
    command_line, exchange, files_opened_by, in_root_of, is_mount_point, is_open_for_writing,
    listed_lock, open_again, opened_files, pid_namespace, process_table_is_ours,
    processes_and_parents, processes_with_files_of, processes_with_open_file, program_name,
    record_lock_holder, record_lock_holders, shares_mounts_with, unmapped_uid,
};
pub use super::modes::{
    facts_in, open_directory, open_in, owners_of_links, path_of_open, pin_directory, set_mode,
    set_mode_in,
};
pub use super::own_group::is_private_group;
pub(crate) use super::unix::directory_state;
use super::unix::{WAIT_MAX, kernel_pid, monotonic, own_pid};
pub use super::unix::{
    await_command_lock, command_lock, create_anchor_file, create_private_dirs, effective_uid,
    file_facts, file_key, foreign_unlock, free_space, give_to_owner_of_directory,
    is_mounted_read_only, link_beside, linked_file_key, lock_self_test, may_read, may_write,
    open_anchor_file, open_file_facts, open_file_key, open_foreign_lock_file, read_at,
    rename_beside, try_foreign_lock,
};
pub use super::unix::{hold_command_lock, open_command_lock, owner_follows, say_that_we_follow};
use super::{
    Existence, Filesystem, FilesystemClass, OpenProcessError, Pid, ProcessFacts, ProcessNumber,
    ProcessState, StartTime, StartTimeUnit, Supervision,
};

/// `sys/proc_info.h`: set in `pbi_flags` while a debugger is attached.
const PROC_FLAG_TRACED: u32 = 2;

/// What `proc_pidinfo` answers.
enum BsdInfo {
    Known(Box<libc::proc_bsdinfo>),
    NoSuchProcess,
    Unreadable,
}

fn bsd_info(pid: rustix::process::Pid) -> BsdInfo {
    let mut info = Box::new(MaybeUninit::<libc::proc_bsdinfo>::zeroed());
    let Ok(size) = c_int::try_from(size_of::<libc::proc_bsdinfo>()) else {
        return BsdInfo::Unreadable;
    };
    // With 1 for the argument XNU answers for zombies too; with 0 it says ESRCH of them.
    let with_zombies = 1;
    // SAFETY: at most `size` bytes are written to a buffer of that size.
    let written = unsafe {
        libc::proc_pidinfo(
            pid.as_raw_nonzero().get(),
            libc::PROC_PIDTBSDINFO,
            with_zombies,
            info.as_mut_ptr().cast(),
            size,
        )
    };
    if written == size {
        // SAFETY: zeroed, then filled: a struct of integers either way.
        return BsdInfo::Known(unsafe { info.assume_init() });
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ESRCH) => BsdInfo::NoSuchProcess,
        _ => BsdInfo::Unreadable,
    }
}

pub fn process_facts(pid: Pid) -> ProcessFacts {
    let gone = ProcessFacts { existence: Existence::Gone, ..ProcessFacts::UNKNOWN };
    let Some(pid) = kernel_pid(pid) else {
        return gone;
    };
    let existence = match rustix::process::test_kill_process(pid) {
        // Nothing has this number.
        Err(Errno::SRCH) => return gone,
        // EPERM: there is one, and it is not ours. Zombies answer as if they lived.
        Ok(()) | Err(Errno::PERM) => Existence::Present,
        Err(_) => Existence::Unknown,
    };
    match bsd_info(pid) {
        BsdInfo::Known(info) => facts_from(existence, &info),
        // It was there a moment ago: it has ended, or it is a zombie that this kernel hides.
        BsdInfo::NoSuchProcess => ProcessFacts { state: ProcessState::Zombie, ..gone },
        BsdInfo::Unreadable => ProcessFacts { existence, ..ProcessFacts::UNKNOWN },
    }
}

fn facts_from(existence: Existence, info: &libc::proc_bsdinfo) -> ProcessFacts {
    let state = match info.pbi_status {
        libc::SZOMB => ProcessState::Zombie,
        libc::SSTOP if info.pbi_flags & PROC_FLAG_TRACED != 0 => ProcessState::Traced,
        libc::SSTOP => ProcessState::Stopped,
        libc::SIDL | libc::SRUN | libc::SSLEEP => ProcessState::Running,
        _ => ProcessState::Unknown,
    };
    // Only a process whose threads have all ended becomes a zombie here.
    let existence = if state == ProcessState::Zombie { Existence::Gone } else { existence };
    ProcessFacts {
        existence,
        start_time: start_time_from(info),
        state,
        uid: Some(info.pbi_ruid),
        parent: Some(info.pbi_ppid).filter(|&parent| parent != 0),
        number: None,
    }
}

/// Wall time when the process was made, taken once: it does not move with the clock afterwards.
fn start_time_from(info: &libc::proc_bsdinfo) -> Option<StartTime> {
    let seconds = i64::try_from(info.pbi_start_tvsec).ok()?;
    let microseconds = i64::try_from(info.pbi_start_tvusec).ok()?;
    let value = seconds.checked_mul(1_000_000)?.checked_add(microseconds)?;
    (value > 0).then_some(StartTime { value, unit: StartTimeUnit::Microseconds })
}

/// `gethostuuid(2)`: `IOPlatformUUID` of the hardware. Refused in some sandboxes.
pub fn host_id() -> Option<String> {
    let mut id = [0_u8; 16];
    let timeout = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: writes 16 bytes, reads the timeout.
    let failed = unsafe { libc::gethostuuid(id.as_mut_ptr(), &raw const timeout) } != 0;
    if failed || id == [0; 16] {
        return None;
    }
    let mut text = String::with_capacity(36);
    for (at, byte) in id.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02X}"));
    }
    Some(text)
}

/// `kern.bootsessionuuid`: drawn once per boot.
pub fn boot_id() -> Option<String> {
    let mut text: [c_char; 64] = [0; 64];
    let mut size = size_of_val(&text);
    // SAFETY: the name ends in NUL; at most `size` bytes are written and `size` is updated.
    let failed = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            text.as_mut_ptr().cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    } != 0;
    let id = text_of(&text)?;
    (!failed && id.len() == 36).then_some(id)
}

/// `CLOCK_MONOTONIC_RAW` is `mach_continuous_time` here and goes on in sleep; `CLOCK_MONOTONIC`
/// does too, but follows adjustments of the clock (`clock_gettime(3)` there).
pub fn boot_clock_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes `now`; cannot fail for a clock that every macOS since 10.12 has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut now) };
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

/// `CLOCK_UPTIME_RAW` is `mach_absolute_time`, and stands still in sleep.
pub fn asleep_ms() -> i64 {
    let mut awake = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes `awake`; cannot fail for a clock that every macOS since 10.12 has.
    unsafe { libc::clock_gettime(libc::CLOCK_UPTIME_RAW, &raw mut awake) };
    let awake_ms = awake.tv_sec.saturating_mul(1000).saturating_add(awake.tv_nsec / 1_000_000);
    boot_clock_ms().saturating_sub(awake_ms).max(0)
}

/// See [`super::ProcessHandle`].
#[derive(Debug)]
pub struct ProcessHandle {
    pid: Pid,
    start_time: StartTime,
}

impl ProcessHandle {
    pub fn open(pid: Pid) -> Result<Self, OpenProcessError> {
        let facts = process_facts(pid);
        match (facts.existence, facts.start_time) {
            (Existence::Gone, _) => Err(OpenProcessError::Gone),
            (_, Some(start_time)) => Ok(Self { pid, start_time }),
            (Existence::Present, None) => Err(OpenProcessError::Denied),
            (Existence::Unknown, None) => {
                Err(OpenProcessError::Other(io::Error::other("the process could not be looked at")))
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a pinned process may have none to show")]
    pub fn number(&self) -> Option<ProcessNumber> {
        None
    }

    pub fn start_time(&self) -> Option<StartTime> {
        Some(self.start_time)
    }

    fn has_ended(&self) -> bool {
        let facts = process_facts(self.pid);
        let is_another = facts.start_time.is_some_and(|found| found != self.start_time);
        facts.existence == Existence::Gone || is_another
    }

    pub fn users(&self) -> Option<[u32; 2]> {
        match bsd_info(kernel_pid(self.pid)?) {
            BsdInfo::Known(info) => Some([info.pbi_ruid, info.pbi_svuid]),
            BsdInfo::NoSuchProcess | BsdInfo::Unreadable => None,
        }
    }

    #[allow(clippy::unused_self, reason = "as where there is one")]
    pub fn can_be_polled(&self) -> bool {
        false
    }

    #[allow(clippy::unused_self, reason = "as where there is one")]
    pub fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    pub fn wait_ended(&self, timeout: Duration) -> bool {
        let deadline = monotonic() + timeout.min(WAIT_MAX);
        // Watched before the first look, so that no end falls between the two.
        let watch = if timeout.is_zero() { None } else { watch_end(self.pid).ok() };
        loop {
            if self.has_ended() {
                return true;
            }
            let remaining = deadline.saturating_sub(monotonic());
            if remaining.is_zero() {
                return false;
            }
            match &watch {
                // Looks again every second all the same: the watch is only what wakes us.
                Some(watch) => watch.wait(remaining.min(Duration::from_secs(1))),
                None => std::thread::sleep(remaining.min(Duration::from_millis(10))),
            }
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
        self.signal(Signal::from_named_raw(number).ok_or(Errno::INVAL)?)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.has_ended() {
            return Err(Errno::SRCH.into());
        }
        let pid = kernel_pid(self.pid).ok_or(Errno::SRCH)?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }
}

/// A kqueue that is woken by the end of one process.
struct Watch {
    queue: std::os::fd::OwnedFd,
}

fn watch_end(pid: Pid) -> rustix::io::Result<Watch> {
    let pid = kernel_pid(pid).ok_or(Errno::SRCH)?;
    let queue = kqueue()?;
    let filter = EventFilter::Proc { pid, flags: ProcessEvents::EXIT };
    let change = Event::new(filter, EventFlags::ADD, std::ptr::null_mut());
    let mut events: [Event; 0] = [];
    // SAFETY: the event names a process, no descriptor that could be closed meanwhile.
    unsafe { kevent_timespec(&queue, &[change], &mut events[..], None)? };
    Ok(Watch { queue })
}

impl Watch {
    /// Comes back at the end of the process, after `timeout`, or early after a signal.
    fn wait(&self, timeout: Duration) {
        let mut events = [MaybeUninit::<Event>::uninit()];
        let timespec = Timespec::try_from(timeout).ok();
        // SAFETY: no changes are made.
        let woken = unsafe {
            kevent_timespec(&self.queue, &[], &mut events, timespec.as_ref())
                .map(|(known, _)| known.len())
        };
        // The kernel tells of the exit a moment before the zombie shows; then, and after an error,
        // a short pause keeps the caller's loop from spinning.
        if woken != Ok(0) {
            std::thread::sleep(timeout.min(Duration::from_millis(1)));
        }
    }
}

/// Only our own environment can be read; a job's label counts only if launchd (pid 1) is our
/// parent, because children inherit the variable. `0` stands in shells, `application.` begins the
/// labels of programs that were opened by a person.
pub fn supervision(pid: Pid) -> Supervision {
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    if pid != own_pid() || parent != Some(1) {
        return Supervision::default();
    }
    #[allow(clippy::disallowed_methods, reason = "a fact of the platform, no setting of ours")]
    let label = std::env::var("XPC_SERVICE_NAME").ok();
    Supervision {
        launchd_label: label.filter(|label| {
            !label.is_empty() && label != "0" && !label.starts_with("application.")
        }),
        ..Supervision::default()
    }
}

/// As on Linux: command line programs follow the XDG base directories on macOS, too.
pub const STATE_DIRECTORY: (&str, Option<&str>) = ("XDG_STATE_HOME", Some(".local/state"));

pub fn filesystem_of(directory: &Path) -> Option<Filesystem> {
    let found = rustix::fs::statfs(directory).ok()?;
    let kind = text_of(&found.f_fstypename)?;
    let class = classify(&kind);
    Some(Filesystem { kind, class })
}

/// Served by another machine: its locks may reach only this client, its memory maps are not shared
/// with other clients.
const NETWORK: &[&str] = &["smbfs", "nfs", "afpfs", "webdav", "ftp", "acfs"];

/// Bridges between a virtual machine and its host.
const BRIDGE: &[&str] = &["AppleVirtIOFS", "virtiofs", "vmhgfs", "prl_fs", "vboxvfs", "9p"];

/// macFUSE and its predecessors, FUSE-T included where it does not show as `nfs`.
const USER_SPACE: &[&str] = &["macfuse", "osxfuse", "osxfusefs", "fusefs", "fuse-t"];

fn classify(kind: &str) -> FilesystemClass {
    if NETWORK.contains(&kind) || BRIDGE.contains(&kind) {
        FilesystemClass::Remote
    } else if USER_SPACE.contains(&kind) {
        FilesystemClass::UserSpace
    } else {
        FilesystemClass::Local
    }
}

/// The text up to the NUL; `None` when there is no NUL or no text.
fn text_of(buffer: &[c_char]) -> Option<String> {
    let bytes: Vec<u8> = buffer.iter().map(|&unit| unit.cast_unsigned()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Guard(Child);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn this_process_and_pid_1() {
        let facts = process_facts(own_pid());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.state, ProcessState::Running);
        assert!(facts.start_time.is_some());
        assert_eq!(process_facts(1).existence, Existence::Present);
        for pid in [0, u32::MAX] {
            assert_eq!(process_facts(pid).existence, Existence::Gone);
        }
    }

    #[test]
    fn a_child_from_start_to_end() {
        let child = Guard(Command::new("sleep").arg("60").spawn().unwrap());
        let pid = child.0.id();
        let handle = ProcessHandle::open(pid).unwrap();
        let facts = process_facts(pid);
        assert_eq!(handle.start_time(), facts.start_time);
        assert_eq!(facts.parent, Some(own_pid()));
        assert!(!handle.wait_ended(Duration::from_millis(1)));
        handle.kill().unwrap();
        assert!(handle.wait_ended(Duration::MAX));
        // A zombie until it is reaped.
        assert_eq!(process_facts(pid).existence, Existence::Gone);
        assert_eq!(process_facts(pid).state, ProcessState::Zombie);
        drop(child);
        let opened = ProcessHandle::open(pid);
        assert!(matches!(opened, Err(OpenProcessError::Gone)));
    }

    #[test]
    fn ids_and_filesystems() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert_eq!(host_id().unwrap().len(), 36);
        assert!(boot_clock_ms() > 0);
        assert_eq!(filesystem_of(Path::new("/")).unwrap().kind, "apfs");
        assert_eq!(classify("smbfs"), FilesystemClass::Remote);
        assert_eq!(classify("macfuse"), FilesystemClass::UserSpace);
    }
}
