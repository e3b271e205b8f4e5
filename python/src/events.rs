//! The stream of committed changes.

use std::sync::Mutex;

use incumbent::Readiness;
use incumbent::status::EventStream;
use pyo3::prelude::*;

use crate::call::{Canceller, drop_outside, outside, waiting};
use crate::options::Waits;
use crate::reply;

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Events {
    stream: Mutex<Option<EventStream>>,
    readiness: Mutex<Option<Readiness>>,
}

impl Events {
    pub(crate) fn new(stream: EventStream) -> Self {
        Self { stream: Mutex::new(Some(stream)), readiness: Mutex::new(None) }
    }
}

#[pymethods]
impl Events {
    /// The next one as JSON; None where there is none in time, and of a closed stream.
    fn next(
        &self,
        py: Python<'_>,
        wait: Option<f64>,
        forever: bool,
        canceller: Option<&Canceller>,
    ) -> PyResult<Option<String>> {
        waiting(py, canceller, |cancel| {
            let Ok(mut kept) = self.stream.lock() else { return Ok(None) };
            let Some(stream) = kept.take() else { return Ok(None) };
            let mut stream = stream.cancel(cancel);
            let event = stream.next_event(Waits { wait, forever }.wait());
            *kept = Some(stream);
            Ok(event?.map(|it| reply::text(&it)))
        })
    }

    fn position(&self, py: Python<'_>) -> PyResult<Option<i64>> {
        outside(py, || {
            Ok(self.stream.lock().ok().and_then(|it| it.as_ref().map(EventStream::position)))
        })
    }

    /// Readable while there may be something new.
    #[cfg(unix)]
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        use std::os::fd::AsRawFd;
        outside(py, || {
            let (Ok(mut stream), Ok(mut kept)) = (self.stream.lock(), self.readiness.lock()) else {
                return Ok(-1);
            };
            if let (None, Some(stream)) = (&*kept, &mut *stream) {
                *kept = Some(stream.readiness()?);
            }
            Ok(kept.as_ref().map_or(-1, AsRawFd::as_raw_fd))
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        outside(py, || {
            drop(self.stream.lock().ok().and_then(|mut it| it.take()));
            Ok(())
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.lock().ok().and_then(|mut it| it.take()) {
            drop_outside(stream);
        }
    }
}
