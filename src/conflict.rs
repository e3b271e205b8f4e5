//! Who wanted what another one held, counted.

use serde_json::{Value, json};

use crate::clock::rfc3339;

/// Contenders remembered for each office and lock: the latest, in the order of their holders. The wall clock
/// alone forgets nobody, see [`crate::instance::prune_history`].
pub(crate) const KEPT: i64 = 64;

/// One contender that a holder's presence refused.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The contender's profile, if it has one.
    pub profile: Option<String>,
    /// Its last pid.
    pub pid: i64,
    /// When it was refused first: Unix milliseconds, wall time.
    pub first_at_ms: i64,
    /// When it was refused last.
    pub last_at_ms: i64,
    /// How often.
    pub count: i64,
}

impl Conflict {
    /// The conflict as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "profile": self.profile,
            "pid": self.pid,
            "first_at": rfc3339(self.first_at_ms),
            "last_at": rfc3339(self.last_at_ms),
            "count": self.count,
        })
    }
}
