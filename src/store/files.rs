//! Which files the store is: the database, its `-wal` and its `-shm`; and whether they are still
//! that.
//!
//! SQLite goes on in the files that it has open, whatever became of their names. A cleaner of old
//! files deletes the `-wal`, a backup is copied over the database (FIELD-BUGS rows 98 to 100): then
//! nobody else sees what we commit, and we do not see others. So the handle remembers which files
//! it has opened. What the paths named before SQLite opened them and name afterwards is what it has
//! open, because an open file keeps its number (`Files::learn`).
//!
//! The files are compared by their paths before and after each change, and at least once a second;
//! in between by open descriptors, which cost next to nothing. A look that fails for another reason
//! than that there is no such file is not a loss (row 104). A handle that finds other files closes
//! its connections and says `StoreReplaced` from then on. A process that opens the store again gets
//! a new handle, which goes on with the same anchor (`registry`).
//!
//! Only checkpoints write to the database itself, and the wal-index tells of those. If the database
//! was written to without one, what was read before no longer counts (`FilesState::Changed`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::environment::{Fault, Guard, is_in_force, planted};
use crate::store::location::{is_absence, paths_of};
use crate::store::overwritten;
use crate::store::overwritten::{Backfill, Damage};
use crate::sys::wal_index::Kept;
use crate::sys::{FileFacts, FileId, Shortage, wal_index};
use crate::{Error, Result, sys};

/// A store that was moved away, whose files have all their names, is noticed within this.
const LOOK_EVERY: Duration = Duration::from_millis(900);

/// How the names of the files end that belong to a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// The files of one handle.
#[derive(Debug)]
pub(super) struct Files {
    paths: [PathBuf; 3],
    database: FileId,
    /// Known once SQLite has them open, all three.
    known: Mutex<Option<[Known; 3]>>,
    /// When they are looked at by their paths again.
    look_at: Mutex<Deadline>,
    /// The database as it was seen last.
    seen: Mutex<Option<Seen>>,
    /// That of the `-wal` when it was seen last; before that, more than it can be.
    wal_length: AtomicU64,
    /// Something else than SQLite has written to the database.
    was_changed: AtomicBool,
    /// See [`Files::generation`].
    generation: AtomicU64,
}

#[derive(Debug)]
struct Known {
    id: FileId,
    /// Where closing it cancels no lock of SQLite's. Open also when it is lost: its number is given
    /// to no other file meanwhile.
    file: Option<Kept>,
}

impl Known {
    fn file(&self) -> Option<&File> {
        self.file.as_deref()
    }
}

/// When the database was written to, and how far the WAL had been moved into it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    length: u64,
    backfill: Backfill,
}

/// How to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompareBy {
    /// What everybody else finds.
    Path,
    /// Whether the files that we have open have lost their names; by their paths once a second.
    Descriptor,
}

/// What became of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FilesState {
    /// They are what they were, as far as can be seen.
    InPlace,
    /// Something else than SQLite has written to the database: what was read of it before counts no
    /// more.
    Changed,
    /// Others have other files by now; how that came.
    Lost(String),
}

impl Files {
    pub(super) fn new(database: &Path, id: FileId) -> Self {
        Self {
            paths: paths_of(database),
            database: id,
            known: Mutex::new(None),
            look_at: Mutex::new(Deadline::after(Duration::ZERO)),
            seen: Mutex::new(None),
            wal_length: AtomicU64::new(u64::MAX),
            was_changed: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    /// Which files the paths name now, before SQLite opens them.
    pub(super) fn named(&self) -> [Option<FileId>; 3] {
        self.paths.each_ref().map(|path| sys::file_facts(path).ok().map(|facts| facts.id))
    }

    pub(super) fn are_known(&self) -> bool {
        self.known.lock().is_some()
    }

    /// Whether each look tells what became of all three, and of what is in the database.
    pub(super) fn are_watched(&self) -> bool {
        is_in_force(Guard::Files)
            && self.known.lock().as_ref().is_some_and(|all| all.iter().all(|it| it.file.is_some()))
    }

    /// All connections are closed: the next one may begin the wal-index anew, and what was seen
    /// with the one before is not to be compared with it.
    pub(super) fn look_anew(&self) {
        let mut seen = self.seen.lock();
        *seen = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        drop(seen);
        self.wal_length.store(u64::MAX, Ordering::Relaxed);
        self.look_soon();
    }

    /// Keeps others from deleting `-wal` and `-shm` while all connections of ours are closed, until
    /// [`Files::leave`]; false where that cannot be.
    pub(super) fn stay(&self) -> bool {
        match self.known.lock().as_ref() {
            Some([Known { file: Some(database), .. }, _, Known { file: Some(index), .. }]) => {
                wal_index::stay(database, index)
            }
            Some(_) | None => false,
        }
    }

    /// Undoes [`Files::stay`].
    pub(super) fn leave(&self) {
        if let Some([Known { file: Some(database), .. }, _, Known { file: Some(index), .. }]) =
            self.known.lock().as_ref()
        {
            wal_index::leave(database, index);
        }
    }

    /// Nothing has them open any more, and others may put new ones in their place: `-wal` and
    /// `-shm` rightly so. The next connection learns them again.
    pub(super) fn forget(&self) {
        *self.known.lock() = None;
        self.look_anew();
    }

    /// Another number once something else than SQLite has written to the database, and once all
    /// connections were closed: what was remembered of the content before does not count any more.
    /// Ask it after [`Files::check`]: of two threads, one alone is told `Changed`, and the number
    /// is another one before the other thread can look.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether something else than SQLite has written to the database.
    pub(super) fn were_changed(&self) -> bool {
        self.was_changed.load(Ordering::Relaxed)
    }

    /// Learns which files SQLite has open: those that the paths named `before` it opened them, and
    /// name still. What it has open keeps its number, so another file has another one. Whether that
    /// is so.
    pub(super) fn learn(&self, before: &[Option<FileId>; 3]) -> Result<bool> {
        if self.are_known() {
            return Ok(true);
        }
        let mut known = Vec::with_capacity(self.paths.len());
        for (path, before) in self.paths.iter().zip(before) {
            let looked = wal_index::keep(path, &self.paths[0]).and_then(|file| match &file {
                Some(open) => Ok((sys::open_file_facts(open)?, file)),
                None => Ok((sys::file_facts(path)?, None)),
            });
            match looked {
                Ok((facts, file)) if Some(&facts.id) == before.as_ref() => {
                    known.push(Known { id: facts.id, file });
                }
                Ok(_) => return Ok(false),
                Err(error) => {
                    no_shortage(path, &error)?;
                    return Ok(false);
                }
            }
        }
        if let Ok(known) = <[Known; 3]>::try_from(known)
            && known[0].id == self.database
        {
            *self.known.lock() = Some(known);
        }
        self.look_soon();
        Ok(self.are_known())
    }

    /// A connection was opened by the paths: they are looked at with the next question.
    pub(super) fn look_soon(&self) {
        *self.look_at.lock() = Deadline::after(Duration::ZERO);
    }

    /// Looks what became of them, and whether the database is what SQLite made it.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) when this process ran short of something.
    pub(super) fn check(&self, by: CompareBy) -> Result<FilesState> {
        let known = self.known.lock();
        let facts = match self.compare(known.as_ref(), by)? {
            Compared::Lost(how) => return Ok(FilesState::Lost(how)),
            Compared::Same(facts) => facts,
        };
        let Some([database, wal, index]) = known.as_ref().map(|it| it.each_ref().map(Known::file))
        else {
            return Ok(FilesState::InPlace);
        };
        let (Some(database), Some(wal), Some(index)) = (database, wal, index) else {
            return Ok(FilesState::InPlace);
        };
        if let Some(length) = facts.wal_length {
            let before = self.wal_length.load(Ordering::Relaxed);
            // What is lost stays so until others have made it anew.
            if length < before && overwritten::is_of_another_wal(index, wal) {
                return Ok(FilesState::Lost(Damage::WalLost.to_string()));
            }
            self.wal_length.store(length, Ordering::Relaxed);
        }
        Ok(facts
            .database
            .map_or(FilesState::InPlace, |facts| self.check_content(database, index, &facts)))
    }

    /// Looks whether others find the same files.
    ///
    /// # Errors
    /// As [`Files::check`].
    pub(super) fn how_lost(&self, by: CompareBy) -> Result<Option<String>> {
        Ok(match self.compare(self.known.lock().as_ref(), by)? {
            Compared::Same(_) => None,
            Compared::Lost(how) => Some(how),
        })
    }

    fn compare(&self, known: Option<&[Known; 3]>, by: CompareBy) -> Result<Compared> {
        let mut seen = Facts::default();
        if !is_in_force(Guard::Files) || planted(Fault::LostFilesUnnoticed) {
            return Ok(Compared::Same(seen));
        }
        let by_path = by == CompareBy::Path || known.is_none() || self.look_at.lock().has_passed();
        for (number, path) in self.paths.iter().enumerate() {
            let (id, open) = match known {
                Some(known) => (&known[number].id, known[number].file()),
                None if number == 0 => (&self.database, None),
                None => break,
            };
            let mut looked = match open {
                Some(open) if !by_path => sys::open_file_facts(open),
                Some(_) | None => sys::file_facts(path),
            };
            if let (Err(error), Some(open)) = (&looked, open)
                && !is_absence(error)
            {
                no_shortage(path, error)?;
                looked = sys::open_file_facts(open);
            }
            match looked {
                Ok(facts) if facts.id != *id => {
                    return Ok(Compared::Lost(lost(number, Fate::Replaced)));
                }
                Ok(facts) if facts.links == 0 => {
                    return Ok(Compared::Lost(lost(number, Fate::Deleted)));
                }
                Ok(facts) if number == 0 => seen.database = Some(facts),
                Ok(facts) if number == 1 => seen.wal_length = Some(facts.length),
                Ok(_) => {}
                Err(error) if is_absence(&error) => {
                    return Ok(Compared::Lost(lost(number, Fate::Deleted)));
                }
                Err(error) => no_shortage(path, &error)?,
            }
        }
        if by_path {
            *self.look_at.lock() = Deadline::after(LOOK_EVERY);
        }
        Ok(Compared::Same(seen))
    }

    /// In WAL mode the database is written to only by checkpoints, and the wal-index tells of
    /// those.
    ///
    /// `facts` may be old by now: another thread has seen newer ones, or a checkpoint was done. So
    /// what counts is looked at here, by one thread at a time, and between two looks at the
    /// wal-index that agree.
    fn check_content(&self, file: &File, index: &File, facts: &FileFacts) -> FilesState {
        let mut seen = self.seen.lock();
        let is_seen = |seen: &Option<Seen>, facts: &FileFacts| {
            seen.is_some_and(|it| (it.modified, it.length) == (facts.modified, facts.length))
        };
        if is_seen(&seen, facts) {
            return FilesState::InPlace;
        }
        match overwritten::look(file, facts.length) {
            Ok(Some(damage)) => return FilesState::Lost(damage.to_string()),
            Ok(None) => {}
            Err(_) => return FilesState::InPlace,
        }
        let before = between_checkpoints(index);
        let Ok(facts) = sys::open_file_facts(file) else { return FilesState::InPlace };
        let Some(backfill) = between_checkpoints(index).filter(|_| !is_seen(&seen, &facts)) else {
            return FilesState::InPlace;
        };
        if before != Some(backfill) {
            return FilesState::InPlace;
        }
        let now = Seen { modified: facts.modified, length: facts.length, backfill };
        let no_checkpoint_since = seen.filter(|before| before.backfill == backfill);
        if no_checkpoint_since.is_some_and(|before| facts.length < before.length) {
            return FilesState::Lost(Damage::Shortened(facts.length).to_string());
        }
        *seen = Some(now);
        match no_checkpoint_since {
            Some(_) => {
                self.was_changed.store(true, Ordering::Relaxed);
                self.generation.fetch_add(1, Ordering::AcqRel);
                FilesState::Changed
            }
            None => FilesState::InPlace,
        }
    }
}

/// How far the WAL was moved into the database; `None` while somebody is doing that: nothing can be
/// told then.
fn between_checkpoints(index: &File) -> Option<Backfill> {
    Backfill::read(index).filter(|_| !wal_index::is_checkpointing(index))
}

/// What comparing them came to: the database as it is now, or how they were lost.
enum Compared {
    Same(Facts),
    Lost(String),
}

/// What was seen on the way.
#[derive(Debug, Default)]
struct Facts {
    database: Option<FileFacts>,
    wal_length: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Deleted,
    Replaced,
}

fn lost(number: usize, fate: Fate) -> String {
    let how = match fate {
        Fate::Deleted => "deleted",
        // Whoever opens the database next makes what was deleted anew.
        Fate::Replaced => "deleted or replaced",
    };
    match SUFFIXES[number] {
        "" => "the file was deleted, renamed or replaced".to_owned(),
        "-wal" => format!(
            "its -wal was {how} while it was in use, and what was written since the last \
             checkpoint is lost"
        ),
        suffix => format!("its {suffix} was {how} while it was in use"),
    }
}

fn no_shortage(path: &Path, error: &io::Error) -> Result<()> {
    match Shortage::of(error) {
        Some(shortage) => {
            Err(Error::shortage(shortage, &format!("look at {}", path.display())).at(path))
        }
        None => Ok(()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::store::Store;

    /// Makes the database longer.
    const GROW: &str = "
        WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 500)
        INSERT INTO events (at_ms, event, detail)
            SELECT 0, 'of_a_test', json_quote(hex(zeroblob(99)))
            FROM counted;
        PRAGMA wal_checkpoint(TRUNCATE);";

    const SHRINK: &str = "DELETE FROM events; VACUUM; PRAGMA wal_checkpoint(TRUNCATE);";

    /// A thread that has looked at the file, and was kept from going on while somebody else moved
    /// the WAL into the database: it went on with a length that was no longer so. Taken for a file
    /// that was cut off, it lost an owner its office.
    #[test]
    fn what_was_seen_before_a_checkpoint_is_not_taken_for_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let files = &store.inner.files;
        let other = rusqlite::Connection::open(store.path()).unwrap();
        let open = |path: &Path| wal_index::keep(path, store.path()).unwrap().unwrap();
        let (file, index) = (&open(store.path()), &open(&files.paths[2]));
        for (statements, another_thread_looks) in
            [(GROW, true), (SHRINK, true), (GROW, false), (SHRINK, false)]
        {
            let old = sys::open_file_facts(file).unwrap();
            other.execute_batch(statements).unwrap();
            assert_ne!(sys::open_file_facts(file).unwrap().length, old.length, "{statements}");
            if another_thread_looks {
                assert_eq!(
                    files.check(CompareBy::Path).unwrap(),
                    FilesState::InPlace,
                    "{statements}"
                );
            }
            assert_eq!(files.check_content(file, index, &old), FilesState::InPlace, "{statements}");
            assert_eq!(files.check(CompareBy::Path).unwrap(), FilesState::InPlace, "{statements}");
        }
    }
}
