//! A program that is started and left alone: it belongs to no terminal, holds nothing of ours, and
//! nobody waits for what it prints.

#[cfg(feature = "cli")]
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;

use super::inherited::block_nothing;
use super::{Pid, StartTime, process_facts};

/// What this process has started aside. To the kernel they are children like any other.
static STARTED: Mutex<Vec<(Pid, StartTime)>> = Mutex::new(Vec::new());

/// A line for a shell, as the program and its arguments.
#[cfg(feature = "cli")]
pub(crate) fn shell_words(line: &OsStr) -> [OsString; 3] {
    ["/bin/sh".into(), "-c".into(), line.to_owned()]
}

/// Starts it, with the standard input that `command` has.
pub(crate) fn start(mut command: Command) -> io::Result<Child> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let last_act = || {
        // It leads no group that anybody has made: this cannot fail.
        let _ = rustix::process::setsid();
        block_nothing();
        close_the_rest_with_the_exec();
        Ok(())
    };
    // SAFETY: setsid, sigprocmask, close_range and fcntl are system calls, or may be called there
    // (signal-safety(7)); nothing is allocated.
    unsafe { command.pre_exec(last_act) };
    remembered(|| command.spawn())
}

/// Starts a child that [`started`] names from then on.
pub(super) fn remembered(start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    // Held meanwhile: whoever has seen the child finds it in the list.
    let mut started = STARTED.lock();
    let child = start()?;
    started.retain(is_there);
    // Without one it has ended, and somebody has collected it.
    let start_time = process_facts(child.id()).start_time;
    started.extend(start_time.map(|start_time| (child.id(), start_time)));
    Ok(child)
}

/// Those of them that were not collected yet. To be asked for after their pids were seen: who is
/// started meanwhile is among them then.
pub(crate) fn started() -> Vec<Pid> {
    let started = STARTED.lock();
    started.iter().filter(|it| is_there(it)).map(|it| it.0).collect()
}

/// Whether it is the same process that has this pid.
fn is_there((pid, start_time): &(Pid, StartTime)) -> bool {
    process_facts(*pid).start_time == Some(*start_time)
}

/// Sockets that a service manager passed on to us are not for whoever we start aside. Only with the
/// exec: the standard library tells us by a pipe how that went.
fn close_the_rest_with_the_exec() {
    /// Before Linux 5.11, and on macOS, so many are looked at.
    const NUMBERS_MAX: i32 = 1_024;
    #[cfg(target_os = "linux")]
    {
        let how = libc::CLOSE_RANGE_CLOEXEC;
        // SAFETY: takes numbers only, and closes nothing in this process image.
        if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, how) } == 0 {
            return;
        }
    }
    for number in 3..NUMBERS_MAX {
        // SAFETY: fcntl takes any number.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
