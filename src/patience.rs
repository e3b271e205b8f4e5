//! How long to wait, and how to stop waiting.
//!
//! A caller that wants to be asked whether to go on is asked on its own thread, and only where
//! nothing of ours is locked: it may call the library. So what waits for the store's locks gives up
//! after a slice of time, the caller is asked, and the work is done again.

use std::cell::Cell;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::error::{ErrorKind, Result};
use crate::sys::{Wake, supervise};

/// Whoever has no time at all waits this long for the store's locks anyway: dozens of writers that
/// take turns need less, and a writer that is stopped does not end by then.
pub(crate) const PATIENCE_MIN: Duration = Duration::from_millis(250);

/// How long to wait for what somebody else holds, or for the next event. Of a claim and of locks
/// the end is kept to 20 ms. It is not the patience with the store's own locks: that is
/// [`OpenOptions::busy_budget`](crate::OpenOptions::busy_budget).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: one try.
    #[default]
    No,
    /// Up to this long. Zero is one try too, with at most 250 ms for the store's own locks.
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
    /// That of the caller, where this is for one wait of several: it cancels this, too.
    of_caller: Option<Arc<AtomicBool>>,
    question: Option<Arc<Mutex<Question>>>,
    woken: Arc<Woken>,
}

/// Who is woken when it is cancelled; one list for all clones, and for those for one wait.
#[derive(Default)]
struct Woken {
    waiting: Mutex<Vec<Weak<Wake>>>,
    /// Somebody can cancel it without waking anybody.
    is_silent: AtomicBool,
    /// The signals that cancel it, and what they raise, from the first wait that polls: a verb that
    /// does not wait needs no descriptors for it.
    signals: OnceLock<Vec<i32>>,
    interrupt: OnceLock<Option<Arc<Wake>>>,
}

/// What a caller wants to be asked while it waits.
struct Question {
    next: Deadline,
    ask: Box<dyn FnMut() -> ControlFlow<()> + Send>,
}

impl Cancel {
    /// A new one, which asks nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that asks: while a call waits with it, `ask` is called every 20 to 100 ms, and the wait
    /// ends as soon as it breaks. However long the wait, there is one waiter on record for it.
    ///
    /// It is called on the thread that waits, never on another one, and nothing of the store is
    /// locked meanwhile: it may use the library, or run an interpreter's signal handlers. It is not
    /// called while a claim ends what a killed `run` left behind, which takes up to 10 s where that
    /// does not follow.
    ///
    /// ```
    /// use incumbent::{Acquire, Cancel, LockRequest, Store, Wait};
    /// use incumbent::lock::AcquireOptions;
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
        Self { question: Some(Arc::new(Mutex::new(question))), ..Self::default() }
    }

    /// One for a single wait: what cancels `self` cancels it, and not the other way round. A
    /// question that breaks is the caller's own answer.
    pub(crate) fn for_one_wait(&self) -> Self {
        Self {
            cancelled: Arc::default(),
            of_caller: Some(Arc::clone(self.of_caller.as_ref().unwrap_or(&self.cancelled))),
            question: self.question.clone(),
            woken: Arc::clone(&self.woken),
        }
    }

    /// One for other threads: what cancels `self` cancels it, and it asks nobody.
    pub(crate) fn for_other_threads(&self) -> Self {
        Self { question: None, ..self.clone() }
    }

    /// Ends every wait that has it, within 50 ms; a wait that begins later ends after its first
    /// try. The call answers as at the end of its time. Safe to call in any thread, any number of
    /// times.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake_all();
    }

    fn wake_all(&self) {
        let waiting = self.woken.waiting.lock();
        waiting.iter().filter_map(Weak::upgrade).for_each(|wake| wake.raise());
    }

    /// Has `wake` raised when it is cancelled; false where that is not always so, and whoever waits
    /// has to ask.
    pub(crate) fn wakes(&self, wake: &Arc<Wake>) -> bool {
        if self.question.is_some() || self.woken.is_silent.load(Ordering::Acquire) {
            return false;
        }
        let mut waiting = self.woken.waiting.lock();
        if !waiting.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(wake))) {
            waiting.retain(|known| known.strong_count() > 0);
            waiting.push(Arc::downgrade(wake));
        }
        true
    }

    /// What becomes readable with the signals that cancel it, one that has come before excepted.
    /// Asked before [`Self::wakes`], which says no where they can raise nothing.
    pub(crate) fn interrupt(&self) -> Option<Arc<Wake>> {
        let signals = self.woken.signals.get().filter(|signals| !signals.is_empty())?;
        let raised = || match Wake::raised_by(signals) {
            Ok(wake) => Some(wake),
            Err(error) => {
                tracing::debug!(%error, "a signal is noticed a little later");
                self.woken.is_silent.store(true, Ordering::Release);
                None
            }
        };
        self.woken.interrupt.get_or_init(raised).clone()
    }

    /// What it sets: for a signal handler, which may do no more than that. True is cancelled.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.woken.is_silent.store(true, Ordering::Release);
        self.wake_all();
        Arc::clone(&self.cancelled)
    }

    /// Cancels at the first SIGINT or SIGTERM (Windows: Ctrl+C), for the rest of this process; one
    /// that comes when it is cancelled already ends the process as ever. What is ignored by then
    /// stays ignored. Never undone: for a program whose waits a person ends, not for a gateway,
    /// which has [`Tenure::on_shutdown`](crate::Tenure::on_shutdown).
    ///
    /// # Errors
    /// What keeps the signals from being caught, as the system says it.
    pub fn cancel_on_interrupt(&self) -> std::io::Result<()> {
        let signals = supervise::cancel_on_interrupt(&self.cancelled)?;
        self.woken.signals.get_or_init(|| signals);
        // Who waits already looks for them from now on.
        self.wake_all();
        Ok(())
    }

    /// Whether it was used, or a question was answered with a break. Asks nobody.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let callers = self.of_caller.iter();
        callers.chain([&self.cancelled]).any(|cancelled| cancelled.load(Ordering::Acquire))
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
                let cancelled = self.of_caller.as_ref().unwrap_or(&self.cancelled);
                cancelled.store(true, Ordering::Release);
            }
            question.next = Deadline::after(ASK_EVERY);
        }
        self.is_cancelled()
    }

    /// Does `work` with `patience` for the store's locks. Whoever wants to be asked meanwhile is:
    /// then `work` is done again where it found the store busy, until that has cost `busy_budget`.
    pub(crate) fn patiently<T>(
        &self,
        patience: Duration,
        busy_budget: Duration,
        mut work: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        if self.question.is_none() {
            return with_budget(patience, work);
        }
        let until = Deadline::after(patience);
        // Counted, because what `work` does between its operations may take longer.
        let mut slices = busy_budget.as_millis() / SLICE.as_millis();
        loop {
            let slice = Deadline::after(SLICE);
            match with_budget(until.remaining(), || in_slices(&mut work)) {
                // What is busy without a wait is so for another reason than the store's locks.
                Err(error)
                    if error.kind() == ErrorKind::Busy
                        && slice.has_passed()
                        && slices > 1
                        && !until.has_passed()
                        && !self.ends_wait() =>
                {
                    slices -= 1;
                }
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
            .finish_non_exhaustive()
    }
}

/// Whether an owner that is stopped (Ctrl-Z, SIGSTOP; never one that is traced) is evicted.
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

/// The same for what has to be done when a budget around it is spent: `budget` counts from now.
pub(crate) fn with_last_budget<T>(budget: Duration, work: impl FnOnce() -> T) -> T {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::Error;

    const BUSY_BUDGET: Duration = Duration::from_secs(5);

    /// One that counts how often it is asked, and ends the wait at the `last` time.
    fn counting(last: usize) -> (Cancel, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        let cancel = Cancel::polling(move || {
            if asked.fetch_add(1, Ordering::SeqCst) + 1 >= last {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        (cancel, count)
    }

    fn busy() -> Error {
        Error::new(ErrorKind::Busy, "somebody writes")
    }

    #[test]
    fn a_question_is_asked_now_and_then_and_its_answer_stays() {
        let (cancel, count) = counting(2);
        assert!(!cancel.ends_wait() && !cancel.is_cancelled());
        assert_eq!(count.load(Ordering::SeqCst), 0, "not at once");
        let began = Deadline::after(2 * ASK_EVERY);
        while !cancel.ends_wait() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(began.has_passed(), "twice, and not at each look");
        assert!(cancel.is_cancelled() && cancel.clone().ends_wait());
        assert_eq!(count.load(Ordering::SeqCst), 2, "nobody is asked again");
    }

    /// One that waits with the same question from within it is not locked out.
    #[test]
    fn a_question_that_waits_itself_is_not_asked_meanwhile() {
        let again: Arc<Mutex<Option<Cancel>>> = Arc::default();
        let inner = Arc::clone(&again);
        let cancel = Cancel::polling(move || {
            assert!(inner.lock().as_ref().is_some_and(|cancel| !cancel.ends_wait()));
            ControlFlow::Break(())
        });
        *again.lock() = Some(cancel.clone());
        while !cancel.ends_wait() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A signal that ends one wait of a plan is no reason to end the next one.
    #[test]
    fn what_cancels_one_wait_does_not_cancel_the_next() {
        let cancel = Cancel::new();
        let (one, next) = (cancel.for_one_wait(), cancel.for_one_wait());
        one.cancel();
        assert!(one.ends_wait() && !next.ends_wait() && !cancel.is_cancelled());
        cancel.cancel();
        assert!(next.is_cancelled() && next.for_one_wait().is_cancelled());

        let (asks, _) = counting(1);
        let one = asks.for_one_wait();
        while !one.ends_wait() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(asks.is_cancelled(), "its caller has said so");
    }

    /// Symptom: a waiter looked twenty times a second whether it was cancelled. It holds because it
    /// is woken, except by who sets the flag itself, or has a question.
    #[test]
    fn whoever_cancels_wakes_those_who_wait() {
        const LONG: Duration = Duration::from_mins(1);
        let Ok(wake) = Wake::new().map(Arc::new) else { return };
        let cancel = Cancel::new();
        let (one, another) = (cancel.for_one_wait(), cancel.clone());
        assert!(one.wakes(&wake) && one.wakes(&wake) && one.interrupt().is_none());
        assert_eq!(cancel.woken.waiting.lock().len(), 1, "once");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                while !one.is_cancelled() {
                    wake.wait(None, &[], LONG);
                    wake.lower();
                }
            });
            another.cancel();
            waiter.join().unwrap();
        });
        drop(wake);
        let Ok(next) = Wake::new().map(Arc::new) else { return };
        assert!(cancel.wakes(&next));
        assert_eq!(cancel.woken.waiting.lock().len(), 1, "who waits no more is forgotten");
        assert!(!counting(1).0.wakes(&next), "it is to be asked");
        let flag = cancel.flag();
        next.wait(None, &[], LONG);
        assert!(!cancel.wakes(&next) && flag.load(Ordering::Acquire));
    }

    #[test]
    fn work_behind_a_busy_store_is_done_in_slices_until_its_caller_has_enough() {
        let (cancel, count) = counting(3);
        let mut done = 0;
        let answer: Result<()> = cancel.patiently(Duration::MAX, BUSY_BUDGET, || {
            done += 1;
            // As an operation of the store, which knows nothing of it.
            with_budget(BUSY_BUDGET, || {
                assert!(remaining().is_some_and(|remaining| remaining <= SLICE));
                std::thread::sleep(deadline().map_or(SLICE, |deadline| deadline.remaining()));
            });
            Err(busy())
        });
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Busy));
        assert_eq!((done, count.load(Ordering::SeqCst)), (3, 3));
        assert_eq!(remaining(), None);
    }

    #[test]
    fn what_is_done_last_has_a_budget_when_there_is_none_left() {
        with_budget(Duration::ZERO, || {
            with_budget(SLICE, || assert_eq!(remaining(), Some(Duration::ZERO)));
            with_last_budget(BUSY_BUDGET, || assert!(remaining() > Some(Duration::ZERO)));
            assert_eq!(remaining(), Some(Duration::ZERO));
        });
        assert_eq!(remaining(), None);
    }

    #[test]
    fn work_behind_a_store_that_stays_busy_ends_with_the_budget() {
        let mut done = 0;
        let (cancel, _) = counting(usize::MAX);
        let answer: Result<()> = cancel.patiently(Duration::MAX, 3 * SLICE, || {
            done += 1;
            std::thread::sleep(SLICE);
            Err(busy())
        });
        assert_eq!((done, answer.is_err()), (3, true));
    }

    #[test]
    fn what_is_busy_without_a_wait_or_asks_nobody_is_done_once() {
        for cancel in [Cancel::new(), counting(1_000).0] {
            let mut done = 0;
            let answer: Result<()> = cancel.patiently(Duration::MAX, BUSY_BUDGET, || {
                done += 1;
                Err(busy())
            });
            assert_eq!((done, answer.is_err()), (1, true));
        }
    }
}
