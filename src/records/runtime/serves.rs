//! The table `serves`: the profiles that one server serves.
//!
//! The server answers for a profile without a live holder of its own; the report is the server's,
//! with `served_by`. That reserves nothing: a claim of the profile's own office is granted, and
//! answers from then on. Else a row could keep a gateway from starting. Only scoped locks keep two
//! gateways from one token.

use rusqlite::{CachedStatement, Connection};

use crate::{InstanceId, Kind, Office, ProfileName, Result};

/// The profiles that an instance serves, beside that of its office, in the order in which it said
/// so. What an older program said, or is asked in a store of before, is in the order of names.
pub(crate) fn serves(connection: &Connection, id: InstanceId) -> Result<Vec<ProfileName>> {
    let names: Vec<Option<String>> = in_order(connection)?
        .query_map([id.0], |row| Ok(row.get(0).unwrap_or(None)))?
        .collect::<rusqlite::Result<_>>()?;
    // Names that no program of ours writes are nobody's.
    Ok(names.into_iter().flatten().filter_map(|name| ProfileName::new(name).ok()).collect())
}

fn in_order(connection: &Connection) -> Result<CachedStatement<'_>> {
    const SQL: &str =
        "SELECT profile FROM serves WHERE instance_id = ?1 ORDER BY position, profile";
    match connection.prepare_cached(SQL) {
        Ok(statement) => Ok(statement),
        Err(error) if has_positions(connection)? => Err(error.into()),
        Err(_) => Ok(connection.prepare_cached(
            "SELECT profile FROM serves WHERE instance_id = ?1 ORDER BY profile",
        )?),
    }
}

/// Whether the store knows of an order.
fn has_positions(connection: &Connection) -> Result<bool> {
    let columns: i64 = connection.query_row(
        "SELECT count(*) FROM pragma_table_info('serves') WHERE name = 'position'",
        [],
        |row| row.get(0),
    )?;
    Ok(columns > 0)
}

/// The offices of the live instances that serve the profile of `office`, the youngest first.
pub(crate) fn servers(connection: &Connection, office: &Office) -> Result<Vec<Office>> {
    let profiles: Vec<Option<String>> = connection
        .prepare_cached(
            "SELECT i.profile FROM serves AS s JOIN instances AS i ON i.id = s.instance_id
             WHERE s.profile = ?1 AND i.kind = ?2 AND i.profile <> ?1 AND i.ended_at_ms IS NULL
             ORDER BY i.id DESC",
        )?
        .query_map((office.profile.as_str(), office.kind.as_str()), |row| {
            Ok(row.get(0).unwrap_or(None))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let office_of = |profile: String| {
        let profile = ProfileName::new(profile).ok()?;
        Some(Office { profile, kind: office.kind.clone() })
    };
    Ok(profiles.into_iter().flatten().filter_map(office_of).collect())
}

/// The offices that are served by live instances, whoever else holds them; and those that the last
/// incarnation of an office served, which nobody may serve now.
pub(crate) fn served(connection: &Connection) -> Result<Vec<Office>> {
    let offices: Vec<Option<Office>> = connection
        .prepare_cached(
            "SELECT DISTINCT s.profile, i.kind
             FROM serves AS s JOIN instances AS i ON i.id = s.instance_id
             WHERE i.kind IS NOT NULL AND (i.ended_at_ms IS NULL OR i.id = (
                 SELECT id FROM instances AS last
                 WHERE last.profile = i.profile AND last.kind = i.kind
                   AND last.ended_at_ms IS NOT NULL ORDER BY id DESC LIMIT 1))",
        )?
        .query_map([], |row| {
            let name = |index| row.get::<_, Option<String>>(index).unwrap_or(None);
            let profile = name(0).and_then(|name| ProfileName::new(name).ok());
            let kind = name(1).and_then(|name| Kind::new(name).ok());
            Ok(profile.zip(kind).map(|(profile, kind)| Office { profile, kind }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(offices.into_iter().flatten().collect())
}
