//! Past incarnations.

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::liveness::{Lease, Verdict};
use crate::owner::because::because;
use crate::owner::look;
use crate::records::{Record, instances};
use crate::status::ended;
use crate::store::Inner;
use crate::{InstanceId, Office, Result, sys};

/// One incarnation of an office, as the history tells it.
#[derive(Clone, Debug)]
pub struct Incarnation {
    /// The generation.
    pub instance: InstanceId,
    /// Which office.
    pub office: Office,
    /// The recorded process.
    pub pid: Option<sys::Pid>,
    /// When it was granted the office: Unix milliseconds, wall time.
    pub started_at_ms: i64,
    /// When its end was recorded; `None` while it is on record as live.
    pub ended_at_ms: Option<i64>,
    /// Why it ended, in snake case. Present without `ended_at_ms` when it is dead and nobody has
    /// recorded that yet.
    pub end_reason: Option<String>,
    /// Who ended it, if they said so.
    pub ended_by: Option<String>,
    /// The exit code of a `run`'s command.
    pub exit_code: Option<i64>,
    /// The signal that ended a `run`'s command.
    pub signal: Option<i64>,
    /// Anything else.
    pub detail: Option<String>,
}

impl Incarnation {
    /// Why it ended, in words.
    #[must_use]
    pub fn because(&self) -> &'static str {
        because(self.end_reason.as_deref().unwrap_or_default())
    }

    /// The incarnation as the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "instance": self.instance.as_i64(),
            "profile": self.office.profile.as_str(),
            "kind": self.office.kind.as_str(),
            "pid": self.pid,
            "started_at": rfc3339(self.started_at_ms),
            "ended_at": self.ended_at_ms.and_then(rfc3339),
            "end_reason": self.end_reason,
            "ended_by": self.ended_by,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "detail": self.detail,
        })
    }
}

/// The incarnations of an office, newest first; what a dead one could not write is derived.
pub(crate) fn history(
    inner: &Inner,
    office: &Office,
    count_max: usize,
) -> Result<Vec<Incarnation>> {
    let records = inner.read(|connection| instances::history(connection, office, count_max))?;
    inner.with_clear_sight(|| incarnations(inner, office, records))
}

fn incarnations(inner: &Inner, office: &Office, records: Vec<Record>) -> Result<Vec<Incarnation>> {
    records
        .into_iter()
        .map(|record| {
            let recorded = Incarnation {
                instance: record.id,
                office: office.clone(),
                pid: record.pid,
                started_at_ms: record.started_at_ms,
                ended_at_ms: record.ended_at_ms,
                end_reason: record.end_reason.clone(),
                ended_by: record.ended_by.clone(),
                exit_code: record.exit_code,
                signal: record.signal,
                detail: record.detail.clone(),
            };
            if !record.is_live() {
                return Ok(recorded);
            }
            let Verdict::Dead(reason) = look(inner, &record, Lease::None).verdict else {
                return Ok(recorded);
            };
            let end = ended::unrecorded_end(inner, &record, reason)?;
            Ok(Incarnation {
                end_reason: Some(end.reason.as_str().to_owned()),
                ended_by: end.by,
                signal: end.signal.map(i64::from),
                detail: end.detail,
                ..recorded
            })
        })
        .collect()
}
