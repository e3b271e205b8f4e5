//! What a holder had started, and what goes on without it.
//!
//! Ended is only what is left of the holder: not who holds an office of this store by itself (a
//! gateway of another profile, or the successor of the holder), nor what that one has started.

use std::time::Duration;

use crate::clock::Deadline;
use crate::patience::with_budget;
use crate::process::descendants::LeftOver;
use crate::records::instances;
use crate::store::Inner;
use crate::sys;
use crate::sys::Pid;

/// Most of what a holder leaves ends with it, a moment later: by the end of a pipe, or of what it
/// was about to do.
const ENDS_BY_ITSELF_WITHIN: Duration = Duration::from_millis(100);

/// How long the store may delay the look who else holds an office.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// The processes that outlived the one that had started them.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    /// They were ended.
    pub(super) reaped: Vec<LeftOver>,
    /// They go on.
    pub(super) left: Vec<LeftOver>,
}

impl LeftBehind {
    pub(super) fn of(left: Vec<LeftOver>) -> Self {
        Self { reaped: Vec::new(), left }
    }

    /// Ends them, as far as they still run and may be ended.
    pub(super) fn reap(&mut self, inner: &Inner) {
        let mut living = std::mem::take(&mut self.left);
        living.retain(|process| process.prove(inner.trust()).is_ok());
        let (spared, mut reaped) = owners_apart(inner, living);
        self.left = LeftOver::reap(reaped.clone(), inner.trust());
        reaped.retain(|process| !self.left.contains(process));
        self.left.extend(spared);
        self.reaped = reaped;
    }

    /// Forgets those that end by themselves now.
    pub(super) fn let_end(&mut self, inner: &Inner) {
        let until = Deadline::after(ENDS_BY_ITSELF_WITHIN);
        self.left.retain(|process| {
            let proven = process.prove(inner.trust());
            proven.is_ok_and(|process| !process.wait_ended(until.remaining()))
        });
    }
}

/// Those that hold an office of this store, with what they have started; and all others. Where the
/// store does not answer, each of them may hold one.
fn owners_apart(inner: &Inner, processes: Vec<LeftOver>) -> (Vec<LeftOver>, Vec<LeftOver>) {
    if processes.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let rows = match with_budget(READ_WITHIN, || inner.read(instances::all_live)) {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(%error, "what was left behind is not ended");
            return (processes, Vec::new());
        }
    };
    let is_owner = |pid: &Pid| {
        rows.iter().any(|row| {
            let is_here = row.pid_ns == inner.observer().pid_ns;
            is_here && row.kind().is_some() && row.pid == Some(*pid)
        })
    };
    let owners = processes.iter().map(|process| process.pid).filter(is_owner);
    let spared: Vec<Pid> =
        owners.flat_map(|owner| std::iter::once(owner).chain(sys::descendants(owner))).collect();
    processes.into_iter().partition(|process| spared.contains(&process.pid))
}
