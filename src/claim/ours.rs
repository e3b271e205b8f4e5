//! Our own holders of the lock of the older program: a `run` of another profile, or of another
//! store, holds it beside its office. It is not an older gateway (FIELD-BUGS row 136), so it is
//! looked for among our own rows first.
//!
//! A `run` of another profile has a row: it refuses, or is replaced, by that one. A `run` of
//! another store says in the file where it is, and is only named. Of two profiles of one directory
//! the second waits for the first, where the first has its office and is about to take the lock
//! (`Errand::AwaitOlderLock`): else two supervisors could swap once more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::claim::obstacle::{Obstacle, Watch};
use crate::claim::older_home::home_of_claim;
use crate::clock::Deadline;
use crate::liveness::{AnchorState, Ruling};
use crate::owner::older::{Looked, refreshed};
use crate::owner::{judgement, older};
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::wire::HoldingRun;
use crate::process::older::{LOCK_FILE, lock};
use crate::records::instances::LockNow;
use crate::records::{Record, instances, profiles};
use crate::store::{Inner, Tx};
use crate::{Holder, Kind, Office, Result, owner, sys};

/// Who of our own holds a lock of the older program.
#[derive(Debug)]
pub(crate) enum Ours {
    /// Of this store, for another office.
    Row(Box<Record>),
    /// A `run` that is not on record here, as it says itself in the file: of another store, or one
    /// that has lost its office, and is about to end.
    Unrecorded(Box<LockHolder>, HoldingRun),
}

/// Who of our own, but for the holder of `office`, holds the lock in `home`, which is held. An
/// older gateway that another profile has on record is that profile's.
pub(crate) fn holder_of_lock(
    connection: &Connection,
    office: &Office,
    home: &Path,
) -> Result<Option<Ours>> {
    let path = home.join(LOCK_FILE);
    let looked = Looked::at(&path);
    let is_other = |row: &Record| row.office().is_some_and(|other| other != *office);
    if let Some(row) = older::row_of(connection, &looked, is_other)? {
        return Ok(Some(Ours::Row(Box::new(row))));
    }
    for row in instances::all_live(connection)? {
        if is_other(&row) && anchor_is(&row, &path) {
            let row = refreshed(connection, row)?;
            if row.older_lock != LockNow::Ours {
                return Ok(Some(Ours::Row(Box::new(row))));
            }
        }
    }
    let Looked { found, .. } = looked;
    let owner = found.owner.clone();
    Ok(owner.map(|owner| Ours::Unrecorded(Box::new(found), owner)))
}

fn anchor_is(row: &Record, path: &Path) -> bool {
    let anchor = row.anchor.as_deref().and_then(lock::path_of);
    anchor.is_some_and(|anchor| anchor == path || is_same_file(anchor, path))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (sys::file_facts(one), sys::file_facts(other)) {
        (Ok(one), Ok(other)) => one.id == other.id,
        (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// The row of a `run` for another profile of the directory `home` that has not started its command
/// yet: before it does, it takes the lock, if it was asked to.
pub(super) fn about_to_lock(
    connection: &Connection,
    inner: &Inner,
    office: &Office,
    home: &Path,
) -> Result<Option<Record>> {
    for profile in profiles::others_of_legacy_home(connection, &office.profile, home)? {
        let other = Office { profile, kind: office.kind.clone() };
        let live = owner::live(connection, &other)?;
        let Some(row) = live.filter(|row| row.is_run && row.child_pid.is_none()) else { continue };
        let judged = judgement(inner, &row);
        if matches!(judged.ruling, Ruling::Alive(_)) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Waits until somebody holds the lock in the directory `home`, for as long as that may take
/// somebody who is about to, and not beyond `deadline`.
pub(crate) fn wait_for_lock(home: &Path, deadline: Deadline) {
    const COMES_WITHIN: Duration = Duration::from_millis(300);
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    let (until, path) = (Deadline::after(COMES_WITHIN).earlier(deadline), home.join(LOCK_FILE));
    // Not by trying the lock: that would be in its way.
    while !until.has_passed() && lock::look(&path) != AnchorState::Held {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What keeps a claim of `office` from the directory `home`, if that is one of our own, and not
/// dead.
pub(crate) fn obstacle(
    connection: &Connection,
    inner: &Inner,
    office: &Office,
    home: &Path,
) -> Result<Option<Box<Obstacle>>> {
    let lock = home.join(LOCK_FILE);
    Ok(match holder_of_lock(connection, office, home)? {
        None => None,
        Some(Ours::Row(record)) => {
            let judged = judgement(inner, &record);
            if matches!(judged.ruling, Ruling::Dead(_)) {
                return Ok(None);
            }
            let mut holder = Holder::of_older_lock(office, lock, &record, &judged);
            holder.add_what_it_said(connection, inner, &record)?;
            let watch = Some(Watch::of_instance(*record));
            Some(Box::new(Obstacle { holder: Box::new(holder), watch }))
        }
        Some(Ours::Unrecorded(found, owner)) => {
            let is_elsewhere = owner.store != inner.store_uuid()?;
            let holder = Holder::unrecorded(
                office,
                lock,
                &found,
                &owner,
                is_elsewhere.then(|| owner.db.clone()),
            );
            Some(Box::new(Obstacle { holder: Box::new(holder), watch: None }))
        }
    })
}

/// Who of our own acts in the directory that the profile of `office` stands for, although nobody
/// holds that office: whoever stops it may mean that one.
pub(crate) fn in_place_of(inner: &Inner, office: &Office) -> Result<Option<Box<Holder>>> {
    let obstacle = inner.read(|connection| match home_of(connection, office)? {
        Some(home) if lock::look(&home.join(LOCK_FILE)) == AnchorState::Held => {
            obstacle(connection, inner, office, &home)
        }
        Some(_) | None => Ok(None),
    })?;
    Ok(obstacle.map(|obstacle| obstacle.holder))
}

fn home_of(connection: &Connection, office: &Office) -> Result<Option<PathBuf>> {
    if office.kind != Kind::default() {
        return Ok(None);
    }
    profiles::legacy_home(connection, &office.profile)
}

/// The owner in the way of a taker of `office`, where that is one of our own in the directory that
/// the profile stands for: its lock is held.
pub(crate) fn row_in_the_way(
    tx: &Tx<'_>,
    office: &Office,
    named: Option<&Path>,
) -> Result<Option<Record>> {
    let Some(home) = home_of_claim(tx, office, named)? else { return Ok(None) };
    if lock::probe(&home.join(LOCK_FILE)) != AnchorState::Held {
        return Ok(None);
    }
    Ok(match holder_of_lock(tx, office, &home)? {
        Some(Ours::Row(record)) => Some(*record),
        Some(Ours::Unrecorded(..)) | None => None,
    })
}
