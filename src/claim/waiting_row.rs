//! The row of a process that waits, for as long as it waits.

use std::sync::Arc;
use std::time::Duration;

use crate::claim::in_vain::InVain;
use crate::owner::ending::RowRelease;
use crate::owner::{ending, is_held};
use crate::patience::with_last_budget;
use crate::records::{End, EndReason, Identities, NewInstance, Origin, instances, waiters};
use crate::store::{Deferred, Inner, Tx};
use crate::{ErrorKind, InstanceId, Kind, Nonce, ProfileName, Result, Wanted};

/// How long the end of a wait may take where the store is busy: its deadline is kept to 20 ms.
pub(super) const LET_GO_WITHIN: Duration = Duration::from_millis(15);

/// A row of this process without an office, for as long as it waits for something: anchored, and
/// visible to others. It ends with this guard, unless it became something else.
#[derive(Debug)]
pub(crate) struct WaitingRow {
    inner: Arc<Inner>,
    pub(crate) instance: InstanceId,
    nonce: Nonce,
    /// It was ended together with what it waited for.
    pub(crate) has_ended: bool,
    /// It was in vain: that is on record with its end.
    pub(super) in_vain: Option<InVain>,
}

/// The end of a waiting row.
#[derive(Debug)]
struct WaitEnd {
    release: RowRelease,
    in_vain: Option<InVain>,
}

impl Deferred for WaitEnd {
    fn write(&self, tx: &Tx<'_>) -> Result<()> {
        let RowRelease { instance, nonce_hash, end } = &self.release;
        let is_ended_now = ending::end_own(tx, *instance, nonce_hash, end)?;
        // Once, however often this is written.
        match self.in_vain.as_ref().filter(|_| is_ended_now) {
            Some(in_vain) => in_vain.record(tx),
            None => Ok(()),
        }
    }

    fn releases(&self, row: InstanceId) -> bool {
        self.release.releases(row)
    }
}

/// What a waiting row says of its process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingAs<'a> {
    pub(crate) profile: Option<&'a ProfileName>,
    /// That of the office that is claimed, if one is.
    pub(crate) kind: Option<&'a Kind>,
    pub(crate) origin: Origin,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    pub(crate) argv: &'a [String],
}

impl WaitingRow {
    /// Inserts the row; the guard of it is made with [`WaitingRow::new`] after the commit.
    pub(crate) fn insert(
        tx: &Tx<'_>,
        inner: &Inner,
        nonce: &Nonce,
        wanted: &Wanted,
        as_whom: &WaitingAs<'_>,
    ) -> Result<InstanceId> {
        let subject = inner.myself();
        let anchor = inner.anchor(tx)?;
        // `stop --reason 'TOKEN is revoked'`.
        let words = as_whom.argv.iter().map(String::as_str);
        let argv = Identities::within(tx, words)?.mask_words(as_whom.argv);
        let instance = NewInstance {
            profile: as_whom.profile,
            origin: as_whom.origin,
            argv: &argv,
            anchor: Some(anchor.name()),
            version: as_whom.version,
            stop_budget_ms: as_whom.stop_budget_ms,
            ..NewInstance::without_office(subject, inner.observer(), nonce)
        }
        .insert(tx)?;
        waiters::insert(tx, instance, subject.pid, as_whom.profile, as_whom.kind, wanted)?;
        Ok(instance)
    }

    pub(crate) fn new(inner: &Arc<Inner>, instance: InstanceId, nonce: Nonce) -> Self {
        Self { inner: Arc::clone(inner), instance, nonce, has_ended: false, in_vain: None }
    }

    /// Ends the row together with what `also` writes.
    pub(crate) fn end_with(mut self, also: impl Fn(&Tx<'_>) -> Result<()>) -> Result<()> {
        let hash = self.nonce.hash();
        self.inner.write(|tx| {
            also(tx)?;
            ending::end_own(tx, self.instance, &hash, &End::new(EndReason::Released))?;
            Ok(())
        })?;
        self.has_ended = true;
        Ok(())
    }
}

impl Drop for WaitingRow {
    fn drop(&mut self) {
        if self.has_ended || self.inner.check_process().is_err() {
            return;
        }
        let release = RowRelease {
            instance: self.instance,
            nonce_hash: self.nonce.hash(),
            end: End::new(EndReason::Released),
        };
        let end = WaitEnd { release, in_vain: self.in_vain.take() };
        // Nothing else would end it where the caller's own budget has ended the wait.
        let ended = with_last_budget(LET_GO_WITHIN, || {
            self.inner.write(|tx| {
                end.write(tx)?;
                // Waits in vain are no grants, which prune otherwise.
                if tx.prunes() {
                    instances::prune_without_office(tx, |anchor| is_held(&self.inner, anchor))?;
                }
                Ok(())
            })
        });
        match ended {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StoreReplaced => {
                self.inner.let_go_of_lost_store();
            }
            // With the next change of this process: it may live for months.
            Err(error) => {
                tracing::debug!(%error, "the end of a wait is kept for later");
                self.inner.pending.lock().push(Arc::new(end));
            }
        }
    }
}
