//! Owners whose supervisor does not know them, and units that do not wait long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::rfc3339;
use crate::doctor::check::{Observation, Opened, counted, listed};
use crate::doctor::judged_owner::JudgedOwner;
use crate::forensics::systemd::SystemdCheck;
use crate::process::subject;
use crate::records::conflicts::CURRENT_FOR_MS;
use crate::records::waiters::WaiterRow;
use crate::span::Span;
use crate::stop_budget::StopPhases;
use crate::{Result, sys};

/// FIELD-BUGS row 52: an owner that its supervisor does not know keeps the office for days, and the
/// supervisor's own starts are refused.
pub(super) fn outside_supervisor(opened: &Opened) -> Result<Vec<Observation>> {
    let mut seen = Vec::new();
    let waiting = opened.waiting()?;
    for owner in opened.owners()?.iter().filter(|owner| owner.lives()) {
        let Some(pid) = owner.pid_here() else { continue };
        let recorded = owner.record.supervisor.as_deref().unwrap_or("none");
        let now = subject::supervisor_word(&sys::supervision(pid));
        let stop = owner.record.office().map_or_else(
            || format!("end it (`kill {pid}`)"),
            |office| format!("stop it ({})", opened.scene.command(&office.verb("stop"))),
        );
        // Read after its row: who has ended meanwhile is under nobody.
        let is_it_still = || sys::process_facts(pid).start_time == owner.record.start_time;
        // The supervisors of other processes can be seen by their cgroups alone.
        if recorded.starts_with("systemd:") && now != recorded && is_it_still() {
            seen.push(
                Observation::warning(format!(
                    "{} is held by pid {pid}, which was started under {recorded} and is under \
                     {now} now: its supervisor does not know it",
                    owner.name()
                ))
                .remedy(format!("{stop}, and let the service start it")),
            );
        }
        if recorded == "none" {
            let recent_ms = opened.now_ms().saturating_sub(CURRENT_FOR_MS);
            let held = format!(
                "{} is held by pid {pid}, which no supervisor started, since {}",
                owner.name(),
                owner.since()
            );
            seen.extend(waiting_services(&waiting, owner).into_iter().map(
                |(service, since_ms)| {
                    let since = rfc3339(since_ms).unwrap_or_else(|| "an unknown time".to_owned());
                    Observation::warning(format!(
                        "{held}; {service} has been waiting for it since {since}"
                    ))
                    .remedy(format!("{stop}: then the service starts it"))
                },
            ));
            let refused = refused_services(opened, owner)?;
            seen.extend(refused.into_iter().map(|(service, count, last_at_ms)| {
                let last = rfc3339(last_at_ms).unwrap_or_else(|| "an unknown time".to_owned());
                let text = format!(
                    "{held}; {service} was refused {}, the last time at {last}",
                    counted(usize::try_from(count).unwrap_or(usize::MAX), "time", "times"),
                );
                // A service that was switched off since does not try any more.
                let is_recent = last_at_ms >= recent_ms;
                let seen =
                    if is_recent { Observation::warning(text) } else { Observation::info(text) };
                seen.remedy(format!("{stop}, and let the service start it"))
            }));
        }
    }
    Ok(seen)
}

/// The services that wait for what this owner holds, and since when the first of each does.
fn waiting_services<'a>(waiting: &'a [WaiterRow], owner: &JudgedOwner) -> BTreeMap<&'a str, i64> {
    let office = owner.record.office();
    let mut services = BTreeMap::new();
    for row in waiting.iter().filter(|row| row.lock.is_none() && row.office == office) {
        // The longest comes first.
        if let Some(service) = row.record.supervisor.as_deref().and_then(service_of) {
            services.entry(service).or_insert(row.since_ms);
        }
    }
    services
}

/// The services whose starts this owner refused, how often, and when last: Unix milliseconds.
fn refused_services(opened: &Opened, owner: &JudgedOwner) -> Result<Vec<(String, i64, i64)>> {
    let rows: Vec<(String, i64, i64)> = opened.inner().read(|connection| {
        Ok(connection
            .prepare_cached(
                "SELECT contender, sum(count), max(last_at_ms) FROM conflicts
                 WHERE holder_id = ?1 GROUP BY contender",
            )?
            .query_map([owner.record.id.as_i64()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?)
    })?;
    let mut services: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (contender, count, last_at_ms) in rows {
        if let Some(service) = service_of(&contender) {
            let entry = services.entry(service.to_owned()).or_default();
            *entry = (entry.0.saturating_add(count), entry.1.max(last_at_ms));
        }
    }
    Ok(services.into_iter().map(|(name, (count, last))| (name, count, last)).collect())
}

/// The service in the name of a party: `parent:12/... systemd:gw.service`.
pub(super) fn service_of(party: &str) -> Option<&str> {
    party.split(' ').find(|word| word.starts_with("systemd:") || word.starts_with("launchd:"))
}

/// So many units are asked about, all at the same time: 2 s in all.
const UNITS_MAX: usize = 8;

pub(super) fn stop_budgets(opened: &Opened) -> Result<Vec<Observation>> {
    let mut units: BTreeMap<&str, (Duration, Vec<String>)> = BTreeMap::new();
    for owner in opened.owners()?.iter().filter(|owner| owner.lives()) {
        let supervisor = owner.record.supervisor.as_deref().unwrap_or_default();
        let Some(unit) = supervisor.strip_prefix("systemd:") else { continue };
        if owner.pid_here().is_none() {
            continue;
        }
        let (budget, names) = units.entry(unit).or_default();
        *budget = (*budget).max(owner.record.stop_budget());
        names.push(owner.name());
    }
    let left_out = units.len().saturating_sub(UNITS_MAX);
    let units: Vec<_> = units.iter().take(UNITS_MAX).collect();
    let mut seen = ask_at_once(&units);
    if left_out > 0 {
        seen.push(Observation::unknown(format!("{left_out} more units were not checked")));
    }
    Ok(seen)
}

type Unit<'a> = (&'a &'a str, &'a (Duration, Vec<String>));

/// Asks about all of them at the same time; where there can be no more threads, one after the
/// other.
fn ask_at_once(units: &[Unit<'_>]) -> Vec<Observation> {
    std::thread::scope(|threads| {
        let mut asked = Vec::new();
        for (unit, (budget, names)) in units {
            let ask = || one_unit(unit, *budget, names);
            asked.push(std::thread::Builder::new().spawn_scoped(threads, ask).map_err(|_| ask()));
        }
        let answers = asked.into_iter().map(|asked| match asked {
            Ok(thread) => thread.join().unwrap_or_default(),
            Err(answer) => answer,
        });
        answers.flatten().collect()
    })
}

fn one_unit(unit: &str, budget: Duration, names: &[String]) -> Option<Observation> {
    let check = SystemdCheck::of_unit(unit, &StopPhases::of_budget(budget));
    let of = listed(names, 3, Clone::clone);
    match (&check.mismatch, &check.timeout_stop) {
        (Ok(true), Ok(given)) => {
            let text = format!(
                "{unit} is killed {given} after it is asked to stop, but {of} may take {}",
                Span::Finite(check.expected_min)
            );
            let remedy = check.advice();
            Some(Observation { remedy, ..Observation::warning(text) })
        }
        (Ok(_), _) => None,
        (Err(_), _) => Some(Observation::unknown(format!(
            "cannot tell whether {unit} gives {of} enough time to stop: {}",
            check.reason().unwrap_or("systemd does not say")
        ))),
    }
}
