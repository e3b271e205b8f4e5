//! How long to wait, and how to stop waiting.
//!
//! A caller that wants to be asked whether to go on is asked on its own thread, and only where
//! nothing of ours is locked: it may call the library. So what waits for the store's locks gives up
//! after a slice of time, the caller is asked, and the work is done again.

use std::cell::Cell;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::error::{ErrorKind, Result};

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

/// Between two times that a caller is asked whether to go on: of the 100 ms that are promised, the
/// rest is for the longest pause of a wait (50 ms).
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How long one operation waits for the store's locks until its caller is asked again.
const SLICE: Duration = Duration::from_millis(50);

/// Ends a wait: from another thread, or by a question that the wait asks its caller. Clones share
/// one state, and what was cancelled stays cancelled.
///
/// ```
/// use incumbent::Cancel;
///
/// let cancel = Cancel::new();
/// assert!(!cancel.is_cancelled());
/// cancel.clone().cancel();
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct Cancel {
    cancelled: Arc<AtomicBool>,
    question: Option<Arc<Mutex<Question>>>,
}

/// What a caller wants to be asked while it waits.
struct Question {
    next: Deadline,
    ask: Box<dyn FnMut() -> ControlFlow<()> + Send>,
}

impl Cancel {
    /// One that has not been used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that asks: while a call waits with it, `ask` is called every 20 to 100 ms, and the wait
    /// ends as soon as it breaks. However long the wait, there is one waiter on record for it.
    ///
    /// It is called on the thread that waits, never on another one, and nothing of the store is
    /// locked meanwhile: it may use the library, or run an interpreter's signal handlers. The next
    /// call asks after it has returned. It is not called while a claim ends what a killed `run` left
    /// behind, which takes up to 10 s where that does not follow.
    ///
    /// ```
    /// use incumbent::{Acquire, AcquireOptions, Cancel, LockRequest, Store, Wait};
    /// use std::ops::ControlFlow;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let request = LockRequest::new("port", "8080")?.exclusive();
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
    ///
    /// // In Python this is `PyErr_CheckSignals`.
    /// let mut asked = 0;
    /// let cancel = Cancel::polling(move || {
    ///     asked += 1;
    ///     if asked == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    /// });
    /// let options = AcquireOptions::new().wait(Wait::Forever).cancel(cancel.clone());
    /// assert!(matches!(store.acquire(&request, &options)?, Acquire::Held(_)));
    /// assert!(cancel.is_cancelled());
    /// # drop(lock);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn polling(ask: impl FnMut() -> ControlFlow<()> + Send + 'static) -> Self {
        let question = Question { next: Deadline::after(ASK_EVERY), ask: Box::new(ask) };
        Self {
            cancelled: Arc::default(),
            question: Some(Arc::new(Mutex::new(question))),
        }
    }

    /// Ends the wait within 50 ms. Safe to call in any thread, any number of times.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// What a signal handler may set.
    #[cfg_attr(not(feature = "cli"), expect(dead_code))]
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether it was used, or a question was answered with a break. Asks nobody.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether the wait of this thread is to end; its caller is asked if it is time for that. Not
    /// to be called with anything locked.
    pub(crate) fn ends_wait(&self) -> bool {
        // Where it is locked, another thread's wait asks, or the question itself waits.
        if let Some(mut question) = self.question.as_ref().and_then(|it| it.try_lock())
            && !self.is_cancelled()
            && question.next.has_passed()
        {
            if (question.ask)().is_break() {
                self.cancel();
            }
            question.next = Deadline::after(ASK_EVERY);
        }
        self.is_cancelled()
    }

    /// Does `work` with `budget` for the store's locks; whoever wants to be asked meanwhile is. Then
    /// `work` may be done more than once, if the store is busy.
    pub(crate) fn patiently<T>(
        &self,
        budget: Duration,
        mut work: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        if self.question.is_none() {
            return with_budget(budget, work);
        }
        let until = Deadline::after(budget);
        loop {
            let slice = Deadline::after(SLICE);
            match with_budget(until.remaining(), || in_slices(&mut work)) {
                // What is busy without a wait is so for another reason than the store's locks.
                Err(error)
                    if error.kind() == ErrorKind::Busy
                        && slice.has_passed()
                        && !until.has_passed()
                        && !self.ends_wait() => {}
                done => return done,
            }
        }
    }

    /// How long something may wait for the store's locks that is not done again: no longer than
    /// whoever wants to be asked meanwhile waits for that.
    pub(crate) fn at_once(&self, budget: Duration) -> Duration {
        if self.question.is_some() { budget.min(SLICE) } else { budget }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel")
            .field("is_cancelled", &self.is_cancelled())
            .field("asks", &self.question.is_some())
            .finish()
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
    static SLICED: Cell<bool> = const { Cell::new(false) };
}

/// What a thread-local was before, given back also when the work in between panics.
struct Restore<T: Copy + 'static>(&'static std::thread::LocalKey<Cell<T>>, T);

impl<T: Copy> Restore<T> {
    fn set(key: &'static std::thread::LocalKey<Cell<T>>, value: T) -> Self {
        Self(key, key.replace(value))
    }
}

impl<T: Copy> Drop for Restore<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Runs `work` with `budget` for all lock waits of this thread's connections together; inside a
/// tighter one, that one holds.
pub(crate) fn with_budget<T>(budget: Duration, work: impl FnOnce() -> T) -> T {
    let budget = remaining().map_or(budget, |remaining| budget.min(remaining));
    let _restore = Restore::set(&DEADLINE, Some(Deadline::after(budget)));
    work()
}

/// Runs `work`, each operation of which gives up after a slice of its budget.
fn in_slices<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore::set(&SLICED, true);
    work()
}

/// The deadline of the budget that this thread is in, if it is in one.
pub(crate) fn deadline() -> Option<Deadline> {
    DEADLINE.get()
}

/// How long an operation that begins now may wait for what other threads and processes lock;
/// `None` outside of any budget.
pub(crate) fn remaining() -> Option<Duration> {
    let budget = deadline().map(|deadline| deadline.remaining());
    if SLICED.get() { Some(budget.map_or(SLICE, |budget| budget.min(SLICE))) } else { budget }
}
