//! A doorbell without a file: who waits for a commit, or for the right to write, sleeps in the
//! kernel until one of ours rings.
//!
//! The words are in the mapped `-shm`, so they are the same ones for all processes that have that
//! file, in whatever container, and there is nothing to make, to clean up or to run out of
//! (futex(2); the kernel knows a shared word by its inode and offset).
//!
//! [`COMMITS`] is `iChange` of the first copy of the wal-index header, which SQLite counts up with
//! each commit, and writes after the second copy. We only read it. [`TURNS`] is in the space that
//! is set aside for the locks of the `-shm` (<https://sqlite.org/walformat.html#walidxfmt>), which
//! are locks on bytes and never what is in them: no SQLite reads or writes that. Ours counts it up
//! each time it has let the write lock go.
//!
//! A ring is a hint. Nobody owns anything because of one, or because none came: whoever is woken
//! opens a transaction, as if it had looked by chance, and what it reads there decides.
//!
//! * *A stale hint grants nothing.* All that a waiter does with it is to look sooner. A ring that
//!   comes too soon or for somebody else costs one look.
//! * *None is lost between ours.* The word is read before the look. What is committed after that
//!   has changed it, and the kernel compares it once more under its own lock before it lets the
//!   waiter sleep.
//! * *A ring that nobody gives* (SQLite's shell, version 0.1, a process that was killed between its
//!   commit and its ring, a count that has come round to the same number) is made up for by time:
//!   every wait has an end, and whoever waits looks then.
//! * *A store that was replaced* has another `-shm`. Nobody rings at the old one, and those who
//!   wait there find that out by the files, which they compare once a second.
//! * *A mapping that is gone.* [`Bell`] is an address that only the kernel reads, and it refuses
//!   one that leads nowhere (`EFAULT`): then the wait is over at once and says [`Heard::Nothing`].
//!   If something else is mapped there by now, that differs from what was seen, or the wait ends
//!   with its time. We ourselves read and count only in a mapping of a connection that is open, and
//!   for as long as it is borrowed. A forked child has none of them.

use std::cell::Cell;
use std::ffi::{c_long, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::unix::{WAIT_MAX, monotonic};

/// `WalIndexHdr.iChange` of the first copy.
pub(super) const COMMITS: usize = 8;

/// `WalCkptInfo.aLock`, the first four of its eight bytes.
pub(super) const TURNS: usize = 120;

/// A word in somebody's mapping, and what was in it.
#[derive(Clone, Copy, Debug)]
pub struct Bell {
    address: usize,
    seen: u32,
}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something has happened, or may have: look.
    Ring,
    /// Time is up.
    Nothing,
    /// Nobody can wait for it here: the kernel knows no such wait (before 5.16), or a filter
    /// forbids it.
    Deaf,
}

impl Bell {
    /// As it is now.
    pub(super) fn of(word: &AtomicU32) -> Self {
        Self { address: ptr::from_ref(word).addr(), seen: word.load(Ordering::Acquire) }
    }

    /// What was in the word: equal for as long as nothing was committed.
    pub fn seen(self) -> u32 {
        self.seen
    }

    /// Waits until there was a ring since it was read, or somebody has said to stop.
    pub fn wait(self, stop: &Stop, timeout: Duration) -> Heard {
        let word = Waited::of(self.address, self.seen, SHARED);
        wait_for_any(&[word, stop.waited()], timeout)
    }

    /// The same for one who has a lock to wait for, and nobody who would stop him.
    pub fn wait_for_turn(self, timeout: Duration) -> Heard {
        let timeout = timespec(timeout);
        // SAFETY: the kernel reads one word at the address, if it can, and the time.
        let code = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.address,
                libc::FUTEX_WAIT,
                self.seen,
                &raw const timeout,
            )
        };
        heard(code)
    }

    /// Whether the word has changed since. The kernel looks: our mapping may be gone.
    pub fn has_rung(self) -> bool {
        self.wait_for_turn(Duration::ZERO) == Heard::Ring
    }
}

/// Says to those who wait with it that they are to stop.
#[derive(Debug, Default)]
pub struct Stop(AtomicU32);

impl Stop {
    /// Ends every wait that has it, also one that begins later.
    pub fn set(&self) {
        self.0.store(1, Ordering::Release);
        wake(ptr::from_ref(&self.0).addr(), libc::FUTEX_PRIVATE_FLAG, i32::MAX);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Sleeps so long, unless it is set before.
    pub fn wait(&self, timeout: Duration) {
        /// Where the kernel knows no such wait, it is set so much sooner than it is seen.
        const STEP: Duration = Duration::from_millis(50);
        let until = monotonic().saturating_add(timeout);
        while !self.is_set() {
            let left = until.saturating_sub(monotonic());
            if left.is_zero() {
                break;
            }
            if wait_for_any(&[self.waited()], left) == Heard::Deaf {
                std::thread::sleep(left.min(STEP));
            }
        }
    }

    fn waited(&self) -> Waited {
        Waited::of(ptr::from_ref(&self.0).addr(), 0, PRIVATE)
    }
}

/// Wakes all who wait for this word to change.
pub(super) fn ring_all(word: &AtomicU32) {
    wake(ptr::from_ref(word).addr(), 0, i32::MAX);
}

/// Says that a turn is over, and wakes the one who has waited longest.
pub(super) fn next_turn(word: &AtomicU32) {
    word.fetch_add(1, Ordering::Release);
    wake(ptr::from_ref(word).addr(), 0, 1);
}

thread_local! {
    /// Of the write lock that this thread has not got just now, as it was before it tried.
    static TURN: Cell<Option<Bell>> = const { Cell::new(None) };
}

/// What this thread waits for in SQLite's busy handler, if that is the write lock of one of our
/// connections. Once: the next handler may be for something else, of another connection.
pub fn take_turn() -> Option<Bell> {
    TURN.take()
}

pub(super) fn set_turn(turn: Option<Bell>) {
    TURN.set(turn);
}

/// `FUTEX2_SIZE_U32`, and with `FUTEX2_PRIVATE`.
const SHARED: u32 = 2;
const PRIVATE: u32 = 2 | 128;

/// `struct futex_waitv`.
#[repr(C)]
struct Waited {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl Waited {
    fn of(address: usize, value: u32, flags: u32) -> Self {
        Self { value: value.into(), address: address as u64, flags, reserved: 0 }
    }
}

fn wait_for_any(words: &[Waited], timeout: Duration) -> Heard {
    let until = timespec(monotonic().saturating_add(timeout.min(WAIT_MAX)));
    // SAFETY: the kernel reads as many of these as there are, the words at their addresses, if it
    // can, and the time.
    let code = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            words.as_ptr(),
            words.len(),
            0,
            &raw const until,
            libc::CLOCK_MONOTONIC,
        )
    };
    heard(code)
}

fn heard(code: c_long) -> Heard {
    if code >= 0 {
        return Heard::Ring;
    }
    match io::Error::last_os_error().raw_os_error() {
        // It has changed before we slept.
        Some(libc::EAGAIN) => Heard::Ring,
        Some(libc::ETIMEDOUT | libc::EINTR | libc::EFAULT) => Heard::Nothing,
        Some(libc::ENOMEM) => {
            std::thread::sleep(Duration::from_millis(10));
            Heard::Nothing
        }
        // ENOSYS, EPERM, EINVAL: not here.
        _ => Heard::Deaf,
    }
}

fn wake(address: usize, flags: i32, count: i32) {
    // SAFETY: the kernel takes the address for a key and touches nothing.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            address,
            libc::FUTEX_WAKE | flags,
            count,
            ptr::null::<c_void>(),
        );
    }
}

#[allow(clippy::cast_possible_wrap, reason = "at most as long as `WAIT_MAX` after the start")]
fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.min(WAIT_MAX * 2).as_secs() as libc::time_t,
        tv_nsec: c_long::from(time.subsec_nanos() as i32),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_wait_ends_with_a_ring_a_change_a_stop_or_its_time() {
        let (word, stop) = (AtomicU32::new(7), Stop::default());
        let bell = Bell::of(&word);
        if bell.wait(&stop, SHORT) == Heard::Deaf {
            return;
        }
        assert_eq!(bell.wait(&stop, SHORT), Heard::Nothing);
        assert_eq!(bell.wait_for_turn(SHORT), Heard::Nothing);
        // A change alone, as of somebody who does not ring, ends no wait that has begun; but none
        // begins after it.
        word.store(8, Ordering::Release);
        assert_eq!(bell.wait(&stop, LONG), Heard::Ring);
        assert_eq!(bell.wait_for_turn(LONG), Heard::Ring);
        let bell = Bell::of(&word);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| bell.wait(&stop, LONG));
            let takes_turn = scope.spawn(|| bell.wait_for_turn(LONG));
            while !(waits.is_finished() && takes_turn.is_finished()) {
                next_turn(&word);
                ring_all(&word);
                std::thread::yield_now();
            }
        });
        let bell = Bell::of(&word);
        let (stop, stopped) = (Arc::new(stop), Arc::new(Stop::default()));
        let waiter = std::thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || stopped.wait(LONG)
        });
        stopped.set();
        waiter.join().unwrap();
        stop.set();
        assert_eq!(bell.wait(&stop, LONG), Heard::Ring);
        assert!(stop.is_set());
    }

    /// A waiter reads the word, looks, and sleeps: what is rung in between must not be lost.
    #[test]
    fn no_ring_is_lost_between_a_look_and_the_sleep() {
        const TURNS: u32 = 2_000;
        let word = AtomicU32::new(0);
        let done = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                loop {
                    let bell = Bell::of(&word);
                    let seen = done.load(Ordering::SeqCst);
                    if seen == TURNS {
                        return true;
                    }
                    if bell.wait_for_turn(LONG) == Heard::Nothing {
                        return false;
                    }
                }
            });
            for _ in 0..TURNS {
                done.fetch_add(1, Ordering::SeqCst);
                next_turn(&word);
            }
            assert!(waiter.join().unwrap(), "it slept through a ring");
        });
    }

    /// The connection of which it was is closed: the kernel refuses the address, or finds
    /// something else there.
    #[test]
    fn a_bell_whose_mapping_is_gone_ends_the_wait() {
        let length = rustix::param::page_size();
        // SAFETY: a new mapping of our own, which nobody uses after it is unmapped.
        let bell = unsafe {
            let (read_write, of_nobody) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            let page = libc::mmap(ptr::null_mut(), length, read_write, of_nobody, -1, 0);
            assert_ne!(page, libc::MAP_FAILED);
            let bell = Bell::of(&*page.cast::<AtomicU32>());
            libc::munmap(page, length);
            bell
        };
        assert_ne!(bell.wait(&Stop::default(), SHORT), Heard::Ring);
        assert_ne!(bell.wait_for_turn(SHORT), Heard::Ring);
    }

    #[test]
    fn a_turn_is_taken_once() {
        let word = AtomicU32::new(3);
        set_turn(Some(Bell::of(&word)));
        assert_eq!(take_turn().map(Bell::seen), Some(3));
        assert!(take_turn().is_none());
    }
}
