//! Answers `status`, also for a profile that is served by another.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::liveness::{Lease, Ruling};
use crate::owner::running::{Holder, Running};
use crate::owner::{
    LiveCommandLine, judge_record, judgement, needs_command_line, older as owner_older,
};
use crate::records::profiles::profiles;
use crate::records::{Record, instances, runtime};
use crate::status::recorded::{HolderLooks, OfficeSnapshot, Recorded};
use crate::status::report::Report;
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
    is_on_record.then(|| recorded::known(inner, connection, office)).transpose()
}

/// Answers "is it up?". Reads only, and never waits for a writer.
pub(crate) fn report(inner: &Inner, office: &Office) -> Result<Report> {
    let known = ended::read(inner, |connection| recorded::known(inner, connection, office))?;
    inner.with_clear_sight(|| resolve(&mut HolderLooks::new(inner), office, known))
}

/// What is true of every office that the store knows: those that were ever claimed, those that are
/// served, and that of kind `gateway` of every other profile. In the order of their names.
pub(crate) fn report_all(
    inner: &Inner,
    profile: Option<&ProfileName>,
    kind: Option<&Kind>,
) -> Result<Vec<Report>> {
    let known = ended::read(inner, |connection| {
        let mut offices: BTreeSet<Office> = instances::offices(connection)?.into_iter().collect();
        if runtime::exists(connection)? {
            offices.extend(runtime::served(connection)?);
        }
        let named: BTreeSet<ProfileName> =
            offices.iter().map(|office| office.profile.clone()).collect();
        let unclaimed = profiles(connection)?.into_iter().filter(|name| !named.contains(name));
        offices.extend(unclaimed.map(|profile| Office { profile, kind: Kind::default() }));
        offices.retain(|office| {
            profile.is_none_or(|name| *name == office.profile)
                && kind.is_none_or(|kind| *kind == office.kind)
        });
        let look_up =
            |office: Office| Ok((office.clone(), recorded::known(inner, connection, &office)?));
        offices.into_iter().map(look_up).collect::<Result<Vec<_>>>()
    })?;
    let mut looks = HolderLooks::new(inner);
    let resolve = |(office, known)| resolve(&mut looks, &office, known);
    inner.with_clear_sight(|| known.into_iter().map(resolve).collect())
}

/// What is true of the offices that are on record for the process that has `pid` in our pid
/// namespace, as its own or by the `run` whose command it is.
pub(crate) fn report_of_process(inner: &Inner, pid: sys::Pid) -> Result<Vec<Report>> {
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
                Some(ended::not_recorded(ended::unrecorded_end(inner, &record, reason)?))
            }
            Ruling::Alive(_) | Ruling::Unknown(_) => {
                known.last_ended.as_ref().and_then(ended::last_end)
            }
        };
        let leaked = record.anchor.as_ref().filter(|_| judged.flags.anchor_leaked);
        let anchor_holders = leaked.map_or_else(Vec::new, |anchor| {
            sys::processes_with_open_file(&inner.location.anchors.join(anchor))
        });
        let is_dead = matches!(judged.ruling, Ruling::Dead(_));
        let report = Report {
            age: crate::status::report::age(inner, &record, &judged.evidence),
            command_age: crate::status::report::command_age(inner, &record, &judged.evidence),
            refused: known.refused.filter(|_| is_dead),
            desired: known.desired,
            home: known.home,
            last_end,
            anchor_holders,
            conflicts: known.conflicts,
            locks: known.locks,
            markers: known.markers,
            waiters: known.waiters,
            ..Report::of(office, &record).judged(&judged)
        };
        return Ok(report.said(inner, &record, known.said));
    }
    let Some(ended) = known.last_ended else {
        return Ok(Report {
            desired: known.desired,
            refused: known.refused,
            waiters: known.waiters,
            ..Report::never_claimed(office.clone())
        });
    };
    let report = Report {
        reason: ended.end_reason.clone().unwrap_or(Reason::Other("".into())),
        desired: known.desired,
        home: known.home,
        last_end: ended::last_end(&ended),
        refused: known.refused,
        waiters: known.waiters,
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
