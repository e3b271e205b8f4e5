//! The process that a record is for.

use std::sync::Arc;

use crate::sys::{Looks, OpenProcessError, ProcessHandle, StartTime, supervise};
use crate::{Error, ErrorKind, Result, sys};

/// A process to be recorded, pinned and proven.
pub(crate) struct Target {
    pub(crate) handle: Arc<ProcessHandle>,
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
}

impl Target {
    /// Pins `pid` and checks that we may record it.
    pub(crate) fn prove(pid: sys::Pid) -> Result<Self> {
        let gone = || {
            Error::no_process(pid).with_hints(
                "name a running process (`Whom::Process`)",
                "name a running process with `--pid`",
            )
        };
        let looks = Looks::begin();
        let short = || {
            let what = format!("look at pid {pid}");
            looks.shortage().map(|shortage| Error::shortage(shortage, &what))
        };
        let opened = ProcessHandle::open(pid);
        if let Some(short) = short() {
            return Err(short);
        }
        let handle = opened.map_err(|error| match error {
            OpenProcessError::Gone => gone(),
            OpenProcessError::Denied => not_ours(pid),
            OpenProcessError::Other(error) => {
                Error::internal(format!("cannot look at pid {pid}: {error}")).caused_by(error)
            }
        })?;
        let facts = sys::process_facts(pid);
        let start_time = handle.start_time();
        if let Some(short) = short() {
            return Err(short);
        }
        if handle.has_ended() {
            return Err(gone());
        }
        if !supervise::may_record(facts.uid) {
            return Err(not_ours(pid));
        }
        Ok(Self { handle: Arc::new(handle), pid, start_time })
    }

    pub(crate) fn handle(&self) -> &ProcessHandle {
        &self.handle
    }
}

fn not_ours(pid: sys::Pid) -> Error {
    Error::new(ErrorKind::Permission, format!("pid {pid} belongs to another user"))
        .with_hint("record it as that user, or as root")
}
