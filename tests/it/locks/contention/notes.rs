//! Notes that the contenders take themselves, each into a file of its own, with the times of the
//! system's monotonic clock from before and after a call.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The system's monotonic clock in nanoseconds: the same for all processes.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// What a contender saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    /// The lock was granted.
    Granted,
    /// The same, and its owner before was evicted because it was stopped.
    GrantedByEviction,
    /// A `verify` or `renew` that said: held.
    Held,
    /// One that said: lost.
    Lost,
    /// A release that found it held.
    Released,
    /// A release that came too late.
    ReleasedTooLate,
    /// No lock within the longest wait.
    Starved,
}

impl Saw {
    const ALL: [Self; 7] = [
        Self::Granted,
        Self::GrantedByEviction,
        Self::Held,
        Self::Lost,
        Self::Released,
        Self::ReleasedTooLate,
        Self::Starved,
    ];

    pub fn is_grant(self) -> bool {
        matches!(self, Self::Granted | Self::GrantedByEviction)
    }

    pub fn is_loss(self) -> bool {
        matches!(self, Self::Lost | Self::ReleasedTooLate)
    }
}

/// One note.
#[derive(Clone, Debug)]
pub struct Note {
    pub seat: usize,
    pub saw: Saw,
    pub lock: usize,
    pub fence: i64,
    pub began_ns: u64,
    pub ended_ns: u64,
}

/// The notes of one contender. Each is written at once: a killed contender loses none but the last.
pub struct Notes {
    pub file: File,
}

impl Notes {
    pub fn path(directory: &Path, seat: impl std::fmt::Display) -> std::path::PathBuf {
        directory.join(format!("notes-{seat}"))
    }

    /// In the working directory, which is the sandbox'.
    pub fn of(seat: &str) -> Self {
        let path = Self::path(Path::new("."), seat);
        Self { file: File::options().append(true).create(true).open(path).unwrap() }
    }

    pub fn take(&self, saw: Saw, lock: usize, fence: i64, began_ns: u64) {
        let line = format!("{saw:?} {lock} {fence} {began_ns} {}\n", now_ns());
        (&self.file).write_all(line.as_bytes()).unwrap();
    }

    pub fn read(directory: &Path, seat: usize) -> Vec<Note> {
        let text = std::fs::read_to_string(Self::path(directory, seat)).unwrap_or_default();
        // The last one may be cut short by a kill.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [saw, lock, fence, began_ns, ended_ns] = words[..] else { panic!("{line}") };
                Note {
                    seat,
                    saw: Saw::ALL.into_iter().find(|one| format!("{one:?}") == saw).unwrap(),
                    lock: lock.parse().unwrap(),
                    fence: fence.parse().unwrap(),
                    began_ns: began_ns.parse().unwrap(),
                    ended_ns: ended_ns.parse().unwrap(),
                }
            })
            .collect()
    }
}
