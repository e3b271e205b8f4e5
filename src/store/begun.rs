//! A transaction that is begun and ended by prepared statements: to prepare the two words anew each
//! time takes longer than to run them.

use rusqlite::Connection;

use crate::Result;

/// A transaction that is rolled back when it is dropped.
pub(super) struct Begun<'a> {
    connection: &'a Connection,
}

/// What a transaction begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// A snapshot, from the first read on.
    Deferred,
    /// Nobody else writes from now on.
    Immediate,
}

impl<'a> Begun<'a> {
    /// Begins one, on a connection that has none.
    pub(super) fn new(connection: &'a Connection, begin: Begin) -> Result<Self> {
        let sql = match begin {
            Begin::Deferred => "BEGIN DEFERRED",
            Begin::Immediate => "BEGIN IMMEDIATE",
        };
        connection.prepare_cached(sql)?.execute([])?;
        Ok(Self { connection })
    }

    /// Commits it. What cannot be committed is rolled back.
    pub(super) fn commit(self) -> Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Undoes all of it.
    pub(super) fn rollback(self) -> Result<()> {
        self.connection.prepare_cached("ROLLBACK")?.execute([])?;
        Ok(())
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // Some errors have rolled it back already (a full disk, no memory).
        if self.connection.is_autocommit() {
            return;
        }
        let rollback = self.connection.prepare_cached("ROLLBACK").and_then(|mut it| it.execute([]));
        if rollback.is_err()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a transaction cannot be rolled back");
        }
    }
}

impl std::ops::Deref for Begun<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}
