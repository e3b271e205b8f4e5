//! Looks markers up.

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::environment::{Fault, planted};
use crate::names::MarkerName;
use crate::records::markers::{Addressee, COLUMNS, COUNTS, Closed, Marker, ProcessKey, TTL_MAX_MS};
use crate::store::BootTime;
use crate::{InstanceId, Office, Result, sys};

/// With the fault that is planted here: one for another is as good as one for us.
fn takes_any() -> bool {
    planted(Fault::MarkerOfAnother)
}

/// The markers for one generation that have not expired, as far as `which` selects them.
fn of_instance(
    connection: &Connection,
    now: BootTime<'_>,
    instance: InstanceId,
    which: &str,
) -> Result<Vec<Marker>> {
    let whose = if takes_any() { ":instance_id" } else { "instance_id = :instance_id" };
    let sql = format!("SELECT {COLUMNS} FROM markers WHERE {whose} AND {COUNTS} AND {which}");
    let markers = connection
        .prepare_cached(&sql)?
        .query_map(
            named_params! {
                ":instance_id": instance.as_i64(),
                ":boot_id": now.boot_id,
                ":wall_less_boot": now.wall_less_boot_ms(),
                ":now": if planted(Fault::MarkerNeverExpires) { 0 } else { now.ms },
                ":latest": now.ms.saturating_add(TTL_MAX_MS),
            },
            Marker::from_row,
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(markers.into_iter().flatten().collect())
}

/// The open markers for a process that is on record nowhere.
fn open_for_process(
    connection: &Connection,
    now: BootTime<'_>,
    process: &ProcessKey,
) -> Result<Vec<Marker>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM markers
         WHERE pid = :pid AND closed_at_ms IS NULL AND instance_id IS NULL
           AND start_time = :start_time AND (pid_ns IS :pid_ns OR pid_ns IS NULL)
           AND {COUNTS}"
    );
    let markers = connection
        .prepare_cached(&sql)?
        .query_map(
            named_params! {
                ":pid": process.pid,
                ":start_time": process.start_time.map(|time| time.value),
                ":pid_ns": process.pid_ns,
                ":boot_id": now.boot_id,
                ":wall_less_boot": now.wall_less_boot_ms(),
                ":now": now.ms,
                ":latest": now.ms.saturating_add(TTL_MAX_MS),
            },
            Marker::from_row,
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(markers.into_iter().flatten().collect())
}

/// The oldest open marker for `addressee`, of this name or of any; requests come first.
pub(crate) fn find(
    connection: &Connection,
    now: BootTime<'_>,
    addressee: &Addressee,
    name: Option<&MarkerName>,
) -> Result<Option<Marker>> {
    let mut found = Vec::new();
    for instance in &addressee.instances {
        found.append(&mut open_for(connection, now, *instance)?);
    }
    if let Some(process) = &addressee.process {
        found.append(&mut open_for_process(connection, now, process)?);
    }
    Ok(found
        .into_iter()
        .filter(|marker| name.is_none_or(|name| marker.name == *name))
        .min_by_key(|marker| (!marker.name.is_request(), marker.id)))
}

/// Whether [`find`] may find something, now or at another time.
pub(crate) fn any_open(connection: &Connection, addressee: &Addressee) -> Result<bool> {
    const FOR_INSTANCE: &str =
        "SELECT 1 FROM markers WHERE instance_id = ?1 AND closed_at_ms IS NULL";
    const FOR_PROCESS: &str = "SELECT 1 FROM markers
         WHERE pid = ?1 AND closed_at_ms IS NULL AND instance_id IS NULL";
    if takes_any() {
        return Ok(true);
    }
    for instance in &addressee.instances {
        if connection.prepare_cached(FOR_INSTANCE)?.exists([instance.as_i64()])? {
            return Ok(true);
        }
    }
    let Some(process) = &addressee.process else { return Ok(false) };
    Ok(connection.prepare_cached(FOR_PROCESS)?.exists([process.pid])?)
}

/// Whether a marker is still open.
pub(crate) fn is_open(connection: &Connection, id: i64) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM markers WHERE id = ?1 AND closed_at_ms IS NULL")?
        .exists([id])?)
}

/// The open markers whose target may have been `pid`, whatever has become of it: for clearing what
/// nobody will ever consume. Of another pid namespace only what its target has left behind: there
/// the number may be a living gateway's.
pub(crate) fn open_by_pid(
    connection: &Connection,
    pid: sys::Pid,
    pid_ns: Option<&str>,
    instances: &[InstanceId],
    name: &MarkerName,
) -> Result<Vec<i64>> {
    let rows: Vec<(i64, Option<i64>, i64, bool)> = connection
        .prepare_cached(
            "SELECT m.id, m.instance_id, m.pid,
                    m.pid_ns IS ?2 OR m.pid_ns IS NULL
                    OR m.instance_id IS NOT NULL AND (i.id IS NULL OR i.ended_at_ms IS NOT NULL)
             FROM markers AS m LEFT JOIN instances AS i ON i.id = m.instance_id
             WHERE m.closed_at_ms IS NULL AND m.name = ?1",
        )?
        .query_map((name.as_str(), pid_ns), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows
        .into_iter()
        .filter(|(_, instance, recorded, is_near)| {
            (*recorded == i64::from(pid) && *is_near)
                || instance.is_some_and(|id| instances.contains(&InstanceId(id)))
        })
        .map(|(id, ..)| id)
        .collect())
}

/// The open markers for one generation that have not expired, the oldest first.
pub(crate) fn open_for(
    connection: &Connection,
    now: BootTime<'_>,
    instance: InstanceId,
) -> Result<Vec<Marker>> {
    of_instance(connection, now, instance, "closed_at_ms IS NULL ORDER BY id")
}

/// All open markers that have not expired, the oldest first.
pub(crate) fn all_open(connection: &Connection, now: BootTime<'_>) -> Result<Vec<Marker>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM markers
         WHERE closed_at_ms IS NULL AND {COUNTS}
           AND (instance_id IS NULL OR EXISTS (
               SELECT 1 FROM instances AS i WHERE i.id = instance_id AND i.ended_at_ms IS NULL))
         ORDER BY id LIMIT 100"
    );
    let markers: Vec<Option<Marker>> = connection
        .prepare_cached(&sql)?
        .query_map(
            named_params! {
                ":boot_id": now.boot_id,
                ":wall_less_boot": now.wall_less_boot_ms(),
                ":now": now.ms,
                ":latest": now.ms.saturating_add(TTL_MAX_MS),
            },
            Marker::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(markers.into_iter().flatten().collect())
}

/// The open marker of this name for a generation, or else for another one of its profile.
pub(crate) fn open_in_office(
    connection: &Connection,
    now: BootTime<'_>,
    instance: InstanceId,
    office: &Office,
    name: &MarkerName,
) -> Result<Option<Marker>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM markers
         WHERE name = :name AND closed_at_ms IS NULL AND {COUNTS}
           AND instance_id IN (SELECT id FROM instances WHERE profile = :profile)
         ORDER BY instance_id = :instance_id DESC, id DESC LIMIT 1"
    );
    let marker = connection
        .prepare_cached(&sql)?
        .query_row(
            named_params! {
                ":name": name.as_str(),
                ":profile": office.profile.as_str(),
                ":instance_id": instance.as_i64(),
                ":boot_id": now.boot_id,
                ":wall_less_boot": now.wall_less_boot_ms(),
                ":now": now.ms,
                ":latest": now.ms.saturating_add(TTL_MAX_MS),
            },
            Marker::from_row,
        )
        .optional()?;
    Ok(marker.flatten())
}

/// The takeover or planned stop that was asked of a generation: still open, or consumed by it.
pub(crate) fn asked_end(
    connection: &Connection,
    now: BootTime<'_>,
    instance: InstanceId,
) -> Result<Option<Marker>> {
    const WHICH: &str = "name IN ('takeover', 'planned_stop')
         AND (closed_at_ms IS NULL OR closed_how = 'consumed') ORDER BY id DESC LIMIT 1";
    Ok(of_instance(connection, now, instance, WHICH)?.pop())
}

/// The restart that was asked of a generation and that no `run` has served yet. Consuming it does
/// not serve it: the command of a `run` may want to know why it is being stopped.
pub(crate) fn unserved_restart(
    connection: &Connection,
    now: BootTime<'_>,
    instance: InstanceId,
) -> Result<Option<Marker>> {
    const WHICH: &str = "name = 'restart' AND served_at_ms IS NULL
         AND (closed_at_ms IS NULL OR closed_how = 'consumed') ORDER BY id LIMIT 1";
    Ok(of_instance(connection, now, instance, WHICH)?.pop())
}

/// What became of a request, for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) served: bool,
    pub(crate) consumed: bool,
    pub(crate) closed: bool,
}

pub(crate) fn fate(connection: &Connection, id: i64) -> Result<Option<Fate>> {
    Ok(connection
        .prepare_cached("SELECT served_at_ms IS NOT NULL, closed_how FROM markers WHERE id = ?1")?
        .query_row([id], |row| {
            let closed: Option<String> = row.get(1)?;
            Ok(Fate {
                served: row.get(0)?,
                consumed: closed.as_deref() == Some(Closed::Consumed.as_str()),
                closed: closed.is_some(),
            })
        })
        .optional()?)
}
