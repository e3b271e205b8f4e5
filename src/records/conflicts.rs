//! The tables `conflicts` and `lock_conflicts`: who wanted what another one held, counted, so that
//! a loop of 50,000 refusals is one row with that count.

use rusqlite::{Connection, OptionalExtension, named_params};
use serde::Serialize;
use serde_json::json;

use crate::clock::as_rfc3339;
use crate::names::{IdentityHash, Scope};
use crate::process::Subject;
use crate::records::events::EventRecord;
use crate::store::Tx;
use crate::{InstanceId, LockName, Office, ProfileName, Result, sys};

/// Contenders remembered for each office and lock: the latest, in the order of their holders. The
/// wall clock alone forgets nobody, see [`prune_history`](super::instances::prune::prune_history).
pub(crate) const KEPT: i64 = 64;

/// One contender that a holder's presence refused: one entry however often. In JSON an object with
/// these fields, the times as `first_at` and `last_at` (RFC 3339, UTC, milliseconds); later
/// versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Conflict {
    /// The contender's profile, if it has one.
    pub profile: Option<String>,
    /// Its last pid, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// When it was refused first: Unix milliseconds, wall time.
    #[serde(rename = "first_at", serialize_with = "as_rfc3339")]
    pub first_at_ms: i64,
    /// When it was refused last: Unix milliseconds, wall time.
    #[serde(rename = "last_at", serialize_with = "as_rfc3339")]
    pub last_at_ms: i64,
    /// How often.
    pub count: u64,
}

/// Who was refused by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) holder: InstanceId,
    pub(crate) reason: &'a str,
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) party: Option<&'a str>,
    pub(crate) pid: sys::Pid,
}

/// Keeps the latest contenders of a lock, and none of a holder whose own record is gone.
pub(super) fn prune_conflicts(tx: &Tx<'_>, name: &LockName) -> Result<()> {
    tx.prepare_cached(
        "DELETE FROM lock_conflicts
         WHERE holder_id NOT IN (SELECT id FROM instances) OR (
             scope = :scope AND identity_hash = :identity_hash
             AND (holder_id, last_at_ms) < (
                 SELECT holder_id, last_at_ms FROM lock_conflicts
                 WHERE scope = :scope AND identity_hash = :identity_hash
                 ORDER BY holder_id DESC, last_at_ms DESC LIMIT 1 OFFSET :kept))",
    )?
    .execute(named_params! {
        ":scope": name.scope.as_str(),
        ":identity_hash": name.identity_hash.as_str(),
        ":kept": KEPT,
    })?;
    Ok(())
}

/// Who wanted what from whom: one row however often, so that a loop of refusals stays readable.
pub(super) fn count_conflict(
    tx: &Tx<'_>,
    office: &Office,
    subject: &Subject,
    holder: InstanceId,
    reason: &str,
) -> Result<()> {
    const SQL: &str = "INSERT INTO conflicts (profile, kind, holder_id, contender, pid,
            first_at_ms, last_at_ms, count)
         VALUES (:profile, :kind, :holder_id, :contender, :pid, :now_ms, :now_ms, 1)
         ON CONFLICT DO UPDATE SET pid = excluded.pid, last_at_ms = excluded.last_at_ms,
            count = count + 1
         RETURNING count";
    let contender = subject.party.clone().unwrap_or_else(|| format!("pid:{}", subject.pid));
    let count: i64 = tx.prepare_cached(SQL)?.query_row(
        named_params! {
            ":profile": office.profile.as_str(),
            ":kind": office.kind.as_str(),
            ":holder_id": holder.as_i64(),
            ":contender": contender,
            ":pid": subject.pid,
            ":now_ms": tx.now_ms(),
        },
        |row| row.get(0),
    )?;
    if count > 1 {
        return Ok(());
    }
    tx.record(&EventRecord {
        event: "office_refused",
        office: Some(office),
        instance: Some(holder),
        pid: Some(subject.pid),
        detail: Some(json!({"contender": contender, "reason": reason})),
        ..EventRecord::default()
    })?;
    tx.prepare_cached(
        "DELETE FROM conflicts WHERE profile = :profile AND kind = :kind
           AND (holder_id, last_at_ms) < (
               SELECT holder_id, last_at_ms FROM conflicts
               WHERE profile = :profile AND kind = :kind
               ORDER BY holder_id DESC, last_at_ms DESC LIMIT 1 OFFSET :kept)",
    )?
    .execute(named_params! {
        ":profile": office.profile.as_str(),
        ":kind": office.kind.as_str(),
        ":kept": KEPT,
    })?;
    Ok(())
}

/// Who was refused by `holder`, the latest first.
pub(crate) fn conflicts(
    connection: &Connection,
    office: &Office,
    holder: InstanceId,
) -> Result<Vec<Conflict>> {
    let conflicts = connection
        .prepare_cached(
            "SELECT pid, first_at_ms, last_at_ms, count FROM conflicts
             WHERE profile = ?1 AND kind = ?2 AND holder_id = ?3 ORDER BY last_at_ms DESC",
        )?
        .query_map((office.profile.as_str(), office.kind.as_str(), holder.as_i64()), |row| {
            Ok(Conflict {
                profile: Some(office.profile.to_string()),
                pid: row.get(0).unwrap_or(None),
                first_at_ms: row.get(1)?,
                last_at_ms: row.get(2)?,
                count: row.get::<_, i64>(3)?.unsigned_abs(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(conflicts)
}

/// Counts a refusal: one row however often, so that a loop of refusals stays readable.
pub(crate) fn count_lock_conflict(
    tx: &Tx<'_>,
    name: &LockName,
    refusal: &Refusal<'_>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO lock_conflicts (scope, identity_hash, holder_id, contender,
            profile, pid, first_at_ms, last_at_ms, count)
         VALUES (:scope, :identity_hash, :holder_id, :contender, :profile, :pid, :now_ms, :now_ms,
            1)
         ON CONFLICT DO UPDATE SET pid = excluded.pid, last_at_ms = excluded.last_at_ms,
            count = count + 1
         RETURNING count";
    let contender = refusal.party.map_or_else(|| format!("pid:{}", refusal.pid), str::to_owned);
    let count: i64 = tx.prepare_cached(SQL)?.query_row(
        named_params! {
            ":scope": name.scope.as_str(),
            ":identity_hash": name.identity_hash.as_str(),
            ":holder_id": refusal.holder.as_i64(),
            ":contender": contender,
            ":profile": refusal.profile.map_or("", ProfileName::as_str),
            ":pid": refusal.pid,
            ":now_ms": tx.now_ms(),
        },
        |row| row.get(0),
    )?;
    if count > 1 {
        return Ok(());
    }
    tx.record(&EventRecord {
        event: "lock_refused",
        profile: refusal.profile,
        instance: Some(refusal.holder),
        pid: Some(refusal.pid),
        detail: Some(json!({
            "scope": name.scope.as_str(),
            "identity_hash": name.identity_hash.as_str(),
            "reason": refusal.reason,
            "contender": contender,
        })),
        ..EventRecord::default()
    })?;
    prune_conflicts(tx, name)
}

/// Asked for each office that is down: one search, however many were refused.
const LAST_LOCK_WANTED: &str = "SELECT scope, identity_hash FROM lock_conflicts
     WHERE holder_id = ?1 AND profile = ?2 ORDER BY last_at_ms DESC LIMIT 1";

/// The lock that `profile` was refused last because of `holder`.
pub(super) fn last_lock_wanted(
    connection: &Connection,
    profile: &ProfileName,
    holder: InstanceId,
) -> Result<Option<LockName>> {
    if !connection.table_exists(None, "lock_conflicts")? {
        return Ok(None);
    }
    let wanted: Option<(String, String)> = connection
        .prepare_cached(LAST_LOCK_WANTED)?
        .query_row((holder.as_i64(), profile.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let name = |(scope, hash): (String, String)| {
        let identity_hash = IdentityHash::from_hex(&hash).ok()?;
        Some(LockName { scope: Scope::new(scope).ok()?, identity_hash })
    };
    Ok(wanted.and_then(name))
}

/// Who was refused something so long ago still wants it: a supervisor may try once a day.
pub(crate) const CURRENT_FOR_MS: i64 = 24 * 60 * 60 * 1_000;

/// Who was refused by `holder` since `since_ms` (Unix milliseconds), the latest first.
pub(crate) fn lock_conflicts(
    connection: &Connection,
    name: &LockName,
    holder: InstanceId,
    since_ms: i64,
) -> Result<Vec<Conflict>> {
    let conflicts = connection
        .prepare_cached(
            "SELECT profile, pid, first_at_ms, last_at_ms, count FROM lock_conflicts
             WHERE scope = ?1 AND identity_hash = ?2 AND holder_id = ?3
               AND last_at_ms >= ?4 ORDER BY last_at_ms DESC",
        )?
        .query_map(
            (name.scope.as_str(), name.identity_hash.as_str(), holder.as_i64(), since_ms),
            |row| {
                let profile: String = row.get(0)?;
                Ok(Conflict {
                    profile: Some(profile).filter(|profile| !profile.is_empty()),
                    pid: row.get(1).unwrap_or(None),
                    first_at_ms: row.get(2)?,
                    last_at_ms: row.get(3)?,
                    count: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            },
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(conflicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn the_last_lock_wanted_is_found_without_a_scan() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state.db")).unwrap();
        let plan = store.inner.read(|connection| {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {LAST_LOCK_WANTED}"))?;
            let steps = plan.query_map((1, "work"), |row| row.get::<_, String>("detail"))?;
            Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?)
        });
        let plan = plan.unwrap();
        let [search] = plan.as_slice() else { panic!("it sorts: {plan:?}") };
        let index = "SEARCH lock_conflicts USING COVERING INDEX lock_conflicts_of_holder";
        assert!(search.starts_with(index), "{plan:?}");
    }
}
