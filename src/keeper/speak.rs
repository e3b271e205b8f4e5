//! Who may say how the gateway of an office is, for a process that does not link the library.

use crate::keeper::known::Known;
use crate::keeper::release::{current_run, is_about, parent};
use crate::records::{Record, runtime};
use crate::status::write;
use crate::status::write::Whose;
use crate::{Error, ErrorKind, InstanceId, Office, Result, StatusUpdate, Store, owner, sys};

/// Writes what `pid`, or the process that we act for, says about `office`; whose row that is.
pub(crate) fn say(
    store: &Store,
    office: &Office,
    pid: Option<sys::Pid>,
    update: &StatusUpdate,
) -> Known<Result<InstanceId>> {
    let speaker = match speaker(store, office, pid) {
        // Most of these say no more than that nobody is on record.
        Err(error) if error.kind() == ErrorKind::NotOwner => return Known::ByLack(Err(error)),
        Err(error) => return Known::Well(Err(error)),
        Ok(speaker) => speaker,
    };
    let is_own =
        if update.is_about_instance() { check_is_own(store, &speaker, office) } else { Ok(()) };
    let written = is_own.and_then(|()| {
        write::write(&store.inner, speaker.id, &speaker.nonce_hash, update, Whose::OnRecord)
    });
    Known::Well(written.map(|()| speaker.id))
}

/// Of a profile that is served only the platforms can be told apart.
fn check_is_own(store: &Store, record: &Record, office: &Office) -> Result<()> {
    let Some(own) = record.office().filter(|own| own.profile != office.profile) else {
        return Ok(());
    };
    let serves = store.inner.read(|connection| {
        Ok(runtime::exists(connection)?
            && runtime::serves(connection, record.id)?.contains(&office.profile))
    })?;
    if !serves {
        return Err(not_owner(format!("the run we are in holds {own}, not {office}")));
    }
    Err(Error::invalid(format!(
        "profile {} is served by {own}: only its platforms have a status of their own",
        office.profile
    ))
    .with_flag_hint(
        "to speak for the gateway as a whole, name its own profile",
        &format!("--profile {}", own.profile),
        "",
    ))
}

/// The record of whoever may speak for the office: the run that we are in, or the process that is
/// meant and that `--pid` recorded. A profile that nobody holds is spoken for by who serves it.
fn speaker(store: &Store, office: &Office, pid: Option<sys::Pid>) -> Result<Record> {
    let run = current_run(store)?;
    let pid = match (pid, run) {
        (None, Some(run)) => return speaks_for(run, office),
        // By its own pid, by that of its command: the same run.
        (Some(pid), Some(run)) if [run.pid, run.child_pid].contains(&Some(pid)) => {
            return speaks_for(run, office);
        }
        (Some(pid), _) => pid,
        (None, None) => parent()?,
    };
    let (candidates, found) = store.inner.read(|connection| {
        let mut offices = vec![office.clone()];
        if runtime::exists(connection)? {
            offices.extend(runtime::servers(connection, office)?);
        }
        let live = |office: &Office| owner::live(connection, office).transpose();
        let candidates = offices.iter().filter_map(live).collect::<Result<Vec<_>>>()?;
        for record in &candidates {
            if is_about(&store.inner, record, pid)? {
                let found = record.clone();
                return Ok((candidates, Some(found)));
            }
        }
        Ok((candidates, None))
    })?;
    match (found, candidates.first()) {
        (Some(record), _) if record.is_pid && !record.is_in_place() => Ok(record),
        (Some(_), _) => Err(not_owner(format!(
            "pid {pid} holds {office} itself, so only it sets its status: a `run` through its \
             command, a program through the library"
        ))),
        (None, Some(holder)) => Err(not_owner(match holder.pid {
            Some(same) if same == pid => format!(
                "{office} is held by another process that has pid {pid} in its own pid namespace, \
                 or had it before"
            ),
            Some(other) => format!("pid {pid} does not hold {office}; pid {other} does"),
            None => format!("pid {pid} does not hold {office}"),
        })),
        (None, None) => Err(not_owner(format!("pid {pid} does not hold {office}: nobody does"))),
    }
}

/// A run speaks for its own office, and for profiles: whether it serves them, the write finds out.
fn speaks_for(run: Record, office: &Office) -> Result<Record> {
    if run.kind() == Some(&office.kind) {
        return Ok(run);
    }
    let own = run.office().map_or_else(|| "no office".to_owned(), |office| office.to_string());
    Err(not_owner(format!("the run we are in holds {own}, not {office}")))
}

fn not_owner(message: String) -> Error {
    Error::not_speaker(message)
}
