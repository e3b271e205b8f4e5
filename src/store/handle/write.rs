//! One look at the store, and one attempt to change it, all or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;
use rusqlite::Connection;

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::process::anchor::Dropped;
use crate::process::older::looks;
use crate::store::begun::{Begin, Begun};
use crate::store::files::CompareBy;
use crate::store::handle::Inner;
use crate::store::handle::lost::Content;
use crate::store::handle::settle::{Attempted, Patience};
use crate::store::transaction::{Rest, Tx};
use crate::store::{gate, migrate, ourselves, transaction};
use crate::sys::wal_index;
use crate::{Error, ErrorKind, Result, patience};

/// How often a transaction begins because something has written past SQLite; the last time it goes
/// on with what it has just read: who touches the file all the time changes nothing.
const ATTEMPTS_CHANGED: usize = 3;

/// What is known before a look at the store begins.
pub(in crate::store) enum Before<T> {
    /// Nothing: it is to be read.
    Read,
    Known(T),
    /// What the connection has read before does not count any more.
    Again,
}

impl Inner {
    /// One consistent look at the store.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.read_after(|_| Ok(Before::Read), work)
    }

    /// The same, unless the answer is known `before` the look begins.
    pub(in crate::store) fn read_after<T>(
        &self,
        before: impl Fn(&Connection) -> Result<Before<T>>,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.check_process()?;
        let _inside = gate::enter()?;
        self.refuse_if_still_lost()?;
        self.retry_pending();
        let mut work = Some(work);
        let mut look = |attempt: usize| {
            self.with_reader(|connection| {
                match before(connection)? {
                    Before::Known(answer) => return Ok(Some(answer)),
                    Before::Again if attempt < ATTEMPTS_CHANGED => return Ok(None),
                    Before::Again | Before::Read => {}
                }
                let snapshot = Begun::new(connection, Begin::Deferred)?;
                let state = transaction::read_state(&snapshot)?;
                // After the first read: by then SQLite has all files open.
                if self.check_files(CompareBy::Descriptor)? == Content::Changed
                    && attempt < ATTEMPTS_CHANGED
                {
                    return Ok(None);
                }
                self.check_uuid(&state.store_uuid)?;
                let Some(work) = work.take() else { return Ok(None) };
                self.with_clear_sight(|| work(&snapshot)).map(Some)
            })
        };
        let read = patience::with_budget(self.settings.busy_budget, || {
            let mut attempt = 1;
            loop {
                if let Some(read) = look(attempt)? {
                    return Ok(read);
                }
                self.close_connections();
                attempt += 1;
            }
        });
        read.map_err(|error| self.explain_and_let_go(error))
    }

    /// One transaction of [`Inner::write`].
    pub(super) fn write_with<T>(
        &self,
        patience: Patience,
        work: &impl Fn(&Tx<'_>) -> Result<T>,
    ) -> Result<Attempted<T>> {
        self.check_process()?;
        let _inside = gate::enter()?;
        self.refuse_if_still_lost()?;
        let mut writer = self.lock_writer()?;
        if self.writer_is_stale.swap(false, Ordering::Acquire) {
            *writer = None;
        }
        let written = patience::with_budget(self.settings.busy_budget, || {
            self.making_room(&mut writer, |writer| self.write_as_it_is(writer, patience, work))
        });
        match written {
            Ok(written) => Ok(written),
            Err(error) => {
                // It would stay one that cannot write.
                if error.sqlite_code() == Some(rusqlite::ErrorCode::ReadOnly) {
                    *writer = None;
                }
                drop(writer);
                Err(self.explain_and_let_go(error))
            }
        }
    }

    /// Goes on with what was too much for one transaction, a short one at a time, so that others
    /// can claim meanwhile, and not for long, because our caller waits: nobody relies on it.
    pub(super) fn go_on_with(&self, rests: Vec<Rest>) {
        const WITHIN: Duration = Duration::from_millis(50);
        let until = Deadline::after(WITHIN);
        for rest in rests {
            loop {
                // No longer than that for somebody else's change either: ours is written.
                match patience::with_budget(until.remaining(), || self.write(&rest)) {
                    Ok(_) if until.has_passed() => return,
                    Ok(true) => std::thread::yield_now(),
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the rest of a change is left");
                        return;
                    }
                }
            }
        }
    }

    fn write_as_it_is<T>(
        &self,
        writer: &mut Option<Connection>,
        patience: Patience,
        work: &impl Fn(&Tx<'_>) -> Result<T>,
    ) -> Result<Attempted<T>> {
        let mut attempt = 1;
        loop {
            if let Some(written) = self.write_once(writer, patience, work, attempt)? {
                return Ok(written);
            }
            *writer = None;
            self.close_readers();
            attempt += 1;
        }
    }

    /// `None`, without `work` being done, where what was read before does not count any more.
    fn write_once<T>(
        &self,
        writer: &mut Option<Connection>,
        patience: Patience,
        work: &impl Fn(&Tx<'_>) -> Result<T>,
        attempt: usize,
    ) -> Result<Option<Attempted<T>>> {
        let begin =
            if planted(Fault::VerdictBeforeLock) { Begin::Deferred } else { Begin::Immediate };
        let transaction = Begun::new(self.connected(writer)?, begin)?;
        // SQLite opens for reading what it could not open for writing. There even an immediate
        // transaction only reads until something is written, and `work` acts on the world before:
        // nobody else is kept out.
        if transaction.is_readonly(rusqlite::MAIN_DB)? {
            let read_only = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
            return Err(rusqlite::Error::SqliteFailure(read_only, None).into());
        }
        if self.check_files(CompareBy::Path)? == Content::Changed && attempt < ATTEMPTS_CHANGED {
            return Ok(None);
        }
        let state = transaction::read_state(&transaction)?;
        self.check_uuid(&state.store_uuid)?;
        migrate::check_min_writer(state.min_writer)?;
        let tx = Tx::new(&transaction, self, &state, patience);
        let settled = tx.settle_pending()?;
        let done = self.with_clear_sight(|| work(&tx));
        if looks::wants_more() || (done.is_err() && tx.meets_suspects()) {
            let (suspects, made) = (tx.suspects(), tx.new_anchor());
            drop((done, tx));
            transaction.rollback()?;
            // Nobody has seen it. A file that stayed would be reported as left behind.
            if let Some(anchor) = made {
                Dropped::new(anchor).remove();
            }
            return Ok(Some(Attempted::NotYet(suspects)));
        }
        let value = done?;
        let (rests, garbage) = (tx.rests(), tx.garbage());
        tx.save_last_id()?;
        let dropped = if tx.lets_go() { self.unneeded_anchor(&tx)? } else { None };
        // No row, no anchor: one that is held without any would refuse everybody.
        let new_anchor = match tx.new_anchor() {
            Some(anchor) if ourselves::live_on_anchor(&tx, anchor.name())? > 0 => Some(anchor),
            Some(_) | None => None,
        };
        // It has the other one, which is released while nobody else can look.
        drop(tx);
        transaction.commit()?;
        // What was committed to files that nobody else finds is not acknowledged. Whoever moves a
        // store away keeps writers out, if he can. A look that fails takes nothing back: it is
        // committed.
        if let Ok(Some(how)) = self.files.how_lost(CompareBy::Path) {
            if let Some(anchor) = &new_anchor {
                self.note_abandoned(anchor);
            }
            return Err(self.replaced(&how));
        }
        // Not before the commit: until then the rows name the anchor that we had.
        if let Some(dropped) = &dropped {
            self.anchor.lock().take_if(|anchor| dropped.is(anchor));
        }
        if let Some(anchor) = new_anchor {
            *self.anchor.lock() = Some(anchor);
        }
        if !settled.is_empty() {
            self.pending.lock().retain(|it| !settled.iter().any(|done| Arc::ptr_eq(it, done)));
        }
        // Neither unlocked nor unlinked before the commit either: whoever reads meanwhile would
        // take a row with a free anchor for one of the dead, and judge one whose file is gone by
        // its process alone. Nobody names this one any more, and no name comes twice.
        if let Some(anchor) = dropped {
            anchor.remove();
        }
        if let Some(connection) = &*writer {
            // Last: whoever is woken would meet an anchor that is just being let go.
            wal_index::ring(connection);
            self.restart_long_wal(connection);
        }
        Ok(Some(Attempted::Done { value, rests, garbage }))
    }

    pub(super) fn changes_under_us(&self) -> Error {
        let file = &self.location.file;
        Error::new(
            ErrorKind::Busy,
            format!("{} or its -wal or -shm keeps being replaced", file.display()),
        )
        .at(file)
        .with_hint("stop the program that copies over or deletes them, then try again")
        .with_retry_after(Duration::from_secs(1))
    }

    /// As [`Inner::explain`]; and connections to files that others do not find would stand in their
    /// way.
    fn explain_and_let_go(&self, error: Error) -> Error {
        let error = self.explain(error);
        if error.kind() == ErrorKind::StoreReplaced {
            self.close_connections();
        }
        error
    }

    /// The connection that writes, for this thread alone. A caller with a budget of its own, such
    /// as a signal handler, does not wait longer for another thread than for another process.
    fn lock_writer(&self) -> Result<MutexGuard<'_, Option<Connection>>> {
        let remaining = patience::remaining().filter(|remaining| *remaining < Duration::MAX);
        let Some(remaining) = remaining else {
            return Ok(self.writer.lock());
        };
        self.writer.try_lock_for(remaining).ok_or_else(|| {
            Error::new(ErrorKind::Busy, "another thread of this process is writing to the store")
                .with_hint("try again")
                .with_retry_after(Duration::from_millis(100))
        })
    }
}
