//! Why a file cannot grow: a full disk, a quota, a limit of our own.

use std::io;

use super::shortage::behind_sqlite;

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The disk is full, or what this user may have of it.
    Disk,
    /// No file of ours may be larger (`RLIMIT_FSIZE`, `ulimit -f`, systemd's `LimitFSIZE=`).
    FileSizeLimit,
}

impl NoRoom {
    /// What an error stands for, if it is one of these.
    pub fn of(error: &io::Error) -> Option<Self> {
        use io::ErrorKind as Io;
        match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => Some(Self::Disk),
            Io::FileTooLarge => Some(Self::FileSizeLimit),
            _ => None,
        }
    }

    /// The same for an error of SQLite, which knows only ENOSPC by a name of its own. To be asked
    /// at once, as [`Shortage::behind`](super::Shortage::behind).
    pub fn behind(error: &rusqlite::Error) -> Option<Self> {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code()? {
            Code::DiskFull => Some(Self::Disk),
            Code::CannotOpen | Code::SystemIoFailure => Self::of(&behind_sqlite()),
            _ => None,
        }
    }

    /// What a person can do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Disk => "check free space and that the disk is writable",
            Self::FileSizeLimit => {
                "raise the limit on the size of a file (RLIMIT_FSIZE: `ulimit -f`, `LimitFSIZE=`)"
            }
        }
    }
}
