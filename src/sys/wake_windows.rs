//! No descriptor to poll: this system waits for handles, and not for pipes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::ProcessHandle;

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

    /// As [`Self::new`].
    pub(crate) fn raised_by(_signals: &[i32]) -> io::Result<Arc<Self>> {
        Self::new().map(Arc::new)
    }

    /// Makes it readable.
    pub(crate) fn raise(&self) {
        match *self {}
    }

    /// As on Unix.
    pub(crate) fn wait(
        &self,
        _also: Option<&Self>,
        _processes: &[&ProcessHandle],
        _timeout: Duration,
    ) {
        match *self {}
    }

    /// Makes it unreadable.
    pub(crate) fn lower(&self) {
        match *self {}
    }
}
