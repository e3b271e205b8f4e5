//! What `run` needs of Windows: a command that is created suspended and held in a
//! job, console events in the place of signals, and a process without a console.
//!
//! There are no signals. Numbers are those of the C runtime; what each one does:
//! - `KILL` ends the command's whole job. Launchers are the rule here (a venv's `python.exe`, `npm`
//!   through `cmd.exe`), and ending only them would leave the real gateway running.
//! - A signal that asks to end becomes Ctrl+Break for the process group that the command leads, if
//!   it leads one; never for group 0, which is everybody on the console. Nothing else arrives.
//! - The command leads a group unless a person may be typing at our console, because the leader of
//!   a new group is deaf to Ctrl+C: typed, that has to reach the command itself. Then nothing but
//!   the marker asks (which is the request on Windows), and after the budget comes `KILL`. A task
//!   started at logon counts as typed at, too, until its input is redirected (`< NUL`).

#![allow(unsafe_code, reason = "none of this has a safe wrapper")]

use std::ffi::OsString;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::{Mutex, MutexGuard};
use windows_sys::Win32::Foundation::{
    HANDLE, NTSTATUS, RtlNtStatusToDosError, STATUS_ACCESS_VIOLATION, STATUS_BREAKPOINT,
    STATUS_CONTROL_C_EXIT, STATUS_FLOAT_DIVIDE_BY_ZERO, STATUS_HEAP_CORRUPTION,
    STATUS_ILLEGAL_INSTRUCTION, STATUS_IN_PAGE_ERROR, STATUS_INTEGER_DIVIDE_BY_ZERO,
    STATUS_INTEGER_OVERFLOW, STATUS_PRIVILEGED_INSTRUCTION, STATUS_STACK_BUFFER_OVERRUN,
    STATUS_STACK_OVERFLOW, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT, JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, CREATE_SUSPENDED, GetExitCodeProcess, INFINITE, TerminateProcess,
    WaitForSingleObject,
};
use windows_sys::core::BOOL;

pub(crate) use super::detached::{
    catch_request_to_end, close_standard_output, detach, detach_with, follow_to_cgroup,
    leave_starter, spawn_keeper, spawn_second_keeper,
};
use super::signals::{
    self, ABORT, ARITHMETIC, Catcher, ILLEGAL, INTERRUPT, SEGMENTATION, a_person_may_type,
};
pub(crate) use super::signals::{KILL, TERMINATE};
use super::{ChildEnd, ExecFailure, Pid, Received, StartTime};

/// There is no exec on Windows, and no trampoline: a process can be created suspended.
pub(crate) const HOLDS_BY_HELPER: bool = false;

/// As on Unix.
pub(crate) const TRAMPOLINE_VERB: &str = "__trampoline";

/// The end of a command that was held and never released, as a trampoline would say it.
const NOBODY_WAITS: i32 = 125;

/// The exit code of whatever we kill, here and in `windows.rs`: 128 + [`KILL`].
const KILLED: u32 = 137;

/// Nothing is ever stopped here; as Linux counts it.
pub(crate) const CONTINUE: i32 = 18;

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    fn NtResumeProcess(process: HANDLE) -> NTSTATUS;
}

/// This program. A running one cannot be replaced, but it can be renamed: after such an upgrade
/// this is the new one.
pub(crate) fn own_executable() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The program of helper processes.
pub(crate) fn helper(program: &Path, arguments: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A child of ours, until [`reap`] has told how it ended.
struct Started {
    pid: Pid,
    /// While it is open the kernel gives the pid to nobody else.
    process: OwnedHandle,
    job: OwnedHandle,
    leads_group: bool,
}

static STARTED: Mutex<Vec<Started>> = Mutex::new(Vec::new());

type OnEvent = Box<dyn FnMut(Received) + Send>;

/// What [`catch_signals`] was given.
static ON_EVENT: Mutex<Option<OnEvent>> = Mutex::new(None);

fn announce(received: Received) {
    if let Some(on_event) = &mut *ON_EVENT.lock() {
        on_event(received);
    }
}

fn started() -> MutexGuard<'static, Vec<Started>> {
    STARTED.lock()
}

impl Started {
    /// How it ended; `None` while it runs.
    fn end(&self) -> Option<ChildEnd> {
        // SAFETY: the handle is open.
        if unsafe { WaitForSingleObject(self.process.as_raw_handle(), 0) } != WAIT_OBJECT_0 {
            return None;
        }
        let mut code = 1;
        // SAFETY: as above; it has every right, so that this cannot be refused.
        unsafe { GetExitCodeProcess(self.process.as_raw_handle(), &raw mut code) };
        Some(child_end(code))
    }

    fn kill(&self) -> io::Result<()> {
        // SAFETY: the handle is open.
        check(unsafe { TerminateJobObject(self.job.as_raw_handle(), KILLED) })
    }

    /// A command that was killed takes along what it started, by the end of its job; one that ended
    /// by itself does not, as elsewhere: that may be the updater which starts its successor.
    fn let_go(self, end: ChildEnd) {
        if end == ChildEnd::Signalled(KILL) {
            return;
        }
        if let Err(error) = limit(&self.job, JOB_OBJECT_LIMIT_BREAKAWAY_OK) {
            tracing::warn!(pid = self.pid, %error, "what the command left behind ends with it");
        }
    }
}

/// Windows has exit codes only. Those that the system gives to a process that it ended, and our own
/// for a kill, are told as the signals that they stand for; `run` then exits with 128 + n, and the
/// history says that it crashed.
fn child_end(code: u32) -> ChildEnd {
    ChildEnd::Signalled(match code.cast_signed() {
        STATUS_ACCESS_VIOLATION | STATUS_IN_PAGE_ERROR | STATUS_STACK_OVERFLOW => SEGMENTATION,
        STATUS_ILLEGAL_INSTRUCTION | STATUS_PRIVILEGED_INSTRUCTION => ILLEGAL,
        STATUS_INTEGER_DIVIDE_BY_ZERO | STATUS_INTEGER_OVERFLOW | STATUS_FLOAT_DIVIDE_BY_ZERO => {
            ARITHMETIC
        }
        // `abort` of Rust and of Microsoft's C runtime, failed assertions of V8 and .NET.
        STATUS_STACK_BUFFER_OVERRUN | STATUS_HEAP_CORRUPTION | STATUS_BREAKPOINT => ABORT,
        // Ctrl+C, Ctrl+Break or a closed console, with no handler for it.
        STATUS_CONTROL_C_EXIT => INTERRUPT,
        _ if code == KILLED => KILL,
        code => return ChildEnd::Exited(code),
    })
}

/// A job that ends its processes when its last handle is closed: ours, however we end. Processes
/// that have to outlive the command may ask to leave it, as [`spawn_keeper`] does.
fn new_job() -> io::Result<OwnedHandle> {
    // SAFETY: no attributes (not inherited) and no name; a handle that is not null is ours.
    let job = unsafe {
        let job = CreateJobObjectW(std::ptr::null(), std::ptr::null());
        if job.is_null() {
            return Err(io::Error::last_os_error());
        }
        OwnedHandle::from_raw_handle(job)
    };
    limit(&job, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_BREAKAWAY_OK)?;
    Ok(job)
}

fn limit(job: &OwnedHandle, flags: JOB_OBJECT_LIMIT) -> io::Result<()> {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = flags;
    let size = u32::try_from(size_of_val(&limits)).map_err(io::Error::other)?;
    // SAFETY: the handle is open; `size` bytes are read from a struct of that size.
    check(unsafe {
        SetInformationJobObject(
            job.as_raw_handle(),
            JobObjectExtendedLimitInformation,
            (&raw const limits).cast(),
            size,
        )
    })
}

pub(super) fn check(succeeded: BOOL) -> io::Result<()> {
    if succeeded == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A command that exists as a process, with a pid and a start time, and does not run yet.
pub(crate) struct HeldCommand {
    pid: Pid,
    start_time: Option<StartTime>,
    released: bool,
}

impl HeldCommand {
    /// Creates the process of `argv`. What Unix learns of the exec, Windows says here: the error is
    /// that of a command that does not exist or cannot be executed, see [`ExecFailure`].
    ///
    /// std starts it, for its search, its quoting and its care with `.bat` files; it keeps the
    /// thread handle to itself, hence `NtResumeProcess`. If we are killed between the first two
    /// steps, a process remains that never runs.
    pub(crate) fn spawn(
        _helper: Option<Command>,
        argv: &[OsString],
        environment: &[(&str, OsString)],
        _lock_file: Option<&Path>,
        stderr: Option<io::PipeWriter>,
    ) -> io::Result<Self> {
        let [program, rest @ ..] = argv else { return Err(io::ErrorKind::InvalidInput.into()) };
        let job = new_job()?;
        let leads_group = !a_person_may_type();
        let group = if leads_group { CREATE_NEW_PROCESS_GROUP } else { 0 };
        let mut command = Command::new(program);
        if let Some(stderr) = stderr {
            command.stderr(stderr);
        }
        let child = command
            .args(rest)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .creation_flags(CREATE_SUSPENDED | group)
            .spawn()?;
        let pid = child.id();
        let process = OwnedHandle::from(child);
        // SAFETY: both handles are open.
        let held = check(unsafe {
            AssignProcessToJobObject(job.as_raw_handle(), process.as_raw_handle())
        });
        let watched = held.and_then(|()| process.try_clone()).and_then(watch);
        if let Err(error) = watched {
            terminate(&process);
            return Err(error);
        }
        started().push(Started { pid, process, job, leads_group });
        Ok(Self { pid, start_time: super::process_facts(pid).start_time, released: false })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Always: there is no helper that could be the wrong program.
    pub(crate) fn has_answered(&self) -> bool {
        true
    }

    /// Ends what was started, and collects it.
    pub(crate) fn end(self) {
        let pid = self.pid;
        drop(self);
        collect(pid);
    }

    /// Never: it ends with its `run`, by the job that holds both.
    pub(crate) fn holds_lock(&self) -> bool {
        false
    }

    pub(crate) fn start_time(&self) -> Option<StartTime> {
        self.start_time
    }

    /// Lets the command go.
    pub(crate) fn release(mut self) -> Result<(), ExecFailure> {
        let commands = started();
        let Some(command) = commands.iter().find(|command| command.pid == self.pid) else {
            self.released = true;
            return Ok(());
        };
        // SAFETY: the handle is open.
        let status = unsafe { NtResumeProcess(command.process.as_raw_handle()) };
        // One that was killed meanwhile is for `reap` to tell.
        if status >= 0 || command.end().is_some() {
            self.released = true;
            return Ok(());
        }
        // SAFETY: translates a number.
        let error = unsafe { RtlNtStatusToDosError(status) };
        // The end of `self` takes the lock again.
        drop(commands);
        Err(ExecFailure(io::Error::from_raw_os_error(error.cast_signed())))
    }
}

impl Drop for HeldCommand {
    /// A command that was not released never runs.
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if let Some(command) = started().iter().find(|command| command.pid == self.pid) {
            terminate(&command.process);
        }
    }
}

fn terminate(process: &OwnedHandle) {
    // SAFETY: the handle is open. This fails only when the process has ended.
    unsafe { TerminateProcess(process.as_raw_handle(), NOBODY_WAITS.cast_unsigned()) };
}

/// Tells of the end of `process`, as SIGCHLD would.
fn watch(process: OwnedHandle) -> io::Result<()> {
    std::thread::Builder::new().name("incumbent-child".to_owned()).spawn(move || {
        // SAFETY: the handle is open.
        unsafe { WaitForSingleObject(process.as_raw_handle(), INFINITE) };
        announce(Received::ChildEnded);
    })?;
    Ok(())
}

/// No process here becomes another program: the command line stays as it was given.
pub(crate) fn execute_again(_argv: &[OsString]) -> io::Error {
    io::ErrorKind::Unsupported.into()
}

/// Never used on Windows.
pub(crate) fn trampoline(_arguments: &[OsString]) -> i32 {
    NOBODY_WAITS
}

/// Sends our own child what stands for `signal`, see above. `Unsupported` when nothing does, or
/// when it leads no group; another error when there is no console that we share with it.
pub(crate) fn signal_child(pid: Pid, signal: i32) -> io::Result<()> {
    let commands = started();
    let Some(command) = commands.iter().find(|command| command.pid == pid) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Ended and not reaped: as with a zombie, there is nothing to do.
    if command.end().is_some() {
        return Ok(());
    }
    match signal {
        KILL => command.kill(),
        // The pid is that of a group which we made and hold; 0 would be everybody on the console.
        _ if signals::asks_to_end(signal) && command.leads_group && pid != 0 => {
            // SAFETY: takes numbers only.
            check(unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, pid) })
        }
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("windows has nothing to send for {}", super::signal_name(signal)),
        )),
    }
}

/// Collects every command that has ended.
pub(crate) fn reap() -> Vec<(Pid, ChildEnd)> {
    let ended: Vec<Started> = started().extract_if(.., |command| command.end().is_some()).collect();
    ended
        .into_iter()
        .filter_map(|command| {
            let (pid, end) = (command.pid, command.end()?);
            command.let_go(end);
            Some((pid, end))
        })
        .collect()
}

/// There are no orphans, and nobody's child is told of.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a process can have that done at all.
pub(crate) const CAN_ADOPT_ORPHANS: bool = false;

/// Whether what a child of ours leaves behind becomes our child.
pub(crate) fn adopts_orphans() -> bool {
    false
}

/// Whether our child `last` has ended; there are no orphans to be collected before it.
pub(crate) fn reap_up_to(last: Pid, start_time: Option<StartTime>) -> bool {
    has_ended_command(last, start_time)
}

/// Whether our child `pid` has ended and was not collected.
pub(crate) fn has_ended_command(pid: Pid, _start_time: Option<StartTime>) -> bool {
    started().iter().any(|command| command.pid == pid && command.end().is_some())
}

/// Whether there may be a child of ours: what a command leaves behind is nobody's.
pub(crate) fn may_have_children() -> bool {
    false
}

/// As [`reap_child`]: only a child of ours is a command here.
pub(crate) fn reap_command(pid: Pid, _start_time: Option<StartTime>) -> Option<ChildEnd> {
    reap_child(pid)
}

/// How the child `pid` ended, if it has.
pub(crate) fn reap_child(pid: Pid) -> Option<ChildEnd> {
    let mut started = started();
    let at = started.iter().position(|command| command.pid == pid)?;
    let end = started[at].end()?;
    let command = started.swap_remove(at);
    command.let_go(end);
    Some(end)
}

/// Ends our own child, and collects it.
pub(crate) fn end_child(pid: Pid) {
    let _ = signal_child(pid, KILL);
    collect(pid);
}

/// Waits for the end of a child that is ending.
fn collect(pid: Pid) {
    const ENDS_WITHIN_MS: u32 = 5_000;
    for _ in 0..ENDS_WITHIN_MS {
        if reap_child(pid).is_some() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    tracing::warn!(pid, "a killed child has not ended");
}

/// Catches the events of the console and hands them to `on_event`, in the place of whoever caught
/// them before.
pub(crate) fn catch_signals(
    on_event: impl FnMut(Received) + Send + 'static,
) -> io::Result<Catcher> {
    *ON_EVENT.lock() = Some(Box::new(on_event));
    signals::catch(signals::SHUTDOWN, |caught| announce(Received::Signal(caught)))
}

/// Ctrl-C ends the process; a line is printed in one piece.
#[expect(clippy::unnecessary_wraps, reason = "the contract of all platforms")]
pub(crate) fn cancel_on_interrupt(
    _flag: &std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> io::Result<Vec<i32>> {
    Ok(Vec::new())
}

/// Ctrl-C ends the process.
#[cfg(feature = "cli")]
pub(crate) fn interrupted_by() -> Option<i32> {
    None
}

/// There are no signals.
#[cfg(feature = "cli")]
pub(crate) fn end_by(_signal: i32) {}

/// A console signals all that are attached to it, and here everything may be.
pub(crate) fn has_terminal() -> bool {
    true
}

/// Windows does not tell a writer that nobody reads, before it writes; a write of nothing is no
/// way to ask, since a reader takes it for the end. The next line finds out.
#[cfg(feature = "cli")]
pub(crate) fn standard_output_is_closed() -> bool {
    false
}

/// Nothing is known of a program before it is started: std searches for it in its own way.
#[expect(clippy::unnecessary_wraps, reason = "the contract of all platforms")]
pub(crate) fn find_program(_program: &std::ffi::OsStr) -> Result<(), ExecFailure> {
    Ok(())
}

impl ExecFailure {
    /// As a shell: 127 for a command that is not there, 126 for one that cannot be executed.
    pub(crate) fn exit_code(&self) -> i32 {
        if self.0.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// There are no user ids. The proof is the handle that the caller has opened: by default a process
/// lets only its own user and administrators wait for it.
pub(crate) fn may_record(_uid: Option<u32>) -> bool {
    true
}

/// The parent of this process, which is whom a script's `claim` records.
pub(crate) fn own_parent() -> Option<Pid> {
    super::process_facts(std::process::id()).parent
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "helper processes get their part by the environment")]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::Stdio;
    use std::sync::mpsc;
    use std::time::Duration;

    use windows_sys::Win32::Foundation::TRUE;
    use windows_sys::Win32::System::Console::CTRL_LOGOFF_EVENT;

    use super::signals::BREAK;
    use super::*;
    use crate::sys::ProcessHandle;

    /// Says what the helper below is to do, and where it reports to.
    const ROLE: &str = "INCUMBENT_TEST_ROLE";
    const PORT: &str = "INCUMBENT_TEST_PORT";

    const LIMIT: Duration = Duration::from_secs(30);

    /// `reap` collects for the whole process: those who use it take turns.
    static TURN: Mutex<()> = Mutex::new(());

    fn turn() -> MutexGuard<'static, ()> {
        TURN.lock()
    }

    /// No test by itself: the processes that the tests below look at.
    #[test]
    fn helper() {
        match std::env::var(ROLE).as_deref() {
            Ok("wait") => {
                tell(std::process::id());
                std::thread::sleep(LIMIT * 2);
            }
            // A launcher, and the real thing.
            Ok("launch") => {
                let _waits = test_command("wait").spawn();
                std::thread::sleep(LIMIT * 2);
            }
            Ok("launch_and_end") => {
                let _outlives = test_command("wait").spawn();
            }
            Ok("ask") => ask(),
            Ok("run") => {
                let held = hold("wait", &std::env::var(PORT).unwrap());
                held.release().unwrap();
                std::thread::sleep(LIMIT * 2);
            }
            Ok("end_by_signal") => {
                let (sender, received) = mpsc::channel();
                let _catcher = catch_signals(move |event| {
                    let _ = sender.send(event);
                })
                .unwrap();
                tell(std::process::id());
                if let Ok(Received::Signal(caught)) = received.recv_timeout(LIMIT) {
                    std::process::exit(100 + caught.number);
                }
            }
            Ok("keeper") if std::env::args().any(|argument| argument == "keep") => {
                detach().unwrap();
                io::stdout().write_all(b"ready").unwrap();
                close_standard_output().unwrap();
                io::stdout().write_all(b"unseen\n").unwrap();
                std::thread::sleep(LIMIT * 2);
            }
            Ok("keeper") => {
                assert!(own_parent().is_some());
                let arguments = ["--exact", &helper_name(), "keep"].map(OsString::from);
                let mut keeper =
                    spawn_keeper(super::helper(&own_executable().unwrap(), &[]), &arguments)
                        .unwrap();
                let mut report = String::new();
                keeper.stdout.take().unwrap().read_to_string(&mut report).unwrap();
                assert!(report.contains("ready") && !report.contains("unseen"), "{report}");
                tell(keeper.id());
            }
            Ok(role) => panic!("unknown role {role}"),
            Err(_) => {}
        }
    }

    fn helper_name() -> String {
        let name = concat!(module_path!(), "::helper");
        name.split_once("::").unwrap().1.to_owned()
    }

    fn argv() -> Vec<OsString> {
        let arguments = ["--exact".to_owned(), helper_name(), "--quiet".to_owned()];
        std::iter::once(std::env::current_exe().unwrap().into())
            .chain(arguments.map(OsString::from))
            .collect()
    }

    fn test_command(role: &str) -> Command {
        let argv = argv();
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env(ROLE, role);
        command
    }

    fn hold(role: &str, port: &str) -> HeldCommand {
        let environment = [(ROLE, OsString::from(role)), (PORT, OsString::from(port))];
        spawn_held(&argv(), &environment)
    }

    /// A helper reports `pid`.
    fn tell(pid: Pid) {
        let port = std::env::var(PORT).unwrap().parse::<u16>().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(&pid.to_le_bytes()).unwrap();
    }

    struct Listener(TcpListener);

    impl Listener {
        fn new() -> Self {
            Self(TcpListener::bind(("127.0.0.1", 0)).unwrap())
        }

        fn port(&self) -> String {
            self.0.local_addr().unwrap().port().to_string()
        }

        /// The pid that a helper tells; none if the helper failed, in which case it says why.
        fn hear(&self) -> Pid {
            let (sender, heard) = mpsc::channel();
            let listener = self.0.try_clone().unwrap();
            std::thread::spawn(move || {
                let mut pid = [0; 4];
                listener.accept().unwrap().0.read_exact(&mut pid).unwrap();
                sender.send(Pid::from_le_bytes(pid))
            });
            heard.recv_timeout(LIMIT).unwrap()
        }
    }

    fn reap_one(pid: Pid) -> ChildEnd {
        assert!(ProcessHandle::open(pid).unwrap().wait_ended(LIMIT));
        let ended = reap();
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!(ended[0].0, pid);
        assert_eq!(reap(), []);
        ended[0].1
    }

    /// wine fails to create a process now and then, with an internal error of its own.
    fn spawn_held(argv: &[OsString], environment: &[(&str, OsString)]) -> HeldCommand {
        const INTERNAL_ERROR: i32 = 1359;
        const ATTEMPTS: usize = 5;
        for _ in 1..ATTEMPTS {
            match HeldCommand::spawn(None, argv, environment, None, None) {
                Err(error) if error.raw_os_error() == Some(INTERNAL_ERROR) => {}
                spawned => return spawned.unwrap(),
            }
        }
        HeldCommand::spawn(None, argv, environment, None, None).unwrap()
    }

    #[test]
    fn a_held_command_runs_when_released() {
        let _turn = turn();
        let (sender, received) = mpsc::channel();
        let _catcher = catch_signals(move |event| {
            let _ = sender.send(event);
        })
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ran");
        let script = format!("echo %WORD%> {}& exit 7", file.display());
        let argv = ["cmd", "/d", "/c", &script].map(OsString::from);
        let held = spawn_held(&argv, &[("WORD", "it ran".into())]);
        let pid = held.pid();
        let handle = ProcessHandle::open(pid).unwrap();
        assert_eq!(held.start_time(), handle.start_time());
        assert!(held.start_time().is_some());
        // A time in which an unheld one would have ended.
        assert!(!handle.wait_ended(Duration::from_millis(500)));
        assert!(!file.exists());
        assert_eq!(reap(), []);

        held.release().unwrap();
        assert!(handle.wait_ended(LIMIT));
        assert!(matches!(received.recv_timeout(LIMIT), Ok(Received::ChildEnded)));
        assert_eq!(reap_one(pid), ChildEnd::Exited(7));
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "it ran");
        assert!(signal_child(pid, KILL).is_err());

        for event in [CTRL_LOGOFF_EVENT, CTRL_BREAK_EVENT] {
            // SAFETY: what the system does, but for CTRL_CLOSE_EVENT, which never returns.
            assert_eq!(unsafe { signals::on_console_event(event) }, TRUE);
        }
        // The children of other tests may be heard here, too.
        let signals = received.try_iter().filter_map(|event| match event {
            Received::Signal(caught) => Some(caught.number),
            Received::ChildEnded => None,
        });
        assert_eq!(signals.collect::<Vec<_>>(), [BREAK]);
    }

    #[test]
    fn a_command_that_is_not_released_never_runs() {
        let _turn = turn();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ran");
        let script = format!("echo 1> {}", file.display());
        let argv = ["cmd", "/d", "/c", &script].map(OsString::from);
        let held = spawn_held(&argv, &[]);
        let pid = held.pid();
        drop(held);
        assert_eq!(reap_one(pid), ChildEnd::Exited(NOBODY_WAITS));
        assert!(!file.exists());

        let held = spawn_held(&argv, &[]);
        let pid = held.pid();
        signal_child(pid, KILL).unwrap();
        assert!(ProcessHandle::open(pid).unwrap().wait_ended(LIMIT));
        signal_child(pid, KILL).unwrap();
        held.release().unwrap();
        assert_eq!(reap_one(pid), ChildEnd::Signalled(KILL));
        assert!(!file.exists());
    }

    #[test]
    fn commands_that_cannot_be_executed() {
        let _turn = turn();
        let directory = tempfile::tempdir().unwrap();
        let code = |path: PathBuf| {
            let error = HeldCommand::spawn(None, &[path.into()], &[], None, None).err().unwrap();
            ExecFailure(error).exit_code()
        };
        assert_eq!(code("no-such-program".into()), 127);
        assert_eq!(code(directory.path().join("none.exe")), 127);
        let text = directory.path().join("text.exe");
        std::fs::write(&text, "no program").unwrap();
        assert_eq!(code(text), 126);
        assert_eq!(code(directory.path().to_owned()), 126);
        assert!(HeldCommand::spawn(None, &[], &[], None, None).is_err());
        assert_eq!(reap(), []);
    }

    /// What the job is for: the one that is killed can do nothing about its command.
    #[test]
    fn the_command_does_not_outlive_a_killed_run() {
        let listener = Listener::new();
        let mut run = test_command("run").env(PORT, listener.port()).spawn().unwrap();
        let command = ProcessHandle::open(listener.hear()).unwrap();
        assert!(!command.has_ended());
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(command.wait_ended(LIMIT));
    }

    /// `kill` of a launcher used to leave the real gateway alive, which then met its successor.
    #[test]
    fn a_kill_ends_what_the_command_started() {
        let _turn = turn();
        let listener = Listener::new();
        let held = hold("launch", &listener.port());
        let pid = held.pid();
        held.release().unwrap();
        let started = ProcessHandle::open(listener.hear()).unwrap();
        signal_child(pid, KILL).unwrap();
        assert!(started.wait_ended(LIMIT));
        assert_eq!(reap_one(pid), ChildEnd::Signalled(KILL));

        // Killed by another process, which knows only the pid.
        let held = hold("launch", &listener.port());
        let pid = held.pid();
        held.release().unwrap();
        let started = ProcessHandle::open(listener.hear()).unwrap();
        ProcessHandle::open(pid).unwrap().kill().unwrap();
        assert_eq!(reap_one(pid), ChildEnd::Signalled(KILL));
        assert!(started.wait_ended(LIMIT));
    }

    #[test]
    fn a_command_that_ends_by_itself_takes_nobody_along() {
        let _turn = turn();
        let listener = Listener::new();
        let held = hold("launch_and_end", &listener.port());
        let pid = held.pid();
        held.release().unwrap();
        let started = ProcessHandle::open(listener.hear()).unwrap();
        assert_eq!(reap_one(pid), ChildEnd::Exited(0));
        assert!(!started.wait_ended(Duration::from_millis(200)));
        started.kill().unwrap();
    }

    /// The asker stays alive, though it is on the same console: only the group that the command
    /// leads is asked. In a process of its own, whose input is no console, so that there is one.
    #[test]
    fn a_request_to_end_reaches_the_command_only() {
        let asked = test_command("ask").stdin(Stdio::null()).status().unwrap();
        assert!(asked.success());
    }

    fn ask() {
        let listener = Listener::new();
        let held = hold("end_by_signal", &listener.port());
        let pid = held.pid();
        held.release().unwrap();
        assert_eq!(listener.hear(), pid);
        let error = signal_child(pid, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        if let Err(error) = signal_child(pid, TERMINATE) {
            let has_console = OpenOptions::new().read(true).open("CONIN$").is_ok();
            let is_wine = crate::sys::boot_id().is_none();
            assert!(!has_console || is_wine, "{error}");
            let _ = writeln!(
                io::stderr(),
                "SKIPPED: no console here, or wine 8, which has no Ctrl+Break: {error}"
            );
            signal_child(pid, KILL).unwrap();
            return;
        }
        assert_eq!(reap_one(pid), ChildEnd::Exited(100 + BREAK));

        // One that has no handler.
        let held = hold("wait", &listener.port());
        let pid = held.pid();
        held.release().unwrap();
        listener.hear();
        signal_child(pid, TERMINATE).unwrap();
        assert_eq!(reap_one(pid), ChildEnd::Signalled(INTERRUPT));
    }

    /// `$(incumbent claim)` has to end, though the keeper that it started does not.
    #[test]
    fn a_keeper_is_detached() {
        let listener = Listener::new();
        let mut asker = test_command("keeper")
            .env(PORT, listener.port())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let keeper = ProcessHandle::open(listener.hear()).unwrap();
        let mut rest = Vec::new();
        asker.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        asker.stderr.take().unwrap().read_to_end(&mut rest).unwrap();
        assert!(asker.wait().unwrap().success());
        assert!(!keeper.has_ended());
        keeper.kill().unwrap();
        assert!(keeper.wait_ended(LIMIT));
    }

    #[test]
    fn ends_and_names() {
        let check = |code: NTSTATUS, expected: ChildEnd, fault: bool| {
            let end = child_end(code.cast_unsigned());
            assert_eq!(end, expected, "{code:#x}");
            let is_a_fault =
                matches!(end, ChildEnd::Signalled(signal) if signals::is_fault(signal));
            assert_eq!(is_a_fault, fault, "{code:#x}");
        };
        check(0, ChildEnd::Exited(0), false);
        check(1, ChildEnd::Exited(1), false);
        check(-1, ChildEnd::Exited(-1), false);
        check(137, ChildEnd::Signalled(KILL), false);
        check(STATUS_CONTROL_C_EXIT, ChildEnd::Signalled(INTERRUPT), false);
        check(STATUS_ACCESS_VIOLATION, ChildEnd::Signalled(SEGMENTATION), true);
        check(STATUS_STACK_BUFFER_OVERRUN, ChildEnd::Signalled(ABORT), true);
    }
}
