//! Signals and children: what was received, how one ended, what it printed.

use std::io;
use std::time::Duration;

use super::{Pid, os, signals};

/// What a program printed.
#[derive(Debug)]
pub struct Captured {
    /// To its standard output.
    pub bytes: Vec<u8>,
    /// How it ended; `None` when another part of this program took its status (`wait(-1)`).
    pub status: Option<std::process::ExitStatus>,
}

/// Why there is no answer from a program.
#[derive(Debug)]
pub enum CaptureError {
    /// It could not be started.
    Start(io::Error),
    /// It had not ended in its time, and was killed.
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is captured there"))]
    TimedOut,
    /// It printed more than it may, and was killed.
    #[cfg_attr(windows, allow(dead_code, reason = "nothing is captured there"))]
    TooMuch,
}

/// Runs a program to its end, for at most `timeout`, and takes what it printed, at most `bytes_max`
/// bytes. It gets no standard input, its standard error goes nowhere, and what it may have started
/// itself is not waited for. A killed one may take 100 ms more.
///
/// # Errors
/// [`CaptureError`]; on Windows always `Start(Unsupported)`.
pub fn capture(
    command: &mut std::process::Command,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Captured, CaptureError> {
    os::capture(command, timeout, bytes_max)
}

/// Where a signal came from.
#[cfg_attr(windows, allow(dead_code, reason = "Windows tells nobody who caused an event"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalOrigin {
    /// A process of our pid namespace.
    Process {
        /// Its pid, which may name another process by now.
        pid: Pid,
        /// Its real user id.
        uid: u32,
        /// By which call.
        how: &'static str,
    },
    /// A process that our pid namespace has no number for.
    Elsewhere {
        /// Its real user id.
        uid: u32,
    },
    /// The kernel itself, e.g. for what was typed at a terminal.
    Kernel,
    /// The platform does not say.
    Unknown,
}

/// A signal that was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caught {
    /// As the platform counts them.
    pub(crate) number: i32,
    /// A terminal sent it to its whole foreground group.
    pub(crate) from_terminal: bool,
    /// Who sent it.
    pub(crate) origin: SignalOrigin,
}

/// `SIGTERM` for 15, `signal#99` for one without a name.
pub(crate) fn signal_name(signal: i32) -> String {
    signals::name(signal).map_or_else(|| format!("signal#{signal}"), str::to_owned)
}

/// 15 for `15`, `TERM` or `SIGTERM`.
#[cfg_attr(not(feature = "cli"), expect(dead_code))]
pub(crate) fn signal_number(word: &str) -> Option<i32> {
    const NUMBER_MAX: i32 = 127;
    let number = word.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number));
    number.or_else(|| {
        let word = word.to_ascii_uppercase();
        let name = word.strip_prefix("SIG").unwrap_or(&word);
        (1..=NUMBER_MAX).find(|number| {
            signals::name(*number).and_then(|full| full.strip_prefix("SIG")) == Some(name)
        })
    })
}

/// How a child of ours ended.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// What reached a `run` from outside.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received {
    /// At least one child has ended: look.
    ChildEnded,
    /// A signal, or what the platform has in its place.
    Signal(Caught),
}

/// The command could not be executed.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct ExecFailure(pub(crate) io::Error);
