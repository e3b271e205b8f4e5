//! Who stopped the gateway, and how did it end?
//!
//! What is read here is read while somebody waits for a process to end: nothing blocks, nothing
//! fails, and what could not be found out says why.

use std::fmt;

use serde_json::{Value, json};

pub(crate) mod diagnostic;
mod shutdown;
mod snapshot;
mod survival;
pub(crate) mod systemd;

pub(crate) use shutdown::{Ends, Recorder};
pub use shutdown::{Shutdown, ShutdownWatch};
pub(crate) use snapshot::Received;
pub use snapshot::{ProcessSummary, Sender, Snapshot, snapshot};
pub use systemd::{Manager, SystemdCheck};

pub use diagnostic::Diagnostic;

/// A fact, or why it could not be had.
pub type Fact<T> = Result<T, Unavailable>;

/// Why a fact could not be had, for people. In JSON: `{"unavailable": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(String);

impl Unavailable {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// Why.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.0
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"unavailable": self.0})
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unavailable: {}", self.0)
    }
}
