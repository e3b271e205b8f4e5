//! How a row ends.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::clock::millis;
use crate::liveness::DeadReason;
use crate::process::subject;
use crate::records::instances::later::EXIT_SEEN;
use crate::store::{ENDS_WITHIN, SeenEnd, Tx};
use crate::sys::ChildEnd;
use crate::{InstanceId, Kind, Office, ProfileName, Reason, Result, sys};

/// Why an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Its owner let go.
    Released,
    /// The command of a `run` ended by itself, or a program says so.
    Exited,
    /// The command of a `run` was ended by a signal that somebody sent.
    Signalled,
    /// The command of a `run` was ended by a fault of its own, or a program says so.
    Crashed,
    /// A person ended the record.
    Evicted,
    /// The process executed itself anew and claimed again.
    ReExecuted,
    /// It handed its office over to a process that it had started.
    HandedOver,
    /// The store was restored from a copy under its owner, which claimed again.
    StoreReplaced,
    /// Somebody stopped it on purpose.
    PlannedStop,
    /// Somebody else took its office over.
    TakenOver,
    /// One of its threads panicked, and it ended by that.
    Panicked,
    /// It was killed, and the kernel's counters or its log say that memory had run out.
    OomSuspected,
    /// The next claimant found it dead.
    Dead(DeadReason),
}

impl From<EndReason> for Reason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Released => Self::Released,
            EndReason::Exited => Self::Exited,
            EndReason::Signalled => Self::Signalled,
            EndReason::Crashed => Self::Crashed,
            EndReason::Evicted => Self::Evicted,
            EndReason::ReExecuted => Self::ReExecuted,
            EndReason::HandedOver => Self::HandedOver,
            EndReason::StoreReplaced => Self::StoreReplaced,
            EndReason::PlannedStop => Self::PlannedStop,
            EndReason::TakenOver => Self::TakenOver,
            EndReason::Panicked => Self::Panicked,
            EndReason::OomSuspected => Self::OomSuspected,
            EndReason::Dead(reason) => reason.into(),
        }
    }
}

impl EndReason {
    /// Whether a request to end explains an end that was found or recorded as this. A crash is a
    /// crash, whatever was asked for.
    pub(crate) fn may_have_been_asked_for(self) -> bool {
        match self {
            Self::Released | Self::Exited | Self::Signalled => true,
            Self::Dead(reason) => {
                !matches!(reason, DeadReason::Rebooted | DeadReason::LeaseExpired)
            }
            Self::Crashed
            | Self::Evicted
            | Self::ReExecuted
            | Self::HandedOver
            | Self::StoreReplaced
            | Self::PlannedStop
            | Self::TakenOver
            | Self::Panicked
            | Self::OomSuspected => false,
        }
    }

    /// Whether a gateway that was still starting may have ended like this.
    pub(crate) fn may_be_cut_short(self) -> bool {
        match self {
            Self::Exited
            | Self::Signalled
            | Self::Crashed
            | Self::PlannedStop
            | Self::TakenOver
            | Self::Panicked
            | Self::OomSuspected => true,
            Self::Dead(reason) => reason != DeadReason::LeaseExpired,
            Self::Released
            | Self::Evicted
            | Self::ReExecuted
            | Self::HandedOver
            | Self::StoreReplaced => false,
        }
    }

    /// Whether it goes on under another row: nobody's place was taken.
    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Self::ReExecuted | Self::HandedOver | Self::StoreReplaced)
    }

    /// Whether it is about one lock, and not about its owner.
    pub(crate) fn is_of_the_lease(self) -> bool {
        self == Self::Dead(DeadReason::LeaseExpired)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Reason::from(*self).fmt(f)
    }
}

/// How an incarnation ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    pub(crate) by: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) detail: Option<String>,
}

impl End {
    pub(crate) fn new(reason: EndReason) -> Self {
        Self { reason, by: None, exit_code: None, signal: None, detail: None }
    }

    pub(crate) fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with what the kernel told of it.
    pub(crate) fn told(mut self, ended: ChildEnd) -> Self {
        (self.exit_code, self.signal) = parts(ended);
        self
    }
}

/// Exit code and signal, as they are stored.
fn parts(ended: ChildEnd) -> (Option<i32>, Option<i32>) {
    match ended {
        ChildEnd::Exited(code) => (Some(code), None),
        ChildEnd::Signalled(signal) => (None, Some(signal)),
    }
}

/// Names who sent the signal that ended a row, where the end was on record before that was.
pub(crate) fn name_sender(tx: &Tx<'_>, id: InstanceId, signal: i32, by: &str) -> Result<()> {
    const SQL: &str = "UPDATE instances SET ended_by = ?3
        WHERE id = ?1 AND signal = ?2 AND end_reason IN ('signalled', 'crashed')
          AND exit_code IS NULL AND ended_by IS NULL";
    tx.prepare_cached(SQL)?.execute((id.0, signal, by))?;
    Ok(())
}

/// Adds how the process of a row ended to what is on record of its end, or will be: whoever watched
/// it hears that from the kernel, and others may have found it dead before. An end that was told
/// already stays as it is; so does that of a row which its process outlived: a process may let its
/// office go, and fail an hour later.
pub(crate) fn note_exit(tx: &Tx<'_>, seen: &SeenEnd) -> Result<()> {
    let (exit_code, signal) = parts(seen.ended);
    let found_dead: Vec<String> = Reason::FOUND_DEAD.iter().map(|it| format!("'{it}'")).collect();
    let sql = format!(
        "UPDATE instances SET exit_code = ?2, signal = ?3
         WHERE id = ?1 AND exit_code IS NULL AND signal IS NULL
           AND (ended_at_ms IS NULL OR end_reason IN ({})
                OR (ended_at_ms >= ?4 AND end_reason IN ('released', 'planned_stop', 'taken_over',
                                                         'panicked', 'oom_suspected')))",
        found_dead.join(", ")
    );
    let since_ms = seen.at_ms.saturating_sub(millis(ENDS_WITHIN));
    tx.prepare_cached(&sql)?.execute((seen.id.0, exit_code, signal, since_ms))?;
    // Who recorded its end before has seen it before.
    seen_at(tx, seen.id, seen.at_ms, "AND ended_at_ms IS NULL")
}

/// Notes that a row which has just been ended was found dead: it ended some time before.
pub(crate) fn found_dead(tx: &Tx<'_>, id: InstanceId) -> Result<()> {
    seen_at(tx, id, tx.now_ms(), "")
}

/// Whoever has seen it first is right. A store of an older version has no place for it, and its
/// rows are ended all the same.
fn seen_at(tx: &Tx<'_>, id: InstanceId, at_ms: i64, only: &str) -> Result<()> {
    const HAS_IT: &str = "SELECT count(*) FROM pragma_table_info('instances') WHERE name = ?1";
    let has_it: i64 = tx.prepare_cached(HAS_IT)?.query_row([EXIT_SEEN], |row| row.get(0))?;
    if has_it > 0 {
        let sql = format!(
            "UPDATE instances SET {EXIT_SEEN} = ?2 WHERE id = ?1 AND {EXIT_SEEN} IS NULL {only}"
        );
        tx.prepare_cached(&sql)?.execute((id.0, at_ms))?;
    }
    Ok(())
}

/// What [`note_exit`] has left in a row that is still on record as live.
pub(crate) fn noted_exit(connection: &Connection, id: InstanceId) -> Result<Option<ChildEnd>> {
    let noted = connection
        .prepare_cached("SELECT exit_code, signal FROM instances WHERE id = ?1")?
        .query_row([id.0], |row| {
            let number = |index| row.get::<_, Option<i32>>(index).unwrap_or(None);
            Ok(number(0).map(ChildEnd::Exited).or(number(1).map(ChildEnd::Signalled)))
        })
        .optional()?;
    Ok(noted.flatten())
}

/// Whether an end of this reason and exit code counts towards a storm: nobody asked for it.
pub(crate) fn is_abnormal(reason: &Reason, exit_code: Option<i64>) -> bool {
    match reason {
        Reason::Released
        | Reason::PlannedStop
        | Reason::TakenOver
        | Reason::Signalled
        | Reason::Evicted
        | Reason::ReExecuted
        | Reason::HandedOver
        | Reason::StoreReplaced
        | Reason::Rebooted => false,
        Reason::Exited => exit_code != Some(0),
        _ => true,
    }
}

/// The row that was ended.
pub(crate) struct EndedRow {
    pub(crate) had_office: bool,
    /// If its names can be read.
    pub(crate) office: Option<Office>,
    pub(crate) pid: Option<sys::Pid>,
}

/// What the command of a `run` says of its end before that comes: it stands in the row's `detail`
/// until then, and goes with whatever is said of the end. False when the row has ended.
pub(crate) fn last_word(tx: &Tx<'_>, id: InstanceId, nonce_hash: &str, word: &str) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE instances SET detail = ?3
             WHERE id = ?1 AND nonce_hash = ?2 AND ended_at_ms IS NULL",
        )?
        .execute((id.0, nonce_hash, word))?;
    Ok(changed == 1)
}

/// What a detail says before what a command last wrote to its standard error.
const STDERR: &str = "stderr: ";

/// What [`add_stderr`] has put into a detail.
pub(crate) fn last_words_in(detail: &str) -> Option<&str> {
    let within = detail.find(&format!("; {STDERR}")).map(|at| &detail[at + 2..]);
    within.unwrap_or(detail).strip_prefix(STDERR)
}

/// What the command last wrote to its standard error, beside what stands there already.
pub(crate) fn add_stderr(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce_hash: &str,
    words: &str,
) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE instances SET detail = coalesce(detail || '; ', '') || ?3
             WHERE id = ?1 AND nonce_hash = ?2 AND ended_at_ms IS NULL",
        )?
        .execute((id.0, nonce_hash, format!("{STDERR}{words}")))?;
    Ok(changed == 1)
}

/// Writes that a row has ended, and nothing of what ends with it: that is `owner/ending.rs`'s.
/// `None` when it has ended already or is not the one of `nonce_hash`.
pub(crate) fn end(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce_hash: Option<&str>,
    end: &End,
) -> Result<Option<EndedRow>> {
    const SQL: &str = "UPDATE instances
        SET ended_at_ms = :ended_at_ms, end_reason = :reason, ended_by = :by,
            exit_code = iif(:is_told, :exit_code, exit_code),
            signal = iif(:is_told, :signal, signal),
            detail = coalesce(:detail || '; ' || detail, :detail, detail)
        WHERE id = :id AND ended_at_ms IS NULL
            AND (:nonce_hash IS NULL OR nonce_hash = :nonce_hash)
        RETURNING profile, kind, pid, anchor";
    let reason = Reason::from(end.reason);
    let parameters = named_params! {
        ":id": id.0,
        ":nonce_hash": nonce_hash,
        ":ended_at_ms": tx.now_ms(),
        ":reason": reason.as_str(),
        ":by": end.by,
        // Both or neither: one may be on record already (`note_exit`).
        ":is_told": end.exit_code.is_some() || end.signal.is_some(),
        ":exit_code": end.exit_code,
        ":signal": end.signal,
        ":detail": end.detail,
    };
    let ended = tx.prepare_cached(SQL)?.query_row(parameters, |row| {
        let names: (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
        let pid: Option<i64> = row.get(2)?;
        if let Some(anchor) = row.get_ref(3)?.as_str_or_null().unwrap_or_default() {
            tx.store().accounted.lock().forget(anchor);
        }
        let (had_office, office) = match names {
            (Some(profile), Some(kind)) => {
                let names = ProfileName::new(profile).and_then(|it| Ok((it, Kind::new(kind)?)));
                (true, names.ok().map(|(profile, kind)| Office { profile, kind }))
            }
            _ => (false, None),
        };
        Ok(EndedRow { had_office, office, pid: pid.and_then(subject::valid_pid) })
    });
    Ok(ended.optional()?)
}
