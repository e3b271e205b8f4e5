//! One handle per file and process: POSIX locks belong to a process, and closing one of two
//! descriptors of a file drops the locks of both.

use std::any::Any;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::process::Anchor;
use crate::process::older::lock as older_lock;
use crate::store::gate;
use crate::sys::FileId;
use crate::{Error, ErrorKind, Result};

struct Entry {
    id: FileId,
    /// An entry inherited through a fork stays, also when the child let go of the handle: SQLite
    /// keeps its bookkeeping of the parent's locks, and a second connection would trust it. Not so
    /// where the parent had closed it for the fork.
    creator_pid: u32,
    /// Where it was closed for a fork.
    closed: Option<Closed>,
    /// Its files are not those of the store any more: it serves nobody, but its anchor goes on.
    retired: bool,
    /// Of whatever type: those who make them stand above.
    handle: Weak<dyn Any + Send + Sync>,
}

/// SQLite has nothing of it open, and this is the anchor that stays locked.
struct Closed {
    anchor: Option<Arc<Anchor>>,
}

static HANDLES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Whose entries those are; 0 before the first.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Before the gate is entered for an opening. In a forked child, which has a copy of its parent's
/// entries: forgets those that the parent had closed, and gives their anchors back to it, and its
/// locks of an older program.
///
/// # Errors
/// [`Forked`](ErrorKind::Forked) where the fork met a thread that was just opening a store: nobody
/// can tell any more which are open.
pub(super) fn begin_process() -> Result<()> {
    let me = std::process::id();
    if PROCESS.load(Ordering::Acquire) == me {
        return Ok(());
    }
    // No thread of the parent's is here to unlock it. Another one of ours may be just here.
    let Some(mut handles) = HANDLES.try_lock_for(Duration::from_secs(1)) else {
        return Err(Error::new(
            ErrorKind::Forked,
            "this process was forked while its parent was opening or closing a store",
        )
        .with_hint("call `Store::close_for_fork` in the parent, and fork then"));
    };
    if PROCESS.load(Ordering::Acquire) == me {
        return Ok(());
    }
    // All handles that anybody has here are inherited: they never come as far as the gate.
    gate::GATE.begin_process();
    handles.retain(|entry| match &entry.closed {
        Some(Closed { anchor }) if entry.creator_pid != me => {
            if let Some(anchor) = anchor {
                anchor.leave_to_parent();
            }
            false
        }
        Some(_) | None => true,
    });
    older_lock::leave_to_parent();
    PROCESS.store(me, Ordering::Release);
    Ok(())
}

fn lock() -> MutexGuard<'static, Vec<Entry>> {
    HANDLES.lock()
}

/// Closes all handles of this process for a fork, by `close`, which says what stays locked. Nobody
/// is at work on them. False, and nothing is closed, where another thread was about to drop one: it
/// waits at the gate, with all that SQLite has open.
pub(super) fn close_all<T: Any + Send + Sync>(close: impl Fn(&T) -> Option<Arc<Anchor>>) -> bool {
    let (me, mut alive) = (std::process::id(), Vec::new());
    let mut handles = lock();
    if handles.iter().any(|entry| entry.creator_pid == me && entry.handle.strong_count() == 0) {
        return false;
    }
    for entry in handles.iter_mut().filter(|entry| entry.creator_pid == me) {
        if let Some(Ok(handle)) = entry.handle.upgrade().map(Arc::downcast::<T>) {
            entry.closed = Some(Closed { anchor: close(&handle) });
            alive.push(handle);
        }
    }
    drop(handles);
    drop(alive);
    true
}

/// In the parent, before anybody is at work again: they are open from now on. Those that were
/// closed.
pub(super) fn all_open<T: Any + Send + Sync>() -> Vec<Arc<T>> {
    let me = std::process::id();
    let mut handles = lock();
    let ours = handles.iter_mut().filter(|entry| entry.creator_pid == me);
    ours.filter_map(|entry| {
        entry.closed.take()?;
        entry.handle.upgrade()?.downcast::<T>().ok()
    })
    .collect()
}

/// Does `work`, for which nobody in this process may have the file `id` open, and keeps everybody
/// from opening it meanwhile.
pub(super) fn unless_open<T>(id: &FileId, work: impl FnOnce() -> T) -> Option<T> {
    begin_process().ok()?;
    let Ok(_inside) = gate::enter() else { return None };
    let handles = lock();
    // A retired one goes on with the same descriptors, and a forked child with those of its parent.
    let is_open = handles.iter().any(|entry| {
        entry.id == *id
            && (entry.creator_pid != std::process::id() || entry.handle.strong_count() > 0)
    });
    (!is_open).then(work)
}

/// The live handle of the file `id`, or the one that `make` makes, which is shown the other live
/// handles of this process, the oldest first.
///
/// # Errors
/// [`Forked`](crate::ErrorKind::Forked) when this process inherited a handle of that file.
pub(super) fn share<T: Any + Send + Sync>(
    id: &FileId,
    file: &Path,
    make: impl FnOnce(&[Arc<T>]) -> T,
) -> Result<Arc<T>> {
    let me = std::process::id();
    // Kept alive until the lock is gone: dropping the last reference to a handle takes it as well.
    let mut alive: Vec<Arc<T>> = Vec::new();
    let mut handles = lock();
    // One that is just being dropped stays on the list until it is closed (`forget`).
    if handles.iter().any(|entry| entry.id == *id && entry.creator_pid != me) {
        return Err(forked(file));
    }
    for entry in handles.iter().filter(|entry| entry.creator_pid == me) {
        if let Some(Ok(handle)) = entry.handle.upgrade().map(Arc::downcast::<T>) {
            if entry.id == *id && !entry.retired {
                return Ok(handle);
            }
            alive.push(handle);
        }
    }
    let new = Arc::new(make(&alive));
    let handle: Weak<T> = Arc::downgrade(&new);
    let entry = Entry { id: id.clone(), creator_pid: me, closed: None, retired: false, handle };
    handles.push(entry);
    drop(handles);
    drop(alive);
    Ok(new)
}

/// The handle of `file` was made by another process, before a fork.
pub(crate) fn forked(file: &Path) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!("{} was opened before this process was forked from its parent", file.display()),
    )
    .at(file)
    .with_hint(
        "this process may open it again if its parent called `Store::close_for_fork` before the \
         fork; otherwise execute a program here that opens it",
    )
}

/// Makes the next open of the file a new handle.
pub(super) fn retire<T>(handle: &Arc<T>) {
    for entry in lock().iter_mut() {
        entry.retired |= ptr::addr_eq(entry.handle.as_ptr(), Arc::as_ptr(handle));
    }
}

/// Forgets a handle that its own process closed, so that its children may open the file.
pub(super) fn forget<T>(id: &FileId, handle: *const T) {
    let is_it = |entry: &Entry| entry.id == *id && ptr::addr_eq(entry.handle.as_ptr(), handle);
    lock().retain(|entry| !is_it(entry));
}
