//! Processes: whether one exists, what it shows, a handle that pins it.

use std::io;
use std::time::Duration;

#[cfg(not(target_os = "linux"))]
use super::ProcessRow;
use super::process_facts::{
    OpenProcessError, Pid, ProcessFacts, ProcessNumber, StartTime, Supervision,
};
use super::{ChildEnd, os, process_table_is_ours};

/// What the kernel tells of the end of a process that is not our child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "no other kernel tells"))]
pub(crate) enum ExitInfo<T> {
    Known(T),
    /// It lives, or its parent has not collected it.
    NotYet,
    /// This kernel does not tell, and never will.
    Never,
}

impl<T> ExitInfo<T> {
    pub(crate) fn known(self) -> Option<T> {
        match self {
            Self::Known(told) => Some(told),
            Self::NotYet | Self::Never => None,
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn read<U>(self, read: impl FnOnce(T) -> U) -> ExitInfo<U> {
        match self {
            Self::Known(told) => ExitInfo::Known(read(told)),
            Self::NotYet => ExitInfo::NotYet,
            Self::Never => ExitInfo::Never,
        }
    }
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

    /// Whether its end can be waited for together with other things ([`super::Wake::wait`]).
    pub(crate) fn can_be_polled(&self) -> bool {
        self.0.can_be_polled()
    }

    /// What is readable once it has ended.
    #[cfg(unix)]
    pub(super) fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.descriptor()
    }

    /// Waits up to `timeout` for its end; true when it has ended. Woken by the kernel.
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        self.0.wait_ended(timeout)
    }

    /// How it ended, once its parent has collected it, where the kernel tells whoever still has it
    /// pinned (Linux 6.15).
    pub(crate) fn end(&self) -> ExitInfo<ChildEnd> {
        #[cfg(target_os = "linux")]
        return self.0.end();
        #[cfg(not(target_os = "linux"))]
        ExitInfo::Never
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

    /// Sends it the signal of this number, one that has a name. `Unsupported` where there are no
    /// signals (Windows).
    ///
    /// # Errors
    /// As [`ProcessHandle::kill`]; `InvalidInput` for a number without a name.
    pub fn send(&self, number: i32) -> io::Result<()> {
        self.0.send(number)
    }

    /// Whether it is known that the signal of this number would end it, because it does nothing
    /// about it. Only Linux tells.
    pub(crate) fn ends_by(&self, number: i32) -> bool {
        #[cfg(target_os = "linux")]
        return self.0.ends_by(number);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = number;
            false
        }
    }

    /// Lets it go on if it is stopped: SIGCONT. `Unsupported` where nothing is ever stopped.
    ///
    /// # Errors
    /// As [`ProcessHandle::kill`].
    pub fn resume(&self) -> io::Result<()> {
        self.0.resume()
    }
}

/// The directory that `pid` works in, where that can be seen.
pub(crate) fn directory_of(pid: Pid) -> Option<std::path::PathBuf> {
    #[cfg(target_os = "linux")]
    return os::directory_of(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

/// The processes that `pid` has started, and those that these have started, and so on: those that
/// can be seen now, parents first. One whose parent has ended belongs to nobody any more, and is
/// not among them. Slow where the kernel does not list the children of a process: then it looks at
/// every process.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    #[cfg(target_os = "linux")]
    if let Some(found) = os::listed_descendants(pid) {
        return found;
    }
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

/// The children of `pid` that can be seen now. Slow as [`descendants`].
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    #[cfg(target_os = "linux")]
    if let Some(found) = os::listed_children(pid) {
        return found;
    }
    let table = os::processes_and_parents().into_iter();
    table.filter(|(_, parent)| *parent == pid).map(|(child, _)| child).collect()
}

/// How much of the process table of our own pid namespace can be looked through.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux may have none"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableShows {
    All,
    /// Processes of other users are hidden (`hidepid` of proc(5)), or their parents are.
    OwnUserOnly,
    /// It is not there, or another namespace's.
    Nothing,
}

pub(crate) fn table_shows() -> TableShows {
    #[cfg(target_os = "linux")]
    return os::table_shows();
    // Of another user's process the parent is told to root alone (macOS, `proc_pidinfo`), or to
    // whoever may open it (Windows).
    #[cfg(not(target_os = "linux"))]
    {
        let is_root = os::effective_uid() == Some(0);
        if is_root { TableShows::All } else { TableShows::OwnUserOnly }
    }
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

/// Whether `pid` was forked, and goes on with the program of its parent: a subshell, a worker.
pub(crate) fn is_forked_copy(pid: Pid) -> bool {
    #[cfg(target_os = "linux")]
    return os::is_forked_copy(pid);
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

/// What supervises `pid`, as far as its cgroup (Linux), its environment (macOS, own process only)
/// and its parent tell.
pub fn supervision(pid: Pid) -> Supervision {
    os::supervision(pid)
}

/// The name of the program that `pid` runs, as the kernel keeps it; `None` when it cannot be read.
pub fn program_name(pid: Pid) -> Option<String> {
    os::program_name(pid)
}

/// A table of all processes where there are no plain files to read: what else is asked of each.
#[cfg(not(target_os = "linux"))]
pub(super) fn process_rows_by_parents() -> Vec<ProcessRow> {
    let table = os::processes_and_parents().into_iter();
    table
        .map(|(pid, parent)| ProcessRow {
            pid,
            parent: Some(parent).filter(|parent| *parent != 0),
            uid: process_facts(pid).uid,
            state: None,
            cpu_ms: None,
            memory_kib: None,
            age_s: None,
        })
        .collect()
}
