//! The arguments of `status`, `wait` and `status-set`.

use std::time::Duration;

use clap::Args;

use crate::ProfileName;
use crate::cli::args::values;
use crate::cli::args::values::{Cadence, Time};

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Every office of the store, or those of --profile and --kind; exits with 0
    #[arg(long)]
    pub(crate) all: bool,
    /// Print Prometheus' text format, e.g. for a node exporter's textfile directory: of every
    /// office, unless --profile or --kind names some; exits with 0 whether or not they run
    #[arg(long)]
    pub(crate) metrics: bool,
    /// Exit with 1 if it runs but is not ready: starting, draining, degraded, unresponsive, frozen
    #[arg(long, conflicts_with_all = ["all", "metrics"])]
    pub(crate) ready: bool,
    /// The office of this process: it, its `run` or one of its parents holds it
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Wait until it reports this state instead: running, stopped, or a word of its own
    #[arg(long, value_name = "S")]
    pub(crate) state: Option<String>,
    /// How long to wait [default: without limit]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusSet {
    /// The process that holds the office [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
    /// starting, running, draining, degraded, stopped, startup_failed, or any other word
    #[arg(long, value_name = "S")]
    pub(crate) state: Option<String>,
    /// Why it ends
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) exit_reason: Option<String>,
    /// Whether it wants to be started again
    #[arg(long, value_name = "BOOL", value_parser = values::parse_bool)]
    pub(crate) restart_requested: Option<bool>,
    /// How many agents work for it now; below 0 counts as 0
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) active_agents: Option<i64>,
    /// Any other data; stored in clear, never a secret
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) extra: Option<String>,
    /// Send a heartbeat; with =DUR also promise the next one within that time: a gateway that
    /// misses it is shown as unresponsive
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = values::parse_cadence
    )]
    pub(crate) heartbeat: Option<Cadence>,
    /// The platform that the following options are about
    #[arg(long, value_name = "P")]
    pub(crate) platform: Option<String>,
    /// connected, retrying, fatal, or any other word
    #[arg(long, value_name = "S", requires = "platform")]
    pub(crate) platform_state: Option<String>,
    /// Its last error, for programs
    #[arg(long, value_name = "C", requires = "platform", allow_hyphen_values = true)]
    pub(crate) error_code: Option<String>,
    /// Its last error, for people; what looks like a token is taken out
    #[arg(long, value_name = "M", requires = "platform", allow_hyphen_values = true)]
    pub(crate) error_message: Option<String>,
    /// Whether a person has to do something
    #[arg(long, value_name = "BOOL", requires = "platform", value_parser = values::parse_bool)]
    pub(crate) needs_attention: Option<bool>,
    /// When it began to reconnect: RFC 3339, Unix seconds, or `now`
    #[arg(long, value_name = "T", requires = "platform", value_parser = values::parse_time)]
    pub(crate) retrying_since: Option<Time>,
    /// Any other data about it
    #[arg(long, value_name = "JSON", requires = "platform", allow_hyphen_values = true)]
    pub(crate) platform_extra: Option<String>,
    /// Forget a field: state, exit-reason, restart-requested, active-agents, extra, serves,
    /// heartbeat (the promise), platforms (all of them); with --platform also platform (as a
    /// whole), platform-state, error-code, error-message, needs-attention, retrying-since,
    /// platform-extra
    #[arg(long, value_name = "FIELD", value_parser = parse_status_field)]
    pub(crate) clear: Vec<StatusField>,
    /// A profile that it also serves; name all of them in one call, which replaces the earlier ones
    #[arg(long, value_name = "PROFILE", value_parser = values::parse_profile)]
    pub(crate) serves: Vec<ProfileName>,
}

/// What `--clear` can forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusField {
    State,
    ExitReason,
    RestartRequested,
    ActiveAgents,
    Extra,
    Serves,
    Heartbeat,
    Platforms,
    Platform,
    PlatformState,
    ErrorCode,
    ErrorMessage,
    NeedsAttention,
    RetryingSince,
    PlatformExtra,
}

impl StatusField {
    const ALL: [(&str, Self); 15] = [
        ("state", Self::State),
        ("exit-reason", Self::ExitReason),
        ("restart-requested", Self::RestartRequested),
        ("active-agents", Self::ActiveAgents),
        ("extra", Self::Extra),
        ("serves", Self::Serves),
        ("heartbeat", Self::Heartbeat),
        ("platforms", Self::Platforms),
        ("platform", Self::Platform),
        ("platform-state", Self::PlatformState),
        ("error-code", Self::ErrorCode),
        ("error-message", Self::ErrorMessage),
        ("needs-attention", Self::NeedsAttention),
        ("retrying-since", Self::RetryingSince),
        ("platform-extra", Self::PlatformExtra),
    ];

    /// Whether it is about the platform that `--platform` names.
    pub(crate) fn is_of_platform(self) -> bool {
        match self {
            Self::State
            | Self::ExitReason
            | Self::RestartRequested
            | Self::ActiveAgents
            | Self::Extra
            | Self::Serves
            | Self::Heartbeat
            | Self::Platforms => false,
            Self::Platform
            | Self::PlatformState
            | Self::ErrorCode
            | Self::ErrorMessage
            | Self::NeedsAttention
            | Self::RetryingSince
            | Self::PlatformExtra => true,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }
}

fn parse_status_field(text: &str) -> Result<StatusField, String> {
    let wanted = text.replace('_', "-");
    StatusField::ALL.iter().find(|(name, _)| *name == wanted).map(|(_, field)| *field).ok_or_else(
        || {
            let names: Vec<&str> = StatusField::ALL.iter().map(|(name, _)| *name).collect();
            format!("unknown field: use one of {}", names.join(", "))
        },
    )
}
