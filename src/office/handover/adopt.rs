//! The adoption: the transaction that makes a successor the owner.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::claim::{Attachment, obstacle};
use crate::clock::millis;
use crate::office::claim::candidate::Candidate;
use crate::office::claim::insert;
use crate::office::handover::{Inherited, NotInherited};
use crate::office::options::ClaimOptions;
use crate::office::tenure::{Shares, Tenure};
use crate::owner::{InProgress, ending};
use crate::process::handover::Given;
use crate::process::{Anchor, Subject, anchor};
use crate::records::{End, EndReason, Identities, Origin, Record, instances};
use crate::store::held::HeldOffice;
use crate::store::{AnchoredBy, Inner, OwnRow, Tx, ourselves};
use crate::sys::handover;
use crate::sys::handover::Will;
use crate::{Error, ErrorKind, Nonce, Office, Result, Store, Wanted};

/// What the transaction came to.
enum Step {
    Adopted(OwnRow),
    /// The old row stays ours: it is about this very process.
    AsBefore,
    No(NotInherited),
}

/// Adopts what the environment says that we were given. `None` where it is about another store, or
/// was given to a process that we descend from.
pub(super) fn adopt(
    store: &Store,
    given: &Given,
    options: Option<&ClaimOptions>,
) -> Result<Option<Inherited>> {
    let inner = &store.inner;
    // As for a claim: no thread of ours meets our fresh row as a stranger's.
    let mut held = inner.lock_held()?;
    let record = inner.read(|connection| instances::by_id(connection, given.instance))?;
    let Some(record) = record else { return Ok(None) };
    let (Some(key), Some(name), Some(office)) =
        (record.identity.anchor, &record.anchor, record.office())
    else {
        return Ok(None);
    };
    let Some(handover::Inherited { anchor, will }) =
        handover::Inherited::find(&given.descriptors, &key)
    else {
        return Ok(None);
    };
    let anchor = Arc::new(Anchor::handed_over(&inner.location.anchors, name, anchor));
    let is_our_anchor = inner.go_on_with_anchor(&anchor);
    let adoption = Adoption {
        inner,
        office: &office,
        options,
        secret: Secret::new(&will),
        is_this_process: is_this_process(inner, &record),
    };
    let step = match inner.write(|tx| adoption.attempt(tx, &record)) {
        // The row is about us, and the lock in our hands: no write is needed to go on.
        Err(error) if adoption.is_this_process && may_go_on_after(&error) => {
            tracing::warn!(%error, "the exec of the holder is not on record");
            adoption.secret.nonce().map(|nonce| match nonce {
                Some(nonce) if record.belongs_to(nonce) => Step::AsBefore,
                Some(_) | None => Step::No(NotInherited::TakenBack),
            })
        }
        step => step,
    };
    let nonce = adoption.secret.read.into_inner().flatten();
    let row = match (step, nonce) {
        (Ok(Step::Adopted(row)), _) => row,
        (Ok(Step::AsBefore), Some(nonce)) => {
            if !is_our_anchor {
                // Its row names it, so it is held until this process ends.
                std::mem::forget(Arc::clone(&anchor));
            }
            OwnRow { instance: record.id, nonce, anchored_by: AnchoredBy::Us }
        }
        (Ok(Step::AsBefore), None) => {
            return Err(Error::internal("an office was adopted without its nonce"));
        }
        (Ok(Step::No(why)), _) => {
            inner.give_back(&anchor);
            return Ok(Some(Inherited::Nothing(why)));
        }
        (Err(error), _) => {
            inner.give_back(&anchor);
            return Err(error);
        }
    };
    held.offices.insert(office.clone(), HeldOffice { row: row.clone(), claims: 1, beside: None });
    if row.instance != record.id {
        anchor::note_handover(&inner.location.anchors, name, row.instance.as_i64());
    }
    will.say_adopted();
    let tenure = Tenure::new(store, &office, &row, None, Vec::new(), Shares::No);
    Ok(Some(Inherited::FromPredecessor(tenure)))
}

struct Adoption<'a> {
    inner: &'a Inner,
    office: &'a Office,
    options: Option<&'a ClaimOptions>,
    secret: Secret<'a>,
    is_this_process: bool,
}

/// The nonce that is in the pipe, for whoever reads it first.
pub(super) struct Secret<'a> {
    will: &'a Will,
    /// What was in it, once it was read.
    read: OnceCell<Option<Nonce>>,
}

impl<'a> Secret<'a> {
    pub(super) fn new(will: &'a Will) -> Self {
        Self { will, read: OnceCell::new() }
    }

    pub(super) fn was_read(&self) -> bool {
        self.read.get().is_some()
    }

    /// What was in the pipe, which nobody else gets then.
    pub(super) fn nonce(&self) -> Result<Option<&Nonce>> {
        if !self.was_read() {
            let read = self
                .will
                .read()
                .map_err(|error| Error::internal(format!("cannot read what was left: {error}")))?;
            let text = read.and_then(|bytes| String::from_utf8(bytes).ok());
            let _ = self.read.set(text.and_then(|text| Nonce::from_hex(&text).ok()));
        }
        Ok(self.read.get().and_then(Option::as_ref))
    }
}

impl Adoption<'_> {
    fn attempt(&self, tx: &Tx<'_>, seen: &Record) -> Result<Step> {
        let record = instances::by_id(tx, seen.id)?.filter(Record::is_live);
        let Some(record) = record else { return Ok(Step::No(NotInherited::Lost)) };
        // What was rolled back may have been looked at since: the predecessor goes on.
        let is_late = self.secret.was_read() && !self.is_this_process;
        let nonce = self.secret.nonce()?.filter(|nonce| !is_late && record.belongs_to(nonce));
        // Its predecessor has made its anchor again, which we do not hold.
        let has_anchor = record.identity.anchor == seen.identity.anchor;
        if nonce.is_none() || !has_anchor {
            return Ok(Step::No(NotInherited::TakenBack));
        }
        if self.is_asked_to_end(tx, &record)? {
            return Ok(if self.is_this_process {
                // Whoever waits for its end waits for that of its row.
                Step::AsBefore
            } else {
                Step::No(NotInherited::AskedToEnd)
            });
        }
        let how = if self.is_this_process {
            End::new(EndReason::ReExecuted)
        } else {
            End::new(EndReason::HandedOver).by(ourselves::by_self(self.inner))
        };
        let row = ending::hand_on(tx, record.id, &how, || self.insert(tx, &record))?;
        if self.is_this_process
            && let Some(anchor) = &record.anchor
        {
            // What the program before us waited for, or reserved: nobody does any more.
            for id in instances::live_on(tx, anchor)? {
                // Others share the anchor: a predecessor that stayed has rows of its own.
                let left = instances::by_id(tx, id)?.filter(|it| is_this_process(self.inner, it));
                if left.is_some() && id != row.instance {
                    ending::end_other(tx, id, &End::new(EndReason::ReExecuted))?;
                }
            }
        }
        Ok(Step::Adopted(row))
    }

    fn is_asked_to_end(&self, tx: &Tx<'_>, record: &Record) -> Result<bool> {
        let wanted = Wanted::Office(self.office.clone());
        Ok(InProgress::of(tx, self.inner, record.id)?.is_some()
            || obstacle::reserved_by_another(tx, self.inner, &wanted, None)?.is_some())
    }

    /// The new row: about this process, and else as the old one said it.
    fn insert(&self, tx: &Tx<'_>, record: &Record) -> Result<OwnRow> {
        let myself = self.inner.myself();
        let words = Identities::within(tx, myself.argv.iter().map(String::as_str))?;
        let mut subject: Subject = myself.clone();
        subject.argv = words.mask_words(&myself.argv);
        // Whoever keeps starting the first one keeps starting this.
        subject.party = record.party.clone().or(subject.party);
        let (version, stop_budget_ms, heartbeat_every_ms) = match self.options {
            Some(options) => {
                (options.version.clone(), options.stop_budget_ms()?, options.heartbeat_every_ms()?)
            }
            None => (
                record.version.clone(),
                u64::try_from(millis(record.stop_budget())).unwrap_or_default(),
                record.heartbeat_every_ms.and_then(|ms| u64::try_from(ms).ok()),
            ),
        };
        let candidate = Candidate {
            office: self.office,
            home: None,
            legacy_home: None,
            origin: Origin::Library,
            subject: &subject,
            version: version.as_deref(),
            stop_budget_ms,
            heartbeat_every_ms,
            locks: &[],
            nonce: None,
            ours: &[],
            waiter: None,
            replace: None,
            succession: None,
        };
        let attachment = Attachment::Own;
        Ok(insert::insert(tx, self.inner, &candidate, &attachment, None, false)?.row)
    }
}

/// What keeps the store from being written, and says nothing against the row.
fn may_go_on_after(error: &Error) -> bool {
    use ErrorKind::{Busy, CannotWrite, TooNew, TooOld};
    matches!(error.kind(), Busy | CannotWrite | TooNew | TooOld)
}

/// Whether the process of `record` is this one, which executed another program since.
fn is_this_process(inner: &Inner, record: &Record) -> bool {
    let observer = inner.observer();
    let is_it = match (record.identity.process, observer.number) {
        (Some(recorded), Some(number)) => recorded == number,
        (Some(_) | None, None) | (None, Some(_)) => {
            record.start_time.is_some() && record.start_time == observer.start_time
        }
    };
    is_it && record.pid == Some(observer.pid) && record.pid_ns == observer.pid_ns
}
