//! What Python asks for, as JSON: each struct is one set of options, with seconds as numbers.

use std::path::PathBuf;
use std::time::Duration;

use incumbent::lock::{AcquireOptions, Stopped};
use incumbent::status::{Field, PlatformUpdate};
use incumbent::{Cancel, ClaimOptions, Error, Kind, LockRequest, ProfileName, StatusUpdate, Wait};
use pyo3::PyResult;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::not_understood;
use crate::handover::ReplaceArguments;

/// Reads options that Python has written.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| not_understood("options", &error))
}

/// A wait in seconds; `forever` beats it.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(default)]
pub(crate) struct Waits {
    pub(crate) wait: Option<f64>,
    pub(crate) forever: bool,
}

impl Waits {
    pub(crate) fn wait(self) -> Wait {
        match self.wait {
            _ if self.forever => Wait::Forever,
            Some(seconds) => Wait::UpTo(length(seconds)),
            None => Wait::No,
        }
    }
}

/// Seconds as a length. Nobody waits longer than a century, nor less than not at all.
pub(crate) fn length(seconds: f64) -> Duration {
    const CENTURY: Duration = Duration::from_hours(100 * 366 * 24);
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).map_or(CENTURY, |it| it.min(CENTURY))
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OpenArguments {
    pub(crate) path: Option<PathBuf>,
    pub(crate) busy_budget: Option<f64>,
    pub(crate) full_durability: bool,
    pub(crate) allow_filesystem: Vec<String>,
}

/// How a lock is asked for. Its identity never comes this way: it may be a secret.
#[derive(Deserialize, Default, Clone)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LockArguments {
    pub(crate) scope: String,
    exclusive: bool,
    slots: Option<u32>,
    ttl: Option<f64>,
    metadata: Option<Value>,
}

impl LockArguments {
    pub(crate) fn request(self, identity: &[u8]) -> Result<LockRequest, Error> {
        let mut request = LockRequest::new(&self.scope, identity)?;
        if self.exclusive {
            request = request.exclusive();
        }
        if let Some(count) = self.slots {
            request = request.slots(count)?;
        }
        if let Some(ttl) = self.ttl {
            request = request.ttl(length(ttl))?;
        }
        match self.metadata {
            Some(metadata) => request.metadata(metadata),
            None => Ok(request),
        }
    }
}

/// Locks with their identities, in order.
pub(crate) fn requests(
    locks: Vec<LockArguments>,
    identities: &[Vec<u8>],
) -> Result<Vec<LockRequest>, Error> {
    locks.into_iter().zip(identities).map(|(lock, identity)| lock.request(identity)).collect()
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AcquireArguments {
    wait: Option<f64>,
    forever: bool,
    evict_stopped: bool,
}

impl AcquireArguments {
    pub(crate) fn options(&self, cancel: Cancel) -> AcquireOptions {
        let waits = Waits { wait: self.wait, forever: self.forever };
        let options = AcquireOptions::new().wait(waits.wait()).cancel(cancel);
        if self.evict_stopped { options.stopped(Stopped::Evict) } else { options }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "options are independent of each other")]
pub(crate) struct ClaimArguments {
    kind: Option<String>,
    version: Option<String>,
    stop_budget: Option<f64>,
    heartbeat_every: Option<f64>,
    wait: Option<f64>,
    forever: bool,
    replace: bool,
    force: bool,
    reap: bool,
    across_homes: bool,
    by: Option<String>,
    legacy_home: Option<PathBuf>,
    /// One for each identity, in order.
    locks: Vec<LockArguments>,
}

impl ClaimArguments {
    pub(crate) fn options(
        self,
        identities: &[Vec<u8>],
        cancel: Cancel,
    ) -> Result<ClaimOptions, Error> {
        let waits = Waits { wait: self.wait, forever: self.forever };
        let mut options = ClaimOptions::new().wait(waits.wait()).cancel(cancel);
        if let Some(kind) = self.kind {
            options = options.kind(Kind::new(kind)?);
        }
        if let Some(version) = self.version {
            options = options.version(version);
        }
        if let Some(budget) = self.stop_budget {
            options = options.stop_budget(length(budget));
        }
        if let Some(cadence) = self.heartbeat_every {
            options = options.heartbeat_every(length(cadence));
        }
        if self.replace {
            let Self { by, force, reap, across_homes, .. } = self;
            let replace = ReplaceArguments { by, force, reap, across_homes };
            options = options.replace(replace.replace());
        }
        if let Some(home) = self.legacy_home {
            options = options.legacy_home(home)?;
        }
        Ok(options.locks(requests(self.locks, identities)?))
    }
}

/// A field that is there is set, or cleared where it is null; one that is not there is kept.
fn field<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> PyResult<Field<T>> {
    match fields.remove(name) {
        None => Ok(Field::Keep),
        Some(Value::Null) => Ok(Field::Clear),
        Some(value) => serde_json::from_value(value)
            .map(Field::Set)
            .map_err(|error| not_understood(name, &error)),
    }
}

fn names(field: Field<Vec<String>>) -> Result<Field<Vec<ProfileName>>, Error> {
    Ok(match field {
        Field::Keep => Field::Keep,
        Field::Clear => Field::Clear,
        Field::Set(names) => {
            Field::Set(names.into_iter().map(ProfileName::new).collect::<Result<_, _>>()?)
        }
    })
}

/// A change of what a gateway says of itself.
pub(crate) fn status_update(py: pyo3::Python<'_>, text: &str) -> PyResult<StatusUpdate> {
    let mut fields: Map<String, Value> = read(text)?;
    let raised = |error: Error| crate::error::raised(py, &error);
    let cadence = match field::<f64>(&mut fields, "heartbeat_every")? {
        Field::Keep => Field::Keep,
        Field::Clear => Field::Clear,
        Field::Set(seconds) => Field::Set(length(seconds)),
    };
    let mut update = StatusUpdate::new()
        .state(field::<String>(&mut fields, "state")?)
        .exit_reason(field::<String>(&mut fields, "exit_reason")?)
        .restart_requested(field::<bool>(&mut fields, "restart_requested")?)
        .active_agents(field::<u64>(&mut fields, "active_agents")?)
        .extra(field::<Value>(&mut fields, "extra")?)
        .heartbeat_every(cadence)
        .serves(names(field(&mut fields, "serves")?).map_err(raised)?);
    if fields.remove("heartbeat") == Some(Value::Bool(true)) {
        update = update.heartbeat();
    }
    if let Field::Set(by) = field::<String>(&mut fields, "by")? {
        update = update.by(by);
    }
    if let Some(Value::Array(platforms)) = fields.remove("platforms") {
        for platform in platforms {
            let Value::Object(mut of) = platform else { continue };
            let Some(Value::String(name)) = of.remove("platform") else { continue };
            let mut change = PlatformUpdate::new(name)
                .state(field::<String>(&mut of, "state")?)
                .error_code(field::<String>(&mut of, "error_code")?)
                .error_message(field::<String>(&mut of, "error_message")?)
                .needs_attention(field::<bool>(&mut of, "needs_attention")?)
                .retrying_since_ms(field::<i64>(&mut of, "retrying_since_ms")?)
                .extra(field::<Value>(&mut of, "extra")?);
            if let Some(Value::String(profile)) = of.remove("profile") {
                change = change.of_profile(ProfileName::new(profile).map_err(raised)?);
            }
            if of.remove("remove") == Some(Value::Bool(true)) {
                change = change.remove();
            }
            update = update.platform(change);
        }
    }
    match fields.keys().next() {
        Some(unknown) => Err(not_understood("options", &format!("unknown field `{unknown}`"))),
        None => Ok(update),
    }
}
