//! Ending the records of the dead, some at a time: each start waits while one transaction lasts.

use serde::Serialize;
use serde_json::json;

use crate::claim::judge_to_end;
use crate::doctor::check::{Opened, counted};
use crate::doctor::judged_owner;
use crate::environment::{Fault, planted};
use crate::liveness::{DeadReason, Lease, Ruling};
use crate::owner::{LiveCommandLine, ending, needs_command_line};
use crate::records::{End, EndReason, EventRecord, Record, instances, locks};
use crate::store::Tx;
use crate::store::turns::{Progress, in_turns};
use crate::{InstanceId, Kind, LockName, ProfileName, Reason, Result, sys};

/// Locks that are named; of more the count is told.
const LOCKS_NAMED: usize = 20;

/// A record that is ended because its owner is dead. In JSON an object with these fields; later
/// versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct StaleRecord {
    /// Its generation.
    pub instance: InstanceId,
    /// Its profile, if it has one.
    pub profile: Option<ProfileName>,
    /// The kind of its office; `None` for a process without an office.
    pub kind: Option<Kind>,
    /// Its recorded process.
    pub pid: Option<sys::Pid>,
    /// The locks that end with it: scope and hash of the first 20.
    pub locks: Vec<LockName>,
    /// How many locks end with it.
    pub lock_count: usize,
    /// Why its owner counts as dead.
    pub reason: Reason,
}

impl StaleRecord {
    fn of(connection: &rusqlite::Connection, record: &Record, reason: Reason) -> Result<Self> {
        let locks = locks::some_of_instance(connection, record.id, LOCKS_NAMED)?;
        Ok(Self {
            instance: record.id,
            profile: record.profile.clone(),
            kind: record.kind().cloned(),
            pid: record.pid,
            locks: locks.into_iter().map(|lock| lock.name).collect(),
            lock_count: locks::count_of_instance(connection, record.id)?,
            reason,
        })
    }

    /// What is done about it: names profile, kind, pid and locks.
    pub(super) fn act(&self, name: &str) -> String {
        let pid = self.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let locks = match (self.locks.as_slice(), self.lock_count) {
            ([], _) => String::new(),
            (some, count) => {
                let names: Vec<String> = some.iter().map(LockName::to_string).collect();
                let more = match count.saturating_sub(some.len()) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let count = counted(count, "lock", "locks");
                format!(", with its {count} {}{more}", names.join(", "))
            }
        };
        format!("end the record of {name}{pid}{locks} ({})", self.reason)
    }
}

/// What became of the records that seemed stale.
#[derive(Default)]
pub(super) struct EndedStale {
    pub(super) ended: Vec<(String, StaleRecord)>,
    /// Whose command lives on: the name of the record, and that process.
    pub(super) kept: Vec<(String, sys::Pid)>,
}

/// Those that would be ended, with their names.
pub(super) fn stale(opened: &Opened) -> Result<Vec<(String, StaleRecord)>> {
    let stale = opened.owners()?.iter().filter(|owner| owner.is_stale());
    let stale: Vec<_> = stale.collect();
    opened.inner().read(|connection| {
        stale
            .iter()
            .map(|owner| {
                let reason = owner.judged.ruling.reason();
                Ok((owner.name(), StaleRecord::of(connection, &owner.record, reason)?))
            })
            .collect()
    })
}

/// Judges everybody again inside the transactions, and ends who is dead, as a claim would, in the
/// name of `by`. What was committed is in `all`, also where the rest failed.
pub(super) fn end(opened: &Opened, by: &str, all: &mut EndedStale) -> Result<()> {
    let inner = opened.inner();
    let command_lines: Vec<LiveCommandLine> = opened
        .owners()?
        .iter()
        .filter(|owner| owner.is_stale() && needs_command_line(&owner.judged.evidence))
        .map(|owner| LiveCommandLine::read(&owner.record))
        .collect();
    let live = inner.read(instances::all_live)?;
    let ids = live.into_iter().map(|record| record.id).collect();
    let step = |tx: &Tx<'_>, id: &InstanceId, turn: &mut EndedStale| {
        end_one(tx, *id, &command_lines, by, turn)?;
        Ok(Progress::Done)
    };
    in_turns(inner, ids, step, |turn| {
        all.ended.extend(turn.ended);
        all.kept.extend(turn.kept);
    })
}

fn end_one(
    tx: &Tx<'_>,
    id: InstanceId,
    command_lines: &[LiveCommandLine],
    by: &str,
    turn: &mut EndedStale,
) -> Result<()> {
    let record = instances::by_id(tx, id)?.filter(Record::is_live);
    let Some(record) = record else { return Ok(()) };
    let read = command_lines.iter().find(|line| line.is_for(id)).cloned();
    let judged = judge_to_end(tx.store(), &record, Lease::None, &read.unwrap_or_default());
    let name = judged_owner::name(&record);
    if let Some(pid) = judged.left_behind {
        turn.kept.push((name.clone(), pid));
    }
    let is_ended = planted(Fault::DoctorEndsTheLiving);
    let dead = Ruling::Dead(DeadReason::NoSuchProcess);
    let ruling = if is_ended { dead } else { judged.ruling };
    let Ruling::Dead(reason) = ruling else { return Ok(()) };
    if judged.flags.anchor_leaked {
        return Ok(());
    }
    let stale = StaleRecord::of(tx, &record, reason.into())?;
    let end = End::new(EndReason::Dead(reason)).detail(format!("found by {by}"));
    let recorded = ending::end_other(tx, id, &end)?;
    let stale = StaleRecord { reason: recorded.map_or(stale.reason, Reason::from), ..stale };
    let office = record.office();
    tx.record(&EventRecord {
        event: "doctor_fixed",
        office: office.as_ref(),
        profile: record.profile.as_ref(),
        instance: Some(id),
        pid: record.pid,
        detail: Some(json!({
            "check": "stale_rows", "act": stale.act(&name), "by": by, "record": stale,
        })),
    })?;
    turn.ended.push((name, stale));
    Ok(())
}
