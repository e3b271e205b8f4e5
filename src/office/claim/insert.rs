//! The row of the new holder, or the record of the refusal.

use rusqlite::Connection;
use serde_json::json;

use crate::claim::examine::Evicted;
use crate::claim::{Attachment, Count, Obstacle};
use crate::office::claim::candidate::{Candidate, ClaimOutcome, Granted};
use crate::office::storm;
use crate::owner::ending;
use crate::records::runtime::Speaker;
use crate::records::starts::Start;
use crate::records::{End, EndReason, EventRecord, NewInstance, profiles, reservations, starts};
use crate::scoped::survey;
use crate::store::{AnchoredBy, Inner, OwnRow, Tx, ourselves};
use crate::{Holder, Nonce, Reason, Result, Wanted};
use std::time::Duration;

/// Counts a refusal, and says when the next start may come.
pub(crate) fn refuse_candidate(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    count: Count,
    mut obstacle: Box<Obstacle>,
) -> Result<ClaimOutcome> {
    let holder = &mut *obstacle.holder;
    if count == Count::Yes {
        let (instance, reason) = (holder.instance, holder.reason.as_str());
        let refused = match &holder.wanted {
            Wanted::Office(_) => Start::Refused { holder: instance, reason },
            Wanted::Lock(_) => Start::RefusedForLock { holder: instance, reason },
        };
        record_start(tx, inner, candidate, refused)?;
    }
    let backoff = backoff(tx, inner, candidate)?;
    holder.retry_after = backoff.or(holder.retry_after);
    Ok(ClaimOutcome::Held(obstacle))
}

/// The same after a wait in vain, which is on record by now.
pub(super) fn refused_after_wait(inner: &Inner, candidate: &Candidate<'_>, holder: &mut Holder) {
    match inner.read(|connection| backoff(connection, inner, candidate)) {
        Ok(backoff) => {
            let reserved_for = holder.retry_after.filter(|_| holder.reason == Reason::Reserved);
            holder.retry_after = backoff.or(reserved_for);
        }
        Err(error) => tracing::debug!(%error, "when to start again is told as of before the wait"),
    }
}

fn record_start(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    start: Start<'_>,
) -> Result<()> {
    let now_boot_ms = inner.clock().boot_ms();
    starts::record_start(
        tx,
        candidate.office,
        candidate.subject,
        inner.observer(),
        now_boot_ms,
        start,
    )
}

/// How long the next start has to wait, if the party is in a storm.
fn backoff(
    connection: &Connection,
    inner: &Inner,
    candidate: &Candidate<'_>,
) -> Result<Option<Duration>> {
    let Some(party) = &candidate.subject.party else { return Ok(None) };
    let now = inner.clock().boot_ms();
    let boot_id = inner.observer().boot_id.as_deref();
    let storm = storm::of(connection, candidate.office, party, boot_id, now)?;
    Ok(storm.map(|storm| Duration::from_millis(storm.remaining_ms(now))))
}

pub(in crate::office) fn insert(
    tx: &Tx<'_>,
    inner: &Inner,
    candidate: &Candidate<'_>,
    attachment: &Attachment,
    evicted: Option<Evicted>,
    after_abnormal_end: bool,
) -> Result<Granted> {
    let (anchor, keeper) = attachment.attach(tx, inner)?;
    profiles::bind_home(tx, candidate.office, candidate.home)?;
    if let Some(home) = candidate.legacy_home {
        profiles::bind_legacy_home(tx, candidate.office, home)?;
    }
    let nonce = match candidate.nonce {
        Some(nonce) => nonce.clone(),
        None => Nonce::random()?,
    };
    let instance = NewInstance {
        profile: Some(&candidate.office.profile),
        kind: Some(&candidate.office.kind),
        origin: candidate.origin,
        subject: candidate.subject,
        argv: &survey::masked(candidate.subject, candidate.locks),
        observer: inner.observer(),
        nonce: &nonce,
        anchor: anchor.as_deref(),
        keeper,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        heartbeat_every_ms: candidate.heartbeat_every_ms,
    }
    .insert(tx)?;
    if candidate.heartbeat_every_ms.is_some() {
        // The claim is the first sign of life: the next one is expected from now on.
        let writer = ourselves::by_self(inner);
        let owner = Speaker {
            id: instance,
            office: candidate.office,
            pid: Some(candidate.subject.pid),
            writer: &writer,
            writer_pid: inner.observer().pid,
        };
        owner.beat(tx, None, None)?;
    }
    if let Some(waiter) = candidate.waiter {
        ending::end_other(tx, waiter, &End::new(EndReason::Released))?;
    }
    for replaced in candidate.succession.iter().flat_map(|succession| &succession.replaced) {
        let party = candidate.subject.party.as_deref();
        reservations::supersede(tx, instance, party, *replaced)?;
    }
    record_start(tx, inner, candidate, Start::Granted { instance, after_abnormal_end })?;
    tx.record(&EventRecord {
        event: "office_claimed",
        office: Some(candidate.office),
        instance: Some(instance),
        pid: Some(candidate.subject.pid),
        detail: evicted.as_ref().map(|evicted| {
            json!({"evicted": {"instance": evicted.instance.as_i64(), "reason": evicted.reason}})
        }),
        ..EventRecord::default()
    })?;
    let row = OwnRow { instance, nonce, anchored_by: AnchoredBy::Us };
    Ok(Granted { row, evicted, locks: Vec::new() })
}
