//! What to run, and how a run ended.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::process::exit_code::{ExitCause, ExitCodes};
use crate::run::notice::Notice;
use crate::{ClaimOptions, Error, Holder, OpenOptions, Profile, ProfileName, Result, Store};

/// What to run, and how.
pub(crate) struct Run {
    /// The program and its arguments; not empty.
    pub(crate) command: Vec<OsString>,
    pub(crate) store: OpenOptions,
    pub(crate) profile: ProfileName,
    pub(crate) home: Option<PathBuf>,
    pub(crate) claim: ClaimOptions,
    /// Whether a profile that is set to stay stopped is not started.
    pub(crate) respects_desired: bool,
    /// Whether a start waits where those before it failed.
    pub(crate) backs_off: bool,
    pub(crate) exit_codes: ExitCodes,
    /// Hears what happens, in the threads of the run. From [`Notice::Started`] on it must not wait
    /// for a reader.
    pub(crate) tell: Arc<dyn Fn(&Notice<'_>) + Send + Sync>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// How a run came to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    /// For what supervises this process.
    pub(crate) exit_code: i32,
    pub(crate) how: How,
}

#[derive(Debug)]
pub(crate) enum How {
    /// The command ended, or a signal ended the wait for the office.
    Ended,
    /// The profile is set to stay stopped.
    StaysStopped,
    /// Somebody else holds the office or a lock.
    Refused(Box<Holder>),
    /// The command cannot be executed, or the office was lost before it was started.
    Failed(Error),
}

impl Finished {
    pub(crate) fn ended(exit_code: i32) -> Self {
        Self { exit_code, how: How::Ended }
    }
}

impl Run {
    /// The profile in `store`, the first one or one that took its place.
    pub(super) fn profile(&self, store: &Store) -> Result<Profile> {
        let profile = store.profile(&self.profile)?;
        self.home.iter().try_fold(profile, |profile, home| profile.with_home(home))
    }

    pub(super) fn stays_stopped(&self) -> Finished {
        let exit_code = self.exit_codes.code(ExitCause::DesiredStopped, 0, None);
        Finished { exit_code, how: How::StaysStopped }
    }
}
