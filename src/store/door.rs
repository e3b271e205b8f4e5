//! What a thread that waits sleeps at: it is woken by a commit, by the end of a process, and by
//! whoever cancels the wait.
//!
//! All of these are hints: the thread looks then, and it looks once a second anyway.

use std::sync::Arc;
use std::time::Duration;

use crate::Cancel;
use crate::store::listener::Listener;
use crate::store::watcher::Watcher;
use crate::sys::{ProcessHandle, Wake};

/// Between two looks of one who is told of everything that changes what he waits for. Others than
/// this version tell of no commit.
pub(crate) const LOOK_EVERY_TOLD: Duration = Duration::from_secs(1);

/// See above.
#[derive(Debug)]
pub(crate) struct Door {
    wake: Arc<Wake>,
    listener: Listener,
}

impl Door {
    /// `None` where nobody tells of a commit, or there are no descriptors or threads for it. Where
    /// there are many commits it is told of them each `pause`.
    pub(crate) fn open(
        watcher: &Arc<Watcher>,
        pause: impl Fn() -> Duration + Send + 'static,
    ) -> Option<Self> {
        if !watcher.tells() {
            return None;
        }
        let wake = Arc::new(Wake::new().ok()?);
        let raised = Arc::clone(&wake);
        let listener = Listener::start(watcher, pause, move || raised.raise())?;
        Some(Self { wake, listener })
    }

    /// Sleeps until there is something to look at, for `LOOK_EVERY_TOLD` at most. False, and at
    /// once, where it cannot be told of all of it: then the caller looks often.
    pub(crate) fn wait(
        &self,
        cancel: &Cancel,
        processes: &[&ProcessHandle],
        timeout: Duration,
    ) -> bool {
        let all_end_here = processes.iter().all(|process| process.can_be_polled());
        if !all_end_here || !self.listener.hears() || !cancel.wakes(&self.wake) {
            return false;
        }
        // It may have been cancelled before it knew whom to wake.
        if !cancel.is_cancelled() {
            let interrupt = cancel.interrupt();
            self.wake.wait(interrupt.as_deref(), processes, timeout.min(LOOK_EVERY_TOLD));
        }
        // Before the look: what comes after this raises it again.
        self.wake.lower();
        true
    }
}
