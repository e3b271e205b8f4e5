//! What can be seen of a lock on a file, in the terms that all platforms share.

use super::process_facts::Pid;

/// Who holds what [`hold_command_lock`](super::hold_command_lock) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandLocks {
    /// The command itself.
    pub(crate) command: bool,
    /// It, or something that it has started and that has not closed what it inherited.
    pub(crate) descendants: bool,
}

/// An exclusive lock on a whole file (`flock`), by the kernel's own list.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux has such a list"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListedLock {
    /// Somebody holds one; its pid, if it has one in our namespace.
    Held(Option<Pid>),
    /// Nobody does.
    Free,
    /// The list does not show everybody's, or cannot be read.
    Unknown,
    /// The platform has no such list: only trying to lock the file tells.
    #[cfg_attr(target_os = "linux", allow(dead_code, reason = "Linux has one"))]
    NoList,
}

/// How a lock is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Exclusive,
}
