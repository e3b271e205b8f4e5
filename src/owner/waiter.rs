//! Who waits for an office or a lock, as others are shown it.

use rusqlite::Connection;
use serde::Serialize;

use crate::clock::as_rfc3339;
use crate::liveness::Ruling;
use crate::owner::judgement;
use crate::records::{instances, waiters};
use crate::store::Inner;
use crate::{InstanceId, ProfileName, Result, Wanted, sys};

/// A process that waits for an office or a lock. In JSON an object with these fields, the time as
/// `since` (RFC 3339, UTC, milliseconds); later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Waiter {
    /// Its profile, if it has one.
    pub profile: Option<ProfileName>,
    /// Its pid, in its own namespace.
    pub pid: Option<sys::Pid>,
    /// Its own row.
    pub instance: InstanceId,
    /// Since when: Unix milliseconds, wall time.
    #[serde(rename = "since", serialize_with = "as_rfc3339")]
    pub since_ms: i64,
}

/// Who waits for `wanted`, the longest first. The row of one that was killed stays until the next
/// grant: the dead wait for nothing.
pub(crate) fn waiting(
    inner: &Inner,
    connection: &Connection,
    wanted: &Wanted,
) -> Result<Vec<Waiter>> {
    let mut alive = Vec::new();
    for (instance, since_ms) in waiters::of(connection, wanted)? {
        let Some(record) = instances::by_id(connection, instance)? else { continue };
        match judgement(inner, &record).ruling {
            Ruling::Dead(_) => {}
            Ruling::Alive(_) | Ruling::Unknown(_) => {
                alive.push(Waiter { profile: record.profile, pid: record.pid, instance, since_ms });
            }
        }
    }
    Ok(alive)
}
