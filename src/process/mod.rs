//! A process: whether it lives, how it is named for good, what it looks like, how it is ended, and
//! the kernel lock that proves that it lives.
//!
//! What is public here works without a store, for any process of the machine. It answers what was
//! seen: not being able to look is never the same as "gone", and no signal is ever a probe.
//!
//! * [`exists`], [`start_time`], [`command_line()`]: about the process that has a pid now.
//! * [`ProcessRef`]: one process, named so that no later one is taken for it. It has a text, for a
//!   table of the application's own.
//! * [`terminate()`], [`terminate_tree`]: ends it, proven before each signal.
//! * [`invoked_by`]: who runs this one.
//! * [`redact`]: what may be shown of a command line.

pub(crate) mod anchor;
pub(crate) mod command_line;
pub(crate) mod command_lock;
pub(crate) mod compare;
pub(crate) mod descendants;
pub(crate) mod exit_code;
pub(crate) mod handover;
pub(crate) mod helper;
mod invoker;
pub(crate) mod launchers;
mod look;
pub(crate) mod observer;
pub(crate) mod older;
pub(crate) mod party;
mod reference;
pub(crate) mod subject;
mod terminate;
mod tree;

pub use crate::process::descendants::LeftOver;
pub use crate::process::invoker::invoked_by;
pub use crate::process::look::{Fact, command_line, exists, start_time};
pub use crate::process::reference::ProcessRef;
pub use crate::process::terminate::{AfterBudget, Terminated, terminate};
pub use crate::process::tree::{LookedAt, TerminatedTree, terminate_tree};
pub use crate::sys::{Existence, StartTime, StartTimeUnit};

pub use crate::process::command_line::matcher::{CommandLineMatcher, DefaultMatcher};
pub use crate::process::command_line::redact::redact;

pub(crate) use crate::process::anchor::Anchor;
pub(crate) use crate::process::anchor::probing::Orphan;
pub(crate) use crate::process::observer::{Clocks, Observer, View};
#[cfg(test)]
pub(crate) use crate::process::reference::cannot_tell;
pub(crate) use crate::process::subject::Subject;
