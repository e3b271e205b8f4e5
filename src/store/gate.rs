//! Who is at work on the stores of this process, and how all of them are kept out while it forks.
//!
//! A forked child gets a copy of the memory, and only the thread that forked. What another thread
//! was in the middle of stays so for ever: a mutex that it had locked stays locked, SQLite's own
//! among them. So each thread that works on a store says so by a counter; `close` lets nobody
//! begin, and waits until nobody is at work. Then no thread has locked, or waits for, anything of
//! ours but this gate. It is made of numbers alone: a mutex here would be copied with its queue.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Deadline;
use crate::store::busy::BUSY_BUDGET_DEFAULT;
use crate::{Error, ErrorKind, Result, patience};

/// Between two looks. A fork takes about a millisecond.
const LOOK_EVERY: Duration = Duration::from_micros(200);

pub(super) struct Gate {
    /// How many threads are at work.
    at_work: AtomicUsize,
    /// The process that has closed it; 0 while it is open.
    closed_by: AtomicU32,
    /// The thread that has closed it, by [`this_thread`].
    closed_in: AtomicUsize,
}

/// The one of all stores.
pub(super) static GATE: Gate = Gate::new();

thread_local! {
    /// How often this thread has entered: what it calls inside must not wait for a fork that waits
    /// for it.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// This thread is at work until this is dropped.
#[must_use]
pub(crate) struct Inside {
    gate: &'static Gate,
    _of_this_thread: PhantomData<*const ()>,
}

/// Says that this thread is at work. Waits for a fork that is about to happen, within the budget of
/// this call.
///
/// # Errors
/// [`Busy`](ErrorKind::Busy) where the fork takes longer, and at once in the thread that keeps the
/// gate closed.
pub(crate) fn enter() -> Result<Inside> {
    GATE.enter()
}

/// As [`enter`], for what has to be done anyway: a drop.
pub(super) fn enter_anyway() -> Inside {
    if DEPTH.get() == 0 && GATE.begin().is_err() {
        GATE.at_work.fetch_add(1, Ordering::SeqCst);
    }
    Inside::new(&GATE)
}

impl Gate {
    const fn new() -> Self {
        Self {
            at_work: AtomicUsize::new(0),
            closed_by: AtomicU32::new(0),
            closed_in: AtomicUsize::new(0),
        }
    }

    fn enter(&'static self) -> Result<Inside> {
        if DEPTH.get() == 0 {
            self.begin()?;
        }
        Ok(Inside::new(self))
    }

    fn begin(&self) -> Result<()> {
        let mut until = None;
        loop {
            // In this order, and `close` in the other one: one of the two sees the other.
            self.at_work.fetch_add(1, Ordering::SeqCst);
            if self.closed_by.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            self.at_work.fetch_sub(1, Ordering::SeqCst);
            let until = *until.get_or_insert_with(|| {
                // A thread that has all the time there is does not wait for ever for a fork.
                let until = Deadline::after(BUSY_BUDGET_DEFAULT);
                patience::deadline().map_or(until, |budget| budget.earlier(until))
            });
            if until.has_passed() || self.closed_in.load(Ordering::SeqCst) == this_thread() {
                return Err(is_closed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Keeps everybody out, once those who are at work have finished.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) where they have not finished in time, another thread has closed
    /// it, or this very thread is at work.
    pub(super) fn close(&self, within: Duration) -> Result<()> {
        let until = Deadline::after(within);
        let me = std::process::id();
        if DEPTH.get() > 0 {
            let message = "this thread is inside a call that uses a store";
            return Err(
                Error::new(ErrorKind::Busy, message).with_hint("fork after it has returned")
            );
        }
        while self.closed_by.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            if until.has_passed() || self.closed_in.load(Ordering::SeqCst) == this_thread() {
                return Err(is_closed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.closed_in.store(this_thread(), Ordering::SeqCst);
        while self.at_work.load(Ordering::SeqCst) > 0 {
            if until.has_passed() {
                self.open();
                let message = "other threads of this process still use its stores";
                return Err(Error::new(ErrorKind::Busy, message)
                    .with_hint("try again")
                    .with_retry_after(Duration::from_millis(100)));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Lets everybody in again.
    pub(super) fn open(&self) {
        self.closed_in.store(0, Ordering::SeqCst);
        self.closed_by.store(0, Ordering::SeqCst);
    }

    /// In a forked child: none of the threads that were at work, or waited, is there.
    pub(super) fn begin_process(&self) {
        self.at_work.store(0, Ordering::SeqCst);
        self.open();
    }
}

impl Inside {
    fn new(gate: &'static Gate) -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self { gate, _of_this_thread: PhantomData }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            self.gate.at_work.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn is_closed() -> Error {
    Error::new(ErrorKind::Busy, "the stores of this process are closed for a fork")
        .with_hint("drop what `Store::close_for_fork` returned, in the parent and in the child")
        .with_retry_after(Duration::from_millis(10))
}

/// What no other thread has at the same time: an address of its own.
fn this_thread() -> usize {
    DEPTH.with(|depth| std::ptr::from_ref(depth).addr())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Not that of the stores, which other tests are at work on.
    static GATE: Gate = Gate::new();

    #[test]
    fn nobody_is_at_work_while_it_is_closed() {
        let (entered, has_entered) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            let inside = (GATE.enter().unwrap(), GATE.enter().unwrap());
            entered.send(()).unwrap();
            let _ = may_leave.recv();
            // What it goes on with inside does not wait for the fork.
            drop((GATE.enter().unwrap(), inside));
        });
        has_entered.recv().unwrap();
        let error = GATE.close(Duration::from_millis(5)).unwrap_err();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Busy, Some("try again")), "{error}");
        let closer = std::thread::spawn(|| GATE.close(Duration::from_mins(1)));
        drop(leave);
        worker.join().unwrap();
        closer.join().unwrap().unwrap();
        assert_eq!(GATE.at_work.load(Ordering::SeqCst), 0);

        // Within the budget of the call.
        let late = patience::with_budget(Duration::from_millis(5), || GATE.enter().map(drop));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Busy);
        GATE.open();
        let inside = GATE.enter().unwrap();
        let error = GATE.close(Duration::from_mins(1)).unwrap_err();
        assert_eq!(error.hint(), Some("fork after it has returned"), "{error}");
        drop(inside);

        // It would wait for itself.
        GATE.close(Duration::from_mins(1)).unwrap();
        for error in [GATE.enter().map(drop), GATE.close(Duration::from_mins(1))] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Busy);
        }
        let late = std::thread::spawn(|| GATE.enter().map(drop));
        GATE.open();
        late.join().unwrap().unwrap();
        assert_eq!(GATE.at_work.load(Ordering::SeqCst), 0);
    }
}
