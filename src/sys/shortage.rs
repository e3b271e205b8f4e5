//! What this thread ran short of while it looked.
//!
//! A look that fails because *we* have no descriptor or no memory left says nothing about what was
//! looked at. The functions of [`super`] answer "unknown" then, as they do where something is
//! hidden for good, and note here what was missing. Whoever decides something asks afterwards with
//! [`Looks`], and fails with a temporary error instead: so no look can be forgotten, and no
//! shortage is taken for a fact.

use std::cell::Cell;
use std::io;

use crate::environment::{Fault, planted};

/// What was missing, as the kernel named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    errno: i32,
}

thread_local! {
    /// How many were met by this thread, and the last one.
    static MET: Cell<(u64, Option<Shortage>)> = const { Cell::new((0, None)) };
}

#[cfg(unix)]
const SHORTAGES: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::EIO];

/// `ERROR_TOO_MANY_OPEN_FILES`, `ERROR_NOT_ENOUGH_MEMORY`, `ERROR_OUTOFMEMORY`,
/// `ERROR_NO_SYSTEM_RESOURCES`.
#[cfg(windows)]
const SHORTAGES: [i32; 4] = [4, 8, 14, 1450];

impl Shortage {
    /// The shortage that an error stands for, if it is one.
    pub fn of(error: &io::Error) -> Option<Self> {
        let errno = error.raw_os_error()?;
        let is_one = SHORTAGES.contains(&errno) && !planted(Fault::ShortageIsFact);
        is_one.then_some(Self { errno })
    }
}

/// What the kernel said last to this thread: SQLite says only what it could not do.
pub(super) fn behind_sqlite() -> io::Error {
    io::Error::last_os_error()
}

impl Shortage {
    /// The shortage behind an error of SQLite, which says only what it could not do. To be asked at
    /// once: the reason is what the kernel said last to this thread.
    pub fn behind(error: &rusqlite::Error) -> Option<Self> {
        use rusqlite::ErrorCode as Code;
        use rusqlite::ffi;
        let last = Self::of(&behind_sqlite())?;
        let said = error.sqlite_error()?;
        let is_of_a_look = match said.code {
            Code::CannotOpen => true,
            // What was written half may be lost: that is more than a want of something.
            Code::SystemIoFailure => ![
                ffi::SQLITE_IOERR_WRITE,
                ffi::SQLITE_IOERR_FSYNC,
                ffi::SQLITE_IOERR_DIR_FSYNC,
                ffi::SQLITE_IOERR_TRUNCATE,
                ffi::SQLITE_IOERR_DELETE,
            ]
            .contains(&said.extended_code),
            // So SQLite calls a page that the disk did not give (`SQLITE_IOERR_CORRUPTFS`).
            Code::DatabaseCorrupt => last.is_of_the_disk(),
            _ => false,
        };
        is_of_a_look.then_some(last)
    }

    /// What a person can do: which limit it is, as the kernel and the supervisors call it.
    #[cfg(unix)]
    pub fn hint(self) -> &'static str {
        match self.errno {
            libc::EMFILE => {
                "raise this process's limit on open files (RLIMIT_NOFILE: `ulimit -n`, \
                 `LimitNOFILE=`)"
            }
            libc::ENFILE => "the whole machine has too many open files: look at `fs.file-max`",
            libc::EAGAIN => {
                "raise the limit on processes and threads (RLIMIT_NPROC: `ulimit -u`, `TasksMax=`, \
                 `pids.max`)"
            }
            libc::ENOMEM => {
                "free some memory, or raise its limit (RLIMIT_AS: `ulimit -v`, `MemoryMax=`)"
            }
            _ => "look at the disk (`dmesg`)",
        }
    }

    /// Windows sets no such limits.
    #[cfg(windows)]
    pub fn hint(self) -> &'static str {
        "look at how many handles and how much memory are in use"
    }

    /// EIO: what is short is a disk that reads.
    #[cfg(unix)]
    pub fn is_of_the_disk(self) -> bool {
        self.errno == libc::EIO
    }

    /// Windows has no such word.
    #[cfg(windows)]
    pub fn is_of_the_disk(self) -> bool {
        false
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        io::Error::from_raw_os_error(self.errno).fmt(f)
    }
}

/// Notes an error of a look, if it is a shortage; hands it back.
pub fn note(error: io::Error) -> io::Error {
    if let Some(shortage) = Shortage::of(&error) {
        MET.with(|met| met.set((met.get().0 + 1, Some(shortage))));
    }
    error
}

/// The looks of this thread from one moment on.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    met_before: u64,
}

impl Looks {
    /// From now on.
    pub fn begin() -> Self {
        Self { met_before: MET.with(Cell::get).0 }
    }

    /// What one of them ran short of.
    pub fn shortage(self) -> Option<Shortage> {
        let (met, last) = MET.with(Cell::get);
        last.filter(|_| met > self.met_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shortages_are_noted_and_inner_looks_hide_none_from_outer_ones() {
        let outer = Looks::begin();
        note(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(outer.shortage(), None);
        let inner = Looks::begin();
        note(io::Error::from_raw_os_error(SHORTAGES[0]));
        assert!(inner.shortage().is_some());
        assert_eq!(Looks::begin().shortage(), None);
        assert_eq!(outer.shortage(), inner.shortage());
    }
}
