//! A console in the place of job control: what is typed there reaches all that are attached to it.

use std::io;

use super::signals::Catcher;
use super::{Caught, Pid};

/// Whether a key of the console reaches `pid`, too.
pub(crate) fn shares_our_group(_pid: Pid) -> bool {
    true
}

/// There are no jobs of that kind.
pub(crate) fn is_of_a_shell() -> bool {
    false
}

/// There are no sessions of that kind.
pub(crate) fn leads_session() -> bool {
    false
}

/// There are no jobs behind others.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line asks"))]
pub(crate) fn is_in_foreground() -> bool {
    true
}

/// Nothing is ever stopped here.
pub(crate) fn signal_that_stops(_pid: Pid) -> i32 {
    0
}

/// There is no Ctrl-Z.
pub(crate) fn catch_suspension(
    _on_suspension: impl FnMut(Caught) + Send + 'static,
) -> io::Result<Catcher> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing is ever stopped here.
pub(crate) fn stop_ourselves() {}

/// A console has no name.
pub(crate) fn terminal() -> Option<String> {
    None
}
