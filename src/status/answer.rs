//! Answers `status`, also for a profile that is served by another.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::liveness::{Lease, Ruling};
use crate::owner::running::{Holder, Running};
use crate::owner::{
    LiveCommandLine, judge_record, judgement, needs_command_line, older as owner_older,
};
use crate::records::profiles::profiles;
use crate::records::{Record, counters, instances, runtime, starts, waiters};
use crate::status::recorded::{HolderLooks, OfficeSnapshot, Recorded};
use crate::status::report::{LastEnd, Report};
use crate::status::{ended, recorded};
use crate::store::Inner;
use crate::{InstanceId, Kind, Office, ProfileName, Reason, Result, Verdict, owner, sys};

/// How often a question starts over because the office changed hands while it was looking.
const ATTEMPTS: usize = 4;

/// `None`, after microseconds, where nobody is on record who may hold or serve it.
fn known_again(
    inner: &Inner,
    connection: &Connection,
    office: &Office,
) -> Result<Option<OfficeSnapshot>> {
    let is_on_record = owner::live(connection, office)?.is_some()
        || (runtime::exists(connection)? && !runtime::servers(connection, office)?.is_empty());
    is_on_record.then(|| known(inner, connection, office)).transpose()
}

fn known(inner: &Inner, connection: &Connection, office: &Office) -> Result<OfficeSnapshot> {
    recorded::known(inner, connection, office, &waiters::of_office(connection, office)?)
}

/// Answers "is it up?". Reads only, and never waits for a writer.
pub(crate) fn report(inner: &Inner, office: &Office) -> Result<Report> {
    let known = ended::read(inner, |connection| known(inner, connection, office))?;
    inner.with_clear_sight(|| resolve(&mut HolderLooks::new(inner), office, known))
}

/// What is true of every office that the store knows: those that were ever claimed, those that are
/// served, and that of kind `gateway` of every other profile; and those that were never claimed,
/// for as long as whoever wants one is kept out. In the order of their names.
pub(crate) fn report_all(
    inner: &Inner,
    profile: Option<&ProfileName>,
    kind: Option<&Kind>,
) -> Result<Vec<Report>> {
    let (known, never_claimed) = ended::read(inner, |connection| {
        let mut offices: BTreeSet<Office> = instances::offices(connection)?.into_iter().collect();
        if runtime::exists(connection)? {
            offices.extend(runtime::served(connection)?);
        }
        let named: BTreeSet<ProfileName> =
            offices.iter().map(|office| office.profile.clone()).collect();
        let unclaimed = profiles(connection)?.into_iter().filter(|name| !named.contains(name));
        offices.extend(unclaimed.map(|profile| Office { profile, kind: Kind::default() }));
        let waiters = waiters::all(connection)?;
        let wanted = waiters.iter().filter_map(|row| row.office.clone());
        let refused = counters::all(connection)?.unwrap_or_default().into_iter();
        let refused = refused.filter_map(|(office, it)| (it.refusals > 0).then_some(office));
        let never_claimed: BTreeSet<Office> =
            wanted.chain(refused).filter(|office| !offices.contains(office)).collect();
        offices.extend(never_claimed.iter().cloned());
        offices.retain(|office| {
            profile.is_none_or(|name| *name == office.profile)
                && kind.is_none_or(|kind| *kind == office.kind)
        });
        let look_up = |office: Office| {
            Ok((office.clone(), recorded::known(inner, connection, &office, &waiters)?))
        };
        let known = offices.into_iter().map(look_up).collect::<Result<Vec<_>>>()?;
        Ok((known, never_claimed))
    })?;
    let mut looks = HolderLooks::new(inner);
    let resolve = |(office, known)| resolve(&mut looks, &office, known);
    let mut reports: Vec<Report> =
        inner.with_clear_sight(|| known.into_iter().map(resolve).collect())?;
    reports.retain(|report| {
        let is_kept_out = report.refused.is_some() || !report.waiters.is_empty();
        is_kept_out || !never_claimed.contains(&report.office)
    });
    Ok(reports)
}

/// What is true of the offices that are on record for the process that has `pid` in our pid
/// namespace, as its own or by the `run` whose command it is; of one that has none, those of the
/// nearest process above it that has some. A person sees the gateway in `top`, and not the shell
/// that started it.
pub(crate) fn report_of_process(inner: &Inner, pid: sys::Pid) -> Result<Vec<Report>> {
    /// More than any start script has below it.
    const ABOVE_MAX: usize = 16;
    let above = std::iter::successors(Some(pid), |pid| sys::process_facts(*pid).parent);
    for pid in above.take_while(|pid| *pid > 1).take(ABOVE_MAX) {
        let reports = recorded_for_process(inner, pid)?;
        if !reports.is_empty() {
            return Ok(reports);
        }
    }
    // The first process of a container, itself.
    if pid == 1 { recorded_for_process(inner, pid) } else { Ok(Vec::new()) }
}

fn recorded_for_process(inner: &Inner, pid: sys::Pid) -> Result<Vec<Report>> {
    let start_time = sys::process_facts(pid).start_time;
    let rows = ended::read(inner, |connection| {
        instances::live_of_process(connection, pid, start_time, inner.observer())
    })?;
    let mut reports = Vec::new();
    for office in rows.iter().filter_map(Record::office) {
        let report = report(inner, &office)?;
        // Somebody else may have it by now.
        if [report.pid, report.child_pid].contains(&Some(pid)) {
            reports.push(report);
        }
    }
    Ok(reports)
}

/// What is true of an office, or whether an owner of a lost store may be at work in it.
fn resolve(looks: &mut HolderLooks<'_>, office: &Office, known: OfficeSnapshot) -> Result<Report> {
    let report = resolve_recorded(looks, office, known)?;
    if report.verdict != Verdict::Dead {
        return Ok(report);
    }
    if let Some(orphan) = looks.orphan()? {
        return Ok(report.of_lost_owner(orphan.pid));
    }
    // Such an owner may have claimed again since the records were read.
    let inner = looks.inner;
    match ended::read(inner, |connection| known_again(inner, connection, office))? {
        Some(known) => resolve_recorded(looks, office, known),
        None => Ok(report),
    }
}

/// What is true of an office by its own record, or by that of whoever serves its profile.
fn resolve_recorded(
    looks: &mut HolderLooks<'_>,
    office: &Office,
    known: OfficeSnapshot,
) -> Result<Report> {
    let own = resolve_as(looks, office, &office.profile, known.own)?;
    let own = Report { waiters: looks.waiting(known.waiters), ..own };
    if own.verdict != Verdict::Dead {
        return Ok(own);
    }
    let servers = match known.servers {
        Some(servers) => servers,
        None => ended::read(looks.inner, |connection| {
            recorded::servers(looks.inner, connection, office)
        })?,
    };
    let mut unknown = None;
    for (server, recorded) in servers {
        let report = resolve_as(looks, &server, &office.profile, recorded)?;
        // Who ended, or serves it no more since.
        if report.verdict == Verdict::Dead || !report.serves.contains(&office.profile) {
            continue;
        }
        let is_alive = report.running;
        let report = Report {
            office: office.clone(),
            served_by: Some(server),
            waiters: own.waiters.clone(),
            ..report
        };
        if is_alive {
            return Ok(report);
        }
        unknown.get_or_insert(report);
    }
    Ok(unknown.unwrap_or(own))
}

fn resolve_as(
    looks: &mut HolderLooks<'_>,
    office: &Office,
    profile: &ProfileName,
    mut known: Recorded,
) -> Result<Report> {
    let inner = looks.inner;
    for _ in 0..ATTEMPTS {
        let Some(record) = known.live else { break };
        let judged = looks.at(&record);
        if matches!(judged.ruling, Ruling::Dead(_)) {
            // It may have let go, and another one come, since the snapshot was taken.
            let again = ended::read(inner, |connection| {
                recorded::recorded(inner, connection, office, profile)
            })?;
            if again.live.as_ref().map(|live| live.id) != Some(record.id) {
                known = again;
                continue;
            }
        }
        let last_end = match judged.ruling {
            Ruling::Dead(reason) => {
                let end = ended::unrecorded_end(inner, &record, reason)?;
                let end = ended::not_recorded(&record, end);
                let memory_bytes = known.said.runtime.as_ref().and_then(|it| it.memory_bytes);
                Some(LastEnd { memory_bytes, ..end })
            }
            Ruling::Alive(_) | Ruling::Unknown(_) => {
                let end = known.last_ended.as_ref().and_then(ended::last_end);
                end.map(|end| LastEnd { memory_bytes: known.last_memory, ..end })
            }
        };
        let leaked = record.anchor.as_ref().filter(|_| judged.flags.anchor_leaked);
        let anchor_holders = leaked.map_or_else(Vec::new, |anchor| {
            sys::processes_with_open_file(&inner.location.anchors.join(anchor))
        });
        // Its own end may not be on record yet.
        let refused = match judged.ruling {
            Ruling::Dead(_) => looks.by_the_living(ended::read(inner, |connection| {
                starts::last_refused(connection, office)
            })?),
            Ruling::Alive(_) | Ruling::Unknown(_) => None,
        };
        let report = Report {
            age: crate::status::report::age(inner, &record, &judged.evidence),
            command_age: crate::status::report::command_age(inner, &record, &judged.evidence),
            refused,
            desired: known.desired,
            home: known.home,
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
        return Ok(Report {
            desired: known.desired,
            refused: looks.by_the_living(known.refused),
            ..Report::never_claimed(office.clone())
        });
    };
    let report = Report {
        reason: ended.end_reason.clone().unwrap_or(Reason::Other("".into())),
        desired: known.desired,
        home: known.home,
        last_end: ended::last_end(&ended)
            .map(|end| LastEnd { memory_bytes: known.last_memory, ..end }),
        refused: looks.by_the_living(known.refused),
        ..Report::of(office, &ended)
    };
    Ok(report.said(inner, &ended, known.said))
}

/// The office whose live holder serves the profile of `office`, which nobody holds, and what is
/// true of that; `None` also where it cannot be found out.
pub(crate) fn server_of(inner: &Inner, office: &Office) -> Option<(Office, Report)> {
    let report = report(inner, office).ok()?;
    Some((report.served_by.clone()?, report))
}

/// The recorded pid of a holder that is known to live. The row is read again only if something was
/// committed since it was `known`; the kernel is asked each time.
pub(crate) fn running_pid(
    inner: &Inner,
    office: &Office,
    known: &Running,
) -> Result<Option<sys::Pid>> {
    let mut dead: Option<InstanceId> = None;
    for _ in 0..ATTEMPTS {
        let row = inner.read_once(&known.row, office.kind.clone(), |connection| {
            instances::live(connection, office)
        })?;
        let Some(record) = &*row else { return Ok(None) };
        if let Some(pid) = known.pid(&row) {
            return Ok(Some(pid));
        }
        let holder = Holder::pin(inner, &row);
        // That of an older gateway is about a lock, which may have changed hands.
        let refreshed;
        let record = if owner_older::home_of_holder(record).is_some() {
            refreshed = inner.read(|connection| owner::live(connection, office))?;
            let Some(record) = &refreshed else { return Ok(None) };
            record
        } else {
            record
        };
        // Dead, and still the one on record: nobody has come in its place meanwhile.
        if dead == Some(record.id) {
            return Ok(None);
        }
        let judged = inner.with_clear_sight(|| {
            let seen = judgement(inner, record);
            if !needs_command_line(&seen.evidence) {
                return Ok(seen);
            }
            Ok(judge_record(inner, record, Lease::None, &LiveCommandLine::read(record)))
        })?;
        known.keep(holder, &judged);
        match judged.ruling {
            Ruling::Alive(_) => return Ok(record.pid),
            Ruling::Unknown(_) => return Ok(None),
            Ruling::Dead(_) => dead = Some(record.id),
        }
    }
    Ok(None)
}
