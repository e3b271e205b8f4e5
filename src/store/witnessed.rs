//! Processes whose end was waited for: once its parent has collected one, its pinned handle says
//! how it ended, also to those that are not its parent (Linux 6.15).
//!
//! A waiter and a taker are woken by the end, and claim before the parent had its turn. So the
//! handle is kept for later. A process that lives on without its row is let go: what becomes of it
//! is nothing of that row's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::InstanceId;
use crate::clock::Deadline;
use crate::sys::{ChildEnd, ExitInfo, ProcessHandle};

/// So many are remembered: each has a descriptor.
const WATCHED_MAX: usize = 8;

/// A process that ends within this time after its row was released has ended with it: a script
/// releases in its EXIT trap.
pub(crate) const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// The processes that were watched, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Witnessed(Mutex<Vec<Watched>>);

#[derive(Debug)]
struct Watched {
    id: InstanceId,
    process: Arc<ProcessHandle>,
    /// One that lives longer goes on without its row.
    until: Deadline,
    seen_ended_ms: Option<i64>,
}

/// How the process of a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenEnd {
    pub(crate) id: InstanceId,
    pub(crate) ended: ChildEnd,
    /// When it was first seen that it had: Unix milliseconds.
    pub(crate) at_ms: i64,
}

impl Witnessed {
    /// Remembers the process of a row that has ended, or whose row has; of more than a few the
    /// oldest is forgotten.
    pub(crate) fn watch(&self, id: InstanceId, process: Arc<ProcessHandle>, now_ms: i64) {
        let mut watched = self.0.lock();
        watched.retain(|it| it.id != id);
        if watched.len() == WATCHED_MAX {
            watched.remove(0);
        }
        let seen_ended_ms = process.has_ended().then_some(now_ms);
        let until = Deadline::after(ENDS_WITHIN);
        watched.push(Watched { id, process, until, seen_ended_ms });
    }

    /// How the process of a row ended, if that is known by now.
    pub(crate) fn end_of(&self, id: InstanceId) -> Option<ChildEnd> {
        let watched = self.0.lock();
        watched.iter().find(|it| it.id == id)?.process.end().known()
    }

    /// The ends that are known by now. They are told until they are forgotten: what was told may
    /// not have been written.
    pub(crate) fn known(&self, now_ms: i64) -> Vec<SeenEnd> {
        let mut known = Vec::new();
        self.0.lock().retain_mut(|it| {
            if it.seen_ended_ms.is_none() {
                if it.until.has_passed() {
                    return false;
                }
                it.seen_ended_ms = it.process.has_ended().then_some(now_ms);
            }
            match (it.seen_ended_ms, it.process.end()) {
                (Some(at_ms), ExitInfo::Known(ended)) => {
                    known.push(SeenEnd { id: it.id, ended, at_ms });
                    true
                }
                (_, ExitInfo::Never) => false,
                (None, ExitInfo::Known(_)) | (_, ExitInfo::NotYet) => true,
            }
        });
        known
    }

    /// They are on record.
    pub(crate) fn forget(&self, ends: &[SeenEnd]) {
        self.0.lock().retain(|it| !ends.iter().any(|end| end.id == it.id));
    }
}
