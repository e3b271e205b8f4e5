//! What the library answers, as JSON.

use incumbent::forensics::Shutdown;
use incumbent::lock::{GrantedLock, Unlocked};
use incumbent::marker::Marker;
use incumbent::process::LeftOver;
use incumbent::status::{Fate, Instance};
use incumbent::stop::{
    Eviction, Restart, Signalled, StopAnswer, StopCause, StopOutcome, StopReport,
};
use incumbent::{Error, Holder, Lost, Released, Standing, Tenure};
use serde::Serialize;
use serde_json::{Value, json};

/// `value` as it leaves for Python. What the library makes is always a document.
pub(crate) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// A refusal.
pub(crate) fn holder(holder: &Holder) -> Value {
    json!({
        "message": holder.to_string(),
        "advice": holder.advice(),
        "wanted": holder.wanted.to_string(),
        "holder": holder,
        "argv": holder.argv,
        "home": holder.home,
        "is_this_process": holder.is_this_process,
        "retry_after": holder.retry_after.map(|it| it.as_secs_f64()),
    })
}

fn error(error: &Error) -> Value {
    json!({"kind": error.kind(), "message": error.to_string(), "hint": error.hint()})
}

/// How something was lost; null as long as it is held.
pub(crate) fn standing(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Held => None,
        Standing::Lost(lost) => Some(text(&how_lost(lost))),
    }
}

pub(crate) fn how_lost(lost: &Lost) -> Value {
    let (reason, by) = match lost {
        Lost::StoreReplaced => ("store_replaced".to_owned(), None),
        Lost::Lock { reason, by, .. } | Lost::Ended { reason, by } => {
            (reason.as_str().to_owned(), by.clone())
        }
        Lost::LegacyLock { by_pid, .. } => {
            ("legacy_lock".to_owned(), by_pid.map(|pid| format!("pid {pid}")))
        }
        _ => ("unknown".to_owned(), None),
    };
    json!({"message": lost.to_string(), "reason": reason, "by": by})
}

/// What came of a release: its word, and the error where it is pending.
pub(crate) fn released(released: &Released) -> String {
    let (word, why) = match released {
        Released::Free => ("free", None),
        Released::StillShared => ("still_shared", None),
        Released::WasLost => ("was_lost", None),
        Released::Pending(why) => ("pending", Some(error(why))),
    };
    text(&json!({"released": word, "error": why}))
}

/// What is known of an office that was granted.
pub(crate) fn tenure(tenure: &Tenure) -> Value {
    let locks: Vec<GrantedLock> = tenure.locks();
    json!({
        "profile": tenure.office().profile,
        "kind": tenure.office().kind,
        "instance": tenure.instance(),
        "reacquired": tenure.reacquired(),
        "evicted": tenure.evicted(),
        "replaced": tenure.replaced().map(|it| json!({
            "pid": it.pid, "instance": it.instance, "killed": it.killed,
            "left_over": left_over(&it.left_over),
        })),
        "locks": locks,
    })
}

fn left_over(all: &[LeftOver]) -> Vec<Value> {
    all.iter().map(|it| json!({"pid": it.pid, "command": it.command})).collect()
}

pub(crate) fn stop(report: &StopReport) -> Value {
    let mut document = json!({"outcome": null, "pid": null, "instance": null, "killed": false});
    let outcome = match &report.outcome {
        StopOutcome::NotRunning => "not_running",
        StopOutcome::Served { pid, by, .. } => {
            document["pid"] = json!(pid);
            document["by"] = json!(by);
            "served"
        }
        StopOutcome::OfAnother(of) => {
            document["holder"] = holder(of);
            "of_another"
        }
        StopOutcome::Ended { instance, pid, killed, still_runs } => {
            document["instance"] = json!(instance);
            document["pid"] = json!(pid);
            document["killed"] = json!(killed);
            document["still_runs"] = json!(still_runs);
            "stopped"
        }
        StopOutcome::StillRunning(of, why) => {
            document["holder"] = holder(of);
            document["why"] = json!(why);
            "still_running"
        }
        StopOutcome::InProgress(of) => {
            document["holder"] = holder(of);
            "in_progress"
        }
        _ => "unknown",
    };
    document["outcome"] = json!(outcome);
    document["not_recorded"] = json!(report.not_recorded.as_ref().map(error));
    document["left_over"] = json!(left_over(&report.left_over));
    document["reaped"] = json!(left_over(&report.reaped));
    document["starts_again"] = json!(report.starts_again());
    document
}

pub(crate) fn restart(restart: &Restart) -> Value {
    let (outcome, more) = match restart {
        Restart::Done(instance) => ("done", json!({"instance": instance})),
        Restart::Ended(instance, end) => ("ended", json!({"instance": instance, "end": end})),
        Restart::NotRunning => ("not_running", json!({})),
        Restart::Orphaned(of) => ("orphaned", json!({"holder": holder(of)})),
        Restart::Served(by) => ("served", json!({"by": by})),
        Restart::InProgress(of) => ("in_progress", json!({"holder": holder(of)})),
        Restart::NotServed(of) => ("not_served", json!({"holder": holder(of)})),
        Restart::Withdrawn(of) => ("withdrawn", json!({"holder": holder(of)})),
        Restart::LeftToSupervisor { holder: of, .. } => {
            ("left_to_supervisor", json!({"holder": holder(of)}))
        }
        _ => ("unknown", json!({})),
    };
    let mut document = more;
    document["outcome"] = json!(outcome);
    document
}

pub(crate) fn eviction(eviction: &Eviction) -> Value {
    let mut document = match eviction {
        Eviction::Done { instance, pid, verdict, reason, .. } => {
            json!({"instance": instance, "pid": pid, "verdict": verdict, "reason": reason})
        }
        Eviction::Refused(of) => json!({"holder": holder(of)}),
        _ => json!({}),
    };
    document["outcome"] = json!(match eviction {
        Eviction::Nothing => "nothing",
        Eviction::Done { .. } => "done",
        Eviction::LegacyHomeForgotten(_) => "legacy_home_forgotten",
        Eviction::OrphansRemoved(_) => "orphans_removed",
        Eviction::Refused(_) => "refused",
        _ => "unknown",
    });
    document
}

pub(crate) fn unlocked(unlocked: &Unlocked) -> Value {
    match unlocked {
        Unlocked::Nothing => json!({"outcome": "nothing"}),
        Unlocked::Done(lock) => json!({"outcome": "done", "lock": lock}),
        Unlocked::OrphansRemoved(count) => json!({"outcome": "orphans_removed", "count": count}),
        Unlocked::Refused(of) => json!({"outcome": "refused", "holder": holder(of)}),
        _ => json!({"outcome": "unknown"}),
    }
}

pub(crate) fn signalled(signalled: &Signalled) -> Value {
    match signalled {
        Signalled::Sent { instance, pid } => {
            json!({"outcome": "sent", "instance": instance, "pid": pid})
        }
        Signalled::NotRunning => json!({"outcome": "not_running"}),
        Signalled::Served(by) => json!({"outcome": "served", "by": by}),
        Signalled::NotSent(of, why) => {
            json!({"outcome": "not_sent", "holder": holder(of), "why": why})
        }
        _ => json!({"outcome": "unknown"}),
    }
}

pub(crate) fn instance(instance: &Instance) -> Value {
    let mut document = json!({
        "instance": instance.id,
        "office": instance.office,
        "pid": instance.pid,
        "child_pid": instance.child_pid,
        "started_at_ms": instance.started_at_ms,
        "has_ended": instance.has_ended(),
    });
    match &instance.fate {
        Fate::Live(judgement) => {
            document["flags"] = json!(judgement.flags);
            document["evidence"] = json!(judgement.evidence);
        }
        Fate::Ended(end) => {
            document["end_reason"] = json!(end.reason);
            document["ended_at_ms"] = json!(end.at_ms);
            document["ended_by"] = json!(end.by);
            document["exit_code"] = json!(end.exit_code);
            document["signal"] = json!(end.signal);
            document["detail"] = json!(end.detail);
        }
    }
    document
}

fn stop_answer(answer: &StopAnswer) -> Value {
    let (cause, marker): (_, Option<&Marker>) = match &answer.cause {
        StopCause::TakenOver(marker) => ("taken_over", Some(marker)),
        StopCause::PlannedStop(marker) => ("planned_stop", Some(marker)),
        StopCause::Unplanned => ("unplanned", None),
        _ => ("unknown", None),
    };
    json!({"cause": cause, "marker": marker, "recorded": answer.recorded})
}

pub(crate) fn asked_to_stop(answer: &StopAnswer) -> String {
    text(&stop_answer(answer))
}

pub(crate) fn shutdown(shutdown: &Shutdown) -> String {
    text(&json!({
        "cause": shutdown.cause,
        "exit_code": shutdown.exit_code,
        "stop": stop_answer(&shutdown.stop),
        "may_mean_reload": shutdown.snapshot.may_mean_reload(),
        "log_line": shutdown.snapshot.to_log_line(),
        "snapshot": shutdown.snapshot,
    }))
}
