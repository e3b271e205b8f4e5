//! Keepers for this very process, which is about to become another program (`run --exec`).
//!
//! It has claimed as any other, with its own anchor. A keeper is started with that open file, so
//! the lock is never free. It leaves us (`leave_starter`): the next program has not asked for a
//! child. It starts the second one, and writes both into the row. Then this process may execute:
//! its own descriptor closes with that.

use std::ffi::OsString;
use std::process::Child;
use std::time::Duration;

use crate::clock::Deadline;
use crate::keeper::tenant::Tenant;
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

/// Each waits as long as the store may be busy, 5 s. If we gave the office back for that, nobody
/// would start.
const TRIES_TO_RECORD: usize = 4;

/// Has keepers hold `tenure` for this process, which becomes the program with the words `argv` and
/// is ended within `budget` when the tenure is lost. `heard` is asked again and again: what it says
/// ends this, and is returned. After that, and after an error, the caller lets the tenure go.
///
/// # Errors
/// [`NotOwner`](ErrorKind::NotOwner) when it was lost meanwhile, [`Busy`](ErrorKind::Busy) when
/// there may be no more processes or descriptors, or the keepers do not report; and those of a
/// change to the store.
pub(crate) fn keep_this_process<T>(
    store: &Store,
    tenure: &Tenure,
    argv: &[String],
    budget: Duration,
    mut heard: impl FnMut() -> Option<T>,
) -> Result<Option<T>> {
    let inner = &store.inner;
    let anchor = inner.own_anchor();
    let anchor = anchor.ok_or_else(|| Error::internal("an office is held without an anchor"))?;
    let program = HelperProgram::find()?;
    if let Some(heard) = leave_row(inner, tenure, argv, &mut heard)? {
        return Ok(Some(heard));
    }
    let words = words(store, tenure, budget, &program);
    let mut arguments: Vec<OsString> = vec![VERB_OF_SECOND.into()];
    arguments.extend(words.to_arguments());
    arguments.extend(["--anchor".into(), anchor.name().into()]);
    arguments.extend(["--first".into(), NO_FIRST.to_string().into()]);
    // From now on an unlock would be for the keepers as well.
    anchor.be_shared();
    let file = anchor.share().map_err(|error| failed(&error))?;
    let started = supervise::spawn_second_keeper(program.command(), &arguments, &file);
    let mut started = started.map_err(|error| failed(&error))?;
    let until = Deadline::after(KEPT_WITHIN);
    // It goes on as a process of its own, and ends at once.
    let mut has_left = false;
    loop {
        if !has_left {
            has_left = has_left_us(&mut started, &program)?;
        } else if are_on_record(inner, tenure.instance())? {
            return Ok(None);
        }
        if let Some(heard) = heard() {
            give_up(&mut started);
            return Ok(Some(heard));
        }
        if until.has_passed() {
            give_up(&mut started);
            return Err(no_report(&program));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Makes the row one that keepers hold.
fn leave_row<T>(
    inner: &Inner,
    tenure: &Tenure,
    argv: &[String],
    heard: &mut impl FnMut() -> Option<T>,
) -> Result<Option<T>> {
    let (instance, nonce) = (tenure.instance(), tenure.nonce());
    for left in (0..TRIES_TO_RECORD).rev() {
        match inner.write(|tx| instances::leave_to_keepers(tx, instance, nonce, argv)) {
            Ok(true) => return Ok(None),
            Ok(false) => return Err(lost()),
            Err(error) if error.kind() == ErrorKind::Busy && left > 0 => {}
            Err(error) => return Err(error),
        }
        if let Some(heard) = heard() {
            return Ok(Some(heard));
        }
    }
    Err(Error::internal("a row is left to nobody"))
}

/// What the keepers are to know.
fn words(store: &Store, tenure: &Tenure, budget: Duration, program: &HelperProgram) -> Words {
    let (inner, office) = (&store.inner, tenure.office());
    let (observer, locks) = (inner.observer(), tenure.locks());
    let own = locks.iter().filter(|lock| lock.instance == tenure.instance());
    Words {
        db: store.path().to_owned(),
        profile: office.profile.as_str().to_owned(),
        kind: Some(office.kind.as_str().to_owned()),
        home: None,
        pid: observer.pid,
        start_time: observer.start_time,
        allowed_filesystems: inner.allowed_filesystems().to_vec(),
        durability: inner.durability(),
        tenant: Some(Tenant {
            instance: tenure.instance(),
            budget,
            locks: own.map(|lock| lock.fence).collect(),
            number: observer.number,
        }),
        helper: program
            .was_chosen()
            .then(|| ChosenHelper { program: program.clone(), starter: observer.pid }),
    }
}

/// Whether the keeper is a process of its own by now.
fn has_left_us(started: &mut Child, program: &HelperProgram) -> Result<bool> {
    match started.try_wait().map_err(|error| failed(&error))? {
        None => Ok(false),
        Some(status) if status.success() => Ok(true),
        Some(_) => Err(no_report(program)),
    }
}

/// A keeper that was started already finds out that it is not needed.
fn give_up(started: &mut Child) {
    // It may have ended.
    let _ = started.kill();
    let _ = started.try_wait();
}

/// Whether both keepers are on record.
fn are_on_record(inner: &Inner, instance: InstanceId) -> Result<bool> {
    let record = inner.read(|connection| instances::by_id(connection, instance))?;
    let record = record.filter(Record::is_live).ok_or_else(lost)?;
    Ok(record.keeper_pid.is_some() && record.identity.keeper2_pid.is_some())
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
