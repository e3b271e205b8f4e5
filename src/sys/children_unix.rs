//! Children of a Unix process that have ended: collected, or looked at before that, while their pid
//! is nobody else's (waitid(2), `WNOWAIT`).

use std::collections::VecDeque;
use std::io;

use parking_lot::Mutex;
use rustix::process::WaitOptions;

use super::{ChildEnd, Pid, StartTime, process_facts};

/// How children ended that were collected last. A successor may be ours to collect while the
/// command before it still ends, thread by thread, and is known as the command only after that.
static COLLECTED: Mutex<VecDeque<(Pid, ChildEnd)>> = Mutex::new(VecDeque::new());

fn remember(pid: Pid, end: ChildEnd) {
    const REMEMBERED_MAX: usize = 64;
    let mut collected = COLLECTED.lock();
    collected.truncate(REMEMBERED_MAX - 1);
    collected.push_front((pid, end));
}

/// Collects every child that has ended, ours or, for PID 1, anybody's orphan.
pub(crate) fn reap() -> Vec<(Pid, ChildEnd)> {
    let mut ended = Vec::new();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                let signalled = || status.terminating_signal().map(ChildEnd::Signalled);
                if let Some(end) = status.exit_status().map(ChildEnd::Exited).or_else(signalled) {
                    remember(pid, end);
                    ended.push((pid, end));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            // ECHILD: no children left.
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// How the child `pid` ended, if it has, also if it was collected with others just now. Others are
/// left to whoever started them.
pub(crate) fn reap_child(pid: Pid) -> Option<ChildEnd> {
    collect(pid).unwrap_or(Some(COLLECTED_ELSEWHERE))
}

/// The same of a command, which was started then. One that took the place of another one that
/// still ends is not our child yet: it has not ended, as far as we know, while it is there.
pub(crate) fn reap_command(pid: Pid, start_time: Option<StartTime>) -> Option<ChildEnd> {
    match collect(pid) {
        Ok(end) => end,
        Err(NotOurs) if is_there(pid, start_time) => None,
        Err(NotOurs) => Some(COLLECTED_ELSEWHERE),
    }
}

/// Somebody else has collected it, and keeps to himself how it ended.
const COLLECTED_ELSEWHERE: ChildEnd = ChildEnd::Exited(255);

/// It is no child of ours, or none any more, and was not collected just now.
struct NotOurs;

fn collect(pid: Pid) -> Result<Option<ChildEnd>, NotOurs> {
    let Some(child) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return Ok(None);
    };
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                let signalled = || status.terminating_signal().map(ChildEnd::Signalled);
                return Ok(status.exit_status().map(ChildEnd::Exited).or_else(signalled));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => {
                let collected = COLLECTED.lock();
                let known = collected.iter().find(|known| known.0 == pid).map(|known| known.1);
                return known.map(Some).ok_or(NotOurs);
            }
            Ok(None) | Err(_) => return Ok(None),
        }
    }
}

/// Living or not.
fn is_there(pid: Pid, start_time: Option<StartTime>) -> bool {
    start_time.is_some() && process_facts(pid).start_time == start_time
}

/// Collects children that have ended until it meets the command `last`, and leaves that one as it
/// is: what it had started is ours by then, and its pid is nobody else's yet. Whether that has
/// ended.
pub(crate) fn reap_up_to(last: Pid, start_time: Option<StartTime>) -> bool {
    while let Ok(Some(pid)) = ended_child(libc::P_ALL, 0) {
        if pid == last {
            return true;
        }
        match reap_child(pid) {
            Some(end) => remember(pid, end),
            None => return false,
        }
    }
    has_ended_command(last, start_time)
}

/// Whether the command `pid` has ended; also if it was collected.
pub(crate) fn has_ended_command(pid: Pid, start_time: Option<StartTime>) -> bool {
    match ended_child(libc::P_PID, pid) {
        Ok(ended) => ended.is_some(),
        Err(error) => error.raw_os_error() == Some(libc::ECHILD) && !is_there(pid, start_time),
    }
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
