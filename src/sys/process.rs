//! Processes: whether one exists, what it shows, a handle that pins it.

use std::io;
use std::time::Duration;

use super::{ProcessNumber, os, process_table_is_ours};

/// A process id as the operating system counts them. 0 never names a process here.
pub type Pid = u32;

/// The unit of a [`StartTime`]; one per source, so that values of different sources never compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartTimeUnit {
    /// Linux: field 22 of `/proc/<pid>/stat`, clock ticks since boot, less the offset of the
    /// reader's time namespace (`proc_pid_stat(5)`, `time_namespaces(7)`).
    Ticks,
    /// macOS: `pbi_start_tvsec` and `pbi_start_tvusec` of `proc_bsdinfo`, in microseconds.
    Microseconds,
    /// Windows: the creation time of `GetProcessTimes`, in units of 100 ns since 1601.
    Filetime,
}

impl StartTimeUnit {
    /// The word stored in the column `start_time_unit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Microseconds => "microseconds",
            Self::Filetime => "filetime",
        }
    }

    /// The inverse of [`StartTimeUnit::as_str`]; `None` for any other word.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "ticks" => Some(Self::Ticks),
            "microseconds" => Some(Self::Microseconds),
            "filetime" => Some(Self::Filetime),
            _ => None,
        }
    }
}

/// When the kernel started a process, as the kernel counts it; never turned into wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StartTime {
    /// The raw count, in [`StartTime::unit`].
    pub value: i64,
    /// What `value` counts.
    pub unit: StartTimeUnit,
}

/// Whether a pid names a process of this observer's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// At least one thread of it still runs, or may run again.
    Present,
    /// No such process, or all its threads have ended (a zombie that nobody has reaped yet).
    Gone,
    /// It could not be found out.
    Unknown,
}

/// The scheduler's word about a process.
#[cfg_attr(windows, allow(dead_code, reason = "Windows says nothing of it"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Running, runnable or sleeping.
    Running,
    /// Stopped by a signal (job control): Linux state `T`.
    Stopped,
    /// Stopped by a debugger or tracer: Linux state `t`. Healthy processes are traced too.
    Traced,
    /// The main thread has ended: Linux state `Z`. Other threads may still run.
    Zombie,
    /// It could not be found out.
    Unknown,
}

/// What could be seen of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Is there such a process?
    pub existence: Existence,
    /// When it was started, if that could be read.
    pub start_time: Option<StartTime>,
    /// Its scheduling state.
    pub state: ProcessState,
    /// The real user id, where the platform has one and it could be read.
    pub uid: Option<u32>,
    /// The parent's pid, if it could be read and is not 0.
    pub parent: Option<Pid>,
    /// The kernel's own number of it, where the kernel gives one.
    pub number: Option<ProcessNumber>,
}

impl ProcessFacts {
    /// Nothing could be seen.
    pub const UNKNOWN: Self = Self {
        existence: Existence::Unknown,
        start_time: None,
        state: ProcessState::Unknown,
        uid: None,
        parent: None,
        number: None,
    };
}

/// Looks at `pid`. Existence is asked of the kernel (a pidfd, a process handle), the rest of the
/// process table; when existence says `Gone` the rest is whatever was still readable (a zombie has
/// a start time and state).
pub fn process_facts(pid: Pid) -> ProcessFacts {
    os::process_facts(pid)
}

/// The command line of `pid`, argument by argument, invalid UTF-8 replaced. `None` when it cannot
/// be read or is empty (a zombie, a kernel thread).
pub fn command_line(pid: Pid) -> Option<Vec<String>> {
    // In a foreign process table the number names another process.
    if !process_table_is_ours() {
        return None;
    }
    os::command_line(pid).filter(|arguments| !arguments.is_empty())
}

/// The command line as sysinfo knows it, where the platform has no plain file to read.
#[cfg(not(target_os = "linux"))]
pub(super) fn command_line_by_sysinfo(pid: Pid) -> Option<Vec<String>> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
    let pid = sysinfo::Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        false,
        ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).without_tasks(),
    );
    let arguments = system.process(pid)?.cmd().iter();
    Some(arguments.map(|argument| argument.to_string_lossy().into_owned()).collect())
}

/// Why a process could not be opened.
#[derive(Debug)]
pub enum OpenProcessError {
    /// No such process.
    Gone,
    /// It exists, and we may not look at it (another user's, another session's).
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "anybody may open a pidfd"))]
    Denied,
    /// Anything else; what the kernel said.
    Other(io::Error),
}

/// A process pinned so that its pid cannot be recycled under us: a pidfd on Linux, a process
/// handle on Windows. On macOS, which has neither, the start time is compared again before every
/// act; the window between that look and the act is the platform's limit.
#[derive(Debug)]
pub struct ProcessHandle(os::ProcessHandle);

impl ProcessHandle {
    /// Pins `pid`.
    ///
    /// # Errors
    /// [`OpenProcessError`] says whether the process is gone or may not be looked at.
    pub fn open(pid: Pid) -> Result<Self, OpenProcessError> {
        os::ProcessHandle::open(pid).map(Self)
    }

    /// The start time of the pinned process; `None` when it cannot be read. Because the process is
    /// pinned, the answer is about it and not about a successor with the same pid.
    pub fn start_time(&self) -> Option<StartTime> {
        self.0.start_time()
    }

    /// The kernel's own number of the pinned process, where it has one.
    pub fn number(&self) -> Option<ProcessNumber> {
        self.0.number()
    }

    /// Its real user and its saved one: whom `kill(2)` lets signal it. `None` where that cannot be
    /// seen.
    pub(super) fn users(&self) -> Option<[u32; 2]> {
        self.0.users()
    }

    /// Whether all its threads have ended.
    pub fn has_ended(&self) -> bool {
        self.0.wait_ended(Duration::ZERO)
    }

    /// Waits up to `timeout` for its end; true when it has ended. Woken by the kernel.
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        self.0.wait_ended(timeout)
    }

    /// Ends it at once: SIGKILL, `TerminateProcess`.
    ///
    /// # Errors
    /// What the kernel said, e.g. `PermissionDenied`.
    pub fn kill(&self) -> io::Result<()> {
        self.0.kill()
    }

    /// Asks it to end: SIGTERM. `Unsupported` where there is nothing to send (Windows).
    ///
    /// # Errors
    /// As [`ProcessHandle::kill`].
    pub fn ask_to_end(&self) -> io::Result<()> {
        self.0.ask_to_end()
    }

    /// Lets it go on if it is stopped: SIGCONT. `Unsupported` where nothing is ever stopped.
    ///
    /// # Errors
    /// As [`ProcessHandle::kill`].
    pub fn resume(&self) -> io::Result<()> {
        self.0.resume()
    }
}

/// The processes that `pid` has started, and those that these have started, and so on: those that
/// can be seen now, parents first. One whose parent has ended belongs to nobody any more, and is
/// not among them. Slow: it looks at every process.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let table = os::processes_and_parents();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children = table.iter().filter(|(child, of)| *of == parent && !found.contains(child));
        let children: Vec<Pid> = children.map(|(child, _)| *child).collect();
        found.extend(children);
    }
    found.split_off(1)
}

/// The processes of a session that can be seen, without us; `None` where none can be looked for
/// now. Where it can never be told (macOS, Windows), none.
pub(crate) fn processes_of_session(session: Pid) -> Option<Vec<Pid>> {
    #[cfg(target_os = "linux")]
    return os::processes_of_session(session);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = session;
        Some(Vec::new())
    }
}

/// Whether `pid` is a thread of the kernel, which has no command line.
pub(crate) fn is_kernel_thread(pid: Pid) -> bool {
    #[cfg(target_os = "linux")]
    return os::is_kernel_thread(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        false
    }
}

/// The session of `pid`, where there is such a thing.
pub(crate) fn session_of(pid: Pid) -> Option<Pid> {
    #[cfg(target_os = "linux")]
    return os::session_of(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

/// The processes that have this `NAME=VALUE` in the environment that they were started with, as far
/// as we may look. Slow: it looks at every process.
pub(crate) fn processes_with_environment(word: &str) -> Vec<Pid> {
    #[cfg(target_os = "linux")]
    return os::processes_with_environment(word);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = word;
        Vec::new()
    }
}

/// The environment that `pid` was started with, `NAME=VALUE` each; `None` when it may not be read.
pub(crate) fn environment_of(pid: Pid) -> Option<Vec<String>> {
    #[cfg(target_os = "linux")]
    return os::environment_of(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

/// The processes and their parents as sysinfo knows them, where the platform has no plain files.
#[cfg(not(target_os = "linux"))]
pub(super) fn processes_and_parents_by_sysinfo() -> Vec<(Pid, Pid)> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
    let Ok(mut system) = System::new() else { return Vec::new() };
    let nothing = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, false, nothing);
    let processes = system.processes().iter();
    processes
        .filter_map(|(pid, process)| Some((pid.as_u32(), process.parent()?.as_u32())))
        .collect()
}

/// Who started a process and is likely to start it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervision {
    /// The innermost systemd *service* of its cgroup (never a scope or a slice).
    pub systemd_service: Option<String>,
    /// The launchd job label.
    pub launchd_label: Option<String>,
    /// The container it runs in: its id, or a word such as `docker` when the id cannot be seen.
    pub container: Option<String>,
}

/// What supervises `pid`, as far as its cgroup (Linux), its environment (macOS, own process only)
/// and its parent tell.
pub fn supervision(pid: Pid) -> Supervision {
    os::supervision(pid)
}
