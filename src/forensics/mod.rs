//! Who stopped the gateway, and how did it end?
//!
//! What is read here is read while somebody waits for a process to end: nothing blocks, nothing
//! fails, and what could not be found out says why.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let store = incumbent::Store::open(directory.path().join("state.db"))?;
//! use incumbent::Claim;
//! use incumbent::exit::{ExitCause, ExitCodes, Supervisor};
//!
//! let Claim::Granted(tenure) = store.profile("default")?.claim()? else { unreachable!() };
//! let codes = ExitCodes::of(Supervisor::None);
//! // A signal that the gateway has caught by itself:
//! let snapshot = tenure.snapshot(Some(15));
//! assert_eq!(snapshot.signal, "SIGTERM");
//! assert!(snapshot.recorded.is_ok(), "it stands in the table `shutdowns`");
//! // A panic of any thread, once that was asked for:
//! tenure.record_panics();
//! let _ = std::thread::spawn(|| panic!("out of luck")).join();
//! let cause = tenure.cause(None, &codes);
//! assert_eq!(cause, ExitCause::Panicked);
//! assert_eq!(codes.code(cause, 0, None), 101);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod diagnostic;
pub(crate) mod host;
pub(crate) mod shutdown;
pub(crate) mod snapshot;
pub(crate) mod starts_again;
mod survival;
pub(crate) mod systemd;
pub(crate) mod unit_kill;

use std::fmt;

use serde::Serialize;

pub use crate::forensics::diagnostic::Diagnostic;
pub use crate::forensics::host::{HostSignal, ShutdownFeed};
pub use crate::forensics::shutdown::{Shutdown, ShutdownWatch};
pub use crate::forensics::snapshot::process::ProcessSummary;
pub use crate::forensics::snapshot::received::Sender;
pub use crate::forensics::snapshot::{Snapshot, snapshot};
pub use crate::forensics::starts_again::StartAgain;
pub use crate::forensics::systemd::{Manager, SystemdCheck, own_unit, unit_name};
pub use crate::span::Span;

/// A fact, or why it could not be read. In JSON the fact, or `{"unavailable": "..."}`.
pub type Fact<T> = Result<T, Unavailable>;

/// Why a fact could not be had, for people. In JSON: `{"unavailable": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unavailable {
    #[serde(rename = "unavailable")]
    why: String,
}

impl Unavailable {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }

    /// Why, as a clause for people.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unavailable: {}", self.why)
    }
}

fn unavailable<T>(why: impl Into<String>) -> Fact<T> {
    Err(Unavailable::new(why))
}
