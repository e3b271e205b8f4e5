//! The arguments of `run`, `stop`, `restart` and `signal`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Wait;
use crate::cli::args::values;
use crate::exit::{ExitCause, ExitRule, Supervisor};
use crate::run::Forward;

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Run {
    /// Also hold this lock; do not start CMD without it [the identity shows in `ps`: better
    /// --lock-env]
    #[arg(long, value_name = "SCOPE=IDENTITY")]
    pub(crate) lock: Vec<OsString>,
    /// Also hold the lock on the identity in this variable; do not start CMD without it
    #[arg(long, value_name = "SCOPE=VAR")]
    pub(crate) lock_env: Vec<OsString>,
    /// Shown to others with these locks; stored in clear, never a secret
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Wait while another process holds the office or a lock [without =DUR: without limit]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "infinity",
        value_parser = values::parse_wait
    )]
    pub(crate) wait: Option<Wait>,
    /// Take the office over from a live holder: ask it to stop, wait for its stop budget, then
    /// kill it
    #[arg(long)]
    pub(crate) replace: bool,
    /// Also replace a holder that took over from this supervisor (for use by hand)
    #[arg(long, requires = "replace")]
    pub(crate) force: bool,
    /// Also end what the old holder started and left behind
    #[arg(long, requires = "replace")]
    pub(crate) reap: bool,
    /// Replace a holder that uses another home, and bind the profile to this one
    #[arg(long, requires = "replace")]
    pub(crate) cross_home: bool,
    /// Do not start a profile that is set to stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) respect_desired: bool,
    /// How long CMD may take to stop, at most 1h
    #[arg(long, value_name = "DUR", default_value = "90s", value_parser = values::parse_duration)]
    pub(crate) stop_budget: Duration,
    /// Do not wait after repeated failed starts
    #[arg(long)]
    pub(crate) no_backoff: bool,
    /// Become CMD once the office is held: same pid, nothing between CMD and its supervisor, which
    /// restarts it; two keepers end CMD if the office is lost
    #[arg(
        long,
        conflicts_with_all = [
            "follow", "leave", "legacy_home", "mirror", "exit_code", "supervisor", "forward",
            "pidfile", "keep_stderr", "on_end", "restart_unresponsive",
        ]
    )]
    pub(crate) exec: bool,
    /// Keep the office while anything that CMD leaves behind runs: a server that re-executes itself
    /// (SIGUSR2), a start script that leaves a daemon
    #[arg(long)]
    pub(crate) follow: bool,
    /// Do not end what CMD leaves behind; with =NAME only that program, also with --follow
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub(crate) leave: Vec<String>,
    /// Which signals CMD gets from this process: auto (those that it did not get anyway, from a
    /// terminal, a service manager or pm2), always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = values::parse_forward)]
    pub(crate) forward: Forward,
    /// Also hold the gateway.lock of this directory, so that older programs stay away
    #[arg(long, value_name = "DIR", group = "older")]
    pub(crate) legacy_home: Option<PathBuf>,
    /// The same, and keep gateway_state.json and gateway.heartbeat there as CMD sets its status,
    /// for programs that still read them
    #[arg(long, value_name = "DIR", group = "older")]
    pub(crate) mirror: Option<PathBuf>,
    /// Words in the process list by which newer versions of the older gateway recognise this run;
    /// added automatically
    #[arg(long, value_name = "WORD", num_args = 1..=3, requires = "older")]
    pub(crate) known_as: Vec<OsString>,
    /// Exit code if the start is refused [default: 75]
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
    /// Print nothing while CMD runs; a refused start is still explained
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Write the pid of this process to FILE for as long as CMD runs; signals to it reach CMD
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Keep the last lines of CMD's standard error, which is a pipe then, and record them with its
    /// end [without =LINES: 20, at most 1000]
    #[arg(
        long,
        value_name = "LINES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "20",
        value_parser = values::parse_lines
    )]
    pub(crate) keep_stderr: Option<usize>,
    /// Run LINE in a shell each time CMD has ended. It gets the details as JSON on standard input
    /// and in INCUMBENT_END_*; nothing waits for it
    #[arg(long, value_name = "LINE")]
    pub(crate) on_end: Option<OsString>,
    /// Restart CMD when its promised heartbeat is overdue [=DUR: by this much]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0",
        value_parser = values::parse_duration
    )]
    pub(crate) restart_unresponsive: Option<Duration>,
    /// The command and its arguments; options after it are its own
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

impl Run {
    /// The option whose value became the command: `--wait 5s` in the place of `--wait=5s`. Only
    /// to be asked where there is no such command.
    pub(crate) fn option_without_its_value(&self) -> Option<String> {
        let word = self.command.first()?.to_str()?;
        let is_duration = values::parse_duration(word).is_ok();
        let option = if self.wait.is_some() && is_duration {
            "--wait"
        } else if self.restart_unresponsive.is_some() && is_duration {
            "--restart-unresponsive"
        } else if self.keep_stderr.is_some() && values::parse_lines(word).is_ok() {
            "--keep-stderr"
        } else {
            return None;
        };
        Some(format!("{option}={word}"))
    }
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Stop {
    /// How long to wait [default: the holder's stop budget]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Kill it if it is still running after that
    #[arg(long)]
    pub(crate) force: bool,
    /// Also set the profile to stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) desired: bool,
    /// Every office of the store, or those of --profile and --kind, at the same time
    #[arg(long)]
    pub(crate) all: bool,
    /// Also end what it started and left behind
    #[arg(long)]
    pub(crate) reap: bool,
    /// Why; shown with the request
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// How long to wait [default: the holder's stop budget plus 15s]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Every office of the store that is held, or those of --profile and --kind, at the same time
    #[arg(long)]
    pub(crate) all: bool,
    /// Why; shown with the request
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Signal {
    /// HUP, USR1, USR2, ..., by name or by number; to end it use `stop`
    #[arg(value_name = "NAME", value_parser = values::parse_signal)]
    pub(crate) signal: i32,
}
