//! Looks at a process by its pid: without a signal, and without a guess where it cannot look.

use crate::Result;
use crate::error::with_clear_sight;
use crate::process::reference::checked;
use crate::sys;
use crate::sys::{Existence, Pid, ProcessFacts, StartTime};

/// What a look at a process came to.
///
/// ```
/// use incumbent::process::Fact;
///
/// assert_eq!(Fact::Known(7).known(), Some(7));
/// assert_eq!(Fact::<i32>::Gone.known(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact<T> {
    /// This is so, of the process that has the pid now.
    Known(T),
    /// No process has the pid, or all threads of it have ended.
    Gone,
    /// It could not be found out: hidden from this user, or there is no process table of our own
    /// pid namespace. Not the same as gone.
    Unknown,
}

impl<T> Fact<T> {
    /// What is known; `None` where it is gone or unknown.
    #[must_use]
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Gone | Self::Unknown => None,
        }
    }
}

/// Whether a process has this pid now, in our pid namespace. A zombie has ended: it is `Gone`.
///
/// Asked of the kernel (a pidfd, a process handle) and, on Linux, of the process table: both have
/// to say that it is gone, unless there is no table of our own pid namespace to ask. What
/// `os.kill(pid, 0)` and its like ask is less: on Windows signal 0 is Ctrl+C to a whole console
/// group, elsewhere a zombie and a thread pass for a process.
///
/// A stored pid may be another process' by now: see [`ProcessRef`](super::ProcessRef).
///
/// ```
/// use incumbent::process::{self, Existence};
///
/// assert_eq!(process::exists(std::process::id())?, Existence::Present);
/// assert_eq!(process::exists(i32::MAX as u32)?, Existence::Gone);
/// assert!(process::exists(0).is_err());
/// # Ok::<(), incumbent::Error>(())
/// ```
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a number that cannot be a pid (0, or beyond
/// 2^31 - 1); [`Busy`](crate::ErrorKind::Busy) when this process ran short of descriptors or
/// memory while it looked: ask again.
pub fn exists(pid: u32) -> Result<Existence> {
    Ok(facts(pid)?.existence)
}

/// When the kernel started the process that has this pid now. In a unit of the platform's, so that
/// it can be compared, and never turned into wall time: that moves with the clock.
///
/// ```
/// use incumbent::process::{self, Fact};
///
/// let mine = process::start_time(std::process::id())?;
/// assert_eq!(mine, process::start_time(std::process::id())?);
/// assert!(matches!(mine, Fact::Known(_)));
/// # Ok::<(), incumbent::Error>(())
/// ```
///
/// # Errors
/// As [`exists`].
pub fn start_time(pid: u32) -> Result<Fact<StartTime>> {
    let facts = facts(pid)?;
    Ok(match (facts.existence, facts.start_time) {
        (Existence::Gone, _) => Fact::Gone,
        (Existence::Present, Some(time)) => Fact::Known(time),
        (Existence::Present, None) | (Existence::Unknown, _) => Fact::Unknown,
    })
}

/// The command line of the process that has this pid now, argument by argument, as that process
/// shows it: at most 64 KiB, invalid UTF-8 replaced. No arguments: a thread of the kernel.
///
/// It may hold secrets. What this crate stores and shows of command lines is redacted first; this
/// is not.
///
/// ```
/// use incumbent::process::{self, Fact};
///
/// let Fact::Known(mine) = process::command_line(std::process::id())? else { panic!("hidden") };
/// assert_eq!(mine.first(), std::env::args().next().as_ref());
/// # Ok::<(), incumbent::Error>(())
/// ```
///
/// # Errors
/// As [`exists`].
pub fn command_line(pid: u32) -> Result<Fact<Vec<String>>> {
    /// A pid that changes hands between two looks, more often than this, is not worth a third.
    const ATTEMPTS: usize = 3;
    let mut before = facts(pid)?;
    for _ in 0..ATTEMPTS {
        match before.existence {
            Existence::Gone => return Ok(Fact::Gone),
            Existence::Unknown => return Ok(Fact::Unknown),
            Existence::Present => {}
        }
        let words = sys::command_line(pid).or_else(|| sys::is_kernel_thread(pid).then(Vec::new));
        let after = facts(pid)?;
        if after.existence == Existence::Present && is_one(&before, &after) {
            return Ok(words.map_or(Fact::Unknown, Fact::Known));
        }
        before = after;
    }
    Ok(Fact::Unknown)
}

/// Whether two looks met one process: by its start time where its number is not known.
fn is_one(before: &ProcessFacts, after: &ProcessFacts) -> bool {
    match (before.number, after.number) {
        (Some(one), Some(two)) => one == two,
        (Some(_) | None, None) | (None, Some(_)) => {
            before.start_time.is_some() && before.start_time == after.start_time
        }
    }
}

fn facts(pid: u32) -> Result<ProcessFacts> {
    let pid: Pid = checked(pid)?;
    with_clear_sight(|| format!("look at pid {pid}"), || Ok(sys::process_facts(pid)))
}
