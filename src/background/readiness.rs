//! What a loop that polls waits for.

use std::sync::Arc;

use crate::sys::{Shortage, Wake};
use crate::{Error, ErrorKind, Result};

/// A descriptor that is readable while there is something to ask for, for `poll`, `epoll`,
/// `asyncio`'s `add_reader` or tokio's `AsyncFd`; see [`EventStream::readiness`] and
/// [`LossWatch::readiness`], which say what. Clones share one descriptor; it lasts as long as one
/// of them, and is not inherited by programs that are executed.
///
/// Only wait for it: what is in it is the library's. It may be readable although there is nothing
/// new. In a forked child it says nothing.
///
/// [`EventStream::readiness`]: crate::status::EventStream::readiness
/// [`LossWatch::readiness`]: crate::LossWatch::readiness
///
/// # Platform
/// Unix, where it is `AsFd` and `AsRawFd`. Windows has none: there a request for one is
/// [`Unsupported`](ErrorKind::Unsupported), and a thread has to wait.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    wake: Wake,
    creator_pid: u32,
}

impl Readiness {
    pub(crate) fn new() -> Result<Self> {
        let wake = Wake::new().map_err(|error| match Shortage::of(&error) {
            Some(shortage) => Error::shortage(shortage, "make a descriptor to wait for"),
            None if error.kind() == std::io::ErrorKind::Unsupported => {
                Error::new(ErrorKind::Unsupported, "this system has no descriptor to wait for")
                    .with_hint("wait in a thread of its own")
            }
            None => Error::internal(format!("cannot make a descriptor to wait for: {error}")),
        })?;
        Ok(Self(Arc::new(Shared { wake, creator_pid: std::process::id() })))
    }

    pub(crate) fn raise(&self) {
        if self.is_of_this_process() {
            self.0.wake.raise();
        }
    }

    pub(crate) fn lower(&self) {
        if self.is_of_this_process() {
            self.0.wake.lower();
        }
    }

    /// A forked child has the pipe of its parent.
    fn is_of_this_process(&self) -> bool {
        self.0.creator_pid == std::process::id()
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Readiness {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for Readiness {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.wake.as_raw_fd()
    }
}
