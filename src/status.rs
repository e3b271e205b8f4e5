//! What is true of an office: one function for every surface that asks.
//!
//! "Running" is never stored. It is derived at the time of the question, from the kernel's answer
//! about the recorded owner; a row alone never says it.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::anchor::Orphan;
use crate::autopsy;
use crate::claimant::{judge_record, look, orphan};
use crate::clock::rfc3339;
use crate::command_line;
use crate::conflict::Conflict;
use crate::error::Result;
use crate::holder::{ORPHANED_ANCHOR, because_seen};
use crate::instance::{self, End, EndReason, LockNow, Record};
use crate::liveness::{Boot, DeadReason, Evidence, Flags, Judgement, Lease, Verdict};
use crate::marker_table::{self, Marker};
use crate::names::{InstanceId, Kind, Office, ProfileName};
use crate::observe::{LiveCommandLine, needs_command_line};
use crate::office::{Desired, conflicts, desired, profiles};
use crate::runtime::{PlatformStatus, RuntimeStatus};
use crate::runtime_table;
use crate::scoped::{self, HeldLock};
use crate::state;
use crate::store::{Inner, with_budget};
use crate::sys;

/// How often a question starts over because the office changed hands while it was looking.
const ATTEMPTS: usize = 4;

/// A question answers quickly or says that it cannot. A writer never stands in its way; only a program
/// that has the whole database for itself does.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// What was said longer ago than this is called stale. That is information for people: a gateway that
/// has nothing to say is as alive as any other.
const STALE_AFTER_MS: i64 = 5 * 60 * 1_000;

/// A stored time may lie this far ahead: clocks are corrected. One further ahead is unknown.
const AHEAD_MAX_MS: i64 = 60_000;

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
    /// For how long it has held it: milliseconds of a clock that does not step. `None` where that was in
    /// another boot, or cannot be told.
    pub age_ms: Option<i64>,
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
    /// The state that the gateway reported, as far as it is still true: a dead one is not running,
    /// whatever it said last; `stopped` and `startup_failed` stay.
    pub state: Option<String>,
    /// What the gateway said of itself, last; `None` when it has said nothing, and given no heartbeat.
    pub runtime: Option<RuntimeStatus>,
    /// What it said of its platforms, for the profile that was asked about.
    pub platforms: Vec<PlatformStatus>,
    /// The profiles that it serves beside its own.
    pub serves: Vec<ProfileName>,
    /// Nobody holds this office, but the holder of that one serves its profile: this report is about
    /// that holder.
    pub served_by: Option<Office>,
    /// Whether what it said last is older than 5 min, or of an unknown age. Never a sign of death.
    pub stale: bool,
    /// For how long it has given no sign of life, in milliseconds, if it missed two that it had
    /// promised; see [`Tenure::heartbeat`](crate::Tenure::heartbeat). Never a sign of death.
    pub unresponsive_ms: Option<u64>,
    /// When it last gave a sign of life, by a heartbeat: Unix milliseconds, wall time.
    pub heartbeat_at_ms: Option<i64>,
    conflicts: Value,
}

/// How an incarnation ended.
#[derive(Clone, Debug)]
pub struct LastEnd {
    /// Why, in snake case.
    pub reason: String,
    /// Who did it, if they said so.
    pub by: Option<String>,
    /// When that was recorded: Unix milliseconds, wall time. `None`: it was found dead just now, and
    /// the next one that writes will record it.
    pub at_ms: Option<i64>,
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
            age_ms: None,
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
            state: None,
            runtime: None,
            platforms: Vec::new(),
            serves: Vec::new(),
            served_by: None,
            stale: false,
            unresponsive_ms: None,
            heartbeat_at_ms: None,
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
            heartbeat_at_ms: record.heartbeat_at_ms,
            ..Self::never_claimed(office.clone())
        }
    }

    /// Nobody is on record, and somebody who recorded himself in a store that is no longer here may be at
    /// work all the same.
    pub(crate) fn orphaned(self, orphan: &Orphan) -> Self {
        Self {
            verdict: "unknown",
            reason: ORPHANED_ANCHOR.to_owned(),
            pid: orphan.pid,
            child_pid: None,
            instance: None,
            since_ms: None,
            age_ms: None,
            ..self
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

    /// Adds what the gateway said, as far as it is true of one that is as was judged.
    fn said(mut self, inner: &Inner, record: &Record, known: Said) -> Self {
        let Said { runtime, platforms, serves } = known;
        let wall_ms = inner.clock().wall_ms();
        let said = runtime.as_ref().and_then(|runtime| runtime.state.clone());
        self.state = said.filter(|word| self.verdict != "dead" || state::is_final(word));
        if self.verdict != "dead" {
            self.unresponsive_ms = runtime_table::unresponsive_ms(
                record,
                runtime.as_ref(),
                inner.boot_time(),
                wall_ms,
            );
        }
        let spoken = runtime.iter().map(|runtime| runtime.updated_at_ms);
        let spoken = spoken.chain(platforms.iter().map(|platform| platform.updated_at_ms));
        let spoken: Vec<Option<i64>> = spoken.chain(record.heartbeat_at_ms.map(Some)).collect();
        let is_recent = |at_ms: &i64| {
            (wall_ms.saturating_sub(STALE_AFTER_MS)..=wall_ms.saturating_add(AHEAD_MAX_MS))
                .contains(at_ms)
        };
        // Nobody is served by the dead.
        let serves = if self.verdict == "dead" { Vec::new() } else { serves };
        self.stale = !spoken.is_empty() && !spoken.iter().flatten().any(is_recent);
        Self { runtime, platforms, serves, ..self }
    }

    /// Whether the gateway works just now: it is alive, says that it is running, and has active agents.
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

    /// Why the verdict was reached, as a clause for people.
    #[must_use]
    pub fn because(&self) -> &'static str {
        because_seen(&self.reason, self.flags, &self.evidence)
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
            "state": self.state,
            "desired": self.desired.map(Desired::as_str),
            "evidence": {
                "anchor": self.evidence.anchor,
                "boot": self.evidence.boot,
                "host": self.evidence.host,
                "namespace": self.evidence.namespace,
                "table": self.evidence.table,
                "process": self.evidence.process,
                "start_time": self.evidence.start_time,
                "process_id": self.evidence.process_id,
                "process_state": self.evidence.process_state,
                "command_line": self.evidence.command_line,
                "child": self.evidence.child,
                "command_lock": self.evidence.command_lock,
                "keeper": self.evidence.keeper,
                "anchor_holders": self.anchor_holders,
            },
            "busy": self.busy(),
            "drainable": self.drainable(),
            "stale": self.stale,
            "unresponsive_ms": self.unresponsive_ms,
            "heartbeat_at": self.heartbeat_at_ms.and_then(rfc3339),
            "runtime": self.runtime.as_ref().map(|said| said.to_json(self.state.as_deref())),
            "platforms": self.platforms.iter().map(|said| {
                (said.platform.clone(), said.to_json(self.verdict != "dead"))
            }).collect::<serde_json::Map<_, _>>(),
            "serves": self.serves.iter().map(ProfileName::as_str).collect::<Vec<_>>(),
            "served_by": self.served_by.as_ref().map(|office| json!({
                "profile": office.profile.as_str(),
                "kind": office.kind.as_str(),
            })),
            "locks": self.locks.iter().map(HeldLock::to_json).collect::<Vec<_>>(),
            "markers": self.markers.iter().map(Marker::to_json).collect::<Vec<_>>(),
            "last_end": self.last_end.as_ref().map(|end| json!({
                "reason": end.reason,
                "by": end.by,
                "at": end.at_ms.and_then(rfc3339),
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
    said: Said,
}

/// What an instance has said.
#[derive(Default)]
struct Said {
    runtime: Option<RuntimeStatus>,
    platforms: Vec<PlatformStatus>,
    serves: Vec<ProfileName>,
}

/// The holder of `office` as asked about for `profile`: its own, or one that it serves.
fn recorded(
    inner: &Inner,
    connection: &Connection,
    office: &Office,
    profile: &ProfileName,
) -> Result<Recorded> {
    let live = instance::live(connection, office)?;
    let last_ended = instance::last_ended(connection, office)?;
    let desired = desired(connection, profile)?;
    // What an older gateway has said, and holds, is not its successor's in the same directory.
    let own = live.as_ref().filter(|record| record.older_lock != LockNow::Successors);
    let (conflicts, locks) = match own {
        Some(record) => (
            conflicts(connection, office, record.id)?,
            scoped::held_by(inner, connection, record.id)?,
        ),
        None => (Vec::new(), Vec::new()),
    };
    let conflicts = conflicts.iter().map(Conflict::to_json).collect();
    let markers = match own {
        Some(record) if marker_table::exists(connection)? => {
            marker_table::open_for(connection, inner.boot_time(), record.id)?
        }
        Some(_) | None => Vec::new(),
    };
    let speaker = if live.is_some() { own } else { last_ended.as_ref() };
    let said = match speaker {
        Some(record) if runtime_table::exists(connection)? => Said {
            runtime: runtime_table::runtime(connection, record.id)?,
            platforms: runtime_table::platforms(connection, record.id, profile)?,
            serves: runtime_table::serves(connection, record.id)?,
        },
        Some(_) | None => Said::default(),
    };
    Ok(Recorded { live, last_ended, desired, conflicts, locks, markers, said })
}

/// What one snapshot says of an office, and of those who serve its profile.
struct Known {
    own: Recorded,
    /// `None`: not read yet, because somebody is on record as its holder.
    servers: Option<Vec<(Office, Recorded)>>,
}

fn known(inner: &Inner, connection: &Connection, office: &Office) -> Result<Known> {
    let own = recorded(inner, connection, office, &office.profile)?;
    let servers = match own.live {
        None => Some(servers(inner, connection, office)?),
        Some(_) => None,
    };
    Ok(Known { own, servers })
}

/// `None`, after microseconds, where nobody is on record who may hold or serve it.
fn known_again(inner: &Inner, connection: &Connection, office: &Office) -> Result<Option<Known>> {
    let is_on_record = instance::live(connection, office)?.is_some()
        || (runtime_table::exists(connection)?
            && !runtime_table::servers(connection, office)?.is_empty());
    is_on_record.then(|| known(inner, connection, office)).transpose()
}

fn servers(
    inner: &Inner,
    connection: &Connection,
    office: &Office,
) -> Result<Vec<(Office, Recorded)>> {
    if !runtime_table::exists(connection)? {
        return Ok(Vec::new());
    }
    let with_record = |server: Office| {
        let recorded = recorded(inner, connection, &server, &office.profile)?;
        Ok((server, recorded))
    };
    runtime_table::servers(connection, office)?.into_iter().map(with_record).collect()
}

/// The looks that were taken for one answer: one at each holder, whatever it answers for.
struct Looks<'a> {
    inner: &'a Inner,
    taken: HashMap<InstanceId, Judgement>,
    /// Whoever refuses every claim without a record; looked for only where nobody is on record.
    orphan: OnceCell<Option<Orphan>>,
}

impl<'a> Looks<'a> {
    fn new(inner: &'a Inner) -> Self {
        Self { inner, taken: HashMap::new(), orphan: OnceCell::new() }
    }

    fn orphan(&self) -> Result<Option<&Orphan>> {
        if let Some(orphan) = self.orphan.get() {
            return Ok(orphan.as_ref());
        }
        let orphan = orphan(self.inner)?;
        Ok(self.orphan.get_or_init(|| orphan).as_ref())
    }

    fn at(&mut self, record: &Record) -> Judgement {
        let look = || look(self.inner, record, Lease::None);
        *self.taken.entry(record.id).or_insert_with(look)
    }
}

fn read<T>(inner: &Inner, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    with_budget(ANSWER_WITHIN, || inner.read(work))
}

/// Answers "is it up?". Reads only, and never waits for a writer.
pub(crate) fn report(inner: &Inner, office: &Office) -> Result<Report> {
    let known = read(inner, |connection| known(inner, connection, office))?;
    inner.with_clear_sight(|| resolve(&mut Looks::new(inner), office, known))
}

/// What is true of every office that the store knows: those that were ever claimed, those that are
/// served, and that of kind `gateway` of every other profile. In the order of their names.
pub(crate) fn report_all(
    inner: &Inner,
    profile: Option<&ProfileName>,
    kind: Option<&Kind>,
) -> Result<Vec<Report>> {
    let known = read(inner, |connection| {
        let mut offices: BTreeSet<Office> = instance::offices(connection)?.into_iter().collect();
        if runtime_table::exists(connection)? {
            offices.extend(runtime_table::served(connection)?);
        }
        let named: BTreeSet<ProfileName> =
            offices.iter().map(|office| office.profile.clone()).collect();
        let unclaimed = profiles(connection)?.into_iter().filter(|name| !named.contains(name));
        offices.extend(unclaimed.map(|profile| Office { profile, kind: Kind::default() }));
        offices.retain(|office| {
            profile.is_none_or(|name| *name == office.profile)
                && kind.is_none_or(|kind| *kind == office.kind)
        });
        let look_up = |office: Office| Ok((office.clone(), known(inner, connection, &office)?));
        offices.into_iter().map(look_up).collect::<Result<Vec<_>>>()
    })?;
    let mut looks = Looks::new(inner);
    let resolve = |(office, known)| resolve(&mut looks, &office, known);
    inner.with_clear_sight(|| known.into_iter().map(resolve).collect())
}

/// What is true of an office, or whether an owner of a lost store may be at work in it.
fn resolve(looks: &mut Looks<'_>, office: &Office, known: Known) -> Result<Report> {
    let report = resolve_recorded(looks, office, known)?;
    if report.verdict != "dead" {
        return Ok(report);
    }
    if let Some(orphan) = looks.orphan()? {
        return Ok(report.orphaned(orphan));
    }
    // Such an owner may have claimed again since the records were read.
    let inner = looks.inner;
    match read(inner, |connection| known_again(inner, connection, office))? {
        Some(known) => resolve_recorded(looks, office, known),
        None => Ok(report),
    }
}

/// What is true of an office by its own record, or by that of whoever serves its profile.
fn resolve_recorded(looks: &mut Looks<'_>, office: &Office, known: Known) -> Result<Report> {
    let own = resolve_as(looks, office, &office.profile, known.own)?;
    if own.verdict != "dead" {
        return Ok(own);
    }
    let servers = match known.servers {
        Some(servers) => servers,
        None => read(looks.inner, |connection| servers(looks.inner, connection, office))?,
    };
    let mut unknown = None;
    for (server, recorded) in servers {
        let report = resolve_as(looks, &server, &office.profile, recorded)?;
        // Who ended, or serves it no more since.
        if report.verdict == "dead" || !report.serves.contains(&office.profile) {
            continue;
        }
        let is_alive = report.running;
        let report = Report { office: office.clone(), served_by: Some(server), ..report };
        if is_alive {
            return Ok(report);
        }
        unknown.get_or_insert(report);
    }
    Ok(unknown.unwrap_or(own))
}

fn resolve_as(
    looks: &mut Looks<'_>,
    office: &Office,
    profile: &ProfileName,
    mut known: Recorded,
) -> Result<Report> {
    let inner = looks.inner;
    for _ in 0..ATTEMPTS {
        let Some(record) = known.live else { break };
        let judged = looks.at(&record);
        if matches!(judged.verdict, Verdict::Dead(_)) {
            // It may have let go, and another one come, since the snapshot was taken.
            let again = read(inner, |connection| recorded(inner, connection, office, profile))?;
            if again.live.as_ref().map(|live| live.id) != Some(record.id) {
                known = again;
                continue;
            }
        }
        let last_end = match judged.verdict {
            Verdict::Dead(reason) => {
                let end = unrecorded_end(inner, &record, reason)?;
                let reason = end.reason.as_str().to_owned();
                Some(LastEnd { reason, by: end.by, at_ms: None })
            }
            Verdict::Alive(_) | Verdict::Unknown(_) => known.last_ended.as_ref().and_then(last_end),
        };
        let leaked = record.anchor.as_ref().filter(|_| judged.flags.anchor_leaked);
        let anchor_holders = leaked.map_or_else(Vec::new, |anchor| {
            sys::processes_with_open_file(&inner.location.anchors.join(anchor))
        });
        let report = Report {
            age_ms: age_ms(inner, &record, &judged.evidence),
            desired: known.desired,
            last_end,
            anchor_holders,
            conflicts: known.conflicts,
            locks: known.locks,
            markers: known.markers,
            ..Report::of(office, &record).judged(&judged)
        };
        return Ok(report.said(inner, &record, known.said));
    }
    let Some(ended) = known.last_ended else {
        return Ok(Report { desired: known.desired, ..Report::never_claimed(office.clone()) });
    };
    let report = Report {
        reason: ended.end_reason.clone().unwrap_or_default(),
        desired: known.desired,
        last_end: last_end(&ended),
        ..Report::of(office, &ended)
    };
    Ok(report.said(inner, &ended, known.said))
}

/// The wall clock may have been set since, as after every boot of a machine that has no other clock.
fn age_ms(inner: &Inner, record: &Record, seen: &Evidence) -> Option<i64> {
    let written_ms = record.identity.written_boot_clock_ms.filter(|_| seen.boot == Boot::Same)?;
    Some(inner.clock().boot_ms() - written_ms).filter(|age_ms| *age_ms >= 0)
}

/// The office whose live holder serves the profile of `office`, which nobody holds, and what is true of
/// that; `None` also where it cannot be found out.
pub(crate) fn server_of(inner: &Inner, office: &Office) -> Option<(Office, Report)> {
    let report = report(inner, office).ok()?;
    Some((report.served_by.clone()?, report))
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
        let judged = inner.with_clear_sight(|| {
            let seen = judge_record(inner, &record, Lease::None, &LiveCommandLine::not_read());
            if !needs_command_line(&seen.evidence) {
                return Ok(seen);
            }
            Ok(judge_record(inner, &record, Lease::None, &LiveCommandLine::read(&record)))
        })?;
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
        at_ms: Some(record.ended_at_ms?),
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
    inner.with_clear_sight(|| incarnations(inner, office, records))
}

fn incarnations(inner: &Inner, office: &Office, records: Vec<Record>) -> Result<Vec<Incarnation>> {
    records
        .into_iter()
        .map(|record| {
            let recorded = Incarnation {
                instance: record.id,
                office: office.clone(),
                pid: record.pid,
                started_at_ms: record.started_at_ms,
                ended_at_ms: record.ended_at_ms,
                end_reason: record.end_reason.clone(),
                ended_by: record.ended_by.clone(),
                exit_code: record.exit_code,
                signal: record.signal,
                detail: record.detail.clone(),
            };
            if record.ended_at_ms.is_some() {
                return Ok(recorded);
            }
            let Verdict::Dead(reason) = look(inner, &record, Lease::None).verdict else {
                return Ok(recorded);
            };
            let end = unrecorded_end(inner, &record, reason)?;
            Ok(Incarnation {
                end_reason: Some(end.reason.as_str().to_owned()),
                ended_by: end.by,
                signal: end.signal.map(i64::from),
                detail: end.detail,
                ..recorded
            })
        })
        .collect()
}

/// How a holder ended that is dead, and whose end nobody has recorded yet: what the next one that writes
/// will record.
fn unrecorded_end(inner: &Inner, record: &Record, reason: DeadReason) -> Result<End> {
    let found =
        End::new(EndReason::Dead(reason)).detail("found dead now; the next claim will record it");
    read(inner, |connection| autopsy::explain(connection, inner, record.id, &found))
}
