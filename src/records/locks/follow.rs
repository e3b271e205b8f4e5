//! Locks that go with their owner from one row to the next.

use serde_json::{Value, json};

use crate::names::slot::Slot;
use crate::records::events::EventRecord;
use crate::records::instances;
use crate::records::locks::{LockEnd, NewLock, end, insert, insert_slot, of_instance};
use crate::store::Tx;
use crate::{InstanceId, Reason, Result};

/// Moves the locks of a row whose owner goes on under another one: as any other change of a holder
/// that is an end and a new fence. Metadata and length of the lease stay, and the lease begins
/// again.
pub(crate) fn follow(tx: &Tx<'_>, from: InstanceId, to: InstanceId, reason: Reason) -> Result<()> {
    let how = LockEnd { reason, by: None };
    let (observer, now_boot_ms) = (tx.store().observer(), tx.boot_time().ms);
    let profile_and_pid = instances::office_of(tx, to)?;
    for lock in of_instance(tx, from)? {
        end(tx, &lock.name, lock.slot, lock.fence, &how)?;
        let new = NewLock {
            name: &lock.name,
            instance: to,
            metadata: lock.metadata.as_ref(),
            ttl_ms: lock.ttl_ms,
        };
        let fence = match lock.slot {
            Some(slot) => insert_slot(tx, &new, slot, observer, now_boot_ms)?,
            None => insert(tx, &new, observer, now_boot_ms)?,
        };
        let mut detail = json!({
            "scope": lock.name.scope.as_str(),
            "identity_hash": lock.name.identity_hash.as_str(),
            "fence": fence,
            "evicted": Value::Null,
            "handed_over_from": from.as_i64(),
        });
        Slot::tell(lock.slot, &mut detail);
        tx.record(&EventRecord {
            event: "lock_acquired",
            profile: profile_and_pid.as_ref().map(|(office, _)| &office.profile),
            instance: Some(to),
            pid: profile_and_pid.as_ref().and_then(|(_, pid)| *pid),
            detail: Some(detail),
            ..EventRecord::default()
        })?;
    }
    Ok(())
}
