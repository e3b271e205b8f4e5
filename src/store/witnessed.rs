//! Processes whose end was waited for: once its parent has collected one, its pinned handle says
//! how it ended, also to those that are not its parent (Linux 6.15).
//!
//! A waiter and a taker are woken by the end, and claim before the parent had its turn. So the
//! handle is kept, and asked again with the next changes of this process.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::InstanceId;
use crate::sys::{ChildEnd, ProcessHandle};

/// So many are remembered: each has a descriptor.
const WATCHED_MAX: usize = 8;

/// The processes that were watched, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Witnessed(Mutex<Vec<(InstanceId, Arc<ProcessHandle>)>>);

impl Witnessed {
    /// Remembers the process of a row; of more than a few the oldest is forgotten.
    pub(crate) fn watch(&self, id: InstanceId, process: Arc<ProcessHandle>) {
        let mut watched = self.0.lock();
        watched.retain(|(other, _)| *other != id);
        if watched.len() == WATCHED_MAX {
            watched.remove(0);
        }
        watched.push((id, process));
    }

    /// How the process of a row ended, if that is known by now.
    pub(crate) fn end_of(&self, id: InstanceId) -> Option<ChildEnd> {
        let watched = self.0.lock();
        let (_, process) = watched.iter().find(|(other, _)| *other == id)?;
        process.end()
    }

    /// The ends that are known by now; each is told once.
    pub(crate) fn take_known(&self) -> Vec<(InstanceId, ChildEnd)> {
        let mut known = Vec::new();
        self.0.lock().retain(|(id, process)| match process.end() {
            Some(ended) => {
                known.push((*id, ended));
                false
            }
            None => true,
        });
        known
    }
}
