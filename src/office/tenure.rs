//! A held office: the guard, how it is let go, and how its loss is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::claim::{Evicted, Granted};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{self, End, EndReason};
use crate::names::{InstanceId, Nonce, Office};
use crate::store::{HeldOffice, Inner, PendingEnd, Store, lock};
use crate::sys::{self, StartTime};

/// How often a watched tenure is verified: a replaced store is noticed within a second.
const VERIFY_EVERY: Duration = Duration::from_millis(500);

/// An office held by this process. Dropping it releases the office, unless another claim of this
/// process shares it; the kernel releases it when the process ends, whatever way it ends.
///
/// The drop never panics: a release that cannot be written is kept and retried, see
/// [`Store::pending_releases`].
#[derive(Debug)]
#[must_use = "dropping the tenure releases the office"]
pub struct Tenure {
    inner: Arc<Inner>,
    office: Office,
    instance: InstanceId,
    nonce: Nonce,
    nonce_hash: String,
    evicted: Option<Evicted>,
    reacquired: bool,
    let_go: bool,
}

/// Whether an office is still held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Held,
    /// It is not: stop acting for it.
    Lost(Lost),
}

/// How a held office was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// The store file was deleted, replaced or restored from a copy without this tenure.
    StoreReplaced,
    /// The record was ended by somebody else.
    Ended {
        /// Why, in snake case: `evicted`, `taken_over`.
        reason: String,
        /// Who did it, if they said so.
        by: Option<String>,
    },
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StoreReplaced => f.write_str("the store was deleted or replaced"),
            Self::Ended { reason, by: Some(by) } => write!(f, "{reason} by {by}"),
            Self::Ended { reason, by: None } => f.write_str(reason),
        }
    }
}

/// What came of a release.
#[derive(Debug)]
pub enum Released {
    /// The office is free.
    Free,
    /// Another claim of this process still holds it.
    StillShared,
    /// It was lost before.
    WasLost,
    /// It could not be written; it is kept and written with the next change that succeeds.
    Pending(Error),
}

impl Tenure {
    pub(super) fn new(store: &Store, office: &Office, granted: Granted) -> Self {
        Self {
            inner: Arc::clone(&store.inner),
            office: office.clone(),
            instance: granted.instance,
            nonce_hash: granted.nonce.hash(),
            nonce: granted.nonce,
            evicted: granted.evicted,
            reacquired: false,
            let_go: false,
        }
    }

    pub(super) fn shared(store: &Store, office: &Office, held: &HeldOffice) -> Self {
        Self {
            inner: Arc::clone(&store.inner),
            office: office.clone(),
            instance: held.instance,
            nonce: held.nonce.clone(),
            nonce_hash: held.nonce.hash(),
            evicted: None,
            reacquired: true,
            let_go: false,
        }
    }

    /// The office that is held.
    #[must_use]
    pub fn office(&self) -> &Office {
        &self.office
    }

    /// This incarnation; also the office's fence: it rises with every change of holder.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The proof of ownership, for handing to a child process that acts for this one.
    #[must_use]
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// The dead holder whose place was taken, if there was one.
    #[must_use]
    pub fn evicted(&self) -> Option<&Evicted> {
        self.evicted.as_ref()
    }

    /// Whether the process held the office before this claim.
    #[must_use]
    pub fn reacquired(&self) -> bool {
        self.reacquired
    }

    /// Whether the office is still held, by the store's word. Call it before an act that two
    /// owners must not both do; [`Tenure::watch`] calls it in the background. An anchor file that
    /// somebody removed is made anew.
    ///
    /// # Errors
    /// When it could not be found out: [`Busy`](ErrorKind::Busy),
    /// [`CannotRead`](ErrorKind::CannotRead), [`Corrupt`](ErrorKind::Corrupt),
    /// [`Forked`](ErrorKind::Forked).
    pub fn verify(&self) -> Result<Standing> {
        let read = self.inner.read(|connection| instance::standing(connection, self.instance));
        let row = match read {
            // A reader made just now cannot even open a file that is gone.
            Err(error)
                if error.kind() == ErrorKind::StoreReplaced || !self.inner.is_at_its_path() =>
            {
                return Ok(Standing::Lost(Lost::StoreReplaced));
            }
            row => row?,
        };
        // Rows are never deleted while live: a store without ours is an older copy.
        let Some(row) = row.filter(|row| row.nonce_hash == self.nonce_hash) else {
            return Ok(Standing::Lost(Lost::StoreReplaced));
        };
        if let Some((reason, by)) = row.ended {
            return Ok(Standing::Lost(Lost::Ended { reason, by }));
        }
        self.restore_anchor(row.anchor.as_deref())?;
        Ok(Standing::Held)
    }

    /// A held lock on a file that its path no longer names, or that our row does not, is invisible
    /// to everybody else.
    fn restore_anchor(&self, named: Option<&str>) -> Result<()> {
        match self.inner.own_anchor() {
            Some(anchor) if anchor.is_in_place() && named == Some(anchor.name()) => Ok(()),
            Some(_) | None => self.inner.write(|tx| {
                // Another thread may have released it since: no row, no anchor.
                let still_ours = instance::standing(tx, self.instance)?
                    .is_some_and(|row| row.ended.is_none() && row.nonce_hash == self.nonce_hash);
                if !still_ours {
                    return Ok(());
                }
                let anchor = self.inner.anchor(tx)?;
                instance::set_anchor(tx, self.instance, &self.nonce_hash, anchor.name())
            }),
        }
    }

    /// Watches the tenure from a thread of its own and calls `on_loss` once, from that thread,
    /// within a second of its loss. Dropping the watch ends it.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) when no thread can be started.
    pub fn watch(&self, on_loss: impl FnOnce(Lost) + Send + 'static) -> Result<LossWatch> {
        let observed = Self {
            inner: Arc::clone(&self.inner),
            office: self.office.clone(),
            instance: self.instance,
            nonce: self.nonce.clone(),
            nonce_hash: self.nonce_hash.clone(),
            evicted: None,
            reacquired: true,
            // A watcher holds nothing that its drop could release.
            let_go: true,
        };
        let ended = Arc::new(AtomicBool::new(false));
        let seen_ended = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("incumbent-watch".to_owned())
            .spawn(move || {
                while !seen_ended.load(Ordering::Acquire) {
                    match observed.verify() {
                        Ok(Standing::Held) => {}
                        Ok(Standing::Lost(lost)) => return on_loss(lost),
                        // Not knowing is not losing: look again.
                        Err(error) => tracing::warn!(%error, "cannot verify the tenure"),
                    }
                    std::thread::park_timeout(VERIFY_EVERY);
                }
            })
            .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
        Ok(LossWatch { creator_pid: std::process::id(), ended, thread: Some(thread) })
    }

    /// Releases the office now, and says what came of it. Dropping does the same in silence.
    ///
    /// # Errors
    /// [`Forked`](ErrorKind::Forked) in a forked child, which releases nothing.
    pub fn release(mut self) -> Result<Released> {
        self.inner.check_process()?;
        Ok(self.let_go(&End::new(EndReason::Released)))
    }

    /// Releases the office with a record of how its command ended.
    pub(crate) fn end(mut self, how: &End) -> Result<Released> {
        self.inner.check_process()?;
        Ok(self.let_go(how))
    }

    /// Gives up the tenure without writing to a store that is gone.
    pub(crate) fn abandon(mut self) {
        self.let_go = true;
        let mut tenures = lock(&self.inner.tenures);
        if tenures.get(&self.office).is_some_and(|held| held.instance == self.instance) {
            tenures.remove(&self.office);
        }
    }

    /// Records the command that a `run` is about to let go. False when the office was lost.
    pub(crate) fn set_child(&self, pid: sys::Pid, start_time: Option<StartTime>) -> Result<bool> {
        self.inner.write(|tx| instance::set_child(tx, self.instance, &self.nonce, pid, start_time))
    }

    fn let_go(&mut self, how: &End) -> Released {
        if std::mem::replace(&mut self.let_go, true) {
            return Released::WasLost;
        }
        let mut tenures = lock(&self.inner.tenures);
        if let Some(held) = tenures.get_mut(&self.office)
            && held.instance == self.instance
        {
            held.claims -= 1;
            if held.claims > 0 {
                return Released::StillShared;
            }
            tenures.remove(&self.office);
        }
        let nonce_hash = self.nonce_hash.clone();
        match self.inner.write(|tx| instance::end_own(tx, self.instance, &nonce_hash, how)) {
            Ok(true) => Released::Free,
            Ok(false) => Released::WasLost,
            Err(error) if error.kind() == ErrorKind::StoreReplaced => {
                if tenures.is_empty() {
                    self.inner.abandon_anchor();
                }
                Released::WasLost
            }
            Err(error) => {
                tracing::warn!(office = %self.office, %error, "release kept for later");
                let end = how.clone();
                let pending = PendingEnd { instance: self.instance, nonce_hash, end };
                lock(&self.inner.pending).push(pending);
                // Nobody shall be kept out because we cannot write.
                if tenures.is_empty() {
                    self.inner.abandon_anchor();
                }
                Released::Pending(error)
            }
        }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        // In a forked child the office is the parent's: nothing to let go.
        if !self.let_go && self.inner.check_process().is_ok() {
            self.let_go(&End::new(EndReason::Released));
        }
    }
}

/// A watch over a tenure; see [`Tenure::watch`]. Dropping it ends the watch.
#[derive(Debug)]
#[must_use = "dropping the watch ends it"]
pub struct LossWatch {
    creator_pid: u32,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for LossWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // In a forked child there is no such thread.
            if self.creator_pid != std::process::id() {
                return std::mem::forget(thread);
            }
            thread.thread().unpark();
            // Not when the callback itself drops the watch: a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
