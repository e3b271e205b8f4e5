//! What each verb prints with `--json`, and what `run --on-end` tells: one file for each.
//!
//! A [`document!`] is written by hand: no type is what is printed. What ties it to the program is
//! `tests/it/cli/schemas.rs`, which has every verb print each of its documents, and lets pass
//! neither a field that is missing here, nor one that is missing there, nor one of another type.

#![allow(dead_code, reason = "they only stand for documents, and are never made")]

use serde_json::{Value, json};

use super::shape::{Document, Shape, document, object_of};
use super::types::{Fact, HolderDocument, MaybeTime, Millis, Named, StatusDocument, Time};
use crate::doctor::{Finding, Severity, StaleRecord};
use crate::exit::Supervisor;
use crate::lock::{LockReport, PreviousLock, Slot, UnlockedLock};
use crate::marker::{Marker, MarkerName};
use crate::status::{Desired, Event, Incarnation, LastEnd};
use crate::stop::{Evicted, StartsAgain};
use crate::transfer::FileVerdict;
use crate::{InstanceId, Kind, Office, ProfileName, Reason, Verdict};

/// One of two documents.
pub(super) struct Either<A, B>(std::marker::PhantomData<(A, B)>);

impl<A: Shape, B: Shape> Shape for Either<A, B> {
    type Of = Self;

    fn shape() -> Value {
        json!({"anyOf": [A::shape(), B::shape()]})
    }
}

/// The rows of a query: their names are those of its columns.
struct Rows;

impl Shape for Rows {
    type Of = Self;

    fn shape() -> Value {
        let cell = json!({"type": ["string", "number", "null"]});
        let row = json!({
            "type": "object", "properties": {}, "required": [], "additionalProperties": cell,
        });
        json!({"type": "array", "items": row})
    }
}

document!(Failure {
    "kind": String,
    "message": String,
    "path": Option<String>,
    "path_bytes?": String,
    "hint": Option<String>,
    "retry_after_ms": Millis,
});

document!(Failed {
    "error": Failure,
});

document!(FailedOffice {
    "error": Failure,
    "profile": ProfileName,
    "kind": Kind,
});

document!(PreviousRecord {
    "instance": InstanceId,
    "pid": Option<u32>,
    "since": Time,
});

document!(Claimed {
    "granted": bool,
    "fence": Option<i64>,
    "instance": Option<InstanceId>,
    "reacquired": bool,
    "previous": Option<PreviousRecord>,
    "evicted": Option<Evicted>,
    "holder": Option<HolderDocument>,
    "retry_after_ms": Millis,
    "reason?": String,
});

document!(Acquired {
    "granted": bool,
    "fence": Option<i64>,
    "instance": Option<InstanceId>,
    "reacquired": bool,
    "previous": Option<PreviousLock>,
    "evicted": Option<Evicted>,
    "holder": Option<HolderDocument>,
    "retry_after_ms": Millis,
});

document!(Released {
    "released": bool,
    "instance": Option<InstanceId>,
    "reason": Option<String>,
});

document!(Waited {
    "outcome": String,
    "status": StatusDocument,
});

document!(Said {
    "written": bool,
    "profile": ProfileName,
    "kind": Kind,
    "instance": InstanceId,
});

document!(EvictedRecord {
    "pid": Option<u32>,
    "profile": ProfileName,
    "instance": Option<InstanceId>,
    "verdict": Verdict,
    "reason": Reason,
    "legacy_home?": Option<String>,
    "legacy_home_bytes?": String,
});

document!(Eviction {
    "evicted": Option<EvictedRecord>,
    "holder": Option<HolderDocument>,
});

document!(LeftOverProcess {
    "pid": u32,
    "command": Option<String>,
});

document!(Stopped {
    "profile": ProfileName,
    "kind": Kind,
    "stopped": bool,
    "was_running": bool,
    "pid": Option<u32>,
    "instance": Option<InstanceId>,
    "killed": bool,
    "still_runs": bool,
    "served_by": Option<Office>,
    "recorded": bool,
    "not_recorded": Option<String>,
    "not_desired": Option<String>,
    "holder": Option<HolderDocument>,
    "retry_after_ms": Millis,
    "starts_again": Option<StartsAgain>,
    "reaped": Vec<LeftOverProcess>,
    "left_over": Vec<LeftOverProcess>,
    "ended_left_over?": Vec<u32>,
});

document!(Supervised {
    "by": String,
    "restart_with": Option<String>,
});

document!(Restarted {
    "profile": ProfileName,
    "kind": Kind,
    "served_by": Option<Office>,
    "restarted": bool,
    "instance": Option<InstanceId>,
    "child_pid": Option<u32>,
    "command_since": MaybeTime,
    "restarts": Option<u32>,
    "end": Option<LastEnd>,
    "holder": Option<HolderDocument>,
    "retry_after_ms": Millis,
    "left_to": Option<Supervised>,
});

document!(Signalled {
    "profile": ProfileName,
    "kind": Kind,
    "signal": String,
    "sent": bool,
    "pid": Option<u32>,
    "instance": Option<InstanceId>,
    "holder": Option<HolderDocument>,
    "served_by": Option<Office>,
});

document!(Wish {
    "profile": ProfileName,
    "desired": Option<Desired>,
});

document!(WrittenMarker {
    "found": bool,
    "id": i64,
    "name": MarkerName,
    "instance": Option<InstanceId>,
    "pid": Option<u32>,
    "by": String,
    "by_pid": Option<u32>,
    "by_uid": Option<u32>,
    "reason": Option<String>,
    "written_at": Time,
    "expires_at": Time,
    "written": bool,
    "replaced": Vec<Marker>,
});

document!(FoundMarker {
    "found": bool,
    "id?": i64,
    "name?": MarkerName,
    "instance?": Option<InstanceId>,
    "pid?": Option<u32>,
    "by?": String,
    "by_pid?": Option<u32>,
    "by_uid?": Option<u32>,
    "reason?": Option<String>,
    "written_at?": Time,
    "expires_at?": Time,
    "consumed?": bool,
    "recorded?": bool,
});

document!(ClearedMarkers {
    "cleared": u64,
});

document!(VerifiedLock {
    "held": bool,
    "fence": Option<i64>,
    "instance": Option<InstanceId>,
    "reason": Option<String>,
    "slot?": Slot,
});

document!(RenewedLock {
    "renewed": bool,
    "fence": Option<i64>,
    "instance": Option<InstanceId>,
    "reason": Option<String>,
    "slot?": Slot,
});

document!(ReleasedLock {
    "released": bool,
    "fence": Option<i64>,
    "instance": Option<InstanceId>,
    "reason": Option<String>,
    "slot?": Slot,
});

document!(ReleasedLocks {
    "released": u64,
});

document!(Unlocked {
    "unlocked": Option<UnlockedLock>,
    "holder": Option<HolderDocument>,
});

document!(UnlockedStale {
    "unlocked": Vec<UnlockedLock>,
});

document!(UnitFileDocument {
    "name": String,
    "mode": String,
    "text": String,
    "text_bytes?": String,
});

document!(UnitDocument {
    "supervisor": Supervisor,
    "files": Vec<UnitFileDocument>,
    "warning": Option<String>,
});

document!(Process {
    "pid": u32,
    "name": Fact<String>,
    "state": Fact<String>,
    "ppid": Fact<u32>,
    "uid": Fact<u32>,
    "cmdline": Fact<String>,
});

document!(SignalSender {
    "pid": u32,
    "name": Fact<String>,
    "state": Fact<String>,
    "ppid": Fact<u32>,
    "uid": u32,
    "cmdline": Fact<String>,
    "how": String,
});

document!(SnapshotDocument {
    "boot_id": Fact<String>,
    "cgroup": Fact<String>,
    "limits": Named<Value>,
    "loadavg_1m": Fact<f64>,
    "memory": Named<Value>,
    "parent": Fact<Process>,
    "pid": u32,
    "planned_stop_marker": Fact<Option<Marker>>,
    "ppid": Fact<u32>,
    "recorded": Fact<i64>,
    "self": Process,
    "sender": Fact<SignalSender>,
    "signal": String,
    "signal_num": Option<i32>,
    "systemd_invocation_id": Option<String>,
    "systemd_journal_stream": Option<String>,
    "takeover_marker": Fact<Option<Marker>>,
    "takeover_marker_for_self": Fact<Option<bool>>,
    "tracer": Fact<Option<Process>>,
    "tracer_pid": Fact<Option<u32>>,
    "ts": f64,
    "ts_monotonic": f64,
    "under_systemd": Fact<bool>,
    "unit": Fact<Option<String>>,
});

document!(SystemdDocument {
    "unit": Option<String>,
    "timeout_stop_sec": Value,
    "drain_timeout": f64,
    "expected_min": f64,
    "mismatch": Option<bool>,
    "manager": Option<String>,
    "reason": Option<String>,
    "advice": Option<String>,
});

document!(DiagnoseDocument {
    "pid": Option<u32>,
    "reason": Option<String>,
    "log": String,
    "timeout_ms": u64,
    "log_bytes?": String,
});

document!(ActDocument {
    "check": String,
    "act": String,
    "outcome": String,
    "why": Option<String>,
    "record": Option<StaleRecord>,
});

document!(RepairedFinding {
    "id": String,
    "severity": Severity,
    "evidence": String,
    "remedy": Option<String>,
    "act": Option<String>,
    "acts": Vec<ActDocument>,
    "left": bool,
});

document!(ImportedDocument {
    "file": String,
    "verdict": FileVerdict,
    "reason": String,
    "pid": Option<u32>,
    "detail": Option<String>,
    "file_bytes?": String,
});

document!(ExportedDocument {
    "file": String,
    "verdict": String,
    "detail": Option<String>,
    "file_bytes?": String,
});

document!(Account {
    "profile": ProfileName,
    "kind": Kind,
    "instance": InstanceId,
    "pid": u32,
    "ended_at": Time,
    "end_reason": Reason,
    "ended_by": Option<String>,
    "exit_code": Option<i32>,
    "signal": Option<i32>,
    "detail": Option<String>,
    "summary": String,
    "stderr": Option<String>,
    "restarting": bool,
    "db": String,
    "db_bytes?": String,
});

document!(BackupDocument {
    "path": String,
    "backup": String,
    "bytes": u64,
    "path_bytes?": String,
    "backup_bytes?": String,
    "restore": Vec<String>,
    "restored": String,
});

document!(PathDocument {
    "path": String,
    "path_bytes?": String,
});

/// By the names of their files: a verb, with a dash where it has two words.
pub(super) fn documents() -> Vec<Document> {
    type Many<T> = Vec<Either<T, FailedOffice>>;
    vec![
        Document::of::<Failed>("error", "What any verb prints that failed"),
        Document::of::<Claimed>("run", "What `run` prints that did not start its command"),
        Document::of::<Account>("on-end", "What a program reads that `run --on-end` starts"),
        Document::of::<Either<StatusDocument, Vec<StatusDocument>>>(
            "status",
            "An office; with --all an array of them",
        ),
        Document::of::<Waited>("wait", "What came of a wait"),
        Document::of::<Said>("status-set", "What was said, and of whom"),
        Document::of::<Claimed>("claim", "A claim, granted or refused"),
        Document::of::<Released>("release", "A release"),
        Document::of::<Eviction>("evict", "The record that was ended, or who refuses that"),
        Document::of::<Either<Stopped, Many<Stopped>>>(
            "stop",
            "What came of a stop; with --all an array, one element for each office",
        ),
        Document::of::<Either<Restarted, Many<Restarted>>>(
            "restart",
            "What came of a restart; with --all an array, one element for each office",
        ),
        Document::of::<Signalled>("signal", "What came of a signal"),
        Document::of::<Wish>("desired", "Whether a profile is set to run"),
        Document::of::<WrittenMarker>("marker-write", "The marker that was written"),
        Document::of::<FoundMarker>("marker-peek", "The marker, if one is open"),
        Document::of::<FoundMarker>("marker-consume", "The marker that was consumed, if one was"),
        Document::of::<ClearedMarkers>("marker-clear", "How many markers were cleared"),
        Document::of::<Acquired>("lock-acquire", "A lock, granted or refused"),
        Document::of::<RenewedLock>("lock-renew", "Whether a lease was renewed"),
        Document::of::<VerifiedLock>("lock-verify", "Whether a lock is held"),
        Document::of::<Either<ReleasedLock, ReleasedLocks>>(
            "lock-release",
            "Whether a lock was released; with --all how many",
        ),
        Document::of::<Vec<LockReport>>("locks", "The locks on record, with their holders"),
        Document::of::<Either<Unlocked, UnlockedStale>>(
            "unlock",
            "The lock that was removed, or who refuses that; with --stale all that were",
        ),
        Document::of::<Vec<Incarnation>>("history", "Who held an office, the newest first"),
        Document::of::<Either<Event, Vec<Event>>>(
            "events",
            "What happened, the oldest first; with --follow one event in each line",
        ),
        Document::of::<UnitDocument>("unit", "The files that a supervisor reads"),
        Document::of::<SnapshotDocument>("forensics-snapshot", "Who sends a signal, and the rest"),
        Document::of::<SystemdDocument>("forensics-systemd", "Whether a unit waits long enough"),
        Document::of::<DiagnoseDocument>("forensics-diagnose", "Who writes the report, and where"),
        Document::of::<Vec<Either<Finding, RepairedFinding>>>(
            "doctor",
            "What was found; with --fix also what was done about it",
        ),
        Document::of::<Vec<ImportedDocument>>("import", "What each file was taken for"),
        Document::of::<Vec<ExportedDocument>>("export", "What was done with each file"),
        Document::of::<BackupDocument>("backup", "The copy of the store"),
        Document::of::<PathDocument>("path", "Where the store is"),
        Document::of::<Rows>("sql", "The rows of a query, by the names of its columns"),
    ]
}
