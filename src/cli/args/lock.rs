//! The arguments of `lock`, `locks` and `unlock`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::Wait;
use crate::cli::args::values;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Lock {
    /// Acquire a lock for a process, which holds it until it releases it or ends
    Acquire(LockAcquire),
    /// Renew the lease of a lock
    Renew(LockRef),
    /// Check whether a process still holds a lock
    Verify(LockRef),
    /// Release a lock, or all locks of a process
    Release(LockRelease),
}

// What is to be held by one process only. Said so, it would be the help of the verbs that have it.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// The identity, e.g. the bot's token; `-` reads it from standard input [an argument shows in
    /// `ps`]
    #[arg(
        value_name = "ID",
        allow_negative_numbers = true,
        conflicts_with = "identity_env",
        required_unless_present = "identity_env"
    )]
    pub(crate) identity: Option<OsString>,
    /// The environment variable that holds the identity
    #[arg(long, value_name = "VAR")]
    pub(crate) identity_env: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct LockAcquire {
    /// The sort of identity, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: OsString,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// The process to hold it [default: the run we are in, else the parent process; in a script say
    /// `--pid $$`]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Record it without a keeper process: only pid and start time will show whether it is alive
    #[arg(long)]
    pub(crate) no_keeper: bool,
    /// Ask for a lease that must be renewed within this time, at most 30 days
    #[arg(
        long,
        value_name = "DUR",
        allow_hyphen_values = true,
        value_parser = values::parse_duration
    )]
    pub(crate) ttl: Option<Duration>,
    /// Wait for the lock while another process holds it [without =DUR: without limit]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "infinity",
        value_parser = values::parse_wait
    )]
    pub(crate) wait: Option<Wait>,
    /// Shown to others; stored in clear, never a secret
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Evict an owner that is stopped (SIGSTOP), checked twice 200 ms apart
    #[arg(long)]
    pub(crate) evict_stopped: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LockRef {
    /// The sort of identity, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: OsString,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// The process that holds it [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Only if it still has this fence
    #[arg(long, value_name = "F")]
    pub(crate) fence: Option<i64>,
}

#[derive(Debug, Args)]
#[command(override_usage = "incumbent lock release [OPTIONS] <SCOPE> <ID|--identity-env <VAR>>
       incumbent lock release [OPTIONS] --all")]
pub(crate) struct LockRelease {
    /// The sort of identity, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE", required_unless_present = "all")]
    pub(crate) scope: Option<OsString>,
    /// The identity, e.g. the bot's token; `-` reads it from standard input [an argument shows in
    /// `ps`]
    #[arg(
        value_name = "ID",
        allow_negative_numbers = true,
        conflicts_with = "identity_env",
        required_unless_present_any = ["identity_env", "all"]
    )]
    pub(crate) identity: Option<OsString>,
    /// The environment variable that holds the identity
    #[arg(long, value_name = "VAR", conflicts_with = "all")]
    pub(crate) identity_env: Option<OsString>,
    /// All locks of the process; prints how many those were
    #[arg(long, conflicts_with_all = ["scope", "identity", "fence"])]
    pub(crate) all: bool,
    /// The process that holds it [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Only if it still has this fence
    #[arg(long, value_name = "F")]
    pub(crate) fence: Option<i64>,
}

#[derive(Debug, Args)]
#[command(override_usage = "incumbent locks [OPTIONS]
       incumbent locks [OPTIONS] <SCOPE> [ID|--identity-env <VAR>|--hash <H>]")]
pub(crate) struct Locks {
    /// Only locks of this sort, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: Option<OsString>,
    /// Only the lock of this identity; `-` reads it from standard input [an argument shows in `ps`]
    #[arg(
        value_name = "ID",
        allow_negative_numbers = true,
        conflicts_with_all = ["identity_env", "hash"]
    )]
    pub(crate) identity: Option<OsString>,
    /// Only the lock of the identity in this environment variable
    #[arg(long, value_name = "VAR", requires = "scope", conflicts_with = "hash")]
    pub(crate) identity_env: Option<OsString>,
    /// Only the lock of the identity with this hash, as `incumbent locks` shows it
    #[arg(long, value_name = "H", requires = "scope")]
    pub(crate) hash: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "incumbent unlock [OPTIONS] <SCOPE> <ID|--identity-env <VAR>|--hash <H>>
       incumbent unlock [OPTIONS] --stale"
)]
pub(crate) struct Unlock {
    /// The sort of identity, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE", required_unless_present = "stale")]
    pub(crate) scope: Option<OsString>,
    /// The identity, e.g. the bot's token; `-` reads it from standard input [an argument shows in
    /// `ps`]
    #[arg(
        value_name = "ID",
        allow_negative_numbers = true,
        conflicts_with_all = ["identity_env", "hash"],
        required_unless_present_any = ["identity_env", "hash", "stale"]
    )]
    pub(crate) identity: Option<OsString>,
    /// The environment variable that holds the identity
    #[arg(long, value_name = "VAR", conflicts_with = "hash")]
    pub(crate) identity_env: Option<OsString>,
    /// The identity's hash, as `incumbent locks` shows it
    #[arg(long, value_name = "H")]
    pub(crate) hash: Option<OsString>,
    /// Remove every lock whose holder is dead
    #[arg(long, conflicts_with_all = ["scope", "identity", "identity_env", "hash", "force"])]
    pub(crate) stale: bool,
    /// Even if the holder is alive or unknown; no signal is sent
    #[arg(long)]
    pub(crate) force: bool,
}
