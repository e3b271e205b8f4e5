//! Records and locks for a process that does not link the engine.

use incumbent::keeper::{Anchoring, KeptClaim, KeptProcess, KeptRelease, KeptStanding, Whom};
use incumbent::marker::MarkerName;
use incumbent::{Acquire, Kind, LockName, Office, ProfileName};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Value, json};

use crate::call::{Canceller, outside, waiting};
use crate::options::{AcquireArguments, LockArguments, read, status_update};
use crate::reply;
use crate::store::Store;

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Kept(KeptProcess);

fn office(profile: &str, kind: &str) -> Result<Office, incumbent::Error> {
    Ok(Office { profile: ProfileName::new(profile)?, kind: Kind::new(kind)? })
}

fn standing(standing: &KeptStanding) -> Value {
    match standing {
        KeptStanding::Held(lock) => json!({"outcome": "held", "lock": lock}),
        KeptStanding::NotHeld { why, .. } => json!({"outcome": "not_held", "why": why}),
        _ => json!({"outcome": "unknown"}),
    }
}

#[pymethods]
impl Kept {
    /// Without `keeper` nothing holds a lock of the kernel's for it: its pid and start time count.
    #[new]
    fn new(store: &Store, pid: u32, keeper: bool, by: &str) -> Self {
        let anchoring = if keeper { Anchoring::Keeper } else { Anchoring::None };
        Self(store.0.kept(Whom::Process(pid)).anchoring(anchoring).by(by))
    }

    fn claim(&self, py: Python<'_>, store: &Store, profile: &str, kind: &str) -> PyResult<String> {
        outside(py, || {
            let claimed = self.0.claim(&store.0.profile(profile)?, &Kind::new(kind)?)?;
            Ok(reply::text(&match &claimed {
                KeptClaim::Granted { instance, .. } => {
                    json!({"outcome": "granted", "instance": instance})
                }
                KeptClaim::Already { instance, pid, .. } => {
                    json!({"outcome": "already", "instance": instance, "pid": pid})
                }
                KeptClaim::Held(by) => {
                    json!({"outcome": "held", "holder": reply::holder(by)})
                }
                _ => json!({"outcome": "unknown"}),
            }))
        })
    }

    fn release(&self, py: Python<'_>, profile: &str, kind: &str) -> PyResult<String> {
        outside(py, || {
            Ok(reply::text(&match self.0.release(&office(profile, kind)?)? {
                KeptRelease::Released(instance) => {
                    json!({"outcome": "released", "instance": instance})
                }
                KeptRelease::NotHeld { why, .. } => json!({"outcome": "not_held", "why": why}),
                _ => json!({"outcome": "unknown"}),
            }))
        })
    }

    /// Which incarnation says so.
    fn say(&self, py: Python<'_>, profile: &str, kind: &str, update: &str) -> PyResult<i64> {
        let update = status_update(py, update)?;
        outside(py, || Ok(self.0.say(&office(profile, kind)?, &update)?.as_i64()))
    }

    fn acquire(
        &self,
        py: Python<'_>,
        profile: &str,
        lock: &str,
        identity: &Bound<'_, PyBytes>,
        options: &str,
        canceller: Option<&Canceller>,
    ) -> PyResult<String> {
        let lock: LockArguments = read(lock)?;
        let asked: AcquireArguments = read(options)?;
        let identity = identity.as_bytes();
        waiting(py, canceller, |cancel| {
            let profile = ProfileName::new(profile)?;
            let request = lock.request(identity)?;
            Ok(reply::text(&match self.0.acquire(&profile, &request, &asked.options(cancel))? {
                Acquire::Granted(grant) => json!({"outcome": "held", "lock": grant.lock}),
                Acquire::Held(by) => json!({"outcome": "refused", "holder": reply::holder(&by)}),
            }))
        })
    }

    /// `what` is `verify`, `renew` or `release`; one of another fence is not held.
    fn lock(
        &self,
        py: Python<'_>,
        what: &str,
        scope: &str,
        identity: &Bound<'_, PyBytes>,
        fence: Option<i64>,
    ) -> PyResult<String> {
        let identity = identity.as_bytes();
        outside(py, || {
            let name = LockName::new(scope, identity)?;
            Ok(reply::text(&standing(&match what {
                "renew" => self.0.renew_lock(&name, fence)?,
                "release" => self.0.release_lock(&name, fence)?,
                _ => self.0.verify_lock(&name, fence)?,
            })))
        })
    }

    fn release_locks(&self, py: Python<'_>) -> PyResult<usize> {
        outside(py, || self.0.release_locks())
    }

    fn peek_marker(&self, py: Python<'_>, name: Option<&str>) -> PyResult<Option<String>> {
        outside(py, || {
            let name = name.map(MarkerName::new).transpose()?;
            Ok(self.0.peek_marker(name.as_ref())?.map(|it| reply::text(&it)))
        })
    }

    /// The marker, and whether it is on record that it was consumed.
    fn consume_marker(
        &self,
        py: Python<'_>,
        name: Option<&str>,
    ) -> PyResult<Option<(String, bool)>> {
        outside(py, || {
            let name = name.map(MarkerName::new).transpose()?;
            let consumed = self.0.consume_marker(name.as_ref())?;
            Ok(consumed.map(|it| (reply::text(&it.marker), it.recorded)))
        })
    }

    fn records(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || Ok(reply::text(&self.0.records()?)))
    }
}
