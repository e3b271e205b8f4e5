//! A held lock.

use std::sync::Arc;

use incumbent::{Acquire, ScopedLock};
use pyo3::prelude::*;
use serde_json::json;

use crate::call::outside;
use crate::error::after_release;
use crate::reply;
use crate::tenure::Guard;
use crate::watch::Watch;

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Lock(Guard<ScopedLock>);

/// The lock, or the refusal as JSON.
pub(crate) fn granted(py: Python<'_>, acquired: Acquire) -> PyResult<Py<PyAny>> {
    match acquired {
        Acquire::Granted(lock) => Ok(Py::new(py, Lock(Guard::new(lock)))?.into_any()),
        Acquire::Held(holder) => {
            Ok(reply::text(&reply::holder(&holder)).into_pyobject(py)?.into_any().unbind())
        }
    }
}

/// The locks, or the refusal as JSON.
pub(crate) fn all_granted(
    py: Python<'_>,
    acquired: Acquire<Vec<ScopedLock>>,
) -> PyResult<Py<PyAny>> {
    match acquired {
        Acquire::Granted(locks) => {
            let locks: Vec<Lock> = locks.into_iter().map(|it| Lock(Guard::new(it))).collect();
            Ok(locks.into_pyobject(py)?.into_any().unbind())
        }
        Acquire::Held(holder) => {
            Ok(reply::text(&reply::holder(&holder)).into_pyobject(py)?.into_any().unbind())
        }
    }
}

impl Lock {
    fn held(&self, py: Python<'_>) -> PyResult<Arc<ScopedLock>> {
        self.0.held().ok_or_else(|| after_release(py, "the lock"))
    }
}

#[pymethods]
impl Lock {
    /// What is known of it, as JSON: asks nobody.
    fn facts(&self, py: Python<'_>) -> PyResult<String> {
        let lock = self.held(py)?;
        Ok(reply::text(&json!({
            "scope": lock.name().scope,
            "identity_hash": lock.name().identity_hash,
            "slot": lock.slot(),
            "fence": lock.fence(),
            "instance": lock.instance(),
            "evicted": lock.evicted(),
            "reacquired": lock.reacquired(),
            "previous": lock.previous(),
        })))
    }

    /// None while it is held, else how it was lost.
    fn verify(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let lock = self.held(py)?;
        outside(py, move || Ok(reply::standing(&lock.verify()?)))
    }

    /// Makes its lease begin again; the answer is that of `verify`.
    fn renew(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let lock = self.held(py)?;
        outside(py, move || Ok(reply::standing(&lock.renew()?)))
    }

    fn watch(&self, py: Python<'_>) -> PyResult<Watch> {
        let lock = self.held(py)?;
        outside(py, move || Ok(Watch::new(lock.watch(|_| ())?)))
    }

    fn is_released(&self) -> bool {
        self.0.held().is_none()
    }

    /// None where it was released before.
    fn release(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.0.release(py, ScopedLock::release)
    }
}
