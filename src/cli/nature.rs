//! Which verbs ask and which act: what it means when the answer of one cannot be written.

use crate::cli::args::{Doctor, Forensics, Lock, Marker, Verb};

/// What is asked of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// The answer is all that it is for: without it nothing was done.
    Question,
    /// It has been done, whether or not anybody reads that.
    Act,
}

impl Verb {
    /// Whether it asks or acts: what it means when its answer cannot be written.
    pub(crate) fn nature(&self) -> Nature {
        match self {
            Self::Status(_)
            | Self::Wait(_)
            | Self::Desired { desired: None }
            | Self::Marker(Marker::Peek(_))
            | Self::Lock(Lock::Verify(_))
            | Self::Locks(_)
            | Self::History(_)
            | Self::Events(_)
            | Self::Unit(_)
            // What it says is all that its caller keeps.
            | Self::Forensics(Forensics::Snapshot(_) | Forensics::Systemd(_))
            | Self::Doctor(Doctor { fix: false, .. } | Doctor { dry_run: true, .. })
            // A list of files that is cut off must not look whole.
            | Self::Export(_)
            | Self::Path
            | Self::Sql(_)
            | Self::Completions { .. }
            | Self::Man
            | Self::Help { .. } => Nature::Question,
            Self::Run(_)
            | Self::StatusSet(_)
            | Self::Claim(_)
            | Self::Release(_)
            | Self::Evict(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Signal(_)
            | Self::Desired { desired: Some(_) }
            | Self::Marker(Marker::Write(_) | Marker::Consume(_) | Marker::Clear(_))
            | Self::Lock(Lock::Acquire(_) | Lock::Renew(_) | Lock::Release(_))
            | Self::Unlock(_)
            | Self::Forensics(Forensics::Diagnose(_))
            | Self::Doctor(Doctor { fix: true, dry_run: false, .. })
            | Self::Import(_)
            | Self::Backup(_) => Nature::Act,
        }
    }
}
