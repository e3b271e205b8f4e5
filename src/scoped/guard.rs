//! A held lock: the guard, how it is verified, renewed and released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::Value;

use crate::claim::OwnedRow;
use crate::claim::examine::Evicted;
use crate::claim::guard::watch;
use crate::environment::{Fault, planted};
use crate::names::slot::Slot;
use crate::owner::ending;
use crate::records::{End, EndReason, LockEnd, locks};
use crate::scoped::acquire::{GrantedLock, PreviousLock};
use crate::store::AnchoredBy;
use crate::{ErrorKind, InstanceId, LockName, LossWatch, Lost, Reason, Released, Result, Standing};

/// A scoped lock held by this process. Dropping it releases the lock, unless another guard of this
/// process shares it; the kernel releases it when the process ends, whatever way it ends.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Acquire, LockRequest, Released, Standing, Store};
/// use std::time::Duration;
///
/// let store = Store::open(directory.path().join("state.db"))?;
/// let request = LockRequest::new("account", "42")?.ttl(Duration::from_secs(60))?;
/// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
/// // Acquired again by the same process, it is shared: the same fence.
/// let Acquire::Granted(shared) = store.try_acquire(&request)? else { panic!("it is ours") };
/// assert!(shared.reacquired() && shared.fence() == lock.fence());
/// assert!(matches!(shared.release()?, Released::StillShared));
/// // While it is at work, and before an act that two holders must not both do:
/// assert_eq!(lock.renew()?, Standing::Held);
/// assert_eq!(lock.verify()?, Standing::Held);
/// assert!(matches!(lock.release()?, Released::Free));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The drop never panics: a release that cannot be written is kept and retried, see
/// [`Store::pending_releases`](crate::Store::pending_releases).
#[derive(Debug)]
#[must_use = "dropping the guard releases the lock"]
pub struct ScopedLock {
    footing: OwnedRow,
    granted: GrantedLock,
    /// Shared with the watches: what was let go was not lost.
    let_go: Arc<AtomicBool>,
}

impl ScopedLock {
    pub(super) fn new(footing: OwnedRow, granted: GrantedLock) -> Self {
        Self { footing, granted, let_go: Arc::default() }
    }

    /// As it was granted.
    pub(crate) fn granted(&self) -> &GrantedLock {
        &self.granted
    }

    /// Which lock it is.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.granted.name
    }

    /// Which of the slots it is; `None` for a lock without slots, which the guards of a process
    /// share.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        self.granted.slot
    }

    /// Rises with every change of holder, and stays while the holder stays: hand it to the
    /// resource, so that it can refuse whoever comes with a lower one.
    #[must_use]
    pub fn fence(&self) -> i64 {
        self.granted.fence
    }

    /// The row that the lock belongs to: that of an office, or this process' one without.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.footing.instance
    }

    /// The holder whose place was taken, if there was one.
    #[must_use]
    pub fn evicted(&self) -> Option<&Evicted> {
        self.granted.evicted.as_ref()
    }

    /// Whether the process held the lock before.
    #[must_use]
    pub fn reacquired(&self) -> bool {
        self.granted.previous.is_some()
    }

    /// The lock as it was recorded before it was acquired again: its old metadata, for one.
    #[must_use]
    pub fn previous(&self) -> Option<&PreviousLock> {
        self.granted.previous.as_ref()
    }

    /// What it said about itself before it was acquired again; `None` also where that was nothing.
    #[must_use]
    pub fn previous_metadata(&self) -> Option<&Value> {
        self.granted.previous.as_ref()?.metadata.as_ref()
    }

    /// Whether the lock is still held, by the store's word. Call it before an act that two holders
    /// must not both do. Reads only, unless somebody removed the anchor file: that is made again. A
    /// lease that ran out is no loss as long as nobody else got the lock. A store that is gone is
    /// not an error, but [`Lost::StoreReplaced`].
    ///
    /// # Errors
    /// As [`Tenure::verify`](crate::Tenure::verify).
    pub fn verify(&self) -> Result<Standing> {
        verify(&self.footing, &self.granted)
    }

    /// Starts the lease again, for as long as was asked for
    /// ([`LockRequest::ttl`](crate::LockRequest::ttl)); a lock without a lease has nothing to be
    /// renewed. Too late is not lost: while nobody else got the lock, this succeeds, with the same
    /// fence. Others see the new lease when this returns.
    ///
    /// # Errors
    /// Those of a change ([`Profile::set_desired`](crate::Profile::set_desired)) but
    /// [`StoreReplaced`](crate::ErrorKind::StoreReplaced), which is a loss;
    /// [`Filesystem`](crate::ErrorKind::Filesystem) where the anchor has to be made again.
    pub fn renew(&self) -> Result<Standing> {
        let inner = &self.footing.inner;
        if self.footing.anchored_by == AnchoredBy::TheRun
            && let lost @ Standing::Lost(_) = self.verify()?
        {
            // Of a successor of ours it would succeed.
            return Ok(lost);
        }
        let is_forgotten = planted(Fault::RenewForgetsTtl);
        let now_boot_ms = if is_forgotten { 0 } else { inner.clock().boot_ms() };
        let GrantedLock { name, slot, fence, .. } = &self.granted;
        let renewed = inner.write(|tx| {
            let renewed = locks::renew(tx, name, *slot, *fence, inner.observer(), now_boot_ms)?;
            if renewed && self.footing.anchored_by == AnchoredBy::Us {
                // Made anew where somebody removed its file, as a verification does.
                inner.anchor(tx)?;
            }
            Ok(renewed)
        });
        match renewed {
            Ok(true) => Ok(Standing::Held),
            // Lost, and a verification says how.
            Ok(false) => self.verify(),
            Err(error) if error.kind() == ErrorKind::StoreReplaced => self.verify(),
            Err(error) => Err(error),
        }
    }

    /// Watches the lock from a thread of its own and calls `on_loss` once, from that thread, within
    /// a second of its loss (of being continued, for a process that was stopped); never after a
    /// release. Where it cannot find out, it looks again. Dropping the watch ends it.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::stop::Force;
    /// use incumbent::{Acquire, LockRequest, Lost, Reason, Store};
    /// use std::sync::mpsc;
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let request = LockRequest::new("account", "42")?;
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
    /// let (told, lost) = mpsc::channel();
    /// let _watch = lock.watch(move |how| drop(told.send(how)))?;
    /// // A person removes it.
    /// store.unlock(lock.name(), Force::Yes, "alice")?;
    /// assert!(matches!(lost.recv()?, Lost::Ended { reason: Reason::Evicted, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) when there may be no more threads,
    /// [`Internal`](crate::ErrorKind::Internal) when none can be started for another reason.
    pub fn watch(&self, on_loss: impl FnOnce(Lost) + Send + 'static) -> Result<LossWatch> {
        let (footing, granted) = (self.footing.clone(), self.granted.clone());
        let looks = move || verify(&footing, &granted);
        watch(&self.footing, looks, Arc::clone(&self.let_go), on_loss)
    }

    /// Releases the lock now, and says what came of it. Dropping does the same in silence. It is
    /// free for others when this returns.
    ///
    /// # Errors
    /// [`Forked`](crate::ErrorKind::Forked) in a forked child, which releases nothing.
    pub fn release(mut self) -> Result<Released> {
        self.footing.inner.check_process()?;
        Ok(self.let_go())
    }

    fn let_go(&mut self) -> Released {
        if self.let_go.swap(true, Ordering::AcqRel) {
            return Released::WasLost;
        }
        let OwnedRow { inner, instance, nonce_hash, .. } = &self.footing;
        let mut held = inner.held.lock();
        match held.locks.get_mut(&self.granted.fence) {
            Some(ours) if ours.claims > 1 && !planted(Fault::SharedGuardReleases) => {
                ours.claims -= 1;
                return Released::StillShared;
            }
            Some(_) => {
                held.locks.remove(&self.granted.fence);
            }
            // Its row has ended, and the lock with it.
            None => return Released::WasLost,
        }
        // The row without an office is there for locks alone.
        let is_last = held.without_office.as_ref().is_some_and(|row| row.instance == *instance)
            && held.locks.values().all(|lock| lock.instance != *instance);
        if is_last {
            held.forget(*instance);
        }
        let end = End::new(EndReason::Released);
        inner.let_go(
            &held,
            |tx| {
                let how = LockEnd { reason: Reason::Released, by: None };
                let GrantedLock { name, slot, fence, .. } = &self.granted;
                let was_held = locks::end(tx, name, *slot, *fence, &how)?;
                if is_last {
                    ending::end_own(tx, *instance, nonce_hash, &end)?;
                }
                Ok(was_held)
            },
            || {
                if is_last {
                    let nonce_hash = nonce_hash.clone();
                    Arc::new(ending::RowRelease {
                        instance: *instance,
                        nonce_hash,
                        end: end.clone(),
                    })
                } else {
                    let GrantedLock { name, slot, fence, .. } = &self.granted;
                    Arc::new(locks::LockRelease { name: name.clone(), slot: *slot, fence: *fence })
                }
            },
        )
    }
}

fn verify(footing: &OwnedRow, lock: &GrantedLock) -> Result<Standing> {
    footing.verify(vec![lock.fence], |connection| {
        let lost = how_it_was_lost(connection, lock)?;
        Ok(lost.map(|(reason, by)| Lost::Ended { reason, by }))
    })
}

/// `None` while a lock still has the fence it was granted with; else why it ended, and by whom.
pub(crate) fn how_it_was_lost(
    connection: &Connection,
    lock: &GrantedLock,
) -> Result<Option<(Reason, Option<String>)>> {
    // An older copy of the store may know of no locks at all; then our row is missing, too.
    if !locks::exists(connection)? {
        return Ok(None);
    }
    if locks::fence_at(connection, &lock.name, lock.slot)? == Some(lock.fence) {
        return Ok(None);
    }
    let ended = locks::how_it_ended(connection, lock.instance, lock.fence)?;
    // Too long ago for the events: whatever nobody remembers was not let go by its owner, who looks
    // more often than that, unless somebody stopped it.
    Ok(Some(ended.unwrap_or((Reason::Evicted, None))))
}

impl Drop for ScopedLock {
    fn drop(&mut self) {
        // In a forked child the lock is the parent's: nothing to let go.
        if !self.let_go.load(Ordering::Acquire) && self.footing.inner.check_process().is_ok() {
            self.let_go();
        }
    }
}
