//! What reaches a process: signals, ends of its children, what a program printed.

use std::io;

use super::process_facts::Pid;

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

/// How a child process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// What reached a `run` from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received {
    /// At least one child has ended: look.
    ChildEnded,
    /// A signal, or what the platform has in its place.
    Signal(Caught),
}

/// The command could not be executed.
#[derive(Debug)]
pub(crate) struct ExecFailure(pub(crate) io::Error);
