//! What a gateway has said of itself and of its platforms.

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::sys;

/// Events repeat a caller's own JSON up to this size, in bytes; of a larger one they give the size.
const EXTRA_IN_EVENTS_MAX: usize = 1_024;

/// A caller's own JSON as events repeat it.
fn abridged(extra: &Value) -> Value {
    match extra.to_string().len() {
        0..=EXTRA_IN_EVENTS_MAX => extra.clone(),
        length => json!({"omitted_bytes": length}),
    }
}

/// What an instance said of itself, last; see [`StatusUpdate`](crate::StatusUpdate). A field that
/// is `None` was not said, or was cleared.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RuntimeStatus {
    /// Its state as it said it. Whether that is still true, [`Report::state`](crate::Report) tells.
    pub state: Option<String>,
    /// Since when: Unix milliseconds, wall time.
    pub state_since_ms: Option<i64>,
    /// Why it ends, in its own words.
    pub exit_reason: Option<String>,
    /// Whether it wants to be started again.
    pub restart_requested: Option<bool>,
    /// How many agents work for it; zero is idle.
    pub active_agents: Option<u64>,
    /// Whatever else it says.
    pub extra: Option<Value>,
    /// Who wrote this.
    pub writer: Option<String>,
    /// The pid of whoever wrote this, in its own pid namespace.
    pub writer_pid: Option<sys::Pid>,
    /// When it was written: Unix milliseconds, wall time.
    pub updated_at_ms: Option<i64>,
    /// The resident memory of its process, or of the command of a `run`, when it gave its last
    /// heartbeat, in bytes; on Linux with that of what it has started, but for a linked gateway
    /// that beats itself. `None` before the first one, and where it could not be seen.
    pub memory_bytes: Option<u64>,
    /// The columns whose stored values cannot be read: their fields are `None`. The next write
    /// replaces them.
    pub damaged: Vec<&'static str>,
    /// The last heartbeat, on the boot clock.
    pub(crate) heartbeat_boot_ms: Option<i64>,
    /// For how much of that clock the machine had been suspended by then.
    pub(crate) heartbeat_asleep_ms: Option<i64>,
}

impl RuntimeStatus {
    /// Whether this says what `other` says, whenever and by whomever it was said.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.damaged.is_empty()
            && self.state == other.state
            && self.exit_reason == other.exit_reason
            && self.restart_requested == other.restart_requested
            && self.active_agents == other.active_agents
            && self.extra == other.extra
    }

    /// What is said, as its event shows it.
    pub(crate) fn as_event(&self) -> Value {
        json!({
            "state": self.state,
            "exit_reason": self.exit_reason,
            "restart_requested": self.restart_requested,
            "active_agents": self.active_agents,
            "extra": self.extra.as_ref().map(abridged),
        })
    }

    /// What was said, as the CLI's JSON shows it; `now` is the state that is still true.
    pub(crate) fn document(&self, now: Option<&str>) -> Value {
        // Nothing said is nobody at work; what cannot be read is not known.
        let unless_damaged = |column, value: Value| {
            if self.damaged.contains(&column) { Value::Null } else { value }
        };
        json!({
            "state": now,
            "last_state": self.state,
            "state_since": self.state_since_ms.and_then(rfc3339),
            "exit_reason": self.exit_reason,
            "restart_requested": unless_damaged(
                "restart_requested",
                self.restart_requested.unwrap_or(false).into(),
            ),
            "active_agents": unless_damaged(
                "active_agents",
                self.active_agents.unwrap_or(0).into(),
            ),
            "extra": self.extra,
            "writer": self.writer,
            "writer_pid": self.writer_pid,
            "updated_at": self.updated_at_ms.and_then(rfc3339),
            "memory_bytes": self.memory_bytes,
            "damaged": self.damaged,
        })
    }
}

/// What an instance said of one platform, last; see [`PlatformUpdate`]. A field that is `None` was
/// not said, or was cleared.
///
/// [`PlatformUpdate`]: crate::status::PlatformUpdate
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlatformStatus {
    /// The profile it is about: that of the office, or one that the instance serves.
    pub profile: String,
    /// The platform's name.
    pub platform: String,
    /// Its state.
    pub state: Option<String>,
    /// Since when: Unix milliseconds, wall time.
    pub state_since_ms: Option<i64>,
    /// Its last error, for programs.
    pub error_code: Option<String>,
    /// Its last error, for people.
    pub error_message: Option<String>,
    /// Whether a person has to do something.
    pub needs_attention: Option<bool>,
    /// When it began to reconnect: Unix milliseconds, wall time.
    pub retrying_since_ms: Option<i64>,
    /// Whatever else is to be said.
    pub extra: Option<Value>,
    /// Who wrote this.
    pub writer: Option<String>,
    /// The pid of whoever wrote this, in its own pid namespace.
    pub writer_pid: Option<sys::Pid>,
    /// When it was written: Unix milliseconds, wall time.
    pub updated_at_ms: Option<i64>,
    /// The columns whose stored values cannot be read. The next write replaces them.
    pub damaged: Vec<&'static str>,
}

impl PlatformStatus {
    /// Whether this says what `other` says, whenever and by whomever it was said.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.damaged.is_empty()
            && self.state == other.state
            && self.error_code == other.error_code
            && self.error_message == other.error_message
            && self.needs_attention == other.needs_attention
            && self.retrying_since_ms == other.retrying_since_ms
            && self.extra == other.extra
    }

    /// What is said, as its event shows it.
    pub(crate) fn as_event(&self) -> Value {
        json!({
            "platform": self.platform,
            "state": self.state,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "needs_attention": self.needs_attention,
            "retrying_since": self.retrying_since_ms.and_then(rfc3339),
            "extra": self.extra.as_ref().map(abridged),
        })
    }

    /// What was said, as the CLI's JSON shows it. The state of a platform is no longer true when
    /// its gateway `is_alive` no more; its last error is.
    pub(crate) fn document(&self, is_alive: bool) -> Value {
        let needs_attention = if self.damaged.contains(&"needs_attention") {
            Value::Null
        } else {
            self.needs_attention.unwrap_or(false).into()
        };
        json!({
            "state": self.state.as_ref().filter(|_| is_alive),
            "last_state": self.state,
            "state_since": self.state_since_ms.and_then(rfc3339),
            "error_code": self.error_code,
            "error_message": self.error_message,
            "needs_attention": needs_attention,
            "retrying_since": self.retrying_since_ms.and_then(rfc3339),
            "extra": self.extra,
            "writer": self.writer,
            "writer_pid": self.writer_pid,
            "updated_at": self.updated_at_ms.and_then(rfc3339),
            "damaged": self.damaged,
        })
    }
}
