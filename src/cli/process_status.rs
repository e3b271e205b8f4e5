//! `status --pid`: what a process holds.

use crate::cli::args::Global;
use crate::cli::each::named_in;
use crate::cli::output::{ago, until};
use crate::{Error, ErrorKind, Existing, Report, Result, Store, Verdict};

/// Of the one office that the process `pid` holds.
pub(super) fn of_process(global: &Global, pid: u32) -> Result<Report> {
    let store = match global.options().find()? {
        Existing::Store(store) => store,
        Existing::LostOwner { pid: owner, .. } if owner == Some(pid) => {
            return Ok(Report::never_claimed(global.office()?).of_lost_owner(Some(pid)));
        }
        Existing::LostOwner { .. } => {
            let but = "; the store is gone, and a process of it may still run";
            return Err(holds_nothing(pid, but));
        }
        Existing::Nothing => return Err(holds_nothing(pid, "")),
    };
    let mut reports = held_by(global, &store, pid)?;
    if reports.len() > 1 {
        let offices: Vec<String> = reports.iter().map(|it| it.office.to_string()).collect();
        let message = format!("pid {pid} holds {} offices: {}", reports.len(), offices.join(", "));
        return Err(Error::invalid(message)
            .with_hint("name one by `--profile` and `--kind`, or ask about all with `--all`"));
    }
    match reports.pop() {
        Some(report) => Ok(report),
        None => match locks_of(&store, pid)?.as_slice() {
            [] => Err(holds_nothing(pid, &last_held_by(&store, pid)?)),
            locks => Err(holds_only(pid, locks)),
        },
    }
}

fn holds_nothing(pid: u32, before: &str) -> Error {
    Error::new(ErrorKind::NotRunning, format!("pid {pid} holds no office{before}"))
        .with_hint("`incumbent status --all` shows who holds what")
}

fn holds_only(pid: u32, locks: &[String]) -> Error {
    let message = format!("pid {pid} holds no office, only {}", locks.join(", "));
    Error::new(ErrorKind::NotRunning, message).with_hint("`incumbent locks` shows more about them")
}

/// The locks of a process that holds them and no office, by their names.
fn locks_of(store: &Store, pid: u32) -> Result<Vec<String>> {
    let locks = store.locks()?.into_iter();
    let its = locks.filter(|lock| lock.pid == Some(pid) && lock.verdict != Verdict::Dead);
    let its = its.filter(|lock| lock.kind.is_none());
    Ok(its.map(|lock| format!("the lock {}", lock.name)).collect())
}

/// What `pid` holds, of the profile and the kind that the arguments name.
pub(super) fn held_by(global: &Global, store: &Store, pid: u32) -> Result<Vec<Report>> {
    let (profile, kind) = named_in(global)?;
    let mut reports = store.status_of_process(pid)?;
    reports.retain(|report| {
        profile.as_ref().is_none_or(|name| *name == report.office.profile)
            && kind.as_ref().is_none_or(|kind| *kind == report.office.kind)
    });
    Ok(reports)
}

/// What a process of this pid held last, as the end of a sentence: a person has the pid of a log.
fn last_held_by(store: &Store, pid: u32) -> Result<String> {
    Ok(match store.last_incarnation_of_process(pid)? {
        Some(past) => format!(
            "; an earlier process with that pid held {} {}",
            past.office,
            until(&past.ended_at_ms.map_or_else(|| "?".to_owned(), ago))
        ),
        None => String::new(),
    })
}
