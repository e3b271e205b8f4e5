//! What is counted about an office: starts, conflicts, and the home its profile is bound to.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, named_params};
use serde_json::json;

use crate::conflict::{self, Conflict};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{self, Subject};
use crate::names::{InstanceId, Office, ProfileName};
use crate::observe::Observer;
use crate::store::{EventRecord, Tx};

/// Starts kept per office.
const STARTS_KEPT: i64 = 200;

/// The outcome of a start, to be recorded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    Granted {
        instance: InstanceId,
        after_abnormal_end: bool,
    },
    Refused {
        holder: Option<InstanceId>,
        reason: &'a str,
    },
    /// The office may be free, but not a lock that it is wanted with; that conflict is the lock's.
    RefusedForLock {
        holder: Option<InstanceId>,
        reason: &'a str,
    },
}

pub(super) fn record_start(
    tx: &Tx<'_>,
    office: &Office,
    subject: &Subject,
    observer: &Observer,
    now_boot_ms: i64,
    start: Start<'_>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO starts (profile, kind, outcome, instance_id, holder_id, reason,
            pid, party, counted, at_ms, at_boot_ms, boot_id)
         VALUES (:profile, :kind, :outcome, :instance_id, :holder_id, :reason,
            :pid, :party, :counted, :at_ms, :at_boot_ms, :boot_id)";
    let (outcome, instance, holder, reason, counted) = match start {
        Start::Granted { instance, after_abnormal_end } => {
            ("granted", Some(instance), None, None, after_abnormal_end)
        }
        Start::Refused { holder, reason } | Start::RefusedForLock { holder, reason } => {
            ("refused", None, holder, Some(reason), true)
        }
    };
    tx.prepare_cached(SQL)?.execute(named_params! {
        ":profile": office.profile.as_str(),
        ":kind": office.kind.as_str(),
        ":outcome": outcome,
        ":instance_id": instance.map(InstanceId::as_i64),
        ":holder_id": holder.map(InstanceId::as_i64),
        ":reason": reason,
        ":pid": subject.pid,
        ":party": subject.party,
        ":counted": counted,
        ":at_ms": tx.now_ms(),
        ":at_boot_ms": now_boot_ms,
        ":boot_id": observer.boot_id,
    })?;
    let start_number = tx.last_insert_rowid();
    if let Start::Refused { holder: Some(holder), reason } = start {
        count_conflict(tx, office, subject, holder, reason)?;
    }
    // One start in sixteen pays for all: at most that many rows too many.
    if start_number % 16 == 0 {
        tx.prepare_cached(
            "DELETE FROM starts WHERE profile = :profile AND kind = :kind AND id <= (
                 SELECT id FROM starts WHERE profile = :profile AND kind = :kind
                 ORDER BY id DESC LIMIT 1 OFFSET :kept)",
        )?
        .execute(named_params! {
            ":profile": office.profile.as_str(),
            ":kind": office.kind.as_str(),
            ":kept": STARTS_KEPT,
        })?;
    }
    Ok(())
}

/// Who wanted what from whom: one row however often, so that a loop of refusals stays readable.
fn count_conflict(
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
        ":kept": conflict::KEPT,
    })?;
    Ok(())
}

/// Every profile that something is on record for.
pub(crate) fn profiles(connection: &Connection) -> Result<Vec<ProfileName>> {
    let names: Vec<Option<String>> = connection
        .prepare_cached("SELECT profile FROM profiles ORDER BY profile")?
        .query_map([], |row| Ok(row.get(0).unwrap_or(None)))?
        .collect::<rusqlite::Result<_>>()?;
    // Names that no program of ours writes are nobody's.
    Ok(names.into_iter().flatten().filter_map(|name| ProfileName::new(name).ok()).collect())
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
                pid: row.get(0)?,
                first_at_ms: row.get(1)?,
                last_at_ms: row.get(2)?,
                count: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(conflicts)
}

/// Whether the last incarnation of an office ended in a way that nobody asked for.
pub(super) fn last_end_was_abnormal(tx: &Tx<'_>, office: &Office) -> Result<bool> {
    let last: Option<(String, Option<i64>)> = tx
        .prepare_cached(
            "SELECT end_reason, exit_code FROM instances
             WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row((office.profile.as_str(), office.kind.as_str()), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(last.is_some_and(|(reason, exit_code)| instance::is_abnormal(&reason, exit_code)))
}

/// The home that a profile is bound to. `None` also for one that no longer exists: its directory
/// was moved, and the profile moves along. Not being able to look is no sign of that.
fn bound_home(
    connection: &Connection,
    office: &Office,
    home: &Path,
) -> Result<Option<(String, bool)>> {
    let bound: Option<String> = connection
        .prepare_cached("SELECT home FROM profiles WHERE profile = ?1")?
        .query_row([office.profile.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(bound.map(|bound| {
        let is_this = home.to_string_lossy() == bound;
        let binds = is_this || Path::new(&bound).try_exists().unwrap_or(true);
        (bound, binds)
    }))
}

/// Refuses a home other than the one that the profile is bound to.
pub(crate) fn check_home(
    connection: &Connection,
    office: &Office,
    home: Option<&Path>,
) -> Result<()> {
    let Some(home) = home else { return Ok(()) };
    match bound_home(connection, office, home)? {
        Some((bound, true)) if bound != home.to_string_lossy() => Err(Error::new(
            ErrorKind::ProfileBelongsTo,
            format!(
                "profile {} belongs to the home {bound}, and this is {}",
                office.profile,
                home.display()
            ),
        )
        .at(home)
        .with_hint("use another profile for this home (`--profile NAME`)")),
        Some(_) | None => Ok(()),
    }
}

/// Refuses to take the place of `other`, of another profile, for an office whose profile has, or is to have, another
/// home than that one.
pub(crate) fn check_homes_of_both(
    connection: &Connection,
    office: &Office,
    home: Option<&Path>,
    other: &Office,
) -> Result<()> {
    let own = match home {
        Some(home) => Some(home.to_owned()),
        None => bound_home(connection, office, Path::new(""))?
            .filter(|(_, binds)| *binds)
            .map(|(bound, _)| PathBuf::from(bound)),
    };
    let Some(own) = own else { return Ok(()) };
    match bound_home(connection, other, &own)? {
        Some((theirs, true)) if theirs != own.to_string_lossy() => Err(Error::new(
            ErrorKind::ProfileBelongsTo,
            format!(
                "profile {}, whose place was to be taken, belongs to the home {theirs}, and profile {} \
                 to {}",
                other.profile,
                office.profile,
                own.display()
            ),
        )
        .at(&own)
        .with_hint(format!(
            "stop that one first (`incumbent --profile {} stop`), or take its place from another home \
             (`--cross-home`)",
            other.profile
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Binds the profile of a granted office to `home`, which was checked.
pub(super) fn bind_home(tx: &Tx<'_>, office: &Office, home: Option<&Path>) -> Result<()> {
    let profile = office.profile.as_str();
    tx.prepare_cached(
        "INSERT INTO profiles (profile, created_at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute((profile, tx.now_ms()))?;
    let Some(home) = home else { return Ok(()) };
    let home = home.to_string_lossy();
    let changed = tx
        .prepare_cached("UPDATE profiles SET home = ?2 WHERE profile = ?1 AND home IS NOT ?2")?
        .execute((profile, home.as_ref()))?;
    if changed == 0 {
        return Ok(());
    }
    tx.record(&EventRecord {
        event: "profile_bound",
        office: Some(office),
        detail: Some(json!({"home": home})),
        ..EventRecord::default()
    })
}

/// The schema version that brought `profiles.legacy_home`.
const LEGACY_HOME_SINCE: i64 = 6;

/// The directory of the older program that a profile stands for. A store that an older version made knows
/// of none.
pub(crate) fn legacy_home(
    connection: &Connection,
    profile: &ProfileName,
) -> Result<Option<PathBuf>> {
    let version: i64 =
        connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?;
    if version < LEGACY_HOME_SINCE {
        return Ok(None);
    }
    let home: Option<String> = connection
        .prepare_cached("SELECT legacy_home FROM profiles WHERE profile = ?1")?
        .query_row([profile.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(home.map(PathBuf::from))
}

/// The other profiles that stand for the older program of the directory `home`.
pub(crate) fn others_of_legacy_home(
    connection: &Connection,
    profile: &ProfileName,
    home: &Path,
) -> Result<Vec<ProfileName>> {
    let names: Vec<String> = connection
        .prepare_cached("SELECT profile FROM profiles WHERE legacy_home = ?1 AND profile <> ?2")?
        .query_map((home.to_string_lossy(), profile.as_str()), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(names.into_iter().filter_map(|name| ProfileName::new(name).ok()).collect())
}

/// Notes that the profile of `office` stands for the older program of the directory `home`, which was
/// checked. Whether that is news.
pub(crate) fn bind_legacy_home(tx: &Tx<'_>, office: &Office, home: &Path) -> Result<bool> {
    tx.check_schema()?;
    let home = home.to_string_lossy();
    let changed = tx
        .prepare_cached(
            "INSERT INTO profiles (profile, created_at_ms, legacy_home) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET legacy_home = excluded.legacy_home
                 WHERE legacy_home IS NOT excluded.legacy_home",
        )?
        .execute((office.profile.as_str(), tx.now_ms(), home.as_ref()))?;
    if changed > 0 {
        record_legacy_home(tx, office, "legacy_home_bound", &home)?;
    }
    Ok(changed > 0)
}

/// Forgets the older program of a profile: its lock keeps nobody out any more.
pub(super) fn forget_legacy_home(tx: &Tx<'_>, office: &Office) -> Result<Option<PathBuf>> {
    let Some(home) = legacy_home(tx, &office.profile)? else { return Ok(None) };
    tx.prepare_cached("UPDATE profiles SET legacy_home = NULL WHERE profile = ?1")?
        .execute([office.profile.as_str()])?;
    record_legacy_home(tx, office, "legacy_home_forgotten", &home.to_string_lossy())?;
    Ok(Some(home))
}

fn record_legacy_home(tx: &Tx<'_>, office: &Office, event: &'static str, home: &str) -> Result<()> {
    tx.record(&EventRecord {
        event,
        office: Some(office),
        detail: Some(json!({"legacy_home": home})),
        ..EventRecord::default()
    })
}
