//! What a forked child does with what it inherited.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Closes an inherited file whose handle lives on: what it leads to from now on is nothing that
/// anybody waits for. No lock is touched that the parent holds by the same open file (flock(2)).
///
/// # Errors
/// As `pipe(2)` and `dup2(2)`: it is open still.
pub(crate) fn close_inherited(file: &File) -> io::Result<()> {
    let (nothing, _) = io::pipe()?;
    // SAFETY: both numbers are open descriptors that somebody owns; the second one stays so.
    unsafe {
        if libc::dup2(nothing.as_raw_fd(), file.as_raw_fd()) == -1
            || libc::fcntl(file.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) == -1
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
