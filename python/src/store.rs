//! A store: offices and locks are claimed from it, and asked about.

use std::path::PathBuf;

use incumbent::lock::{IdentityHash, Scope};
use incumbent::marker::MarkerName;
use incumbent::status::{Awaited, Desired};
use incumbent::stop::Force;
use incumbent::{
    Acquire, Claim, Error, InstanceId, Kind, LockName, Profile, ProfileName, Tenure as Held,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Value, json};

use crate::asks::{
    MarkerArguments, PastArguments, ReadyArguments, RequestArguments, open_options, value_of,
};
use crate::call::{Canceller, outside, waiting};
use crate::events::Events;
use crate::lock::{all_granted, granted};
use crate::options::{AcquireArguments, ClaimArguments, LockArguments, read, requests};
use crate::reply;
use crate::tenure::Tenure;

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Store(pub(crate) incumbent::Store);

impl Store {
    fn profile(&self, name: &str, home: Option<&PathBuf>) -> Result<Profile, Error> {
        let profile = self.0.profile(name)?;
        match home {
            Some(home) => profile.with_home(home),
            None => Ok(profile),
        }
    }
}

#[pymethods]
impl Store {
    #[staticmethod]
    fn open(py: Python<'_>, options: &str) -> PyResult<Self> {
        let options = open_options(options)?;
        outside(py, || options.open()).map(Self)
    }

    /// None where there is none.
    #[staticmethod]
    fn open_existing(py: Python<'_>, options: &str) -> PyResult<Option<Self>> {
        let options = open_options(options)?;
        Ok(outside(py, || options.open_existing())?.map(Self))
    }

    #[staticmethod]
    fn resolved_path(py: Python<'_>, options: &str) -> PyResult<PathBuf> {
        let options = open_options(options)?;
        outside(py, || options.resolved_path())
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn uuid(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || self.0.uuid())
    }

    fn pending_releases(&self) -> usize {
        self.0.pending_releases()
    }

    fn backup(&self, py: Python<'_>, file: PathBuf) -> PyResult<u64> {
        outside(py, || self.0.backup(file))
    }

    /// The tenure, or the refusal as JSON.
    fn claim(
        &self,
        py: Python<'_>,
        profile: &str,
        home: Option<PathBuf>,
        options: &str,
        identities: Vec<Vec<u8>>,
        canceller: Option<&Canceller>,
    ) -> PyResult<Py<PyAny>> {
        let arguments: ClaimArguments = read(options)?;
        let claimed = waiting(py, canceller, |cancel| {
            let options = arguments.options(&identities, cancel)?;
            self.profile(profile, home.as_ref())?.claim_with(&options)
        })?;
        match claimed {
            Claim::Granted(tenure) => Ok(Py::new(py, Tenure::new(tenure))?.into_any()),
            Claim::Held(holder) => {
                Ok(reply::text(&reply::holder(&holder)).into_pyobject(py)?.into_any().unbind())
            }
        }
    }

    /// The tenure of the run or of the predecessor that this process is in, or why there is none.
    fn inherited(&self, py: Python<'_>) -> PyResult<(Option<Tenure>, String)> {
        let inherited = outside(py, || Held::from_environment(&self.0))?;
        Ok(match inherited {
            incumbent::handover::Inherited::FromRun(tenure) => {
                (Some(Tenure::new(tenure)), "run".to_owned())
            }
            incumbent::handover::Inherited::FromPredecessor(tenure) => {
                (Some(Tenure::new(tenure)), "predecessor".to_owned())
            }
            incumbent::handover::Inherited::Nothing(why) => (None, why.as_str().to_owned()),
            _ => (None, "unknown".to_owned()),
        })
    }

    fn status(&self, py: Python<'_>, profile: &str, kind: &str) -> PyResult<String> {
        outside(py, || {
            let report = self.0.profile(profile)?.status_of(&Kind::new(kind)?)?;
            Ok(reply::text(&report))
        })
    }

    fn status_of_all(
        &self,
        py: Python<'_>,
        profile: Option<&str>,
        kind: Option<&str>,
    ) -> PyResult<String> {
        outside(py, || {
            let profile = profile.map(ProfileName::new).transpose()?;
            let kind = kind.map(Kind::new).transpose()?;
            Ok(reply::text(&self.0.status_of_matching(profile.as_ref(), kind.as_ref())?))
        })
    }

    fn status_of_process(&self, py: Python<'_>, pid: u32) -> PyResult<String> {
        outside(py, || Ok(reply::text(&self.0.status_of_process(pid)?)))
    }

    fn running_pid(&self, py: Python<'_>, profile: &str, kind: &str) -> PyResult<Option<u32>> {
        outside(py, || self.0.profile(profile)?.running_pid(&Kind::new(kind)?))
    }

    /// What the gateway said of itself, alone: the quick way to it.
    fn runtime(&self, py: Python<'_>, profile: &str, kind: &str) -> PyResult<Option<String>> {
        outside(py, || {
            let runtime = self.0.profile(profile)?.runtime(&Kind::new(kind)?)?;
            Ok(runtime.map(|it| {
                reply::text(&json!({
                    "state": it.state,
                    "state_since_ms": it.state_since_ms,
                    "exit_reason": it.exit_reason,
                    "restart_requested": it.restart_requested,
                    "active_agents": it.active_agents,
                    "extra": it.extra,
                    "writer": it.writer,
                    "writer_pid": it.writer_pid,
                    "updated_at_ms": it.updated_at_ms,
                }))
            }))
        })
    }

    fn instance(&self, py: Python<'_>, number: i64) -> PyResult<Option<String>> {
        outside(py, || {
            let found = self.0.instance(InstanceId::from_i64(number)?)?;
            Ok(found.map(|it| reply::text(&reply::instance(&it))))
        })
    }

    fn history(&self, py: Python<'_>, options: &str) -> PyResult<String> {
        let asked: PastArguments = read(options)?;
        outside(py, || {
            let options = asked.history()?;
            Ok(reply::text(&self.0.history(&options)?))
        })
    }

    fn past_events(&self, py: Python<'_>, options: &str) -> PyResult<String> {
        let asked: PastArguments = read(options)?;
        outside(py, || {
            let options = asked.events()?;
            Ok(reply::text(&self.0.past_events(&options)?))
        })
    }

    fn events(
        &self,
        py: Python<'_>,
        profile: Option<&str>,
        after: Option<i64>,
    ) -> PyResult<Events> {
        outside(py, || {
            let mut stream = self.0.events()?;
            if let Some(profile) = profile {
                stream = stream.of_profile(ProfileName::new(profile)?);
            }
            if let Some(after) = after {
                stream = stream.after(after);
            }
            Ok(Events::new(stream))
        })
    }

    fn stop(
        &self,
        py: Python<'_>,
        profile: &str,
        kind: &str,
        options: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<String> {
        let asked: RequestArguments = read(options)?;
        waiting(py, canceller, |cancel| {
            let options = asked.stop(cancel);
            let report = self.0.profile(profile)?.stop(&Kind::new(kind)?, &options)?;
            Ok(reply::text(&reply::stop(&report)))
        })
    }

    fn restart(
        &self,
        py: Python<'_>,
        profile: &str,
        kind: &str,
        options: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<String> {
        let asked: RequestArguments = read(options)?;
        waiting(py, canceller, |cancel| {
            let options = asked.restart(cancel);
            let answer = self.0.profile(profile)?.restart(&Kind::new(kind)?, &options)?;
            Ok(reply::text(&reply::restart(&answer)))
        })
    }

    fn evict(
        &self,
        py: Python<'_>,
        profile: &str,
        kind: &str,
        force: bool,
        by: &str,
    ) -> PyResult<String> {
        let force = if force { Force::Yes } else { Force::No };
        outside(py, || {
            let eviction = self.0.profile(profile)?.evict(&Kind::new(kind)?, force, by)?;
            Ok(reply::text(&reply::eviction(&eviction)))
        })
    }

    fn signal(
        &self,
        py: Python<'_>,
        profile: &str,
        kind: &str,
        signal: i32,
        by: &str,
    ) -> PyResult<String> {
        outside(py, || {
            let signalled = self.0.profile(profile)?.signal(&Kind::new(kind)?, signal, by)?;
            Ok(reply::text(&reply::signalled(&signalled)))
        })
    }

    fn desired(&self, py: Python<'_>, profile: &str) -> PyResult<Option<&'static str>> {
        outside(py, || Ok(self.0.profile(profile)?.desired()?.map(Desired::as_str)))
    }

    fn set_desired(&self, py: Python<'_>, profile: &str, running: bool, by: &str) -> PyResult<()> {
        let desired = if running { Desired::Running } else { Desired::Stopped };
        outside(py, || self.0.profile(profile)?.set_desired(desired, by))
    }

    fn wait_ready(
        &self,
        py: Python<'_>,
        profile: &str,
        kind: &str,
        options: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<(&'static str, String)> {
        let asked: ReadyArguments = read(options)?;
        waiting(py, canceller, |cancel| {
            let options = asked.options(cancel);
            let awaited = self.0.profile(profile)?.wait_ready(&Kind::new(kind)?, &options)?;
            Ok(match awaited {
                Awaited::Reached(report) => ("reached", reply::text(&report)),
                Awaited::NotInTime(report) => ("not_in_time", reply::text(&report)),
                Awaited::Ended(report) => ("ended", reply::text(&report)),
                _ => ("unknown", "null".to_owned()),
            })
        })
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
        let lock: LockArguments = read(lock)?;
        let asked: AcquireArguments = read(options)?;
        let identity = identity.as_bytes();
        let acquired: Acquire = waiting(py, canceller, |cancel| {
            self.0.acquire(&lock.request(identity)?, &asked.options(cancel))
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
        let locks: Vec<LockArguments> = read(locks)?;
        let asked: AcquireArguments = read(options)?;
        let acquired = waiting(py, canceller, |cancel| {
            self.0.acquire_all(&requests(locks, &identities)?, &asked.options(cancel))
        })?;
        all_granted(py, acquired)
    }

    fn locks(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || Ok(reply::text(&self.0.locks()?)))
    }

    fn lock(
        &self,
        py: Python<'_>,
        scope: &str,
        identity: &Bound<'_, PyBytes>,
    ) -> PyResult<Option<String>> {
        let identity = identity.as_bytes();
        outside(py, || {
            let report = self.0.lock(&LockName::new(scope, identity)?)?;
            Ok(report.map(|it| reply::text(&it)))
        })
    }

    fn unlock(
        &self,
        py: Python<'_>,
        scope: &str,
        identity: &Bound<'_, PyBytes>,
        force: bool,
        by: &str,
    ) -> PyResult<String> {
        let force = if force { Force::Yes } else { Force::No };
        let identity = identity.as_bytes();
        outside(py, || {
            let unlocked = self.0.unlock(&LockName::new(scope, identity)?, force, by)?;
            Ok(reply::text(&reply::unlocked(&unlocked)))
        })
    }

    /// The same by the hash that `locks` shows.
    fn unlock_hash(
        &self,
        py: Python<'_>,
        scope: &str,
        identity_hash: &str,
        force: bool,
        by: &str,
    ) -> PyResult<String> {
        let force = if force { Force::Yes } else { Force::No };
        outside(py, || {
            let (scope, identity_hash) =
                (Scope::new(scope)?, IdentityHash::from_hex(identity_hash)?);
            let unlocked = self.0.unlock(&LockName { scope, identity_hash }, force, by)?;
            Ok(reply::text(&reply::unlocked(&unlocked)))
        })
    }

    fn unlock_stale(&self, py: Python<'_>, by: &str) -> PyResult<String> {
        outside(py, || Ok(reply::text(&self.0.unlock_stale(by)?)))
    }

    fn release_all(&self, py: Python<'_>, instance: i64) -> PyResult<usize> {
        outside(py, || self.0.release_all(InstanceId::from_i64(instance)?))
    }

    /// Writes a marker; the marker as JSON.
    fn write_marker(&self, py: Python<'_>, options: &str) -> PyResult<String> {
        let asked: MarkerArguments = read(options)?;
        outside(py, || {
            let (target, request) = asked.message()?;
            let written = self.0.write_marker(target, &request)?;
            Ok(reply::text(&written.marker))
        })
    }

    fn peek_marker(
        &self,
        py: Python<'_>,
        pid: u32,
        name: Option<&str>,
    ) -> PyResult<Option<String>> {
        outside(py, || {
            let name = name.map(MarkerName::new).transpose()?;
            Ok(self.0.peek_marker(pid, name.as_ref())?.map(|it| reply::text(&it)))
        })
    }

    fn clear_marker(&self, py: Python<'_>, pid: u32, name: &str, by: &str) -> PyResult<usize> {
        outside(py, || self.0.clear_marker(pid, &MarkerName::new(name)?, by))
    }

    /// Columns and rows of a read-only statement, as JSON.
    fn query(&self, py: Python<'_>, sql: &str, values: &str) -> PyResult<String> {
        let values: Vec<Value> = read(values)?;
        outside(py, || {
            let values: Vec<_> = values.iter().map(value_of).collect();
            let rows = self.0.query_with(sql, &values)?;
            Ok(reply::text(&json!({"columns": rows.columns, "rows": rows.rows})))
        })
    }

    /// The hash under which an identity is stored.
    #[staticmethod]
    fn identity_hash(py: Python<'_>, identity: &Bound<'_, PyBytes>) -> PyResult<String> {
        let identity = identity.as_bytes();
        outside(py, || Ok(IdentityHash::of(identity)?.as_str().to_owned()))
    }
}
