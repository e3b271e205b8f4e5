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
        let interrupt = cancel.interrupt();
        if !all_end_here || !self.listener.hears() || !cancel.wakes(&self.wake) {
            return false;
        }
        // It may have been cancelled before it knew whom to wake.
        if !cancel.is_cancelled() {
            self.wake.wait(interrupt.as_deref(), processes, timeout.min(LOOK_EVERY_TOLD));
        }
        // Before the look: what comes after this raises it again.
        self.wake.lower();
        // A forked child was signalled. With a signal of ours it stays raised for all who wait.
        if let Some(interrupt) = interrupt.filter(|_| !cancel.is_cancelled()) {
            interrupt.lower();
            if cancel.is_cancelled() {
                interrupt.raise();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::mpsc;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_commit_or_a_cancel_ends_the_wait_and_a_question_is_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let watcher = Arc::new(Watcher::new(&store.inner).unwrap());
        let Some(door) = Door::open(&watcher, || Duration::ZERO) else { return };
        let (cancel, soon) = (Cancel::new(), Duration::from_millis(10));
        // The listener tells of what was there before it, too, and says then that it hears.
        while !door.wait(&cancel, &[], soon) {
            std::thread::yield_now();
        }
        let (told, is_told) = mpsc::channel();
        // Before anything is committed.
        let mut seen = watcher.version().unwrap();
        std::thread::scope(|scope| {
            let (door, cancel, watcher) = (&door, &cancel, &watcher);
            scope.spawn(move || {
                while !cancel.is_cancelled() {
                    assert!(door.wait(cancel, &[], Duration::from_mins(1)));
                    let now = watcher.version().unwrap();
                    if now != seen {
                        seen = now;
                        told.send(()).unwrap();
                    }
                }
            });
            for _ in 0..3 {
                drop(store.profile("work").unwrap().claim().unwrap());
                is_told.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            cancel.cancel();
        });
        let asks = Cancel::polling(|| ControlFlow::Continue(()));
        assert!(!door.wait(&asks, &[], Duration::from_mins(1)), "its caller is to be asked");
    }
}
