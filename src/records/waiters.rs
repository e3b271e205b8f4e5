//! The rows of those who wait for an office or a lock: all SQL of `waiters`.
//!
//! A waiter is an instance of its own, with an anchor; its row here says what it waits for, for
//! others to see. It decides nothing.

use rusqlite::{Connection, Params};
use serde_json::json;

use crate::names::{IdentityHash, Scope};
use crate::records::events::EventRecord;
use crate::records::{Record, instances, locks};
use crate::store::Tx;
use crate::{InstanceId, Kind, LockName, Office, ProfileName, Result, Wanted, sys};

/// The columns that say what is waited for: kind, scope, identity hash. The row of a claim that
/// waits for a lock has the kind of its office as well.
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
    claimed: Option<&Kind>,
    wanted: &Wanted,
) -> Result<()> {
    let (kind, scope, identity_hash) = columns(wanted);
    let kind = kind.or(claimed.map(Kind::as_str));
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
        "UPDATE waiters SET kind = coalesce(?2, kind), scope = ?3, identity_hash = ?4
         WHERE instance_id = ?1",
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

/// Somebody on record as waiting, who may be dead by now.
#[derive(Clone, Debug)]
pub(crate) struct WaiterRow {
    pub(crate) record: Record,
    /// The office that is claimed, if one is.
    pub(crate) office: Option<Office>,
    /// The lock that is waited for; `None`: the office.
    pub(crate) lock: Option<LockName>,
    /// Unix milliseconds, wall time.
    pub(crate) since_ms: i64,
}

/// All who are on record as waiting, the longest first.
pub(crate) fn all(connection: &Connection) -> Result<Vec<WaiterRow>> {
    rows(connection, &selection(connection)?, [])
}

/// The same of those who claim this office, and wait for it or for a lock.
pub(crate) fn of_office(connection: &Connection, office: &Office) -> Result<Vec<WaiterRow>> {
    let sql = selection(connection)? + " WHERE profile = ?1 AND kind = ?2";
    rows(connection, &sql, (office.profile.as_str(), office.kind.as_str()))
}

fn selection(connection: &Connection) -> Result<String> {
    // Before there were locks, all waited for offices.
    let of_lock = if locks::exists(connection)? { "scope, identity_hash" } else { "NULL, NULL" };
    Ok(format!("SELECT instance_id, profile, kind, since_at_ms, {of_lock} FROM waiters"))
}

/// The same of those who wait for this lock.
pub(crate) fn of_lock(connection: &Connection, name: &LockName) -> Result<Vec<WaiterRow>> {
    const SQL: &str = "SELECT instance_id, profile, kind, since_at_ms, scope, identity_hash
         FROM waiters WHERE scope = ?1 AND identity_hash = ?2";
    rows(connection, SQL, (name.scope.as_str(), name.identity_hash.as_str()))
}

fn rows(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<WaiterRow>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    let mut waiters = Vec::new();
    while let Some(row) = found.next()? {
        let id = InstanceId(row.get(0)?);
        let Some(record) = instances::by_id(connection, id)?.filter(Record::is_live) else {
            continue;
        };
        // Names that no program of ours writes are nobody's.
        let text = |index| row.get::<_, Option<String>>(index).unwrap_or(None);
        let office = text(1).zip(text(2)).and_then(|(profile, kind)| {
            Some(Office { profile: ProfileName::new(profile).ok()?, kind: Kind::new(kind).ok()? })
        });
        let lock = text(4).zip(text(5)).and_then(|(scope, hash)| {
            let identity_hash = IdentityHash::from_hex(&hash).ok()?;
            Some(LockName { scope: Scope::new(scope).ok()?, identity_hash })
        });
        if office.is_some() || lock.is_some() {
            waiters.push(WaiterRow { record, office, lock, since_ms: row.get(3)? });
        }
    }
    waiters.sort_by_key(|waiter| (waiter.since_ms, waiter.record.id));
    Ok(waiters)
}
