//! Whether the files behind a handle are still those of the store.

use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Deadline;
use crate::store::files::{CompareBy, FilesState};
use crate::store::handle::Inner;
use crate::store::migrate::Contents;
use crate::store::overwritten::{Damage, Mended, SetAside};
use crate::store::pragmas::Access;
use crate::store::{migrate, overwritten};
use crate::sys::FileId;
use crate::{ErrorKind, Result, patience};

/// Whether what a connection has read before is still what is in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    AsRead,
    Changed,
}

impl Inner {
    /// Learns which files the connections made since `before` have open; `again` makes another one,
    /// which reads. Nothing is known of a file that is no store yet.
    pub(super) fn learn_files(
        &self,
        mut before: [Option<FileId>; 3],
        mut again: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        /// The first connection of a new store makes two of the files.
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            if self.files.learn(&before)? {
                return Ok(());
            }
            before = self.files.named();
            again()?;
        }
        Ok(())
    }

    /// What the file holds, and which files there were before it was opened. What does not belong
    /// to it, or to its `-wal`, is taken away first.
    pub(super) fn look_and_mend(
        &self,
        writer: &mut Option<Connection>,
    ) -> Result<([Option<FileId>; 3], Contents, Vec<SetAside>)> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        /// `cp` empties what it copies over, and writes at once.
        const COPY_BEGINS_WITHIN: Duration = Duration::from_millis(100);
        let deadline = patience::deadline().unwrap_or_else(|| Deadline::after(Duration::ZERO));
        let mut mended = Vec::new();
        let mut is_seen_empty = false;
        loop {
            let before = self.files.named();
            // Whose file it is comes first, through a connection that leaves no trace: a writer
            // would checkpoint another program's database when it closes.
            let looked = self.connect(Access::Read).and_then(|reader| migrate::inspect(&reader));
            let damage = match looked {
                Ok(contents) if !overwritten::is_index_of_another_wal(&self.location) => {
                    return Ok((before, contents, mended));
                }
                Ok(_) => Damage::WalLost,
                // A change is to be rolled back, that of a first start that was killed, before
                // anybody can read the file: whoever opens it for writing does that first of all.
                Err(error) if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly) => {
                    let contents = migrate::inspect(self.connected(writer)?)?;
                    return Ok((before, contents, mended));
                }
                Err(error) => Damage::behind_opening(&error, &self.location).ok_or(error)?,
            };
            if damage == Damage::Shortened(0) && !std::mem::replace(&mut is_seen_empty, true) {
                std::thread::sleep(COPY_BEGINS_WITHIN);
                continue;
            }
            match overwritten::mend(&self.location, &damage, self.clock().wall_ms())? {
                Mended::Yes(set_aside) => mended.push(set_aside),
                Mended::NotNeeded | Mended::InUse if deadline.has_passed() => {
                    return Err(overwritten::still_open(&self.location, &damage));
                }
                Mended::NotNeeded | Mended::InUse => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Where the files could not be kept while nothing had them open (`Files::forget`): those that
    /// are there now are the store's, if it is the same store.
    pub(in crate::store) fn relearn_files(&self) -> Result<()> {
        if self.files.are_known() {
            return Ok(());
        }
        let before = self.files.named();
        self.read(|_| Ok(()))?;
        self.learn_files(before, || {
            self.readers.clear();
            self.read(|_| Ok(()))
        })
    }

    pub(super) fn check_uuid(&self, found: &str) -> Result<()> {
        if self.store_uuid.get_or_init(|| found.to_owned()) == found {
            return Ok(());
        }
        Err(self.replaced("another store was copied over it"))
    }

    /// Whether the files that this handle has open are those that others find: open descriptors
    /// tell, and once a second the paths. Not being able to look is no sign that they are not.
    pub(crate) fn is_in_place(&self) -> bool {
        // In a forked child the descriptors are closed, and their numbers may be of other files.
        if self.check_process().is_err() {
            return true;
        }
        match self.check_files(CompareBy::Descriptor) {
            Ok(Content::AsRead) => true,
            Ok(Content::Changed) => {
                self.close_connections();
                true
            }
            Err(error) => error.kind() != ErrorKind::StoreReplaced,
        }
    }

    /// What became of the files, for people, where that was seen.
    pub(crate) fn how_lost(&self) -> Option<String> {
        self.lost.lock().clone()
    }

    /// Whoever opens the store anew gets a handle without a past.
    pub(super) fn refuse_to_be_opened_again(&self) -> Result<()> {
        match self.how_lost() {
            Some(how) => Err(self.replaced(&how)),
            None => self.refuse_lost(),
        }
    }

    pub(crate) fn refuse_lost(&self) -> Result<()> {
        match self.files.how_lost(CompareBy::Path)? {
            Some(how) => Err(self.replaced(&how)),
            None => Ok(()),
        }
    }

    /// Before anything is opened by a path that may lead nowhere: SQLite would try that for a
    /// while.
    pub(super) fn refuse_if_still_lost(&self) -> Result<()> {
        if self.lost.lock().is_some() {
            if let FilesState::Lost(how) = self.files.check(CompareBy::Path)? {
                return Err(self.replaced(&how));
            }
            *self.lost.lock() = None;
            // No connection is open yet.
            self.files.look_anew();
        }
        Ok(())
    }

    /// Whether what was read before still counts.
    pub(in crate::store) fn check_files(&self, by: CompareBy) -> Result<Content> {
        match self.files.check(by)? {
            FilesState::InPlace => Ok(Content::AsRead),
            FilesState::Changed => Ok(Content::Changed),
            FilesState::Lost(how) => Err(self.replaced(&how)),
        }
    }
}
