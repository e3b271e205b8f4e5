//! A wait that was in vain: a refusal like any other from then on, on record together with the end
//! of the wait. A supervisor that starts it again and again gets nowhere.

use crate::process::Subject;
use crate::records::conflicts::Refusal;
use crate::records::starts::Start;
use crate::records::{conflicts, locks, starts};
use crate::store::{Deferred, Inner, Tx};
use crate::{Holder, InstanceId, Office, ProfileName, Reason, Result, Wanted};

/// What is written down of it.
#[derive(Clone, Debug)]
pub(crate) struct InVain {
    /// The office that was claimed, if one was.
    office: Option<Office>,
    profile: Option<ProfileName>,
    subject: Subject,
    wanted: Wanted,
    holder: Option<InstanceId>,
    /// Why the holder counts as holding it.
    reason: Reason,
    /// The holder is this very process.
    is_this_process: bool,
    at_boot_ms: i64,
}

impl InVain {
    /// `holder` was in the way until the end.
    pub(crate) fn new(
        inner: &Inner,
        office: Option<&Office>,
        profile: Option<&ProfileName>,
        subject: &Subject,
        holder: &Holder,
    ) -> Self {
        Self {
            office: office.cloned(),
            profile: profile.cloned(),
            subject: subject.clone(),
            wanted: holder.wanted.clone(),
            holder: holder.instance,
            reason: holder.reason.clone(),
            is_this_process: holder.is_this_process,
            at_boot_ms: inner.clock().boot_ms(),
        }
    }

    pub(crate) fn record(&self, tx: &Tx<'_>) -> Result<()> {
        let (holder, reason) = (self.holder, self.reason.as_str());
        let start = match &self.wanted {
            // Of the office that this process has itself it is told without a word in the store.
            Wanted::Office(_) if self.is_this_process => return Ok(()),
            Wanted::Office(_) => Start::Refused { holder, reason },
            Wanted::Lock(_) => Start::RefusedForLock { holder, reason },
        };
        if let Some(office) = &self.office {
            let observer = tx.store().observer();
            starts::record_start(tx, office, &self.subject, observer, self.at_boot_ms, start)?;
        }
        let (Wanted::Lock(name), Some(holder)) = (&self.wanted, holder) else { return Ok(()) };
        // Threads that take turns are no conflict, nor is whoever has it reserved.
        let has_it = locks::all_of(tx, name)?.iter().any(|row| row.instance == holder);
        if self.is_this_process || !has_it {
            return Ok(());
        }
        let refusal = Refusal {
            holder,
            reason,
            profile: self.profile.as_ref(),
            party: self.subject.party.as_deref(),
            pid: self.subject.pid,
        };
        conflicts::count_lock_conflict(tx, name, &refusal)
    }
}

impl Deferred for InVain {
    fn write(&self, tx: &Tx<'_>) -> Result<()> {
        self.record(tx)
    }

    fn is_release(&self) -> bool {
        false
    }
}
