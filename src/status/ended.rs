//! How the last holder of an office ended, also where nobody has recorded it.

use rusqlite::Connection;

use crate::Result;
use crate::liveness::DeadReason;
use crate::owner::autopsy;
use crate::patience::with_budget;
use crate::records::{End, EndReason, Record};
use crate::status::report::{ANSWER_WITHIN, LastEnd};
use crate::store::Inner;

pub(super) fn read<T>(inner: &Inner, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    with_budget(ANSWER_WITHIN, || inner.read(work))
}

pub(super) fn last_end(record: &Record) -> Option<LastEnd> {
    Some(LastEnd {
        reason: record.end_reason.clone()?,
        by: record.ended_by.clone(),
        at_ms: Some(record.ended_at_ms?),
    })
}

/// How a holder ended that is dead, and whose end nobody has recorded yet: what the next one that
/// writes will record.
pub(super) fn unrecorded_end(inner: &Inner, record: &Record, reason: DeadReason) -> Result<End> {
    let found =
        End::new(EndReason::Dead(reason)).detail("found dead now; the next claim will record it");
    read(inner, |connection| autopsy::explain(connection, inner, record.id, &found))
}
