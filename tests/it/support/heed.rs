//! Signals as a terminal's shell leaves them: what whoever started the tests ignores (`nohup`, a
//! job in the background) would be ignored by everything that they start.

#![allow(unsafe_code, reason = "a disposition that is inherited can only be changed so")]

use std::sync::Once;

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
