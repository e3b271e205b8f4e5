//! What `run` needs of a Unix: a command that waits for permission to start, signals with their
//! origin, and a reaping loop.
//!
//! The trampoline: `run` starts a helper process. That asks for SIGKILL at its parent's death,
//! checks its parent, leaves for a session of its own where there is no terminal, takes the
//! command's lock, says so, and waits for a byte. `run` commits its pid and start time, and only
//! then sends the byte. So from fork to exec there is no moment at which a claimant could miss the
//! command. A thread that lives as long has to start it: the kernel counts the forking *thread* as
//! the parent.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, LazyLock};

use rustix::process::Signal;
use signal_hook::consts::signal as number;

pub(crate) use super::children::{
    has_ended_command, may_have_children, reap, reap_child, reap_command, reap_up_to,
};
pub(crate) use super::detached::{
    catch_request_to_end, close_standard_output, detach, detach_with, follow_to_cgroup,
    leave_starter, spawn_keeper, spawn_second_keeper,
};
use super::signals::{self, Catcher, is_ignored};
use super::{ExecFailure, Received, StartTime, inherited};

/// Whether a command is held by a helper process, which becomes the command.
pub(crate) const HOLDS_BY_HELPER: bool = true;

/// The hidden verb of that helper.
pub(crate) const TRAMPOLINE_VERB: &str = "__trampoline";

/// What a trampoline exits with when there is nobody left to start a command for.
const NOBODY_WAITS: i32 = 125;

/// Signals that `run` passes on, and the one that tells it about its children.
const HANDLED: [i32; 9] = [
    number::SIGTERM,
    number::SIGHUP,
    number::SIGINT,
    number::SIGQUIT,
    number::SIGUSR1,
    number::SIGUSR2,
    number::SIGWINCH,
    number::SIGCONT,
    number::SIGCHLD,
];

/// This very program, also after its file was replaced by an upgrade.
pub(crate) fn own_executable() -> io::Result<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Ok(link) } else { std::env::current_exe() }
}

/// Executes this very program again, in this process, with the command line `argv`. Returns only
/// why it could not.
pub(crate) fn execute_again(argv: &[OsString]) -> io::Error {
    let [name, arguments @ ..] = argv else { return io::ErrorKind::InvalidInput.into() };
    let program = match own_executable().and_then(|path| named_path(&path)) {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command.arg0(name).args(arguments);
    inherited::pass_on_broken_pipe(&mut command);
    super::handover::exec(command)
}

/// Our program by its own name, which lists of processes show; by `path` where another one has that
/// name by now.
fn named_path(path: &Path) -> io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    let is_ours = super::file_facts(&named).ok().map(|facts| facts.id)
        == Some(super::open_file_facts(&std::fs::File::open(path)?)?.id);
    Ok(if is_ours { named } else { path.to_owned() })
}

/// A command that exists as a process, with a pid and a start time, and does not run yet.
pub(crate) struct HeldCommand {
    pid: super::Pid,
    start_time: Option<StartTime>,
    has_answered: bool,
    holds_lock: bool,
    channel: UnixStream,
}

/// What the trampoline says once it is ready: whether it holds the lock.
const LOCKED: u8 = 1;
const NOT_LOCKED: u8 = 0;

impl HeldCommand {
    /// Starts the trampoline for `argv`, by the program `helper`, and waits until it holds the lock
    /// on the existing file `lock_file`, or cannot have it; `stderr` is in the place of our own,
    /// where that is not shared. Call it from a thread that lives as
    /// long as the command may: on Linux that is killed when the *thread* that forked it ends
    /// (`PR_SET_PDEATHSIG`, prctl(2)).
    pub(crate) fn spawn(
        helper: Option<Command>,
        argv: &[OsString],
        environment: &[(&str, OsString)],
        lock_file: Option<&Path>,
        stderr: Option<io::PipeWriter>,
    ) -> io::Result<Self> {
        let mut helper = helper.ok_or(io::ErrorKind::InvalidInput)?;
        let (mut channel, theirs) = UnixStream::pair()?;
        helper
            .arg(TRAMPOLINE_VERB)
            .arg(std::os::fd::AsRawFd::as_raw_fd(&theirs).to_string())
            .arg(std::process::id().to_string())
            .arg(lock_file.unwrap_or(Path::new("")))
            .args(argv)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        if let Some(stderr) = stderr {
            helper.stderr(stderr);
        }
        let inherited = std::os::fd::AsRawFd::as_raw_fd(&theirs);
        // Nobody but the trampoline inherits its end, whatever other threads start meanwhile: who
        // waits for the exec waits until all of them have closed it.
        let inherit = move || {
            // SAFETY: the descriptor is open in the child, which has a copy of all of ours.
            let changed = unsafe { libc::fcntl(inherited, libc::F_SETFD, 0) };
            if changed == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: fcntl is async-signal-safe, and nothing else is done (fork(2)).
        unsafe { helper.pre_exec(inherit) };
        let pid = helper.spawn()?.id();
        // The end of the channel is that of the trampoline, as soon as ours of its side is closed.
        drop(theirs);
        let mut ready = [NOT_LOCKED];
        let has_answered = channel.read_exact(&mut ready).is_ok();
        let holds_lock = has_answered && ready == [LOCKED];
        let start_time = super::process_facts(pid).start_time;
        Ok(Self { pid, start_time, has_answered, holds_lock, channel })
    }

    /// Whether it has said that it is ready: a program that cannot be a trampoline does not, nor
    /// does one that was killed.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Ends what was started, and collects it.
    pub(crate) fn end(self) {
        end_child(self.pid);
    }

    /// Whether it holds the lock, which it will keep as the command.
    pub(crate) fn holds_lock(&self) -> bool {
        self.holds_lock
    }

    pub(crate) fn pid(&self) -> super::Pid {
        self.pid
    }

    /// The start time, which the exec will not change.
    pub(crate) fn start_time(&self) -> Option<StartTime> {
        self.start_time
    }

    /// Lets the command go; returns once it has replaced the trampoline.
    pub(crate) fn release(mut self) -> Result<(), ExecFailure> {
        let mut errno = [0; 4];
        // A write that fails means that the trampoline was killed: the reaping loop tells how.
        if self.channel.write_all(&[inherited::permission()]).is_err() {
            return Ok(());
        }
        // The channel closes with the exec.
        if self.channel.read_exact(&mut errno).is_err() {
            return Ok(());
        }
        // It is ending, with nothing to say that we do not know.
        collect(self.pid);
        Err(ExecFailure(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))))
    }
}

/// The trampoline's whole life. Returns only what it should exit with when it cannot exec.
pub(crate) fn trampoline(arguments: &[OsString]) -> i32 {
    // It may be the exit code of the run as well: whoever sees it has to find out why.
    let give_up = |why: &str| {
        let _ = writeln!(io::stderr(), "incumbent: run: the command was not started: {why}");
        NOBODY_WAITS
    };
    let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<i32>().ok());
    let [descriptor, parent, lock_file, program, rest @ ..] = arguments else {
        return give_up("this is an internal command of `incumbent run`");
    };
    let (Some(descriptor), Some(parent)) = (number(descriptor), number(parent)) else {
        return give_up("this is an internal command of `incumbent run`");
    };
    let mut channel = match inherited(descriptor) {
        Ok(channel) => channel,
        Err(error) => return give_up(&format!("cannot use the pipe to its run: {error}")),
    };
    die_with_parent();
    // The parent may have ended before the line above took effect.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return give_up("the `incumbent run` that started it has ended");
    }
    leave_session_without_terminal();
    let ready = match super::hold_command_lock(Path::new(lock_file)) {
        Ok(()) => LOCKED,
        Err(_) => NOT_LOCKED,
    };
    if let Err(error) = channel.write_all(&[ready]) {
        return give_up(&format!("cannot write to the pipe to its run: {error}"));
    }
    // Not before our pid is committed may the command run: a claimant has to find it.
    let mut permission = [0];
    match channel.read_exact(&mut permission) {
        Ok(()) => {}
        // The run has ended, or wants no command any more: it says why.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return NOBODY_WAITS,
        Err(error) => return give_up(&format!("cannot read from the pipe to its run: {error}")),
    }
    let mut command = Command::new(program);
    command.args(rest);
    inherited::pass_on(&mut command, parent, permission[0]);
    let error = command.exec();
    let errno = error.raw_os_error().unwrap_or(0);
    let _ = channel.write_all(&errno.to_ne_bytes());
    ExecFailure(error).exit_code()
}

/// Without a controlling terminal nothing binds the command to the session that its `run` is in,
/// and in one of its own whatever it starts can be told from everything else.
fn leave_session_without_terminal() {
    if !has_terminal()
        && let Err(error) = rustix::process::setsid()
    {
        tracing::debug!(%error, "the command stays in the session of its run");
    }
}

/// Whether this process has a controlling terminal; where that cannot be told, it may have one.
pub(crate) fn has_terminal() -> bool {
    match std::fs::File::open("/dev/tty") {
        Ok(_) => true,
        Err(error) => {
            !matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV | libc::ENOENT))
        }
    }
}

fn inherited(descriptor: RawFd) -> io::Result<UnixStream> {
    if descriptor < 3 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The command must not see it, and its closing tells the parent that the exec succeeded.
    // SAFETY: fcntl takes any number, and this one is changed only if it is open.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and our parent passed it to us for our sole use; nothing in this process
    // has opened or wrapped it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}

#[cfg(target_os = "linux")]
pub(super) fn die_with_parent() {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        tracing::warn!(%error, "the command would outlive a killed run");
    }
}

/// macOS has no such thing: there a command can outlive a killed `run`, and the next claimant ends
/// it: a command that lives counts, whatever became of its `run`.
#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_parent() {}

/// From now on what our children leave behind is ours. It does not go to the programs that we
/// execute, and ends with this process.
#[cfg(target_os = "linux")]
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // Any number but 0 says yes.
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Only the first process does.
#[cfg(not(target_os = "linux"))]
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a process can have that done at all.
pub(crate) const CAN_ADOPT_ORPHANS: bool = cfg!(target_os = "linux");

/// Whether what a child of ours leaves behind becomes our child.
#[cfg(target_os = "linux")]
pub(crate) fn adopts_orphans() -> bool {
    rustix::process::child_subreaper().is_ok_and(|it| it.is_some())
}

/// Whether what a child of ours leaves behind becomes our child.
#[cfg(not(target_os = "linux"))]
pub(crate) fn adopts_orphans() -> bool {
    false
}

/// Sends `signal` to our own child, which nobody but the caller reaps: its pid is not recycled.
pub(crate) fn signal_child(pid: super::Pid, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    match (pid, Signal::from_named_raw(signal)) {
        (Some(pid), Some(signal)) => Ok(rustix::process::kill_process(pid, signal)?),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

pub(crate) const TERMINATE: i32 = number::SIGTERM;
pub(crate) const KILL: i32 = number::SIGKILL;
pub(crate) const CONTINUE: i32 = number::SIGCONT;

/// Ends our own child, and collects it.
pub(crate) fn end_child(pid: super::Pid) {
    let _ = signal_child(pid, KILL);
    collect(pid);
}

/// Waits for the end of a child that is ending. One that hangs in the kernel (a dead disk) is left
/// to whoever collects it.
fn collect(pid: super::Pid) {
    const ENDS_WITHIN_MS: u32 = 5_000;
    for _ in 0..ENDS_WITHIN_MS {
        if reap_child(pid).is_some() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    tracing::warn!(pid, "a killed child has not ended");
}

/// Catches the signals of [`HANDLED`] and hands them to `on_event`, from a thread of its own.
pub(crate) fn catch_signals(
    mut on_event: impl FnMut(Received) + Send + 'static,
) -> io::Result<Catcher> {
    signals::catch(&HANDLED, move |caught| {
        on_event(if caught.number == number::SIGCHLD {
            Received::ChildEnded
        } else {
            Received::Signal(caught)
        });
    })
}

/// The program of helper processes. Lists of processes show one that needs no arguments of its own
/// by our name.
pub(crate) fn helper(program: &Path, arguments: &[OsString]) -> Command {
    let mut command = Command::new(program);
    if arguments.is_empty() {
        command.arg0("incumbent");
    }
    command.args(arguments);
    command
}

/// Sets the flag at the first SIGINT or SIGTERM, so that what is being printed is printed to its
/// end; a second one ends the process as ever.
///
/// Returns those that do so.
pub(crate) fn cancel_on_interrupt(flag: &Arc<AtomicBool>) -> io::Result<Vec<i32>> {
    // What whoever started us ignores stays ignored: the job of a script, in the background.
    let mut signals = vec![number::SIGINT, number::SIGTERM];
    signals.retain(|signal| !is_ignored(*signal));
    for &signal in &signals {
        // In this order: the first one sets what makes the second one end us.
        let which = usize::try_from(signal).unwrap_or(0);
        signal_hook::flag::register_conditional_default(signal, Arc::clone(flag))
            .and_then(|_| signal_hook::flag::register_usize(signal, Arc::clone(&BY), which))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(flag)))?;
    }
    Ok(signals)
}

/// Which signal has set such a flag.
static BY: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The signal that has interrupted us, if one has.
#[cfg(feature = "cli")]
pub(crate) fn interrupted_by() -> Option<i32> {
    let by = BY.load(std::sync::atomic::Ordering::Relaxed);
    i32::try_from(by).ok().filter(|signal| *signal != 0)
}

/// Ends this process by a signal, as if nobody had caught it.
#[cfg(feature = "cli")]
pub(crate) fn end_by(signal: i32) {
    if let Err(error) = signal_hook::low_level::emulate_default_handler(signal) {
        tracing::debug!(%error, signal, "this process does not end by a signal");
    }
}

/// Whether nobody reads our standard output any more (a closed pipe).
#[cfg(feature = "cli")]
pub(crate) fn standard_output_is_closed() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let instant = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&instant)).is_ok()
        && watched[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
}

/// Whether there is such a program to be executed, as far as can be told without executing it.
pub(crate) fn find_program(program: &OsStr) -> Result<(), ExecFailure> {
    let is_path = program.as_encoded_bytes().contains(&b'/');
    let is_there = match crate::environment::value("PATH") {
        _ if is_path => PathBuf::from(program).is_file(),
        Some(path) => std::env::split_paths(&path).any(|place| place.join(program).is_file()),
        // The C library has a path of its own then.
        None => true,
    };
    if is_there {
        return Ok(());
    }
    Err(ExecFailure(io::Error::from_raw_os_error(libc::ENOENT)))
}

impl ExecFailure {
    /// As a shell: 127 for a command that is not there, 126 for one that cannot be executed.
    pub(crate) fn exit_code(&self) -> i32 {
        if self.0.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// The real user id of a process may differ from ours only for root.
pub(crate) fn may_record(uid: Option<u32>) -> bool {
    let me = rustix::process::geteuid().as_raw();
    me == 0 || uid == Some(me)
}

/// The parent of this process, which is whom a script's `claim` records. `None` for pid 0 and 1:
/// init adopts orphans, and is nobody's script.
pub(crate) fn own_parent() -> Option<super::Pid> {
    let parent = rustix::process::getppid()?.as_raw_nonzero().get().unsigned_abs();
    (parent > 1).then_some(parent)
}
