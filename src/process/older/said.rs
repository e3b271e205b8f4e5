//! What a gateway says of itself, as the older program keeps it in `gateway_state.json`.

use serde_json::{Map, Value, json};

use crate::process::older::wire::{PidRecord, python_time};

/// The content of the file, without the process that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) state: String,
    pub(crate) exit_reason: Option<String>,
    pub(crate) restart_requested: bool,
    pub(crate) active_agents: u64,
    pub(crate) platforms: Vec<SaidOfPlatform>,
    pub(crate) updated_at_ms: i64,
}

/// The same of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SaidOfPlatform {
    pub(crate) platform: String,
    pub(crate) state: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) updated_at_ms: i64,
}

impl Said {
    /// Nothing but a state.
    pub(crate) fn state_alone(state: &str, updated_at_ms: i64) -> Self {
        Self {
            state: state.to_owned(),
            exit_reason: None,
            restart_requested: false,
            active_agents: 0,
            platforms: Vec::new(),
            updated_at_ms,
        }
    }

    /// The file of the gateway that `record` names.
    pub(crate) fn document(&self, record: &PidRecord) -> Value {
        let platforms: Map<String, Value> =
            self.platforms.iter().map(SaidOfPlatform::row).collect();
        let mut document = record.to_json();
        document["gateway_state"] = self.state.as_str().into();
        document["exit_reason"] = self.exit_reason.clone().into();
        document["restart_requested"] = self.restart_requested.into();
        document["active_agents"] = self.active_agents.into();
        document["platforms"] = Value::Object(platforms);
        document["updated_at"] = python_time(self.updated_at_ms).into();
        document
    }
}

impl SaidOfPlatform {
    fn row(&self) -> (String, Value) {
        let document = json!({
            "state": self.state,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "updated_at": python_time(self.updated_at_ms),
        });
        (self.platform.clone(), document)
    }
}
