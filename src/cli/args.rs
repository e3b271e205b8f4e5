//! The arguments: one struct per verb, in the words of the design.

#![allow(clippy::doc_markdown, reason = "these comments are shown in a terminal")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::exit_code::{ExitCause, ExitRule, Supervisor};
use crate::names::MarkerName;
use crate::office::Desired;
use crate::span::{self, Span};
use crate::wait::Wait;

/// Who holds the office, is it really alive, and may I take it?
#[derive(Debug, Parser)]
#[command(
    name = "incumbent",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 yes or done, 1 no, 2 usage, 3 not running, 4 unknown, \
                  70 the engine failed, 75 not now, 78 configuration."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The store's SQLite file [default: `$INCUMBENT_DB`, else incumbent/state.db in the user's
    /// state directory]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub(crate) db: Option<PathBuf>,
    /// The gateway configuration [default: `$INCUMBENT_PROFILE`, else "default"]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) profile: Option<String>,
    /// The kind of office of that profile
    #[arg(
        long,
        global = true,
        value_name = "KIND",
        default_value = "gateway",
        help_heading = "Global options"
    )]
    pub(crate) kind: String,
    /// The configuration directory that the profile is bound to [default: `$INCUMBENT_HOME`]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) home: Option<PathBuf>,
    /// Print one JSON document (JSON Lines for streams)
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Trust the locks of a filesystem type that is refused otherwise, at your own risk
    #[arg(long, global = true, value_name = "TYPE", help_heading = "Global options")]
    pub(crate) allow_filesystem: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Claim the office, then run a command that does not outlive it
    Run(Run),
    /// Say whether the office's holder is running, and why we believe it
    Status,
    /// Claim the office for a process that does not link the library
    Claim(Claim),
    /// Release an office that `claim` recorded
    Release(Release),
    /// End the record of a dead holder; of a live or unknown one only with --force
    Evict(Evict),
    /// Stop whoever holds the office, so that nobody takes it for a crash
    Stop(Stop),
    /// Have whoever holds the office start anew
    Restart(Restart),
    /// Show or set whether the profile shall run; obeyed by `run --respect-desired`
    Desired {
        /// running or stopped
        #[arg(value_name = "running|stopped", value_parser = parse_desired)]
        desired: Option<Desired>,
    },
    /// Leave a message for a process, and read it there
    #[command(subcommand)]
    Marker(Marker),
    /// Hold a token, an account or a port for a process, so that no other has it on this machine
    #[command(subcommand)]
    Lock(Lock),
    /// Say who holds which lock, whether it is alive, who waits and who was refused
    Locks,
    /// Remove the lock of a dead holder; of a live or unknown one only with --force
    Unlock(Unlock),
    /// Tell who held the office, and how each of them ended
    History,
    /// Tell what happened in the store: in all of it, unless --profile is given
    Events(Events),
    /// Print the path of the store
    Path,
    /// Ask the store in SQL, read-only
    Sql(Sql),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Run {
    /// Hold this lock as well, or do not start CMD [the identity shows in `ps`: better --lock-env]
    #[arg(long, value_name = "SCOPE=IDENTITY")]
    pub(crate) lock: Vec<OsString>,
    /// Hold the lock on the identity in this variable as well, or do not start CMD
    #[arg(long, value_name = "SCOPE=VAR")]
    pub(crate) lock_env: Vec<OsString>,
    /// What others shall be told about the holder of these locks; it is stored, so never a secret
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Wait while another one holds the office or a lock [without =DUR: without limit]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "infinity",
        value_parser = parse_wait
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
    /// Do not start a profile that shall stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) respect_desired: bool,
    /// How long CMD may take to stop, at most 1h
    #[arg(long, value_name = "DUR", default_value = "90s", value_parser = parse_duration)]
    pub(crate) stop_budget: Duration,
    /// Claim at once, also in a storm of restarts
    #[arg(long)]
    pub(crate) no_backoff: bool,
    /// Exit with this code when the office is not to be had [default: 75]
    #[arg(short = 'E', value_name = "CODE")]
    pub(crate) refused_exit_code: Option<u8>,
    /// Exit with this code for this cause: planned_stop, taken_over, supervisor_stop, signalled,
    /// desired_stopped, refused or exited; `own` is that of CMD [default: by supervisor, see the
    /// README]
    #[arg(long, value_name = "CAUSE=CODE", value_parser = parse_exit_code)]
    pub(crate) exit_code: Vec<(ExitCause, ExitRule)>,
    /// Whose table of exit codes to use: systemd, launchd, s6, docker or none [default: what
    /// started this process]
    #[arg(long, value_name = "SUPERVISOR", value_parser = parse_supervisor)]
    pub(crate) supervisor: Option<Supervisor>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Claim {
    /// The process to record [default: the run we are in, else the parent process; in a script say
    /// `--pid $$`, because inside `$(...)` or a pipe the parent is a subshell that ends at once]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Record it without a keeper process: only pid and start time will tell whether it lives
    #[arg(long)]
    pub(crate) no_keeper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The recorded process [default: the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Evict {
    /// Also when its holder lives or cannot be told dead; nothing is signalled
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// How long to wait [default: as long as the holder said it may take]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Kill it after that
    #[arg(long)]
    pub(crate) force: bool,
    /// The profile shall stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) desired: bool,
    /// Why, for whoever reads the marker
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// How long to wait [default: as long as the holder said it may take to stop, and 15s]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Why, for whoever reads the marker
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Marker {
    /// Leave a marker for a process: takeover, planned_stop, restart, or a word of your own
    Write(MarkerWrite),
    /// Show the marker that is open for a process, and leave it open
    Peek(MarkerRead),
    /// Show the marker that is open for a process, and close it; one consumer gets it
    Consume(MarkerRead),
    /// Close the markers of this name, read or not, whatever has become of the process
    Clear(MarkerClear),
}

#[derive(Debug, Args)]
pub(crate) struct MarkerWrite {
    /// What it says
    #[arg(value_name = "NAME", value_parser = parse_marker)]
    pub(crate) name: MarkerName,
    /// The process it is for
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: u32,
    /// How long it lives, at most 30 days [default: 60s; takeover, planned_stop and restart: the
    /// stop budget of the process and 75s]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Why, for whoever reads it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MarkerRead {
    /// What it says [default: any; takeover, planned_stop and restart come first]
    #[arg(value_name = "NAME", value_parser = parse_marker)]
    pub(crate) name: Option<MarkerName>,
    /// The process it is for [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct MarkerClear {
    /// What it says
    #[arg(value_name = "NAME", value_parser = parse_marker)]
    pub(crate) name: MarkerName,
    /// The process it is for [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on printing events as they are committed
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// One SELECT
    pub(crate) query: String,
    /// Print comma-separated values
    #[arg(long)]
    pub(crate) csv: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Acquire a lock for a process, which holds it until it releases it or ends
    Acquire(LockAcquire),
    /// Start the lease of a lock anew
    Renew(LockRef),
    /// Say whether a process still holds a lock
    Verify(LockRef),
    /// Release a lock, or all locks of a process
    Release(LockRelease),
}

/// What is to be held by one process only.
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
    /// What sort of thing it is, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: OsString,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// The process to hold it [default: the run we are in, else the parent process; in a script say
    /// `--pid $$`]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Record it without a keeper process: only pid and start time will tell whether it lives
    #[arg(long)]
    pub(crate) no_keeper: bool,
    /// Ask for a lease that has to be renewed within this time, at most 30 days
    #[arg(long, value_name = "DUR", allow_hyphen_values = true, value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Wait for the lock while another one holds it [without =DUR: without limit]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "infinity",
        value_parser = parse_wait
    )]
    pub(crate) wait: Option<Wait>,
    /// What others shall be told about the holder; it is stored, so never a secret
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Take it from an owner that is stopped (found so twice, 200 ms apart)
    #[arg(long)]
    pub(crate) evict_stopped: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LockRef {
    /// What sort of thing it is, e.g. telegram-bot-token
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: OsString,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// The process that holds it [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Only if it still has this fence
    #[arg(long, value_name = "F")]
    pub(crate) fence: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct LockRelease {
    /// What sort of thing it is, e.g. telegram-bot-token
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
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Only if it still has this fence
    #[arg(long, value_name = "F")]
    pub(crate) fence: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct Unlock {
    /// What sort of thing it is, e.g. telegram-bot-token
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
    /// Every lock whose holder is dead: a sweep before a start
    #[arg(long, conflicts_with_all = ["scope", "identity", "identity_env", "hash", "force"])]
    pub(crate) stale: bool,
    /// Also when its holder lives or cannot be told dead; nothing is signalled
    #[arg(long)]
    pub(crate) force: bool,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match span::parse(text) {
        Ok(Span::Finite(duration)) => Ok(duration),
        Ok(Span::Infinite) => Err("it has to end".to_owned()),
        Err(error) => Err(explain(&error)),
    }
}

fn parse_wait(text: &str) -> Result<Wait, String> {
    match span::parse(text) {
        Ok(Span::Finite(duration)) => Ok(Wait::UpTo(duration)),
        Ok(Span::Infinite) => Ok(Wait::Forever),
        Err(error) => Err(explain(&error)),
    }
}

fn parse_exit_code(text: &str) -> Result<(ExitCause, ExitRule), String> {
    let Some((cause, code)) = text.split_once('=') else {
        return Err("it has the form CAUSE=CODE".to_owned());
    };
    let cause: ExitCause = cause.parse().map_err(|error| explain(&error))?;
    if code == "own" {
        return Ok((cause, ExitRule::Own));
    }
    match code.parse() {
        Ok(code) => Ok((cause, ExitRule::Code(code))),
        Err(_) => Err(format!("{code:?} is no exit code: a number from 0 to 255, or `own`")),
    }
}

fn parse_supervisor(text: &str) -> Result<Supervisor, String> {
    text.parse().map_err(|error| explain(&error))
}

fn parse_desired(text: &str) -> Result<Desired, String> {
    text.parse().map_err(|error| explain(&error))
}

fn parse_marker(text: &str) -> Result<MarkerName, String> {
    MarkerName::new(text).map_err(|error| explain(&error))
}

fn explain(error: &crate::Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn parse_pid(text: &str) -> Result<u32, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid.unsigned_abs()),
        Ok(_) | Err(_) => Err("a pid is a whole number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
