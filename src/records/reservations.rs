//! Who will have an office or a lock next, and who may not: all SQL of `reservations` and
//! `superseded`.
//!
//! A reservation counts only while its instance lives and its time is not over, so that a dead
//! taker blocks nobody. Locks are reserved as well as offices: else a waiter for the token would
//! have it in the moment between the old owner and the new one.
//!
//! Superseded: the successor's row keeps the parties that it, or those it replaced, took over from.
//! None of them replaces it while it lives: two supervisors settle after one swap. `--force` is a
//! person's word.

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::clock::of_millis;
use crate::store::{BootTime, Tx};
use crate::words::words;
use crate::{InstanceId, Kind, Office, ProfileName, Result, Wanted};
use std::time::Duration;

words! {
    /// What something is reserved for.
    pub(crate) enum Purpose {
        /// Whoever reserved it will have it.
        Takeover = "takeover",
        /// Nobody shall have it until whoever holds it is gone.
        Stop = "stop",
    }
}

/// The longest reservation that is believed: an hour of stop budget and what comes on top.
const LONGEST_MS: i64 = 2 * 60 * 60 * 1_000;

/// Of the parties that were replaced one after the other, so many are remembered: each terminal
/// that a person uses is one.
const PARTIES_KEPT: i64 = 32;

/// A reservation on record whose time is not over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    pub(crate) instance: InstanceId,
    pub(crate) purpose: Purpose,
    pub(crate) remaining: Duration,
}

/// The columns that say what is reserved: profile, kind, scope, identity hash.
type Columns<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

fn columns(wanted: &Wanted) -> Columns<'_> {
    match wanted {
        Wanted::Office(Office { profile, kind }) => {
            (Some(ProfileName::as_str(profile)), Some(Kind::as_str(kind)), None, None)
        }
        Wanted::Lock(name) => {
            (None, None, Some(name.scope.as_str()), Some(name.identity_hash.as_str()))
        }
    }
}

/// Reserves `wanted` for `instance`, in the place of any reservation that counts no more.
pub(crate) fn make(
    tx: &Tx<'_>,
    wanted: &Wanted,
    instance: InstanceId,
    purpose: Purpose,
    for_ms: i64,
) -> Result<()> {
    remove(tx, wanted)?;
    let (profile, kind, scope, identity_hash) = columns(wanted);
    let now = tx.boot_time();
    tx.prepare_cached(
        "INSERT INTO reservations (instance_id, purpose, profile, kind, scope, identity_hash,
            made_at_ms, until_boot_ms, boot_id)
         VALUES (:instance_id, :purpose, :profile, :kind, :scope, :identity_hash, :made_at_ms,
            :until_boot_ms, :boot_id)",
    )?
    .execute(named_params! {
        ":instance_id": instance.as_i64(),
        ":purpose": purpose.as_str(),
        ":profile": profile,
        ":kind": kind,
        ":scope": scope,
        ":identity_hash": identity_hash,
        ":made_at_ms": tx.now_ms(),
        ":until_boot_ms": now.ms.saturating_add(for_ms.min(LONGEST_MS)),
        ":boot_id": now.boot_id,
    })?;
    Ok(())
}

/// The reservation of `wanted` whose time is not over. Whether its instance lives is another
/// question, which also says what a restart of the machine ended: boot ids may differ without one.
pub(crate) fn of(
    connection: &Connection,
    now: BootTime<'_>,
    wanted: &Wanted,
) -> Result<Option<Reservation>> {
    const OF_OFFICE: &str = "SELECT instance_id, purpose, until_boot_ms FROM reservations
         WHERE profile = ?1 AND kind = ?2 AND scope IS NULL";
    const OF_LOCK: &str = "SELECT instance_id, purpose, until_boot_ms FROM reservations
         WHERE scope = ?1 AND identity_hash = ?2 AND scope IS NOT NULL";
    let (sql, first, second) = match wanted {
        Wanted::Office(office) => (OF_OFFICE, office.profile.as_str(), office.kind.as_str()),
        Wanted::Lock(name) => (OF_LOCK, name.scope.as_str(), name.identity_hash.as_str()),
    };
    let row: Option<(i64, String, i64)> = connection
        .prepare_cached(sql)?
        .query_row((first, second), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(row.and_then(|(instance, purpose, until_ms)| {
        let remaining_ms = until_ms.checked_sub(now.ms)?;
        (1..=LONGEST_MS).contains(&remaining_ms).then_some(Reservation {
            instance: InstanceId(instance),
            purpose: if purpose == Purpose::Stop.as_str() {
                Purpose::Stop
            } else {
                Purpose::Takeover
            },
            remaining: of_millis(remaining_ms),
        })
    }))
}

fn remove(tx: &Tx<'_>, wanted: &Wanted) -> Result<()> {
    let (profile, kind, scope, identity_hash) = columns(wanted);
    tx.prepare_cached(
        "DELETE FROM reservations
         WHERE profile IS ?1 AND kind IS ?2 AND scope IS ?3 AND identity_hash IS ?4",
    )?
    .execute((profile, kind, scope, identity_hash))?;
    Ok(())
}

/// The end of an instance ends its reservations.
pub(crate) fn remove_all_of(tx: &Tx<'_>, instance: InstanceId) -> Result<()> {
    tx.prepare_cached("DELETE FROM reservations WHERE instance_id = ?1")?
        .execute([instance.as_i64()])?;
    Ok(())
}

/// The parties that an owner took over from, who goes on under another row.
pub(crate) fn follow(tx: &Tx<'_>, from: InstanceId, to: InstanceId) -> Result<()> {
    tx.prepare_cached("UPDATE superseded SET instance_id = ?2 WHERE instance_id = ?1")?
        .execute((from.as_i64(), to.as_i64()))?;
    Ok(())
}

/// Whether `party` was replaced by `instance`, or by one that it replaced in turn.
pub(crate) fn is_superseded(
    connection: &Connection,
    instance: InstanceId,
    party: &str,
) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM superseded WHERE instance_id = ?1 AND party = ?2")?
        .exists((instance.as_i64(), party))?)
}

/// Notes that `successor`, started by `party`, replaced `replaced`: whoever started that one, and
/// whoever was superseded by it, is superseded by the successor.
pub(crate) fn supersede(
    tx: &Tx<'_>,
    successor: InstanceId,
    party: Option<&str>,
    replaced: InstanceId,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO superseded (instance_id, party, replaced_id, at_ms)
         SELECT ?1, party, id, ?4 FROM instances
             WHERE id = ?2 AND party IS NOT NULL AND party IS NOT ?3
         ON CONFLICT DO NOTHING",
    )?
    .execute((successor.as_i64(), replaced.as_i64(), party, tx.now_ms()))?;
    tx.prepare_cached(
        "INSERT INTO superseded (instance_id, party, replaced_id, at_ms)
         SELECT ?1, party, replaced_id, at_ms FROM superseded
             WHERE instance_id = ?2 AND party IS NOT ?3 ORDER BY at_ms DESC LIMIT ?4
         ON CONFLICT DO NOTHING",
    )?
    .execute((successor.as_i64(), replaced.as_i64(), party, PARTIES_KEPT))?;
    tx.prepare_cached("DELETE FROM superseded WHERE instance_id = ?1")?
        .execute([replaced.as_i64()])?;
    Ok(())
}
