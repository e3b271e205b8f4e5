//! One handle per file and process: POSIX locks belong to a process, and closing one of two
//! descriptors of a file drops the locks of both.

use std::any::Any;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::sys::FileId;
use crate::{Error, ErrorKind, Result};

struct Entry {
    id: FileId,
    /// An entry inherited through a fork stays, also when the child let go of the handle: SQLite
    /// keeps its bookkeeping of the parent's locks, and a second connection would trust it.
    creator_pid: u32,
    /// Its files are not those of the store any more: it serves nobody, but its anchor goes on.
    retired: bool,
    /// Of whatever type: those who make them stand above.
    handle: Weak<dyn Any + Send + Sync>,
}

static HANDLES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Does `work`, for which nobody in this process may have the file `id` open, and keeps everybody
/// from opening it meanwhile.
pub(super) fn unless_open<T>(id: &FileId, work: impl FnOnce() -> T) -> Option<T> {
    let handles = HANDLES.lock();
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
    let mut handles = HANDLES.lock();
    handles.retain(|entry| entry.creator_pid != me || entry.handle.strong_count() > 0);
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
    handles.push(Entry { id: id.clone(), creator_pid: me, retired: false, handle });
    drop(handles);
    drop(alive);
    Ok(new)
}

/// The handle of `file` was made by another process, before a fork.
pub(super) fn forked(file: &Path) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!("{} was opened before this process was forked from its parent", file.display()),
    )
    .at(file)
    .with_hint(
        "fork before the store is opened, or execute a program in the child: this process cannot \
         open it",
    )
}

/// Makes the next open of the file a new handle.
pub(super) fn retire<T>(handle: &Arc<T>) {
    for entry in HANDLES.lock().iter_mut() {
        entry.retired |= ptr::addr_eq(entry.handle.as_ptr(), Arc::as_ptr(handle));
    }
}

/// Forgets a handle that its own process closed, so that its children may open the file.
pub(super) fn forget<T>(id: &FileId, handle: *const T) {
    let is_it = |entry: &Entry| entry.id == *id && ptr::addr_eq(entry.handle.as_ptr(), handle);
    HANDLES.lock().retain(|entry| !is_it(entry));
}
