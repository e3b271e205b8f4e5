//! A thread that sleeps until something is committed, and says so.
//!
//! What it says is a hint (`sys/wal_index/bell.rs`): whoever is told looks, and looks by himself
//! at least once a second all the same. It tells of commits of this version, by whatever process;
//! not of those of SQLite's shell or of version 0.1. Where nobody can be woken by one
//! ([`Listener::hears`]), everybody looks as often as he would without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Deadline;
use crate::patience::with_budget;
use crate::store::watcher::Watcher;
use crate::sys::wal_index::{Heard, Stop};

/// So many rings are told of one right after the other; from then on they are told of together,
/// each pause, until there was none for a while. A store in which a hundred things happen each
/// second would keep everybody awake who waits for one of them.
const TOLD_AT_ONCE: u32 = 16;
const CALM_AFTER: Duration = Duration::from_secs(1);

/// Between two looks for a word to wait for: the connection may have been closed, for a fork, and
/// another `-shm` made since.
const LISTEN_AGAIN: Duration = Duration::from_mins(1);

/// The same where there is none.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How long a look for the word may take.
const BELL_WITHIN: Duration = Duration::from_millis(250);

/// The thread, which ends with this.
#[derive(Debug)]
pub(crate) struct Listener {
    creator_pid: u32,
    stop: Arc<Stop>,
    hears: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The last one to let go of it is not that thread: closing a connection may have to wait for a
    /// fork, and the thread that forks is the one that may.
    _watcher: Arc<Watcher>,
}

impl Listener {
    /// Calls `tell` once now, and with each commit from now on; when there are many, each `pause`.
    /// `None` where no thread can be had: then everybody looks by himself.
    pub(crate) fn start(
        watcher: &Arc<Watcher>,
        pause: impl Fn() -> Duration + Send + 'static,
        mut tell: impl FnMut() + Send + 'static,
    ) -> Option<Self> {
        /// What a look needs, in a build without optimisations, twice.
        const STACK: usize = 256 << 10;
        // Where there is no word to wait for, there need not be a thread.
        if !watcher.tells() {
            return None;
        }
        let (stop, hears) = (Arc::<Stop>::default(), Arc::<AtomicBool>::default());
        let (seen_stop, says_hears) = (Arc::clone(&stop), Arc::clone(&hears));
        let (watcher, kept) = (Arc::clone(watcher), Arc::clone(watcher));
        let thread = std::thread::Builder::new()
            .name("incumbent-bell".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let mut rush = Rush::new();
                let mut told = None;
                while !seen_stop.is_set() {
                    // Not for long behind a fork, whose thread may be the one that ends us.
                    let bell = with_budget(BELL_WITHIN, || watcher.bell()).ok().flatten();
                    let Some(bell) = bell else {
                        says_hears.store(false, Ordering::Release);
                        seen_stop.wait(TRY_AGAIN);
                        continue;
                    };
                    if told.replace(bell.seen()) != Some(bell.seen()) {
                        tell();
                        if rush.is_on() {
                            seen_stop.wait(pause());
                        }
                    }
                    says_hears.store(true, Ordering::Release);
                    if bell.wait(&seen_stop, LISTEN_AGAIN) == Heard::Deaf {
                        break;
                    }
                }
                says_hears.store(false, Ordering::Release);
            })
            .map_err(|error| tracing::debug!(%error, "commits are noticed a little later"))
            .ok()?;
        let creator_pid = std::process::id();
        Some(Self { creator_pid, stop, hears, thread: Some(thread), _watcher: kept })
    }

    /// Whether we are told of commits: else whoever waits for them looks often.
    pub(crate) fn hears(&self) -> bool {
        self.hears.load(Ordering::Acquire) && self.creator_pid == std::process::id()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // In a forked child there is no such thread.
        if self.creator_pid != std::process::id() {
            return std::mem::forget(thread);
        }
        self.stop.set();
        let _ = thread.join();
    }
}

/// Whether there are many, one after the other.
struct Rush {
    count: u32,
    calm_at: Deadline,
}

impl Rush {
    fn new() -> Self {
        Self { count: 0, calm_at: Deadline::after(CALM_AFTER) }
    }

    /// Counts one more.
    fn is_on(&mut self) -> bool {
        self.count = if self.calm_at.has_passed() { 0 } else { self.count.saturating_add(1) };
        self.calm_at = Deadline::after(CALM_AFTER);
        self.count >= TOLD_AT_ONCE
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::Store;

    const SOON: Duration = Duration::from_secs(20);

    fn listen(store: &Store) -> (Option<Listener>, mpsc::Receiver<()>) {
        let watcher = Arc::new(Watcher::new(&store.inner).unwrap());
        let (sender, told) = mpsc::channel();
        let pause = Duration::from_millis(1);
        (Listener::start(&watcher, move || pause, move || sender.send(()).unwrap_or(())), told)
    }

    fn change(store: &Store) {
        drop(store.profile("work").unwrap().claim().unwrap());
    }

    #[test]
    fn a_commit_of_ours_is_told_of_and_its_end_ends_the_thread() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let (listener, told) = listen(&store);
        told.recv_timeout(SOON).unwrap();
        let listener = listener.unwrap();
        while !listener.hears() {
            std::thread::yield_now();
        }
        while told.try_recv().is_ok() {}
        change(&store);
        told.recv_timeout(SOON).unwrap();
        // More than are told of one by one.
        (0..50).for_each(|_| change(&store));
        told.recv_timeout(SOON).unwrap();
        drop(listener);
        while told.try_recv().is_ok() {}
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    /// A wait that goes on in the kernel does not need the connection any more, and finds the next
    /// one when that is closed for a fork.
    #[test]
    fn it_goes_on_when_its_connection_was_closed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let (listener, told) = listen(&store);
        let listener = listener.unwrap();
        told.recv_timeout(SOON).unwrap();
        while !listener.hears() {
            std::thread::yield_now();
        }
        // As `Store::close_for_fork` does.
        for connection in store.inner.watchers.lock().iter() {
            *connection.upgrade().unwrap().lock() = None;
        }
        for _ in 0..3 {
            while told.try_recv().is_ok() {}
            change(&store);
            told.recv_timeout(SOON).unwrap();
        }
        drop(listener);
    }

    /// Symptom of what must not be: a store that was replaced is listened to for ever. A ring at
    /// the old one is not to be waited for; the files tell, once a second.
    #[test]
    fn a_store_that_was_replaced_rings_no_bell_of_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let store = Store::open(&path).unwrap();
        let (listener, told) = listen(&store);
        told.recv_timeout(SOON).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let file = directory.path().join(format!("state.db{suffix}"));
            std::fs::rename(&file, file.with_extension(format!("old{suffix}"))).unwrap();
        }
        let _ = store.inner.is_in_place();
        let next = Store::open(&path).unwrap();
        while told.try_recv().is_ok() {}
        change(&next);
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        assert!(!store.inner.is_in_place());
        drop(listener);
    }
}
