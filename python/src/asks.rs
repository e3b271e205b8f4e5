//! What a store is asked, as JSON.

use incumbent::marker::{MarkerName, MarkerRequest, MarkerTarget};
use incumbent::status::{EventOptions, HistoryOptions, ReadyOptions};
use incumbent::stop::{RestartOptions, StopOptions};
use incumbent::{
    Cancel, Durability, Error, InstanceId, Kind, Office, OpenOptions, ProfileName, query,
};
use pyo3::PyResult;
use serde::Deserialize;
use serde_json::Value;

use crate::options::{OpenArguments, Waits, length, read};

/// What a stop and a restart are asked for with.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RequestArguments {
    timeout: Option<f64>,
    reason: Option<String>,
    by: Option<String>,
    kill: bool,
    desired_stopped: bool,
    reap: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PastArguments {
    profile: Option<String>,
    kind: Option<String>,
    event: Option<String>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    limit: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MarkerArguments {
    name: String,
    pid: Option<u32>,
    instance: Option<i64>,
    office: Option<(String, String)>,
    ttl: Option<f64>,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadyArguments {
    state: Option<String>,
    wait: Option<f64>,
    forever: bool,
}

pub(crate) fn open_options(text: &str) -> PyResult<OpenOptions> {
    let arguments: OpenArguments = read(text)?;
    let mut options = OpenOptions::new();
    if let Some(path) = arguments.path {
        options = options.path(path);
    }
    if let Some(budget) = arguments.busy_budget {
        options = options.busy_budget(length(budget));
    }
    if arguments.full_durability {
        options = options.durability(Durability::Full);
    }
    for kind in arguments.allow_filesystem {
        options = options.allow_filesystem(kind);
    }
    Ok(options)
}

impl RequestArguments {
    pub(crate) fn stop(self, cancel: Cancel) -> StopOptions {
        let mut options = StopOptions::new().cancel(cancel);
        if let Some(timeout) = self.timeout {
            options = options.timeout(length(timeout));
        }
        if let Some(reason) = self.reason {
            options = options.reason(reason);
        }
        if let Some(by) = self.by {
            options = options.by(by);
        }
        options = if self.kill { options.kill() } else { options };
        options = if self.desired_stopped { options.desired_stopped() } else { options };
        options = if self.reap { options.reap() } else { options };
        options
    }

    pub(crate) fn restart(self, cancel: Cancel) -> RestartOptions {
        let mut options = RestartOptions::new().cancel(cancel);
        if let Some(timeout) = self.timeout {
            options = options.timeout(length(timeout));
        }
        if let Some(reason) = self.reason {
            options = options.reason(reason);
        }
        if let Some(by) = self.by {
            options = options.by(by);
        }
        options
    }
}

impl PastArguments {
    pub(crate) fn history(self) -> Result<HistoryOptions, Error> {
        let mut options = HistoryOptions::new();
        if let Some(profile) = self.profile {
            options = options.profile(ProfileName::new(profile)?);
        }
        if let Some(kind) = self.kind {
            options = options.kind(Kind::new(kind)?);
        }
        if let Some(since) = self.since_ms {
            options = options.since_ms(since);
        }
        if let Some(until) = self.until_ms {
            options = options.until_ms(until);
        }
        if let Some(limit) = self.limit {
            options = options.count_max(limit);
        }
        Ok(options)
    }

    pub(crate) fn events(self) -> Result<EventOptions, Error> {
        let mut options = EventOptions::new();
        if let Some(profile) = self.profile {
            options = options.profile(ProfileName::new(profile)?);
        }
        if let Some(kind) = self.kind {
            options = options.kind(Kind::new(kind)?);
        }
        if let Some(event) = self.event {
            options = options.event(event);
        }
        if let Some(since) = self.since_ms {
            options = options.since_ms(since);
        }
        if let Some(limit) = self.limit {
            options = options.count_max(limit);
        }
        Ok(options)
    }
}

impl MarkerArguments {
    pub(crate) fn message(self) -> Result<(MarkerTarget, MarkerRequest), Error> {
        let mut request = MarkerRequest::new(MarkerName::new(self.name)?);
        if let Some(ttl) = self.ttl {
            request = request.ttl(length(ttl))?;
        }
        if let Some(reason) = self.reason {
            request = request.reason(reason);
        }
        if let Some(by) = self.by {
            request = request.by(by);
        }
        let target: MarkerTarget = match (self.instance, self.pid, self.office) {
            (Some(instance), ..) => InstanceId::from_i64(instance)?.into(),
            (None, Some(pid), Some((profile, kind))) => {
                let (profile, kind) = (ProfileName::new(profile)?, Kind::new(kind)?);
                MarkerTarget::of_office(pid, Office { profile, kind })
            }
            (None, pid, _) => pid.unwrap_or_else(std::process::id).into(),
        };
        Ok((target, request))
    }
}

impl ReadyArguments {
    pub(crate) fn options(self, cancel: Cancel) -> ReadyOptions {
        let waits = Waits { wait: self.wait, forever: self.forever };
        let mut options = ReadyOptions::new().wait(waits.wait()).cancel(cancel);
        if let Some(state) = self.state {
            options = options.state(state);
        }
        options
    }
}

pub(crate) fn value_of(value: &Value) -> query::Value {
    match value {
        Value::Null => query::Value::Null,
        Value::Bool(it) => query::Value::Integer((*it).into()),
        Value::Number(it) => match it.as_i64() {
            Some(it) => query::Value::Integer(it),
            None => query::Value::Real(it.as_f64().unwrap_or_default()),
        },
        Value::String(it) => query::Value::Text(it.clone()),
        Value::Array(_) | Value::Object(_) => query::Value::Text(value.to_string()),
    }
}
