//! The scoped locks of a held office.

use std::sync::Arc;

use crate::office::tenure::Tenure;
use crate::scoped::attempt::{Acquire, Tenancy, acquire_for_myself, only};
use crate::scoped::request::AcquireOptions;
use crate::{LockRequest, Result, ScopedLock, Store};

impl Tenure {
    /// Acquires a lock that ends with this tenure; never waits. See [`Tenure::acquire_all`].
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
    /// office's, and end with it at the latest, whatever becomes of their guards.
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
