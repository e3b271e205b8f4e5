//! No descriptor to poll: this system waits for handles, and not for pipes.

use std::io;

/// There is none.
#[derive(Debug)]
pub(crate) enum Wake {}

impl Wake {
    /// Not possible here.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes it readable.
    pub(crate) fn raise(&self) {
        match *self {}
    }

    /// Makes it unreadable.
    pub(crate) fn lower(&self) {
        match *self {}
    }
}
