//! One handle per file and process: POSIX locks belong to a process, and closing one of two
//! descriptors of a file drops the locks of both.

use std::sync::{Arc, Mutex, Weak};

use super::{Inner, lock};
use crate::error::Result;
use crate::sys::FileId;

static HANDLES: Mutex<Vec<(FileId, Weak<Inner>)>> = Mutex::new(Vec::new());

/// The live handle of the file `id`, or the one that `make` makes.
///
/// # Errors
/// [`Forked`](crate::ErrorKind::Forked) when the handle was inherited through a fork: SQLite's
/// bookkeeping of the parent's locks came along, and a second connection would trust it.
pub(super) fn share(id: &FileId, make: impl FnOnce() -> Inner) -> Result<Arc<Inner>> {
    let mut handles = lock(&HANDLES);
    handles.retain(|(_, handle)| handle.strong_count() > 0);
    let existing =
        handles.iter().filter(|(known, _)| known == id).find_map(|(_, handle)| handle.upgrade());
    if let Some(handle) = existing {
        handle.check_process()?;
        return Ok(handle);
    }
    let handle = Arc::new(make());
    handles.push((id.clone(), Arc::downgrade(&handle)));
    Ok(handle)
}
