//! Waiting for SQLite's locks: short, jittered, with one budget for a whole operation.
//!
//! SQLite's own handler sleeps up to 100 ms in fixed steps, so that under contention the unlucky
//! wait for tens of milliseconds while the lock is free. Ours waits for the doorbell that whoever
//! lets the write lock go rings for the one who has waited longest (`sys/wal_index/bell.rs`). A
//! hundred who wait sleep then; if each looked as often as a transaction takes, they would have no
//! time for anything else. Where nobody rings, each sleeps about as long as a transaction takes.
//!
//! A ring gives nobody the lock: it is asked for again, and whoever comes first has it. Those who
//! do not ring (SQLite's shell, version 0.1, a process that was killed) are not waited for long
//! while they are the ones who write: see [`PATIENCE_US`].
//!
//! A tighter budget around the operation holds as well (a wait's deadline, the 200 ms of a `run`'s
//! look, the 250 ms of a stop inquiry), also for another thread's write (`Inner::lock_writer`).
//! When the budget is spent, `/proc/locks` names the process that holds byte 120 of the `-shm`, and
//! the error says so.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::process::command_line;
use crate::process::command_line::redact;
use crate::store::location;
use crate::sys::ProcessState;
use crate::sys::wal_index::{Heard, take_turn};
use crate::{Error, ErrorKind, patience, sys};

/// How long one operation waits for SQLite's locks in all. A transaction takes well under a
/// millisecond, so whoever waits this long is kept out by a stopped or stuck process.
pub(super) const BUSY_BUDGET_DEFAULT: Duration = Duration::from_secs(5);

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

/// How long this process waits for a ring before it looks by itself the first time, in
/// microseconds. It doubles with each ring that came, and halves with each that did not: who is
/// rung for keeps its place in the queue, and who meets writers that do not ring polls as before.
static PATIENCE_US: AtomicU32 = AtomicU32::new(RING_WITHIN_MIN);
const RING_WITHIN_MIN: u32 = 500;
const RING_WITHIN_MAX: u32 = 25_000;

/// Whether somebody rings, as this wait has met it. Where the lock changes hands without a ring,
/// whoever waits for one loses it to those who poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Unknown,
    Times(u32),
    No,
}

impl Rung {
    fn once_more(self) -> Self {
        match self {
            Self::Times(times) => Self::Times(times.saturating_add(1)),
            Self::Unknown | Self::No => Self::Times(1),
        }
    }
}

thread_local! {
    /// A thread waits for one lock at a time.
    static RUNG: Cell<Rung> = const { Cell::new(Rung::Unknown) };
}

/// The busy handler of every connection: true after a sleep, false when the budget is spent.
/// A statement outside [`patience::with_budget`] does not wait at all.
pub(crate) fn handler(attempt: i32) -> bool {
    let turn = take_turn();
    let Some(deadline) = patience::deadline() else { return false };
    let remaining = deadline.remaining();
    if remaining.is_zero() {
        return false;
    }
    if let Some(turn) = turn {
        let rung = if attempt == 0 { Rung::Unknown } else { RUNG.get() };
        let patience = PATIENCE_US.load(Ordering::Relaxed);
        let within = match rung {
            Rung::Unknown => ring_within(patience, 0),
            Rung::Times(times) => ring_within(patience, times),
            Rung::No => sleep_for(attempt),
        };
        let (rung, now) = match turn.wait_for_turn(within.min(remaining)) {
            Heard::Ring => (rung.once_more(), patience.saturating_mul(2)),
            // The queue is long, and all in it are ours.
            Heard::Nothing if turn.has_rung() => (rung.once_more(), patience),
            Heard::Nothing => (Rung::No, patience / 2),
            Heard::Deaf => {
                std::thread::sleep(sleep_for(attempt).min(remaining));
                (Rung::No, RING_WITHIN_MIN)
            }
        };
        RUNG.set(rung);
        PATIENCE_US.store(now.clamp(RING_WITHIN_MIN, RING_WITHIN_MAX), Ordering::Relaxed);
        return true;
    }
    std::thread::sleep(sleep_for(attempt).min(remaining));
    true
}

/// Doubles with each ring, too, up to twice the longest patience, with a random share.
fn ring_within(patience_us: u32, rings: u32) -> Duration {
    let longest = patience_us.saturating_mul(1 << rings.min(6)).min(2 * RING_WITHIN_MAX);
    Duration::from_micros(u64::from(fastrand::u32(longest / 2..=longest)))
}

/// Doubles from [`SLEEP_MIN`] to [`SLEEP_MAX`], then takes a random share between half and all of
/// it: contenders that met once do not meet again in step.
fn sleep_for(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt).unwrap_or(0).min(8);
    let longest = SLEEP_MIN.saturating_mul(1 << doublings).min(SLEEP_MAX);
    let half = longest / 2;
    let span_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(fastrand::u64(..span_ns))
}

/// The error for a spent budget: who holds the store's write lock, and whether it is stopped.
pub(crate) fn error(file: &Path, cause: rusqlite::Error) -> Error {
    let blocker = blocker(file);
    let who = match &blocker {
        Some(blocker) => format!(": its write lock is held by {}", blocker.describe()),
        // What changes hands quickly is held by nobody in the instant of the look.
        None => ": other processes kept taking the write lock; no visible process holds it now"
            .to_owned(),
    };
    let hint = match &blocker {
        Some(Blocker { pid, state: ProcessState::Stopped, .. }) => {
            format!("continue it (`kill -CONT {pid}`) or end it, then try again")
        }
        Some(_) => "try again; if it stays busy, check what that process does".to_owned(),
        None => {
            "try again; if it stays busy, look for a process in another container that uses the \
             store"
                .to_owned()
        }
    };
    Error::new(ErrorKind::Busy, format!("the store {} stayed busy{who}", file.display()))
        .at(file)
        .with_hint(hint)
        .with_retry_after(Duration::from_secs(1))
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
    use crate::clock::Deadline;
    use crate::patience::with_budget;

    #[test]
    fn sleeps_stay_within_their_bounds() {
        for attempt in [-1, 0, 1, 5, 1_000, i32::MAX] {
            for _ in 0..100 {
                let sleep = sleep_for(attempt);
                assert!(sleep >= SLEEP_MIN / 2 && sleep <= SLEEP_MAX, "{attempt}: {sleep:?}");
            }
        }
        for (patience, rings) in [(RING_WITHIN_MIN, 0), (RING_WITHIN_MIN, 9), (RING_WITHIN_MAX, 9)]
        {
            let wait = ring_within(patience, rings).as_micros();
            let bounds = u128::from(RING_WITHIN_MIN / 2)..=u128::from(2 * RING_WITHIN_MAX);
            assert!(bounds.contains(&wait), "{rings}: {wait}");
        }
    }

    /// Symptom: beside a script that writes again and again with SQLite's own means, a write of
    /// ours waited for ten times as long as that has the lock, because it slept for longer and
    /// longer until a ring that nobody gives.
    #[test]
    fn writers_that_do_not_ring_are_met_as_often_as_they_pause() {
        const HOLDS: Duration = Duration::from_millis(20);
        const WRITES: usize = 21;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let store = crate::store::Store::open(&path).unwrap();
        let foreign = rusqlite::Connection::open(&path).unwrap();
        foreign.busy_timeout(Duration::from_secs(30)).unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let in_time = std::thread::scope(|scope| {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
                    std::thread::sleep(HOLDS);
                    foreign.execute_batch("COMMIT").unwrap();
                    std::thread::sleep(2 * SLEEP_MAX);
                }
            });
            let in_time = (0..WRITES).filter(|_| {
                let until = Deadline::after(6 * HOLDS);
                store.inner.write(|_| Ok(())).is_ok() && !until.has_passed()
            });
            let in_time = in_time.count();
            is_over.store(true, Ordering::Relaxed);
            in_time
        });
        assert!(in_time > WRITES / 2, "{in_time} of {WRITES}");
    }

    /// A writer that does not ring (SQLite's own) and one that does are both waited for, and a
    /// ring comes long before the time that is waited for none.
    #[test]
    fn whoever_waits_for_the_write_lock_is_woken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let store = crate::store::Store::open(&path).unwrap();
        let foreign = rusqlite::Connection::open(&path).unwrap();
        let holds = Duration::from_millis(30);
        for is_ours in [false, true] {
            std::thread::scope(|scope| {
                let (begun, has_begun) = std::sync::mpsc::channel();
                let (path, foreign) = (&path, &foreign);
                if is_ours {
                    // Another process' connection is like one of another handle.
                    scope.spawn(move || {
                        let access =
                            crate::store::pragmas::Access::Write(crate::Durability::Normal);
                        let other = crate::store::pragmas::open(path, access).unwrap();
                        with_budget(Duration::from_secs(5), || {
                            crate::store::pragmas::apply(&other, access).unwrap();
                            other.execute_batch("BEGIN IMMEDIATE").unwrap();
                        });
                        begun.send(()).unwrap();
                        std::thread::sleep(holds);
                        other.execute_batch("ROLLBACK").unwrap();
                    });
                    has_begun.recv().unwrap();
                    store.inner.write(|_| Ok(())).unwrap();
                } else {
                    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
                    let waits = scope.spawn(|| store.inner.write(|_| Ok(())));
                    std::thread::sleep(holds);
                    foreign.execute_batch("COMMIT").unwrap();
                    waits.join().unwrap().unwrap();
                }
            });
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
