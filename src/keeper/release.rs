//! Who may release an office, and for whom.
//!
//! `release` inside a `run` is refused: the office is the run's, and ends with its command.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::keeper::known::Known;
use crate::liveness::{Boot, Relation, StartTimeMatch};
use crate::owner::{OurRun, ending, judgement};
use crate::records::{End, EndReason, Record, instances};
use crate::store::Inner;
use crate::sys::supervise;
use crate::{Error, ErrorKind, InstanceId, Office, ProfileName, Reason, Result, Store, owner, sys};

/// The live record of the `run` that this process was started by, if it was and the record is in
/// this store.
pub(crate) fn current_run(store: &Store) -> Result<Option<Record>> {
    let Some(run) = OurRun::of_environment()? else { return Ok(None) };
    match run.record(&store.inner)? {
        Some(record) if OurRun::is_left_behind(&store.inner, &record) => {
            tell_left_behind(store, &record);
            Ok(None)
        }
        Some(record) if !record.is_live() => Err(Error::new(
            ErrorKind::NotOwner,
            format!(
                "the run we are in has lost its office: {}",
                record.end_reason.as_ref().map_or("", Reason::as_str)
            ),
        )
        .with_hint(
            "no action needed: the run ends its command, and its supervisor decides what is next",
        )),
        record => Ok(record),
    }
}

/// The profile that a `run` which is over has left in our environment, although we are not in it.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the library takes no profile there"))]
pub(crate) fn profile_left_behind(store: &Store) -> Option<ProfileName> {
    let run = OurRun::of_environment().ok()??;
    let record = run.record(&store.inner).ok()??;
    if !OurRun::is_left_behind(&store.inner, &record) {
        return None;
    }
    tell_left_behind(store, &record);
    record.profile
}

/// Once: each verb asks more than one time.
fn tell_left_behind(store: &Store, record: &Record) {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if IS_TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    let pid = record.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    store.inner.tell(&format!(
        "incumbent: the environment is left over from another run (pid {pid}): \
         INCUMBENT_INSTANCE is ignored, and its profile; `unset` the variables that begin with \
         INCUMBENT_\n"
    ));
}

/// Something about `pid` cannot be seen.
pub(crate) fn cannot_tell(pid: sys::Pid, what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("cannot tell whether pid {pid} is the process on record: {what} cannot be seen"),
    )
    .with_hint(
        "look at what hides /proc (`mount`, hidepid, a security module), or ask from outside",
    )
}

/// Whether a record is about the process that has `pid` now, or had it last. A pid of another
/// namespace or machine is somebody else's number.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where it cannot be told: that is no "no".
pub(crate) fn is_about(inner: &Inner, record: &Record, pid: sys::Pid) -> Result<bool> {
    if record.pid != Some(pid) {
        return Ok(false);
    }
    let seen = judgement(inner, record).evidence;
    let places = [seen.host, seen.namespace];
    if places.contains(&Relation::Different)
        || seen.boot == Boot::Rebooted
        || seen.start_time == StartTimeMatch::Different
    {
        return Ok(false);
    }
    if places.contains(&Relation::Unknown) {
        return Err(cannot_tell(pid, "whether it is in our pid namespace and on our machine"));
    }
    // Numbers of one namespace mean the same process, also where /proc does not show it.
    Ok(true)
}

/// The pid meant when none was named.
pub(crate) fn parent() -> Result<sys::Pid> {
    supervise::own_parent().ok_or_else(|| {
        Error::invalid(
            "no parent process can be recorded: it is init, or outside of this namespace",
        )
        .with_hints("name the process (`Whom::Process`)", "name the process with `--pid PID`")
    })
}

/// Why a record is not the caller's to end, and what to do.
pub(crate) struct NotYours {
    pub(crate) why: String,
    pub(crate) advice: Option<String>,
}

/// Ends the record of `pid`, in the name of `by`.
pub(crate) fn release_in(
    store: &Store,
    office: &Office,
    pid: Option<sys::Pid>,
    by: &str,
) -> Result<Known<std::result::Result<InstanceId, NotYours>>> {
    let no = |why: String| Ok(Known::Well(Err(NotYours { why, advice: None })));
    let pid = match pid {
        Some(pid) => pid,
        None => match current_run(store)? {
            Some(run) if run.office().as_ref() == Some(office) => {
                return no(format!(
                    "{office} belongs to the run we are in, which releases it when its command \
                     ends"
                ));
            }
            Some(Record { pid: Some(pid), .. }) => pid,
            Some(_) | None => parent()?,
        },
    };
    store.inner.write(|tx| {
        let Some(record) = owner::live(tx, office)? else {
            let why = format!("nobody holds {office}");
            return Ok(Known::ByLack(Err(NotYours { why, advice: None })));
        };
        // Nor that of a command in the place of its `run`: it acts for as long as it lives.
        if !record.is_pid || record.is_in_place() {
            return Ok(Known::Well(Err(NotYours {
                why: format!(
                    "{office} was not claimed for another process: only its owner releases it"
                ),
                advice: Some(format!("`incumbent {}` asks it to end", office.verb("stop"))),
            })));
        }
        if !is_about(&store.inner, &record, pid)? {
            let holder = record.pid.unwrap_or_default();
            return Ok(Known::Well(Err(NotYours {
                why: format!("{office} is not held by pid {pid}, but by pid {holder}"),
                advice: Some(format!(
                    "release it for pid {holder} (`incumbent {}`), if you mean that process",
                    office.verb(&format!("release --pid {holder}"))
                )),
            })));
        }
        let end = End::new(EndReason::Released).by(by);
        ending::end_other(tx, record.id, &end)?;
        Ok(Known::Well(Ok(record.id)))
    })
}

/// The row of `pid`, or else of the run that we are in or of the process that started us, with its
/// office.
pub(crate) fn whose_row(
    store: &Store,
    pid: Option<sys::Pid>,
) -> Result<Option<(InstanceId, Option<Office>)>> {
    let pid = if let Some(pid) = pid {
        pid
    } else {
        // A run that has lost its office has no row.
        if let Ok(Some(run)) = current_run(store) {
            return Ok(Some((run.id, run.office())));
        }
        let Ok(pid) = parent() else { return Ok(None) };
        pid
    };
    let start_time = sys::process_facts(pid).start_time;
    let rows = store.inner.read(|connection| {
        instances::live_of_process(connection, pid, start_time, store.inner.observer())
    })?;
    Ok(rows.first().map(|record| (record.id, record.office())))
}
