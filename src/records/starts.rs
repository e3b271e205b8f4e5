//! The table `starts`: claims of an office, granted and refused. It is a bounded log, and storms
//! are counted from it.

use rusqlite::{Connection, OptionalExtension, named_params};
use serde::Serialize;

use crate::clock::as_rfc3339;
use crate::process::{Observer, Subject, subject};
use crate::records::{Record, conflicts, instances};
use crate::store::Tx;
use crate::{InstanceId, LockName, Office, Reason, Result, sys};

/// Starts kept per office.
const STARTS_KEPT: i64 = 200;

/// The outcome of a start, to be recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    Granted {
        instance: InstanceId,
        after_abnormal_end: bool,
    },
    Refused {
        holder: Option<InstanceId>,
        reason: &'a str,
    },
    /// The office may be free, but not a lock that it is wanted with; that conflict is the lock's.
    RefusedForLock {
        holder: Option<InstanceId>,
        reason: &'a str,
    },
}

pub(crate) fn record_start(
    tx: &Tx<'_>,
    office: &Office,
    subject: &Subject,
    observer: &Observer,
    now_boot_ms: i64,
    start: Start<'_>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO starts (profile, kind, outcome, instance_id, holder_id, reason,
            pid, party, counted, at_ms, at_boot_ms, boot_id)
         VALUES (:profile, :kind, :outcome, :instance_id, :holder_id, :reason,
            :pid, :party, :counted, :at_ms, :at_boot_ms, :boot_id)";
    let (outcome, instance, holder, reason, counted) = match start {
        Start::Granted { instance, after_abnormal_end } => {
            ("granted", Some(instance), None, None, after_abnormal_end)
        }
        Start::Refused { holder, reason } | Start::RefusedForLock { holder, reason } => {
            ("refused", None, holder, Some(reason), true)
        }
    };
    tx.prepare_cached(SQL)?.execute(named_params! {
        ":profile": office.profile.as_str(),
        ":kind": office.kind.as_str(),
        ":outcome": outcome,
        ":instance_id": instance.map(InstanceId::as_i64),
        ":holder_id": holder.map(InstanceId::as_i64),
        ":reason": reason,
        ":pid": subject.pid,
        ":party": subject.party,
        ":counted": counted,
        ":at_ms": tx.now_ms(),
        ":at_boot_ms": now_boot_ms,
        ":boot_id": observer.boot_id,
    })?;
    let start_number = tx.last_insert_rowid();
    if let Start::Refused { holder: Some(holder), reason } = start {
        conflicts::count_conflict(tx, office, subject, holder, reason)?;
    }
    // One start in sixteen pays for all: at most that many rows too many.
    if start_number % 16 == 0 {
        tx.prepare_cached(
            "DELETE FROM starts WHERE profile = :profile AND kind = :kind AND id <= (
                 SELECT id FROM starts WHERE profile = :profile AND kind = :kind
                 ORDER BY id DESC LIMIT 1 OFFSET :kept)",
        )?
        .execute(named_params! {
            ":profile": office.profile.as_str(),
            ":kind": office.kind.as_str(),
            ":kept": STARTS_KEPT,
        })?;
    }
    Ok(())
}

/// A start that was refused by somebody who still lives. In JSON an object with
/// these fields, the time as `at` (RFC 3339, UTC, milliseconds); later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RefusedStart {
    /// When: Unix milliseconds, wall time.
    #[serde(rename = "at", serialize_with = "as_rfc3339")]
    pub at_ms: i64,
    /// The process that wanted to start, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// Why the holder counts as holding it.
    pub reason: Reason,
    /// The lock that was missing; `None` where the office itself was held.
    pub lock: Option<LockName>,
    /// The office of whoever held it; `None` for a process without one.
    pub holder: Option<Office>,
    /// The recorded pid of that one, in its own pid namespace.
    pub holder_pid: Option<sys::Pid>,
}

/// The newest start of an office, if it was refused, and whoever stood in the way is on record as
/// live: that one, who may be dead by now.
pub(crate) fn last_refused(
    connection: &Connection,
    office: &Office,
) -> Result<Option<(Record, RefusedStart)>> {
    const SQL: &str = "SELECT iif(outcome = 'refused', holder_id, NULL), at_ms, pid, reason
         FROM starts WHERE profile = ?1 AND kind = ?2 ORDER BY id DESC LIMIT 1";
    let newest = connection
        .prepare_cached(SQL)?
        .query_row((office.profile.as_str(), office.kind.as_str()), |row| {
            let holder: Option<i64> = row.get(0)?;
            // A value that no program of ours writes reads as absent.
            let pid = row.get::<_, Option<i64>>(2).unwrap_or(None);
            let reason = row.get::<_, Option<String>>(3).unwrap_or(None);
            let refused = RefusedStart {
                at_ms: row.get(1)?,
                pid: pid.and_then(subject::valid_pid),
                reason: Reason::from(reason.unwrap_or_default()),
                lock: None,
                holder: None,
                holder_pid: None,
            };
            Ok(holder.map(|holder| (InstanceId(holder), refused)))
        })
        .optional()?
        .flatten();
    let Some((holder, mut refused)) = newest else { return Ok(None) };
    let record = instances::by_id(connection, holder)?.filter(Record::is_live);
    let Some(record) = record else { return Ok(None) };
    refused.holder = record.office();
    refused.holder_pid = record.pid;
    // One process may hold the office and the lock: what was refused by another office was a lock.
    if refused.holder.as_ref() != Some(office) {
        refused.lock = conflicts::last_lock_wanted(connection, &office.profile, holder)?;
    }
    Ok(Some((record, refused)))
}

/// Whether the last incarnation of an office ended in a way that nobody asked for.
pub(crate) fn last_end_was_abnormal(tx: &Tx<'_>, office: &Office) -> Result<bool> {
    let last: Option<(String, Option<i64>)> = tx
        .prepare_cached(
            "SELECT end_reason, exit_code FROM instances
             WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row((office.profile.as_str(), office.kind.as_str()), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(last.is_some_and(|(reason, exit_code)| instances::is_abnormal(&reason.into(), exit_code)))
}
