//! What can be seen of a process, in the terms that all platforms share.

use crate::words::words;
use std::io;

use serde::Serialize;

/// A process id as the operating system counts them. 0 never names a process here.
pub type Pid = u32;

words! {
    /// The unit of a [`StartTime`]; one per source, so that values of different sources never
    /// compare. In JSON its word.
    pub enum StartTimeUnit {
        /// Linux: field 22 of `/proc/<pid>/stat`, clock ticks since boot, less the offset of the
        /// reader's time namespace (`proc_pid_stat(5)`, `time_namespaces(7)`).
        Ticks = "ticks",
        /// macOS: `pbi_start_tvsec` and `pbi_start_tvusec` of `proc_bsdinfo`, in microseconds.
        Microseconds = "microseconds",
        /// Windows: the creation time of `GetProcessTimes`, in units of 100 ns since 1601.
        Filetime = "filetime",
    }
}

/// When the kernel started a process, as the kernel counts it; never turned into wall time. In JSON
/// an object with `value` and `unit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct StartTime {
    /// The raw count, in [`StartTime::unit`].
    pub value: i64,
    /// What `value` counts.
    pub unit: StartTimeUnit,
}

/// The number that the kernel gave to one process of this boot and will give to no other (Linux
/// 6.9: the inode of its pidfd, where fstatfs(2) says pidfs). The same from every namespace, and
/// for every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessNumber(pub u64);

/// Whether a pid names a process of this observer's namespace. In JSON its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// At least one thread of it still runs, or may run again.
    Present,
    /// No such process, or all its threads have ended (a zombie that nobody has reaped yet).
    Gone,
    /// It could not be found out.
    Unknown,
}

impl Existence {
    /// `present`, `gone` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }
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
