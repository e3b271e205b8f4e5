//! Whether the command of a `run` still holds the lock of its own.

use std::path::Path;

use crate::liveness::CommandLockState;
use crate::process::{Observer, anchor, command_lock};
use crate::records::{CommandLock, Record};
use crate::sys;
use crate::sys::{CommandLocks, FileKey};

/// Looks whether the command that `record` names holds its lock.
pub(crate) fn look(record: &Record, observer: &Observer, anchors: &Path) -> CommandLockState {
    let identity = &record.identity;
    let (Some(CommandLock::Held), Some(inode), Some(anchor)) =
        (identity.command_lock, identity.command_lock_inode, &record.anchor)
    else {
        return CommandLockState::None;
    };
    if is_us(record, observer) {
        return CommandLockState::Unknown;
    }
    let Some(name) = anchor::file_name(anchor) else { return CommandLockState::Unknown };
    let Ok(file) = sys::open_anchor_file(&command_lock::path_of(anchors, name)).map_err(sys::note)
    else {
        return CommandLockState::Unknown;
    };
    // On the filesystem of its anchor, which the row knows.
    let recorded = identity.anchor.map(|anchor| FileKey { inode, ..anchor });
    match (recorded, sys::open_file_key(&file).map_err(sys::note)) {
        (Some(recorded), Ok(Some(found))) if found.is(&recorded) => {}
        _ => return CommandLockState::Unknown,
    }
    match sys::command_lock(&file).map_err(sys::note) {
        Ok(CommandLocks { command: true, .. }) => CommandLockState::Held,
        Ok(CommandLocks { descendants: true, .. }) => CommandLockState::Inherited,
        Ok(CommandLocks { descendants: false, .. }) => CommandLockState::Free,
        Err(_) => CommandLockState::Unknown,
    }
}

/// Whether this process may be the command itself: in doubt it is.
fn is_us(record: &Record, observer: &Observer) -> bool {
    if let (Some(recorded), Some(ours)) = (record.identity.child, observer.number) {
        return recorded == ours;
    }
    let may_be_same_namespace =
        record.pid_ns.is_none() || observer.pid_ns.is_none() || record.pid_ns == observer.pid_ns;
    record.child_pid == Some(observer.pid) && may_be_same_namespace
}
