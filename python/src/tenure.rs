//! A held office, and its heartbeat.

use std::sync::{Arc, Mutex};

use incumbent::exit::{End, ExitCodes, Supervisor};
use incumbent::forensics::HostSignal;
use incumbent::handover::HandedOver;
use incumbent::marker::MarkerName;
use incumbent::{Acquire, Error, Heartbeat, Released};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Deserialize;
use serde_json::json;

use crate::call::{Canceller, drop_outside, outside, waiting};
use crate::error::{after_release, not_understood};
use crate::exit;
use crate::handover::{self, Program, ReplaceArguments};
use crate::lock::{all_granted, granted};
use crate::options::{AcquireArguments, LockArguments, length, read, requests, status_update};
use crate::reply;
use crate::shutdown::Shutdowns;
use crate::watch::Watch;

/// A guard that calls share and that one call takes away.
pub(crate) struct Guard<T: Send + Sync>(Mutex<Option<Arc<T>>>);

impl<T: Send + Sync> Guard<T> {
    pub(crate) fn new(guard: T) -> Self {
        Self(Mutex::new(Some(Arc::new(guard))))
    }

    /// None once it was released.
    pub(crate) fn held(&self) -> Option<Arc<T>> {
        self.0.lock().ok().and_then(|it| it.clone())
    }

    fn take(&self) -> Option<Arc<T>> {
        self.0.lock().ok().and_then(|mut it| it.take())
    }

    /// Lets it go by `release`, without the interpreter's lock. Where a call of another thread has
    /// it, such as a wait, the end of that call does, and the answer says so.
    pub(crate) fn release(
        &self,
        py: Python<'_>,
        release: impl FnOnce(T) -> Result<Released, Error> + Send,
    ) -> PyResult<Option<String>> {
        let Some(guard) = self.take() else { return Ok(None) };
        outside(py, || match Arc::try_unwrap(guard) {
            Ok(guard) => Ok(Some(reply::released(&release(guard)?))),
            Err(in_use) => {
                drop(in_use);
                Ok(Some(reply::text(&json!({"released": "in_use", "error": null}))))
            }
        })
    }
}

impl<T: Send + Sync> Drop for Guard<T> {
    fn drop(&mut self) {
        if let Some(guard) = self.take() {
            drop_outside(guard);
        }
    }
}

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Tenure(Guard<incumbent::Tenure>);

/// How a tenure ends: `code` of an exit, or the words of a crash.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct EndArguments {
    crashed: bool,
    exit_code: Option<i32>,
    detail: Option<String>,
}

/// Which exit codes a signal leads to.
pub(crate) fn exit_codes(supervisor: Option<&str>) -> PyResult<ExitCodes> {
    let supervisor = match supervisor {
        None => Supervisor::of_this_process(),
        Some(name) => name.parse().map_err(|error: Error| not_understood("supervisor", &error))?,
    };
    Ok(ExitCodes::of(supervisor))
}

impl Tenure {
    pub(crate) fn new(tenure: incumbent::Tenure) -> Self {
        Self(Guard::new(tenure))
    }

    fn held(&self, py: Python<'_>) -> PyResult<Arc<incumbent::Tenure>> {
        self.0.held().ok_or_else(|| after_release(py, "the office"))
    }
}

#[pymethods]
impl Tenure {
    /// What is known of it, as JSON: asks nobody.
    fn facts(&self, py: Python<'_>) -> PyResult<String> {
        Ok(reply::text(&reply::tenure(&*self.held(py)?)))
    }

    /// Null while it is held, else how it was lost.
    fn verify(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let tenure = self.held(py)?;
        outside(py, move || Ok(reply::standing(&tenure.verify()?)))
    }

    fn watch(&self, py: Python<'_>) -> PyResult<Watch> {
        let tenure = self.held(py)?;
        outside(py, move || Ok(Watch::new(tenure.watch(|_| ())?)))
    }

    fn update_status(&self, py: Python<'_>, update: &str) -> PyResult<()> {
        let tenure = self.held(py)?;
        let update = status_update(py, update)?;
        outside(py, move || tenure.update_status(&update))
    }

    fn heartbeat(&self, py: Python<'_>, every: f64) -> PyResult<Heart> {
        let tenure = self.held(py)?;
        outside(py, move || Ok(Heart(Mutex::new(Some(tenure.heartbeat(length(every))?)))))
    }

    /// The lock, or the refusal as JSON.
    fn acquire(
        &self,
        py: Python<'_>,
        lock: &str,
        identity: &Bound<'_, PyBytes>,
        options: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<Py<PyAny>> {
        let tenure = self.held(py)?;
        let lock: LockArguments = read(lock)?;
        let asked: AcquireArguments = read(options)?;
        let identity = identity.as_bytes();
        let acquired: Acquire = waiting(py, canceller, move |cancel| {
            tenure.acquire(&lock.request(identity)?, &asked.options(cancel))
        })?;
        granted(py, acquired)
    }

    /// All of them, or the refusal as JSON.
    fn acquire_all(
        &self,
        py: Python<'_>,
        locks: &str,
        identities: Vec<Vec<u8>>,
        options: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<Py<PyAny>> {
        let tenure = self.held(py)?;
        let locks: Vec<LockArguments> = read(locks)?;
        let asked: AcquireArguments = read(options)?;
        let acquired = waiting(py, canceller, move |cancel| {
            tenure.acquire_all(&requests(locks, &identities)?, &asked.options(cancel))
        })?;
        all_granted(py, acquired)
    }

    /// All of them, also from live holders of this profile; or the refusal as JSON.
    fn take_over(
        &self,
        py: Python<'_>,
        locks: &str,
        identities: Vec<Vec<u8>>,
        options: &str,
        replace: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<Py<PyAny>> {
        let tenure = self.held(py)?;
        let locks: Vec<LockArguments> = read(locks)?;
        let asked: AcquireArguments = read(options)?;
        let replace = read::<ReplaceArguments>(replace)?.replace();
        let acquired = waiting(py, canceller, move |cancel| {
            tenure.take_over(&requests(locks, &identities)?, &asked.options(cancel), &replace)
        })?;
        all_granted(py, acquired)
    }

    /// Becomes another program; comes back only by an exception.
    fn exec(&self, py: Python<'_>, program: Program) -> PyResult<()> {
        let tenure = self.held(py)?;
        let command = program.command()?;
        outside(py, move || Err(tenure.exec(command)))
    }

    /// Starts a successor. What was handed over is released here.
    fn hand_over(&self, py: Python<'_>, program: Program, within: f64) -> PyResult<String> {
        let tenure = self.held(py)?;
        let command = program.command()?;
        let within = length(within);
        let handed_over = outside(py, move || tenure.hand_over(command, within))?;
        if matches!(handed_over, HandedOver::Yes(_)) {
            self.0.release(py, incumbent::Tenure::release)?;
        }
        Ok(reply::text(&handover::outcome(&handed_over)))
    }

    fn peek_marker(&self, py: Python<'_>, name: Option<&str>) -> PyResult<Option<String>> {
        let tenure = self.held(py)?;
        outside(py, move || {
            let name = name.map(MarkerName::new).transpose()?;
            Ok(tenure.peek_marker(name.as_ref())?.map(|it| reply::text(&it)))
        })
    }

    /// The marker, and whether it is on record that it was consumed.
    fn consume_marker(
        &self,
        py: Python<'_>,
        name: Option<&str>,
    ) -> PyResult<Option<(String, bool)>> {
        let tenure = self.held(py)?;
        outside(py, move || {
            let name = name.map(MarkerName::new).transpose()?;
            let consumed = tenure.consume_marker(name.as_ref())?;
            Ok(consumed.map(|it| (reply::text(&it.marker), it.recorded)))
        })
    }

    /// Why this process is being stopped, as far as the store knows.
    fn why_stopped(&self, py: Python<'_>) -> PyResult<String> {
        let tenure = self.held(py)?;
        outside(py, move || Ok(reply::asked_to_stop(&tenure.stop_inquiry().ask())))
    }

    /// Catches the signals that ask to end.
    fn on_shutdown(&self, py: Python<'_>, supervisor: Option<&str>) -> PyResult<Shutdowns> {
        let codes = exit_codes(supervisor)?;
        let tenure = self.held(py)?;
        Shutdowns::catching(py, &tenure, codes)
    }

    /// Lets the host catch them.
    fn shutdown_feed(&self, py: Python<'_>, supervisor: Option<&str>) -> PyResult<Shutdowns> {
        let codes = exit_codes(supervisor)?;
        let tenure = self.held(py)?;
        Shutdowns::fed(py, &tenure, codes)
    }

    /// The answer for one signal that the host has caught.
    fn shutdown_by(
        &self,
        py: Python<'_>,
        signal: i32,
        supervisor: Option<&str>,
    ) -> PyResult<String> {
        let codes = exit_codes(supervisor)?;
        let tenure = self.held(py)?;
        outside(py, move || {
            Ok(reply::shutdown(&tenure.shutdown_by(HostSignal::new(signal), &codes)?))
        })
    }

    fn snapshot(&self, py: Python<'_>, signal: Option<i32>) -> PyResult<(String, String)> {
        let tenure = self.held(py)?;
        outside(py, move || {
            let snapshot = tenure.snapshot(signal);
            Ok((reply::text(&snapshot), snapshot.to_log_line()))
        })
    }

    fn is_released(&self) -> bool {
        self.0.held().is_none()
    }

    /// Leaves the release to the end of the process, which tells the exit code; where it does not,
    /// releases now.
    fn leave_to_exit(&self, py: Python<'_>) -> PyResult<()> {
        self.0.release(py, exit::leave).map(drop)
    }

    /// None where it was released before.
    fn release(&self, py: Python<'_>, end: Option<&str>) -> PyResult<Option<String>> {
        let Some(end) = end else { return self.0.release(py, incumbent::Tenure::release) };
        let asked: EndArguments = read(end)?;
        let mut end = match asked.exit_code {
            _ if asked.crashed => End::crashed(),
            Some(code) => End::exited(code),
            None => End::released(),
        };
        if let Some(code) = asked.exit_code {
            end = end.exit_code(code);
        }
        if let Some(detail) = asked.detail {
            end = end.detail(detail);
        }
        self.0.release(py, move |tenure| tenure.release_with(end))
    }
}

/// A heartbeat: what beats says that its loop turns.
#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Heart(Mutex<Option<Heartbeat>>);

#[pymethods]
impl Heart {
    /// Sets a flag; a thread of the library writes it down.
    fn beat(&self) {
        if let Ok(heart) = self.0.lock()
            && let Some(heart) = &*heart
        {
            heart.beat();
        }
    }

    fn stop(&self) {
        if let Some(heart) = self.0.lock().ok().and_then(|mut it| it.take()) {
            drop_outside(heart);
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop();
    }
}
