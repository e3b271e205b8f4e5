//! The rows of markers: all their SQL.
//!
//! A marker is for one generation, or for a process that is on record nowhere. One that has
//! expired, by the boot clock, is as good as none; it is closed as such by whoever writes next.

pub(crate) mod find;

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::as_rfc3339;
use crate::names::MarkerName;
use crate::records::events::EventRecord;
use crate::records::identities::Identities;
use crate::records::instances;
use crate::records::instances::Record;
use crate::store::Tx;
use crate::sys::StartTime;
use crate::words::words;
use crate::{InstanceId, Result, sys};

pub(crate) use self::find::{
    all_open, any_open, asked_end, fate, find, is_open, open_by_pid, open_for, open_in_office,
    unserved_restart,
};

/// The longest time that a marker lives, in milliseconds: one that claims to live longer was not
/// written by us, and counts as expired.
pub(crate) const TTL_MAX_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Closed markers kept.
const CLOSED_KEPT: i64 = 1_000;

/// A one-shot message to one instance. In JSON an object with these fields, the times as
/// `written_at` and `expires_at` (RFC 3339, UTC, milliseconds); later versions may add others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Marker {
    /// Rises with every marker of the store.
    pub id: i64,
    /// What it says.
    pub name: MarkerName,
    /// The generation it is for; `None`: a process that was on record nowhere.
    pub instance: Option<InstanceId>,
    /// The process it is for, as recorded, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// Who wrote it: in the writer's words, else its pid, command line and user id.
    pub by: String,
    /// The pid of whoever wrote it, in its own pid namespace.
    pub by_pid: Option<sys::Pid>,
    /// The user id of whoever wrote it.
    pub by_uid: Option<u32>,
    /// Why, in the writer's words.
    pub reason: Option<String>,
    /// When it was written: Unix milliseconds, wall time.
    #[serde(rename = "written_at", serialize_with = "as_rfc3339")]
    pub written_at_ms: i64,
    /// Until when it counts: Unix milliseconds, wall time. What decides is the boot clock.
    #[serde(rename = "expires_at", serialize_with = "as_rfc3339")]
    pub expires_at_ms: i64,
    /// The writer's own instance, where it waits for what comes of it.
    #[serde(skip)]
    pub(crate) requester: Option<InstanceId>,
}

impl Marker {
    /// Expects [`COLUMNS`]; `None` for a name that no program of ours writes.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let name: String = row.get(1)?;
        let Ok(name) = MarkerName::new(name) else { return Ok(None) };
        let number = |index| row.get::<_, Option<i64>>(index);
        Ok(Some(Self {
            id: row.get(0)?,
            name,
            instance: number(2)?.map(InstanceId),
            pid: number(3)?.and_then(|pid| pid.try_into().ok()),
            by: row.get(4)?,
            by_pid: number(5)?.and_then(|pid| pid.try_into().ok()),
            by_uid: number(6)?.and_then(|uid| uid.try_into().ok()),
            reason: row.get(7)?,
            written_at_ms: row.get(8)?,
            expires_at_ms: row.get(9)?,
            requester: number(10)?.map(InstanceId),
        }))
    }
}

/// A marker that was written, see [`Store::write_marker`](crate::Store::write_marker).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The marker.
    pub marker: Marker,
    /// Those that were open until then, and that it took the place of: of the same name, or another
    /// request to the same incarnation.
    pub replaced: Vec<Marker>,
}

const COLUMNS: &str = "id, name, instance_id, pid, writer, writer_pid, writer_uid, reason,
    written_at_ms, expires_at_ms, writer_id";

/// Whether a row has not expired, at `:now` of the boot `:boot_id`. A boot id that differs or is
/// hidden is doubt (FIELD-BUGS rows 91, 103): then the boot clock decides, unless it and the wall
/// clock have moved apart by more than a minute (`:wall_less_boot` was another), as a restart moves
/// them.
const COUNTS: &str = "(expires_boot_id IS :boot_id
        OR abs(expires_at_ms - expires_boot_ms - :wall_less_boot) <= 60000)
    AND expires_boot_ms > :now AND expires_boot_ms <= :latest";

/// Whether there are markers at all: a store that an older version made has none, and what asks or
/// ends something does not migrate it.
pub(crate) fn exists(connection: &Connection) -> Result<bool> {
    Ok(connection.table_exists(None, "markers")?)
}

/// A process, told apart from all others of the machine's boot.
#[derive(Clone, Debug)]
pub(crate) struct ProcessKey {
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    pub(crate) boot_id: Option<String>,
    pub(crate) pid_ns: Option<String>,
}

impl ProcessKey {
    fn of(record: &Record) -> Option<Self> {
        Some(Self {
            pid: record.pid?,
            start_time: record.start_time,
            boot_id: record.boot_id.clone(),
            pid_ns: record.pid_ns.clone(),
        })
    }
}

/// Whom a marker is for.
#[derive(Clone, Debug)]
pub(crate) struct Addressee {
    /// The rows that a process has in the store.
    pub(crate) instances: Vec<InstanceId>,
    /// The process itself, for what was written before it was on record.
    pub(crate) process: Option<ProcessKey>,
}

impl Addressee {
    /// The owner of `record`, and nobody else.
    pub(crate) fn of(record: &Record) -> Self {
        Self { instances: vec![record.id], process: ProcessKey::of(record) }
    }
}

/// What to write.
#[derive(Clone, Debug)]
pub(crate) struct NewMarker<'a> {
    pub(crate) name: &'a MarkerName,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) process: &'a ProcessKey,
    pub(crate) by: &'a str,
    pub(crate) by_pid: sys::Pid,
    pub(crate) by_uid: Option<u32>,
    pub(crate) requester: Option<InstanceId>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) ttl_ms: i64,
}

impl NewMarker<'_> {
    /// For the generation of `record`; `None` when its process is not known.
    pub(crate) fn target(record: &Record) -> Option<(InstanceId, ProcessKey)> {
        Some((record.id, ProcessKey::of(record)?))
    }

    /// Writes it. Another one of its name for the same target, and for a request any other request,
    /// is closed: the last word counts.
    pub(crate) fn write(&self, tx: &Tx<'_>) -> Result<Written> {
        tx.check_schema()?;
        close_expired(tx)?;
        let replaced = self.close_others(tx)?;
        let reason = match self.reason {
            Some(reason) => Some(Identities::within(tx, [reason])?.text(reason)),
            None => None,
        };
        let reason = reason.as_deref();
        let now = tx.boot_time();
        let id = tx.draw_id()?;
        let expires_at_ms = tx.now_ms().saturating_add(self.ttl_ms);
        tx.prepare_cached(
            "INSERT INTO markers (id, name, instance_id, pid, start_time, start_time_unit, boot_id,
                pid_ns, writer, writer_pid, writer_uid, writer_id, reason, written_at_ms,
                expires_at_ms, expires_boot_ms, expires_boot_id)
             VALUES (:id, :name, :instance_id, :pid, :start_time, :start_time_unit, :boot_id,
                :pid_ns, :writer, :writer_pid, :writer_uid, :writer_id, :reason, :written_at_ms,
                :expires_at_ms, :expires_boot_ms, :expires_boot_id)",
        )?
        .execute(named_params! {
            ":id": id,
            ":name": self.name.as_str(),
            ":instance_id": self.instance.map(InstanceId::as_i64),
            ":pid": self.process.pid,
            ":start_time": self.process.start_time.map(|time| time.value),
            ":start_time_unit": self.process.start_time.map(|time| time.unit.as_str()),
            ":boot_id": self.process.boot_id,
            ":pid_ns": self.process.pid_ns,
            ":writer": self.by,
            ":writer_pid": self.by_pid,
            ":writer_uid": self.by_uid,
            ":writer_id": self.requester.map(InstanceId::as_i64),
            ":reason": reason,
            ":written_at_ms": tx.now_ms(),
            ":expires_at_ms": expires_at_ms,
            ":expires_boot_ms": now.ms.saturating_add(self.ttl_ms.min(TTL_MAX_MS)),
            ":expires_boot_id": now.boot_id,
        })?;
        let marker = Marker {
            id,
            name: self.name.clone(),
            instance: self.instance,
            pid: Some(self.process.pid),
            by: self.by.to_owned(),
            by_pid: Some(self.by_pid),
            by_uid: self.by_uid,
            reason: reason.map(str::to_owned),
            written_at_ms: tx.now_ms(),
            expires_at_ms,
            requester: self.requester,
        };
        record(tx, "marker_written", &marker, json!({"by": self.by, "reason": reason}))?;
        if tx.prunes_rarely() {
            prune(tx)?;
        }
        Ok(Written { marker, replaced })
    }

    /// Which markers this one takes the place of.
    fn close_others(&self, tx: &Tx<'_>) -> Result<Vec<Marker>> {
        let others: Vec<i64> = match self.instance {
            Some(instance) => tx
                .prepare_cached(
                    "SELECT id FROM markers
                     WHERE instance_id = ?1 AND closed_at_ms IS NULL
                       AND (name = ?2
                            OR ?3 AND name IN ('takeover', 'planned_stop', 'restart'))",
                )?
                .query_map(
                    (instance.as_i64(), self.name.as_str(), self.name.is_request()),
                    |row| row.get(0),
                )?
                .collect::<rusqlite::Result<_>>()?,
            None => tx
                .prepare_cached(
                    "SELECT id FROM markers
                     WHERE pid = ?1 AND start_time IS ?2
                       AND (boot_id IS ?3 OR start_time = ?2) AND pid_ns IS ?4 AND name = ?5
                       AND instance_id IS NULL AND closed_at_ms IS NULL",
                )?
                .query_map(
                    (
                        self.process.pid,
                        self.process.start_time.map(|time| time.value),
                        &self.process.boot_id,
                        &self.process.pid_ns,
                        self.name.as_str(),
                    ),
                    |row| row.get(0),
                )?
                .collect::<rusqlite::Result<_>>()?,
        };
        let mut replaced = Vec::new();
        for id in others {
            replaced.extend(close_row(tx, id, Closed::Replaced, Some(self.by))?.1);
        }
        // One that was consumed and not served is no less withdrawn.
        if let Some(instance) = self.instance.filter(|_| self.name.is_request()) {
            tx.prepare_cached(
                "UPDATE markers SET closed_how = 'replaced', closed_by = ?2
                 WHERE instance_id = ?1 AND name = 'restart' AND served_at_ms IS NULL
                   AND closed_how = 'consumed'",
            )?
            .execute((instance.as_i64(), self.by))?;
        }
        Ok(replaced)
    }
}

words! {
    /// What became of a marker.
    pub(crate) enum Closed {
        Consumed = "consumed",
        Cleared = "cleared",
        Replaced = "replaced",
        TargetEnded = "target_ended",
    }
}

impl Closed {
    fn event(self) -> &'static str {
        match self {
            Self::Consumed => "marker_consumed",
            Self::Cleared => "marker_cleared",
            Self::Replaced => "marker_replaced",
            Self::TargetEnded => "marker_ended",
        }
    }
}

fn record(tx: &Tx<'_>, event: &'static str, marker: &Marker, mut detail: Value) -> Result<()> {
    detail["marker"] = marker.id.into();
    detail["name"] = marker.name.as_str().into();
    let office = match marker.instance {
        Some(instance) => instances::office_of(tx, instance)?,
        None => None,
    };
    tx.record(&EventRecord {
        event,
        office: office.as_ref().map(|(office, _)| office),
        instance: marker.instance,
        pid: marker.pid,
        detail: Some(detail),
        ..EventRecord::default()
    })
}

/// Closes an open marker; false when somebody else has done so.
pub(crate) fn close(tx: &Tx<'_>, id: i64, how: Closed, by: Option<&str>) -> Result<bool> {
    Ok(close_row(tx, id, how, by)?.0)
}

/// Whether it was open, and the marker, as far as a program of ours could have written it.
fn close_row(
    tx: &Tx<'_>,
    id: i64,
    how: Closed,
    by: Option<&str>,
) -> Result<(bool, Option<Marker>)> {
    let sql = format!(
        "UPDATE markers SET closed_at_ms = ?2, closed_how = ?3, closed_by = ?4
         WHERE id = ?1 AND closed_at_ms IS NULL RETURNING {COLUMNS}"
    );
    let marker = tx
        .prepare_cached(&sql)?
        .query_row((id, tx.now_ms(), how.as_str(), by), Marker::from_row)
        .optional()?;
    if let Some(Some(marker)) = &marker {
        record(tx, how.event(), marker, json!({"by": by}))?;
    }
    Ok((marker.is_some(), marker.flatten()))
}

/// Closes what counts no more; see [`COUNTS`].
fn close_expired(tx: &Tx<'_>) -> Result<()> {
    let now = tx.boot_time();
    tx.prepare_cached(
        "UPDATE markers SET closed_at_ms = ?1, closed_how = 'expired'
         WHERE closed_at_ms IS NULL
           AND (expires_boot_ms <= ?3 OR expires_boot_ms > ?4
             OR expires_boot_id IS NOT ?2 AND abs(expires_at_ms - expires_boot_ms - ?5) > 60000)",
    )?
    .execute((
        tx.now_ms(),
        now.boot_id,
        now.ms,
        now.ms.saturating_add(TTL_MAX_MS),
        now.wall_less_boot_ms(),
    ))?;
    Ok(())
}

fn prune(tx: &Tx<'_>) -> Result<()> {
    tx.prepare_cached(
        "DELETE FROM markers WHERE closed_at_ms IS NOT NULL AND id <= (
             SELECT id FROM markers WHERE id > 0 ORDER BY id DESC LIMIT 1 OFFSET ?1)",
    )?
    .execute([CLOSED_KEPT])?;
    Ok(())
}

/// Notes that a restart was served, together with every other one that this start serves as well.
pub(crate) fn serve_restarts(tx: &Tx<'_>, instance: InstanceId, by: &str) -> Result<()> {
    let unserved: Vec<i64> = tx
        .prepare_cached(
            "UPDATE markers SET served_at_ms = ?2
             WHERE instance_id = ?1 AND name = 'restart' AND served_at_ms IS NULL
               AND (closed_at_ms IS NULL OR closed_how = 'consumed')
             RETURNING id",
        )?
        .query_map((instance.as_i64(), tx.now_ms()), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if unserved.is_empty() {
        return Ok(());
    }
    for id in unserved {
        close(tx, id, Closed::Consumed, Some(by))?;
    }
    // An end that was asked for before, and did not come, explains none that comes now.
    tx.prepare_cached(
        "UPDATE markers SET expires_boot_ms = :now
         WHERE instance_id = :instance_id AND name IN ('takeover', 'planned_stop')
           AND closed_how = 'consumed' AND expires_boot_ms > :now",
    )?
    .execute(named_params! {":now": tx.boot_time().ms, ":instance_id": instance.as_i64()})?;
    Ok(())
}

/// What somebody has left for an owner that goes on under another row. Requests are not among it:
/// a restart is served by that, and nobody hands over who is asked to end.
pub(crate) fn follow(tx: &Tx<'_>, from: InstanceId, to: InstanceId) -> Result<()> {
    tx.prepare_cached(
        "UPDATE markers SET instance_id = ?2
         WHERE instance_id = ?1 AND closed_at_ms IS NULL
           AND name NOT IN ('takeover', 'planned_stop', 'restart')",
    )?
    .execute((from.as_i64(), to.as_i64()))?;
    Ok(())
}

/// An instance has ended: what was for it is inert from now on.
pub(crate) fn close_all_of(tx: &Tx<'_>, instance: InstanceId) -> Result<()> {
    let open: Vec<i64> = tx
        .prepare_cached("SELECT id FROM markers WHERE instance_id = ?1 AND closed_at_ms IS NULL")?
        .query_map([instance.as_i64()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in open {
        close(tx, id, Closed::TargetEnded, None)?;
    }
    Ok(())
}
