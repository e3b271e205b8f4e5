//! Reasons, in words.

use crate::owner::holder::{
    CANNOT_SIGNAL, LEGACY_HOME_IN_USE, OLDER_GATEWAY, ORPHANED_ANCHOR, RESERVED, SUPERSEDED,
    TIMED_OUT,
};

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
        SUPERSEDED => "it took over from whoever asks",
        CANNOT_SIGNAL => "it may not be signalled from here, and did not follow the marker",
        TIMED_OUT => "it has not ended in its time",
        "planned_stop" => "it was stopped on purpose",
        "taken_over" => "its office was taken over",
        "evicted" => "a person evicted it",
        "re_executed" => "the process executed itself anew",
        "store_replaced" => "its store was deleted or replaced",
        _ => "of a reason recorded by another version",
    }
}
