//! Whom a marker is for.

use crate::marker::request::check_exists;
use crate::{InstanceId, Office, Result};

/// Whom a marker is for: a generation ([`InstanceId`], whatever its office), or a process of this
/// machine (its pid).
///
/// ```
/// use incumbent::marker::MarkerTarget;
///
/// let myself = MarkerTarget::from(std::process::id());
/// assert!(myself.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerTarget(pub(super) To);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// Of the records of this process, that of the office if it has that one.
    Process(u32, Office),
    Instance(InstanceId),
}

impl MarkerTarget {
    /// The process `pid` as the holder of `office`; of its other records, where it does not hold
    /// that.
    #[must_use]
    pub fn of_office(pid: u32, office: Office) -> Self {
        Self(To::Process(pid, office))
    }

    /// Says whether a process that is meant exists, before a store is made for it. Of a generation
    /// it says nothing.
    ///
    /// # Errors
    /// [`NotRunning`](crate::ErrorKind::NotRunning) when it does not.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            To::Process(pid, _) => check_exists(*pid).map(drop),
            To::Instance(_) => Ok(()),
        }
    }
}

/// A process of our pid namespace: its incarnation on record, else the process itself.
impl From<u32> for MarkerTarget {
    fn from(pid: u32) -> Self {
        Self(To::Process(pid, Office::default()))
    }
}

/// One generation, whatever its office, and wherever it runs.
impl From<InstanceId> for MarkerTarget {
    fn from(instance: InstanceId) -> Self {
        Self(To::Instance(instance))
    }
}
