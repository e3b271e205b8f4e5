//! As on Unix, of a platform without process groups that are signalled.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::process::Command;

use super::Pid;

/// As on Unix.
pub(crate) const VERB: &str = "__group-witness";

/// There is none.
#[derive(Debug)]
pub(crate) struct Witness(Infallible);

impl Witness {
    /// Nobody can be a witness here.
    pub(crate) fn start(_helper: Command) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never asked.
    pub(crate) fn saw(&mut self, _signal: i32, _sender: Option<Pid>) -> Option<bool> {
        match self.0 {}
    }
}

/// Never started.
pub(crate) fn life(_arguments: &[OsString]) -> i32 {
    0
}
