//! Which names in the anchors directory this process has looked at, so that the next claim looks
//! at the others alone: the cost of a claim does not grow with the processes that live.
//!
//! What is remembered is that a row of the store accounts for an anchor. It stays true for as long
//! as the store goes on from where it was. Names are never given twice. A row is deleted only when
//! it has ended, and of an anchor that is held one stays. A later handover of the anchor commits
//! the row of the successor before that acts, to the same store. So nothing has to be asked again,
//! unless the store itself has gone back: a copy was put in its place, rows were deleted by hand.
//! [`Lineage`] changes with each of these, and with it all is forgotten. It is compared inside the
//! write transaction of the claim, and what is forgotten only costs a look.
//!
//! That a copy was put in its place is told by what is in it, and not by its files alone: their
//! times change with each checkpoint. Whoever is granted something writes an event in the same
//! transaction. A copy without one of those does not have the newest event that was seen, and
//! never gets it: the next ones are of other instances.
//!
//! Where the times of the directory are what they were, it has the same names, and is not even
//! listed (`sys::DirectoryState`). What no row accounts for is remembered as well, and looked at
//! each time: an orphan refuses every claim, and may let go at any time.
//!
//! What this makes worse: the anchor of a process that died is no news to whoever knew it. So the
//! row that a claim ends makes its anchor unknown again, and one grant of eight looks at some of
//! the known ones again, in turn.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::environment::{Fault, planted};
use crate::process::anchor::probing::each_name_in;
use crate::process::command_lock;
use crate::sys;
use crate::sys::DirectoryState;

/// What tells one event from all others, also from one with its id in a store that was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventMark {
    pub(crate) id: i64,
    pub(crate) at_ms: i64,
    pub(crate) instance: Option<i64>,
}

/// Differs if the store may have gone back to what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// How often the handle found that its files were written to past SQLite, or closed them all.
    pub(crate) files: u64,
    /// SQLite's schema cookie. A copy that is restored by SQLite's own means (`.restore`, the
    /// backup interface) changes it, whatever schema it has (`sqlite3_backup_step`, in backup.c).
    pub(crate) schema: i64,
    /// How many live rows were deleted, by whatever program; a trigger counts.
    pub(crate) rows_lost: i64,
    /// The highest id that was drawn; it never falls.
    pub(crate) last_id: i64,
    /// The newest event.
    pub(crate) event: Option<EventMark>,
}

impl Lineage {
    /// Whether a store that is `self` now goes on from where it was `before`, as far as these
    /// numbers tell. It `has` that event, if it does.
    fn goes_on_from(
        &self,
        before: &Self,
        has: impl FnOnce(&EventMark) -> Result<bool>,
    ) -> Result<bool> {
        let has_counted_on = self.last_id >= before.last_id
            && Self { last_id: before.last_id, event: before.event, ..*self } == *before;
        let goes_on = has_counted_on
            && match &before.event {
                Some(event) => self.event == before.event || has(event)?,
                // One that is in every store that has granted something.
                None => false,
            };
        Ok(goes_on || planted(Fault::LineageIgnored))
    }
}

/// The names end with random bits, and whoever can choose others has the store: no other hash is
/// needed, and the usual one takes longer than all else that is done with a name.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        /// 2^64 by the golden ratio: spreads what differs in some bits.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_ne_bytes(word)).wrapping_mul(SPREAD);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How many of the known names are looked at again at once.
const AGAIN_AT_ONCE: usize = 8;

/// What one handle knows of the names in its anchors directory.
#[derive(Debug, Default)]
pub(crate) struct Accounted {
    lineage: Option<Lineage>,
    /// A row accounts for them; with the listing that had them last.
    names: HashMap<Arc<str>, u64, BuildHasherDefault<NameHasher>>,
    /// The same, and names that were forgotten since, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    listings: u64,
    /// All other names of the directory.
    others: Vec<String>,
    /// How the directory was when it had these names, and no others.
    directory: Option<DirectoryState>,
}

impl Accounted {
    /// The names that have to be looked at, in the store as it is now, inside a write transaction:
    /// nobody else makes an anchor meanwhile. Whether it `has` an event is asked. `now` is the wall
    /// clock of the system, since the Unix epoch; without it nothing is concluded from the
    /// directory's times.
    pub(crate) fn unknown(
        &mut self,
        directory: &Path,
        lineage: Lineage,
        has: impl FnOnce(&EventMark) -> Result<bool>,
        now: Option<Duration>,
    ) -> Result<Vec<String>> {
        let goes_on = match &self.lineage {
            Some(before) => lineage.goes_on_from(before, has)?,
            None => false,
        };
        if !goes_on {
            self.forget_all();
        }
        self.lineage = Some(lineage);
        // Before its names are read: whatever changes after that changes the times as well.
        let state = now
            .and_then(|now| sys::directory_state(directory).filter(|state| state.is_settled(now)));
        if state.is_some() && state == self.directory {
            return Ok(self.others.clone());
        }
        self.directory = None;
        self.listings += 1;
        let mut there = 0;
        self.others.clear();
        let Self { names, others, listings, .. } = self;
        each_name_in(directory, |name| {
            let anchor = name.strip_suffix(command_lock::SUFFIX).unwrap_or(name);
            match names.get_mut(anchor) {
                Some(_) if anchor.len() < name.len() => {}
                Some(listing) => {
                    *listing = *listings;
                    there += 1;
                }
                None => others.push(name.to_owned()),
            }
        })?;
        if there < self.names.len() {
            self.names.retain(|_, listing| *listing == self.listings);
        }
        self.directory = state;
        Ok(self.others.clone())
    }

    /// What came of the unknown names: a row accounts for these, and not for the others.
    pub(super) fn note(&mut self, accounted: Vec<String>, others: Vec<String>) {
        for name in accounted {
            let name: Arc<str> = name.into();
            self.names.insert(Arc::clone(&name), self.listings);
            self.turns.push_back(name);
        }
        self.others = others;
        // Each name is there once, but for those that were forgotten and noted again.
        if self.turns.len() > 2 * self.names.len() + AGAIN_AT_ONCE {
            self.turns = self.names.keys().cloned().collect();
        }
    }

    /// The row of `name` has ended, or was deleted: it is looked at again.
    pub(crate) fn forget(&mut self, name: &str) {
        if self.names.remove(name).is_some() {
            self.others.push(name.to_owned());
        }
    }

    /// Some names, others each time, are looked at again.
    pub(crate) fn forget_some(&mut self) {
        for _ in 0..AGAIN_AT_ONCE.min(self.turns.len()) {
            if let Some(name) = self.turns.pop_front() {
                self.forget(&name);
            }
        }
    }

    /// All names are looked at again.
    pub(crate) fn forget_all(&mut self) {
        *self = Self::default();
    }
}
