//! Whether somebody holds an anchor: asked by its name or its path, without disturbing its owner.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use fs4::{FileExt, TryLockError};

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::liveness::AnchorState;
use crate::process::older::lock;
use crate::sys::FileKey;
use crate::{Error, Result, sys};

/// Looks at a recorded anchor: a name inside the directory `anchors`, or the lock of an older
/// gateway, which is not touched. A forged path is not followed.
pub(crate) fn look(anchors: &Path, anchor: &str, recorded: Option<&FileKey>) -> AnchorState {
    match file_name(anchor) {
        Some(name) => probe_file(&anchors.join(name), recorded),
        None => lock::path_of(anchor).map_or(AnchorState::Unreadable, lock::look),
    }
}

/// A recorded anchor that is a name inside the anchors directory: a forged path is followed
/// nowhere, and a name that no anchor has may be that of anything, where the directory is a link of
/// a user's (to `/dev`, for root).
pub(crate) fn file_name(anchor: &str) -> Option<&str> {
    parse_name(anchor).map(|_| anchor)
}

/// `<store id>-<pid>-<random>.lock`; `None` for a file that is not an anchor.
pub(crate) fn parse_name(name: &str) -> Option<(&str, Option<sys::Pid>)> {
    let mut parts = name.strip_suffix(".lock")?.split('-');
    let (id, pid, random) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if parts.next().is_some() || !is_hex(id) || !is_hex(random) {
        return None;
    }
    Some((id, pid.parse().ok()))
}

/// Looks at the anchor at `path` without waiting and without disturbing its owner.
pub(crate) fn probe(path: &Path) -> AnchorState {
    probe_file(path, None)
}

/// The same, where it is known which file is meant: a copy at the same path says nothing about the
/// owner of the original (FIELD-BUGS row 95), and counts as missing.
pub(super) fn probe_file(path: &Path, recorded: Option<&FileKey>) -> AnchorState {
    let file = match sys::open_anchor_file(path).map_err(sys::note) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return AnchorState::Missing,
        // Permissions, a symbolic link in its place, too many open files: not a free lock.
        Err(_) => return AnchorState::Unreadable,
    };
    if let Some(recorded) = recorded.filter(|_| !planted(Fault::InodeIgnored)) {
        match sys::open_file_key(&file) {
            Ok(Some(found)) if !found.is(recorded) => return AnchorState::Missing,
            Ok(_) => {}
            Err(_) => return AnchorState::Unreadable,
        }
    }
    probe_open(&file)
}

/// An anchor that is kept open, to be looked at again.
#[derive(Debug)]
pub(crate) struct Probe(File);

impl Probe {
    /// Opens the anchor `name`, if it is the file that was `recorded`.
    pub(crate) fn open(anchors: &Path, name: &str, recorded: &FileKey) -> Option<Self> {
        let file = sys::open_anchor_file(&anchors.join(file_name(name)?)).ok()?;
        let is_it = sys::open_file_key(&file).ok()?.is_some_and(|found| found.is(recorded));
        is_it.then_some(Self(file))
    }

    /// Whether somebody else holds it. After a "no" it has to be closed at once: until then it
    /// holds the lock of an observer.
    pub(crate) fn is_held(&self) -> bool {
        probe_open(&self.0) == AnchorState::Held
    }
}

/// The same by a descriptor of our own, which nobody shares.
pub(super) fn probe_open(file: &File) -> AnchorState {
    let (free, held) = if planted(Fault::AnchorInverted) {
        (AnchorState::Held, AnchorState::Free)
    } else {
        (AnchorState::Free, AnchorState::Held)
    };
    match retry_interrupted(|| FileExt::try_lock_shared(file)) {
        // Closing the descriptor drops the shared lock again.
        Ok(()) => free,
        Err(TryLockError::WouldBlock) => held,
        // "Cannot lock" is not "nobody holds it".
        Err(TryLockError::Error(error)) => {
            sys::note(error);
            AnchorState::Unreadable
        }
    }
}

pub(super) fn retry_interrupted(
    mut lock: impl FnMut() -> Result<(), TryLockError>,
) -> Result<(), TryLockError> {
    loop {
        match lock() {
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether somebody holds an anchor until then. Sleeps, so never inside a transaction.
pub(crate) fn stays_held(path: &Path, until: &Deadline) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(1);
    while probe(path) == AnchorState::Held {
        if until.has_passed() {
            return true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    false
}

/// An anchor whose owner recorded itself in a store that is no longer here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) name: String,
    /// The owner's pid in its own namespace, from the name.
    pub(crate) pid: Option<sys::Pid>,
}

/// The anchors in `directory` that somebody holds, but for those in `named`: of owners that are
/// about to be recorded, too. For a question, which has no write transaction.
pub(crate) fn held_in(directory: &Path, named: &HashSet<String>) -> Result<Vec<Orphan>> {
    let mut held = Vec::new();
    for name in names_in(directory)? {
        let path = directory.join(&name);
        let Some((_, pid)) = parse_name(&name) else { continue };
        if !named.contains(&name) && probe(&path) == AnchorState::Held {
            held.push(Orphan { name, pid });
        }
    }
    Ok(held)
}

/// The names of what is in `directory`; none where there is no such place.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    each_name_in(directory, |name| names.push(name.to_owned()))?;
    Ok(names)
}

/// The same, without a copy of each.
pub(super) fn each_name_in(directory: &Path, each: impl FnMut(&str)) -> Result<()> {
    match sys::each_name(directory, each) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        listed => listed.map_err(|error| Error::io("list", directory, error)),
    }
}
