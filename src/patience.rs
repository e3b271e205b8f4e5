//! How long to wait, and how to stop waiting.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Deadline;
use crate::sys::supervise;

/// Whoever has no time at all waits this long for the store's locks anyway: dozens of writers that
/// take turns need less, and a writer that is stopped does not end by then.
pub(crate) const PATIENCE_MIN: Duration = Duration::from_millis(250);

/// How long to wait for what somebody else holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    #[default]
    No,
    /// Up to this long. Zero tries once.
    UpTo(Duration),
    /// Until it is free.
    Forever,
}

impl Wait {
    pub(crate) fn waits(self) -> bool {
        match self {
            Self::No => false,
            Self::UpTo(limit) => !limit.is_zero(),
            Self::Forever => true,
        }
    }

    /// How long an attempt may take where the store's locks are in its way.
    pub(crate) fn patience(self, deadline: Deadline) -> Duration {
        match self {
            // The store's own.
            Self::No => Duration::MAX,
            Self::UpTo(Duration::ZERO) => PATIENCE_MIN,
            Self::UpTo(_) | Self::Forever => deadline.remaining(),
        }
    }

    pub(crate) fn deadline(self) -> Deadline {
        match self {
            Self::No => Deadline::after(Duration::ZERO),
            Self::UpTo(limit) => Deadline::after(limit),
            Self::Forever => Deadline::never(),
        }
    }
}

/// Ends a wait from another thread. Clones share one state.
///
/// ```
/// use incumbent::Cancel;
///
/// let cancel = Cancel::new();
/// assert!(!cancel.is_cancelled());
/// cancel.clone().cancel();
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that has not been used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the wait within 50 ms. Safe to call in any thread, any number of times.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// What it sets: for a signal handler, which may do no more than that.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Cancels at the first SIGINT or SIGTERM (Windows: Ctrl+C), for the rest of this process; a
    /// second one ends the process as ever. What whoever started us ignores stays ignored.
    ///
    /// # Errors
    /// What keeps the signals from being caught.
    pub fn cancel_on_interrupt(&self) -> std::io::Result<()> {
        supervise::cancel_on_interrupt(&self.0)
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether an owner that is stopped is evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stopped {
    /// No: stopped is not dead, and `SIGCONT` is near.
    #[default]
    Respect,
    /// Yes, if it is found stopped twice, 200 ms apart. It learns it by its fence: its next
    /// [`verify`](crate::ScopedLock::verify) says [`Lost`](crate::Standing::Lost).
    Evict,
}

thread_local! {
    static DEADLINE: Cell<Option<Deadline>> = const { Cell::new(None) };
}

/// Runs `work` with `budget` for all lock waits of this thread's connections together; inside a
/// tighter one, that one holds.
pub(crate) fn with_budget<T>(budget: Duration, work: impl FnOnce() -> T) -> T {
    /// Restores the outer budget also when `work` panics.
    struct Restore(Option<Deadline>);
    impl Drop for Restore {
        fn drop(&mut self) {
            DEADLINE.set(self.0);
        }
    }
    let outer = DEADLINE.get();
    let budget = outer.map_or(budget, |outer| budget.min(outer.remaining()));
    let _restore = Restore(outer);
    DEADLINE.set(Some(Deadline::after(budget)));
    work()
}

/// The deadline of the budget that this thread is in, if it is in one.
pub(crate) fn deadline() -> Option<Deadline> {
    DEADLINE.get()
}
