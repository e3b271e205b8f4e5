//! What the types of the library look like in JSON.

#![allow(dead_code, reason = "most of them only stand for a document, and are never made")]

use std::time::Duration;

use serde_json::{Value, json};

use super::shape::{Shape, document, object, object_of, or_null};
use crate::doctor::{Finding, Severity, StaleRecord};
use crate::exit::Supervisor;
use crate::liveness::{
    AnchorState, Boot, ChildState, CommandLineMatch, CommandLockState, Flags, Keeper, Presence,
    Reason, Relation, RunState, StartTimeMatch, Table,
};
use crate::lock::{HeldLock, IdentityHash, LockReport, PreviousLock, Scope, Slot, UnlockedLock};
use crate::marker::{Marker, MarkerName};
use crate::status::{Conflict, Desired, Event, Incarnation, LastEnd, RefusedStart, Waiter};
use crate::stop::{Evicted, StartsAgain};
use crate::transfer::FileVerdict;
use crate::{InstanceId, Kind, LockName, Office, ProfileName, Verdict};

/// Types that are one JSON type.
macro_rules! plain {
    ($kind:literal: $($type:ty),*) => {
        $(impl Shape for $type {
            type Of = Self;

            fn shape() -> Value {
                json!({"type": $kind})
            }
        })*
    };
}

plain!("boolean": bool);
plain!("integer": i32, i64, u32, u64, usize, InstanceId);
plain!("number": f64);
plain!("string": String, &'static str, ProfileName, Kind, Scope, MarkerName, IdentityHash, Reason);

/// Anything: the caller's own.
impl Shape for Value {
    type Of = Self;

    fn shape() -> Value {
        json!({})
    }
}

impl<S: Shape> Shape for Option<S> {
    type Of = Option<S::Of>;

    fn shape() -> Value {
        or_null(S::shape())
    }
}

impl<S: Shape> Shape for Vec<S> {
    type Of = Vec<S::Of>;

    fn shape() -> Value {
        json!({"type": "array", "items": S::shape()})
    }
}

/// A time, RFC 3339 in UTC with milliseconds; null where no clock can have shown it.
pub(super) struct Time;

impl Shape for Time {
    type Of = i64;

    fn shape() -> Value {
        json!({"type": ["string", "null"], "format": "date-time"})
    }
}

/// The same, where it may not be known.
pub(super) struct MaybeTime;

impl Shape for MaybeTime {
    type Of = Option<i64>;

    fn shape() -> Value {
        Time::shape()
    }
}

/// A length of time that may not be known, in milliseconds.
pub(super) struct Millis;

impl Shape for Millis {
    type Of = Option<Duration>;

    fn shape() -> Value {
        json!({"type": ["integer", "null"]})
    }
}

/// A fact, or why it could not be had.
pub(super) struct Fact<S>(std::marker::PhantomData<S>);

impl<S: Shape> Shape for Fact<S> {
    type Of = crate::forensics::Fact<S::Of>;

    fn shape() -> Value {
        json!({"anyOf": [S::shape(), object_of(&[("unavailable", String::shape())])]})
    }
}

/// An object whose names are the caller's.
pub(super) struct Named<S>(std::marker::PhantomData<S>);

impl<S: Shape> Shape for Named<S> {
    type Of = Self;

    fn shape() -> Value {
        json!({"type": "object", "additionalProperties": S::shape()})
    }
}

/// Enums that are written as words.
macro_rules! words {
    ($($type:ident),*) => {
        $(impl Shape for $type {
            type Of = Self;

            fn shape() -> Value {
                json!({"type": "string", "enum": $type::ALL})
            }
        })*
    };
}

words!(Verdict, Desired, Severity, FileVerdict, Supervisor);

/// Enums without such a list. A variant that is missing here does not compile.
macro_rules! variants {
    ($type:ident: $($variant:ident),*) => {
        impl Shape for $type {
            type Of = Self;

            fn shape() -> Value {
                fn _all(it: $type) {
                    match it {
                        $($type::$variant => {})*
                    }
                }
                json!({"type": "string", "enum": [$($type::$variant),*]})
            }
        }
    };
}

variants!(AnchorState: Held, Free, Missing, Unreadable, None);
variants!(Boot: Same, Rebooted, Unknown);
variants!(Relation: Same, Different, Unknown);
variants!(Table: Visible, NotVisible);
variants!(Presence: Present, Gone, Unknown);
variants!(StartTimeMatch: Equal, Different, Unknown);
variants!(RunState: Running, Stopped, Zombie, Unknown);
variants!(CommandLineMatch: Match, Mismatch, Unreadable, NotRead);
variants!(ChildState: None, Alive, Gone, Unknown);
variants!(CommandLockState: None, Held, Inherited, Free, Unknown);
variants!(Keeper: None, Recorded, EndedAlone);

/// A list of words, to which later versions may add.
impl Shape for Flags {
    type Of = Self;

    fn shape() -> Value {
        Vec::<String>::shape()
    }
}

object!(Office {
    "profile": ProfileName = profile,
    "kind": Kind = kind,
});

object!(Slot {
    "number": u32 = number,
    "of": u32 = of,
});

object!(LockName {
    "scope": Scope = scope,
    "identity_hash": IdentityHash = identity_hash,
});

object!(HeldLock {
    "scope": Scope = name.scope,
    "identity_hash": IdentityHash = name.identity_hash,
    "slot": Option<Slot> = slot,
    "fence": i64 = fence,
    "acquired_at": Time = acquired_at_ms,
    "lease_remaining_ms": Millis = lease_remaining,
    "metadata": Option<Value> = metadata,
});

object!(Marker {
    "id": i64 = id,
    "name": MarkerName = name,
    "instance": Option<InstanceId> = instance,
    "pid": Option<u32> = pid,
    "by": String = by,
    "by_pid": Option<u32> = by_pid,
    "by_uid": Option<u32> = by_uid,
    "reason": Option<String> = reason,
    "written_at": Time = written_at_ms,
    "expires_at": Time = expires_at_ms,
});

object!(LastEnd {
    "reason": Reason = reason,
    "by": Option<String> = by,
    "at": MaybeTime = at_ms,
    "exit_seen_at": MaybeTime = exit_seen_at_ms,
    "exit_code": Option<i32> = exit_code,
    "signal": Option<i32> = signal,
    "detail": Option<String> = detail,
    "summary": String = summary,
    "memory_bytes": Option<u64> = memory_bytes,
});

object!(RefusedStart {
    "at": Time = at_ms,
    "pid": Option<u32> = pid,
    "reason": Reason = reason,
    "lock": Option<LockName> = lock,
    "holder": Option<Office> = holder,
    "holder_pid": Option<u32> = holder_pid,
});

object!(Conflict {
    "profile": Option<String> = profile,
    "pid": Option<u32> = pid,
    "first_at": Time = first_at_ms,
    "last_at": Time = last_at_ms,
    "count": u64 = count,
});

object!(Waiter {
    "profile": Option<ProfileName> = profile,
    "pid": Option<u32> = pid,
    "instance": InstanceId = instance,
    "lock": Option<LockName> = lock,
    "since": Time = since_ms,
});

object!(LockReport {
    "scope": Scope = name.scope,
    "identity_hash": IdentityHash = name.identity_hash,
    "slot": Option<Slot> = slot,
    "profile": Option<ProfileName> = profile,
    "kind": Option<Kind> = kind,
    "pid": Option<u32> = pid,
    "child_pid": Option<u32> = child_pid,
    "instance": InstanceId = instance,
    "fence": i64 = fence,
    "verdict": Verdict = verdict,
    "reason": Reason = reason,
    "flags": Flags = flags,
    "acquired_at": Time = acquired_at_ms,
    "lease_remaining_ms": Millis = lease_remaining,
    "metadata": Option<Value> = metadata,
    "command": Option<String> = command,
    "waiters": Vec<Waiter> = waiters,
    "conflicts": Vec<Conflict> = conflicts,
});

object!(UnlockedLock {
    "scope": Scope = name.scope,
    "identity_hash": IdentityHash = name.identity_hash,
    "slot": Option<Slot> = slot,
    "profile": Option<ProfileName> = profile,
    "pid": Option<u32> = pid,
    "instance": InstanceId = instance,
    "fence": i64 = fence,
    "verdict": Verdict = verdict,
    "reason": Reason = reason,
});

object!(PreviousLock {
    "instance": InstanceId = instance,
    "pid": Option<u32> = pid,
    "since": Time = acquired_at_ms,
    "fence": i64 = fence,
    "metadata": Option<Value> = metadata,
});

object!(Evicted {
    "pid": Option<u32> = pid,
    "profile": Option<ProfileName> = profile,
    "reason": Reason = reason,
    "ended?": Vec<u32> = ended,
    "left_alone?": Vec<u32> = left_alone,
});

object!(StartsAgain {
    "by": String = by,
    "is_certain": bool = is_certain,
    "because": String = because,
    "stop_with": String = stop_with,
});

object!(Incarnation {
    "instance": InstanceId = instance,
    "profile": ProfileName = office.profile,
    "kind": Kind = office.kind,
    "pid": Option<u32> = pid,
    "started_at": Time = started_at_ms,
    "ended_at": MaybeTime = ended_at_ms,
    "exit_seen_at": MaybeTime = exit_seen_at_ms,
    "end_reason": Option<Reason> = end_reason,
    "ended_by": Option<String> = ended_by,
    "exit_code": Option<i32> = exit_code,
    "signal": Option<i32> = signal,
    "detail": Option<String> = detail,
    "summary": Option<String> = summary,
    "restarts": Option<u32> = restarts,
    "command_since": MaybeTime = command_since_ms,
    "memory_bytes": Option<u64> = memory_bytes,
});

object!(Event {
    "id": i64 = id,
    "at": Time = at_ms,
    "event": String = event,
    "profile": Option<String> = profile,
    "kind": Option<String> = kind,
    "instance": Option<InstanceId> = instance,
    "pid": Option<u32> = pid,
    "detail": Value = detail,
});

object!(Finding {
    "id": &'static str = id,
    "severity": Severity = severity,
    "evidence": String = evidence,
    "remedy": Option<String> = remedy,
});

object!(StaleRecord {
    "instance": InstanceId = instance,
    "profile": Option<ProfileName> = profile,
    "kind": Option<Kind> = kind,
    "pid": Option<u32> = pid,
    "locks": Vec<LockName> = locks,
    "lock_count": usize = lock_count,
    "reason": Reason = reason,
});

// What `Report` and those below it write by hand.

document!(EvidenceDocument {
    "anchor": AnchorState,
    "boot": Boot,
    "host": Relation,
    "namespace": Relation,
    "table": Table,
    "process": Presence,
    "start_time": StartTimeMatch,
    "process_id": StartTimeMatch,
    "process_state": RunState,
    "command_line": CommandLineMatch,
    "child": ChildState,
    "command_lock": CommandLockState,
    "keeper": Keeper,
    "anchor_holders": Vec<u32>,
});

document!(RuntimeDocument {
    "state": Option<String>,
    "last_state": Option<String>,
    "state_since": Time,
    "exit_reason": Option<String>,
    "restart_requested": Option<bool>,
    "active_agents": Option<u64>,
    "extra": Value,
    "writer": Option<String>,
    "writer_pid": Option<u32>,
    "updated_at": Time,
    "memory_bytes": Option<u64>,
    "damaged": Vec<String>,
});

document!(PlatformDocument {
    "state": Option<String>,
    "last_state": Option<String>,
    "state_since": Time,
    "error_code": Option<String>,
    "error_message": Option<String>,
    "needs_attention": Option<bool>,
    "retrying_since": Time,
    "extra": Value,
    "writer": Option<String>,
    "writer_pid": Option<u32>,
    "updated_at": Time,
    "damaged": Vec<String>,
});

document!(StatusDocument {
    "profile": ProfileName,
    "kind": Kind,
    "running": bool,
    "verdict": Verdict,
    "reason": Reason,
    "flags": Flags,
    "pid": Option<u32>,
    "child_pid": Option<u32>,
    "instance": Option<InstanceId>,
    "since": Time,
    "state": Option<String>,
    "desired": Option<Desired>,
    "evidence": EvidenceDocument,
    "ready": bool,
    "not_ready": Option<String>,
    "busy": bool,
    "drainable": bool,
    "stale": bool,
    "unresponsive_ms": Millis,
    "heartbeat_at": Time,
    "runtime": Option<RuntimeDocument>,
    "platforms": Named<PlatformDocument>,
    "serves": Vec<ProfileName>,
    "served_by": Option<Office>,
    "locks": Vec<HeldLock>,
    "markers": Vec<Marker>,
    "last_end": Option<LastEnd>,
    "command": Option<String>,
    "version": Option<String>,
    "supervisor": Option<String>,
    "party": Option<String>,
    "stop_budget_ms": Millis,
    "conflicts": Vec<Conflict>,
    "restarts": Option<u32>,
    "command_since": Time,
    "refused": Option<RefusedStart>,
    "waiters": Vec<Waiter>,
});

document!(HolderDocument {
    "profile": Option<ProfileName>,
    "kind": Option<Kind>,
    "pid": Option<u32>,
    "child_pid": Option<u32>,
    "instance": Option<InstanceId>,
    "since": Time,
    "verdict": Verdict,
    "reason": Reason,
    "flags": Flags,
    "command": Option<String>,
    "supervisor": Option<String>,
    "metadata": Value,
    "state": Option<String>,
    "unresponsive_ms": Millis,
    "slot?": Slot,
    "others?": Vec<Value>,
    "db?": Option<String>,
    "legacy_lock?": String,
    "legacy_lock_bytes?": String,
});
