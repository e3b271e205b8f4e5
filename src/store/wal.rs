//! The write-ahead log, and how it is kept short.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Deadline;
use crate::store::handle::Inner;
use crate::store::{gate, location, pragmas};
use crate::{Result, patience};

impl Inner {
    fn is_wal_longer_than(&self, length: u64) -> bool {
        let wal = location::beside(&self.location.file, location::WAL);
        std::fs::metadata(wal).is_ok_and(|facts| facts.len() >= length)
    }

    /// SQLite starts a WAL over when it happens to find nobody in the middle of something. On a
    /// machine with more to do than it can, somebody always is, and the WAL grows (FIELD-BUGS row
    /// 77): then it is waited for, for a moment. Whoever waits keeps all writers out, so only where
    /// nothing but that moment is missing, not for a reader that stays, and by nobody who writes
    /// once and ends.
    pub(super) fn restart_long_wal(&self, connection: &Connection) {
        /// Twice what SQLite means it to be.
        const LENGTH_MIN: u64 = 8 << 20;
        const BUDGET: Duration = Duration::from_millis(2);
        const LOOK_EVERY: u32 = 64;
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if writes.is_multiple_of(LOOK_EVERY) && self.is_wal_longer_than(LENGTH_MIN) {
            patience::with_budget(BUDGET, || {
                if pragmas::checkpoint(connection, "PASSIVE") {
                    pragmas::checkpoint(connection, "RESTART");
                }
            });
        }
    }

    /// Moves all of the WAL into the database and empties it, if nobody is in the way for longer
    /// than `budget`; whether that was so.
    pub(crate) fn empty_wal(&self, budget: Duration) -> Result<bool> {
        self.check_process()?;
        let _inside = gate::enter()?;
        let mut writer = self.writer.lock();
        patience::with_budget(budget, || {
            self.refuse_lost()?;
            let connection = self.connected(&mut writer)?;
            pragmas::checkpoint(connection, "PASSIVE");
            Ok(pragmas::checkpoint(connection, "TRUNCATE"))
        })
        .map_err(|error| self.explain(error))
    }

    /// A long WAL makes the first question after us slow; a short one is not worth the syncs. They
    /// are done first, while others write: a disk with much to do takes seconds for one, and
    /// whoever empties the WAL keeps all writers out. On such a disk the WAL is emptied only where
    /// nobody has written since, so that nothing is left to be synced, or before it gets too long.
    pub(super) fn trim_large_wal(&mut self) {
        const LENGTH_MIN: u64 = 256 * 1024;
        const LENGTH_MAX: u64 = 8 << 20;
        const BUDGET: Duration = Duration::from_millis(5);
        /// What the syncs took just now they will take again.
        const KEEPS_OUT_MAX: Duration = Duration::from_millis(50);
        // Not into a file that is gone or belongs to another store by now.
        let is_long = self.is_wal_longer_than(LENGTH_MIN) && self.refuse_lost().is_ok();
        let is_very_long = is_long && self.is_wal_longer_than(LENGTH_MAX);
        let writer = self.writer.get_mut();
        if let Some(connection) = writer
            && is_long
        {
            let quick = Deadline::after(KEEPS_OUT_MAX);
            patience::with_budget(BUDGET, || {
                pragmas::checkpoint(connection, "PASSIVE");
                if !quick.has_passed() || is_very_long || pragmas::checkpoint(connection, "NOOP") {
                    pragmas::checkpoint(connection, "TRUNCATE");
                }
            });
        }
    }
}
