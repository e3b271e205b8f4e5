//! What keepers need of a Unix: a process that belongs to nobody's terminal, and that inherits
//! nothing.

use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use signal_hook::consts::signal as number;

use super::inherited;
use super::signals::{self, Catcher};

/// Starts a keeper: nothing of ours but a pipe for its report.
pub(crate) fn spawn_keeper(
    mut helper: Command,
    arguments: &[OsString],
) -> io::Result<std::process::Child> {
    helper
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
}

/// Under which number the second keeper gets the anchor.
const ANCHOR: RawFd = 3;

/// Starts the second keeper, which shares the open file `anchor` with us.
pub(crate) fn spawn_second_keeper(
    mut helper: Command,
    arguments: &[OsString],
    anchor: &std::fs::File,
) -> io::Result<std::process::Child> {
    let shared = rustix::io::fcntl_dupfd_cloexec(anchor, ANCHOR)?;
    // Nothing else is started while it is inheritable.
    rustix::io::fcntl_setfd(&shared, FdFlags::empty())?;
    helper
        .args(arguments)
        .arg("--anchor-descriptor")
        .arg(std::os::fd::AsRawFd::as_raw_fd(&shared).to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
}

/// Goes on as a child of this process, which ends: whoever started it has no child that it did not
/// ask for. Call it first thing, while there is one thread.
pub(crate) fn leave_starter() -> io::Result<()> {
    // SAFETY: there is one thread, so nothing is locked for good in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // SAFETY: it ends this process, and runs nothing of what is registered for that.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Makes this process nobody's as [`detach`] does, but for the open file that it was started with.
pub(crate) fn detach_with(anchor: RawFd) -> io::Result<std::fs::File> {
    let anchor = if anchor == ANCHOR {
        // SAFETY: our parent passed this descriptor to us for our sole use, and nothing in this
        // process has opened or wrapped it.
        unsafe { OwnedFd::from_raw_fd(anchor) }
    } else {
        // SAFETY: dup2 takes any numbers; what was open as the new one is nobody's here.
        if unsafe { libc::dup2(anchor, ANCHOR) } != ANCHOR {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: dup2 has just opened it.
        unsafe { OwnedFd::from_raw_fd(ANCHOR) }
    };
    rustix::io::fcntl_setfd(&anchor, FdFlags::CLOEXEC)?;
    make_nobodys(ANCHOR + 1)?;
    Ok(anchor.into())
}

/// Hears of requests to end, which keepers are deaf to otherwise.
pub(crate) fn catch_request_to_end(
    mut on_request: impl FnMut() + Send + 'static,
) -> io::Result<Catcher> {
    attend(number::SIGTERM);
    signals::catch(&[number::SIGTERM], move |_| on_request())
}

/// Moves this process to the cgroups that a service manager would find `pid` in. False when it is
/// in another one for good; true also where there is nothing to see.
pub(crate) fn follow_to_cgroup(pid: super::Pid) -> bool {
    #[cfg(target_os = "linux")]
    return super::details::follow_to_cgroup(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        true
    }
}

/// What is meant for all processes of a service or of a terminal, and ends those that do not expect
/// it: a keeper that it ended would let go of what it keeps. `abort` works all the same (abort(3)).
const DEAF_TO: [i32; 11] = [
    number::SIGHUP,
    number::SIGINT,
    number::SIGTERM,
    number::SIGQUIT,
    number::SIGABRT,
    number::SIGUSR1,
    number::SIGUSR2,
    number::SIGPIPE,
    number::SIGALRM,
    number::SIGVTALRM,
    number::SIGPROF,
];

/// Makes this process nobody's: a session of its own, no descriptors but the standard ones, deaf
/// to the signals that terminals and supervisors send. Call it first thing, while nothing is open.
pub(crate) fn detach() -> io::Result<()> {
    make_nobodys(3)
}

fn make_nobodys(close_from_descriptor: RawFd) -> io::Result<()> {
    close_from(close_from_descriptor);
    // Deaf to some, and to no others: whoever started us may block any of them.
    inherited::block_nothing();
    for signal in DEAF_TO {
        ignore(signal);
    }
    // EPERM: a session leader already, which is as good.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn close_from(first: RawFd) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: called before this process opened anything above the standard descriptors, so
        // nothing here owns what is closed.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
        if closed == 0 {
            return;
        }
    }
    // Before Linux 5.9, and on macOS: one by one, as far as the limit goes.
    // SAFETY: sysconf has no preconditions.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for descriptor in first..i32::try_from(limit.clamp(0, 65_536)).unwrap_or(1_024) {
        // SAFETY: as above.
        unsafe { libc::close(descriptor) };
    }
}

fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition for these signals, and no handler runs.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn attend(signal: i32) {
    // SAFETY: SIG_DFL is a valid disposition, and no handler runs.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Lets go of the pipe on standard output, so that whoever reads it sees its end.
pub(crate) fn close_standard_output() -> io::Result<()> {
    // That is the null device already, and there may be no descriptor left for another one.
    rustix::stdio::dup2_stdout(rustix::stdio::stdin())?;
    Ok(())
}
