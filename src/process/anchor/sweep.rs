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

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Deadline;
use crate::liveness::AnchorState;
use crate::process::anchor::accounted::Accounted;
use crate::process::anchor::handed_over_to;
use crate::process::anchor::probing::{Orphan, parse_name, probe};
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

/// What the rows of the store say of an anchor.
pub(crate) trait OnRecord {
    /// Whether an unended row names it.
    fn is_live(&self, name: &str) -> Result<bool>;

    /// Whether any row names it, ended or not.
    fn is_known(&self, name: &str) -> Result<bool>;

    /// Whether one does that is not older than this fence.
    fn is_known_since(&self, name: &str, fence: i64) -> Result<bool>;
}

/// Whose anchors are looked at, and by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) store_id: &'a str,
    /// Our own anchor.
    pub(crate) own: Option<&'a str>,
    /// The id of a store whose anchors do not count (that of the one we were in before).
    pub(crate) lost_store: Option<&'a str>,
}

/// What became of one name.
enum Found {
    /// A row accounts for it.
    Accounted,
    Orphan(Orphan),
    Garbage,
    Neither,
}

/// Looks at the anchors of these `names`, those that were not `accounted` for. Call it only inside
/// a write transaction: there, a free anchor that nobody names stays so.
pub(crate) fn sweep(
    place: Place<'_>,
    names: Vec<String>,
    rows: &impl OnRecord,
    accounted: &mut Accounted,
) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let (mut known, mut others) = (Vec::new(), Vec::new());
    for name in names {
        let path = place.directory.join(&name);
        if let Some(anchor) = name.strip_suffix(command_lock::SUFFIX) {
            // It goes with its anchor. That file is gone, and nobody whom a row names needs this
            // one.
            let is_needed = place.own == Some(anchor)
                || parse_name(anchor).is_none()
                || std::fs::symlink_metadata(place.directory.join(anchor)).is_ok()
                || rows.is_live(anchor)?;
            if !is_needed {
                sweep.garbage.push(path);
            }
            others.push(name);
            continue;
        }
        match look_at(place, &name, &path, rows)? {
            Found::Accounted => {
                known.push(name);
                continue;
            }
            Found::Orphan(orphan) => sweep.orphans.push(orphan),
            Found::Garbage => {
                sweep.garbage.push(path);
                let of_command = command_lock::path_of(place.directory, &name);
                if std::fs::symlink_metadata(&of_command).is_ok() {
                    sweep.garbage.push(of_command);
                }
            }
            Found::Neither => {}
        }
        others.push(name);
    }
    accounted.note(known, others);
    Ok(sweep)
}

fn look_at(place: Place<'_>, name: &str, path: &Path, rows: &impl OnRecord) -> Result<Found> {
    let Some((id, pid)) = parse_name(name) else { return Ok(Found::Neither) };
    if place.own == Some(name) {
        return Ok(Found::Neither);
    }
    let orphan = || Found::Orphan(Orphan { name: name.to_owned(), pid });
    if rows.is_live(name)? {
        return Ok(match handed_over_to(path) {
            Ok(Some(fence)) if !rows.is_known_since(name, fence)? => {
                if probe(path) == AnchorState::Held { orphan() } else { Found::Neither }
            }
            Ok(_) => Found::Accounted,
            // It is looked at again.
            Err(_) => Found::Neither,
        });
    }
    Ok(match probe(path) {
        AnchorState::Free => Found::Garbage,
        AnchorState::Held => match (id == place.store_id, rows.is_known(name)?) {
            // Held: by a child that a dead owner forked, or by an owner that was evicted.
            (true, true) => Found::Accounted,
            (_, false) if place.lost_store == Some(id) => Found::Neither,
            // Of another store, or of this one in a state that it has lost (restored from a copy).
            (false, _) | (true, false) => orphan(),
        },
        AnchorState::Missing | AnchorState::Unreadable | AnchorState::None => Found::Neither,
    })
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

    /// Unlinks the garbage, of processes that died, or what of it can be unlinked `within` that
    /// time; the rest is found again. Not inside a transaction: others wait for that. What was free
    /// inside one stays so. Its owner locked it in the transaction that made it, and no later.
    pub(crate) fn remove_garbage(&self, within: Duration) {
        /// More than one process leaves: also where each takes long they do not pile up.
        const AT_LEAST: usize = 4;
        let until = Deadline::after(within);
        for (number, path) in self.garbage.iter().enumerate() {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "cannot remove a free anchor");
            }
            if number + 1 >= AT_LEAST && until.has_passed() {
                break;
            }
        }
    }
}
