//! Whether some process holds `gateway.lock`, and which.
//!
//! The older program tries to take that lock itself to find out whether it is held, and gives up
//! when anybody else has it; a shared probe of ours would refuse it. So only a claim tries the
//! lock, for an instant (see `looks.rs`). Questions and waiters read the kernel's list
//! `/proc/locks`. `anchor::look` is the one way to look at a recorded anchor, of either kind.

use std::fs::File;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;

use crate::liveness::AnchorState;
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::looks::{LockLooks, LookBy};
use crate::process::older::wire::PidRecord;
use crate::process::older::{LOCK_FILE, PID_FILE, looks};
use crate::sys;
use crate::sys::{Existence, FileId, ListedLock, Sharing};

/// The older program's own probes hold the lock for some microseconds, and may come one after the
/// other: it is kept by somebody if that many looks in a row, so far apart, find it held by the
/// same process.
const LOOKS_ALIKE: usize = 8;

const LOOKS_MAX: usize = 12;

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The locks of this kind that this process holds. A forked child holds none of its parent's.
static OWN: Mutex<Vec<Own>> = Mutex::new(Vec::new());

struct Own {
    creator_pid: u32,
    id: FileId,
    file: Weak<File>,
}

/// The path of a recorded anchor that is an older gateway's.
pub(crate) fn path_of(anchor: &str) -> Option<&Path> {
    let path = Path::new(anchor);
    let is_one = path.is_absolute() && path.file_name().is_some_and(|name| name == LOCK_FILE);
    is_one.then_some(path)
}

/// For questions: leaves the lock alone, where the platform lists who holds locks.
pub(crate) fn look(path: &Path) -> AnchorState {
    match sys::file_facts(path) {
        Ok(facts) if is_own(&facts.id) => return AnchorState::Free,
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return AnchorState::Missing,
        Err(_) => return AnchorState::Unreadable,
    }
    looks::state(path, LookBy::List).unwrap_or_else(|| {
        unless_passing(|| match sys::listed_lock(path) {
            ListedLock::Held(pid) => seen_held(path, pid),
            ListedLock::Free => Seen::Surely(AnchorState::Free),
            ListedLock::Unknown => Seen::Surely(AnchorState::Unreadable),
            ListedLock::NoList => try_to_see(path),
        })
    })
}

/// For claims: the kernel's word. A lock that this process holds itself keeps nobody else's place.
pub(crate) fn probe(path: &Path) -> AnchorState {
    if !looks::is_bound() {
        return unless_passing(|| try_to_see(path));
    }
    let tried = try_lock(path);
    let held = (tried == AnchorState::Held).then(|| looks::state(path, LookBy::Trying)).flatten();
    held.unwrap_or(tried)
}

/// What one look came to.
enum Seen {
    /// Held by this process, if that is known; it may be let go in an instant.
    Held(Option<sys::Pid>),
    Surely(AnchorState),
}

fn unless_passing(look: impl Fn() -> Seen) -> AnchorState {
    let (mut last, mut alike) = (None, 0);
    for _ in 0..LOOKS_MAX {
        match look() {
            Seen::Surely(state) => return state,
            Seen::Held(pid) => {
                alike = if last == Some(pid) { alike + 1 } else { 1 };
                last = Some(pid);
            }
        }
        if alike == LOOKS_ALIKE {
            return AnchorState::Held;
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    // Whoever keeps it would have been found every time.
    AnchorState::Free
}

fn try_to_see(path: &Path) -> Seen {
    match try_lock(path) {
        AnchorState::Held => match sys::listed_lock(path) {
            ListedLock::Held(pid) => seen_held(path, pid),
            ListedLock::Free | ListedLock::Unknown | ListedLock::NoList => Seen::Held(None),
        },
        state => Seen::Surely(state),
    }
}

/// Whoever has written its name into the file keeps the lock; in a container it has another pid,
/// and the same start time.
fn seen_held(path: &Path, pid: Option<sys::Pid>) -> Seen {
    let is_written = |pid| {
        PidRecord::read(path).is_ok_and(|said| {
            let start_time = sys::process_facts(pid).start_time;
            match said.start_time().zip(start_time) {
                Some((said, now)) => said == now,
                None => said.pid == pid && !said.is_of_the_dead(),
            }
        })
    };
    match pid {
        Some(pid) if is_written(pid) => Seen::Surely(AnchorState::Held),
        pid => Seen::Held(pid),
    }
}

fn try_lock(path: &Path) -> AnchorState {
    let file = match sys::open_anchor_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return AnchorState::Missing,
        Err(_) => return AnchorState::Unreadable,
    };
    if sys::open_file_facts(&file).is_ok_and(|facts| is_own(&facts.id)) {
        return AnchorState::Free;
    }
    match sys::try_foreign_lock(&file, Sharing::Shared) {
        Ok(true) => {
            sys::foreign_unlock(&file);
            AnchorState::Free
        }
        Ok(false) => AnchorState::Held,
        Err(_) => AnchorState::Unreadable,
    }
}

fn is_own(id: &FileId) -> bool {
    let me = std::process::id();
    OWN.lock().iter().any(|own| own.creator_pid == me && own.id == *id)
}

/// Notes that this process holds the lock on a file.
pub(super) fn note_own(id: FileId, file: Weak<File>) {
    OWN.lock().push(Own { creator_pid: std::process::id(), id, file });
}

pub(super) fn forget_own(id: &FileId) {
    OWN.lock().retain(|own| own.id != *id);
}

/// In a forked child: closes what it has inherited, and leaves the locks to the parent. They are
/// those of the open files (flock(2)): a child that kept these would keep out whoever comes after
/// its parent.
pub(crate) fn leave_to_parent() {
    let me = std::process::id();
    // Where a thread of the parent's had it locked at the fork, nobody unlocks it here.
    let Some(mut all) = OWN.try_lock_for(Duration::from_secs(1)) else { return };
    all.retain(|own| {
        let is_inherited = own.creator_pid != me;
        if is_inherited
            && let Some(file) = own.file.upgrade()
            && let Err(error) = sys::close_inherited(&file)
        {
            tracing::debug!(%error, "an inherited lock stays open until this process ends");
        }
        !is_inherited
    });
}

/// The same, by what is `said` in the file, and by the kernel's list. Where these differ the list
/// is right, for the file may still speak of the last holder, or with the numbers of another
/// container. The list names the process that took the lock, also when that has ended.
fn find_holder(path: &Path, said: Option<PidRecord>) -> LockHolder {
    let listed = match sys::listed_lock(path) {
        ListedLock::Held(pid) => pid,
        ListedLock::Free | ListedLock::Unknown | ListedLock::NoList => None,
    };
    match (listed, said) {
        (Some(pid), Some(said)) if said.pid == pid && said.is_of_the_dead() => {
            LockHolder { is_here: true, has_left_it: true, ..LockHolder::said(said) }
        }
        (Some(pid), said) if said.is_none() || !is_gone(pid) => {
            let start_time = sys::process_facts(pid).start_time;
            let is_its_own =
                |said: &PidRecord| said.start_time().is_some() && said.start_time() == start_time;
            LockHolder {
                pid,
                start_time,
                owner: said.filter(is_its_own).and_then(|said| said.owner),
                // The words in the file leave out the interpreter, which the process goes on to
                // show.
                argv: sys::command_line(pid).unwrap_or_default(),
                is_here: true,
                has_left_it: is_gone(pid),
            }
        }
        // One that detached itself after it had taken the lock: the words are of what goes on.
        (_, Some(said)) => {
            let is_here = said.start_time.is_some()
                && sys::process_table_is_ours()
                && sys::process_facts(said.pid).start_time == said.start_time();
            let shown = if is_here { sys::command_line(said.pid) } else { None };
            let found = LockHolder::said(said);
            LockHolder { argv: shown.unwrap_or_else(|| found.argv.clone()), is_here, ..found }
        }
        (_, None) => LockHolder { is_here: false, ..LockHolder::nobody() },
    }
}

/// Who holds the lock at `path`, which is held.
pub(crate) fn whoever_holds(path: &Path) -> LockHolder {
    look_for_holder(path).0
}

/// Who holds the lock at `path`, which is held, and what its file says.
pub(crate) fn look_for_holder(path: &Path) -> (LockHolder, Option<PidRecord>) {
    if let Some(seen) = looks::holder(path) {
        return seen;
    }
    let said = PidRecord::read(path).ok();
    let beside = || PidRecord::read(&path.with_file_name(PID_FILE)).ok();
    (find_holder(path, said.clone().or_else(beside)), said)
}

impl LockLooks {
    /// Looks at what the transaction wanted to see.
    pub(crate) fn look(&mut self) {
        for (path, by) in self.take_wanted() {
            let state = match by {
                LookBy::List => look(&path),
                LookBy::Trying => probe(&path),
            };
            let holder = look_for_holder(&path);
            self.note(path, state, holder);
        }
    }
}

pub(crate) fn is_gone(pid: sys::Pid) -> bool {
    sys::process_facts(pid).existence == Existence::Gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_absolute_path_of_such_a_file_is_one() {
        let absolute = std::env::temp_dir().join("gateway.lock");
        assert_eq!(path_of(&absolute.to_string_lossy()), Some(absolute.as_path()));
        for other in ["gateway.lock", "../gateway.lock", "/etc/passwd", "", "aa-1-bb.lock"] {
            assert_eq!(path_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_lock_is_free_held_or_our_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        assert_eq!((probe(&path), look(&path)), (AnchorState::Missing, AnchorState::Missing));
        let file = sys::open_foreign_lock_file(&path).unwrap();
        assert_eq!(probe(&path), AnchorState::Free);
        assert!(sys::try_foreign_lock(&file, Sharing::Exclusive).unwrap());
        assert_eq!(probe(&path), AnchorState::Held);
        let id = sys::open_file_facts(&file).unwrap().id;
        note_own(id.clone(), Weak::new());
        assert_eq!((probe(&path), look(&path)), (AnchorState::Free, AnchorState::Free));
        forget_own(&id);
        assert_eq!(probe(&path), AnchorState::Held);
        sys::foreign_unlock(&file);
        assert_eq!(probe(&path), AnchorState::Free);
        let not_a_file = directory.path().join("sub").join(LOCK_FILE);
        std::fs::create_dir_all(&not_a_file).unwrap();
        assert_eq!(probe(&not_a_file), AnchorState::Unreadable);
    }
}
