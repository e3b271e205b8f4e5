//! What is true of an office: one function for every surface that asks.
//!
//! "Running" is never stored. It is derived at the time of the question, from the kernel's answer
//! about the recorded owner; a row alone never says it.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::claimant::{judge_record, look};
use crate::clock::rfc3339;
use crate::command_line;
use crate::conflict::Conflict;
use crate::error::Result;
use crate::holder::because;
use crate::instance::{self, Record};
use crate::liveness::{Evidence, Flags, Judgement, Lease, Verdict};
use crate::marker_table::{self, Marker};
use crate::names::{InstanceId, Office};
use crate::observe::{LiveCommandLine, needs_command_line};
use crate::office::{Desired, conflicts, desired};
use crate::scoped::{self, HeldLock};
use crate::store::Inner;
use crate::sys;

/// How often a question starts over because the office changed hands while it was looking.
const ATTEMPTS: usize = 4;

/// What is true of an office, and why.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which office.
    pub office: Office,
    /// Whether its holder is known to be alive.
    pub running: bool,
    /// `alive`, `dead` or `unknown`.
    pub verdict: &'static str,
    /// Why, in snake case; `never_claimed` when there is no record.
    pub reason: String,
    /// What else is to be known of the holder.
    pub flags: Flags,
    /// The recorded process, in its own pid namespace. Of a dead holder too: check `running`.
    pub pid: Option<sys::Pid>,
    /// The command that a `run` supervises.
    pub child_pid: Option<sys::Pid>,
    /// The generation this is about.
    pub instance: Option<InstanceId>,
    /// When it was granted the office: Unix milliseconds, wall time.
    pub since_ms: Option<i64>,
    /// What an operator wants: `running`, `stopped`, or nothing was said.
    pub desired: Option<Desired>,
    /// What was seen.
    pub evidence: Evidence,
    /// Who holds the anchor of a dead process (flag `anchor_leaked`): a child that it forked.
    pub anchor_holders: Vec<sys::Pid>,
    /// The holder's redacted command line.
    pub command: Option<String>,
    /// The holder's own version.
    pub version: Option<String>,
    /// What supervises it.
    pub supervisor: Option<String>,
    /// Who keeps starting it.
    pub party: Option<String>,
    /// How long it may take to stop, in milliseconds.
    pub stop_budget_ms: Option<u64>,
    /// The scoped locks that were taken from this incarnation and are on record as held.
    pub locks: Vec<HeldLock>,
    /// What was asked of this incarnation by markers that are open.
    pub markers: Vec<Marker>,
    /// How the incarnation before this one ended, or this one if it has.
    pub last_end: Option<LastEnd>,
    conflicts: Value,
}

/// How an incarnation ended.
#[derive(Clone, Debug)]
pub struct LastEnd {
    /// Why, in snake case.
    pub reason: String,
    /// Who did it, if they said so.
    pub by: Option<String>,
    /// Unix milliseconds, wall time.
    pub at_ms: i64,
}

impl Report {
    /// There is no record, or no store.
    #[must_use]
    pub fn never_claimed(office: Office) -> Self {
        Self {
            office,
            running: false,
            verdict: "dead",
            reason: "never_claimed".to_owned(),
            flags: Flags::default(),
            pid: None,
            child_pid: None,
            instance: None,
            since_ms: None,
            desired: None,
            evidence: Evidence::nothing_seen(),
            anchor_holders: Vec::new(),
            command: None,
            version: None,
            supervisor: None,
            party: None,
            stop_budget_ms: None,
            locks: Vec::new(),
            markers: Vec::new(),
            last_end: None,
            conflicts: json!([]),
        }
    }

    fn of(office: &Office, record: &Record) -> Self {
        Self {
            pid: record.pid,
            child_pid: record.child_pid,
            instance: Some(record.id),
            since_ms: Some(record.started_at_ms),
            command: (!record.argv.is_empty()).then(|| command_line::display(&record.argv)),
            version: record.version.clone(),
            supervisor: record.supervisor.clone(),
            party: record.party.clone(),
            stop_budget_ms: record.stop_budget_ms,
            ..Self::never_claimed(office.clone())
        }
    }

    fn judged(self, judged: &Judgement) -> Self {
        Self {
            running: matches!(judged.verdict, Verdict::Alive(_)),
            verdict: judged.verdict.as_str(),
            reason: judged.verdict.reason().to_owned(),
            flags: judged.flags,
            evidence: judged.evidence,
            ..self
        }
    }

    /// Why the verdict was reached, as a clause for people.
    #[must_use]
    pub fn because(&self) -> &'static str {
        because(&self.reason)
    }

    /// The report as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "profile": self.office.profile.as_str(),
            "kind": self.office.kind.as_str(),
            "running": self.running,
            "verdict": self.verdict,
            "reason": self.reason,
            "flags": self.flags.names(),
            "pid": self.pid,
            "child_pid": self.child_pid,
            "instance": self.instance.map(InstanceId::as_i64),
            "since": self.since_ms.and_then(rfc3339),
            "state": null,
            "desired": self.desired.map(Desired::as_str),
            "evidence": {
                "anchor": self.evidence.anchor,
                "boot": self.evidence.boot,
                "namespace": self.evidence.namespace,
                "process": self.evidence.process,
                "start_time": self.evidence.start_time,
                "process_state": self.evidence.process_state,
                "command_line": self.evidence.command_line,
                "anchor_holders": self.anchor_holders,
            },
            "busy": false,
            "drainable": false,
            "stale": false,
            "unresponsive_ms": null,
            "runtime": null,
            "platforms": {},
            "serves": [],
            "locks": self.locks.iter().map(HeldLock::to_json).collect::<Vec<_>>(),
            "markers": self.markers.iter().map(Marker::to_json).collect::<Vec<_>>(),
            "last_end": self.last_end.as_ref().map(|end| json!({
                "reason": end.reason,
                "by": end.by,
                "at": rfc3339(end.at_ms),
            })),
            "command": self.command,
            "version": self.version,
            "supervisor": self.supervisor,
            "party": self.party,
            "stop_budget_ms": self.stop_budget_ms,
            "conflicts": self.conflicts,
        })
    }
}

/// What one snapshot of the store says of an office.
struct Recorded {
    live: Option<Record>,
    last_ended: Option<Record>,
    desired: Option<Desired>,
    conflicts: Value,
    locks: Vec<HeldLock>,
    markers: Vec<Marker>,
}

fn recorded(inner: &Inner, connection: &Connection, office: &Office) -> Result<Recorded> {
    let live = instance::live(connection, office)?;
    let last_ended = instance::last_ended(connection, office)?;
    let desired = desired(connection, &office.profile)?;
    let (conflicts, locks) = match &live {
        Some(record) => (
            conflicts(connection, office, record.id)?,
            scoped::held_by(inner, connection, record.id)?,
        ),
        None => (Vec::new(), Vec::new()),
    };
    let conflicts = conflicts.iter().map(Conflict::to_json).collect();
    let markers = match &live {
        Some(record) if marker_table::exists(connection)? => {
            marker_table::open_for(connection, inner.boot_time(), record.id)?
        }
        Some(_) | None => Vec::new(),
    };
    Ok(Recorded { live, last_ended, desired, conflicts, locks, markers })
}

/// Answers "is it up?". Reads only, and never waits for a writer.
pub(crate) fn report(inner: &Inner, office: &Office) -> Result<Report> {
    let mut known = inner.read(|connection| recorded(inner, connection, office))?;
    for _ in 0..ATTEMPTS {
        let Some(record) = known.live else { break };
        let judged = look(inner, &record, Lease::None);
        if matches!(judged.verdict, Verdict::Dead(_)) {
            // It may have let go, and another one come, since the snapshot was taken.
            let again = inner.read(|connection| recorded(inner, connection, office))?;
            if again.live.as_ref().map(|live| live.id) != Some(record.id) {
                known = again;
                continue;
            }
        }
        let last_end = known.last_ended.as_ref().and_then(last_end);
        let leaked = record.anchor.as_ref().filter(|_| judged.flags.anchor_leaked);
        let anchor_holders = leaked.map_or_else(Vec::new, |anchor| {
            sys::processes_with_open_file(&inner.location.anchors.join(anchor))
        });
        return Ok(Report {
            desired: known.desired,
            last_end,
            anchor_holders,
            conflicts: known.conflicts,
            locks: known.locks,
            markers: known.markers,
            ..Report::of(office, &record).judged(&judged)
        });
    }
    let Some(ended) = known.last_ended else {
        return Ok(Report { desired: known.desired, ..Report::never_claimed(office.clone()) });
    };
    Ok(Report {
        reason: ended.end_reason.clone().unwrap_or_default(),
        desired: known.desired,
        last_end: last_end(&ended),
        ..Report::of(office, &ended)
    })
}

/// The recorded pid of a holder that is known to live.
pub(crate) fn running_pid(inner: &Inner, office: &Office) -> Result<Option<sys::Pid>> {
    let mut dead: Option<InstanceId> = None;
    for _ in 0..ATTEMPTS {
        let Some(record) = inner.read(|connection| instance::live(connection, office))? else {
            return Ok(None);
        };
        // Dead, and still the one on record: nobody has come in its place meanwhile.
        if dead == Some(record.id) {
            return Ok(None);
        }
        let mut judged = judge_record(inner, &record, Lease::None, &LiveCommandLine::not_read());
        if needs_command_line(&judged.evidence) {
            judged = judge_record(inner, &record, Lease::None, &LiveCommandLine::read(&record));
        }
        match judged.verdict {
            Verdict::Alive(_) => return Ok(record.pid),
            Verdict::Unknown(_) => return Ok(None),
            Verdict::Dead(_) => dead = Some(record.id),
        }
    }
    Ok(None)
}

fn last_end(record: &Record) -> Option<LastEnd> {
    Some(LastEnd {
        reason: record.end_reason.clone()?,
        by: record.ended_by.clone(),
        at_ms: record.ended_at_ms?,
    })
}

/// One incarnation of an office, as the history tells it.
#[derive(Clone, Debug)]
pub struct Incarnation {
    /// The generation.
    pub instance: InstanceId,
    /// Which office.
    pub office: Office,
    /// The recorded process.
    pub pid: Option<sys::Pid>,
    /// When it was granted the office: Unix milliseconds, wall time.
    pub started_at_ms: i64,
    /// When its end was recorded; `None` while it is on record as live.
    pub ended_at_ms: Option<i64>,
    /// Why it ended, in snake case. Present without `ended_at_ms` when it is dead and nobody has
    /// recorded that yet.
    pub end_reason: Option<String>,
    /// Who ended it, if they said so.
    pub ended_by: Option<String>,
    /// The exit code of a `run`'s command.
    pub exit_code: Option<i64>,
    /// The signal that ended a `run`'s command.
    pub signal: Option<i64>,
    /// Anything else.
    pub detail: Option<String>,
}

impl Incarnation {
    /// The incarnation as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "instance": self.instance.as_i64(),
            "profile": self.office.profile.as_str(),
            "kind": self.office.kind.as_str(),
            "pid": self.pid,
            "started_at": rfc3339(self.started_at_ms),
            "ended_at": self.ended_at_ms.and_then(rfc3339),
            "end_reason": self.end_reason,
            "ended_by": self.ended_by,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "detail": self.detail,
        })
    }
}

/// The incarnations of an office, newest first; what a dead one could not write is derived.
pub(crate) fn history(
    inner: &Inner,
    office: &Office,
    count_max: usize,
) -> Result<Vec<Incarnation>> {
    let records = inner.read(|connection| instance::history(connection, office, count_max))?;
    Ok(records
        .into_iter()
        .map(|record| {
            let (end_reason, detail) = match (&record.ended_at_ms, look_if_live(inner, &record)) {
                (None, Some(Verdict::Dead(reason))) => (
                    Some(reason.as_str().to_owned()),
                    Some("found dead now; the next claim will record it".to_owned()),
                ),
                _ => (record.end_reason.clone(), record.detail.clone()),
            };
            Incarnation {
                instance: record.id,
                office: office.clone(),
                pid: record.pid,
                started_at_ms: record.started_at_ms,
                ended_at_ms: record.ended_at_ms,
                end_reason,
                ended_by: record.ended_by,
                exit_code: record.exit_code,
                signal: record.signal,
                detail,
            }
        })
        .collect())
}

fn look_if_live(inner: &Inner, record: &Record) -> Option<Verdict> {
    record.ended_at_ms.is_none().then(|| look(inner, record, Lease::None).verdict)
}
