//! How a call leaves Python and comes back: without the interpreter's lock, never after the
//! interpreter has begun to end, and with its signals looked at while it waits.
//!
//! No thread of the library ever calls Python. A thread that asks for the interpreter while that
//! ends is stopped in the middle of Rust, by unwinding or for good. So threads leave what they have
//! to say where Python fetches it, and [`prepare_exit`] waits until no call of another thread is on
//! its way back.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use incumbent::{Cancel, ClosedForFork, Error};
use pyo3::prelude::*;

use crate::error::raised;

/// Calls that are outside of Python.
static OUTSIDE: AtomicUsize = AtomicUsize::new(0);

/// The thread that ends the interpreter: 0 as long as none does.
static ENDING_THREAD: AtomicUsize = AtomicUsize::new(0);

/// How often the end of the interpreter looks for calls, 6 s in all: those of a wait end within 100
/// ms, and the others after the busy budget at the latest. An interpreter that never ends would be
/// worse.
const END_LOOKS: u32 = 3_000;

/// Between two looks.
const END_LOOK_EVERY: Duration = Duration::from_millis(2);

fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

fn ends_for_us() -> bool {
    let ending = ENDING_THREAD.load(Ordering::SeqCst);
    ending != 0 && ending != this_thread()
}

/// Ends the thread that gets it, and nobody prints it: it has nothing to do any more.
fn refused() -> PyErr {
    pyo3::exceptions::PySystemExit::new_err("the interpreter is about to end")
}

/// Counts as outside of Python for as long as it lives. Dropped when the interpreter's lock is ours
/// again.
struct Outside;

impl Outside {
    fn enter() -> PyResult<Self> {
        let outside = Self;
        OUTSIDE.fetch_add(1, Ordering::SeqCst);
        // Asked after it was counted: so either the end waits for us, or we see it.
        if ends_for_us() { Err(refused()) } else { Ok(outside) }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // In a forked child the count began again.
        let _ = OUTSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
    }
}

/// Runs `work` without the interpreter's lock. An error of the library becomes an exception.
pub(crate) fn outside<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    let _outside = Outside::enter()?;
    py.detach(work).map_err(|error| raised(py, &error))
}

/// Drops a guard, which writes, without the interpreter's lock. Where the interpreter is gone the
/// guard is dropped as it is.
pub(crate) fn drop_outside<T: Send>(guard: T) {
    let mut guard = Some(guard);
    let _ = Python::try_attach(|py| {
        if let Some(guard) = guard.take() {
            py.detach(|| drop(guard));
        }
    });
}

/// Runs `work`, which waits: it ends within 100 ms of a signal whose handler raises, of a
/// cancellation, and of the interpreter's end.
pub(crate) fn waiting<T: Send>(
    py: Python<'_>,
    canceller: Option<&Canceller>,
    work: impl FnOnce(Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let _outside = Outside::enter()?;
    let raised_by_handler: Arc<Mutex<Option<PyErr>>> = Arc::default();
    let theirs = canceller.map(|it| it.0.clone());
    let slot = Arc::clone(&raised_by_handler);
    let cancel = Cancel::polling(move || {
        if ends_for_us() || theirs.as_ref().is_some_and(Cancel::is_cancelled) {
            return ControlFlow::Break(());
        }
        #[allow(clippy::redundant_closure_for_method_calls, reason = "it is of one lifetime alone")]
        let checked = Python::attach(|py| py.check_signals());
        match (checked, slot.lock()) {
            (Ok(()), _) => ControlFlow::Continue(()),
            (Err(error), Ok(mut slot)) => {
                *slot = Some(error);
                ControlFlow::Break(())
            }
            (Err(_), Err(_)) => ControlFlow::Break(()),
        }
    });
    if canceller.is_some_and(|it| it.0.is_cancelled()) {
        cancel.cancel();
    }
    let done = py.detach(|| {
        let done = work(cancel);
        let error = raised_by_handler.lock().ok().and_then(|mut it| it.take());
        // What was granted meanwhile goes back here, where nobody waits for the interpreter.
        error.map_or(Ok(done), Err)
    });
    let done = done?.map_err(|error| raised(py, &error))?;
    if ends_for_us() {
        drop_outside(done);
        return Err(refused());
    }
    Ok(done)
}

/// Ends waits of other threads: `cancel()` is safe anywhere and any number of times.
#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Canceller(pub(crate) Cancel);

#[pymethods]
impl Canceller {
    #[new]
    fn new() -> Self {
        Self(Cancel::new())
    }

    fn cancel(&self) {
        self.0.cancel();
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// The stores of this process are closed as long as it lives, so that a fork can be followed by
/// opening them again on both sides.
#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct ForkPause(Mutex<Option<ClosedForFork>>);

#[pymethods]
impl ForkPause {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let closed = outside(py, incumbent::Store::close_for_fork)?;
        Ok(Self(Mutex::new(Some(closed))))
    }

    /// Opens them again. After a fork there may be no other thread: nothing is waited for.
    fn end(&self) {
        if let Ok(mut closed) = self.0.try_lock() {
            drop(closed.take());
        }
    }
}

/// Called when the interpreter begins to end, by the thread that ends it. From here on calls of
/// other threads are refused, and those under way come back.
#[pyfunction]
pub(crate) fn prepare_exit(py: Python<'_>) {
    ENDING_THREAD.store(this_thread(), Ordering::SeqCst);
    for _ in 0..END_LOOKS {
        if OUTSIDE.load(Ordering::SeqCst) == 0 {
            return;
        }
        py.detach(|| std::thread::sleep(END_LOOK_EVERY));
    }
}

/// The calls of other threads did not come along into the child.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    OUTSIDE.store(0, Ordering::SeqCst);
    ENDING_THREAD.store(0, Ordering::SeqCst);
}
