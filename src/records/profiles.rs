//! The table `profiles`: the home that a profile is bound to, and whether it should run.
//!
//! A profile bound to a home that no longer exists is bound again: nobody else could ever use it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension};
use serde_json::json;

use crate::environment::{Fault, planted};
use crate::names::unknown;
use crate::records::events::EventRecord;
use crate::store::Tx;
use crate::words::words;
use crate::{Error, ErrorKind, Office, ProfileName, Result};

words! {
    /// What an operator wants of a profile; see
    /// [`Profile::set_desired`](crate::Profile::set_desired). In JSON its word.
    pub enum Desired {
        /// It should run.
        Running = "running",
        /// It should stay stopped.
        Stopped = "stopped",
    }
}

impl FromStr for Desired {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::parse(word).ok_or_else(|| unknown("desired state", word, Self::ALL))
    }
}

/// What is on record for a profile; a word that no program of ours writes reads as nothing.
pub(crate) fn desired(connection: &Connection, profile: &ProfileName) -> Result<Option<Desired>> {
    let word: Option<String> = connection
        .prepare_cached("SELECT desired FROM profiles WHERE profile = ?1")?
        .query_row([profile.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(word.and_then(|word| word.parse().ok()))
}

pub(crate) fn set_desired(
    tx: &Tx<'_>,
    profile: &ProfileName,
    desired: Desired,
    by: &str,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO profiles (profile, created_at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute((profile.as_str(), tx.now_ms()))?;
    let changed = tx
        .prepare_cached(
            "UPDATE profiles SET desired = ?2 WHERE profile = ?1 AND desired IS NOT ?2",
        )?
        .execute((profile.as_str(), desired.as_str()))?;
    if changed == 0 {
        return Ok(());
    }
    tx.record(&EventRecord {
        event: "desired_changed",
        profile: Some(profile),
        detail: Some(json!({"desired": desired.as_str(), "by": by})),
        ..EventRecord::default()
    })
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

/// The home that a profile is bound to, whether it is still there or not.
pub(crate) fn home(connection: &Connection, profile: &ProfileName) -> Result<Option<String>> {
    let bound = connection
        .prepare_cached("SELECT home FROM profiles WHERE profile = ?1")?
        .query_row([profile.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(bound)
}

/// The home that a profile is bound to. `None` also for one that no longer exists: its directory
/// was moved, and the profile moves along. Not being able to look is no sign of that.
fn bound_home(
    connection: &Connection,
    office: &Office,
    home: &Path,
) -> Result<Option<(String, bool)>> {
    Ok(self::home(connection, &office.profile)?.map(|bound| {
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
        _ if planted(Fault::HomeIgnored) => Ok(()),
        Some((bound, true)) if bound != home.to_string_lossy() => Err(Error::new(
            ErrorKind::ProfileBelongsTo,
            format!(
                "profile {} belongs to the home {bound}, not to {}",
                office.profile,
                home.display()
            ),
        )
        .at(home)
        .with_flag_hint("use another profile for this home", "--profile NAME", "")),
        Some(_) | None => Ok(()),
    }
}

/// Refuses to take the place of `other`, of another profile, for an office whose profile has, or is
/// to have, another home than that one.
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
                "cannot replace profile {}: it belongs to the home {theirs}, and profile {} \
                 belongs to {}",
                other.profile,
                office.profile,
                own.display()
            ),
        )
        .at(&own)
        .with_hints(
            "stop that one first, or take its place from another home (`Replace::across_homes`)",
            format!(
                "stop that one first (`incumbent --kind {} --profile {} stop`), or take its place \
                 from another home (`--cross-home`)",
                other.kind, other.profile
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Binds the profile of a granted office to `home`, which was checked.
pub(crate) fn bind_home(tx: &Tx<'_>, office: &Office, home: Option<&Path>) -> Result<()> {
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

/// The directory of the older program that a profile stands for. A store that an older version made
/// knows of none.
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

/// Notes that the profile of `office` stands for the older program of the directory `home`, which
/// was checked. Whether that is news.
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
pub(crate) fn forget_legacy_home(tx: &Tx<'_>, office: &Office) -> Result<Option<PathBuf>> {
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
