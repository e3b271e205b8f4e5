//! Waiting for SQLite's locks: short, jittered, with one budget for a whole operation.
//!
//! SQLite's own handler sleeps up to 100 ms in fixed steps, so that under contention the unlucky
//! wait for tens of milliseconds while the lock is free. Ours sleeps about as long as a transaction
//! takes.
//!
//! A tighter budget around the operation holds as well (a wait's deadline, the 200 ms of a `run`'s
//! look, the 250 ms of a stop inquiry), also for another thread's write (`Inner::lock_writer`).
//! When the budget is spent, `/proc/locks` names the process that holds byte 120 of the `-shm`, and
//! the error says so.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::process::command_line;
use crate::process::command_line::redact;
use crate::store::location;
use crate::sys;
use crate::sys::ProcessState;

/// The byte of the `-shm` file that a WAL writer locks: `UNIX_SHM_BASE` (120) plus
/// `WAL_WRITE_LOCK` (0), <https://sqlite.org/walformat.html#wal_locks>.
const WAL_WRITE_LOCK_OFFSET: u64 = 120;

/// The first byte of the database file that everybody locks who uses it, and that one who wants it
/// for himself alone locks exclusively: `SHARED_FIRST`, `PENDING_BYTE` + 2.
const DATABASE_LOCK_OFFSET: u64 = 0x4000_0002;

/// The byte of the database that our writers lock as well, see [`crate::sys::wal_index`].
const DATABASE_WRITER_OFFSET: u64 = 0x4000_0200;

/// A sleep is at least this long: one small transaction takes about 20 µs.
const SLEEP_MIN: Duration = Duration::from_micros(60);

/// And at most this long before jitter, so that a free lock is noticed within a millisecond or so.
const SLEEP_MAX: Duration = Duration::from_micros(800);

thread_local! {
    static DEADLINE: Cell<Option<Deadline>> = const { Cell::new(None) };
    static JITTER: Cell<u64> = const { Cell::new(0) };
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

/// The busy handler of every connection: true after a sleep, false when the budget is spent.
/// A statement outside [`with_budget`] does not wait at all.
pub(crate) fn handler(attempt: i32) -> bool {
    let Some(deadline) = DEADLINE.get() else { return false };
    let remaining = deadline.remaining();
    if remaining.is_zero() {
        return false;
    }
    std::thread::sleep(sleep_for(attempt).min(remaining));
    true
}

/// Doubles from [`SLEEP_MIN`] to [`SLEEP_MAX`], then takes a random share between half and all of
/// it: contenders that met once do not meet again in step.
fn sleep_for(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt).unwrap_or(0).min(8);
    let longest = SLEEP_MIN.saturating_mul(1 << doublings).min(SLEEP_MAX);
    let half = longest / 2;
    let span_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random() % span_ns)
}

/// xorshift64*, seeded per thread: statistical jitter, no secret.
fn random() -> u64 {
    let mut state = JITTER.get();
    if state == 0 {
        let mut seed = [0; 8];
        // Without a seed all threads sleep in step, which is slow and not wrong.
        let _ = getrandom::fill(&mut seed);
        state = u64::from_ne_bytes(seed) | 1;
    }
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    JITTER.set(state);
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// The error for a spent budget: who holds the store's write lock, and whether it is stopped.
pub(crate) fn error(file: &Path, cause: rusqlite::Error) -> Error {
    let blocker = blocker(file);
    let who = match &blocker {
        Some(blocker) => format!(": its write lock is held by {}", blocker.describe()),
        // What changes hands quickly is held by nobody in the instant of the look.
        None => ": other processes took the write lock again and again; none that is visible holds it now"
            .to_owned(),
    };
    let hint = match &blocker {
        Some(Blocker { pid, state: ProcessState::Stopped, .. }) => {
            format!("continue it (`kill -CONT {pid}`) or end it, then try again")
        }
        Some(_) => "try again; if it stays, look at what that process does".to_owned(),
        None => {
            "try again; if it stays, look for a process in another container that uses the store"
                .to_owned()
        }
    };
    Error::new(ErrorKind::Busy, format!("the store {} stayed busy{who}", file.display()))
        .at(file)
        .with_hint(hint)
        .retry_after(1_000)
        .caused_by(cause)
}

/// Who stands in the way.
#[derive(Debug)]
pub(crate) struct Blocker {
    pub(crate) pid: sys::Pid,
    pub(crate) state: ProcessState,
    command: Option<String>,
}

impl Blocker {
    fn describe(&self) -> String {
        let state = match self.state {
            ProcessState::Stopped => ", which is stopped",
            ProcessState::Traced => ", which is being traced",
            ProcessState::Running | ProcessState::Zombie | ProcessState::Unknown => "",
        };
        match &self.command {
            Some(command) => format!("pid {} ({command}){state}", self.pid),
            None => format!("pid {}{state}", self.pid),
        }
    }
}

/// Who holds the write lock of the store `file`, or the whole database; `None` also where that
/// cannot be seen.
pub(crate) fn blocker(file: &Path) -> Option<Blocker> {
    let shm = location::beside(file, location::SHM);
    let pid = sys::record_lock_holder(&shm, WAL_WRITE_LOCK_OFFSET)
        .or_else(|| sys::record_lock_holder(file, DATABASE_LOCK_OFFSET))
        .or_else(|| sys::record_lock_holder(file, DATABASE_WRITER_OFFSET))?;
    Some(Blocker {
        pid,
        state: sys::process_facts(pid).state,
        command: sys::command_line(pid)
            .map(|arguments| command_line::display(&redact::redact(&arguments))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_stay_within_their_bounds() {
        for attempt in [-1, 0, 1, 5, 1_000, i32::MAX] {
            for _ in 0..100 {
                let sleep = sleep_for(attempt);
                assert!(sleep >= SLEEP_MIN / 2 && sleep <= SLEEP_MAX, "{attempt}: {sleep:?}");
            }
        }
    }

    /// The list of all locks names nobody for a lock of an open file.
    #[test]
    fn whoever_writes_is_named() {
        if !sys::SHOWS_RECORD_LOCKS {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let store = crate::store::Store::open(&path).unwrap();
        assert!(blocker(&path).is_none());
        let named = store.inner.write(|_| Ok(blocker(&path).map(|blocker| blocker.pid))).unwrap();
        assert_eq!(named, Some(std::process::id()));
    }

    #[test]
    fn the_budget_ends_the_wait_and_nests() {
        assert!(!handler(0));
        with_budget(Duration::from_mins(1), || {
            assert!(handler(0));
            with_budget(Duration::ZERO, || {
                assert!(!handler(0));
                with_budget(Duration::from_mins(1), || assert!(!handler(0)));
            });
            assert!(handler(0));
        });
        assert!(!handler(0));
    }
}
