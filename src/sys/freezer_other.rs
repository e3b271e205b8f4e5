//! Whether a process is frozen, where there are no control groups: none is.

use super::Pid;

/// A group that is frozen, and how a shell thaws it.
#[allow(dead_code, reason = "only Linux has them")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// What to write.
    pub(crate) word: &'static str,
    /// To which file.
    pub(crate) file: String,
}

/// There are no control groups.
pub(crate) fn frozen(_pid: Pid) -> Option<Frozen> {
    None
}
