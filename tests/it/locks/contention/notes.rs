//! The witness: notes that the contenders take themselves, each into a file of its own, with the
//! times of the system's monotonic clock from before and after a call.
//!
//! A call that succeeded did so at some moment between its two times. So two holders at once are
//! proven whenever a call about a fence *began* after a call about a higher fence of the same lock
//! had *ended*, and both succeeded. Calls that overlap prove nothing and are never blamed, whoever
//! was stopped or killed in the middle of one.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::LOCKS;

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

    /// Whether the lock was this contender's at some moment of the call.
    fn proves_holding(self) -> bool {
        self.is_grant() || matches!(self, Self::Held | Self::Released)
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

/// Two holders at once, each as one line.
pub fn contradictions(notes: &[Note]) -> Vec<String> {
    let mut found = Vec::new();
    for lock in 0..LOCKS {
        let of_lock = || notes.iter().filter(|note| note.lock == lock);
        let mut proofs: Vec<&Note> = of_lock().filter(|note| note.saw.proves_holding()).collect();
        proofs.sort_by_key(|note| note.ended_ns);
        // The highest fence of all that ended up to each of them.
        let mut highest: Vec<&Note> = Vec::with_capacity(proofs.len());
        for &note in &proofs {
            let before = highest.last().copied();
            highest.push(before.filter(|before| before.fence > note.fence).unwrap_or(note));
        }
        for note in &proofs {
            let before = proofs.partition_point(|proof| proof.ended_ns < note.began_ns);
            if let Some(higher) = before.checked_sub(1).map(|at| highest[at])
                && higher.fence > note.fence
            {
                found.push(format!("two holders: after {higher:?} had ended, {note:?} began"));
            }
        }
        // Lost is lost.
        let losses: HashMap<i64, &Note> =
            of_lock().filter(|note| note.saw == Saw::Lost).map(|note| (note.fence, note)).collect();
        for note in &proofs {
            if let Some(loss) = losses.get(&note.fence)
                && loss.ended_ns < note.began_ns
            {
                found.push(format!("held again: after {loss:?} had ended, {note:?} began"));
            }
        }
    }
    found
}

/// The witness itself: it sees what must not be, and nothing in what may be.
#[test]
fn the_witness_blames_only_what_is_proven() {
    let note = |seat, saw, fence, began_ns, ended_ns| Note {
        seat,
        saw,
        lock: 0,
        fence,
        began_ns,
        ended_ns,
    };
    let first = note(1, Saw::Granted, 10, 0, 5);
    let second = note(2, Saw::Granted, 20, 1, 30);
    for (later, expected) in [
        (note(1, Saw::Held, 10, 31, 32), 1),
        (note(1, Saw::Released, 10, 31, 32), 1),
        // It asked before the other's grant was known: that proves nothing.
        (note(1, Saw::Held, 10, 29, 900), 0),
        (note(1, Saw::Lost, 10, 31, 32), 0),
        (note(1, Saw::ReleasedTooLate, 10, 31, 32), 0),
        (note(2, Saw::Held, 20, 31, 32), 0),
        (note(3, Saw::Granted, 15, 31, 32), 1),
        (note(3, Saw::Granted, 30, 31, 32), 0),
    ] {
        let found = contradictions(&[first.clone(), second.clone(), later.clone()]);
        assert_eq!(found.len(), expected, "{later:?}: {found:#?}");
    }
    let lost = note(1, Saw::Lost, 10, 6, 7);
    let held = note(1, Saw::Held, 10, 8, 9);
    assert_eq!(contradictions(&[first, lost, held]).len(), 1);
}
