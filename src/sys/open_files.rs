//! Linux: who has a file open or locked, by `/proc`.
//!
//! A descriptor of any process may lead to a filesystem that does not answer any more (NFS, FUSE),
//! and whoever asks for the file behind it waits for that for ever. So the kernel's own words come
//! first, which ask no filesystem: what the file is called, and which locks are on it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{DirEntry, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::linux::{other_processes, pid_namespace, process_table_is_ours, read_proc};
use super::unix::own_pid;
use super::{ListedLock, Pid, note, procfs};

fn key(facts: &Metadata) -> (u64, u64) {
    (facts.dev(), facts.ino())
}

/// What `pid` has open under a name that `is_it`, wherever that is; nothing where we may not look.
/// Another mount namespace has another path for the same file, but no other name. One that was
/// deleted has ` (deleted)` at the end of it.
fn open_files(pid: Pid, is_it: impl Fn(&OsStr) -> bool) -> impl Iterator<Item = DirEntry> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter(move |entry| {
        std::fs::read_link(entry.path()).is_ok_and(|path| path.file_name().is_some_and(&is_it))
    })
}

fn is_open_file(entry: &DirEntry, facts: &Metadata) -> bool {
    std::fs::metadata(entry.path()).is_ok_and(|open| key(&open) == key(facts))
}

pub fn processes_with_open_file(path: &Path) -> Vec<Pid> {
    let Ok(wanted) = std::fs::metadata(path) else { return Vec::new() };
    let is_called = |name: &OsStr| Some(name) == path.file_name();
    let has_open = |pid: &Pid| open_files(*pid, is_called).any(|it| is_open_file(&it, &wanted));
    other_processes().filter(has_open).collect()
}

pub fn processes_with_files_of(directory: &Path) -> Vec<(Pid, String)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files: HashMap<String, Metadata> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?)))
        .collect();
    if files.is_empty() {
        return Vec::new();
    }
    let is_called = |name: &OsStr| name.to_str().is_some_and(|name| files.contains_key(name));
    let names = |pid: Pid| {
        open_files(pid, is_called).filter_map(|entry| {
            let path = std::fs::read_link(entry.path()).ok()?;
            let (name, facts) = files.get_key_value(path.file_name()?.to_str()?)?;
            is_open_file(&entry, facts).then(|| name.clone())
        })
    };
    other_processes().flat_map(|pid| names(pid).map(move |name| (pid, name))).collect()
}

/// A file as the list of locks names it: its device and inode.
struct Listed {
    device: (u32, u32),
    inode: u64,
}

impl Listed {
    /// `None` where the list names other pids than ours: those of the namespace of the `/proc`
    /// mount. It leaves out whoever has none there.
    fn of(facts: &Metadata) -> Option<Self> {
        let device = (rustix::fs::major(facts.dev()), rustix::fs::minor(facts.dev()));
        process_table_is_ours().then_some(Self { device, inode: facts.ino() })
    }
}

/// A lock of an open file is not in the list with a process: whoever has the file open says that he
/// has locked it.
pub fn record_lock_holder(path: &Path, offset: u64) -> Option<Pid> {
    let facts = std::fs::metadata(path).ok()?;
    let Listed { device, inode } = Listed::of(&facts)?;
    let is_called = |name: &OsStr| Some(name) == path.file_name();
    let holds = |pid: &Pid| {
        open_files(*pid, is_called).any(|entry| {
            let name = entry.file_name();
            read_proc(&format!("/proc/{pid}/fdinfo/{}", name.to_string_lossy()))
                .is_some_and(|fdinfo| procfs::holds_open_file_lock(&fdinfo, inode, offset))
                && is_open_file(&entry, &facts)
        })
    };
    (0..LISTINGS)
        .find_map(|_| procfs::record_lock_holder(&list_of_locks()?, device, inode, offset))
        .or_else(|| other_processes().chain([own_pid()]).find(holds))
}

pub fn record_lock_holders(path: &Path, offset: u64) -> Option<Vec<Pid>> {
    let Listed { device, inode } = Listed::of(&std::fs::metadata(path).ok()?)?;
    let mut holders: Vec<Pid> = (0..LISTINGS)
        .filter_map(|_| list_of_locks())
        .flat_map(|locks| procfs::record_lock_holders(&locks, device, inode, offset))
        .collect();
    holders.sort_unstable();
    holders.dedup();
    Some(holders)
}

/// The list is not shown in one piece: where others lock and unlock meanwhile, a line may be
/// missing.
const LISTINGS: usize = 3;

fn list_of_locks() -> Option<Vec<u8>> {
    const LENGTH_USUAL: usize = 64 * 1024;
    let mut locks = Vec::with_capacity(LENGTH_USUAL);
    File::open("/proc/locks").map_err(note).ok()?.read_to_end(&mut locks).map_err(note).ok()?;
    Some(locks)
}

/// The first pid namespace has this number in every kernel (`PROC_PID_INIT_INO`, Linux 3.8). Only
/// there the list leaves nobody out.
const FIRST_PID_NAMESPACE: &str = "4026531836";

pub fn listed_lock(path: &Path) -> ListedLock {
    let facts = std::fs::symlink_metadata(path).ok();
    let Some(Listed { device, inode }) = facts.as_ref().and_then(Listed::of) else {
        return ListedLock::Unknown;
    };
    let mut is_listed_as_free = true;
    for _ in 0..LISTINGS {
        let Some(locks) = list_of_locks() else { return ListedLock::Unknown };
        match procfs::flock_holder(&locks, device, inode) {
            procfs::Flock::Held(pid) => return ListedLock::Held(pid),
            procfs::Flock::Ambiguous => is_listed_as_free = false,
            procfs::Flock::None => {}
        }
    }
    if is_listed_as_free && pid_namespace().as_deref() == Some(FIRST_PID_NAMESPACE) {
        ListedLock::Free
    } else {
        ListedLock::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_record_lock() {
        use std::io::Write;
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(&[0; 256]).unwrap();
        assert_eq!(record_lock_holder(file.path(), 120), None);
        rustix::fs::fcntl_lock(
            file.as_file(),
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        )
        .unwrap();
        assert_eq!(record_lock_holder(file.path(), 120), Some(own_pid()));
    }
}
