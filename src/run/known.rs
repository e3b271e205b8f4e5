//! A command line by which an older program knows a gateway.
//!
//! Later versions of the older program believe the command line of a live process before its
//! record, and remove the files of one that they do not know (FIELD-BUGS row 138).

use std::ffi::OsString;
use std::path::Path;

use crate::process::older::wire;
use crate::sys::supervise;
use crate::{Error, Result};

/// The words in a command line by which all versions of the older program recognise the gateway of
/// the directory `home`; `None` if the command line of this process has such words. See
/// [`ClaimOptions::legacy_home`](crate::ClaimOptions::legacy_home).
///
/// ```no_run
/// // First thing in `main`: the same program, by a command line that the older one knows.
/// let home = std::path::Path::new("/home/alice/.hermes");
/// if let Some(words) = incumbent::run::words_known_to_older(home) {
///     let arguments: Vec<_> = std::env::args_os().chain(words).collect();
///     let Err(error) = incumbent::run::execute_again(&arguments);
///     eprintln!("{error}: it starts as it is");
/// }
/// ```
#[must_use]
pub fn words_known_to_older(home: &Path) -> Option<Vec<OsString>> {
    let own: Vec<OsString> = std::env::args_os().collect();
    (!wire::is_known_line(&own)).then(|| wire::known_words(home))
}

/// Executes this very program again, in this process, with the command line `arguments`, the
/// program's name first. The pid, the environment, the descriptors and the parent stay as they are;
/// whatever else this process was doing is gone: call it first thing.
///
/// # Errors
/// Why it could not be executed; nothing else returns. [`Internal`](crate::ErrorKind::Internal), on
/// Windows always [`Unsupported`](crate::ErrorKind::Unsupported).
pub fn execute_again(arguments: &[OsString]) -> Result<std::convert::Infallible> {
    let error = supervise::execute_again(arguments);
    if error.kind() == std::io::ErrorKind::Unsupported {
        let what = "a process cannot execute another program here";
        return Err(Error::new(crate::ErrorKind::Unsupported, what));
    }
    Err(Error::internal(format!("cannot execute our own program again: {error}")).caused_by(error))
}
