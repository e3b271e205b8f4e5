//! How the last holder of an office ended, also where nobody has recorded it.

use rusqlite::Connection;

use crate::liveness::DeadReason;
use crate::owner::autopsy;
use crate::patience::with_budget;
use crate::records::{End, EndReason, Record};
use crate::status::report::{ANSWER_WITHIN, LastEnd, NOT_RECORDED};
use crate::status::summary::summary;
use crate::store::Inner;
use crate::{Reason, Result};

pub(super) fn read<T>(inner: &Inner, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    with_budget(ANSWER_WITHIN, || inner.read(work))
}

pub(crate) fn last_end(record: &Record) -> Option<LastEnd> {
    let reason = record.end_reason.clone()?;
    let exit_code = record.exit_code.and_then(|code| i32::try_from(code).ok());
    let signal = record.signal.and_then(|number| i32::try_from(number).ok());
    Some(LastEnd {
        summary: summary(&reason, exit_code, signal),
        reason,
        by: record.ended_by.clone(),
        at_ms: Some(record.ended_at_ms?),
        exit_seen_at_ms: record.exit_seen_at_ms,
        exit_code,
        signal,
        detail: record.detail.clone(),
        memory_bytes: None,
    })
}

/// The same of an end that nobody has recorded yet; `record` is of who ended.
pub(super) fn not_recorded(record: &Record, end: End) -> LastEnd {
    let reason = Reason::from(end.reason);
    LastEnd {
        summary: summary(&reason, end.exit_code, end.signal),
        reason,
        by: end.by,
        at_ms: None,
        exit_seen_at_ms: record.exit_seen_at_ms,
        exit_code: end.exit_code,
        signal: end.signal,
        detail: end.detail,
        memory_bytes: None,
    }
}

/// How a holder ended that is dead, and whose end nobody has recorded yet: what the next one that
/// writes will record.
pub(super) fn unrecorded_end(inner: &Inner, record: &Record, reason: DeadReason) -> Result<End> {
    let number = |value: Option<i64>| value.and_then(|value| i32::try_from(value).ok());
    let found = End {
        exit_code: number(record.exit_code),
        signal: number(record.signal),
        ..End::new(EndReason::Dead(reason)).detail(NOT_RECORDED)
    };
    read(inner, |connection| autopsy::explain(connection, inner, record.id, &found))
}
