//! The anchor: a kernel lock on a file of its own, held for as long as its process lives.
//!
//! A process makes one anchor per store, inside the write transaction of its first registration,
//! and keeps it until it ends or closes its last handle. The kernel drops the lock with the
//! process, whatever killed it; that is what "alive" rests on.
//!
//! Only the creator ever takes an anchor exclusively. Everybody else probes with a shared,
//! non-blocking lock, so that two observers never take each other for the owner. Anchors are made
//! and removed only under the store's write lock: a process that holds it sees every anchor either
//! not yet made, or made and locked. After locking, a second descriptor must be refused: that finds
//! filters and emulations which grant every lock.
//!
//! The anchor is that very file. A row names its inode, device and filesystem; another file at the
//! same path is a copy and counts as missing (`look`). In a copy of a store nobody is signalled
//! (`Unproven::Copied`).
//!
//! The file contains the path of the store that it was made for. Nobody needs it to judge an owner
//! on record. It tells the process that makes a store which owners of the one before it are still
//! at work, although their store was moved away from there (`lost`). Its modification time is the
//! last fence that a keeper was told of (`note_grant`, see `keeper/keep.rs`).

#![allow(clippy::disallowed_methods, reason = "the home of file locks")]

pub(crate) mod accounted;
pub(crate) mod dropped;
pub(crate) mod lost;
pub(crate) mod probing;
pub(crate) mod recovery_lock;
pub(crate) mod sweep;

pub(crate) use crate::process::anchor::dropped::Dropped;
pub(crate) use crate::process::anchor::probing::{
    Probe, file_name, held_in, look, parse_name, probe, stays_held,
};

use std::fs::File;
use std::fs::FileTimes;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fs4::{FileExt, TryLockError};

use crate::environment::{Fault, planted};
use crate::liveness::AnchorState;
use crate::names::hex;
use crate::process::anchor::probing::retry_interrupted;
use crate::sys::FileKey;
use crate::{Error, ErrorKind, Result, sys};

/// How often a new name is tried when an observer's probe met our file in the instant between its
/// creation and its lock. One retry is already improbable.
const CREATE_ATTEMPTS: usize = 8;

/// This process' own anchor in one store.
#[derive(Debug)]
pub(crate) struct Anchor {
    file: File,
    path: PathBuf,
    name: String,
    creator_pid: u32,
    /// Another process may hold the same open file in its own right: an unlock would be for both.
    is_shared: AtomicBool,
}

impl Anchor {
    /// Creates and locks `<store id>-<pid>-<random>.lock` in `directory`, for the store whose real
    /// path is `store`. Call it only inside a write transaction of that store.
    pub(crate) fn create(store: &Path, directory: &Path, store_id: &str) -> Result<Self> {
        let mut last = None;
        for _ in 0..CREATE_ATTEMPTS {
            let anchor = Self::create_once(store, directory, store_id)?;
            match anchor.lock_and_check() {
                Ok(()) => return Ok(anchor),
                Err(Refusal::Probed) => last = Some("an observer holds every new file"),
                Err(Refusal::Replaced) => last = Some("new files vanish from the directory"),
                Err(Refusal::CannotLock(why)) => {
                    let _ = std::fs::remove_file(&anchor.path);
                    return Err(Error::new(
                        ErrorKind::Filesystem,
                        format!("file locks do not work in {}: {why}", directory.display()),
                    )
                    .at(directory)
                    .with_flag_hint(
                        "put the store on a local filesystem",
                        "--db PATH",
                        "",
                    ));
                }
            }
            let _ = std::fs::remove_file(&anchor.path);
        }
        let why = last.unwrap_or_default();
        Err(Error::internal(format!("cannot make an anchor in {}: {why}", directory.display()))
            .at(directory))
    }

    fn create_once(store: &Path, directory: &Path, store_id: &str) -> Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::internal(format!("cannot draw random bits: {error}")))?;
        let creator_pid = std::process::id();
        let name = format!("{store_id}-{creator_pid}-{}.lock", hex(&random));
        let path = directory.join(&name);
        let file = match sys::create_anchor_file(&path) {
            // Somebody removed the directory under us; it holds nothing that we do not remake.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                prepare_directory(directory)?;
                sys::create_anchor_file(&path)
            }
            result => result,
        }
        .map_err(|error| Error::io("create the anchor", &path, error))?;
        // Before it is locked: on Windows a lock keeps even its holder's other handles out. Whoever
        // reads it meanwhile finds no end of line, and so no path.
        let written = (&file)
            .write_all(&content_for(store))
            .map_err(|error| Error::io("write", &path, error));
        if let Err(error) = written {
            // Nobody else knows this name yet.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        // Not by chance the time that `note_grant` leaves. What cannot be set was not set by that
        // either.
        if let Ok(made) = file.metadata().and_then(|facts| facts.modified()) {
            let at = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs());
            let _ = file.set_modified(whole);
        }
        Ok(Self { file, path, name, creator_pid, is_shared: AtomicBool::new(false) })
    }

    fn lock_and_check(&self) -> Result<(), Refusal> {
        match retry_interrupted(|| FileExt::try_lock(&self.file)) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Refusal::Probed),
            Err(TryLockError::Error(error)) => {
                return Err(Refusal::CannotLock(format!("flock: {}", sys::note(error))));
            }
        }
        let only_name = sys::open_file_facts(&self.file).is_ok_and(|facts| facts.links == 1);
        if !only_name || !self.is_in_place() {
            return Err(Refusal::Replaced);
        }
        // A lock that refuses nobody (an emulation, a filter) would make two owners: a second
        // descriptor must be turned away (FIELD-BUGS row 76).
        match probe(&self.path) {
            AnchorState::Held => Ok(()),
            AnchorState::Free => Err(Refusal::CannotLock(
                "an exclusive lock does not keep a second descriptor out".to_owned(),
            )),
            AnchorState::Missing => Err(Refusal::Replaced),
            AnchorState::Unreadable | AnchorState::None => {
                Err(Refusal::CannotLock("a second descriptor cannot be probed".to_owned()))
            }
        }
    }

    /// The file's name inside the anchors directory, as rows store it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The anchors directory.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The same open file for another process, which holds the lock as well then: it is free once
    /// both have let go.
    pub(crate) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// An anchor whose lock came to this process with the open `file`.
    pub(crate) fn inherited(directory: &Path, name: &str, file: File) -> Self {
        let path = directory.join(name);
        Self {
            file,
            path,
            name: name.to_owned(),
            creator_pid: std::process::id(),
            is_shared: AtomicBool::new(false),
        }
    }

    /// An anchor that the process before us gave us, and may still hold.
    pub(crate) fn handed_over(directory: &Path, name: &str, file: File) -> Self {
        Self {
            file,
            path: directory.join(name),
            name: name.to_owned(),
            creator_pid: std::process::id(),
            is_shared: AtomicBool::new(true),
        }
    }

    /// Whether another process may hold it as well, for rows of its own.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Acquire)
    }

    /// Says to the command of this `run` that it may hand over to a child of its own.
    pub(crate) fn say_that_we_follow(&self) {
        if let Err(error) = sys::say_that_we_follow(&self.file) {
            tracing::debug!(%error, "the command cannot hand over to a child of its own");
        }
    }

    /// The open file, for a process that may go on with it in our place.
    pub(crate) fn to_hand_over(&self) -> &File {
        &self.file
    }

    /// Somebody may have it as well: from now on the lock is released by closing the file alone,
    /// for good, because nobody can tell who still shares it.
    pub(crate) fn be_shared(&self) {
        self.is_shared.store(!planted(Fault::HandoverUnlocks), Ordering::Release);
    }

    /// The fence of the last grant that [`note_grant`] wrote down.
    pub(crate) fn last_grant(&self) -> Option<i64> {
        noted_at(self.file.metadata().ok()?.modified().ok()?, GRANT_MARK_NS)
    }

    /// Which file it is.
    pub(crate) fn key(&self) -> Result<Option<FileKey>> {
        sys::open_file_key(&self.file).map_err(|error| Error::io("look at", &self.path, error))
    }

    /// The id of the store that it was made for.
    pub(crate) fn store_id(&self) -> Option<&str> {
        parse_name(&self.name).map(|(id, _)| id)
    }

    /// Whether the locked file is still the one that its path names: others probe by path.
    pub(crate) fn is_in_place(&self) -> bool {
        let open = sys::open_file_facts(&self.file).map_err(sys::note);
        match (open, sys::file_facts(&self.path).map_err(sys::note)) {
            // Further names (a backup by hard links) hide nothing: the path still leads here.
            (Ok(open), Ok(named)) => open.id == named.id,
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => false,
            // Not being able to look is no loss.
            (Ok(_) | Err(_), Ok(_) | Err(_)) => true,
        }
    }
}

impl Anchor {
    /// In a forked child: closes it, which leaves the lock to the parent (flock(2): the lock is
    /// that of the open file, and goes with the last descriptor of it).
    pub(crate) fn leave_to_parent(&self) {
        if self.creator_pid != std::process::id()
            && let Err(error) = sys::close_inherited(&self.file)
        {
            tracing::debug!(%error, "an inherited anchor stays open until this process ends");
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // flock belongs to the open file, which a forked child shares: only the creator unlocks,
        // and it does so explicitly because a child may keep the file open after us. Not where a
        // successor may go on with that very file.
        if !self.is_shared() && self.creator_pid == std::process::id() {
            let _ = FileExt::unlock(&self.file);
        }
    }
}

enum Refusal {
    /// Somebody's shared probe met the file before our lock.
    Probed,
    /// The path no longer names the file we made.
    Replaced,
    CannotLock(String),
}

/// Makes the anchors directory: 0700, owned like its parent.
pub(crate) fn prepare_directory(directory: &Path) -> Result<()> {
    sys::create_private_dirs(directory)
        .map_err(|error| Error::io("create the directory", directory, error))
}

/// What is left of a microsecond in the time of an anchor that tells a fence: another time, as
/// `touch` writes it, is none.
const GRANT_MARK_NS: u64 = 777;

/// The same of a handover.
const HANDOVER_MARK_NS: u64 = 778;

/// Notes the fence of a grant that a keeper has to learn of, as the time of its anchor: if the
/// store is replaced by an older copy before the keeper looks, this is all that is left of the
/// grant (FIELD-BUGS row 97). Fences are microseconds.
pub(crate) fn note_grant(anchors: &Path, anchor: &str, fence: i64) {
    note(anchors, anchor, fence, GRANT_MARK_NS);
}

/// The same of the row that goes on with an anchor which was handed over: in an older copy of the
/// store the anchor is named by a predecessor, who is gone.
pub(crate) fn note_handover(anchors: &Path, anchor: &str, fence: i64) {
    note(anchors, anchor, fence, HANDOVER_MARK_NS);
}

fn note(anchors: &Path, anchor: &str, fence: i64, mark_ns: u64) {
    let Some(name) = file_name(anchor) else { return };
    let noted = u64::try_from(fence).map_err(io::Error::other).and_then(|fence| {
        let at = Duration::from_micros(fence) + Duration::from_nanos(mark_ns);
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + at);
        let file = sys::open_anchor_file(&anchors.join(name))?;
        // Another file of that name may be anybody's.
        if sys::open_file_facts(&file)?.links == 1 { file.set_times(times) } else { Ok(()) }
    });
    if let Err(error) = noted {
        tracing::debug!(anchor, %error, "a grant is not noted");
    }
}

/// The fence of the row that the anchor at `path` was handed over to.
pub(crate) fn handed_over_to(path: &Path) -> io::Result<Option<i64>> {
    match std::fs::symlink_metadata(path).and_then(|found| found.modified()) {
        Ok(modified) => Ok(noted_at(modified, HANDOVER_MARK_NS)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn noted_at(modified: SystemTime, mark_ns: u64) -> Option<i64> {
    let at = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let is_ours = u64::from(at.subsec_nanos()) % 1_000 == mark_ns;
    is_ours.then(|| i64::try_from(at.as_micros()).ok())?
}

/// What is in an anchor: the store's real path, and the end of the line that says that it is whole.
fn content_for(store: &Path) -> Vec<u8> {
    [store.as_os_str().as_encoded_bytes(), b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_five_states() {
        let directory = directory();
        let anchor = Anchor::create(&directory.path().join("db"), directory.path(), "aa").unwrap();
        let path = directory.path().join(anchor.name());
        assert_eq!(probe(&path), AnchorState::Held);
        assert!(anchor.is_in_place());
        drop(anchor);
        assert_eq!(probe(&path), AnchorState::Free);
        assert_eq!(probe(&directory.path().join("gone.lock")), AnchorState::Missing);
        assert_eq!(probe(directory.path()), AnchorState::Unreadable);
    }

    #[test]
    fn observers_never_take_each_other_for_the_owner() {
        let directory = directory();
        let path = directory.path().join("x.lock");
        drop(sys::create_anchor_file(&path).unwrap());
        let first = sys::open_anchor_file(&path).unwrap();
        FileExt::try_lock_shared(&first).unwrap();
        assert_eq!(probe(&path), AnchorState::Free);
    }

    /// FIELD-BUGS row 38: a lock on a file that its path no longer names protects nobody.
    #[test]
    fn a_removed_or_replaced_anchor_is_noticed() {
        let directory = directory();
        let anchor = Anchor::create(&directory.path().join("db"), directory.path(), "aa").unwrap();
        let path = directory.path().join(anchor.name());
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        assert!(!anchor.is_in_place());
        drop(sys::create_anchor_file(&path).unwrap());
        assert!(!anchor.is_in_place());
    }

    struct Rows {
        live: Vec<String>,
        ended: Vec<String>,
        known_since: i64,
    }

    impl sweep::OnRecord for Rows {
        fn is_live(&self, name: &str) -> Result<bool> {
            Ok(self.live.iter().any(|it| it == name))
        }

        fn is_known(&self, name: &str) -> Result<bool> {
            Ok(self.is_live(name)? || self.ended.iter().any(|it| it == name))
        }

        fn is_known_since(&self, _: &str, fence: i64) -> Result<bool> {
            Ok(fence <= self.known_since)
        }
    }

    #[test]
    fn a_sweep_removes_only_what_is_free_and_unnamed() {
        let directory = directory();
        let held = Anchor::create(&directory.path().join("db"), directory.path(), "aa").unwrap();
        let own = Anchor::create(&directory.path().join("db"), directory.path(), "aa").unwrap();
        let orphan = Anchor::create(&directory.path().join("db"), directory.path(), "bb").unwrap();
        let named = Anchor::create(&directory.path().join("db"), directory.path(), "aa").unwrap();
        let garbage = Anchor::create(&directory.path().join("db"), directory.path(), "bb").unwrap();
        let all = [&held, &own, &orphan, &named, &garbage].map(|anchor| anchor.name().to_owned());
        drop(named);
        drop(garbage);
        std::fs::write(directory.path().join("notes.txt"), "a person's").unwrap();

        // The first was handed over, and the store has no row of since.
        note_handover(directory.path(), &all[0], 7);
        let place = sweep::Place {
            directory: directory.path(),
            store_id: "aa",
            own: Some(own.name()),
            lost_store: None,
        };
        let look = |known_since| {
            let (live, ended) = (vec![all[3].clone()], vec![all[0].clone()]);
            let there = probing::names_in(directory.path()).unwrap();
            let rows = Rows { live, ended, known_since };
            sweep::sweep(place, there, &rows, &mut accounted::Accounted::default()).unwrap()
        };
        let sweep = look(7);
        sweep.remove_garbage(Duration::MAX);

        let orphans: Vec<_> = sweep.orphans.iter().map(|orphan| orphan.name.as_str()).collect();
        assert_eq!(orphans, [all[2].as_str()]);
        assert_eq!(sweep.orphans[0].pid, Some(std::process::id()));
        let left: HashSet<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let expected: HashSet<String> =
            all[..4].iter().cloned().chain(["notes.txt".to_owned()]).collect();
        assert_eq!(left, expected);
    }
}
