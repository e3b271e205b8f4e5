//! The only platform-aware code of the crate: what the operating system says about processes,
//! machines, clocks and files.
//!
//! Every function here answers with what was *seen*. "Could not look" is a value of its own
//! (`None`, `Unknown`, an error) and is never folded into "gone": deciding what follows from an
//! observation is [`crate::liveness`]'s work, not this module's.
//!
//! One file per operating system implements the same contract; `procfs` holds the pure parsers
//! (bytes in, values out) of Linux' `/proc`.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;

mod age;
#[cfg(unix)]
mod capture;
#[cfg(target_os = "linux")]
#[path = "details_linux.rs"]
pub(crate) mod details;
#[cfg(not(target_os = "linux"))]
#[path = "details_other.rs"]
pub(crate) mod details;
#[cfg(unix)]
#[path = "diagnostic_unix.rs"]
pub(crate) mod diagnostic;
#[cfg(windows)]
#[path = "diagnostic_windows.rs"]
pub(crate) mod diagnostic;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(unix)]
#[path = "modes_unix.rs"]
mod modes;
mod no_room;
#[cfg(target_os = "linux")]
mod open_files;
#[cfg(unix)]
mod own_group;
#[cfg(any(target_os = "linux", test))]
mod procfs;
mod programs;
mod proven;
mod shortage;
#[cfg(unix)]
#[path = "signals_unix.rs"]
pub(crate) mod signals;
#[cfg(windows)]
#[path = "signals_windows.rs"]
pub(crate) mod signals;
#[cfg(all(unix, feature = "cli"))]
#[path = "supervise_unix.rs"]
pub(crate) mod supervise;
#[cfg(all(windows, feature = "cli"))]
#[path = "supervise_windows.rs"]
pub(crate) mod supervise;
mod trust;
#[cfg(unix)]
mod unix;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) mod wal_index;
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
#[path = "wal_index_other.rs"]
pub(crate) mod wal_index;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(target_os = "macos")]
use macos as os;
#[cfg(windows)]
use windows as os;

pub(crate) use age::process_age_ms;
pub(crate) use no_room::NoRoom;
pub(crate) use programs::{program, program_places};
pub(crate) use proven::{Proven, Unproven};
pub(crate) use shortage::{Looks, Shortage, note};
pub(crate) use trust::Trust;

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
fn command_line_by_sysinfo(pid: Pid) -> Option<Vec<String>> {
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

/// This machine, by an id that does not change with its name: `/etc/machine-id`,
/// `IOPlatformUUID`, `MachineGuid`. `None` when there is none (a minimal container).
pub fn host_id() -> Option<String> {
    os::host_id()
}

/// This boot of the kernel: `/proc/sys/kernel/random/boot_id`, `kern.bootsessionuuid`; on Windows
/// an id derived from the boot time that the kernel keeps.
pub fn boot_id() -> Option<String> {
    os::boot_id()
}

/// The pid namespace of this process (Linux: the inode of `/proc/self/ns/pid`). `None` where the
/// platform has none or it cannot be read.
pub fn pid_namespace() -> Option<String> {
    os::pid_namespace()
}

/// Whether the process table we can read is the one our own pid lives in (Linux: field 1 of
/// `/proc/self/stat` is our pid). Always true where there is only one.
pub fn process_table_is_ours() -> bool {
    os::process_table_is_ours()
}

/// Milliseconds on a clock that never steps and counts suspend: Linux `CLOCK_BOOTTIME` less the
/// time namespace's offset. Comparable only within one boot.
pub fn boot_clock_ms() -> i64 {
    os::boot_clock_ms()
}

/// The effective user id, where the platform has one.
pub fn effective_uid() -> Option<u32> {
    os::effective_uid()
}

/// The user id that stands for all users without one in our user namespace; `None` outside of any.
pub fn unmapped_uid() -> Option<u32> {
    os::unmapped_uid()
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

    /// Its real user and its saved one: whom `kill(2)` lets signal it. `None` where that cannot be seen.
    fn users(&self) -> Option<[u32; 2]> {
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

/// The processes of a session that can be seen, without us; `None` where none can be looked for now. Where
/// it can never be told (macOS, Windows), none.
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

/// Whether a pid namespace, as [`pid_namespace`] names it, is the one that the machine started with, whose
/// first process does not take all others along.
pub(crate) fn is_first_pid_namespace(name: &str) -> bool {
    /// `PROC_PID_INIT_INO` of the kernel.
    const INODE: &str = "4026531836";
    name == INODE
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

/// The processes that have this `NAME=VALUE` in the environment that they were started with, as far as we
/// may look. Slow: it looks at every process.
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
fn processes_and_parents_by_sysinfo() -> Vec<(Pid, Pid)> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
    let Ok(mut system) = System::new() else { return Vec::new() };
    let nothing = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, false, nothing);
    let processes = system.processes().iter();
    processes
        .filter_map(|(pid, process)| Some((pid.as_u32(), process.parent()?.as_u32())))
        .collect()
}

/// Something that is only for people to know, or why it cannot be known.
pub(crate) type Seen<T> = Result<T, String>;

/// What a process looks like to people. `None`: the platform does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The name of its program, as the kernel keeps it.
    pub(crate) name: Option<String>,
    /// Its state, in the platform's words: `S (sleeping)`.
    pub(crate) state: Option<String>,
    /// The parent's pid; 0 where that lives in another pid namespace, or nowhere.
    pub(crate) parent: Option<Pid>,
    /// The real user id.
    pub(crate) uid: Option<u32>,
    /// Who traces it; 0 for nobody.
    pub(crate) tracer: Option<Pid>,
    /// The memory that it has now.
    pub(crate) rss_bytes: Option<u64>,
    /// The most that it had.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// What of it is swapped out.
    pub(crate) swap_bytes: Option<u64>,
}

/// A control group that counts memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryGroup {
    /// Its directory.
    pub(crate) directory: String,
    /// The number of that directory: another one in its place has another.
    pub(crate) inode: Option<i64>,
}

/// What the kernel's log says of an end.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux is asked"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelLog {
    /// It was killed, in these words.
    Killed(String),
    /// It was not: the log goes back far enough, and does not name it.
    Spared,
    /// It cannot be read, or does not go back far enough.
    Unknown,
}

/// How much of something a process may use; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Where it is stopped.
    pub(crate) soft: Option<u64>,
    /// As far as it may raise that.
    pub(crate) hard: Option<u64>,
}

/// What a table of all processes shows of one, beside its command line; `None` where the platform has
/// no plain file that says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessRow {
    pub(crate) pid: Pid,
    pub(crate) parent: Option<Pid>,
    /// The effective user id.
    pub(crate) uid: Option<u32>,
    /// The scheduler's letter, as `ps` shows it.
    pub(crate) state: Option<char>,
    /// Processor time of all its threads since its start.
    pub(crate) cpu_ms: Option<u64>,
    /// Resident memory.
    pub(crate) memory_kib: Option<u64>,
    /// Since its start.
    pub(crate) age_s: Option<u64>,
}

#[cfg(not(target_os = "linux"))]
fn process_rows_by_parents() -> Vec<ProcessRow> {
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

/// The name of the program that `pid` runs, as the kernel keeps it; `None` when it cannot be read.
pub fn program_name(pid: Pid) -> Option<String> {
    os::program_name(pid)
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

/// What a program printed.
#[derive(Debug)]
pub struct Captured {
    /// To its standard output.
    pub bytes: Vec<u8>,
    /// How it ended; `None` when another part of this program took its status (`wait(-1)`).
    pub status: Option<std::process::ExitStatus>,
}

/// Why there is no answer from a program.
#[derive(Debug)]
pub enum CaptureError {
    /// It could not be started.
    Start(io::Error),
    /// It had not ended in its time, and was killed.
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is captured there"))]
    TimedOut,
    /// It printed more than it may, and was killed.
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is captured there"))]
    TooMuch,
}

/// Runs a program to its end, for at most `timeout`, and takes what it printed, at most `bytes_max`
/// bytes. It gets no standard input, its standard error goes nowhere, and what it may have started
/// itself is not waited for. A killed one may take 100 ms more.
///
/// # Errors
/// [`CaptureError`]; on Windows always `Start(Unsupported)`.
pub fn capture(
    command: &mut std::process::Command,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Captured, CaptureError> {
    os::capture(command, timeout, bytes_max)
}

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

/// The number that the kernel gave to one process of this boot and will give to no other (Linux 6.9: the
/// inode of its pidfd, where fstatfs(2) says pidfs). The same from every namespace, and for every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessNumber(pub u64);

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

/// Facts about the file at `path`, symbolic links followed.
///
/// # Errors
/// As `stat(2)`.
pub fn file_facts(path: &Path) -> io::Result<FileFacts> {
    os::file_facts(path)
}

/// Whether this process has hardly any descriptor left: fewer than one connection of SQLite needs, which
/// opens up to four files and does not say why it could not.
pub(crate) fn lack_of_descriptors() -> Option<Shortage> {
    const NEEDED: usize = 8;
    let opened: Result<Vec<_>, _> = (0..NEEDED).map(|_| io::pipe()).collect();
    opened.err().as_ref().and_then(Shortage::of)
}

/// Which file `path` names, as far as the platform numbers files; symbolic links are not followed.
///
/// # Errors
/// As `stat(2)` and `statfs(2)`.
pub fn file_key(path: &Path) -> io::Result<Option<FileKey>> {
    os::file_key(path)
}

/// The same of an open file.
///
/// # Errors
/// As `fstat(2)` and `fstatfs(2)`.
pub fn open_file_key(file: &std::fs::File) -> io::Result<Option<FileKey>> {
    os::open_file_key(file)
}

/// Facts about the regular file at `path`; what a symbolic link leads to is not looked at.
///
/// # Errors
/// As `lstat(2)`; `InvalidInput` for what is no regular file.
pub(crate) fn facts_of_entry(path: &Path) -> io::Result<FileFacts> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    os::file_facts(path)
}

/// The same about an open file (never one of SQLite's).
///
/// # Errors
/// As `fstat(2)`.
pub fn open_file_facts(file: &std::fs::File) -> io::Result<FileFacts> {
    os::open_file_facts(file)
}

/// Makes `path` and its missing parents, each with mode 0700 (Windows: with the inherited ACL).
///
/// # Errors
/// As `mkdir(2)`.
pub fn create_private_dirs(path: &Path) -> io::Result<()> {
    os::create_private_dirs(path)
}

/// Whether `path` itself is a mount point: a file mounted over another name of it.
pub fn is_mount_point(path: &Path) -> bool {
    os::is_mount_point(path)
}

/// Whether this process may write to the existing `path`, by its effective user.
pub fn may_write(path: &Path) -> bool {
    os::may_write(path)
}

/// Reads at a place of an open file, as `pread(2)`: where others read by the same descriptor is left as it is, but on
/// Windows.
///
/// # Errors
/// As `pread(2)`.
pub(crate) fn read_at(file: &std::fs::File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    os::read_at(file, bytes, at)
}

/// Whether this process may read the existing `path`, by its effective user. Nothing is opened.
pub fn may_read(path: &Path) -> bool {
    os::may_read(path)
}

/// Swaps the names of two existing files or directories, so that at no moment either is missing.
///
/// # Errors
/// `Unsupported` where the kernel or the filesystem has no such thing; otherwise as `renameat2(2)`.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    os::exchange(one, other)
}

/// Opens the directory at `path` itself, not what a symbolic link there leads to.
///
/// # Errors
/// As `open(2)`; `Unsupported` on Windows.
pub(crate) fn open_directory(path: &Path) -> io::Result<std::fs::File> {
    os::open_directory(path)
}

/// Opens for reading what an open directory calls `name`, unless that is a symbolic link. Never a file of
/// SQLite's: see [`wal_index::keep`].
///
/// # Errors
/// As `openat(2)`; `Unsupported` on Windows.
pub(crate) fn open_in(directory: &std::fs::File, name: &OsStr) -> io::Result<std::fs::File> {
    os::open_in(directory, name)
}

/// Opens a directory to make files in it by [`path_of_open`]; follows no symbolic link in its place. `None` on
/// Windows.
///
/// # Errors
/// As `open(2)`.
pub(crate) fn pin_directory(path: &Path) -> io::Result<Option<std::fs::File>> {
    os::pin_directory(path)
}

/// A path that leads to an open directory whatever it is called by now, as long as it is open; `None` where the
/// system has no such paths (Linux: `/proc/self/fd`).
pub(crate) fn path_of_open(directory: &std::fs::File) -> Option<std::path::PathBuf> {
    os::path_of_open(directory)
}

/// Facts about what an open directory calls `name`, which may be a symbolic link.
///
/// # Errors
/// As `fstatat(2)`; `Unsupported` on Windows.
pub(crate) fn facts_in(directory: &std::fs::File, name: &OsStr) -> io::Result<FileFacts> {
    os::facts_in(directory, name)
}

/// Sets the mode of an open file or directory.
///
/// # Errors
/// As `fchmod(2)`; `Unsupported` on Windows.
pub(crate) fn set_mode(file: &std::fs::File, mode: u32) -> io::Result<()> {
    os::set_mode(file, mode)
}

/// Sets the mode of what an open directory calls `name`, if that is still the file of `expected`, without
/// opening it for reading.
///
/// # Errors
/// `NotFound` where it is another file; as `fchmodat(2)`; `Unsupported` on Windows.
pub(crate) fn set_mode_in(
    directory: &std::fs::File,
    name: &OsStr,
    expected: &FileFacts,
    mode: u32,
) -> io::Result<()> {
    os::set_mode_in(directory, name, expected, mode)
}

/// Whether nobody but `uid` is in the group `gid`, as far as this can be known: nobody else is named in
/// `/etc/passwd` and `/etc/group`, and either both have the same number (a user private group), or it is our
/// own user with a group of our own, and no other source is asked for users. Always false on Windows.
pub(crate) fn is_private_group(gid: u32, uid: u32, membership: Membership) -> bool {
    os::is_private_group(gid, uid, membership)
}

/// How it is known that a user is in a group: that of a pod is in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// This process is.
    Ours,
    /// The user has made a file where only root and the group can.
    Shown,
}

/// The users to whom the symbolic links on the way to `path` belong, which is absolute. Empty on Windows.
pub(crate) fn owners_of_links(path: &Path) -> Vec<u32> {
    os::owners_of_links(path)
}

/// When we are root: gives an open file, which we have just made at `path`, to the owner of the directory that it
/// is in (user and group). Otherwise, and on Windows, nothing.
///
/// # Errors
/// As `fchown(2)`; when that is not where the file is, or it has another name.
pub(crate) fn give_to_owner_of_directory(file: &std::fs::File, path: &Path) -> io::Result<()> {
    os::give_to_owner_of_directory(file, path)
}

/// Renames `from`, whose directory `to` is in as well. That is looked up once: whoever swaps it meanwhile leads
/// to an error, and to no other directory.
///
/// # Errors
/// As `renameat(2)`.
pub(crate) fn rename_beside(from: &Path, to: &Path) -> io::Result<()> {
    os::rename_beside(from, to)
}

/// A second name for the file `from`, likewise. What has that name stays.
///
/// # Errors
/// As `linkat(2)`.
pub(crate) fn link_beside(from: &Path, to: &Path) -> io::Result<()> {
    os::link_beside(from, to)
}

/// Creates the file at `path`, which must not exist: read and write, 0600, close-on-exec, of the owner of its
/// directory where we are root, no symbolic link followed, also not in the place of the directory; on Windows
/// shared for reading, writing and deleting.
///
/// # Errors
/// As `open(2)` with `O_CREAT | O_EXCL`, `fchmod(2)` and `fchown(2)`.
pub fn create_anchor_file(path: &Path) -> io::Result<std::fs::File> {
    os::create_anchor_file(path)
}

/// Opens an existing anchor to look at it: read only, close-on-exec, no symbolic link followed,
/// and never blocking on a FIFO that somebody put there.
///
/// # Errors
/// As `open(2)`.
pub fn open_anchor_file(path: &Path) -> io::Result<std::fs::File> {
    os::open_anchor_file(path)
}

/// Takes two shared record locks on the existing file at `path`. One lasts until this process ends, and goes
/// along when it executes another program; the other one for as long as any process that it starts keeps the
/// descriptor open. Call it while there is one thread.
///
/// # Errors
/// As `open(2)` and `fcntl(2)`.
#[cfg(all(unix, feature = "cli"))]
pub(crate) fn hold_command_lock(path: &Path) -> io::Result<()> {
    os::hold_command_lock(path)
}

/// Who holds what [`hold_command_lock`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandLocks {
    /// The command itself.
    pub(crate) command: bool,
    /// It, or something that it has started and that has not closed what it inherited.
    pub(crate) descendants: bool,
}

/// Whether other processes hold these locks on the file. Never ask the command itself: closing `file` there
/// would cancel its lock.
///
/// # Errors
/// As `fcntl(2)`; `Unsupported` on Windows.
pub(crate) fn command_lock(file: &std::fs::File) -> io::Result<CommandLocks> {
    os::command_lock(file)
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

/// The filesystem that holds the (existing, real) `directory`. `None` when it cannot be found out.
pub fn filesystem_of(directory: &Path) -> Option<Filesystem> {
    os::filesystem_of(directory)
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

/// What is left of the filesystem that holds the (existing) `path`.
///
/// # Errors
/// As `statvfs(3)`.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    os::free_space(path)
}

/// Whether what holds the (existing) `path` is mounted read-only, so that nobody can write there,
/// whatever the modes say.
///
/// # Errors
/// As `statvfs(3)`.
pub fn is_mounted_read_only(path: &Path) -> io::Result<bool> {
    os::is_mounted_read_only(path)
}

/// Whether a file can be read, and renamed, while another process or handle has it locked.
pub const SHOWS_LOCKED_CONTENT: bool = cfg!(unix);

/// Whether the platform shows what other processes have open.
#[cfg_attr(not(test), allow(dead_code, reason = "where it does not, nothing is shown"))]
pub const SHOWS_OPENED_FILES: bool = cfg!(target_os = "linux");

/// Whether the platform tells who holds a record lock: where it does not, [`record_lock_holder`]
/// says nothing by `None`.
pub const SHOWS_RECORD_LOCKS: bool = cfg!(target_os = "linux");

/// Whether file locks work between processes in `directory`: a second process must be refused both
/// the advisory lock (`flock`) and the record lock (`fcntl`) that this one holds on a scratch file,
/// and get them once they are free. `Ok(Err(why))` when they do not.
///
/// # Errors
/// When the test could not be run.
pub fn lock_self_test(directory: &Path) -> io::Result<Result<(), String>> {
    os::lock_self_test(directory)
}

/// Where the platform keeps a user's state: a variable that names the directory, and the place
/// below the home directory that stands in for it where there is one.
pub const STATE_DIRECTORY: (&str, Option<&str>) = os::STATE_DIRECTORY;

/// The processes that have the file at `path` open, as far as we may look (Linux: `/proc/*/fd`).
/// Slow: it looks at every process.
pub fn processes_with_open_file(path: &Path) -> Vec<Pid> {
    os::processes_with_open_file(path)
}

/// The processes but this one that have a file of `directory` open, with the file's name, as far as we
/// may look (Linux: `/proc/*/fd`). One look at every process, however many files there are.
pub fn processes_with_files_of(directory: &Path) -> Vec<(Pid, String)> {
    os::processes_with_files_of(directory)
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
    descriptor: std::path::PathBuf,
}

impl OpenedFile {
    /// Opens the very file once more, to look at it: a regular one only.
    ///
    /// # Errors
    /// As `open(2)`; also where its process has closed it meanwhile.
    pub fn open_again(&self) -> io::Result<std::fs::File> {
        os::open_again(self)
    }

    /// Whether it is open for writing; `false` also where its process has closed it meanwhile.
    pub fn is_open_for_writing(&self) -> bool {
        os::is_open_for_writing(self)
    }

    /// Which file it is. Without opening it: it may be a database.
    ///
    /// # Errors
    /// As `stat(2)` and `statfs(2)`.
    pub fn key(&self) -> io::Result<Option<FileKey>> {
        os::linked_file_key(&self.descriptor)
    }
}

/// What `pid` has open (Linux: `/proc/<pid>/fd`); `None` when that cannot be seen.
pub fn files_opened_by(pid: Pid) -> Option<Vec<OpenedFile>> {
    os::files_opened_by(pid)
}

/// What all processes have open, this one among them, as far as we may look. Slow: it looks at every
/// process.
pub fn opened_files() -> impl Iterator<Item = OpenedFile> {
    os::opened_files()
}

/// Whether `pid` has the same mounts as we, so that its paths are ours (Linux: its mount namespace); `None`
/// when that cannot be seen.
pub fn shares_mounts_with(pid: Pid) -> Option<bool> {
    os::shares_mounts_with(pid)
}

/// Where the (absolute, real) `path` is found as `pid` sees it: its root may be another one than ours.
pub fn in_root_of(pid: Pid, path: &Path) -> Option<std::path::PathBuf> {
    os::in_root_of(pid, path)
}

/// Which processes of this namespace hold a record lock of either kind on byte `offset` of the file at `path`: those
/// that lock as SQLite does by itself. `None` when that cannot be seen.
pub fn record_lock_holders(path: &Path, offset: u64) -> Option<Vec<Pid>> {
    os::record_lock_holders(path, offset)
}

/// Which process of this namespace holds an exclusive record lock on byte `offset` of the file at
/// `path` (Linux: from `/proc/locks` and `/proc/<pid>/fdinfo`). `None` when nobody does or it cannot be seen.
pub fn record_lock_holder(path: &Path, offset: u64) -> Option<Pid> {
    os::record_lock_holder(path, offset)
}

/// An exclusive lock on a whole file (`flock`), by the kernel's own list.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux has such a list"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListedLock {
    /// Somebody holds one; its pid, if it has one in our namespace.
    Held(Option<Pid>),
    /// Nobody does.
    Free,
    /// The list does not show everybody's, or cannot be read.
    Unknown,
    /// The platform has no such list: only trying to lock the file tells.
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "Linux has one"))]
    NoList,
}

/// Whether some process holds an exclusive `flock` on the file at `path`, without touching that lock
/// (Linux: from `/proc/locks`). A shared one counts as none.
pub(crate) fn listed_lock(path: &Path) -> ListedLock {
    os::listed_lock(path)
}

/// How a lock is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Exclusive,
}

/// Opens a lock file that other programs use as well, or makes it: read and write, 0600 if it is made,
/// close-on-exec, no symbolic link followed, and never blocking on a FIFO.
///
/// # Errors
/// As `open(2)`; `InvalidInput` for what is no regular file.
pub(crate) fn open_foreign_lock_file(path: &Path) -> io::Result<std::fs::File> {
    os::open_foreign_lock_file(path)
}

/// Tries to take the lock that programs of other languages take on a file: `flock` on Unix, one byte at
/// 1 MiB on Windows, where locked bytes cannot be read. False when somebody else has it.
///
/// # Errors
/// When it could not be found out.
pub(crate) fn try_foreign_lock(file: &std::fs::File, sharing: Sharing) -> io::Result<bool> {
    os::try_foreign_lock(file, sharing)
}

/// Lets the lock of [`try_foreign_lock`] go, also where a forked child shares the descriptor.
pub(crate) fn foreign_unlock(file: &std::fs::File) {
    os::foreign_unlock(file);
}

/// Where a signal came from.
#[cfg_attr(windows, allow(dead_code, reason = "Windows tells nobody who caused an event"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalOrigin {
    /// A process of our pid namespace.
    Process {
        /// Its pid, which may name another process by now.
        pid: Pid,
        /// Its real user id.
        uid: u32,
        /// By which call.
        how: &'static str,
    },
    /// A process that our pid namespace has no number for.
    Elsewhere {
        /// Its real user id.
        uid: u32,
    },
    /// The kernel itself, e.g. for what was typed at a terminal.
    Kernel,
    /// The platform does not say.
    Unknown,
}

/// A signal that was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caught {
    /// As the platform counts them.
    pub(crate) number: i32,
    /// A terminal sent it to its whole foreground group.
    pub(crate) from_terminal: bool,
    /// Who sent it.
    pub(crate) origin: SignalOrigin,
}

/// `SIGTERM` for 15, `signal#99` for one without a name.
pub(crate) fn signal_name(signal: i32) -> String {
    signals::name(signal).map_or_else(|| format!("signal#{signal}"), str::to_owned)
}

/// 15 for `15`, `TERM` or `SIGTERM`.
pub(crate) fn signal_number(word: &str) -> Option<i32> {
    const NUMBER_MAX: i32 = 127;
    let number = word.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number));
    number.or_else(|| {
        let word = word.to_ascii_uppercase();
        let name = word.strip_prefix("SIG").unwrap_or(&word);
        (1..=NUMBER_MAX).find(|number| {
            signals::name(*number).and_then(|full| full.strip_prefix("SIG")) == Some(name)
        })
    })
}

/// How a child of ours ended.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// What reached a `run` from outside.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received {
    /// At least one child has ended: look.
    ChildEnded,
    /// A signal, or what the platform has in its place.
    Signal(Caught),
}

/// The command could not be executed.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct ExecFailure(pub(crate) io::Error);
