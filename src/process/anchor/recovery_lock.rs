//! The lock of the process that repairs a store.

use std::fs::File;
use std::io;
use std::path::Path;

use fs4::{FileExt, TryLockError};

use crate::liveness::AnchorState;
use crate::process::anchor::probing::{probe, retry_interrupted};
use crate::{Error, ErrorKind, Result, sys};
use std::time::Duration;

const RECOVERY_LOCK: &str = "recovery.lock";

/// The right to recover a store: one process at a time has it, until it is dropped.
#[derive(Debug)]
pub(crate) struct RecoveryLock {
    _file: File,
}

impl RecoveryLock {
    /// Whether some process has it.
    pub(crate) fn is_taken(directory: &Path) -> bool {
        probe(&directory.join(RECOVERY_LOCK)) == AnchorState::Held
    }

    /// Takes it in the anchors directory of the store, by a file that stays there.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(RECOVERY_LOCK);
        let file = match sys::create_anchor_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sys::open_anchor_file(&path)
            }
            made => made,
        }
        .map_err(|error| Error::io("open", &path, error))?;
        match retry_interrupted(|| FileExt::try_lock(&file)) {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Busy, "another process is recovering this store now")
                    .at(path)
                    .with_hint("wait for it, then look again")
                    .with_retry_after(Duration::from_secs(1)))
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }
}
