//! An older gateway in the store: how it gets its row, and what that row says of the process that
//! holds the lock.
//!
//! A profile that stands for a directory of the older program (`profiles.legacy_home`) has every
//! claim look there. A claim that meets an older gateway puts it on record itself, so `--wait`,
//! `--replace`, `stop` and `status` know it like any other.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::claim::obstacle::Obstacle;
use crate::claim::ours;
use crate::environment::{Fault, planted};
use crate::liveness::{AnchorState, Lease, Ruling};
use crate::owner::older::Looked;
use crate::owner::{LiveCommandLine, ending, judge_record, older};
use crate::process::command_line::redact;
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::wire::{PidRecord, Unusable};
use crate::process::older::{KIND, LOCK_FILE, PID_FILE, lock};
use crate::process::{Observer, Subject};
use crate::records::{
    End, EndReason, EventRecord, NewInstance, Origin, Record, instances, profiles,
};
use crate::store::{Inner, Tx};
use crate::{Error, ErrorKind, Holder, Kind, Nonce, Office, Result, clock, stop_budget, sys};

/// Whether a claim would meet an older gateway in `home`, or could not look for one.
pub(crate) fn is_in_the_way(inner: &Inner, home: &Path) -> bool {
    match lock::probe(&home.join(LOCK_FILE)) {
        AnchorState::Held | AnchorState::Unreadable => true,
        AnchorState::Free | AnchorState::None => false,
        AnchorState::Missing => !matches!(by_pid_file(inner, home), Ok(None)),
    }
}

/// Whether `record` is of the gateway that the `gateway.pid` in `home` names: one without a lock.
pub(crate) fn is_by_pid_file(record: &Record, home: &Path) -> bool {
    record.is_pid
        && record.anchor.is_none()
        && lock::look(&home.join(LOCK_FILE)) == AnchorState::Missing
        && PidRecord::read(&home.join(PID_FILE)).is_ok_and(|said| Some(said.pid) == record.pid)
}

/// Whom a claim meets in the directory of an older program.
#[derive(Debug)]
pub(crate) enum Met {
    Nobody,
    /// An older gateway, which is on record from now on.
    Older(Box<Record>),
    /// One of our own, for another office or in another store.
    Ours(Box<Obstacle>),
    /// Nobody yet, but a `run` of ours for another office has just been granted that, and is about
    /// to take the lock.
    Coming(Box<Record>),
}

/// In a claim that nobody on record stands in the way of: an older gateway in `home` is put on
/// record, in the place of the row that is `over`. The oldest ones have no lock: where there is no
/// file for one, the process that the `gateway.pid` names decides.
///
/// # Errors
/// [`Permission`](ErrorKind::Permission) when nobody can tell whether there is one.
pub(crate) fn meet(
    tx: &Tx<'_>,
    inner: &Inner,
    office: &Office,
    home: &Path,
    claimant: sys::Pid,
    over: Option<&(Box<Record>, EndReason)>,
) -> Result<Met> {
    let end_over = || match over {
        Some((record, reason)) => {
            let found_by = format!("found by pid {}", inner.observer().pid);
            ending::end_other(tx, record.id, &End::new(*reason).detail(found_by)).map(drop)
        }
        None => Ok(()),
    };
    let nobody = || {
        let coming = ours::about_to_lock(tx, inner, office, home)?;
        Ok(coming.map_or(Met::Nobody, |record| Met::Coming(Box::new(record))))
    };
    let path = home.join(LOCK_FILE);
    match lock::probe(&path) {
        _ if planted(Fault::OlderLockIgnored) => nobody(),
        AnchorState::Held => {
            if let Some(obstacle) = ours::obstacle(tx, inner, office, home)? {
                return Ok(Met::Ours(obstacle));
            }
            end_over()?;
            Ok(Met::Older(Box::new(record_holder(tx, inner, office, home)?)))
        }
        AnchorState::Free | AnchorState::None => nobody(),
        AnchorState::Missing => {
            let found = by_pid_file(inner, home).map_err(|path| cannot_tell(&path, office))?;
            // What it claims for itself, or by a script, is its own.
            let Some((found, told)) = found.filter(|(found, _)| found.pid != claimant) else {
                return nobody();
            };
            end_over()?;
            profiles::bind_legacy_home(tx, office, home)?;
            let record = insert(tx, inner, office, &found, home, None, told.uid)?;
            Ok(Met::Older(Box::new(record)))
        }
        AnchorState::Unreadable => Err(cannot_tell(&path, office)),
    }
}

fn cannot_tell(path: &Path, office: &Office) -> Error {
    Error::new(
        ErrorKind::Permission,
        format!("{} cannot be looked at, so an older gateway may be running", path.display()),
    )
    .at(path)
    .with_hints(
        "make it a file that this user can read; `Profile::evict` with `Force::Yes` forgets the \
         directory",
        format!(
            "make it a file that this user can read; `incumbent {}` forgets the directory",
            office.verb("evict --force")
        ),
    )
}

/// The live process that the `gateway.pid` in `home` names, if that is not this one; and what is
/// known of whoever wrote it. `Err`: nobody can tell.
fn by_pid_file(
    inner: &Inner,
    home: &Path,
) -> std::result::Result<Option<(LockHolder, Record)>, PathBuf> {
    let path = home.join(PID_FILE);
    let said = match PidRecord::read(&path) {
        Ok(said) => said,
        Err(Unusable::Missing | Unusable::Corrupt(_)) => return Ok(None),
        Err(Unusable::Unreadable(_)) => return Err(path),
    };
    if said.pid == inner.observer().pid {
        return Ok(None);
    }
    let (told, verdict) = judge(inner, &said, &path);
    Ok(match verdict {
        Ruling::Dead(_) => None,
        Ruling::Alive(_) | Ruling::Unknown(_) => Some((found(&said, verdict), told)),
    })
}

/// In a claim that is to replace the holder `record`: whoever acts in `home` beside it. Nobody is
/// asked to end for a claim that would be refused, or fail, all the same.
///
/// # Errors
/// As [`meet`].
pub(crate) fn beside(
    tx: &Tx<'_>,
    inner: &Inner,
    office: &Office,
    home: &Path,
    record: &Record,
) -> Result<Option<Box<Obstacle>>> {
    let older = |found: &LockHolder| {
        let holder = Holder::older(office, found.pid, &found.argv);
        Box::new(Obstacle { holder: Box::new(holder), watch: None })
    };
    let path = home.join(LOCK_FILE);
    let is_its_anchor = older::home_of_holder(record).is_some_and(|its| its == home);
    match lock::probe(&path) {
        AnchorState::Held if is_its_anchor => Ok(None),
        AnchorState::Held => {
            let looked = Looked::at(&path);
            if looked.is_kept_for(tx, record)? {
                return Ok(None);
            }
            let ours = ours::obstacle(tx, inner, office, home)?;
            Ok(ours.or_else(|| Some(older(&looked.found))))
        }
        AnchorState::Free | AnchorState::None => Ok(None),
        AnchorState::Missing => {
            let found = by_pid_file(inner, home).map_err(|path| cannot_tell(&path, office))?;
            let is_it = |pid: sys::Pid| record.pid == Some(pid) || record.child_pid == Some(pid);
            let found = found.map(|(found, _)| found).filter(|found| !is_it(found.pid));
            Ok(found.as_ref().map(older))
        }
        AnchorState::Unreadable => Err(cannot_tell(&path, office)),
    }
}

/// Puts whoever holds the lock in `home` on record as the holder of `office`, which nobody has.
pub(crate) fn record_holder(
    tx: &Tx<'_>,
    inner: &Inner,
    office: &Office,
    home: &Path,
) -> Result<Record> {
    let path = home.join(LOCK_FILE);
    let found = lock::whoever_holds(&path);
    profiles::bind_legacy_home(tx, office, home)?;
    let anchor = path.to_string_lossy();
    let owner = sys::file_facts(&path).ok().and_then(|facts| facts.owner);
    insert(tx, inner, office, &found, home, Some(&anchor), owner)
}

/// Inserts the row of an older gateway, since when that runs. `anchor` is the path of its lock; the
/// owner of its files stands in for a process that cannot be seen.
pub(crate) fn insert(
    tx: &Tx<'_>,
    inner: &Inner,
    office: &Office,
    found: &LockHolder,
    home: &Path,
    anchor: Option<&str>,
    files_owner: Option<u32>,
) -> Result<Record> {
    let Observer { start_time, host, boot_id, pid_ns, process_table, .. } = inner.observer();
    let argv = redact::redact(&found.argv);
    let uid = if found.is_here { sys::process_facts(found.pid).uid } else { None };
    let subject = Subject::told(found.pid, found.start_time, uid.or(files_owner), argv.clone());
    let id = NewInstance {
        profile: Some(&office.profile),
        kind: Some(&office.kind),
        origin: Origin::Pid,
        subject: &subject,
        argv: &argv,
        // The lock is held now, so it is of this boot; whether its pid is one of ours is another
        // question.
        observer: &Observer {
            pid: found.pid,
            start_time: *start_time,
            uid,
            host: host.clone(),
            boot_id: boot_id.clone(),
            pid_ns: pid_ns.clone().filter(|_| found.is_here),
            process_table: *process_table,
            number: None,
        },
        nonce: &Nonce::random()?,
        anchor,
        keeper: None,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        heartbeat_every_ms: None,
    }
    .insert(tx)?;
    if let Some(age_ms) = runs_for_ms(found, home, tx.now_ms()) {
        instances::date_back(tx, id, age_ms)?;
    }
    tx.record(&EventRecord {
        event: "office_claimed",
        office: Some(office),
        instance: Some(id),
        pid: Some(found.pid).filter(|pid| *pid > 0),
        detail: Some(json!({"legacy": anchor})),
        ..EventRecord::default()
    })?;
    instances::by_id(tx, id)?.ok_or_else(|| Error::internal("a row that was just made is gone"))
}

/// For how long an older gateway has been running: by the kernel, or else by when it wrote its
/// `gateway.pid`, which it does once.
fn runs_for_ms(found: &LockHolder, home: &Path, now_ms: i64) -> Option<i64> {
    if let Some(age_ms) =
        sys::process_age_ms(found.pid, clock::unix_time()).filter(|_| found.is_here)
    {
        return Some(age_ms);
    }
    let path = home.join(PID_FILE);
    PidRecord::read(&path).ok().filter(|said| said.pid == found.pid)?;
    now_ms.checked_sub(modified_ms(&path)?).filter(|age_ms| *age_ms >= 0)
}

/// When a file was last written: Unix milliseconds, wall time.
pub(crate) fn modified_ms(file: &Path) -> Option<i64> {
    let modified = std::fs::symlink_metadata(file).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// A process as a file names it, and what is true of it by pid, start time and command line.
pub(crate) fn judge(inner: &Inner, record: &PidRecord, file: &Path) -> (Record, Ruling) {
    let uid = sys::file_facts(file).ok().and_then(|facts| facts.owner);
    let start_time = record.start_time();
    let argv = redact::redact(&record.argv);
    let kind = Kind::new(KIND).ok();
    let told = Record::told(record.pid, start_time, uid, argv, kind, inner.observer());
    let command_line = LiveCommandLine::read(&told);
    let verdict = judge_record(inner, &told, Lease::None, &command_line).ruling;
    (told, verdict)
}

/// What goes on record of a process that a file names: of one that is known to be it, what it shows
/// itself says more.
pub(crate) fn found(said: &PidRecord, verdict: Ruling) -> LockHolder {
    let shown = sys::command_line(said.pid);
    let told = said.start_time();
    let start_time = match verdict {
        Ruling::Alive(_) => told.or_else(|| sys::process_facts(said.pid).start_time),
        Ruling::Dead(_) | Ruling::Unknown(_) => told,
    };
    let argv = shown.unwrap_or_else(|| said.argv.clone());
    LockHolder { pid: said.pid, start_time, argv, is_here: true, has_left_it: false, owner: None }
}
