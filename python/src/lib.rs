//! The native half of the Python package `incumbent`: handles of the library, and nothing that
//! decides. What goes in and comes out beside handles is JSON, in the shapes of the command line's
//! `--json`; `incumbent/` makes classes of it.

mod asks;
mod call;
mod error;
mod events;
mod exit;
mod handover;
mod kept;
mod lock;
mod options;
mod process;
mod reply;
mod shutdown;
mod store;
mod tenure;
mod transfer;
mod watch;

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Each interpreter of a process has modules of its own, so the address of one tells them apart.
static INTERPRETER: AtomicUsize = AtomicUsize::new(0);

/// A process has one handle of a store and one end, which one interpreter looks after.
fn refuse_other_interpreters(py: Python<'_>) -> PyResult<()> {
    let ours = py.import("builtins")?.as_ptr() as usize;
    match INTERPRETER.compare_exchange(0, ours, Ordering::SeqCst, Ordering::SeqCst) {
        Err(other) if other != ours => Err(PyImportError::new_err(
            "incumbent is in use by another interpreter of this process: import it in one of them",
        )),
        _ => Ok(()),
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_other_interpreters(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<call::Canceller>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<tenure::Tenure>()?;
    module.add_class::<tenure::Heart>()?;
    module.add_class::<lock::Lock>()?;
    module.add_class::<kept::Kept>()?;
    module.add_class::<watch::Watch>()?;
    module.add_class::<events::Events>()?;
    module.add_class::<shutdown::Shutdowns>()?;
    module.add_class::<call::ForkPause>()?;
    module.add_function(wrap_pyfunction!(call::prepare_exit, module)?)?;
    module.add_function(wrap_pyfunction!(call::after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(transfer::export, module)?)?;
    module.add_function(wrap_pyfunction!(transfer::import_files, module)?)?;
    module.add_function(wrap_pyfunction!(transfer::counters, module)?)?;
    module.add_function(wrap_pyfunction!(process::use_helper, module)?)?;
    module.add_function(wrap_pyfunction!(process::exists, module)?)?;
    module.add_function(wrap_pyfunction!(process::start_time, module)?)?;
    module.add_function(wrap_pyfunction!(process::command_line, module)?)?;
    module.add_function(wrap_pyfunction!(process::identify, module)?)?;
    module.add_function(wrap_pyfunction!(process::terminate, module)?)?;
    module.add_function(wrap_pyfunction!(process::snapshot, module)?)?;
    module.add_function(wrap_pyfunction!(process::systemd, module)?)?;
    module.add_function(wrap_pyfunction!(process::diagnose, module)?)?;
    module.add_function(wrap_pyfunction!(process::examine, module)?)?;
    module.add_function(wrap_pyfunction!(process::repair, module)?)?;
    module.add_function(wrap_pyfunction!(process::unit, module)?)
}
