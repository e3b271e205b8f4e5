//! Job control: what a terminal and a shell do to a whole process group, and who is in it.

use std::io;

use signal_hook::consts::signal as number;

use super::signals::{self, Catcher};
use super::{Caught, Pid};

/// More processes of one group are not between us and a shell.
const GENERATIONS_MAX: usize = 64;

/// Whether what is sent to our process group reaches `pid`, too; no for one that has ended.
pub(crate) fn shares_our_group(pid: Pid) -> bool {
    let theirs = libc::pid_t::try_from(pid).map_or(-1, group_of);
    theirs == group_of(0) && theirs != -1
}

/// The group of `pid`, 0 for ours; -1 for one that has none.
fn group_of(pid: libc::pid_t) -> libc::pid_t {
    // SAFETY: takes a number only.
    unsafe { libc::getpgid(pid) }
}

/// Whether our process group is the job of a shell, which can continue it: whoever started that is
/// in another group of our session. Otherwise the group is orphaned, and the kernel drops what
/// would stop it (setpgid(2)).
pub(crate) fn is_of_a_shell() -> bool {
    let parent = Some(std::os::unix::process::parent_id()).filter(|pid| *pid != 0);
    let outside = std::iter::successors(parent, |pid| super::process_facts(*pid).parent)
        .take(GENERATIONS_MAX)
        .filter_map(|pid| libc::pid_t::try_from(pid).ok())
        .find(|pid| group_of(*pid) != group_of(0));
    outside.is_some_and(|pid| session_of(pid) == session_of(0))
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

/// Whether the terminal that standard error is takes our words as those of the job in front.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line asks"))]
pub(crate) fn is_in_foreground() -> bool {
    // SAFETY: both take numbers only; -1 is the group of nobody (tcgetpgrp(3)).
    unsafe { libc::tcgetpgrp(libc::STDERR_FILENO) == libc::getpgrp() }
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

/// Stops this process as the key would, until somebody lets it go on: a shell tells that from
/// SIGSTOP.
pub(crate) fn stop_ourselves() {
    // SAFETY: a struct of integers, for which zero is valid, and is the default action.
    let (by_default, mut ours): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: the default action runs no code; what is set again is what was there; raise takes a
    // number only.
    unsafe {
        if libc::sigaction(number::SIGTSTP, &raw const by_default, &raw mut ours) == 0 {
            libc::raise(number::SIGTSTP);
            libc::sigaction(number::SIGTSTP, &raw const ours, std::ptr::null_mut());
        }
    }
}

/// The device of the terminal that one of our standard streams is; `None` where all are redirected.
pub(crate) fn terminal() -> Option<String> {
    /// `TTY_NAME_MAX` of Linux is 32.
    const NAME_LENGTH_MAX: usize = 128;
    (0..=2).find_map(|descriptor| {
        let mut name = [0_u8; NAME_LENGTH_MAX];
        // SAFETY: the buffer is as long as is said, and is written only.
        let failed =
            unsafe { libc::ttyname_r(descriptor, name.as_mut_ptr().cast(), NAME_LENGTH_MAX) };
        if failed != 0 {
            return None;
        }
        let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
        Some(name.to_string_lossy().into_owned())
    })
}
