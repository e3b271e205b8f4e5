//! What we know of ourselves, to compare others with, and from where we look.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::liveness::ProcessTable;
use crate::sys::{ProcessNumber, StartTime};
use crate::{Error, ErrorKind, InstanceId, Result, sys};

/// What this process knows of itself; it does not change while the process lives.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    /// The kernel's own number of this process.
    pub(crate) number: Option<ProcessNumber>,
    pub(crate) uid: Option<u32>,
    pub(crate) host: Option<String>,
    pub(crate) boot_id: Option<String>,
    pub(crate) pid_ns: Option<String>,
    pub(crate) process_table: ProcessTable,
}

impl Observer {
    pub(crate) fn new() -> Self {
        let pid = std::process::id();
        let facts = sys::process_facts(pid);
        Self {
            pid,
            start_time: facts.start_time,
            number: facts.number,
            uid: sys::effective_uid(),
            host: sys::host_id(),
            boot_id: sys::boot_id(),
            pid_ns: sys::pid_namespace(),
            process_table: if sys::process_table_is_ours() {
                ProcessTable::Ours
            } else {
                ProcessTable::Foreign
            },
        }
    }
}

impl Observer {
    /// That a pid says which process is meant.
    ///
    /// # Errors
    /// Where pids of several namespaces may be on record, and it cannot be read which is ours: a
    /// record that we find by its pid may be another one's, and one that we made nobody could
    /// check.
    pub(crate) fn check_pids(&self) -> Result<()> {
        let is_known = self.pid_ns.is_some() || !sys::HAS_PID_NAMESPACES;
        if is_known || self.process_table == ProcessTable::Foreign {
            return Ok(());
        }
        let message = "cannot read /proc/self/ns/pid, so a pid does not say which process is meant";
        Err(Error::new(ErrorKind::Internal, message)
            .with_hint("try again; if it stays, look what denies this process its own /proc"))
    }
}

/// From where and when a record is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) observer: &'a Observer,
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: i64,
    /// The directory of the anchors.
    pub(crate) anchors: &'a Path,
    /// When the anchors of first processes were seen free.
    pub(crate) seen_free: &'a SeenFree,
    /// The filesystem of the anchors is known to be local: a lock there is this kernel's.
    pub(crate) is_local: bool,
}

impl View<'_> {
    /// See [`Clocks::restarted_since`].
    pub(crate) fn clocks_restarted_since(&self, wall_ms: i64, boot_ms: i64) -> bool {
        self.clocks().restarted_since(Clocks { wall_ms, boot_ms })
    }

    pub(crate) fn clocks(&self) -> Clocks {
        Clocks { wall_ms: self.wall_ms, boot_ms: self.boot_ms }
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clocks {
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: i64,
}

impl Clocks {
    /// Whether they agree that there was a restart since they showed `then`: the boot clock stood
    /// higher, or it and the wall clock have moved apart.
    pub(crate) fn restarted_since(self, then: Self) -> bool {
        /// More than a wall clock that is being corrected moves.
        const APART_MAX_MS: i64 = 60_000;
        let by_wall_ms = self.wall_ms.saturating_sub(then.wall_ms);
        let by_boot_ms = self.boot_ms.saturating_sub(then.boot_ms);
        then.boot_ms > self.boot_ms || by_wall_ms.abs_diff(by_boot_ms) > APART_MAX_MS as u64
    }
}

/// Between the two looks that find the anchor of a first process free: the kernel ends all others
/// of its pid namespace before it lets go of what the first one held.
pub(crate) const FREE_TWICE_APART: Duration = Duration::from_millis(50);

/// When the anchors of first processes of a pid namespace were first seen free. None is held again
/// then.
#[derive(Debug, Default)]
pub(crate) struct SeenFree(Mutex<HashMap<InstanceId, Deadline>>);

impl SeenFree {
    /// Notes that it is free now; whether it was so [`FREE_TWICE_APART`] ago.
    pub(crate) fn twice(&self, id: InstanceId) -> bool {
        let mut seen = self.0.lock();
        seen.entry(id).or_insert_with(|| Deadline::after(FREE_TWICE_APART)).has_passed()
    }
}
