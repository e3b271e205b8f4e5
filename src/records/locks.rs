//! The table `scoped_locks`.
//!
//! A lock's row leans on a row of `instances`, and ends with it; a row that has ended holds
//! nothing, also if an older version ended it. A row without an office that locks are taken from
//! ends with the last of them. Nothing here decides whether that owner lives.
//!
//! A slot of a lock is a row of its own. Questions do not migrate, so that a store of an older
//! version may lack the columns that say so: there they read as absent.

mod follow;
mod slots;

pub(crate) use follow::follow;
pub(crate) use slots::{all_of, in_slots, insert_slot, prepare_of_slots, slots_of};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, named_params};
use serde_json::{Value, json};

use crate::environment::{Fault, planted};
use crate::names::slot::Slot;
use crate::names::{IdentityHash, Scope};
use crate::process::Observer;
use crate::records::events::EventRecord;
use crate::store::{Deferred, Tx};
use crate::{InstanceId, LockName, ProfileName, Reason, Result, liveness, sys};

/// The longest time to live, in milliseconds: a stored lease that lies further ahead was not
/// written by us.
pub(crate) const TTL_MAX_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Whether there are scoped locks at all: a store that an older version made has none, and a
/// question does not migrate it.
pub(crate) fn exists(connection: &Connection) -> Result<bool> {
    Ok(connection.table_exists(None, "scoped_locks")?)
}

/// A row of `scoped_locks`.
#[derive(Clone, Debug)]
pub(crate) struct LockRow {
    pub(crate) name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub(crate) slot: Option<Slot>,
    pub(crate) instance: InstanceId,
    pub(crate) fence: i64,
    pub(crate) acquired_at_ms: i64,
    pub(crate) ttl_ms: Option<i64>,
    lease_until_ms: Option<i64>,
    lease_boot_id: Option<String>,
    pub(crate) metadata: Option<Value>,
}

const COLUMNS: &str = "scope, identity_hash, instance_id, fence, acquired_at_ms, ttl_ms,
    lease_until_ms, lease_boot_id, metadata, slot, slots, slot_of";

/// Those that schema 8 added, and as many absent values.
const OF_SCHEMA_8: &str = "slot, slots, slot_of";
const ABSENT_BEFORE_SCHEMA_8: &str = "NULL, NULL, NULL";

/// Prepares a statement that selects [`COLUMNS`].
fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    if let Some(statement) = prepare_of_slots(connection, sql)? {
        return Ok(statement);
    }
    let sql = sql.replace(OF_SCHEMA_8, ABSENT_BEFORE_SCHEMA_8);
    Ok(connection.prepare_cached(&sql)?)
}

impl LockRow {
    /// By lock, then by slot.
    fn place(&self) -> (&LockName, Option<u32>) {
        (&self.name, self.slot.map(|slot| slot.number))
    }

    /// Expects [`COLUMNS`], in their order. A value that no program of ours could have written
    /// reads as absent; `None` for a row that has no valid name.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let number = |column| {
            let number: Option<i64> = row.get(column)?;
            Ok::<_, rusqlite::Error>(number.and_then(|number| u32::try_from(number).ok()))
        };
        let slot = number(9)?.zip(number(10)?).and_then(|(number, of)| Slot::new(number, of));
        let hash: Option<String> = if slot.is_some() { row.get(11)? } else { None };
        let hash = hash.map_or_else(|| row.get(1), Ok)?;
        let name = match (Scope::new(row.get::<_, String>(0)?), hash) {
            (Ok(scope), hash) => IdentityHash::from_hex(&hash)
                .ok()
                .map(|identity_hash| LockName { scope, identity_hash }),
            (Err(_), _) => None,
        };
        let Some(name) = name else { return Ok(None) };
        let metadata: Option<String> = row.get(8)?;
        Ok(Some(Self {
            name,
            slot,
            instance: InstanceId(row.get(2)?),
            fence: row.get(3)?,
            acquired_at_ms: row.get(4)?,
            ttl_ms: row.get(5)?,
            lease_until_ms: row.get(6)?,
            lease_boot_id: row.get(7)?,
            metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
        }))
    }

    /// How much of the lease is left, by the clock of `observer`: 0 once it is over. `None` without
    /// a lease, and for a time that no program of ours could have written: unknown is never fresh,
    /// and never over either.
    pub(crate) fn lease_remaining_ms(&self, observer: &Observer, now_boot_ms: i64) -> Option<i64> {
        let until_ms = self.lease_until_ms.filter(|until_ms| *until_ms >= 0)?;
        // It began in our future: the machine was restarted since. Boot ids that differ or are
        // hidden are doubt (FIELD-BUGS row 91), and then the clock decides as within one boot.
        let began_ms = until_ms.saturating_sub(self.ttl_ms.unwrap_or(0));
        if self.lease_boot_id != observer.boot_id && began_ms > now_boot_ms {
            return Some(0);
        }
        let remaining_ms = until_ms.saturating_sub(now_boot_ms);
        (remaining_ms <= TTL_MAX_MS).then_some(remaining_ms.max(0))
    }

    /// The lease as evidence.
    pub(crate) fn lease(&self, observer: &Observer, now_boot_ms: i64) -> liveness::Lease {
        match self.lease_remaining_ms(observer, now_boot_ms) {
            None => liveness::Lease::None,
            Some(0) => liveness::Lease::Expired,
            Some(_) => liveness::Lease::Current,
        }
    }
}

/// The lock without slots, or its first slot.
pub(crate) fn by_name(connection: &Connection, name: &LockName) -> Result<Option<LockRow>> {
    let sql = format!("SELECT {COLUMNS} FROM scoped_locks WHERE scope = ?1 AND identity_hash = ?2");
    let row = prepare(connection, &sql)?
        .query_row((name.scope.as_str(), name.identity_hash.as_str()), LockRow::from_row)
        .optional()?;
    Ok(row.flatten())
}

/// The fence of the grant that stands in the place of this one.
pub(crate) fn fence_at(
    connection: &Connection,
    name: &LockName,
    slot: Option<Slot>,
) -> Result<Option<i64>> {
    let stored = name.stored(slot);
    let fence = connection
        .prepare_cached("SELECT fence FROM scoped_locks WHERE scope = ?1 AND identity_hash = ?2")?
        .query_row((stored.scope.as_str(), stored.identity_hash.as_str()), |row| row.get(0))
        .optional()?;
    Ok(fence)
}

/// The fence of whoever is on record as holding a lock; of several, the sum of theirs. A row that
/// ended holds nothing, also where an older version, which knows nothing of locks, ended it.
pub(crate) fn current_fence(connection: &Connection, name: &LockName) -> Result<Option<i64>> {
    // At most 64 of them, none above 2^53.
    const SQL: &str = "SELECT sum(fence) FROM scoped_locks
         JOIN instances ON instances.id = instance_id
         WHERE scope = ?1 AND identity_hash = ?2 AND ended_at_ms IS NULL";
    let sql = SQL.replace("identity_hash = ?2", "(identity_hash = ?2 OR slot_of = ?2)");
    let mut statement = match prepare_of_slots(connection, &sql)? {
        Some(statement) => statement,
        None => connection.prepare_cached(SQL)?,
    };
    let names = (name.scope.as_str(), name.identity_hash.as_str());
    Ok(statement.query_row(names, |row| row.get(0))?)
}

/// The same, as seen by whoever was refused for the lock `row`: with those of its slots that are
/// dead and do not make room.
pub(crate) fn watched_fence(connection: &Connection, row: &LockRow) -> Result<i64> {
    Ok(match row.slot {
        Some(_) => current_fence(connection, &row.name)?.unwrap_or_default(),
        None => row.fence,
    })
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<LockRow>> {
    if !exists(connection)? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT {COLUMNS} FROM scoped_locks ORDER BY scope, identity_hash");
    let mut rows = select(connection, &sql, [])?;
    // The slots of one lock together.
    rows.sort_by(|one, other| one.place().cmp(&other.place()));
    Ok(rows)
}

/// The locks that were taken from one row.
pub(crate) fn of_instance(connection: &Connection, instance: InstanceId) -> Result<Vec<LockRow>> {
    if !exists(connection)? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM scoped_locks WHERE instance_id = ?1 ORDER BY scope, identity_hash"
    );
    select(connection, &sql, [instance.as_i64()])
}

/// Some of the locks that were taken from one row.
pub(crate) fn some_of_instance(
    connection: &Connection,
    instance: InstanceId,
    limit: usize,
) -> Result<Vec<LockRow>> {
    if !exists(connection)? {
        return Ok(Vec::new());
    }
    let whose = if planted(Fault::ReleaseUnfiltered) { "?1" } else { "instance_id = ?1" };
    let sql = format!("SELECT {COLUMNS} FROM scoped_locks WHERE {whose} LIMIT ?2");
    select(connection, &sql, (instance.as_i64(), i64::try_from(limit).unwrap_or(i64::MAX)))
}

/// How many locks were taken from one row.
pub(crate) fn count_of_instance(connection: &Connection, instance: InstanceId) -> Result<usize> {
    if !exists(connection)? {
        return Ok(0);
    }
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM scoped_locks WHERE instance_id = ?1")?
        .query_row([instance.as_i64()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Whether any lock of a row has a lease.
pub(crate) fn has_lease(connection: &Connection, instance: InstanceId) -> Result<bool> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM scoped_locks WHERE instance_id = ?1 AND lease_until_ms IS NOT NULL",
        )?
        .exists([instance.as_i64()])?)
}

/// The rows that locks were taken from, also those that have ended.
pub(crate) fn owners(connection: &Connection) -> Result<Vec<InstanceId>> {
    if !exists(connection)? {
        return Ok(Vec::new());
    }
    let owners = connection
        .prepare_cached("SELECT DISTINCT instance_id FROM scoped_locks ORDER BY instance_id")?
        .query_map([], |row| row.get(0).map(InstanceId))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(owners)
}

fn select(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<LockRow>> {
    let rows: Vec<Option<LockRow>> = prepare(connection, sql)?
        .query_map(parameters, LockRow::from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// A lock to be written. `metadata` and `ttl_ms` are what the owner asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLock<'a> {
    pub(crate) name: &'a LockName,
    pub(crate) instance: InstanceId,
    pub(crate) metadata: Option<&'a Value>,
    pub(crate) ttl_ms: Option<i64>,
}

/// Inserts a lock that nobody holds; returns its fence.
pub(crate) fn insert(
    tx: &Tx<'_>,
    lock: &NewLock<'_>,
    observer: &Observer,
    now_boot_ms: i64,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence,
            acquired_at_ms, ttl_ms, lease_until_ms, lease_boot_id, metadata)
         VALUES (:scope, :identity_hash, :instance_id, :fence, :acquired_at_ms, :ttl_ms,
            :lease_until_ms, :lease_boot_id, :metadata)";
    let fence = tx.draw_id()?;
    tx.prepare_cached(SQL)?.execute(named_params! {
        ":scope": lock.name.scope.as_str(),
        ":identity_hash": lock.name.identity_hash.as_str(),
        ":instance_id": lock.instance.as_i64(),
        ":fence": fence,
        ":acquired_at_ms": tx.now_ms(),
        ":ttl_ms": lock.ttl_ms,
        ":lease_until_ms": lock.ttl_ms.map(|ttl_ms| now_boot_ms.saturating_add(ttl_ms)),
        ":lease_boot_id": lock.ttl_ms.and(observer.boot_id.as_deref()),
        ":metadata": lock.metadata.map(Value::to_string),
    })?;
    Ok(fence)
}

/// Acquired again by its holder: the fence stays, metadata and lease are what was asked for now.
pub(crate) fn replace(
    tx: &Tx<'_>,
    lock: &NewLock<'_>,
    slot: Option<Slot>,
    observer: &Observer,
    now_boot_ms: i64,
) -> Result<()> {
    let stored = lock.name.stored(slot);
    tx.prepare_cached(
        "UPDATE scoped_locks SET metadata = :metadata, ttl_ms = :ttl_ms,
            lease_until_ms = :lease_until_ms, lease_boot_id = :lease_boot_id,
            renewed_at_ms = :now_ms
         WHERE scope = :scope AND identity_hash = :identity_hash",
    )?
    .execute(named_params! {
        ":scope": stored.scope.as_str(),
        ":identity_hash": stored.identity_hash.as_str(),
        ":metadata": lock.metadata.map(Value::to_string),
        ":ttl_ms": lock.ttl_ms,
        ":lease_until_ms": lock.ttl_ms.map(|ttl_ms| now_boot_ms.saturating_add(ttl_ms)),
        ":lease_boot_id": lock.ttl_ms.and(observer.boot_id.as_deref()),
        ":now_ms": tx.now_ms(),
    })?;
    Ok(())
}

/// Renews the lease of a lock that still has this fence; false when somebody else got it. A lock
/// without a lease only notes when.
pub(crate) fn renew(
    tx: &Tx<'_>,
    name: &LockName,
    slot: Option<Slot>,
    fence: i64,
    observer: &Observer,
    now_boot_ms: i64,
) -> Result<bool> {
    let stored = name.stored(slot);
    let changed = tx
        .prepare_cached(
            "UPDATE scoped_locks SET renewed_at_ms = :now_ms,
                lease_until_ms = :now_boot_ms + ttl_ms,
                lease_boot_id = CASE WHEN ttl_ms IS NULL THEN NULL ELSE :boot_id END
             WHERE scope = :scope AND identity_hash = :identity_hash AND fence = :fence
               AND EXISTS (SELECT 1 FROM instances
                   WHERE instances.id = instance_id AND ended_at_ms IS NULL)",
        )?
        .execute(named_params! {
            ":scope": stored.scope.as_str(),
            ":identity_hash": stored.identity_hash.as_str(),
            ":fence": fence,
            ":now_ms": tx.now_ms(),
            ":now_boot_ms": now_boot_ms,
            ":boot_id": observer.boot_id,
        })?;
    Ok(changed == 1)
}

/// Why a lock ended, and who did it.
#[derive(Clone, Debug)]
pub(crate) struct LockEnd<'a> {
    pub(crate) reason: Reason,
    pub(crate) by: Option<&'a str>,
}

/// Ends a lock that still has this fence; false when it has ended already.
pub(crate) fn end(
    tx: &Tx<'_>,
    name: &LockName,
    slot: Option<Slot>,
    fence: i64,
    how: &LockEnd<'_>,
) -> Result<bool> {
    let stored = name.stored(slot);
    let instance: Option<i64> = tx
        .prepare_cached(
            "DELETE FROM scoped_locks WHERE scope = ?1 AND identity_hash = ?2 AND fence = ?3
             RETURNING instance_id",
        )?
        .query_row((stored.scope.as_str(), stored.identity_hash.as_str(), fence), |row| row.get(0))
        .optional()?;
    let Some(instance) = instance else { return Ok(false) };
    record_end(tx, name, slot, InstanceId(instance), fence, how)?;
    Ok(true)
}

/// How many locks one transaction ends: each costs some 20 µs, and while it lasts nobody else can
/// claim anything.
pub(crate) const ENDED_AT_ONCE: usize = 500;

/// Ends locks that were taken from one row, at most [`ENDED_AT_ONCE`]; how many those were. With
/// fewer than that none is left.
pub(crate) fn end_some_of(tx: &Tx<'_>, instance: InstanceId, how: &LockEnd<'_>) -> Result<usize> {
    let locks = some_of_instance(tx, instance, ENDED_AT_ONCE)?;
    for lock in &locks {
        end(tx, &lock.name, lock.slot, lock.fence, how)?;
    }
    Ok(locks.len())
}

/// The release of one lock.
#[derive(Debug)]
pub(crate) struct LockRelease {
    pub(crate) name: LockName,
    pub(crate) slot: Option<Slot>,
    pub(crate) fence: i64,
}

impl Deferred for LockRelease {
    fn write(&self, tx: &Tx<'_>) -> Result<()> {
        // A store that was restored from before there were locks has none to end.
        if exists(tx)? {
            let how = LockEnd { reason: Reason::Released, by: None };
            end(tx, &self.name, self.slot, self.fence, &how)?;
        }
        Ok(())
    }
}

/// Ends locks that the end of their row has left, as that row ended; whether there may be more.
/// They are nobody's by then: a row that has ended holds nothing.
pub(crate) fn end_left_of(tx: &Tx<'_>, instance: InstanceId) -> Result<bool> {
    let ended: Option<(Option<String>, Option<String>)> = tx
        .prepare_cached(
            "SELECT end_reason, ended_by FROM instances WHERE id = ?1 AND ended_at_ms IS NOT NULL",
        )?
        .query_row([instance.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((reason, by)) = ended else { return Ok(false) };
    let how = LockEnd { reason: Reason::from(reason.unwrap_or_default()), by: by.as_deref() };
    Ok(end_some_of(tx, instance, &how)? == ENDED_AT_ONCE)
}

fn record_end(
    tx: &Tx<'_>,
    name: &LockName,
    slot: Option<Slot>,
    instance: InstanceId,
    fence: i64,
    how: &LockEnd<'_>,
) -> Result<()> {
    let owner: Option<(Option<String>, Option<sys::Pid>)> = tx
        .prepare_cached("SELECT profile, pid FROM instances WHERE id = ?1")?
        .query_row([instance.as_i64()], |row| Ok((row.get(0)?, row.get(1).unwrap_or_default())))
        .optional()?;
    let (profile, pid) = owner.unwrap_or_default();
    let profile = profile.and_then(|profile| ProfileName::new(profile).ok());
    let mut detail = json!({
        "scope": name.scope.as_str(),
        "identity_hash": name.identity_hash.as_str(),
        "fence": fence,
        "reason": how.reason,
        "by": how.by,
    });
    Slot::tell(slot, &mut detail);
    tx.record(&EventRecord {
        event: LOCK_ENDED,
        profile: profile.as_ref(),
        instance: Some(instance),
        pid,
        detail: Some(detail),
        ..EventRecord::default()
    })
}

const LOCK_ENDED: &str = "lock_ended";

/// Whether the store knows of the grant with this fence, of an office or a lock, also if it has
/// ended.
pub(crate) fn was_granted(connection: &Connection, fence: i64) -> Result<bool> {
    let known = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM instances WHERE id = ?1)
                 OR EXISTS (SELECT 1 FROM scoped_locks WHERE fence = ?1)
                 OR EXISTS (SELECT 1 FROM events WHERE event = ?2
                            AND json_extract(detail, '$.fence') = ?1)",
        )?
        .query_row((fence, LOCK_ENDED), |row| row.get(0))?;
    Ok(known)
}

/// Whether the store has drawn fences as high as this one.
pub(crate) fn is_drawn(connection: &Connection, fence: i64) -> Result<bool> {
    let is_drawn = connection
        .prepare_cached("SELECT value >= ?1 FROM meta WHERE key = 'last_id'")?
        .query_row([fence], |row| row.get(0))?;
    Ok(is_drawn)
}

/// How the lock with this fence ended, while the events of that time are kept: reason, by.
pub(crate) fn how_it_ended(
    connection: &Connection,
    instance: InstanceId,
    fence: i64,
) -> Result<Option<(Reason, Option<String>)>> {
    let ended = connection
        .prepare_cached(
            "SELECT json_extract(detail, '$.reason'), json_extract(detail, '$.by') FROM events
             WHERE event = ?1 AND instance_id = ?2 AND json_extract(detail, '$.fence') = ?3
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row((LOCK_ENDED, instance.as_i64(), fence), |row| {
            Ok((row.get::<_, Option<String>>(0)?.unwrap_or_default().into(), row.get(1)?))
        })
        .optional()?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::Lease;

    /// The whole product of what a stored lease can look like.
    #[test]
    fn a_lease_is_over_only_by_a_clock_that_we_share() {
        const NOW_MS: i64 = 1_000_000;
        let observer = |boot_id: Option<&str>| Observer {
            boot_id: boot_id.map(str::to_owned),
            ..Observer::new()
        };
        let row = |until_ms: Option<i64>, boot_id: Option<&str>| LockRow {
            name: LockName::new("scope", "identity").unwrap(),
            slot: None,
            instance: InstanceId(1),
            fence: 2,
            acquired_at_ms: 0,
            ttl_ms: until_ms.map(|_| 1),
            lease_until_ms: until_ms,
            lease_boot_id: boot_id.map(str::to_owned),
            metadata: None,
        };
        for (until_ms, theirs, ours, remaining_ms, lease) in [
            (None, None, Some("a"), None, Lease::None),
            (Some(NOW_MS + 5), Some("a"), Some("a"), Some(5), Lease::Current),
            (Some(NOW_MS), Some("a"), Some("a"), Some(0), Lease::Expired),
            (Some(NOW_MS - 5), Some("a"), Some("a"), Some(0), Lease::Expired),
            (Some(NOW_MS - 5), None, None, Some(0), Lease::Expired),
            // It began in our future: that clock is gone.
            (Some(NOW_MS + 5), Some("a"), Some("b"), Some(0), Lease::Expired),
            (Some(NOW_MS + 5), Some("a"), None, Some(0), Lease::Expired),
            // A boot id that differs or is hidden is doubt, and the clock decides (FIELD-BUGS row
            // 91).
            (Some(NOW_MS + 1), Some("a"), Some("b"), Some(1), Lease::Current),
            (Some(NOW_MS + 1), None, Some("a"), Some(1), Lease::Current),
            (Some(NOW_MS - 5), None, Some("a"), Some(0), Lease::Expired),
            // Times that no program of ours has written.
            (Some(-1), Some("a"), Some("a"), None, Lease::None),
            (Some(NOW_MS + TTL_MAX_MS), Some("a"), Some("a"), Some(TTL_MAX_MS), Lease::Current),
            (Some(NOW_MS + TTL_MAX_MS + 1), Some("a"), Some("a"), None, Lease::None),
            (Some(i64::MAX), Some("a"), Some("a"), None, Lease::None),
        ] {
            let (row, observer) = (row(until_ms, theirs), observer(ours));
            let case = format!("{until_ms:?} {theirs:?} {ours:?}");
            assert_eq!(row.lease_remaining_ms(&observer, NOW_MS), remaining_ms, "{case}");
            assert_eq!(row.lease(&observer, NOW_MS), lease, "{case}");
        }
    }
}
