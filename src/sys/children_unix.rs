//! Children of a Unix process that have ended: collected, or looked at before that, while their pid
//! is nobody else's (waitid(2), `WNOWAIT`).

use std::io;

use rustix::process::WaitOptions;

use super::{ChildEnd, Pid};

/// Collects every child that has ended, ours or, for PID 1, anybody's orphan.
pub(crate) fn reap() -> Vec<(Pid, ChildEnd)> {
    let mut ended = Vec::new();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                if let Some(code) = status.exit_status() {
                    ended.push((pid, ChildEnd::Exited(code)));
                } else if let Some(signal) = status.terminating_signal() {
                    ended.push((pid, ChildEnd::Signalled(signal)));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            // ECHILD: no children left.
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// How the child `pid` ended, if it has. Others are left to whoever started them.
pub(crate) fn reap_child(pid: Pid) -> Option<ChildEnd> {
    /// Somebody else has collected it, and keeps to himself how it ended.
    const COLLECTED_ELSEWHERE: ChildEnd = ChildEnd::Exited(255);

    let child = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)?;
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                let signalled = || status.terminating_signal().map(ChildEnd::Signalled);
                return status.exit_status().map(ChildEnd::Exited).or_else(signalled);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Some(COLLECTED_ELSEWHERE),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Collects children that have ended until it meets `last`, and leaves that one as it is: what it
/// had started is ours by then, and its pid is nobody else's yet. Whether it was met.
pub(crate) fn reap_up_to(last: Pid) -> bool {
    while let Ok(Some(pid)) = ended_child(libc::P_ALL, 0) {
        if pid == last {
            return true;
        }
        if reap_child(pid).is_none() {
            return false;
        }
    }
    false
}

/// Whether our child `pid` has ended and was not collected.
pub(crate) fn has_ended_child(pid: Pid) -> bool {
    matches!(ended_child(libc::P_PID, pid), Ok(Some(_)))
}

/// Whether there may be a child of ours, living or not.
pub(crate) fn may_have_children() -> bool {
    let looked = ended_child(libc::P_ALL, 0);
    !matches!(looked, Err(error) if error.raw_os_error() == Some(libc::ECHILD))
}

/// One of these children that has ended; it is not collected.
fn ended_child(which: libc::idtype_t, id: libc::id_t) -> io::Result<Option<Pid>> {
    const OPTIONS: i32 = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a struct of integers and pointers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: waitid(2) writes that struct, and nothing beyond it.
        if unsafe { libc::waitid(which, id, &raw mut info, OPTIONS) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: the fields of SIGCHLD are there, or all of it is 0.
    let pid = unsafe { info.si_pid() };
    Ok(Pid::try_from(pid).ok().filter(|pid| *pid != 0))
}
