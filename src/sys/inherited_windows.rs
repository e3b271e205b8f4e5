//! As on Unix, of a platform whose processes inherit neither a signal mask nor what is ignored, and
//! become no other program.

use std::convert::Infallible;
use std::io;
use std::process::Command;

/// Nothing is blocked or ignored here.
pub(crate) fn take_over_process() {}

/// What asks a process to end that is about to become another program: none is.
pub(crate) struct RequestsToEnd(Infallible);

impl RequestsToEnd {
    /// There is nothing to note them for.
    pub(crate) fn note() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether one has come.
    pub(crate) fn have_come(&self) -> bool {
        match self.0 {}
    }
}

/// Nothing becomes another program here.
pub(crate) fn become_program(_command: Command, requests: &RequestsToEnd) -> io::Error {
    match requests.0 {}
}
