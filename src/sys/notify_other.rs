//! As on Linux, of a platform without a service manager that is told by a socket.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use super::Pid;

/// As on Linux.
#[allow(dead_code, reason = "there is none")]
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) text: Vec<u8>,
    pub(crate) descriptors: Vec<Infallible>,
    pub(crate) sender: Option<(Pid, u32)>,
}

/// There is none.
#[derive(Debug)]
pub(crate) struct NotifySocket(Infallible);

impl NotifySocket {
    /// There is none.
    pub(crate) fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never asked.
    pub(crate) fn address(&self) -> OsString {
        match self.0 {}
    }

    /// Never called.
    pub(crate) fn receive(&self) -> io::Result<Message> {
        match self.0 {}
    }

    /// Never called.
    pub(crate) fn say_to_ourselves(&self, _within: Duration) -> io::Result<()> {
        match self.0 {}
    }
}

/// There is no such manager.
pub(crate) fn is_of_a_manager(_address: &OsStr) -> bool {
    false
}

/// Never called.
pub(crate) fn notify(
    _address: &OsStr,
    _text: &[u8],
    _descriptors: &[Infallible],
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
