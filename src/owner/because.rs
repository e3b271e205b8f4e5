//! Reasons, in words.

use crate::liveness::{Evidence, Flags, Observed};

/// The reason of a refusal by a held anchor of a store that is no longer here.
pub(crate) const ORPHANED_ANCHOR: &str = "orphaned_anchor";

/// The reason of a refused takeover: an older gateway acts beside the holder that was to be
/// replaced.
pub(crate) const OLDER_GATEWAY: &str = "older_gateway";

/// The reason of a refusal by one of our own that holds the lock of the directory which the profile
/// stands for: one of another profile, or of another store.
pub(crate) const LEGACY_HOME_IN_USE: &str = "legacy_home_in_use";

/// The reason of a refusal by a takeover or a stop in progress.
pub(crate) const RESERVED: &str = "reserved";

/// The reason of a refused takeover: the holder took over from our party.
pub(crate) const SUPERSEDED: &str = "superseded";

/// The reason of a failed takeover: the holder may not be signalled, and did not follow its marker.
pub(crate) const CANNOT_SIGNAL: &str = "cannot_signal";

/// The reason of a failed takeover: the holder was still there when its time was over.
pub(crate) const TIMED_OUT: &str = "timed_out";

/// Why a verdict was reached, as a clause for people, by what was seen as well.
pub(crate) fn because_seen(reason: &str, flags: Flags, seen: &Evidence) -> &'static str {
    if flags.release_pending {
        return "its owner has released it, and could not write that down yet";
    }
    match (reason, seen.observed()) {
        // A pending release of another process, or an exec.
        ("anchor_released", Observed::Alive) => {
            "the kernel released its lock: the process still runs, but no longer holds it"
        }
        ("anchor_released", Observed::Gone(_)) => {
            "the kernel released its lock: the process has ended"
        }
        _ => because(reason),
    }
}

/// The same where only the reason is known.
pub(crate) fn because(reason: &str) -> &'static str {
    match reason {
        "anchor_held" => "the kernel holds its lock",
        "start_time_matches" => "the recorded process runs, with the recorded start time",
        "command_line_matches" => "the recorded process runs, with the recorded command line",
        "child_lives" => "its `run` is gone, but the command it started still runs",
        "anchor_released" => {
            "the kernel released its lock: the process has ended, or no longer holds it"
        }
        "rebooted" => "the machine was restarted since",
        "no_such_process" => "no process has its pid",
        "zombie" => "all its threads have ended",
        "pid_reused" => "its pid belongs to another process now",
        "identity_mismatch" => "its pid runs something else now",
        "lease_expired" => "its lease has run out",
        "foreign_namespace" => {
            "it was recorded in another pid namespace or on another machine, and what can be seen \
             from here proves neither its life nor its end"
        }
        "not_verifiable" => "neither its lock nor its process can be looked at well enough",
        OLDER_GATEWAY => "it is an older gateway, and acts beside the holder on record",
        LEGACY_HOME_IN_USE => "it holds the lock of the older program's directory",
        ORPHANED_ANCHOR => "it holds a lock from a store that was moved, deleted or replaced",
        "never_claimed" => "nobody has claimed it yet",
        "released" => "its owner released it",
        "exited" => "its command ended",
        "signalled" => "a signal ended it",
        "crashed" => "its command crashed",
        "panicked" => "one of its threads panicked",
        "oom_suspected" => "it was killed, and memory had run out",
        RESERVED => "a takeover or a stop is in progress",
        SUPERSEDED => "it replaced the caller",
        CANNOT_SIGNAL => "it cannot be signalled from here, and ignored the request",
        TIMED_OUT => "it has not ended in its time",
        "planned_stop" => "it was stopped on purpose",
        "taken_over" => "its office was taken over",
        "evicted" => "a person evicted it",
        "re_executed" => "the process re-executed itself",
        "handed_over" => "it handed over to its successor",
        "store_replaced" => "its store was deleted or replaced",
        _ => "for a reason this version does not know",
    }
}
