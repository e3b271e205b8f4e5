//! The native half of the Python package `incumbent`: handles of the library, and nothing that
//! decides. What goes in and comes out beside handles is JSON, in the shapes of the command line's
//! `--json`; `incumbent/` makes classes of it.

mod call;
mod error;
mod events;
mod lock;
mod options;
mod process;
mod reply;
mod shutdown;
mod store;
mod tenure;
mod watch;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<call::Canceller>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<tenure::Tenure>()?;
    module.add_class::<tenure::Heart>()?;
    module.add_class::<lock::Lock>()?;
    module.add_class::<watch::Watch>()?;
    module.add_class::<events::Events>()?;
    module.add_class::<shutdown::Shutdowns>()?;
    module.add_class::<call::ForkPause>()?;
    module.add_function(wrap_pyfunction!(call::prepare_exit, module)?)?;
    module.add_function(wrap_pyfunction!(call::after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(process::use_helper, module)?)?;
    module.add_function(wrap_pyfunction!(process::exists, module)?)?;
    module.add_function(wrap_pyfunction!(process::start_time, module)?)?;
    module.add_function(wrap_pyfunction!(process::command_line, module)?)?;
    module.add_function(wrap_pyfunction!(process::identify, module)?)?;
    module.add_function(wrap_pyfunction!(process::terminate, module)?)?;
    module.add_function(wrap_pyfunction!(process::snapshot, module)?)?;
    module.add_function(wrap_pyfunction!(process::systemd, module)?)?;
    module.add_function(wrap_pyfunction!(process::diagnose, module)?)?;
    module.add_function(wrap_pyfunction!(process::unit, module)?)
}
