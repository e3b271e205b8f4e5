//! The table `events`: every change, written in the transaction that makes it.
//!
//! Events of runtime statuses come too often to push the others out, so they are pruned by
//! themselves. An event bears the whole of what is said now (of large `extra` JSON the size), so
//! the last one of a key is the state.

use rusqlite::{Connection, OptionalExtension, Params, Row, named_params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::as_rfc3339;
use crate::process::anchor::accounted::EventMark;
use crate::store::Tx;
use crate::{InstanceId, Kind, Office, ProfileName, Result, sys};

/// Events read at once.
pub(crate) const BATCH: usize = 500;

/// Instead of events that were deleted before they were read: how many those were.
pub(crate) const EVENTS_LOST: &str = "events_lost";

/// One committed change. In JSON an object with these fields, the time as `at` (RFC 3339, UTC,
/// milliseconds); later versions may add others, and other events.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// Rises with every event of the store.
    pub id: i64,
    /// When it was committed: Unix milliseconds, wall time; negative where that cannot be read.
    #[serde(rename = "at", serialize_with = "as_rfc3339")]
    pub at_ms: i64,
    /// What happened: `office_claimed`, `office_refused`, `office_ended`, ...
    pub event: String,
    /// The profile it is about, if any.
    pub profile: Option<String>,
    /// The kind of office it is about, if any.
    pub kind: Option<String>,
    /// The generation it is about, if any.
    pub instance: Option<InstanceId>,
    /// The process that did it or that it happened to, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// What else is to be known: an object whose fields belong to the event, or null.
    pub detail: Value,
}

impl Event {
    /// The names of all events, in the order of the alphabet. Later versions may have others.
    pub const NAMES: [&'static str; 35] = [
        "desired_changed",
        "directory_closed",
        "doctor_fixed",
        EVENTS_LOST,
        "legacy_home_bound",
        "legacy_home_forgotten",
        "legacy_imported",
        "lock_acquired",
        "lock_awaited",
        "lock_ended",
        "lock_refused",
        "machine_slept",
        "marker_cleared",
        "marker_consumed",
        "marker_ended",
        "marker_replaced",
        "marker_written",
        "office_awaited",
        "office_claimed",
        "office_ended",
        "office_refused",
        "orphans_evicted",
        "panicked",
        "platform_changed",
        "platform_removed",
        "profile_bound",
        "served_by_changed",
        "serves_changed",
        "signal_received",
        "signal_sent",
        "status_changed",
        "store_migrated",
        "store_overwritten",
        "store_recovered",
        "takeover_begun",
    ];

    /// Stands for `count` events up to `id` that were deleted unread; it may not be known how many.
    pub(crate) fn lost(id: i64, at_ms: i64, count: Option<i64>) -> Self {
        Self {
            id,
            at_ms,
            event: EVENTS_LOST.to_owned(),
            profile: None,
            kind: None,
            instance: None,
            pid: None,
            detail: json!({"count": count}),
        }
    }
}

pub(crate) fn newest_mark(connection: &Connection) -> Result<Option<EventMark>> {
    const SQL: &str = "SELECT id, at_ms, instance_id FROM events
         WHERE id = (SELECT max(id) FROM events)";
    let mark = |row: &Row<'_>| {
        Ok(EventMark { id: row.get(0)?, at_ms: row.get(1)?, instance: row.get(2)? })
    };
    Ok(connection.prepare_cached(SQL)?.query_row([], mark).optional()?)
}

pub(crate) fn is_there(connection: &Connection, event: &EventMark) -> Result<bool> {
    const SQL: &str = "SELECT 1 FROM events WHERE id = ?1 AND at_ms = ?2 AND instance_id IS ?3";
    let mut statement = connection.prepare_cached(SQL)?;
    Ok(statement.exists((event.id, event.at_ms, event.instance))?)
}

pub(crate) fn newest_id(connection: &Connection) -> Result<i64> {
    let id: Option<i64> =
        connection.prepare_cached("SELECT max(id) FROM events")?.query_row([], |row| row.get(0))?;
    Ok(id.unwrap_or(0))
}

/// When the event of `id` happened, if it is kept.
pub(crate) fn time_of(connection: &Connection, id: i64) -> Result<Option<i64>> {
    let at_ms = connection
        .prepare_cached("SELECT at_ms FROM events WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(at_ms)
}

/// What the newest event of this name says; `None` where none is kept.
pub(crate) fn newest_detail(connection: &Connection, event: &str) -> Result<Option<Value>> {
    let detail: Option<Option<String>> = connection
        .prepare_cached("SELECT detail FROM events WHERE event = ?1 ORDER BY id DESC LIMIT 1")?
        .query_row([event], |row| row.get(0))
        .optional()?;
    Ok(detail.flatten().and_then(|detail| serde_json::from_str(&detail).ok()))
}

/// Who sent this signal to this process of an incarnation last, by `incumbent signal`.
pub(crate) fn sender_of(
    connection: &Connection,
    instance: InstanceId,
    pid: sys::Pid,
    signal: &str,
) -> Result<Option<String>> {
    const SQL: &str = "SELECT detail FROM events
        WHERE event = 'signal_sent' AND instance_id = ?1 AND pid = ?2 ORDER BY id DESC LIMIT 20";
    let details: Vec<Option<String>> = connection
        .prepare_cached(SQL)?
        // A damaged value spoils its own cell.
        .query_map((instance.0, pid), |row| Ok(row.get(0).unwrap_or(None)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut details =
        details.iter().flatten().filter_map(|it| serde_json::from_str::<Value>(it).ok());
    let of_it = details.find(|detail| detail["signal"] == signal);
    Ok(of_it.and_then(|detail| detail["by"].as_str().map(str::to_owned)))
}

/// Which events are asked for; `None`, and no name, is all of them.
#[derive(Debug, Default)]
pub(crate) struct EventSelection<'a> {
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) kind: Option<&'a Kind>,
    pub(crate) names: &'a [String],
    pub(crate) since_ms: Option<i64>,
    pub(crate) count_max: Option<usize>,
}

/// The newest of the events that are asked for, oldest first.
pub(crate) fn newest(connection: &Connection, which: &EventSelection<'_>) -> Result<Vec<Event>> {
    const SQL: &str = "SELECT * FROM (SELECT * FROM events
            WHERE (?1 IS NULL OR profile = ?1)
              AND (?5 IS NULL OR kind = ?5)
              AND (?2 IS NULL OR event IN (SELECT value FROM json_each(?2)))
              AND (?3 IS NULL OR at_ms >= ?3)
            ORDER BY id DESC LIMIT ?4) ORDER BY id";
    let profile = which.profile.map(ProfileName::as_str);
    let names = (!which.names.is_empty()).then(|| json!(which.names).to_string());
    let count_max = which.count_max.map_or(i64::MAX, |it| i64::try_from(it).unwrap_or(i64::MAX));
    let kind = which.kind.map(Kind::as_str);
    select(connection, SQL, (profile, names, which.since_ms, count_max, kind))
}

/// The first [`BATCH`] events after that of `id`, oldest first.
pub(crate) fn following(connection: &Connection, id: i64) -> Result<Vec<Event>> {
    const SQL: &str = "SELECT * FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
    select(connection, SQL, (id, i64::try_from(BATCH).unwrap_or(i64::MAX)))
}

fn select(connection: &Connection, sql: &str, parameters: impl Params) -> Result<Vec<Event>> {
    let events = connection
        .prepare_cached(sql)?
        .query_map(parameters, |row| {
            // A damaged value spoils its own cell, and not the whole story.
            let text = |name| {
                let bytes = row.get_ref(name)?.as_bytes_or_null().unwrap_or_default();
                Ok::<_, rusqlite::Error>(
                    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
                )
            };
            let detail = text("detail")?.and_then(|text| serde_json::from_str(&text).ok());
            Ok(Event {
                id: row.get("id")?,
                at_ms: row.get("at_ms").unwrap_or(-1),
                event: text("event")?.unwrap_or_default(),
                profile: text("profile")?,
                kind: text("kind")?,
                instance: row.get("instance_id").unwrap_or(None).map(InstanceId),
                pid: row.get("pid").unwrap_or(None),
                detail: detail.unwrap_or(Value::Null),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(events)
}

/// One row of `events` to be written.
#[derive(Debug, Default)]
pub(crate) struct EventRecord<'a> {
    pub(crate) event: &'static str,
    pub(crate) office: Option<&'a Office>,
    /// Where it is about no office.
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) pid: Option<sys::Pid>,
    pub(crate) detail: Option<Value>,
}

/// Events kept: at a few per incarnation, months of them. Those of runtime statuses come much more
/// often, and push no others out.
const EVENTS_KEPT: i64 = 10_000;

/// Between two prunings of events: each looks at all of them.
const EVENTS_PRUNED_EVERY: i64 = 1_000;

impl Tx<'_> {
    pub(crate) fn record(&self, event: &EventRecord<'_>) -> Result<()> {
        const SQL: &str =
            "INSERT INTO events (at_ms, event, profile, kind, instance_id, pid, detail)
             VALUES (:at_ms, :event, :profile, :kind, :instance_id, :pid, :detail)";
        debug_assert!(Event::NAMES.contains(&event.event), "nobody can ask for {}", event.event);
        self.prepare_cached(SQL)?.execute(named_params! {
            ":at_ms": self.now_ms(),
            ":event": event.event,
            ":profile": event
                .office
                .map(|office| &office.profile)
                .or(event.profile)
                .map(ProfileName::as_str),
            ":kind": event.office.map(|office| office.kind.as_str()),
            ":instance_id": event.instance.map(InstanceId::as_i64),
            ":pid": event.pid,
            ":detail": event.detail.as_ref().map(Value::to_string),
        })?;
        let newest = self.last_insert_rowid();
        if newest % EVENTS_PRUNED_EVERY == 0 {
            self.prune_events(newest)?;
        }
        Ok(())
    }

    fn prune_events(&self, newest: i64) -> Result<()> {
        const OF_STATUS: &str = "('status_changed', 'status_reset', 'platform_changed',
            'platform_removed', 'serves_changed', 'served_by_changed')";
        let sql = format!(
            "DELETE FROM events WHERE id <= ?1 AND (event IN {OF_STATUS} OR id <= (
                 SELECT id FROM events WHERE event NOT IN {OF_STATUS}
                 ORDER BY id DESC LIMIT 1 OFFSET ?2))"
        );
        self.prepare_cached(&sql)?.execute([newest - EVENTS_KEPT, EVENTS_KEPT])?;
        Ok(())
    }
}
