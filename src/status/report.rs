//! What is true of an office: one function for every surface that asks.
//!
//! "Running" is never stored. It is derived at the time of the question, from the kernel's answer
//! about the recorded owner; a row alone never says it. Where what the gateway said contradicts the
//! verdict, the verdict wins: of a dead holder only `stopped` and `startup_failed` are still its
//! state. The state of any other dead gateway is null in JSON, and what it said is `last_state`: no
//! surface has to look at the verdict first.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::clock::{as_rfc3339, millis, of_millis, rfc3339};
use crate::liveness::{Boot, Evidence, Flags, Judgement, Ruling, because_seen};
use crate::owner::held_lock::HeldLock;
use crate::owner::waiter::Waiter;
use crate::process::command_line;
use crate::records::conflicts::Conflict;
use crate::records::instances::Origin;
use crate::records::markers::Marker;
use crate::records::profiles::Desired;
use crate::records::runtime::{PlatformStatus, RuntimeStatus};
use crate::records::starts::RefusedStart;
use crate::records::{Record, instances, runtime};
use crate::status::summary::{Manner, manner, was_found};
use crate::store::Inner;
use crate::sys::StartTime;
use crate::{InstanceId, Office, ProfileName, Reason, Verdict, state, sys};
use std::path::PathBuf;

/// A question answers quickly or says that it cannot. A writer never stands in its way; only a
/// program that has the whole database for itself does.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// What was said longer ago than this is called stale. That is information for people: a gateway
/// that has nothing to say is as alive as any other.
const STALE_AFTER_MS: i64 = 5 * 60 * 1_000;

/// A stored time may lie this far ahead: clocks are corrected. One further ahead is unknown.
const AHEAD_MAX_MS: i64 = 60_000;

/// What is true of an office, and why; see [`Profile::status_of`](crate::Profile::status_of).
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Claim, Store, StatusUpdate, Verdict};
///
/// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
/// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
/// tenure.update_status(&StatusUpdate::new().state("running").active_agents(0))?;
/// let report = work.status()?;
/// assert!(report.running && report.drainable() && !report.busy());
/// assert_eq!((report.verdict, report.because()), (Verdict::Alive, report.reason.because()));
/// assert_eq!(report.pid, Some(std::process::id()));
/// assert_eq!(serde_json::to_value(&report)?["verdict"], "alive");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # JSON
/// An object with `profile`, `kind`, `running`, `verdict`, `reason`, `flags` (a list of words),
/// `pid`, `child_pid`, `instance`, `since`, `state`, `desired`, `evidence`, `ready`, `not_ready`
/// (why it is not, in one word), `busy`, `drainable`, `stale`, `unresponsive_ms`, `heartbeat_at`,
/// `runtime`, `platforms` (by name), `serves`, `served_by`, `locks`, `markers`, `last_end`,
/// `command`, `version`, `supervisor`, `party`, `stop_budget_ms`, `conflicts`, `restarts`,
/// `command_since`, `refused` and `waiters`. Times are RFC 3339, UTC, with milliseconds; what is
/// not known is null. Later versions may add others. `incumbent status --json` shows it with more
/// beside it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Which office.
    pub office: Office,
    /// Whether its holder is known to be alive.
    pub running: bool,
    /// Whether its holder is alive, as far as it can be told.
    pub verdict: Verdict,
    /// Why; [`Reason::NeverClaimed`] when there is no record, and how it ended when there is one.
    pub reason: Reason,
    /// What else is to be known of the holder.
    pub flags: Flags,
    /// The recorded process, in its own pid namespace. Of a dead holder too: check `running`.
    pub pid: Option<sys::Pid>,
    /// The pid of the command that a `run` supervises.
    pub child_pid: Option<sys::Pid>,
    /// The generation this is about; `None` when there is no record.
    pub instance: Option<InstanceId>,
    /// When it was granted the office: Unix milliseconds, wall time.
    pub since_ms: Option<i64>,
    /// For how long it has held it, by a clock that does not step. `None` where that
    /// was in another boot, or cannot be told.
    pub age: Option<Duration>,
    /// What an operator wants: `running`, `stopped`, or nothing was said.
    pub desired: Option<Desired>,
    /// What was seen.
    pub evidence: Evidence,
    /// The pids of those who hold the anchor of a dead process (flag `anchor_leaked`): a child that
    /// it forked.
    pub anchor_holders: Vec<sys::Pid>,
    /// When the kernel started the holder's process, where that is on record.
    pub start_time: Option<StartTime>,
    /// Its redacted command line, word by word; empty where it is not known.
    pub argv: Vec<String>,
    /// The same as a shell would take it.
    pub command: Option<String>,
    /// The directory that its profile is bound to, if it is bound to one.
    pub home: Option<PathBuf>,
    /// The holder's own version, if it said one.
    pub version: Option<String>,
    /// What supervises it: `systemd:UNIT`, `launchd:LABEL`, `container:ID` or `none`.
    pub supervisor: Option<String>,
    /// Who keeps starting it, where that is known.
    pub party: Option<String>,
    /// How long it may take to stop, as it said; see [`Report::stop_time`].
    pub stop_budget: Option<Duration>,
    /// The scoped locks that were taken from this incarnation and are on record as held.
    pub locks: Vec<HeldLock>,
    /// What was asked of this incarnation by markers that are open.
    pub markers: Vec<Marker>,
    /// How the incarnation before this one ended, or this one if it has; `None` for the first.
    pub last_end: Option<LastEnd>,
    /// The state that the gateway reported, as far as it is still true: a dead one is not running,
    /// whatever it said last; `stopped` and `startup_failed` stay.
    pub state: Option<String>,
    /// What the gateway said of itself, last; `None` when it has said nothing, and given no
    /// heartbeat.
    pub runtime: Option<RuntimeStatus>,
    /// What it said of its platforms, for the profile that was asked about.
    pub platforms: Vec<PlatformStatus>,
    /// The profiles that it serves beside its own, in the order in which it named them.
    pub serves: Vec<ProfileName>,
    /// Nobody holds this office, but the holder of that one serves its profile: this report is
    /// about that holder.
    pub served_by: Option<Office>,
    /// Whether what it said last is older than 5 min, or of an unknown age. Never a sign of death.
    pub stale: bool,
    /// For how long it has given no sign of life, if it missed two that it had promised; see
    /// [`Tenure::heartbeat`](crate::Tenure::heartbeat). Never a sign of death.
    pub unresponsive_for: Option<Duration>,
    /// When it last gave a sign of life, by a heartbeat: Unix milliseconds, wall time.
    pub heartbeat_at_ms: Option<i64>,
    /// Who was refused because of this incarnation, the latest first.
    pub conflicts: Vec<Conflict>,
    /// How often the `run` has started its command again within this tenure; `None` where it is no
    /// `run`, or that is not known.
    pub restarts: Option<u32>,
    /// Since when the command of the `run` has been running: Unix milliseconds, wall time.
    pub command_since_ms: Option<i64>,
    /// For how long, by a clock that does not step. `None` as for [`Report::age`].
    pub command_age: Option<Duration>,
    /// Of an office that nobody holds: the last start, if it was refused by somebody who still
    /// lives.
    pub refused: Option<RefusedStart>,
    /// Who claims the office and waits, for it or for a lock without which it is not wanted; the
    /// longest first.
    pub waiters: Vec<Waiter>,
    /// Who put the holder on record.
    pub(crate) origin: Option<Origin>,
}

/// How an incarnation ended. In JSON an object with these fields, the time as `at` (RFC 3339, UTC,
/// milliseconds); later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LastEnd {
    /// Why.
    pub reason: Reason,
    /// Who did it, if they said so.
    pub by: Option<String>,
    /// When that was recorded: Unix milliseconds, wall time. `None`: it was found dead just now,
    /// and the next one that writes will record it.
    #[serde(rename = "at", serialize_with = "as_rfc3339")]
    pub at_ms: Option<i64>,
    /// When somebody else first saw that it had ended: Unix milliseconds, wall time. It ended some
    /// time before; see [`Incarnation::exit_seen_at_ms`](crate::status::Incarnation).
    #[serde(rename = "exit_seen_at", serialize_with = "as_rfc3339")]
    pub exit_seen_at_ms: Option<i64>,
    /// Its exit code, where that is known: of a `run`'s command, of a process that a keeper, a
    /// waiter or a stop has watched, or as it said itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it, by number, where that is known.
    pub signal: Option<i32>,
    /// Anything else, for people.
    pub detail: Option<String>,
    /// The end in a few words, for people: `crashed: exit code 1`.
    pub summary: String,
    /// What it had in memory at its last heartbeat, in bytes, where that is known; see
    /// [`RuntimeStatus::memory_bytes`].
    pub memory_bytes: Option<u64>,
}

impl LastEnd {
    /// How a person is to take it: a crash is told from a success, and from what was asked for.
    #[must_use]
    pub fn manner(&self) -> Manner {
        manner(&self.reason, self.exit_code, self.signal)
    }

    /// Whether `at_ms` is only when its end was noticed: nobody saw it end.
    #[must_use]
    pub fn is_found(&self) -> bool {
        was_found(&self.reason, self.manner(), self.exit_seen_at_ms.is_some())
    }

    /// When it had ended, as far as that is known: that its end was seen or recorded, whichever
    /// was first. Unix milliseconds, wall time.
    #[must_use]
    pub fn ended_before_ms(&self) -> Option<i64> {
        self.at_ms.into_iter().chain(self.exit_seen_at_ms).min()
    }

    /// What it last wrote to its standard error, where a `run` kept that.
    #[must_use]
    pub fn last_words(&self) -> Option<&str> {
        instances::last_words_in(self.detail.as_deref()?)
    }

    /// The line of that which says why it ended: of an exception that was not caught its own line,
    /// else the last one.
    #[must_use]
    pub fn last_line(&self) -> Option<&str> {
        instances::last_line(self.last_words()?)
    }

    /// The detail, where it says more than the end itself.
    #[must_use]
    pub fn more(&self) -> Option<&str> {
        self.detail.as_deref().filter(|detail| *detail != NOT_RECORDED)
    }
}

/// The detail of an end that nobody has recorded yet.
pub(crate) const NOT_RECORDED: &str = "found dead now; the next claim will record it";

impl Report {
    /// Of an office of which there is no record, or no store: for a program that answers without
    /// one.
    #[must_use]
    pub fn never_claimed(office: Office) -> Self {
        Self {
            office,
            running: false,
            verdict: Verdict::Dead,
            reason: Reason::NeverClaimed,
            flags: Flags::default(),
            pid: None,
            child_pid: None,
            instance: None,
            since_ms: None,
            age: None,
            desired: None,
            evidence: Evidence::nothing_seen(),
            anchor_holders: Vec::new(),
            start_time: None,
            argv: Vec::new(),
            command: None,
            home: None,
            version: None,
            supervisor: None,
            party: None,
            stop_budget: None,
            locks: Vec::new(),
            markers: Vec::new(),
            last_end: None,
            state: None,
            runtime: None,
            platforms: Vec::new(),
            serves: Vec::new(),
            served_by: None,
            stale: false,
            unresponsive_for: None,
            heartbeat_at_ms: None,
            conflicts: Vec::new(),
            restarts: None,
            command_since_ms: None,
            command_age: None,
            refused: None,
            waiters: Vec::new(),
            origin: None,
        }
    }

    pub(super) fn of(office: &Office, record: &Record) -> Self {
        Self {
            pid: record.pid,
            child_pid: record.child_pid,
            instance: Some(record.id),
            since_ms: Some(record.started_at_ms),
            start_time: record.start_time,
            argv: record.argv.clone(),
            command: (!record.argv.is_empty()).then(|| command_line::display(&record.argv)),
            version: record.version.clone(),
            supervisor: record.supervisor.clone(),
            party: record.party.clone(),
            stop_budget: record.stop_budget_ms.map(Duration::from_millis),
            heartbeat_at_ms: record.heartbeat_at_ms,
            restarts: record.command_life.restarts,
            command_since_ms: record.command_life.since_ms,
            origin: Some(record.origin()),
            ..Self::never_claimed(office.clone())
        }
    }

    /// The same where an owner of a store that is no longer here may be at work, see
    /// [`OpenOptions::find`](crate::OpenOptions::find): unknown, and not dead.
    #[must_use]
    pub fn of_lost_owner(self, pid: Option<u32>) -> Self {
        Self {
            verdict: Verdict::Unknown,
            reason: Reason::OrphanedAnchor,
            pid,
            child_pid: None,
            instance: None,
            since_ms: None,
            age: None,
            restarts: None,
            command_since_ms: None,
            command_age: None,
            ..self
        }
    }

    pub(super) fn judged(self, judged: &Judgement) -> Self {
        Self {
            running: matches!(judged.ruling, Ruling::Alive(_)),
            verdict: judged.ruling.verdict(),
            reason: judged.ruling.reason(),
            flags: judged.flags,
            evidence: judged.evidence,
            ..self
        }
    }

    /// Adds what the gateway said, as far as it is true of one that is as was judged.
    pub(super) fn said(mut self, inner: &Inner, record: &Record, known: Statement) -> Self {
        let Statement { runtime, platforms, serves } = known;
        let wall_ms = inner.clock().wall_ms();
        let said = runtime.as_ref().and_then(|runtime| runtime.state.clone());
        self.state = said.filter(|word| self.verdict != Verdict::Dead || state::is_final(word));
        if self.verdict != Verdict::Dead {
            self.unresponsive_for = runtime::unresponsive_for(inner, record, runtime.as_ref());
        }
        let spoken = runtime.iter().map(|runtime| runtime.updated_at_ms);
        let spoken = spoken.chain(platforms.iter().map(|platform| platform.updated_at_ms));
        let spoken: Vec<Option<i64>> = spoken.chain(record.heartbeat_at_ms.map(Some)).collect();
        let is_recent = |at_ms: &i64| {
            (wall_ms.saturating_sub(STALE_AFTER_MS)..=wall_ms.saturating_add(AHEAD_MAX_MS))
                .contains(at_ms)
        };
        // Nobody is served by the dead.
        let serves = if self.verdict == Verdict::Dead { Vec::new() } else { serves };
        self.stale = !spoken.is_empty() && !spoken.iter().flatten().any(is_recent);
        Self { runtime, platforms, serves, ..self }
    }

    /// Whether the gateway works just now: it is alive, says that it is running, and has active
    /// agents.
    #[must_use]
    pub fn busy(&self) -> bool {
        let agents = self.runtime.as_ref().and_then(|runtime| runtime.active_agents);
        self.drainable() && agents.is_some_and(|count| count > 0)
    }

    /// Whether it makes sense to let it finish what it has begun: it is alive, and says that it is
    /// running.
    #[must_use]
    pub fn drainable(&self) -> bool {
        self.running && self.state.as_deref() == Some(state::RUNNING)
    }

    /// Why the verdict was reached, as a clause for people; in the light of the evidence, where
    /// that says more than the reason.
    #[must_use]
    pub fn because(&self) -> &'static str {
        // The reason says only that it ended.
        let is_crash = self.last_end.as_ref().is_some_and(|end| end.manner() == Manner::Crashed);
        if self.reason == Reason::Exited && is_crash {
            return Reason::Crashed.because();
        }
        because_seen(&self.reason, self.flags, &self.evidence)
    }

    /// The report as the CLI's JSON shows it.
    fn document(&self) -> Value {
        let mut evidence = json!(self.evidence);
        evidence["anchor_holders"] = json!(self.anchor_holders);
        let mut document = json!({
            "profile": self.office.profile,
            "kind": self.office.kind,
            "running": self.running,
            "verdict": self.verdict,
            "reason": self.reason,
            "flags": self.flags,
            "pid": self.pid,
            "child_pid": self.child_pid,
            "instance": self.instance,
            "since": self.since_ms.and_then(rfc3339),
            "state": self.state,
            "desired": self.desired,
            "evidence": evidence,
            "ready": self.not_ready().is_none(),
            "not_ready": self.not_ready(),
            "busy": self.busy(),
            "drainable": self.drainable(),
            "stale": self.stale,
            "unresponsive_ms": self.unresponsive_for.map(millis),
            "heartbeat_at": self.heartbeat_at_ms.and_then(rfc3339),
            "runtime": self.runtime.as_ref().map(|said| said.document(self.state.as_deref())),
            "platforms": self.platforms.iter().map(|said| {
                (said.platform.clone(), said.document(self.verdict != Verdict::Dead))
            }).collect::<serde_json::Map<_, _>>(),
            "serves": self.serves,
            "served_by": self.served_by,
            "locks": self.locks,
            "markers": self.markers,
        });
        if let (Value::Object(document), Value::Object(rest)) = (&mut document, self.rest()) {
            document.extend(rest);
        }
        document
    }

    /// What comes after that: the macro nests once more with each field, and has a limit.
    fn rest(&self) -> Value {
        json!({
            "last_end": self.last_end,
            "command": self.command,
            "version": self.version,
            "supervisor": self.supervisor,
            "party": self.party,
            "stop_budget_ms": self.stop_budget.map(millis),
            "conflicts": self.conflicts,
            "restarts": self.restarts,
            "command_since": self.command_since_ms.and_then(rfc3339),
            "refused": self.refused,
            "waiters": self.waiters,
        })
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

/// What an instance has said.
#[derive(Default)]
pub(crate) struct Statement {
    pub(super) runtime: Option<RuntimeStatus>,
    pub(super) platforms: Vec<PlatformStatus>,
    pub(super) serves: Vec<ProfileName>,
}

/// The wall clock may have been set since, as after every boot of a machine that has no other
/// clock.
pub(super) fn age(inner: &Inner, record: &Record, seen: &Evidence) -> Option<Duration> {
    let written_ms = record.identity.written_boot_clock_ms.filter(|_| seen.boot == Boot::Same)?;
    Some(inner.clock().boot_ms() - written_ms).filter(|age_ms| *age_ms >= 0).map(of_millis)
}

/// The same of the command of a `run`.
pub(super) fn command_age(inner: &Inner, record: &Record, seen: &Evidence) -> Option<Duration> {
    let since_ms = record.command_life.since_boot_ms.filter(|_| seen.boot == Boot::Same)?;
    Some(inner.clock().boot_ms() - since_ms).filter(|age_ms| *age_ms >= 0).map(of_millis)
}
