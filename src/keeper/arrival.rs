//! A keeper in a store that took the place of its own.

use std::cell::Cell;

use crate::claim::{Attachment, Claimant, Count, Errand, Lookups};
use crate::keeper::kept::KeptRow;
use crate::keeper::record::{RecordedBy, attachment};
use crate::keeper::target::Target;
use crate::keeper::tenant::Tenant;
use crate::liveness::Lease;
use crate::names::Secret;
use crate::office::claim::candidate::{Candidate, ClaimOutcome};
use crate::office::claim::once::claim_once;
use crate::owner::is_held;
use crate::patience::Stopped;
use crate::process::Subject;
use crate::records::{LockRow, Origin, Record, instances, locks};
use crate::scoped::acquire::{Acquired, LockSource, acquire_once};
use crate::scoped::survey::LockClaim;
use crate::store::{Inner, Tx, ourselves};
use crate::{Error, ErrorKind, Holder, LockRequest, Office, Reason, Result, stop_budget};

/// One transaction in the new store: all that was kept, or nothing yet.
pub(crate) struct Arrival<'a> {
    pub(super) target: &'a Target,
    /// Where that acts only while it has its office.
    pub(super) tenant: Option<&'a Tenant>,
    pub(super) aside: &'a Lookups,
    /// What has to be done first, outside of it.
    pub(super) errand: Cell<Option<Errand>>,
    /// Whether somebody else has got what such a process cannot do without.
    pub(super) is_refused: Cell<bool>,
}

impl Arrival<'_> {
    pub(super) fn arrive(&self, tx: &Tx<'_>, inner: &Inner, kept: &[KeptRow]) -> Result<()> {
        // That of an attempt that was rolled back does not count.
        self.errand.take();
        self.is_refused.set(false);
        for kept in kept {
            match kept.find(tx)? {
                Some(record) if !record.is_live() => {}
                Some(record) => {
                    if !record.anchor.as_deref().is_some_and(|anchor| is_held(inner, anchor)) {
                        let anchor = inner.anchor(tx)?;
                        instances::set_anchor(tx, record.id, &record.nonce_hash, anchor.name())?;
                    }
                    self.acquire(tx, inner, kept, true)?;
                }
                None => match kept.record.office() {
                    Some(office) => self.claim(tx, inner, kept, &office)?,
                    None => self.acquire(tx, inner, kept, false)?,
                },
            }
        }
        // It was only lent by the handle of the other store.
        if let Some(anchor) = inner.own_anchor()
            && ourselves::live_on_anchor(tx, anchor.name())? > 0
        {
            inner.anchor(tx)?;
        }
        Ok(())
    }

    /// Claims the office again; that of a process which acts only while it has that, together with
    /// its locks: all or none. Verbs that the process calls act for the new row, as for the old.
    fn claim(&self, tx: &Tx<'_>, inner: &Inner, kept: &KeptRow, office: &Office) -> Result<()> {
        let tenant = self.tenant.filter(|tenant| tenant.instance == kept.record.id);
        let locks = match tenant {
            Some(tenant) => wanted_again(tx, inner, kept, tenant)?,
            None => Vec::new(),
        };
        let subject = self.subject(inner, kept);
        let candidate = Candidate {
            locks: &locks,
            version: kept.record.version.as_deref(),
            stop_budget_ms: kept.record.stop_budget_ms.unwrap_or(stop_budget::DEFAULT_MS),
            ..Candidate::by_pid(office, None, &subject)
        };
        let attachment = match tenant {
            // Not another pair's, which would not end the process.
            Some(_) => Some(Attachment::Keeper {
                pid: inner.observer().pid,
                start_time: inner.observer().start_time,
            }),
            None => attachment(tx, inner, &subject, RecordedBy::Keeper)?,
        };
        let Some(attachment) = attachment else { return Ok(()) };
        match claim_once(tx, inner, &candidate, &attachment, self.aside, Count::No)? {
            ClaimOutcome::Granted(granted) if tenant.is_some() => {
                instances::go_on_in_place(tx, granted.row.instance, &kept.record)
            }
            ClaimOutcome::Granted(_) | ClaimOutcome::AlreadyRecorded(_) => Ok(()),
            ClaimOutcome::Held(obstacle) => {
                give_up(&obstacle.holder)?;
                self.is_refused.set(self.is_refused.get() || tenant.is_some());
                Ok(())
            }
            ClaimOutcome::Errand(errand) => Err(self.interrupted(errand)),
        }
    }

    /// The process, with the command line as it was recorded: an identity may stand in it that was
    /// known when the row was made, and is not known to us.
    fn subject(&self, inner: &Inner, kept: &KeptRow) -> Subject {
        let Target { pid, start_time, .. } = *self.target;
        let live = Subject::process(pid, start_time, inner.observer());
        let mut subject = Subject::told(pid, start_time, live.uid, kept.record.argv.clone());
        subject.number = live.number;
        subject.party = live.party;
        subject.supervisor = live.supervisor;
        subject.memory = live.memory;
        subject
    }

    /// Acquires the locks again that were not let go since.
    fn acquire(&self, tx: &Tx<'_>, inner: &Inner, kept: &KeptRow, has_row: bool) -> Result<()> {
        let Record { id, uid, argv, party, supervisor, profile, .. } = &kept.record;
        // The command line as it was recorded, for the same reason.
        let Target { pid, start_time, .. } = *self.target;
        let mut subject = Subject::told(pid, start_time, *uid, argv.clone());
        subject.party.clone_from(party);
        subject.supervisor = supervisor.clone().unwrap_or(subject.supervisor);
        let mut owner = has_row.then_some(*id);
        for row in &kept.locks {
            if !is_to_be_acquired(tx, inner, row)? {
                continue;
            }
            let claim = LockClaim {
                requests: &[request_of(row)],
                claimant: Claimant { origin: Origin::Pid, subject: &subject },
                profile: profile.as_ref(),
                ours: owner.as_slice(),
                held: None,
                stopped: Stopped::Respect,
                waiter: None,
            };
            let attachment = attachment(tx, inner, &subject, RecordedBy::Keeper)?;
            let from = match (owner, &attachment) {
                (Some(owner), _) => LockSource::Row(owner),
                (None, Some(attachment)) => LockSource::New(attachment),
                (None, None) => return Ok(()),
            };
            match acquire_once(tx, inner, &claim, from.into(), None, self.aside, Count::No)? {
                Acquired::Granted(granted, _) => owner = granted.first().map(|it| it.instance),
                Acquired::Held(obstacle) => {
                    give_up(&obstacle.holder)?;
                    // Of the process itself, by now, it is no loss.
                    let is_needed = self.tenant.is_some_and(|it| it.locks.contains(&row.fence));
                    if is_needed && obstacle.holder.pid != Some(pid) {
                        self.is_refused.set(true);
                    }
                }
                Acquired::Errand(errand) => return Err(self.interrupted(errand)),
            }
        }
        Ok(())
    }

    fn interrupted(&self, errand: Errand) -> Error {
        self.errand.set(Some(errand));
        Error::internal("something has to be done before the records can be made again")
    }
}

fn request_of(row: &LockRow) -> LockRequest {
    LockRequest {
        name: row.name.clone(),
        identity: Secret::of(b""),
        metadata: row.metadata.clone(),
        ttl_ms: row.ttl_ms,
        slots: row.slot.map(|slot| slot.of),
    }
}

/// The locks without which the office is not wanted, as far as they were not let go since.
fn wanted_again(
    tx: &Tx<'_>,
    inner: &Inner,
    kept: &KeptRow,
    tenant: &Tenant,
) -> Result<Vec<LockRequest>> {
    let mut wanted = Vec::new();
    for row in kept.locks.iter().filter(|row| tenant.locks.contains(&row.fence)) {
        if is_to_be_acquired(tx, inner, row)? {
            wanted.push(request_of(row));
        }
    }
    Ok(wanted)
}

/// Whether a lock of the store before is still wanted here, and not there already.
fn is_to_be_acquired(tx: &Tx<'_>, inner: &Inner, row: &LockRow) -> Result<bool> {
    let is_over = row.lease(inner.observer(), inner.clock().boot_ms()) == Lease::Expired;
    let is_there = locks::fence_at(tx, &row.name, row.slot)? == Some(row.fence);
    // Let go in a store that was recovered, before we came.
    let was_let_go = locks::how_it_ended(tx, row.instance, row.fence)?.is_some();
    Ok(!is_over && !is_there && !was_let_go)
}

/// Whoever holds it was faster. One who lost its store as well may only be about to come.
fn give_up(holder: &Holder) -> Result<()> {
    if holder.reason == Reason::OrphanedAnchor {
        return Err(Error::new(ErrorKind::Busy, holder.to_string()));
    }
    tracing::debug!(%holder, "is given up: the store was replaced, and somebody else has it now");
    Ok(())
}
