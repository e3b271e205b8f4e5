//! Where a row ends, and what ends with it: markers, locks, waiters, reservations.

use std::borrow::Cow;
use std::time::Duration;

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::liveness::DeadReason;
use crate::owner::autopsy;
use crate::patience::with_budget;
use crate::records::{
    End, EndReason, EventRecord, LockEnd, Record, instances, locks, markers, reservations, waiters,
};
use crate::store::{Deferred, Inner, OwnRow, Tx};
use crate::{Error, InstanceId, Office, Reason, Result, sys};

/// Ends a row, and everything that is for it or leans on it. The reason that was recorded; `None`
/// when the row has ended already or is not the one of `nonce_hash`.
fn end(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce_hash: Option<&str>,
    end: &End,
) -> Result<Option<EndReason>> {
    let end = with_exit(tx, id, end)?;
    end_as_told(tx, id, nonce_hash, &end)
}

/// The same, where nobody has seen its process end.
fn end_as_told(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce_hash: Option<&str>,
    end: &End,
) -> Result<Option<EndReason>> {
    let is_found_dead = matches!(end.reason, EndReason::Dead(_));
    let end = &autopsy::explain(tx, tx.store(), id, end)?;
    let Some(ended) = instances::end(tx, id, nonce_hash, end)? else { return Ok(None) };
    let has_markers = markers::exists(tx)?;
    if has_markers && !planted(Fault::MarkersOutliveTarget) {
        markers::close_all_of(tx, id)?;
    }
    let how = LockEnd { reason: end.reason.into(), by: end.by.as_deref() };
    if !planted(Fault::LocksOutliveOwner)
        && locks::end_some_of(tx, id, &how)? == locks::ENDED_AT_ONCE
    {
        tx.leave(Box::new(move |tx| locks::end_left_of(tx, id)));
    }
    if !ended.had_office {
        waiters::remove(tx, id)?;
        if has_markers {
            reservations::remove_all_of(tx, id)?;
        }
        return Ok(Some(end.reason));
    }
    // However it is explained: nobody has seen it happen.
    if is_found_dead {
        instances::found_dead(tx, id)?;
    }
    if let Some(office) = &ended.office {
        record_end(tx, id, office, ended.pid, end)?;
    }
    Ok(Some(end.reason))
}

/// The end of one that was found dead, with how its process ended, if somebody saw that.
fn with_exit<'a>(tx: &Tx<'_>, id: InstanceId, end: &'a End) -> Result<Cow<'a, End>> {
    if !matches!(end.reason, EndReason::Dead(_)) {
        return Ok(Cow::Borrowed(end));
    }
    let seen = match tx.store().witnessed.end_of(id) {
        Some(seen) => Some(seen),
        None => instances::noted_exit(tx, id)?,
    };
    Ok(match seen {
        Some(seen) => Cow::Owned(end.clone().told(seen)),
        None => Cow::Borrowed(end),
    })
}

/// Adds to earlier ends what the kernel told of them since: this process has waited for them, and
/// wrote them down before it was known. In a transaction of its own, after the change that matters:
/// nobody is refused by it, and what could not be written is tried again.
pub(crate) fn note_seen_ends(inner: &Inner) {
    const WITHIN: Duration = Duration::from_millis(50);
    let known = inner.witnessed.known(inner.clock().wall_ms());
    if known.is_empty() {
        return;
    }
    let note = || inner.write(|tx| known.iter().try_for_each(|it| instances::note_exit(tx, it)));
    match with_budget(WITHIN, note) {
        Ok(()) => inner.witnessed.forget(&known),
        Err(error) => tracing::debug!(%error, "how others ended is not on record yet"),
    }
}

fn record_end(
    tx: &Tx<'_>,
    id: InstanceId,
    office: &Office,
    pid: Option<sys::Pid>,
    end: &End,
) -> Result<()> {
    tx.record(&EventRecord {
        event: "office_ended",
        office: Some(office),
        instance: Some(id),
        pid,
        detail: Some(serde_json::json!({
            "reason": Reason::from(end.reason),
            "by": end.by,
            "exit_code": end.exit_code,
            "signal": end.signal,
        })),
        ..EventRecord::default()
    })
}

/// Ends a row that its owner lets go. The nonce makes sure that it is the owner's; false when the
/// row has ended already or is not.
pub(crate) fn end_own(tx: &Tx<'_>, id: InstanceId, nonce_hash: &str, how: &End) -> Result<bool> {
    tx.let_go_of_anchor();
    Ok(end(tx, id, Some(nonce_hash), how)?.is_some())
}

/// The release of a row.
#[derive(Debug)]
pub(crate) struct RowRelease {
    pub(crate) instance: InstanceId,
    pub(crate) nonce_hash: String,
    pub(crate) end: End,
}

impl Deferred for RowRelease {
    fn write(&self, tx: &Tx<'_>) -> Result<()> {
        end_own(tx, self.instance, &self.nonce_hash, &self.end).map(drop)
    }

    fn releases(&self, row: InstanceId) -> bool {
        self.instance == row
    }
}

/// Ends a row whose owner is dead, or that a person evicts. The reason as it was recorded; `None`
/// when the row has ended already.
pub(crate) fn end_other(tx: &Tx<'_>, id: InstanceId, how: &End) -> Result<Option<EndReason>> {
    end(tx, id, None, how)
}

/// Ends the row of an owner that goes on under one of its own, which the caller inserts. Its locks
/// are left to the caller: those that were not taken again follow ([`locks::follow`]). Its process
/// lives, so there is nothing to be explained, and no exit to be told.
pub(crate) fn end_but_for_locks(
    tx: &Tx<'_>,
    id: InstanceId,
    how: &End,
) -> Result<Option<EndReason>> {
    let Some(ended) = instances::end(tx, id, None, how)? else { return Ok(None) };
    if markers::exists(tx)? {
        markers::close_all_of(tx, id)?;
    }
    if let Some(office) = &ended.office {
        record_end(tx, id, office, ended.pid, how)?;
    }
    Ok(Some(how.reason))
}

/// Ends the row of an owner that goes on under another one, which `insert` makes: everything that
/// leans on the old row follows. Requests to the old one are over with it, as with every end.
/// Nothing is explained, as in [`end_but_for_locks`]. The new row.
pub(crate) fn hand_on(
    tx: &Tx<'_>,
    id: InstanceId,
    how: &End,
    insert: impl FnOnce() -> Result<OwnRow>,
) -> Result<OwnRow> {
    let ended = instances::end(tx, id, None, how)?;
    let Some(ended) = ended else {
        return Err(Error::internal(format!("instance {id} had ended before it was handed over")));
    };
    if let Some(office) = &ended.office {
        record_end(tx, id, office, ended.pid, how)?;
    }
    let row = insert()?;
    locks::follow(tx, id, row.instance, how.reason.into())?;
    if markers::exists(tx)? {
        markers::follow(tx, id, row.instance)?;
        reservations::follow(tx, id, row.instance)?;
        markers::close_all_of(tx, id)?;
    }
    Ok(row)
}

/// How long one claim looks for the dead that are in nobody's way, and ends them.
const SWEPT_WITHIN: Duration = Duration::from_millis(10);

/// How many of them one claim looks at: each takes some microseconds, in which all others wait.
/// While most of them are dead, it goes on: they may come faster than claims do.
const SWEPT_AT_ONCE: usize = 6;

/// Ends the rows of processes without an office that died: nobody else ever claims those. Each
/// claim begins where the last one came to, whoever made that: behind many that live there may be
/// dead ones, and a process that claims once remembers nothing. So the store does.
pub(crate) fn sweep_without_office(
    tx: &Tx<'_>,
    mut is_dead: impl FnMut(&Record) -> Option<DeadReason>,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    let until = Deadline::after(SWEPT_WITHIN);
    while !until.has_passed() && sweep_some(tx, &mut is_dead, &is_held, &until)? > SWEPT_AT_ONCE / 2
    {
    }
    Ok(())
}

/// How many have ended.
fn sweep_some(
    tx: &Tx<'_>,
    mut is_dead: impl FnMut(&Record) -> Option<DeadReason>,
    is_held: impl Fn(&str) -> bool,
    until: &Deadline,
) -> Result<usize> {
    let swept_to = tx.swept_to()?;
    let mut live = instances::live_without_office(tx, swept_to, SWEPT_AT_ONCE)?;
    if live.len() < SWEPT_AT_ONCE && swept_to > 0 {
        // Behind the last one the first one comes again.
        let again = instances::live_without_office(tx, 0, SWEPT_AT_ONCE - live.len())?;
        live.extend(again.into_iter().filter(|(id, _)| id.as_i64() <= swept_to));
    }
    if live.len() == SWEPT_AT_ONCE
        && let Some((last, _)) = live.last()
    {
        tx.note_swept_to(last.as_i64())?;
    }
    let mut dead = Vec::new();
    for (id, anchor) in live {
        // The cheap look first: of many waiters and holders nearly all are alive.
        if !anchor.as_deref().is_some_and(&is_held)
            && let Some(record) = instances::by_id(tx, id)?
        {
            dead.extend(is_dead(&record).map(|reason| (id, reason)));
        }
        if until.has_passed() {
            break;
        }
    }
    let mut ended = 0;
    for (id, reason) in dead {
        // Nobody asks how one without an office ended, and there may be many.
        end_as_told(tx, id, None, &End::new(EndReason::Dead(reason)))?;
        ended += 1;
        if until.has_passed() {
            break;
        }
    }
    Ok(ended)
}
