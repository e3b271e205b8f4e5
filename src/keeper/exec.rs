//! Keepers for this very process, which is about to become another program (`run --exec`).
//!
//! It has claimed as any other, with its own anchor. A keeper is started with that open file, so
//! the lock is never free. It leaves us (`leave_starter`): the next program has not asked for a
//! child. It starts the second one, and writes both into the row. Then this process may execute:
//! its own descriptor closes with that.

use std::ffi::OsString;
use std::time::Duration;

use crate::clock::Deadline;
use crate::keeper::words::{ChosenHelper, NO_FIRST, VERB_OF_SECOND, Words};
use crate::process::helper::HelperProgram;
use crate::records::{Record, instances};
use crate::store::Inner;
use crate::sys::{Shortage, supervise};
use crate::{Error, ErrorKind, InstanceId, Result, Store, Tenure};

/// From the start of the keepers until both are on record: two programs are executed, and the store
/// may be busy.
const KEPT_WITHIN: Duration = Duration::from_secs(20);

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Has keepers hold `tenure` for this process, which becomes the program with the words `argv` and
/// is ended within `budget` when the tenure is lost. After an error the caller lets the tenure go.
///
/// # Errors
/// [`NotOwner`](ErrorKind::NotOwner) when it was lost meanwhile, [`Busy`](ErrorKind::Busy) when
/// there may be no more processes or descriptors, or the keepers do not report; and those of a
/// change to the store.
pub(crate) fn keep_this_process(
    store: &Store,
    tenure: &Tenure,
    argv: &[String],
    budget: Duration,
) -> Result<()> {
    let inner = &store.inner;
    let (instance, nonce) = (tenure.instance(), tenure.nonce());
    let anchor = inner.own_anchor();
    let anchor = anchor.ok_or_else(|| Error::internal("an office is held without an anchor"))?;
    let program = HelperProgram::find()?;
    let is_ours = inner.write(|tx| instances::leave_to_keepers(tx, instance, nonce, argv))?;
    if !is_ours {
        return Err(lost());
    }
    let observer = inner.observer();
    let words = Words {
        db: store.path().to_owned(),
        profile: tenure.office().profile.as_str().to_owned(),
        kind: Some(tenure.office().kind.as_str().to_owned()),
        home: None,
        pid: observer.pid,
        start_time: observer.start_time,
        allowed_filesystems: inner.allowed_filesystems().to_vec(),
        durability: inner.durability(),
        ends_within: Some(budget),
        helper: program
            .was_chosen()
            .then(|| ChosenHelper { program: program.clone(), starter: observer.pid }),
    };
    let mut arguments: Vec<OsString> = vec![VERB_OF_SECOND.into()];
    arguments.extend(words.to_arguments());
    arguments.extend(["--anchor".into(), anchor.name().into()]);
    arguments.extend(["--first".into(), NO_FIRST.to_string().into()]);
    // From now on an unlock would be for the keepers as well.
    anchor.be_shared();
    let file = anchor.share().map_err(|error| failed(&error))?;
    let started = supervise::spawn_second_keeper(program.command(), &arguments, &file);
    let mut forked = started.map_err(|error| failed(&error))?;
    // It goes on as a process of its own, and ends at once.
    let ended = forked.wait().map_err(|error| failed(&error))?;
    if !ended.success() {
        return Err(no_report(&program));
    }
    wait_until_kept(inner, instance, &program)
}

fn wait_until_kept(inner: &Inner, instance: InstanceId, program: &HelperProgram) -> Result<()> {
    let until = Deadline::after(KEPT_WITHIN);
    loop {
        let record = inner.read(|connection| instances::by_id(connection, instance))?;
        let record = record.filter(Record::is_live).ok_or_else(lost)?;
        if record.keeper_pid.is_some() && record.identity.keeper2_pid.is_some() {
            return Ok(());
        }
        if until.has_passed() {
            return Err(no_report(program));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::NotOwner, "the office was lost before the command was started")
        .with_hint("`incumbent events` says by whom, `incumbent status` who holds it")
}

fn failed(error: &std::io::Error) -> Error {
    match Shortage::of(error) {
        Some(shortage) => Error::shortage(shortage, "start a keeper process"),
        None => Error::internal(format!("cannot start a keeper process: {error}")),
    }
}

fn no_report(program: &HelperProgram) -> Error {
    let path = program.path().display();
    let what = format!("the keeper process ({path}) was ended, or is of another version");
    Error::new(ErrorKind::Busy, what)
        .with_hint("try again")
        .with_retry_after(Duration::from_secs(1))
}
