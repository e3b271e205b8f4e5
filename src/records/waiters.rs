//! The rows of those who wait for an office or a lock: all SQL of `waiters`.
//!
//! A waiter is an instance of its own, with an anchor; its row here says what it waits for, for
//! others to see. It decides nothing.

use std::borrow::Cow;

use rusqlite::Connection;
use serde_json::json;

use crate::records::events::EventRecord;
use crate::records::locks;
use crate::store::Tx;
use crate::{InstanceId, Kind, Office, ProfileName, Result, Wanted, sys};

/// The columns that say what is waited for: kind, scope, identity hash.
fn columns(wanted: &Wanted) -> (Option<&str>, Option<&str>, Option<&str>) {
    match wanted {
        Wanted::Office(office) => (Some(Kind::as_str(&office.kind)), None, None),
        Wanted::Lock(name) => (None, Some(name.scope.as_str()), Some(name.identity_hash.as_str())),
    }
}

pub(crate) fn insert(
    tx: &Tx<'_>,
    instance: InstanceId,
    pid: sys::Pid,
    profile: Option<&ProfileName>,
    wanted: &Wanted,
) -> Result<()> {
    let (kind, scope, identity_hash) = columns(wanted);
    tx.prepare_cached(
        "INSERT INTO waiters (instance_id, profile, kind, scope, identity_hash, since_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        instance.as_i64(),
        profile.map(ProfileName::as_str),
        kind,
        scope,
        identity_hash,
        tx.now_ms(),
    ))?;
    let (event, office) = match wanted {
        Wanted::Office(office) => ("office_awaited", Some(office)),
        Wanted::Lock(_) => ("lock_awaited", None),
    };
    tx.record(&EventRecord {
        event,
        office,
        profile,
        instance: Some(instance),
        pid: Some(pid),
        detail: scope.map(|scope| json!({"scope": scope, "identity_hash": identity_hash})),
    })
}

/// Of several things that are wanted together, this one stands in the way now.
pub(crate) fn change(tx: &Tx<'_>, instance: InstanceId, wanted: &Wanted) -> Result<()> {
    let (kind, scope, identity_hash) = columns(wanted);
    tx.prepare_cached(
        "UPDATE waiters SET kind = ?2, scope = ?3, identity_hash = ?4 WHERE instance_id = ?1",
    )?
    .execute((instance.as_i64(), kind, scope, identity_hash))?;
    Ok(())
}

pub(crate) fn remove(tx: &Tx<'_>, instance: InstanceId) -> Result<()> {
    tx.prepare_cached("DELETE FROM waiters WHERE instance_id = ?1")?
        .execute([instance.as_i64()])?;
    Ok(())
}

/// The anchors of those who are on record as waiting for a lock of `profile`.
pub(crate) fn anchors(connection: &Connection, profile: &ProfileName) -> Result<Vec<String>> {
    let anchors = connection
        .prepare_cached(
            "SELECT anchor FROM waiters JOIN instances ON instances.id = instance_id
             WHERE scope IS NOT NULL AND waiters.profile = ?1 AND anchor IS NOT NULL",
        )?
        .query_map([profile.as_str()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(anchors)
}

/// Who is on record as waiting for `wanted`, and since when (Unix milliseconds), the longest first.
pub(crate) fn of(connection: &Connection, wanted: &Wanted) -> Result<Vec<(InstanceId, i64)>> {
    const OF_LOCK: &str = "SELECT instance_id, since_at_ms FROM waiters
         WHERE scope = ?1 AND identity_hash = ?2 ORDER BY since_at_ms, instance_id";
    const OF_OFFICE: &str = "SELECT instance_id, since_at_ms FROM waiters
         WHERE profile = ?1 AND kind = ?2 AND scope IS NULL ORDER BY since_at_ms, instance_id";
    let (sql, first, second) = match wanted {
        Wanted::Lock(name) => {
            (Cow::Borrowed(OF_LOCK), name.scope.as_str(), name.identity_hash.as_str())
        }
        // Before there were locks, all waited for offices.
        Wanted::Office(Office { profile, kind }) if !locks::exists(connection)? => {
            let sql = OF_OFFICE.replace("AND scope IS NULL ", "");
            (Cow::Owned(sql), profile.as_str(), kind.as_str())
        }
        Wanted::Office(Office { profile, kind }) => {
            (Cow::Borrowed(OF_OFFICE), profile.as_str(), kind.as_str())
        }
    };
    let waiters = connection
        .prepare_cached(&sql)?
        .query_map((first, second), |row| Ok((InstanceId(row.get(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(waiters)
}
