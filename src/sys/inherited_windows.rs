//! As on Unix, of a platform whose processes inherit neither a signal mask nor what is ignored.

/// Nothing is blocked or ignored here.
pub(crate) fn take_over_process() {}
