//! The table `shutdowns`: the last words of a process, which are a signal or a panic.
//!
//! A word that the table refuses is dropped by its savepoint: no release may fail by it.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, named_params};
use serde_json::json;

use crate::records::events::EventRecord;
use crate::store::{Deferred, Inner, Tx, What};
use crate::{Error, ErrorKind, InstanceId, Office, Result, patience, sys};

/// How a sender is called that is no process: Ctrl-C in the foreground, see [`last_word`].
pub(crate) const BY_A_KEY: &str = "a key at the terminal";

/// Rows kept of each instance: who signals it in a loop shall not push out what others said.
const KEPT_OF_INSTANCE: i64 = 20;

/// Rows kept of all processes that are on record nowhere.
const KEPT_OF_OTHERS: i64 = 1_000;

/// Whether there is such a table: a store that an older version made has none.
pub(crate) fn exists(connection: &Connection) -> Result<bool> {
    Ok(connection.table_exists(None, "shutdowns")?)
}

/// A row to be written: a panic if it has a message, else a signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewShutdown {
    pub(crate) at_ms: i64,
    pub(crate) at_boot_ms: i64,
    pub(crate) boot_id: Option<String>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) office: Option<Office>,
    pub(crate) pid: sys::Pid,
    pub(crate) signal: Option<i32>,
    pub(crate) sender_pid: Option<sys::Pid>,
    pub(crate) sender_uid: Option<u32>,
    /// The sender, or why it cannot be known.
    pub(crate) sender: Option<String>,
    /// It may have been a request to read the configuration again.
    pub(crate) may_be_reload: bool,
    pub(crate) cause: Option<&'static str>,
    pub(crate) message: Option<String>,
    pub(crate) place: Option<String>,
    /// JSON.
    pub(crate) snapshot: Option<String>,
}

impl NewShutdown {
    pub(crate) fn what(&self) -> What {
        if self.message.is_some() { What::Panic } else { What::Signal }
    }

    /// Writes it; the row's id, which is `None` where the store has no such table yet.
    pub(crate) fn insert(&self, tx: &Tx<'_>) -> Result<Option<i64>> {
        const SQL: &str = "INSERT INTO shutdowns (at_ms, at_boot_ms, boot_id, instance_id,
                profile, kind, pid, what, signal, signal_name, sender_pid, sender_uid,
                sender, may_be_reload, cause, message, place, snapshot)
             VALUES (:at_ms, :at_boot_ms, :boot_id,
                (SELECT id FROM instances WHERE id = :instance_id), :profile, :kind, :pid, :what,
                :signal, :signal_name, :sender_pid, :sender_uid, :sender, :may_be_reload, :cause,
                :message, :place, :snapshot)";
        if !exists(tx)? {
            return Ok(None);
        }
        let is_panic = self.what() == What::Panic;
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":at_ms": self.at_ms,
            ":at_boot_ms": self.at_boot_ms,
            ":boot_id": self.boot_id,
            ":instance_id": self.instance.map(InstanceId::as_i64),
            ":profile": self.office.as_ref().map(|office| office.profile.as_str()),
            ":kind": self.office.as_ref().map(|office| office.kind.as_str()),
            ":pid": self.pid,
            ":what": self.what().as_str(),
            ":signal": self.signal,
            ":signal_name": self.signal.map(sys::signal_name),
            ":sender_pid": self.sender_pid,
            ":sender_uid": self.sender_uid,
            ":sender": self.sender,
            ":may_be_reload": self.may_be_reload,
            ":cause": self.cause,
            ":message": self.message,
            ":place": self.place,
            ":snapshot": self.snapshot,
        })?;
        let id = tx.last_insert_rowid();
        self.prune(tx)?;
        let detail = if is_panic {
            json!({"shutdown": id, "message": self.message, "place": self.place})
        } else {
            json!({
                "shutdown": id,
                "signal": self.signal.map(sys::signal_name),
                "sender": self.sender,
                "cause": self.cause,
            })
        };
        tx.record(&EventRecord {
            event: if is_panic { "panicked" } else { "signal_received" },
            office: self.office.as_ref(),
            instance: self.instance,
            pid: Some(self.pid),
            detail: Some(detail),
            ..EventRecord::default()
        })?;
        Ok(Some(id))
    }

    fn prune(&self, tx: &Tx<'_>) -> Result<()> {
        const SQL: &str = "DELETE FROM shutdowns WHERE instance_id IS ?1 AND id <= (
             SELECT id FROM shutdowns WHERE instance_id IS ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        let kept = if self.instance.is_some() { KEPT_OF_INSTANCE } else { KEPT_OF_OTHERS };
        tx.prepare_cached(SQL)?.execute((self.instance.map(InstanceId::as_i64), kept))?;
        Ok(())
    }
}

/// Notes that a live instance has outlived every signal, or every panic, that came until then, on
/// the boot clock.
pub(crate) fn survive(tx: &Tx<'_>, id: InstanceId, what: What, until_boot_ms: i64) -> Result<()> {
    if exists(tx)? {
        tx.prepare_cached(
            "UPDATE shutdowns SET survived_at_ms = ?3
             WHERE instance_id = ?1 AND what = ?2 AND survived_at_ms IS NULL
               AND coalesce(at_boot_ms, 0) <= ?4
               AND EXISTS (SELECT 1 FROM instances WHERE id = ?1 AND ended_at_ms IS NULL)",
        )?
        .execute((id.as_i64(), what.as_str(), tx.now_ms(), until_boot_ms))?;
    }
    Ok(())
}

/// The last signal or panic of an instance that may have ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Rises from one to the next.
    pub(crate) id: i64,
    /// When, on the clock that decides, and under which boot.
    pub(crate) at_boot_ms: Option<i64>,
    pub(crate) boot_id: Option<String>,
    /// Who wrote it.
    pub(crate) pid: Option<i64>,
    pub(crate) said: LastWord,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// It received a signal.
    Signal {
        number: i32,
        /// The sender.
        sender: Option<String>,
        /// Or why it cannot be known.
        unknown_because: Option<String>,
    },
    /// One of its threads panicked.
    Panic { message: String, place: Option<String> },
}

/// The last word of an instance of its kind. What may only have been a request to read the
/// configuration again is none, nor is what was survived.
pub(crate) fn last_word(
    connection: &Connection,
    id: InstanceId,
    what: What,
) -> Result<Option<Word>> {
    const SQL: &str = "SELECT id, at_boot_ms, boot_id, pid, signal, sender,
             sender_pid IS NOT NULL OR ifnull(instr(sender, ?3) = 1, 0), message, place
         FROM shutdowns
         WHERE instance_id = ?1 AND what = ?2 AND may_be_reload = 0 AND survived_at_ms IS NULL
           AND (signal IS NOT NULL OR message IS NOT NULL)
         ORDER BY id DESC LIMIT 1";
    let word = connection
        .prepare_cached(SQL)?
        .query_row((id.as_i64(), what.as_str(), BY_A_KEY), |row| {
            let said = match what {
                What::Panic => LastWord::Panic {
                    message: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
                    place: row.get(8)?,
                },
                What::Signal => {
                    let (sender, is_known): (Option<String>, bool) = (row.get(5)?, row.get(6)?);
                    LastWord::Signal {
                        number: row.get(4)?,
                        sender: sender.clone().filter(|_| is_known),
                        unknown_because: sender.filter(|_| !is_known),
                    }
                }
            };
            Ok(Word {
                id: row.get(0)?,
                at_boot_ms: row.get(1)?,
                boot_id: row.get(2)?,
                pid: row.get(3)?,
                said,
            })
        })
        .optional();
    match word {
        // A row that no program of ours writes says nothing.
        Err(
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..),
        ) => Ok(None),
        word => Ok(word?),
    }
}

impl Inner {
    /// Writes the last word of this process; its row's id. One that cannot be written within
    /// `budget` is kept, and written with the next change.
    pub(crate) fn say(&self, word: NewShutdown, budget: Duration) -> Result<Option<i64>> {
        self.check_process()?;
        self.last_words.note_said();
        let said = patience::with_budget(budget, || self.write(|tx| word.insert(tx)));
        if said.as_ref().is_err_and(Self::may_be_said_later) {
            self.keep_word(word);
        }
        said
    }

    /// What does not pass by itself is not tried again.
    pub(crate) fn may_be_said_later(error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Busy | ErrorKind::CannotWrite | ErrorKind::CannotRead)
    }

    /// Keeps a last word that could not be written; of many only the newest.
    fn keep_word(&self, word: NewShutdown) {
        const WORDS_MAX: usize = 20;
        let mut pending = self.pending.lock();
        if pending.iter().filter(|it| !it.is_release()).count() >= WORDS_MAX
            && let Some(oldest) = pending.iter().position(|it| !it.is_release())
        {
            pending.remove(oldest);
        }
        pending.push(Arc::new(word));
    }
}

impl Deferred for NewShutdown {
    /// A last word that the table refuses is dropped: no release and no claim may fail by it.
    fn write(&self, tx: &Tx<'_>) -> Result<()> {
        tx.execute_batch("SAVEPOINT word")?;
        if let Err(error) = self.insert(tx) {
            tracing::warn!(%error, "a last word is lost");
            // Fails where SQLite has rolled back everything (disk full): then nothing is written.
            if tx.execute_batch("ROLLBACK TO word").is_err() {
                return Err(error);
            }
        }
        tx.execute_batch("RELEASE word")?;
        Ok(())
    }

    fn is_release(&self) -> bool {
        false
    }
}
