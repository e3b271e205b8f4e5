//! Owners of the store that was at our path before: their anchors were deleted, or moved away
//! together with their store.
//!
//! Such an owner holds a lock that no path here leads to. So a process that *makes* a store looks
//! at what all processes have open (`/proc/*/fd`, `find_lost`). It looks for an anchor, deleted
//! here or held, that says that it was made for the store at our path and is no longer there where
//! its holder looks (`/proc/<pid>/root`). A holder whose root has another directory at that path (a
//! container) has another store.
//!
//! What it finds is kept in `meta` (`lost_owners`) and counts as orphans until they are gone. Each
//! claim that is granted something looks again: at the lock itself where the moved file can be
//! reached, else at the process. Boot ids that differ prove nothing without the clocks.
//!
//! A `run` or a keeper claims again within a second, with a new anchor, and releases the old one.
//! An owner that links the library keeps it until its guards are dropped. In the moved store its
//! old anchor is free by then, and its command lives: that is judged as held while the same process
//! holds an anchor where that one was made (`went_back`), or a start there would end the command.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::liveness::{AnchorState, ProcessTable};
use crate::process::anchor::content_for;
use crate::process::anchor::probing::{Orphan, held_in, parse_name, probe_file, probe_open};
use crate::process::observer::{Observer, View};
use crate::sys::{Existence, FileKey, Looks, OpenedFile, ProcessNumber, Shortage};
use crate::{Error, Result, sys};

/// Whether an anchor was made for the store at the real path `store`. False for one that does not
/// say (of an older version), and where it cannot be read: on Windows, while it is locked.
pub(crate) fn is_made_for(anchor: &File, store: &Path) -> bool {
    let wanted = content_for(store);
    let mut found = Vec::with_capacity(wanted.len() + 1);
    let read = anchor.take(wanted.len() as u64 + 1).read_to_end(&mut found).map_err(sys::note);
    read.is_ok() && found == wanted
}

/// Whether the process that made the anchor `name`, the very file that is `recorded`, or `owner`,
/// to whom it was handed over, holds another one by now in the store that this one was made for:
/// the store was moved from there to `store`, and its owner went back. What it let go here says
/// nothing about its end then.
pub(crate) fn went_back(
    anchors: &Path,
    name: &str,
    recorded: &FileKey,
    store: &Path,
    owner: Option<sys::Pid>,
) -> bool {
    const LENGTH_MAX: u64 = 4_096 + 1;
    let Ok(file) = sys::open_anchor_file(&anchors.join(name)).map_err(sys::note) else {
        return false;
    };
    let is_it = sys::open_file_key(&file).is_ok_and(|key| key.is_some_and(|it| it.is(recorded)));
    let mut made_for = String::new();
    let read = file.take(LENGTH_MAX).read_to_string(&mut made_for).map_err(sys::note);
    let made_for = made_for.strip_suffix('\n').filter(|path| Path::new(path) != store);
    let (true, Ok(_), Some(made_for)) = (is_it, read, made_for) else { return false };
    let Some((_, Some(maker))) = parse_name(name) else { return false };
    let held = held_in(Path::new(&format!("{made_for}.anchors")), &HashSet::new());
    let is_its = |other: &Orphan| [Some(maker), owner].contains(&other.pid) && other.pid.is_some();
    held.is_ok_and(|held| held.iter().any(is_its))
}

/// Somebody who held an anchor of the store that was at our path before, as the next store
/// remembers it.
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
            moved_to: text("moved_to").map(PathBuf::from).filter(|it| is_named_as_one(it)),
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

    /// Whether it is certain that it does not hold that anchor any more. Not being able to look is
    /// no sign of it.
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

/// Whether nobody holds an anchor that a process has open: one that a child inherited from an owner
/// that let go.
fn is_free(opened: &OpenedFile) -> bool {
    opened.open_again().is_ok_and(|file| probe_open(&file) == AnchorState::Free)
}

fn is_named_as_one(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| parse_name(name).is_some())
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

/// The owners of the store that was there before, we among them, as JSON; `None` when there are
/// none, or none can be seen. They hold anchors that were deleted, or moved away together with
/// their store, and so no look at the directory finds them. Slow, and only asked when a store is
/// made.
///
/// # Errors
/// [`Busy`](crate::ErrorKind::Busy) when this process ran short of something while it looked, and
/// each time that it looked again.
pub(crate) fn find_lost(site: Site<'_>) -> Result<Option<String>> {
    /// On a busy machine one of thousands of looks at other processes may meet EAGAIN, and nobody
    /// is to be refused for that.
    const TRIES: usize = 5;
    const PAUSE: Duration = Duration::from_millis(20);
    let mut found = look_for_lost(site);
    for _ in 1..TRIES {
        let Err(shortage) = found else { break };
        tracing::debug!(%shortage, "looking for owners again");
        std::thread::sleep(PAUSE);
        found = look_for_lost(site);
    }
    found.map_err(|shortage| {
        Error::shortage(shortage, "look for owners of the store that was there before")
    })
}

fn look_for_lost(site: Site<'_>) -> Result<Option<String>, Shortage> {
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
        return Err(shortage);
    }
    Ok((!lost.is_empty()).then(|| Value::from(lost).to_string()))
}

impl Site<'_> {
    /// Which file it is, if that is an anchor that is held, was made for the store at our path, and
    /// is not there any more where its holder looks for it.
    ///
    /// In a mount namespace of its own (a container) that path may be another place: then it is
    /// about another store, whatever became of that. And whoever may not write here cannot keep
    /// others out by what he wrote elsewhere.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fs4::FileExt;

    use super::*;
    use crate::process::anchor::Anchor;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
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
        assert!(!sys::SHOWS_LOCKED_CONTENT || is_for(&store));
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

    /// FIELD-BUGS rows 91 and 96. Symptom: a service that sees another boot id than its neighbours
    /// was granted what an owner of the deleted store still held. Cause: a boot id that differs was
    /// taken for a restart. It holds because the clocks have to agree; without them its process
    /// decides.
    #[test]
    fn an_owner_of_a_lost_store_counts_until_it_is_proven_gone() {
        const OTHER: &str = "0f0f0f0f-1111-4222-8333-444444444444";
        const HOUR_MS: i64 = 3_600_000;
        if !sys::SHOWS_OPENED_FILES {
            return;
        }
        let observer = Observer::new();
        let seen_free = crate::process::observer::SeenFree::default();
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
}
