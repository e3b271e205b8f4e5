//! Tells of a loss: by a descriptor that a loop waits for, or when asked.

use std::sync::Mutex;

use incumbent::{LossWatch, Readiness};
use pyo3::prelude::*;

use crate::call::{drop_outside, outside};
use crate::reply;

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Watch {
    watch: Mutex<Option<LossWatch>>,
    readiness: Mutex<Option<Readiness>>,
}

impl Watch {
    pub(crate) fn new(watch: LossWatch) -> Self {
        Self { watch: Mutex::new(Some(watch)), readiness: Mutex::new(None) }
    }
}

#[pymethods]
impl Watch {
    /// None until it is lost.
    fn lost(&self, py: Python<'_>) -> PyResult<Option<String>> {
        outside(py, || match self.watch.lock().as_deref() {
            Ok(Some(watch)) => Ok(watch.lost()?.map(|it| reply::text(&reply::how_lost(&it)))),
            Ok(None) | Err(_) => Ok(None),
        })
    }

    /// Readable once it is lost.
    #[cfg(unix)]
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        use std::os::fd::AsRawFd;
        outside(py, || {
            let (Ok(watch), Ok(mut kept)) = (self.watch.lock(), self.readiness.lock()) else {
                return Ok(-1);
            };
            if let (None, Some(watch)) = (&*kept, &*watch) {
                *kept = Some(watch.readiness()?);
            }
            Ok(kept.as_ref().map_or(-1, AsRawFd::as_raw_fd))
        })
    }

    fn close(&self) {
        if let Some(watch) = self.watch.lock().ok().and_then(|mut it| it.take()) {
            drop_outside(watch);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.close();
    }
}
