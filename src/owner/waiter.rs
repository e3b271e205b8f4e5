//! Who waits for an office or a lock, as others are shown it.

use serde::Serialize;

use crate::clock::as_rfc3339;
use crate::liveness::Ruling;
use crate::owner::judgement;
use crate::records::waiters::WaiterRow;
use crate::store::Inner;
use crate::{InstanceId, LockName, ProfileName, sys};

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
    /// The lock that it waits for; `None`: it waits for the office itself.
    pub lock: Option<LockName>,
    /// Since when: Unix milliseconds, wall time.
    #[serde(rename = "since", serialize_with = "as_rfc3339")]
    pub since_ms: i64,
}

/// Whether it is not dead. The row of one that was killed stays until the next grant: the dead wait
/// for nothing. Not to be asked within a transaction: it looks at processes.
pub(crate) fn still_waits(inner: &Inner, row: &WaiterRow) -> bool {
    match judgement(inner, &row.record).ruling {
        Ruling::Dead(_) => false,
        Ruling::Alive(_) | Ruling::Unknown(_) => true,
    }
}

/// Those of them that are not dead.
pub(crate) fn waiting(inner: &Inner, rows: Vec<WaiterRow>) -> Vec<Waiter> {
    let alive = rows.into_iter().filter(|row| still_waits(inner, row));
    let waiter = |WaiterRow { record, lock, since_ms, .. }: WaiterRow| Waiter {
        profile: record.profile,
        pid: record.pid,
        instance: record.id,
        lock,
        since_ms,
    };
    alive.map(waiter).collect()
}
