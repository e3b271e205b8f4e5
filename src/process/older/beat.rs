//! The last sign of life of a gateway, as the time of a file: `gateway.heartbeat`.
//!
//! Programs that watch such a file look how old it is (`find -mmin +1`). So its time is that of the
//! heartbeat, also where it was removed and is written again. It stays when the gateway ends: then
//! it gets old. A gateway that gives no heartbeat has none.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::Result;
use crate::process::older::HEARTBEAT_FILE;
use crate::process::older::wire::python_time;
use crate::process::older::write::write_dated;

/// Writes the file, unless it has that time already. The time stands in it, too.
pub(super) fn show(directory: &Path, at_ms: i64) -> Result<()> {
    let since_epoch = Duration::from_millis(at_ms.try_into().unwrap_or_default());
    let Some(at) = SystemTime::UNIX_EPOCH.checked_add(since_epoch) else { return Ok(()) };
    let path = directory.join(HEARTBEAT_FILE);
    let shown = path.symlink_metadata().and_then(|facts| facts.modified());
    if shown.is_ok_and(|shown| shown == at) {
        return Ok(());
    }
    let text = python_time(at_ms).unwrap_or_default();
    write_dated(directory, HEARTBEAT_FILE, &format!("{text}\n"), Some(at))
}
