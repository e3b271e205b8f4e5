//! One handle per file and process: POSIX locks belong to a process, and closing one of two
//! descriptors of a file drops the locks of both.

use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::Result;
use crate::store::explain;
use crate::store::handle::Inner;
use crate::sys::FileId;

struct Entry {
    id: FileId,
    /// An entry inherited through a fork stays, also when the child let go of the handle: SQLite
    /// keeps its bookkeeping of the parent's locks, and a second connection would trust it.
    creator_pid: u32,
    /// Its files are not those of the store any more: it serves nobody, but its anchor goes on.
    retired: bool,
    handle: Weak<Inner>,
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

/// The live handle of the file `id`, or the one that `make` makes.
///
/// # Errors
/// [`Forked`](crate::ErrorKind::Forked) when this process inherited a handle of that file.
pub(super) fn share(id: &FileId, file: &Path, make: impl FnOnce() -> Inner) -> Result<Arc<Inner>> {
    let me = std::process::id();
    // Kept alive until the lock is gone: dropping the last reference to a handle takes it as well.
    let mut alive: Vec<Arc<Inner>> = Vec::new();
    let mut handles = HANDLES.lock();
    handles.retain(|entry| entry.creator_pid != me || entry.handle.strong_count() > 0);
    if handles.iter().any(|entry| entry.id == *id && entry.creator_pid != me) {
        return Err(explain::forked(file));
    }
    for entry in handles.iter().filter(|entry| entry.creator_pid == me) {
        if let Some(handle) = entry.handle.upgrade() {
            if entry.id == *id && !entry.retired {
                return Ok(handle);
            }
            alive.push(handle);
        }
    }
    let new = make();
    // A store was replaced under a handle of ours: its anchor goes on, so that its lock never
    // lapses and is not taken for somebody else's.
    if let Some(before) = alive.iter().rfind(|handle| handle.location.file == file) {
        new.adopt_anchor(before);
    }
    let new = Arc::new(new);
    handles.push(Entry {
        id: id.clone(),
        creator_pid: me,
        retired: false,
        handle: Arc::downgrade(&new),
    });
    drop(handles);
    drop(alive);
    Ok(new)
}

/// Makes the next open of the file a new handle.
pub(super) fn retire(handle: &Arc<Inner>) {
    for entry in HANDLES.lock().iter_mut() {
        entry.retired |= entry.handle.as_ptr() == Arc::as_ptr(handle);
    }
    handle.close_connections();
}

/// Forgets a handle that its own process closed, so that its children may open the file.
pub(super) fn forget(id: &FileId, handle: *const Inner) {
    HANDLES.lock().retain(|entry| entry.id != *id || entry.handle.as_ptr() != handle);
}
