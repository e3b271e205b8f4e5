//! The anchor: a kernel lock on a file of its own, held for as long as its process lives.
//!
//! A process makes one anchor per store, inside the write transaction of its first registration,
//! and keeps it until it ends or closes its last handle. The kernel drops the lock with the
//! process, whatever killed it; that is what "alive" rests on.
//!
//! Only the creator ever takes an anchor exclusively. Everybody else probes with a shared,
//! non-blocking lock, so that two observers never take each other for the owner. The store's
//! write lock serialises creation and removal: whoever holds it sees every anchor either not yet
//! made, or made and locked.
//!
//! What is in the file is the path of the store that it was made for. Nobody needs it to judge an owner on
//! record; it tells whoever makes a store which owners of the one before it are still at work, although
//! their store was moved away from there.

#![allow(clippy::disallowed_methods, reason = "the home of file locks")]

use std::collections::HashSet;
use std::fs::File;
#[cfg(feature = "cli")]
use std::fs::FileTimes;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fs4::{FileExt, TryLockError};
use serde_json::{Value, json};

use crate::command_lock;
use crate::error::{Error, ErrorKind, Result};
use crate::legacy;
use crate::liveness::{AnchorState, ProcessTable};
use crate::names::hex;
use crate::observe::{Observer, View};
use crate::sys::{self, Existence, FileKey, Looks, OpenedFile, ProcessNumber};

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
}

impl Anchor {
    /// Creates and locks `<store id>-<pid>-<random>.lock` in `directory`, for the store whose real path is
    /// `store`. Call it only inside a write transaction of that store.
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
                    .with_hint("put the store on a local filesystem with `--db PATH`"));
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
        // Before it is locked: on Windows a lock keeps even its holder's other handles out. Whoever reads it
        // meanwhile finds no end of line, and so no path.
        let written = (&file)
            .write_all(&content_for(store))
            .map_err(|error| Error::io("write", &path, error))
            .and_then(|()| {
                sys::give_to_owner_of(&path, directory)
                    .map_err(|error| Error::io("change the owner of", &path, error))
            });
        if let Err(error) = written {
            // Nobody else knows this name yet.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        // Not by chance the time that `note_grant` leaves. What cannot be set was not set by that either.
        if let Ok(made) = file.metadata().and_then(|facts| facts.modified()) {
            let at = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs());
            let _ = file.set_modified(whole);
        }
        Ok(Self { file, path, name, creator_pid })
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
    #[cfg(feature = "cli")]
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The same open file for another process, which holds the lock as well then: it is free once both
    /// have let go.
    #[cfg(feature = "cli")]
    pub(crate) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// An anchor whose lock came to this process with the open `file`.
    #[cfg(feature = "cli")]
    pub(crate) fn inherited(directory: &Path, name: &str, file: File) -> Self {
        let path = directory.join(name);
        Self { file, path, name: name.to_owned(), creator_pid: std::process::id() }
    }

    /// The fence of the last grant that [`note_grant`] wrote down.
    #[cfg(feature = "cli")]
    pub(crate) fn last_grant(&self) -> Option<i64> {
        grant_of(self.file.metadata().ok()?.modified().ok()?)
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

/// An anchor that its process is about to let go: still locked, because rows that others can read name
/// it until the transaction that ends them is committed.
pub(crate) struct Dropped(Arc<Anchor>);

impl Dropped {
    pub(crate) fn new(anchor: Arc<Anchor>) -> Self {
        Self(anchor)
    }

    /// Whether that is `anchor`.
    pub(crate) fn is(&self, anchor: &Arc<Anchor>) -> bool {
        Arc::ptr_eq(&self.0, anchor)
    }

    /// Unlocks it, and unlinks it then: whoever has it open by now does not see a lock on a file without
    /// a name. Only once no row names it any more.
    pub(crate) fn remove(self) {
        let path = self.0.path.clone();
        drop(self.0);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
        for path in [command_lock::path_of(directory, &name.to_string_lossy()), path.clone()] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(path = %path.display(), %error, "left for the next claim to collect");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // flock belongs to the open file, which a forked child shares: only the creator unlocks,
        // and it does so explicitly because a child may keep the file open after us.
        if self.creator_pid == std::process::id() {
            let _ = FileExt::unlock(&self.file);
        }
    }
}

const RECOVERY_LOCK: &str = "recovery.lock";

/// The right to recover a store: one process at a time has it, until it is dropped.
#[derive(Debug)]
pub(crate) struct RecoveryLock {
    _file: File,
}

impl RecoveryLock {
    /// Whether some process has it.
    pub(crate) fn is_taken(directory: &Path) -> bool {
        probe(&directory.join(RECOVERY_LOCK)) == AnchorState::Held
    }

    /// Takes it in the anchors directory of the store, by a file that stays there.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(RECOVERY_LOCK);
        let file = match sys::create_anchor_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sys::open_anchor_file(&path)
            }
            result => result,
        }
        .map_err(|error| Error::io("open", &path, error))?;
        sys::give_to_owner_of(&path, directory)
            .map_err(|error| Error::io("change the owner of", &path, error))?;
        match retry_interrupted(|| FileExt::try_lock(&file)) {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Busy,
                "another process is recovering this store just now",
            )
            .at(path)
            .with_hint("wait for it, then look again")
            .retry_after(1_000)),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
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

/// Looks at a recorded anchor: a name inside the directory `anchors`, or the lock of an older gateway, which
/// is not touched. A forged path is not followed.
pub(crate) fn look(anchors: &Path, anchor: &str, recorded: Option<&FileKey>) -> AnchorState {
    match file_name(anchor) {
        Some(name) => probe_file(&anchors.join(name), recorded),
        None => legacy::path_of(anchor).map_or(AnchorState::Unreadable, legacy::look),
    }
}

/// A recorded anchor that is a name inside the anchors directory: a forged path is followed nowhere.
pub(crate) fn file_name(anchor: &str) -> Option<&str> {
    Path::new(anchor).file_name().is_some_and(|file| file == anchor).then_some(anchor)
}

/// Looks at the anchor at `path` without waiting and without disturbing its owner.
pub(crate) fn probe(path: &Path) -> AnchorState {
    probe_file(path, None)
}

/// The same, where it is known which file is meant: a copy at the same path says nothing about the owner
/// of the original (FIELD-BUGS row 95), and counts as missing.
fn probe_file(path: &Path, recorded: Option<&FileKey>) -> AnchorState {
    let file = match sys::open_anchor_file(path).map_err(sys::note) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return AnchorState::Missing,
        // Permissions, a symbolic link in its place, too many open files: not a free lock.
        Err(_) => return AnchorState::Unreadable,
    };
    if let Some(recorded) = recorded {
        match sys::open_file_key(&file) {
            Ok(Some(found)) if !found.is(recorded) => return AnchorState::Missing,
            Ok(_) => {}
            Err(_) => return AnchorState::Unreadable,
        }
    }
    probe_open(&file)
}

/// The same by a descriptor of our own, which nobody shares.
fn probe_open(file: &File) -> AnchorState {
    match retry_interrupted(|| FileExt::try_lock_shared(file)) {
        // Closing the descriptor drops the shared lock again.
        Ok(()) => AnchorState::Free,
        Err(TryLockError::WouldBlock) => AnchorState::Held,
        // "Cannot lock" is not "nobody holds it".
        Err(TryLockError::Error(error)) => {
            sys::note(error);
            AnchorState::Unreadable
        }
    }
}

/// What is left of a microsecond in the time of an anchor that tells a fence: another time, as `touch`
/// writes it, is none.
#[cfg(feature = "cli")]
const GRANT_MARK_NS: u64 = 777;

/// Notes the fence of a grant that a keeper has to learn of, as the time of its anchor: if the store is
/// replaced by an older copy before the keeper looks, this is all that is left of the grant (FIELD-BUGS row
/// 97). Fences are microseconds.
#[cfg(feature = "cli")]
pub(crate) fn note_grant(anchors: &Path, anchor: &str, fence: i64) {
    let Some(name) = file_name(anchor) else { return };
    let noted = u64::try_from(fence).map_err(io::Error::other).and_then(|fence| {
        let at = Duration::from_micros(fence) + Duration::from_nanos(GRANT_MARK_NS);
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + at);
        sys::open_anchor_file(&anchors.join(name))?.set_times(times)
    });
    if let Err(error) = noted {
        tracing::debug!(anchor, %error, "a grant is not noted");
    }
}

#[cfg(feature = "cli")]
fn grant_of(modified: SystemTime) -> Option<i64> {
    let at = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let is_ours = u64::from(at.subsec_nanos()) % 1_000 == GRANT_MARK_NS;
    is_ours.then(|| i64::try_from(at.as_micros()).ok())?
}

fn retry_interrupted(
    mut lock: impl FnMut() -> Result<(), TryLockError>,
) -> Result<(), TryLockError> {
    loop {
        match lock() {
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What a look through the anchors directory found.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Held anchors that no row of this store accounts for: their owners lost their store, not their
    /// lives.
    pub(crate) orphans: Vec<Orphan>,
    /// Free anchors that no unended row names.
    garbage: Vec<PathBuf>,
}

/// An anchor whose owner recorded itself in a store that is no longer here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) name: String,
    /// The owner's pid in its own namespace, from the name.
    pub(crate) pid: Option<sys::Pid>,
}

/// Looks through `directory`. `named` are the anchors of unended rows, `own` is ours, `lost_store` is
/// the id of a store whose anchors do not count (that of the one we were in before), and
/// `is_on_record` tells whether any row, ended or not, names an anchor. Call it only inside a write
/// transaction: there, a free anchor that nobody names stays so.
pub(crate) fn sweep(
    directory: &Path,
    store_id: &str,
    named: &HashSet<String>,
    own: Option<&str>,
    lost_store: Option<&str>,
    mut is_on_record: impl FnMut(&str) -> Result<bool>,
) -> Result<Sweep> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sweep::default()),
        Err(error) => return Err(Error::io("list", directory, error)),
    };
    let mut sweep = Sweep::default();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", directory, error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Some(anchor) = name.strip_suffix(command_lock::SUFFIX) {
            // It goes with its anchor. That file is gone, and nobody whom a row names needs this one.
            let is_needed = named.contains(anchor)
                || own == Some(anchor)
                || parse_name(anchor).is_none()
                || std::fs::symlink_metadata(directory.join(anchor)).is_ok();
            if !is_needed {
                sweep.garbage.push(entry.path());
            }
            continue;
        }
        let Some((id, pid)) = parse_name(&name) else { continue };
        if named.contains(&name) || own == Some(name.as_str()) {
            continue;
        }
        match probe(&entry.path()) {
            AnchorState::Free => {
                sweep.garbage.push(entry.path());
                let of_command = command_lock::path_of(directory, &name);
                if std::fs::symlink_metadata(&of_command).is_ok() {
                    sweep.garbage.push(of_command);
                }
            }
            AnchorState::Held if lost_store == Some(id) && !is_on_record(&name)? => {}
            // Of another store, or of this one in a state that it has lost (restored from a copy).
            AnchorState::Held if id != store_id || !is_on_record(&name)? => {
                sweep.orphans.push(Orphan { name, pid });
            }
            // Held: by a child that a dead owner forked, or by an owner that was evicted.
            AnchorState::Held
            | AnchorState::Missing
            | AnchorState::Unreadable
            | AnchorState::None => {}
        }
    }
    Ok(sweep)
}

/// What is in an anchor: the store's real path, and the end of the line that says that it is whole.
fn content_for(store: &Path) -> Vec<u8> {
    [store.as_os_str().as_encoded_bytes(), b"\n"].concat()
}

/// Whether an anchor was made for the store at the real path `store`. False for one that does not say (of
/// an older version), and where it cannot be read: on Windows, while it is locked.
pub(crate) fn is_made_for(anchor: &File, store: &Path) -> bool {
    let wanted = content_for(store);
    let mut found = Vec::with_capacity(wanted.len() + 1);
    let read = anchor.take(wanted.len() as u64 + 1).read_to_end(&mut found).map_err(sys::note);
    read.is_ok() && found == wanted
}

/// Whether the process that made the anchor `name`, the very file that is `recorded`, holds another one by
/// now in the store that this one was made for: the store was moved from there to `store`, and its owner
/// went back. What it let go here says nothing about its end then.
pub(crate) fn went_back(anchors: &Path, name: &str, recorded: &FileKey, store: &Path) -> bool {
    const LENGTH_MAX: u64 = 4_096 + 1;
    let Ok(file) = sys::open_anchor_file(&anchors.join(name)).map_err(sys::note) else {
        return false;
    };
    let is_it = sys::open_file_key(&file).is_ok_and(|key| key.is_some_and(|it| it.is(recorded)));
    let mut made_for = String::new();
    let read = file.take(LENGTH_MAX).read_to_string(&mut made_for).map_err(sys::note);
    let made_for = made_for.strip_suffix('\n').filter(|path| Path::new(path) != store);
    let (true, Ok(_), Some(made_for)) = (is_it, read, made_for) else { return false };
    let Some((_, Some(pid))) = parse_name(name) else { return false };
    let held = held_in(Path::new(&format!("{made_for}.anchors")), &HashSet::new());
    held.is_ok_and(|held| held.iter().any(|other| other.pid == Some(pid)))
}

/// The anchors in `directory` that somebody holds, but for those in `named`: of owners that are about to be
/// recorded, too. For a question, which has no write transaction.
pub(crate) fn held_in(directory: &Path, named: &HashSet<String>) -> Result<Vec<Orphan>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory, error)),
    };
    let mut held = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", directory, error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some((_, pid)) = parse_name(&name) else { continue };
        if !named.contains(&name) && probe(&entry.path()) == AnchorState::Held {
            held.push(Orphan { name, pid });
        }
    }
    Ok(held)
}

/// Somebody who held an anchor of the store that was at our path before, as the next store remembers it.
#[derive(Clone, Debug)]
pub(crate) struct LostOwner {
    pub(crate) anchor: Orphan,
    /// Where its file was, and which one it is, if it was moved and not deleted.
    pub(crate) moved_to: Option<PathBuf>,
    key: Option<FileKey>,
    start_time: Option<i64>,
    number: Option<ProcessNumber>,
    boot_id: Option<String>,
    pid_ns: Option<String>,
    /// What the wall clock and the boot clock showed when it was found.
    clocks_ms: Option<(i64, i64)>,
}

impl LostOwner {
    fn of(json: &Value) -> Option<Self> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let pid = json["pid"].as_u64().and_then(|pid| sys::Pid::try_from(pid).ok());
        let key = || {
            Some(FileKey {
                inode: json["inode"].as_u64()?,
                device: json["device"].as_u64()?,
                filesystem: json["filesystem"].as_u64(),
            })
        };
        Some(Self {
            anchor: Orphan { name: text("anchor")?, pid },
            moved_to: text("moved_to").map(PathBuf::from),
            key: key(),
            start_time: json["start_time"].as_i64(),
            number: json["number"].as_u64().map(ProcessNumber),
            boot_id: text("boot_id"),
            pid_ns: text("pid_ns"),
            clocks_ms: json["wall_clock_ms"].as_i64().zip(json["boot_clock_ms"].as_i64()),
        })
    }

    pub(crate) fn is_us(&self, observer: &Observer) -> bool {
        self.anchor.pid == Some(observer.pid) && self.pid_ns == observer.pid_ns
    }

    /// Whether it is certain that it does not hold that anchor any more. Not being able to look is no sign
    /// of it.
    pub(crate) fn has_let_go(&self, view: View<'_>) -> bool {
        if self.is_of_another_boot(view) {
            return true;
        }
        // The lock itself, wherever it can be reached.
        if let (Some(path), Some(_)) = (&self.moved_to, &self.key) {
            match probe_file(path, self.key.as_ref()) {
                AnchorState::Free => return true,
                AnchorState::Held => return false,
                AnchorState::Missing | AnchorState::Unreadable | AnchorState::None => {}
            }
        }
        let Some(pid) = self.anchor.pid else { return true };
        let observer = view.observer;
        if self.pid_ns != observer.pid_ns || observer.process_table != ProcessTable::Ours {
            return false;
        }
        let facts = sys::process_facts(pid);
        let is_another = match (self.number, facts.number) {
            (Some(recorded), Some(now)) => recorded != now,
            (Some(_) | None, None) | (None, Some(_)) => self
                .start_time
                .is_some_and(|recorded| facts.start_time.is_some_and(|now| now.value != recorded)),
        };
        if facts.existence == Existence::Gone || is_another {
            return true;
        }
        // Names are never given twice, so this one says which file it is.
        let is_it = |it: &&OpenedFile| name_of(it) == Some(&self.anchor.name);
        sys::files_opened_by(pid).is_some_and(|files| files.iter().filter(is_it).all(is_free))
    }

    /// Boot ids that differ are doubt (FIELD-BUGS row 91): the clocks have to agree.
    fn is_of_another_boot(&self, view: View<'_>) -> bool {
        let ids = self.boot_id.as_ref().zip(view.observer.boot_id.as_ref());
        ids.is_some_and(|(recorded, now)| recorded != now)
            && self
                .clocks_ms
                .is_some_and(|(wall_ms, boot_ms)| view.clocks_restarted_since(wall_ms, boot_ms))
    }
}

/// Whether nobody holds an anchor that a process has open: one that a child inherited from an owner that
/// let go.
fn is_free(opened: &OpenedFile) -> bool {
    opened.open_again().is_ok_and(|file| probe_open(&file) == AnchorState::Free)
}

/// The name of an anchor that a process has open.
fn name_of(opened: &OpenedFile) -> Option<&str> {
    opened.path.file_name()?.to_str().filter(|name| parse_name(name).is_some())
}

/// Where a store is about to be made, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    /// The real path of its file.
    pub(crate) file: &'a Path,
    /// The directory of that.
    pub(crate) directory: &'a Path,
    pub(crate) anchors: &'a Path,
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: i64,
}

/// The owners of the store that was there before, we among them, as JSON; `None` when there are none, or
/// none can be seen. They hold anchors that were deleted, or moved away together with their store, and so
/// no look at the directory finds them. Slow, and only asked when a store is made.
///
/// # Errors
/// [`ErrorKind::Busy`] when this process ran short of something while it looked.
pub(crate) fn find_lost(site: Site<'_>) -> Result<Option<String>> {
    let looks = Looks::begin();
    let observer = Observer::new();
    let lost: Vec<Value> = sys::opened_files()
        .filter_map(|opened| {
            let name = name_of(&opened)?;
            let was_deleted_here = opened.is_deleted
                && opened.path.parent() == Some(site.anchors)
                && (sys::shares_mounts_with(opened.pid) != Some(false)
                    || site.is_the_place_of(opened.pid) == Some(true));
            let key = match site.key_of_moved(&opened, name) {
                Some(key) => Some(key),
                None if was_deleted_here && !is_free(&opened) => None,
                None => return None,
            };
            let facts = sys::process_facts(opened.pid);
            Some(json!({
                "pid": opened.pid,
                "anchor": name,
                "moved_to": (!opened.is_deleted).then(|| opened.path.to_str()),
                "inode": key.map(|key| key.inode),
                "device": key.map(|key| key.device),
                "filesystem": key.and_then(|key| key.filesystem),
                "start_time": facts.start_time.map(|time| time.value),
                "number": facts.number.map(|number| number.0),
                "boot_id": observer.boot_id,
                "pid_ns": observer.pid_ns,
                "wall_clock_ms": site.wall_ms,
                "boot_clock_ms": site.boot_ms,
            }))
        })
        .collect();
    if let Some(shortage) = looks.shortage() {
        return Err(Error::shortage(
            shortage,
            "look for owners of the store that was there before",
        ));
    }
    Ok((!lost.is_empty()).then(|| Value::from(lost).to_string()))
}

impl Site<'_> {
    /// Which file it is, if that is an anchor that is held, was made for the store at our path, and is not
    /// there any more where its holder looks for it.
    ///
    /// In a mount namespace of its own (a container) that path may be another place: then it is about
    /// another store, whatever became of that. And whoever may not write here cannot keep others out by
    /// what he wrote elsewhere.
    fn key_of_moved(&self, opened: &OpenedFile, name: &str) -> Option<FileKey> {
        let file = opened.open_again().ok()?;
        if !self.trusts(&file) || !is_made_for(&file, self.file) {
            return None;
        }
        let key = sys::open_file_key(&file).ok()??;
        if !self.is_the_place_of(opened.pid)? {
            return None;
        }
        let place = sys::in_root_of(opened.pid, &self.anchors.join(name))?;
        let is_gone = match sys::file_key(&place) {
            Ok(there) => !there?.is(&key),
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        };
        (is_gone && probe_open(&file) == AnchorState::Held).then_some(key)
    }

    /// Whether `pid` finds our directory by our path; `None` when that cannot be seen.
    fn is_the_place_of(&self, pid: sys::Pid) -> Option<bool> {
        let theirs = sys::file_key(&sys::in_root_of(pid, self.directory)?).ok()??;
        Some(theirs.is(&sys::file_key(self.directory).ok()??))
    }

    fn trusts(&self, file: &File) -> bool {
        let owner_of = |path| sys::file_facts(path).ok().and_then(|facts| facts.owner);
        let Ok(facts) = sys::open_file_facts(file) else { return false };
        let trusted = [owner_of(self.directory), sys::effective_uid(), Some(0)];
        facts.owner.is_none() || trusted.contains(&facts.owner)
    }
}

/// Reads what [`find_lost`] wrote.
pub(crate) fn lost_owners_of(text: &str) -> Vec<LostOwner> {
    let lost: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    lost.iter().filter_map(LostOwner::of).collect()
}

impl Sweep {
    /// Takes the orphans' files away, so that they no longer refuse anybody: only when a person
    /// says so, because their owners may still be at work. Call it inside the sweep's transaction.
    pub(crate) fn remove_orphans(&self, directory: &Path) -> Result<()> {
        for orphan in &self.orphans {
            let path = directory.join(&orphan.name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// How many free anchors nobody names.
    pub(crate) fn garbage_count(&self) -> usize {
        self.garbage.len()
    }

    /// Unlinks the garbage, of processes that died. Call it inside the same transaction as the
    /// sweep: there, a free anchor is not one that is just being made.
    pub(crate) fn remove_garbage(&self) {
        for path in &self.garbage {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "cannot remove a free anchor");
            }
        }
    }
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

#[cfg(test)]
mod tests {
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

    /// FIELD-BUGS row 96: one that is not whole yet says nothing.
    #[test]
    fn an_anchor_says_which_store_it_was_made_for() {
        let directory = directory();
        let store = directory.path().join("state.db");
        let anchor = Anchor::create(&store, directory.path(), "aa").unwrap();
        let path = directory.path().join(anchor.name());
        let is_for = |store: &Path| is_made_for(&sys::open_anchor_file(&path).unwrap(), store);
        // Windows lets nobody read a locked file.
        assert!(cfg!(windows) || is_for(&store));
        assert!(!is_for(directory.path()));
        assert!(!is_for(&directory.path().join("state.db2")));
        drop(anchor);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole, content_for(&store));
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(!is_for(&store), "{length} bytes");
        }
        std::fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(!is_for(&store));
    }

    /// FIELD-BUGS rows 91 and 96. Symptom: a service that sees another boot id than its neighbours was
    /// granted what an owner of the deleted store still held. Cause: a boot id that differs was taken for a
    /// restart. It holds because the clocks have to agree; without them its process decides.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_owner_of_a_lost_store_counts_until_it_is_proven_gone() {
        const OTHER: &str = "0f0f0f0f-1111-4222-8333-444444444444";
        const HOUR_MS: i64 = 3_600_000;
        let observer = Observer::new();
        let seen_free = crate::observe::SeenFree::default();
        let view = View {
            observer: &observer,
            wall_ms: 100 * HOUR_MS,
            boot_ms: HOUR_MS,
            anchors: Path::new("/s"),
            seen_free: &seen_free,
            is_local: true,
        };
        let directory = directory();
        let anchor = Anchor::create(Path::new("/s/state.db"), directory.path(), "aa").unwrap();
        let start_time = observer.start_time.unwrap().value;
        let number = observer.number.map(|number| number.0);
        let key = anchor.key().unwrap().unwrap();
        let found = json!({
            "pid": observer.pid, "anchor": anchor.name(), "start_time": start_time,
            "number": number, "boot_id": observer.boot_id, "pid_ns": observer.pid_ns,
            "wall_clock_ms": 100 * HOUR_MS, "boot_clock_ms": HOUR_MS,
        });
        let but = |changes: Value| {
            let mut found = found.clone();
            found.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            lost_owners_of(&json!([found]).to_string())[0].has_let_go(view)
        };
        let clocks = |wall_ms, boot_ms| json!({"wall_clock_ms": wall_ms, "boot_clock_ms": boot_ms});
        let with = |mut one: Value, other: Value| {
            one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
            one
        };
        let other_boot = json!({"boot_id": OTHER});
        let nobody_sees = json!({"pid_ns": "1"});
        assert!(!but(json!({})));
        assert!(!but(other_boot.clone()));
        assert!(!but(with(other_boot.clone(), clocks(Value::Null, Value::Null))), "by version 0.1");
        assert!(!but(with(other_boot.clone(), nobody_sees.clone())));
        let restarted = clocks(json!(99 * HOUR_MS), json!(2 * HOUR_MS));
        let earlier = clocks(json!(99 * HOUR_MS), json!(HOUR_MS / 2));
        for restarted in [restarted.clone(), earlier] {
            assert!(but(with(other_boot.clone(), restarted.clone())));
            assert!(but(with(with(other_boot.clone(), restarted), nobody_sees.clone())));
        }
        assert!(!but(restarted), "of the same boot the clocks say nothing");
        assert!(!but(nobody_sees.clone()));
        assert!(but(json!({"start_time": start_time + 1, "number": null})));
        if let Some(number) = number {
            assert!(but(json!({"number": number + 1})));
            assert!(!but(json!({"start_time": start_time + 1})), "the kernel's number decides");
        }
        assert!(but(json!({"anchor": "aa-1-bb.lock"})), "it has no such file open");

        // Where it was moved to, the lock itself tells, from every pid namespace.
        let path = directory.path().join(anchor.name());
        let moved = json!({
            "moved_to": path.to_str(), "pid_ns": "1",
            "inode": key.inode, "device": key.device, "filesystem": key.filesystem,
        });
        assert!(!but(moved.clone()));
        let name = anchor.name().to_owned();
        let child = anchor.file.try_clone().unwrap();
        drop(anchor);
        assert!(but(moved.clone()));
        // What a child inherited of an owner that let go is open, and free.
        assert!(but(json!({"anchor": name})));
        FileExt::try_lock(&child).unwrap();
        assert!(!but(json!({"anchor": name})));
        assert!(!but(moved.clone()));
        drop(child);
        assert!(but(json!({"anchor": name})));
        std::fs::remove_file(&path).unwrap();
        assert!(!but(moved), "nobody can tell");
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

        let named = HashSet::from([all[3].clone()]);
        let sweep =
            sweep(
                directory.path(),
                "aa",
                &named,
                Some(own.name()),
                None,
                |name| Ok(name == all[0]),
            )
            .unwrap();
        sweep.remove_garbage();

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
