//! `claim` and `release`: records for processes that do not link the library.

use serde_json::json;

use super::advice::Invocation;
use super::args::{self, Global};
use super::by_us;
use super::keeper::{self, Purpose, Recorded, Recorder, Target};
use super::lost_store::{self, Known};
use super::output::{Answer, Complaint, Format, Outcome, exit};
use crate::claimant::judge_record;
use crate::environment;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{self, End, EndReason, Record};
use crate::liveness::{Boot, Lease, Relation, StartTimeMatch};
use crate::names::{InstanceId, Nonce, Office};
use crate::observe::LiveCommandLine;
use crate::store::{Inner, Store};
use crate::sys::{self, supervise};

/// The live record of the `run` that this process was started by, if it was and the record is in
/// this store.
pub(super) fn current_run(store: &Store) -> Result<Option<Record>> {
    let (Some(id), Some(token)) =
        (environment::text(environment::INSTANCE), environment::text(environment::TOKEN))
    else {
        return Ok(None);
    };
    let of_run = |error: Error, name| {
        error.of_variable(name, "leave it as the `run` that we are in has set it")
    };
    let id = id.parse::<i64>().map_err(|_| {
        let error = Error::invalid(format!("{id:?} is not the number of an instance"));
        of_run(error, environment::INSTANCE)
    })?;
    let nonce = Nonce::from_hex(&token).map_err(|error| of_run(error, environment::TOKEN))?;
    let record = store.inner.read(|connection| {
        let recorded = instance::by_id(connection, InstanceId(id))?;
        match recorded.filter(|record| record.belongs_to(&nonce)) {
            Some(record) if record.ended_at_ms.is_none() => Ok(Some(record)),
            // In a store that replaced the one it began in, the run has another generation.
            ended => Ok(instance::live_of_nonce(connection, &nonce)?.or(ended)),
        }
    })?;
    match record {
        Some(record) if record.ended_at_ms.is_some() => Err(Error::new(
            ErrorKind::NotOwner,
            format!(
                "the run we are in has lost its office: {}",
                record.end_reason.unwrap_or_default()
            ),
        )
        .with_hint("nothing: the run ends its command, and whoever started it decides")),
        record => Ok(record),
    }
}

/// Whether a record is about the process that has `pid` now, or had it last. A pid of another
/// namespace or machine is somebody else's number.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where it cannot be told: that is no "no".
pub(super) fn is_about(inner: &Inner, record: &Record, pid: sys::Pid) -> Result<bool> {
    if record.pid != Some(pid) {
        return Ok(false);
    }
    let seen = judge_record(inner, record, Lease::None, &LiveCommandLine::not_read()).evidence;
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

/// Something about `pid` cannot be seen.
pub(super) fn cannot_tell(pid: sys::Pid, what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("cannot tell whether pid {pid} is the process on record: {what} cannot be seen"),
    )
    .with_hint(
        "look at what hides /proc (`mount`, hidepid, a security module), or ask from outside",
    )
}

/// The pid meant when none was named.
pub(super) fn parent() -> Result<sys::Pid> {
    supervise::own_parent().ok_or_else(|| {
        Error::invalid(
            "there is no parent process to record: it is init, or outside of this namespace",
        )
        .with_hint("name the process with `--pid PID`")
    })
}

pub(super) fn claim(global: &Global, arguments: &args::Claim, format: Format) -> Outcome {
    global.check()?;
    let office = global.office()?;
    let named = arguments.pid.map(Target::prove).transpose()?;
    let store = global.options().open()?;
    let profile = global.profile(&store)?;
    let pid = match &named {
        Some(target) => target.pid,
        None => match current_run(&store)? {
            Some(run) if run.office().as_ref() == Some(&office) => {
                return Ok(show(global, format, keeper::already(&office, &run)));
            }
            Some(Record { pid: Some(pid), .. }) => pid,
            Some(_) | None => parent()?,
        },
    };
    let target = named.map_or_else(|| Target::prove(pid), Ok)?;
    let recorder = if arguments.no_keeper { Recorder::NoKeeper } else { Recorder::Verb };
    let report = match keeper::record(&store, &office, profile.home(), &target, recorder)? {
        Recorded::NeedsKeeper => {
            let purpose = Purpose::Office(&office, profile.home());
            keeper::start(global, &store, &purpose, &target)?
        }
        answer => keeper::report(&office, &target, &answer),
    };
    Ok(show(global, format, report))
}

pub(super) fn show(global: &Global, format: Format, mut report: keeper::Report) -> Answer {
    Invocation::of(global).complete_in(&mut report.document);
    Answer::new(report.code, format, &report.text, &report.document).complaining(report.complaint)
}

pub(super) fn release(global: &Global, arguments: &args::Release, format: Format) -> Outcome {
    let office = global.office()?;
    let answer = lost_store::ask(global, |store| release_in(store, &office, arguments.pid))?;
    let answer = answer.unwrap_or_else(|| {
        Err(Complaint::new(format!("{office} was never claimed: there is no store")))
    });
    Ok(match answer {
        Ok(instance) => {
            let document = json!({
                "released": true, "instance": instance.as_i64(), "reason": null,
            });
            Answer::new(exit::OK, format, &format!("{office}: released\n"), &document)
        }
        Err(why) => {
            let document = json!({"released": false, "instance": null, "reason": why.message()});
            Answer::new(exit::NO, format, "", &document).complaining(why)
        }
    })
}

/// Ends the record of `pid`; `Err` says why it is not the caller's to end.
fn release_in(
    store: &Store,
    office: &Office,
    pid: Option<sys::Pid>,
) -> Result<Known<std::result::Result<InstanceId, Complaint>>> {
    let no = |why: String| Ok(Known::Well(Err(Complaint::new(why))));
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
        let Some(record) = instance::live(tx, office)? else {
            return Ok(Known::ByLack(Err(Complaint::new(format!("nobody holds {office}")))));
        };
        if !record.is_pid {
            return Ok(Known::Well(Err(Complaint::new(format!(
                "{office} was not claimed with `incumbent claim`: only its owner releases it"
            ))
            .advising("`incumbent stop` asks it to end"))));
        }
        if !is_about(&store.inner, &record, pid)? {
            let holder = record.pid.unwrap_or_default();
            return Ok(Known::Well(Err(Complaint::new(format!(
                "{office} is not held by pid {pid}, but by pid {holder}"
            ))
            .advising(format!("`incumbent release --pid {holder}`, if that one is meant")))));
        }
        let end = End::new(EndReason::Released).by(by_us("release"));
        instance::end_other(tx, record.id, &end)?;
        Ok(Known::Well(Ok(record.id)))
    })
}
