//! Units: what systemd, launchd, s6 or docker is told of a command that runs in an office.
//!
//! Nothing is written to a disk and nobody is asked: [`Unit::files`] says what the files hold. How
//! long a stop may take comes from [`stop_budget`](crate::stop::StopPhases), which the check of a
//! unit asks as well; which exit code means what, from [`ExitCodes`](crate::exit::ExitCodes).

mod docker;
mod launchd;
mod plan;
mod s6;
mod systemd;

pub use crate::unit::plan::{Unit, UnitFile};

use crate::process::exit_code::Supervisor;
use crate::{Error, Result};

impl Unit {
    /// The files for the supervisor, in the order in which a person reads them. Their text begins
    /// with what to do with them, where it may hold comments.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty command, a name that is not
    /// one of a service, a stop budget over an hour, a word that the file cannot hold,
    /// [`Unit::says_ready`] and [`Unit::socket`] for anything but systemd, and
    /// [`Supervisor::None`].
    pub fn files(&self) -> Result<Vec<UnitFile>> {
        self.check()?;
        match self.supervisor {
            Supervisor::Systemd => systemd::files(self),
            Supervisor::Launchd => launchd::files(self),
            Supervisor::S6 => Ok(s6::files(self)),
            Supervisor::Docker => docker::files(self),
            Supervisor::None => Err(Error::invalid("there is no unit for this supervisor")
                .with_hint("one of systemd, launchd, s6, docker")),
        }
    }
}
