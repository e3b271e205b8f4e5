//! Our descriptors of the files of a store, and the locks of an open file.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use super::layout::{DATABASE_COUNT, DATABASE_FIRST, IN_USE, LOCKS};
use crate::sys::shortage::note;

/// Whether a connection in this process has record locks on it, as far as the kernel names whose
/// lock is in the way: of several who read it names one, but a writer is alone.
pub(super) fn is_locked_by_this_process(file: &File) -> bool {
    let probes = [(LOCKS, 1), (LOCKS + 1, IN_USE - LOCKS), (DATABASE_FIRST, DATABASE_COUNT)];
    let own = std::process::id();
    probes.iter().any(|&(first, count)| {
        locked_by(file, first, count).is_some_and(|pid| u32::try_from(pid) == Ok(own))
    })
}

/// Who holds a lock there that is not of this very open file: the process of a record lock, else
/// -1.
pub(super) fn locked_by(file: &File, first: i64, count: i64) -> Option<libc::pid_t> {
    let mut asked = range(libc::F_WRLCK, first, count);
    // SAFETY: `asked` is a whole `flock`, which the kernel fills in.
    let code = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) };
    (code == 0 && c_int::from(asked.l_type) != libc::F_UNLCK).then_some(asked.l_pid)
}

/// Opens a file of the store, never through a link. In the place of one there may be a FIFO, whose
/// `open(2)` would not return without `O_NONBLOCK`, and all others would wait for the mutex
/// meanwhile; for a regular file the flag means nothing.
///
/// # Errors
/// As `open(2)`; `InvalidInput` for what is not a regular file.
pub(super) fn open(
    path: &CStr,
    flags: c_int,
    mode: libc::mode_t,
    key: Key,
) -> io::Result<Descriptor> {
    let writes = flags & libc::O_ACCMODE == libc::O_RDWR;
    CHILDREN.with(|shared| {
        let file = if let Some(file) = shared.take(key, Key::of(path).ok(), writes) {
            file
        } else {
            let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
            // SAFETY: a NUL-terminated path, and a descriptor that is nobody else's.
            let file = unsafe {
                let file = libc::open(path.as_ptr(), flags, mode);
                if file < 0 {
                    return Err(note(io::Error::last_os_error()));
                }
                File::from_raw_fd(file)
            };
            if !file.metadata().map_err(note)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            shared.open.push(file.as_raw_fd());
            file
        };
        let creator_pid = std::process::id();
        let forks = FORKS.load(Ordering::Relaxed);
        Ok(Descriptor { file: ManuallyDrop::new(file), creator_pid, forks, key, writes })
    })
}

#[allow(clippy::cast_possible_truncation, reason = "the kinds are 0 to 2")]
pub(super) fn range(kind: c_int, first: i64, count: i64) -> libc::flock {
    // SAFETY: plain numbers, for which zero is valid: SEEK_SET, and no pid, as these locks want it.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_start = first;
    range.l_len = count;
    range
}

/// Locks or unlocks bytes for this open file, without waiting; else the code that SQLite expects.
pub(super) fn set(file: &Descriptor, kind: c_int, first: i64, count: i64) -> Result<(), c_int> {
    let wanted = range(kind, first, count);
    loop {
        // SAFETY: `wanted` is a whole `flock` that the kernel only reads.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EINTR) => continue,
            Some(libc::EAGAIN | libc::EACCES) => ffi::SQLITE_BUSY,
            _ => {
                note(error);
                ffi::SQLITE_IOERR_SHMLOCK
            }
        });
    }
}

/// Which file it is: `st_dev` and `st_ino`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64, u64);

impl Key {
    pub(super) fn of(path: &CStr) -> io::Result<Self> {
        // SAFETY: plain numbers, for which zero is valid, filled in by the call.
        unsafe {
            let mut facts: libc::stat = std::mem::zeroed();
            if libc::stat(path.as_ptr(), &raw mut facts) != 0 {
                return Err(note(io::Error::last_os_error()));
            }
            Ok(Self(facts.st_dev, facts.st_ino))
        }
    }
}

/// What all connections of the process share.
pub(super) struct Shared {
    /// Every descriptor of ours: a forked child closes them.
    open: Vec<RawFd>,
    /// The databases that connections of ours have open, as often as they do.
    used: Vec<Key>,
    /// Of connections that were closed while others of the same database go on.
    pub(super) parked: Vec<Parked>,
}

pub(super) struct Parked {
    pub(super) database: Key,
    file: File,
    writes: bool,
}

impl Shared {
    pub(super) fn enter(&mut self, database: Key) {
        self.used.push(database);
    }

    pub(super) fn leave(&mut self, database: Key) {
        if let Some(at) = self.used.iter().position(|used| *used == database) {
            self.used.swap_remove(at);
        }
        if !self.used.contains(&database) {
            let (closed, kept) =
                self.parked.drain(..).partition(|parked: &Parked| parked.database == database);
            self.parked = kept;
            for parked in closed {
                self.close_unless_locked(parked);
            }
        }
    }

    /// One that leads to the very file that is meant.
    fn take(&mut self, database: Key, file: Option<Key>, writes: bool) -> Option<File> {
        let is_it = |parked: &Parked| {
            let facts = parked.file.metadata();
            let key = facts.map(|facts| Key(facts.dev(), facts.ino()));
            parked.database == database && parked.writes == writes && key.ok() == file
        };
        let at = self.parked.iter().position(|parked| file.is_some() && is_it(parked))?;
        Some(self.parked.swap_remove(at).file)
    }

    fn put(&mut self, database: Key, file: File, writes: bool) {
        // Nobody opens one that was deleted again, and no lock on it means anything.
        let has_name = file.metadata().is_ok_and(|facts| facts.nlink() > 0);
        let parked = Parked { database, file, writes };
        if self.used.contains(&database) && has_name {
            self.parked.push(parked);
        } else {
            self.close_unless_locked(parked);
        }
    }

    /// A connection beside ours, with SQLite's own methods, may have locks on it that this close
    /// would cancel.
    fn close_unless_locked(&mut self, parked: Parked) {
        if is_locked_by_this_process(&parked.file) {
            self.parked.push(parked);
        } else {
            self.open.retain(|known| *known != parked.file.as_raw_fd());
        }
    }
}

/// The state that connections share, behind POSIX' own mutex: it may be unlocked in a forked child
/// by the thread that has locked it before.
pub(super) struct Children {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    shared: UnsafeCell<Shared>,
}

// SAFETY: what is shared is only touched with the mutex held.
unsafe impl Sync for Children {}

pub(super) static CHILDREN: Children = Children {
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    shared: UnsafeCell::new(Shared { open: Vec::new(), used: Vec::new(), parked: Vec::new() }),
};

impl Children {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        // SAFETY: a mutex that was initialised statically and is never moved; what is done under it
        // does not panic and does not come back here.
        unsafe {
            libc::pthread_mutex_lock(self.mutex.get());
            let done = work(&mut *self.shared.get());
            libc::pthread_mutex_unlock(self.mutex.get());
            done
        }
    }
}

/// How often this process and those before it were forked, until here.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A descriptor that forked children do not keep.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) file: ManuallyDrop<File>,
    creator_pid: u32,
    forks: u32,
    key: Key,
    pub(super) writes: bool,
}

impl Descriptor {
    /// It was closed in this forked child. Without a system call, because it is asked with each
    /// lock.
    pub(super) fn is_closed(&self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }

    /// It was opened by another process, before a fork of whatever kind. Both of them may be pid 1,
    /// where the fork began a pid namespace.
    pub(super) fn is_inherited(&self) -> bool {
        self.creator_pid != std::process::id() || self.is_closed()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        // SAFETY: taken once, here.
        let file = unsafe { ManuallyDrop::take(&mut self.file) };
        CHILDREN.with(|shared| shared.put(self.key, file, self.writes));
    }
}

pub(super) fn close_in_children() {
    static ONCE: Once = Once::new();
    unsafe extern "C" fn prepare() {
        // SAFETY: as in `Children::with`; unlocked on both sides of the fork.
        unsafe { libc::pthread_mutex_lock(CHILDREN.mutex.get()) };
    }
    unsafe extern "C" fn in_parent() {
        // SAFETY: locked by this thread in `prepare`.
        unsafe { libc::pthread_mutex_unlock(CHILDREN.mutex.get()) };
    }
    unsafe extern "C" fn in_child() {
        // SAFETY: locked by this thread in `prepare`; close(2) may be called here.
        unsafe {
            let shared = &mut *CHILDREN.shared.get();
            for file in &shared.open {
                libc::close(*file);
            }
            shared.open.clear();
            FORKS.fetch_add(1, Ordering::Relaxed);
            // Their numbers may be somebody else's soon.
            std::mem::forget(std::mem::take(&mut shared.parked));
            shared.used.clear();
            libc::pthread_mutex_unlock(CHILDREN.mutex.get());
        }
    }
    ONCE.call_once(|| {
        // SAFETY: three functions that live as long as the program. Where there is no memory for
        // it, a child keeps our locks until it ends.
        unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
    });
}
