//! Signals as a terminal's shell leaves them: what whoever started the tests ignores (`nohup`, a
//! job in the background) would be ignored by everything that they start.

#![allow(unsafe_code, reason = "a disposition that is inherited can only be changed so")]

use std::sync::Once;

/// Has the kernel collect the children of this process.
pub fn ignore_children() {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Whether it does (`SigIgn` of `proc_pid_status(5)`).
pub fn ignores_children() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    (ignored >> (libc::SIGCHLD - 1)) & 1 == 1
}

/// Gives these signals their default effect in this process, and so in all that it starts.
pub fn signals_of_jobs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD] {
            // SAFETY: a default disposition runs no code of ours; nobody here has set another one
            // yet.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    });
}
