//! The states of a gateway that others understand; any other word is as good, for people.

/// It is not ready yet.
pub const STARTING: &str = "starting";
/// It serves. Only in this state it counts as busy or drainable.
pub const RUNNING: &str = "running";
/// It finishes what it has begun, and takes nothing new.
pub const DRAINING: &str = "draining";
/// It serves, but not all of it works.
pub const DEGRADED: &str = "degraded";
/// It has stopped. Stays true when its process has ended.
pub const STOPPED: &str = "stopped";
/// It could not start. Stays true when its process has ended.
pub const STARTUP_FAILED: &str = "startup_failed";

/// Whether a state outlives the process that said so. All others end with it: the dead are not
/// running, nor draining.
#[must_use]
pub fn is_final(state: &str) -> bool {
    matches!(state, STOPPED | STARTUP_FAILED)
}

pub(crate) const USUAL: [&str; 6] =
    [STARTING, RUNNING, DRAINING, DEGRADED, STOPPED, STARTUP_FAILED];

/// What gateways say of a platform, beside these.
pub(crate) const USUAL_OF_PLATFORMS: [&str; 7] =
    ["connected", "connecting", "disconnected", "reconnecting", "retrying", "paused", "fatal"];
