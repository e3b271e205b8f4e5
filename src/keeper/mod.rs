//! Records and locks for processes that do not link the library.
//!
//! Such a process cannot hold an anchor. A keeper holds one for it, and lets go when it ends.

pub(crate) mod keep;
pub(crate) mod locks;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod target;
