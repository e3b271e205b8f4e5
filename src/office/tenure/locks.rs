//! The scoped locks of a held office.

use std::sync::Arc;

use crate::office::tenure::Tenure;
use crate::scoped::attempt::{Acquire, Tenancy, acquire_for_myself, only};
use crate::scoped::request::AcquireOptions;
use crate::{LockRequest, Result, ScopedLock, Store};

impl Tenure {
    /// Acquires a lock that ends with this tenure; never waits for its holder. See
    /// [`Tenure::acquire_all`].
    ///
    /// # Errors
    /// As [`Tenure::acquire_all`].
    pub fn try_acquire(&self, request: &LockRequest) -> Result<Acquire> {
        self.acquire(request, &AcquireOptions::new())
    }

    /// Acquires a lock that ends with this tenure. See [`Tenure::acquire_all`].
    ///
    /// # Errors
    /// As [`Tenure::acquire_all`].
    pub fn acquire(&self, request: &LockRequest, options: &AcquireOptions) -> Result<Acquire> {
        Ok(only(self.acquire_all(std::slice::from_ref(request), options)?))
    }

    /// Acquires all of these locks, or none, as [`Store::acquire_all`] does. They are shown as this
    /// office's, and end with it at the latest, whatever becomes of their guards. Visible to others
    /// when this returns.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::lock::AcquireOptions;
    /// use incumbent::{Acquire, Claim, LockRequest, Standing, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
    /// let token = LockRequest::new("telegram-bot-token", "123456:secret")?;
    /// let port = LockRequest::new("port", "8443")?;
    /// let locks = match tenure.acquire_all(&[token, port], &AcquireOptions::new())? {
    ///     Acquire::Granted(locks) => locks,
    ///     Acquire::Held(holder) => panic!("{holder}; {}", holder.advice()),
    /// };
    /// assert!(locks.iter().all(|lock| lock.instance() == tenure.instance()));
    /// // With the office they end, too.
    /// tenure.release()?;
    /// assert!(matches!(locks[0].verify()?, Standing::Lost(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Of the tenure of a `run` ([`Tenure::from_environment`]) the shared ones are the run's.
    /// What is exclusive, or has slots, is this process' own, as from [`Store::acquire_all`]: it
    /// ends with the guard or the process, and the next command of that `run` finds it free.
    ///
    /// # Errors
    /// [`NotOwner`](crate::ErrorKind::NotOwner) when the tenure was lost, and those of
    /// [`Store::acquire_all`].
    pub fn acquire_all(
        &self,
        requests: &[LockRequest],
        options: &AcquireOptions,
    ) -> Result<Acquire<Vec<ScopedLock>>> {
        let store = Store { inner: Arc::clone(&self.footing.inner) };
        acquire_for_myself(&store, Some(&self.tenancy()), requests, options)
    }

    /// What locks are taken from.
    pub(in crate::office) fn tenancy(&self) -> Tenancy<'_> {
        Tenancy { instance: self.instance(), office: self.office(), replaced: &[] }
    }
}
