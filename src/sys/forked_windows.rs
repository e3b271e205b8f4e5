//! No process of this system is forked.

use std::fs::File;
use std::io;

/// Never asked for here.
///
/// # Errors
/// `Unsupported`.
pub(crate) fn close_inherited(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
