//! Who holds a lock of the older program.

use crate::process::older::wire::{HoldingRun, PidRecord};
use crate::sys;
use crate::sys::StartTime;

/// The process that holds a `gateway.lock`, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockHolder {
    /// 0: nobody says.
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    /// Not yet redacted.
    pub(crate) argv: Vec<String>,
    /// Its pid is one of this namespace.
    pub(crate) is_here: bool,
    /// It has taken the lock, and has ended: something that it started keeps it.
    pub(crate) has_left_it: bool,
    /// It is a `run` of ours, and says so in the file.
    pub(crate) owner: Option<HoldingRun>,
}

impl LockHolder {
    pub(crate) fn nobody() -> Self {
        Self {
            pid: 0,
            start_time: None,
            argv: Vec::new(),
            is_here: false,
            has_left_it: false,
            owner: None,
        }
    }

    /// As the words in a file have it.
    pub(crate) fn said(said: PidRecord) -> Self {
        let start_time = said.start_time();
        Self { pid: said.pid, start_time, argv: said.argv, owner: said.owner, ..Self::nobody() }
    }
}
