//! A descriptor that is readable while there is something to do, for a loop that polls.
//!
//! A pipe: it works the same on every Unix. What is in it is not counted; the reader empties it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::ioctl_fionbio;

/// See above. A forked child shares the pipe with its parent, and must not touch it.
#[derive(Debug)]
pub(crate) struct Wake {
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Wake {
    /// One that is not readable.
    ///
    /// # Errors
    /// As `pipe(2)`.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        Ok(Self { reader, writer })
    }

    /// Makes it readable. A full pipe is.
    pub(crate) fn raise(&self) {
        let _ = rustix::io::write(&self.writer, &[1]);
    }

    /// Makes it unreadable.
    pub(crate) fn lower(&self) {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.reader, &mut bytes).is_ok_and(|read| read == bytes.len()) {}
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn it_is_readable_from_raise_to_lower() {
        let wake = Wake::new().unwrap();
        let is_readable = || {
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&at_once)).unwrap() == 1
        };
        assert!(!is_readable());
        // More often than the pipe has room for.
        for raised in [1, 64, 100_000] {
            (0..raised).for_each(|_| wake.raise());
            assert!(is_readable() && is_readable());
            wake.lower();
            assert!(!is_readable(), "after {raised}");
        }
        wake.lower();
    }
}
