//! A process: what it looks like, how it is described, and the kernel lock that proves that it
//! lives.

pub(crate) mod anchor;
pub(crate) mod command_line;
pub(crate) mod command_lock;
pub(crate) mod descendants;
pub(crate) mod exit_code;
pub(crate) mod helper;
pub(crate) mod observer;
pub(crate) mod older;
pub(crate) mod party;
pub(crate) mod subject;

pub(crate) use crate::process::anchor::Anchor;
pub(crate) use crate::process::anchor::probing::Orphan;
pub(crate) use crate::process::observer::{Observer, View};
pub(crate) use crate::process::subject::Subject;
