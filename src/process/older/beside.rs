//! The lock of the older program, held beside an office that is claimed through the library.
//!
//! Later versions of the older program remove the files of a process that they do not know. A
//! thread puts back what is removed, within 100 ms, as a `run` does.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::background::BackgroundThread;
use crate::process::older::hold::{Hold, HoldState};
use crate::process::older::marker_file::MarkerFile;
use crate::{Result, state, sys};

/// Between two looks; each costs two `stat` calls.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How the lock was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostLock {
    pub(crate) path: PathBuf,
    /// Who has it now, where that can be seen.
    pub(crate) by: Option<sys::Pid>,
}

/// A held lock, with the thread that looks after it.
#[derive(Debug)]
pub(crate) struct HeldBeside {
    /// Before the lock: it ends with its thread.
    _thread: BackgroundThread,
    hold: Arc<Mutex<Option<Hold>>>,
    lost: Arc<OnceLock<LostLock>>,
}

impl HeldBeside {
    /// Looks after `hold`, and says that the gateway runs.
    pub(crate) fn look_after(hold: Hold) -> Result<Self> {
        hold.say(state::RUNNING);
        let hold = Arc::new(Mutex::new(Some(hold)));
        let lost: Arc<OnceLock<LostLock>> = Arc::default();
        let (seen, noted) = (Arc::clone(&hold), Arc::clone(&lost));
        let look = move || {
            let mut hold = seen.lock();
            let Some(hold) = hold.as_mut() else { return true };
            if hold.is_in_place() {
                return false;
            }
            let path = hold.path();
            match hold.verify() {
                Ok(HoldState::Held) => false,
                Ok(HoldState::MadeAnew | HoldState::RecordRestored) => {
                    tracing::warn!(path = %path.display(), "it was removed, and is there again");
                    false
                }
                Ok(HoldState::LostTo(by)) => {
                    let _ = noted.set(LostLock { path, by });
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "until that works, older gateways may not see this one");
                    false
                }
            }
        };
        let thread = BackgroundThread::start("incumbent-older", LOOK_EVERY, look)?;
        Ok(Self { _thread: thread, hold, lost })
    }

    /// Whether somebody else has the lock by now, and acts as well.
    pub(crate) fn lost(&self) -> Option<&LostLock> {
        self.lost.get()
    }

    /// The stop or takeover of this process that an older program has announced.
    pub(crate) fn marker(&self, now_ms: i64) -> Option<MarkerFile> {
        self.hold.lock().as_ref().and_then(|hold| hold.marker(now_ms))
    }

    /// Lets the lock go: before the office, or whoever claims that next meets us behind it.
    pub(crate) fn let_go(&self) {
        let hold = self.hold.lock().take();
        drop(hold);
    }
}
