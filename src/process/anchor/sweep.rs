//! The anchors in a directory: which are free, and which no row accounts for.
//!
//! An anchor that is held although no row, live or ended, names it is an *orphan*: the store has
//! lost rows, because it was replaced or restored from an older copy. An orphan refuses every claim
//! until it is gone, because its owner still acts; `evict --force` and `unlock --force` are the way
//! out. Our own anchor is not an orphan. The anchors of processes that lost the same store together
//! with us are not orphans for what *we* held in it (`Inner::held_before`), and are for everything
//! else.
//!
//! An anchor that a row names is an orphan as well if it was handed over to a later row than any
//! that names it here: the store is a copy of before the handover.
//!
//! A free anchor that no row named when the transaction *began* is garbage, and grants collect it.
//! One whose row ended a moment ago is not garbage yet, because the commit may fail.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::liveness::AnchorState;
use crate::process::anchor::handed_over_to;
use crate::process::anchor::probing::{Orphan, names_in, parse_name, probe};
use crate::process::command_lock;
use crate::{Error, Result};

/// What a look through the anchors directory found.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Held anchors that no row of this store accounts for: their owners lost their store, not
    /// their lives.
    pub(crate) orphans: Vec<Orphan>,
    /// Free anchors that no unended row names.
    garbage: Vec<PathBuf>,
}

/// Looks through `directory`. `named` are the anchors of unended rows, `own` is ours, `lost_store`
/// is the id of a store whose anchors do not count (that of the one we were in before),
/// `is_on_record` tells whether any row, ended or not, names an anchor, and `has_since` whether one
/// does that is not older than this fence. Call it only inside a write
/// transaction: there, a free anchor that nobody names stays so.
pub(crate) fn sweep(
    directory: &Path,
    store_id: &str,
    named: &HashSet<String>,
    own: Option<&str>,
    lost_store: Option<&str>,
    mut is_on_record: impl FnMut(&str) -> Result<bool>,
    mut has_since: impl FnMut(&str, i64) -> Result<bool>,
) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    for name in names_in(directory)? {
        let path = directory.join(&name);
        if let Some(anchor) = name.strip_suffix(command_lock::SUFFIX) {
            // It goes with its anchor. That file is gone, and nobody whom a row names needs this
            // one.
            let is_needed = named.contains(anchor)
                || own == Some(anchor)
                || parse_name(anchor).is_none()
                || std::fs::symlink_metadata(directory.join(anchor)).is_ok();
            if !is_needed {
                sweep.garbage.push(path);
            }
            continue;
        }
        let Some((id, pid)) = parse_name(&name) else { continue };
        if own == Some(name.as_str()) {
            continue;
        }
        if named.contains(&name) {
            if let Some(fence) = handed_over_to(&path)
                && !has_since(&name, fence)?
                && probe(&path) == AnchorState::Held
            {
                sweep.orphans.push(Orphan { name, pid });
            }
            continue;
        }
        match probe(&path) {
            AnchorState::Free => {
                sweep.garbage.push(path);
                let of_command = command_lock::path_of(directory, &name);
                if std::fs::symlink_metadata(&of_command).is_ok() {
                    sweep.garbage.push(of_command);
                }
            }
            AnchorState::Held if lost_store == Some(id) && !is_on_record(&name)? => {}
            // Of another store, or of this one in a state that it has lost (restored from a copy).
            AnchorState::Held if id != store_id || !is_on_record(&name)? => {
                sweep.orphans.push(Orphan { name, pid });
            }
            // Held: by a child that a dead owner forked, or by an owner that was evicted.
            AnchorState::Held
            | AnchorState::Missing
            | AnchorState::Unreadable
            | AnchorState::None => {}
        }
    }
    Ok(sweep)
}

impl Sweep {
    /// Takes the orphans' files away, so that they no longer refuse anybody: only when a person
    /// says so, because their owners may still be at work. Call it inside the sweep's transaction.
    pub(crate) fn remove_orphans(&self, directory: &Path) -> Result<()> {
        for orphan in &self.orphans {
            let path = directory.join(&orphan.name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// How many free anchors nobody names.
    pub(crate) fn garbage_count(&self) -> usize {
        self.garbage.len()
    }

    /// Unlinks the garbage, of processes that died. Call it inside the same transaction as the
    /// sweep: there, a free anchor is not one that is just being made.
    pub(crate) fn remove_garbage(&self) {
        for path in &self.garbage {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "cannot remove a free anchor");
            }
        }
    }
}
