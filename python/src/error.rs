//! Errors of the library as exceptions of the package.

use std::path::Path;

use incumbent::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Makes the exception: `incumbent._errors.make(kind, message, hint, path, retry_after)`.
static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn made(
    py: Python<'_>,
    kind: &str,
    message: &str,
    hint: Option<&str>,
    path: Option<&Path>,
    retry_after: Option<f64>,
) -> PyErr {
    let make = MAKE
        .get_or_try_init(py, || py.import("incumbent._errors")?.getattr("make").map(Bound::unbind));
    make.and_then(|it| it.bind(py).call1((kind, message, hint, path, retry_after)))
        .map_or_else(|failure| failure, PyErr::from_value)
}

/// The exception that stands for `error`.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let seconds = error.retry_after().map(|it| it.as_secs_f64());
    made(py, error.kind().as_str(), &error.to_string(), error.hint(), error.path(), seconds)
}

/// The exception for a call on a guard that was released.
pub(crate) fn after_release(py: Python<'_>, what: &str) -> PyErr {
    let kind = ErrorKind::NotOwner.as_str();
    made(py, kind, &format!("{what} was released"), Some("claim it again"), None, None)
}

/// What Python handed over is not what it should be: an error of the package itself, or of a
/// caller who used the private module.
pub(crate) fn not_understood(what: &str, error: &dyn std::fmt::Display) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(format!("{what}: {error}"))
}
