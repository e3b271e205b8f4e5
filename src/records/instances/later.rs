//! Columns that later versions have added: what they say, and how their absence reads.

pub(super) const ABSENT_BEFORE_SCHEMA_7: &str = "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL";

pub(super) const ABSENT_BEFORE_SCHEMA_10: &str = "NULL, NULL, NULL, NULL";

pub(super) const ABSENT_BEFORE_SCHEMA_11: &str = "NULL";

/// Where the time at which an end was seen is recorded; see `seen_dead` in `end.rs`.
pub(super) const EXIT_SEEN: &str = "exit_seen_at_ms";

/// The command of a `run` apart from the run itself: since schema 10, and unknown in older rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLife {
    /// How often it was started again within this tenure.
    pub(crate) restarts: Option<u32>,
    /// Since when it has been running: Unix milliseconds, and the boot clock.
    pub(crate) since_ms: Option<i64>,
    pub(crate) since_boot_ms: Option<i64>,
}
