//! Scoped locks: at most one live holder of an identity within a scope, on the whole machine.
//!
//! A lock belongs to the row it was taken from and ends with it; its holder is as alive as that
//! row's process. It may be taken from a held office ([`Tenure`](crate::Tenure)), or from the store
//! itself, for a process without an office.

pub(crate) mod acquire;
pub(crate) mod ask;
pub(crate) mod attempt;
pub(crate) mod guard;
pub(crate) mod request;
pub(crate) mod slots;
mod stale;
pub(crate) mod survey;
pub(crate) mod unlock;
mod way;

pub(crate) use crate::scoped::acquire::GrantedLock;

use crate::claim::sweep::Force;
use crate::owner::ending;
use crate::records::{LockEnd, identities, instances, locks};
use crate::scoped::ask::LockReport;
use crate::scoped::attempt::Acquire;
use crate::scoped::guard::ScopedLock;
use crate::scoped::request::{AcquireOptions, LockRequest};
use crate::scoped::unlock::{Unlocked, UnlockedLock};
use crate::store::{OwnRow, transaction};
use crate::{Error, ErrorKind, InstanceId, LockName, Result, Store};

impl Store {
    /// Acquires a lock for this process, without an office; never waits for its holder. See
    /// [`Store::acquire_all`].
    ///
    /// ```
    /// use incumbent::{Acquire, LockRequest, Standing, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let request = LockRequest::new("telegram-bot-token", "123456:secret")?;
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
    /// assert_eq!(lock.verify()?, Standing::Held);
    /// assert_eq!(store.locks()?[0].pid, Some(std::process::id()));
    /// lock.release()?; // or drop it, or be killed: the lock is free
    /// assert!(store.locks()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::acquire_all`].
    pub fn try_acquire(&self, request: &LockRequest) -> Result<Acquire> {
        self.acquire(request, &AcquireOptions::new())
    }

    /// Acquires a lock for this process, without an office. See [`Store::acquire_all`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::lock::AcquireOptions;
    /// use incumbent::{Acquire, LockRequest, Store, Wait};
    /// use std::time::Duration;
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let request = LockRequest::new("port", "8443")?.exclusive();
    /// let options = AcquireOptions::new().wait(Wait::UpTo(Duration::from_secs(30)));
    /// let Acquire::Granted(first) = store.acquire(&request, &options)? else { unreachable!() };
    /// // Another thread waits for it, and has it as soon as it is released.
    /// let waiter = {
    ///     let (store, request) = (store.clone(), request.clone());
    ///     std::thread::spawn(move || store.acquire(&request, &options))
    /// };
    /// let fence = first.fence();
    /// drop(first);
    /// let Acquire::Granted(second) = waiter.join().unwrap()? else { panic!("30 s are over") };
    /// assert!(second.fence() > fence);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::acquire_all`].
    pub fn acquire(&self, request: &LockRequest, options: &AcquireOptions) -> Result<Acquire> {
        Ok(attempt::only(self.acquire_all(std::slice::from_ref(request), options)?))
    }

    /// Acquires all of these locks for this process, or none, in one transaction. Owners that are
    /// dead are ended; whoever lives (or cannot be told dead) is returned as [`Acquire::Held`].
    /// What is granted is visible to others when this returns, and ends with its guard, or with the
    /// process.
    ///
    /// Acquired again by the same process, a lock is shared: it keeps its fence, has the new
    /// metadata and lease, and is released with the last of its guards. Not one that is
    /// [exclusive](LockRequest::exclusive) or has [slots](LockRequest::slots): each guard of these
    /// is a holder of its own. Nor one that a [`Run`](crate::run::Run) of this process holds for
    /// its command.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::lock::AcquireOptions;
    /// use incumbent::{Acquire, LockRequest, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let token = LockRequest::new("telegram-bot-token", "123456:secret")?;
    /// let port = LockRequest::new("port", "8443")?;
    /// let Acquire::Granted(locks) = store.acquire_all(&[token, port], &AcquireOptions::new())?
    /// else {
    ///     panic!("nobody else is here");
    /// };
    /// assert_eq!((locks.len(), store.locks()?.len()), (2, 2));
    /// // All that was taken from one row, whatever becomes of the guards:
    /// assert_eq!(store.release_all(locks[0].instance())?, 2);
    /// assert!(store.locks()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Nothing is held then.
    /// * [`InvalidInput`](ErrorKind::InvalidInput): no locks, more than 64, or one named twice.
    /// * [`CannotWrite`](ErrorKind::CannotWrite), [`Permission`](ErrorKind::Permission): it could
    ///   not be recorded.
    /// * [`Filesystem`](ErrorKind::Filesystem): file locks do not work beside the store.
    /// * [`TooNew`](ErrorKind::TooNew); [`TooOld`](ErrorKind::TooOld) for a store that was opened
    ///   for asking only.
    /// * [`Busy`](ErrorKind::Busy): the store stayed locked, the lock changes hands too fast, or
    ///   this process is short of descriptors or memory.
    /// * [`CannotRead`](ErrorKind::CannotRead), [`Corrupt`](ErrorKind::Corrupt),
    ///   [`StoreReplaced`](ErrorKind::StoreReplaced), [`Forked`](ErrorKind::Forked).
    /// * [`Internal`](ErrorKind::Internal): what else the system says.
    pub fn acquire_all(
        &self,
        requests: &[LockRequest],
        options: &AcquireOptions,
    ) -> Result<Acquire<Vec<ScopedLock>>> {
        attempt::acquire_for_myself(self, None, requests, options)
    }

    /// Releases every lock that was taken from one row of this process, and says how many those
    /// were. Guards of them are lost from then on. The row is that of an office
    /// ([`Tenure::instance`](crate::Tenure::instance)) or the one without
    /// ([`ScopedLock::instance`]).
    ///
    /// # Errors
    /// [`NotOwner`](ErrorKind::NotOwner) for a row that is not this process' own, and those of
    /// [`Profile::set_desired`](crate::Profile::set_desired). What was released until then stays
    /// released.
    pub fn release_all(&self, instance: InstanceId) -> Result<usize> {
        self.inner.check_process()?;
        let mut held = self.inner.lock_held()?;
        let Some(row) = held.rows().find(|row| row.instance == instance).cloned() else {
            return Err(Error::new(
                ErrorKind::NotOwner,
                format!("this process does not hold instance {instance}"),
            )
            .with_hint("pass the instance of a tenure or lock of this process"));
        };
        let is_office = held.offices.values().any(|office| office.row.instance == instance);
        let mut count = 0;
        loop {
            let released = self.inner.write(|tx| release_some_of(tx, &row, is_office))?;
            count += released;
            if released < locks::ENDED_AT_ONCE {
                break;
            }
        }
        if is_office {
            held.locks.retain(|_, lock| lock.instance != instance);
        } else {
            held.forget(instance);
        }
        Ok(count)
    }

    /// All scoped locks of the store that are on record as held, with a verdict about each holder:
    /// the lock of a dead one is free for the next who asks. Reads only.
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn locks(&self) -> Result<Vec<LockReport>> {
        ask::locks(&self.inner)
    }

    /// What is on record of one lock, with a verdict about its holder; `None` where nobody is on
    /// record as its holder. The next acquire gets the lock of a dead holder. Of a lock with slots
    /// it is the lowest slot whose holder is not known to be dead, else the lowest;
    /// [`Store::locks`] has all. Reads only.
    ///
    /// ```
    /// use incumbent::{Acquire, LockName, LockRequest, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let name = LockName::new("telegram-bot-token", "123456:secret")?;
    /// assert!(store.lock(&name)?.is_none());
    /// let request = LockRequest::new("telegram-bot-token", "123456:secret")?;
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { panic!("nobody else") };
    /// let report = store.lock(&name)?.expect("it was just acquired");
    /// assert_eq!((report.fence, report.pid), (lock.fence(), Some(std::process::id())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn lock(&self, name: &LockName) -> Result<Option<LockReport>> {
        ask::lock(&self.inner, name)
    }

    /// Removes a lock whose holder is dead; one whose holder lives or cannot be told dead only when
    /// `force` says so. Of a lock with slots one is removed: that of a dead holder if there is one,
    /// else of one that cannot be told dead, else the lowest. `by` names who asked, for the record.
    /// Nothing is signalled: a live holder learns it from its next [`ScopedLock::verify`]. It is
    /// free for others when this returns.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::lock::Unlocked;
    /// use incumbent::stop::Force;
    /// use incumbent::{Acquire, LockRequest, Standing, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let request = LockRequest::new("port", "8443")?;
    /// let Acquire::Granted(lock) = store.try_acquire(&request)? else { unreachable!() };
    /// let refused = store.unlock(request.name(), Force::No, "alice")?;
    /// assert!(matches!(refused, Unlocked::Refused(_)), "its holder lives");
    /// let done = store.unlock(request.name(), Force::Yes, "alice")?;
    /// assert!(matches!(done, Unlocked::Done(unlocked) if unlocked.fence == lock.fence()));
    /// assert!(matches!(lock.verify()?, Standing::Lost(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::set_desired`](crate::Profile::set_desired).
    pub fn unlock(&self, name: &LockName, force: Force, by: &str) -> Result<Unlocked> {
        unlock::unlock(&self.inner, name, force, &identities::presentable(&self.inner, by))
    }

    /// Removes every lock whose holder is dead, as a sweep before a start. Needless for
    /// correctness: such a lock blocks nobody. At most 500 at a time, so that others can claim
    /// meanwhile; after an error those that were removed until then stay removed.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// let removed = store.unlock_stale("the start script")?;
    /// assert!(removed.is_empty(), "nobody died");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::set_desired`](crate::Profile::set_desired).
    pub fn unlock_stale(&self, by: &str) -> Result<Vec<UnlockedLock>> {
        stale::unlock_stale(&self.inner, &identities::presentable(&self.inner, by))
    }
}

/// Releases locks of a row, as many as one transaction does; one without an office ends with its
/// last lock.
fn release_some_of(tx: &transaction::Tx<'_>, row: &OwnRow, is_office: bool) -> Result<usize> {
    let released = instances::EndReason::Released;
    let how = LockEnd { reason: released.into(), by: None };
    let count = locks::end_some_of(tx, row.instance, &how)?;
    if !is_office && count < locks::ENDED_AT_ONCE {
        ending::end_own(tx, row.instance, &row.nonce.hash(), &instances::End::new(released))?;
    }
    Ok(count)
}
