//! A descriptor that is readable while there is something to do, for a loop that polls.
//!
//! A pipe: it works the same on every Unix. What is in it is not counted; the reader empties it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;

use super::ProcessHandle;
use super::signals::write_in_handler;

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

    /// One that each of these signals makes readable, which are caught already. It is there for as
    /// long as this process: so are the handlers.
    ///
    /// # Errors
    /// As `pipe(2)`; what keeps a signal from being caught.
    pub(crate) fn raised_by(signals: &[i32]) -> io::Result<Arc<Self>> {
        let wake = Arc::new(Self::new()?);
        for &signal in signals {
            let raised = Arc::clone(&wake);
            let raise = move || {
                write_in_handler(&raised.writer, &[1]);
            };
            // SAFETY: a write without waiting, which may be done in a handler; nothing panics.
            unsafe { signal_hook::low_level::register(signal, raise) }?;
        }
        Ok(wake)
    }

    /// Waits until it is readable, or `also` is, or one of these processes has ended, or the time
    /// is over; or for no reason. A process that cannot be polled is not waited for.
    pub(crate) fn wait(
        &self,
        also: Option<&Self>,
        processes: &[&ProcessHandle],
        timeout: Duration,
    ) {
        let ends = processes.iter().filter_map(|process| process.descriptor());
        let wakes = [Some(self), also].into_iter().flatten().map(AsFd::as_fd);
        let mut polled: Vec<PollFd<'_>> =
            wakes.chain(ends).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(timeout).ok();
        if let Err(error) = poll(&mut polled, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            // No memory for it: no reason to spin.
            std::thread::sleep(Duration::from_millis(10));
        }
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

    #[test]
    fn a_wait_ends_with_a_process_or_another_wake() {
        const LONG: Duration = Duration::from_mins(1);
        let (wake, also) = (Wake::new().unwrap(), Wake::new().unwrap());
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessHandle::open(child.id()).unwrap();
        wake.wait(Some(&also), &[&process], Duration::from_millis(1));
        assert!(!process.has_ended());
        also.raise();
        wake.wait(Some(&also), &[&process], LONG);
        child.kill().unwrap();
        if process.can_be_polled() {
            while !process.has_ended() {
                wake.wait(None, &[&process], LONG);
            }
        }
        child.wait().unwrap();
        wake.raise();
        wake.wait(None, &[], LONG);
    }
}
