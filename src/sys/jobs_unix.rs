//! Job control: what a terminal and a shell do to a whole process group, and who is in it.

use std::io;

use signal_hook::consts::signal as number;

use super::signals::{self, Catcher};
use super::{Caught, Pid};

/// Whether what is sent to our process group reaches `pid`, too; no for one that has ended.
pub(crate) fn shares_our_group(pid: Pid) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: both take numbers only; -1 is the group of nobody.
    let (theirs, ours) = unsafe { (libc::getpgid(pid), libc::getpgid(0)) };
    theirs == ours && theirs != -1
}

/// The session of `pid`, 0 for ours; 0 for one whose leader has no pid here.
fn session_of(pid: libc::pid_t) -> libc::pid_t {
    // SAFETY: takes a number only.
    unsafe { libc::getsid(pid) }
}

/// Whether the kernel tells us alone that a terminal is gone: it tells the session's leader.
pub(crate) fn leads_session() -> bool {
    u32::try_from(session_of(0)) == Ok(std::process::id())
}

/// What stops `pid` as Ctrl-Z would. In a session of its own it is in an orphaned group, where the
/// kernel drops SIGTSTP (setpgid(2)).
pub(crate) fn signal_that_stops(pid: Pid) -> i32 {
    let session = libc::pid_t::try_from(pid).map_or(-1, session_of);
    if session == session_of(0) { number::SIGTSTP } else { number::SIGSTOP }
}

/// Hears of Ctrl-Z, which then stops nobody.
pub(crate) fn catch_suspension(
    on_suspension: impl FnMut(Caught) + Send + 'static,
) -> io::Result<Catcher> {
    signals::catch(&[number::SIGTSTP], on_suspension)
}

/// Stops this process until somebody lets it go on.
pub(crate) fn stop_ourselves() {
    if let Err(error) = signal_hook::low_level::raise(number::SIGSTOP) {
        tracing::debug!(%error, "not stopped");
    }
}
