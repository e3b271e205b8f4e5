//! Where a row ends, and what ends with it: markers, locks, waiters, reservations.

use std::time::Duration;

use rusqlite::{OptionalExtension, named_params};

use crate::clock::Deadline;
use crate::liveness::DeadReason;
use crate::owner::autopsy;
use crate::process::subject;
use crate::records::{
    End, EndReason, EventRecord, LockEnd, Record, instances, locks, markers, reservations, waiters,
};
use crate::store::{Deferred, Tx};
use crate::{InstanceId, Kind, Office, ProfileName, Result};

const END_SQL: &str = "UPDATE instances
    SET ended_at_ms = :ended_at_ms, end_reason = :reason, ended_by = :by, exit_code = :exit_code,
        signal = :signal, detail = coalesce(:detail, detail)
    WHERE id = :id AND ended_at_ms IS NULL AND (:nonce_hash IS NULL OR nonce_hash = :nonce_hash)
    RETURNING profile, kind, pid";

/// Ends a row, and everything that is for it or leans on it. The reason that was recorded; `None`
/// when the row has ended already or is not the one of `nonce_hash`.
fn end(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce_hash: Option<&str>,
    end: &End,
) -> Result<Option<EndReason>> {
    let end = &autopsy::explain(tx, tx.store(), id, end)?;
    let parameters = named_params! {
        ":id": id.0,
        ":nonce_hash": nonce_hash,
        ":ended_at_ms": tx.now_ms(),
        ":reason": end.reason.as_str(),
        ":by": end.by,
        ":exit_code": end.exit_code,
        ":signal": end.signal,
        ":detail": end.detail,
    };
    let ended: Option<(Option<String>, Option<String>, Option<i64>)> = tx
        .prepare_cached(END_SQL)?
        .query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((profile, kind, pid)) = ended else { return Ok(None) };
    let has_markers = markers::exists(tx)?;
    if has_markers {
        markers::close_all_of(tx, id)?;
    }
    let how = LockEnd { reason: end.reason.as_str(), by: end.by.as_deref() };
    if locks::end_some_of(tx, id, how)? == locks::ENDED_AT_ONCE {
        tx.leave(Box::new(move |tx| locks::end_left_of(tx, id)));
    }
    let (Some(profile), Some(kind)) = (profile, kind) else {
        waiters::remove(tx, id)?;
        if has_markers {
            reservations::remove_all_of(tx, id)?;
        }
        return Ok(Some(end.reason));
    };
    if let (Ok(profile), Ok(kind)) = (ProfileName::new(profile), Kind::new(kind)) {
        tx.record(&EventRecord {
            event: "office_ended",
            office: Some(&Office { profile, kind }),
            instance: Some(id),
            pid: pid.and_then(subject::valid_pid),
            detail: Some(serde_json::json!({
                "reason": end.reason.as_str(),
                "by": end.by,
                "exit_code": end.exit_code,
                "signal": end.signal,
            })),
            ..EventRecord::default()
        })?;
    }
    Ok(Some(end.reason))
}

/// Ends a row that its owner lets go. The nonce makes sure that it is the owner's; false when the
/// row has ended already or is not.
pub(crate) fn end_own(tx: &Tx<'_>, id: InstanceId, nonce_hash: &str, how: &End) -> Result<bool> {
    tx.let_go_of_anchor();
    Ok(end(tx, id, Some(nonce_hash), how)?.is_some())
}

/// The release of a row.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) instance: InstanceId,
    pub(crate) nonce_hash: String,
    pub(crate) end: End,
}

impl Deferred for Release {
    fn write(&self, tx: &Tx<'_>) -> Result<()> {
        end_own(tx, self.instance, &self.nonce_hash, &self.end).map(drop)
    }

    fn releases(&self, row: InstanceId) -> bool {
        self.instance == row
    }
}

/// Ends a row whose owner is dead, or that a person evicts. The reason as it was recorded; `None`
/// when the row has ended already.
pub(crate) fn end_other(tx: &Tx<'_>, id: InstanceId, how: &End) -> Result<Option<EndReason>> {
    end(tx, id, None, how)
}

/// How long one claim looks for the dead that are in nobody's way, and ends them.
const SWEPT_WITHIN: Duration = Duration::from_millis(10);

/// Ends the rows of processes without an office that died: nobody else ever claims those. Each
/// claim begins at another row: behind many that live there may be dead ones, and a process that
/// claims once remembers nothing.
pub(crate) fn sweep_without_office(
    tx: &Tx<'_>,
    mut is_dead: impl FnMut(&Record) -> Option<DeadReason>,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    let until = Deadline::after(SWEPT_WITHIN);
    let mut live: Vec<(InstanceId, Option<String>)> = tx
        .prepare_cached(
            "SELECT id, anchor FROM instances WHERE ended_at_ms IS NULL AND kind IS NULL",
        )?
        .query_map([], |row| Ok((InstanceId(row.get(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let begin = tx.one_of(live.len());
    live.rotate_left(begin);
    let mut dead = Vec::new();
    for (id, anchor) in live {
        // The cheap look first: of many waiters and holders nearly all are alive.
        if !anchor.as_deref().is_some_and(&is_held)
            && let Some(record) = instances::by_id(tx, id)?
        {
            dead.extend(is_dead(&record).map(|reason| (id, reason)));
        }
        if until.has_passed() {
            break;
        }
    }
    for (id, reason) in dead {
        end(tx, id, None, &End::new(EndReason::Dead(reason)))?;
        if until.has_passed() {
            break;
        }
    }
    Ok(())
}
