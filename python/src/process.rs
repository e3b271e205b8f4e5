//! Facts of processes, and what concerns this one.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use incumbent::forensics::{Diagnostic, SystemdCheck};
use incumbent::helper::HelperProgram;
use incumbent::process::{AfterBudget, Fact, ProcessRef};
use incumbent::stop::StopPhases;
use incumbent::unit::Unit;
use incumbent::{doctor, exit::Supervisor, forensics, process};
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::asks::open_options;
use crate::call::outside;
use crate::options::{length, read};
use crate::reply;

/// The program of helper processes from now on.
#[pyfunction]
pub(crate) fn use_helper(program: PathBuf) {
    HelperProgram::new(program).use_from_now_on();
}

/// `present`, `gone` or `unknown`.
#[pyfunction]
pub(crate) fn exists(py: Python<'_>, pid: u32) -> PyResult<&'static str> {
    outside(py, || Ok(process::exists(pid)?.as_str()))
}

/// The start time with its unit; None where it is gone or cannot be told.
#[pyfunction]
pub(crate) fn start_time(py: Python<'_>, pid: u32) -> PyResult<Option<(i64, &'static str)>> {
    outside(py, || Ok(process::start_time(pid)?.known().map(|it| (it.value, it.unit.as_str()))))
}

#[pyfunction]
pub(crate) fn command_line(py: Python<'_>, pid: u32) -> PyResult<Option<Vec<String>>> {
    outside(py, || match process::command_line(pid)? {
        Fact::Known(words) => Ok(Some(words)),
        Fact::Gone | Fact::Unknown => Ok(None),
    })
}

/// A text that names this incarnation of a process and no later one of its pid.
#[pyfunction]
pub(crate) fn identify(py: Python<'_>, pid: u32) -> PyResult<String> {
    outside(py, || Ok(String::from(ProcessRef::of(pid)?)))
}

/// Ends a process, proven to be the one that `identity` or `pid` names; what came of it.
#[pyfunction]
pub(crate) fn terminate(
    py: Python<'_>,
    identity: &str,
    budget: f64,
    kill: bool,
    tree: bool,
) -> PyResult<&'static str> {
    let after = if kill { AfterBudget::Kill } else { AfterBudget::LetRun };
    outside(py, || {
        let process = ProcessRef::from_str(identity)?;
        if tree {
            return Ok(process::terminate_tree(&process, length(budget), after)?.root.as_str());
        }
        Ok(process::terminate(&process, length(budget), after)?.as_str())
    })
}

/// The snapshot of this process, and its line for a log. Never fails.
#[pyfunction]
pub(crate) fn snapshot(py: Python<'_>, signal: Option<i32>) -> PyResult<(String, String)> {
    outside(py, || {
        let snapshot = forensics::snapshot(signal);
        Ok((reply::text(&snapshot), snapshot.to_log_line()))
    })
}

/// Whether systemd gives this process the time that it needs to drain.
#[pyfunction]
pub(crate) fn systemd(py: Python<'_>, drain: f64, unit: Option<String>) -> PyResult<String> {
    outside(py, || {
        let phases = StopPhases::draining_for(length(drain));
        let check = match unit {
            Some(unit) => SystemdCheck::of_unit(&unit, &phases),
            None => SystemdCheck::of_this_process(&phases),
        };
        let reason = check.reason().map(str::to_owned);
        let advice = check.advice();
        Ok(reply::text(&json!({"check": check, "reason": reason, "advice": advice})))
    })
}

/// Starts the detached diagnostic; its pid.
#[pyfunction]
pub(crate) fn diagnose(
    py: Python<'_>,
    log: PathBuf,
    signal: Option<i32>,
    timeout: Option<f64>,
    store: Option<PathBuf>,
) -> PyResult<u32> {
    outside(py, || {
        let mut diagnostic = Diagnostic::new(log);
        if let Some(signal) = signal {
            diagnostic = diagnostic.signal(signal);
        }
        if let Some(timeout) = timeout {
            diagnostic = diagnostic.timeout(length(timeout));
        }
        if let Some(store) = store {
            diagnostic = diagnostic.store(store);
        }
        diagnostic.start()
    })
}

/// What blocks a start or lets two run, as JSON. Changes nothing.
#[pyfunction]
pub(crate) fn examine(py: Python<'_>, options: &str) -> PyResult<String> {
    let options = open_options(options)?;
    outside(py, || Ok(reply::text(&doctor::examine(&options))))
}

/// Repairs what is safe to repair, or says what that would be; as JSON.
#[pyfunction]
pub(crate) fn repair(py: Python<'_>, options: &str, by: &str, dry_run: bool) -> PyResult<String> {
    let options = open_options(options)?;
    let repair = if dry_run { doctor::Repair::DryRun } else { doctor::Repair::Do };
    outside(py, || Ok(reply::text(&doctor::repair(&options, by, repair))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitArguments {
    supervisor: String,
    name: String,
    command: Vec<String>,
    stop_budget: Option<f64>,
}

/// The files that a supervisor reads: name, mode, contents.
#[pyfunction]
pub(crate) fn unit(py: Python<'_>, options: &str) -> PyResult<Vec<(String, u32, Vec<u8>)>> {
    let asked: UnitArguments = read(options)?;
    outside(py, || {
        let supervisor = Supervisor::from_str(&asked.supervisor)?;
        let mut unit = Unit::new(supervisor, asked.name, asked.command);
        if let Some(budget) = asked.stop_budget {
            unit = unit.stop_budget(length(budget).max(Duration::from_millis(1)));
        }
        Ok(unit.files()?.into_iter().map(|it| (it.name, it.mode, it.contents)).collect())
    })
}
