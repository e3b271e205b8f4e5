//! Records another process as the holder of an office.

use std::cell::Cell;
use std::path::Path;

use crate::claim::examine::Evicted;
use crate::claim::{ATTEMPTS, Attachment, Count, Lookups, changes_too_fast};
use crate::clock::Deadline;
use crate::keeper::target::Target;
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::claim::once::claim_once;
use crate::owner::is_held;
use crate::process::{Subject, anchor};
use crate::records::{NewInstance, instances};
use crate::store::{Inner, Tx};
use crate::{Error, Holder, InstanceId, Nonce, Office, ProfileName, Result, Store, sys};

pub(crate) use crate::records::instances::Record;

/// What came of recording a process.
pub(crate) enum RecordOutcome {
    Granted {
        instance: InstanceId,
        evicted: Option<Evicted>,
    },
    /// It was on record already.
    Already(Box<Record>),
    Held(Box<Holder>),
    /// Nobody is in the way, and only a keeper can make this record. Whose place it will take.
    NeedsKeeper(Option<Evicted>),
}

/// Who makes the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordedBy {
    /// A verb that ends soon.
    Verb,
    /// The keeper itself.
    Keeper,
    /// Nobody keeps it.
    NoKeeper,
}

/// Claims `office` for `target` in one transaction.
pub(crate) fn record(
    store: &Store,
    office: &Office,
    home: Option<&Path>,
    target: &Target,
    recorder: RecordedBy,
) -> Result<RecordOutcome> {
    let inner = &store.inner;
    let subject = Subject::process(target.pid, target.start_time, inner.observer());
    let candidate = Candidate::by_pid(office, home, &subject);
    let mut aside = Lookups::default();
    for _ in 0..ATTEMPTS {
        // Set where all that was missing is a keeper; nothing is written then.
        let needs_keeper = Cell::new(None);
        let outcome = Count::Yes.if_writable(|count| {
            needs_keeper.take();
            inner.write(|tx| {
                let Some(attachment) = attachment(tx, inner, &subject, recorder)? else {
                    let trial = Attachment::None;
                    return match claim_once(tx, inner, &candidate, &trial, &aside, count)? {
                        ClaimOutcome::Granted(granted) => {
                            needs_keeper.set(Some(granted.evicted));
                            Err(Error::internal("a keeper is needed first"))
                        }
                        outcome => Ok(outcome),
                    };
                };
                claim_once(tx, inner, &candidate, &attachment, &aside, count)
            })
        });
        if let Some(evicted) = needs_keeper.take() {
            return Ok(RecordOutcome::NeedsKeeper(evicted));
        }
        return Ok(match outcome? {
            ClaimOutcome::Granted(granted) => {
                let instance = granted.row.instance;
                if recorder == RecordedBy::Verb {
                    note_grant(inner, instance, instance.as_i64());
                }
                RecordOutcome::Granted { instance, evicted: granted.evicted }
            }
            ClaimOutcome::AlreadyRecorded(record) => RecordOutcome::Already(record),
            ClaimOutcome::Held(obstacle) => RecordOutcome::Held(obstacle.holder),
            ClaimOutcome::Errand(errand) => {
                aside.run(errand, Deadline::never(), inner.trust())?;
                continue;
            }
        });
    }
    Err(changes_too_fast(office))
}

/// Makes a row without an office for `target`, unless it has a keeper already. Whether this process
/// is its keeper now.
pub(crate) fn register(store: &Store, profile: &ProfileName, target: &Target) -> Result<bool> {
    let inner = &store.inner;
    let subject = Subject::process(target.pid, target.start_time, inner.observer());
    inner.write(|tx| {
        let attachment = attachment(tx, inner, &subject, RecordedBy::Keeper)?;
        let Some(attachment @ Attachment::Keeper { .. }) = attachment else {
            // Another keeper was faster: what wants the row finds that one.
            return Ok(false);
        };
        let (anchor, keeper) = attachment.attach(tx, inner)?;
        // Without a command line: an identity may stand in it. Whoever acquires the lock knows, and
        // fills it in.
        NewInstance {
            profile: Some(profile),
            anchor: anchor.as_deref(),
            keeper,
            ..NewInstance::without_office(&subject, inner.observer(), &Nonce::random()?)
        }
        .insert(tx)?;
        Ok(true)
    })
}

/// What the new row will lean on; `None` when that has to be a keeper and we are none. Decided
/// inside the transaction, where a keeper cannot let go of its anchor.
pub(super) fn attachment(
    tx: &Tx<'_>,
    inner: &Inner,
    subject: &Subject,
    recorder: RecordedBy,
) -> Result<Option<Attachment>> {
    if recorder == RecordedBy::NoKeeper {
        return Ok(Some(Attachment::None));
    }
    for record in instances::live_of_pid(tx, subject.pid, subject.start_time, inner.observer())? {
        if let (Some(keeper), Some(anchor)) = (record.keeper_pid, record.anchor)
            && is_held(inner, &anchor)
        {
            let keeper_start_time = sys::process_facts(keeper).start_time;
            return Ok(Some(Attachment::Kept { anchor, keeper, keeper_start_time }));
        }
    }
    Ok((recorder == RecordedBy::Keeper).then(|| Attachment::Keeper {
        pid: inner.observer().pid,
        start_time: inner.observer().start_time,
    }))
}

/// Leaves word for the keepers of `instance` that it was granted the office or lock with this
/// fence.
pub(crate) fn note_grant(inner: &Inner, instance: InstanceId, fence: i64) {
    let record = inner.read(|connection| instances::by_id(connection, instance));
    if let Ok(Some(Record { anchor: Some(anchor), keeper_pid: Some(_), .. })) = record {
        anchor::note_grant(&inner.location.anchors, &anchor, fence);
    }
}
