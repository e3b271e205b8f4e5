//! The arguments of `run`, `stop`, `restart` and `signal`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Wait;
use crate::cli::args::values;
use crate::exit::{ExitCause, ExitRule, Supervisor};

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Run {
    /// Hold this lock as well, or do not start CMD [the identity shows in `ps`: better --lock-env]
    #[arg(long, value_name = "SCOPE=IDENTITY")]
    pub(crate) lock: Vec<OsString>,
    /// Hold the lock on the identity in this variable as well, or do not start CMD
    #[arg(long, value_name = "SCOPE=VAR")]
    pub(crate) lock_env: Vec<OsString>,
    /// What others should be told about the holder of these locks; it is stored, so never a secret
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Wait while another one holds the office or a lock [without =DUR: without limit]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "infinity",
        value_parser = values::parse_wait
    )]
    pub(crate) wait: Option<Wait>,
    /// Take the office over from a live holder: ask it to end, give it its time, then kill it
    #[arg(long)]
    pub(crate) replace: bool,
    /// Take it over also from one that took over from our own supervisor: a person decides
    #[arg(long, requires = "replace")]
    pub(crate) force: bool,
    /// End what the old holder had started and left behind, too
    #[arg(long, requires = "replace")]
    pub(crate) reap: bool,
    /// Take it over also from another home, which the profile then leaves
    #[arg(long, requires = "replace")]
    pub(crate) cross_home: bool,
    /// Do not start a profile that is set to stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) respect_desired: bool,
    /// How long CMD may take to stop, at most 1h
    #[arg(long, value_name = "DUR", default_value = "90s", value_parser = values::parse_duration)]
    pub(crate) stop_budget: Duration,
    /// Claim at once, also in a storm of restarts
    #[arg(long)]
    pub(crate) no_backoff: bool,
    /// Hold the gateway.lock of this directory as well, so that older programs respect this one
    #[arg(long, value_name = "DIR")]
    pub(crate) legacy_home: Option<PathBuf>,
    /// Words in the process list by which newer versions of the older gateway recognise this run;
    /// added by itself
    #[arg(long, value_name = "WORD", num_args = 1..=3, requires = "legacy_home")]
    pub(crate) known_as: Vec<OsString>,
    /// Exit with this code when the start is refused [default: 75]
    #[arg(short = 'E', value_name = "CODE")]
    pub(crate) refused_exit_code: Option<u8>,
    /// Exit with this code for this cause: planned_stop, taken_over, supervisor_stop, signalled,
    /// start_interrupted, desired_stopped, refused or exited; `own` is that of CMD [default: by
    /// supervisor, see below]
    #[arg(long, value_name = "CAUSE=CODE", value_parser = values::parse_exit_code)]
    pub(crate) exit_code: Vec<(ExitCause, ExitRule)>,
    /// Whose table of exit codes to use: systemd, launchd, s6, docker or none [default: what
    /// started this process]
    #[arg(long, value_name = "SUPERVISOR", value_parser = values::parse_supervisor)]
    pub(crate) supervisor: Option<Supervisor>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Stop {
    /// How long to wait [default: as long as the holder said it may take]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Kill it after that
    #[arg(long)]
    pub(crate) force: bool,
    /// The profile is set to stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) desired: bool,
    /// Every office of the store, or those of --profile and --kind, at the same time
    #[arg(long)]
    pub(crate) all: bool,
    /// Why, for whoever reads the marker
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// How long to wait [default: as long as the holder said it may take to stop, and 15s]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Every office of the store that is held, or those of --profile and --kind, at the same time
    #[arg(long)]
    pub(crate) all: bool,
    /// Why, for whoever reads the marker
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Signal {
    /// HUP, USR1, USR2, ..., by name or by number; never one that ends or stops it: that is `stop`
    #[arg(value_name = "NAME", value_parser = values::parse_signal)]
    pub(crate) signal: i32,
}
