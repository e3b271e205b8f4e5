//! The arguments: one struct per verb, in the words of the design.

#![allow(clippy::doc_markdown, reason = "these comments are shown in a terminal")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::names::{MarkerName, ProfileName};
use crate::patience::Wait;
use crate::process::exit_code::{ExitCause, ExitRule, Supervisor};
use crate::records::profiles::Desired;
use crate::span::Span;
use crate::{span, sys};

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

/// How `run` tells its supervisor what to make of an end.
const EXIT_CODES: &str = "\
Exit codes by cause    systemd, launchd, s6  docker            none
  planned_stop         0                     0                 0
  taken_over           0                     0                 0
  supervisor_stop      0                     CMD's             CMD's
  signalled            CMD's, but not 0      CMD's, but not 0  CMD's
  start_interrupted    75                    75                75
  desired_stopped      0                     0                 75
  refused              75                    75                75
  exited               CMD's                 CMD's             CMD's

supervisor_stop: it sent the signal; signalled: anybody else did.
start_interrupted: a signal in state starting, but for a stop by systemd or launchd.
refused: also when the office was lost.";

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
    /// The kind of office of that profile [default: gateway]
    #[arg(long, global = true, value_name = "KIND", help_heading = "Global options")]
    pub(crate) kind: Option<String>,
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
    #[command(after_long_help = EXIT_CODES)]
    Run(Run),
    /// Say whether the office's holder is running, and why we believe it
    Status(Status),
    /// Say how the gateway is: what `status` shows beside what is true of it. Only the office's holder
    /// may; inside a `run` that is the run
    StatusSet(Box<StatusSet>),
    /// Claim the office for a process that does not link the library
    Claim(Claim),
    /// Release an office that `claim` recorded
    Release(Release),
    /// End the record of a dead holder; of a live or unknown one only with --force
    Evict(Evict),
    /// Stop whoever holds the office, so that nobody takes it for a crash
    Stop(Stop),
    /// Have whoever holds the office start again
    Restart(Restart),
    /// Show or set whether the profile should run; obeyed by `run --respect-desired`
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
    /// Find out who stops a gateway, and whether it gets the time that it needs
    #[command(subcommand)]
    Forensics(Forensics),
    /// Look for everything that keeps gateways from starting, or makes two of one
    Doctor(Doctor),
    /// Take over what an older program left in its files
    Import(Import),
    /// Write the files that an older program's scripts read, once. The gateway.lock among them is not
    /// locked: what keeps an older program out is `run --legacy-home`
    Export(Export),
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

#[derive(Debug, Subcommand)]
pub(crate) enum Forensics {
    /// Say who and what asks a process to end, as its own signal handler would
    Snapshot(ForensicsSnapshot),
    /// Say whether systemd gives a gateway the time that it takes to stop
    Systemd(ForensicsSystemd),
    /// Leave a slow look at the whole machine to a process of its own, and print its pid
    Diagnose(ForensicsDiagnose),
}

#[derive(Debug, Args)]
pub(crate) struct ForensicsSnapshot {
    /// The signal that was received, by number or name
    #[arg(long, value_name = "N", value_parser = parse_signal)]
    pub(crate) signal: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct ForensicsSystemd {
    /// How long the gateway lets its work finish when it is asked to end [default: what the office's
    /// holder published]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub(crate) drain: Option<Duration>,
    /// The unit [default: that of this process, else that of the office's holder]
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ForensicsDiagnose {
    /// The file to append to
    #[arg(long, value_name = "FILE")]
    pub(crate) log: PathBuf,
    /// How long it may take, at most 1min
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// The process that is ending [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// The signal that it received, by number or name
    #[arg(long, value_name = "N", value_parser = parse_signal)]
    pub(crate) signal: Option<i32>,
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
    /// Do not start a profile that is set to stay stopped (see `desired`)
    #[arg(long)]
    pub(crate) respect_desired: bool,
    /// How long CMD may take to stop, at most 1h
    #[arg(long, value_name = "DUR", default_value = "90s", value_parser = parse_duration)]
    pub(crate) stop_budget: Duration,
    /// Claim at once, also in a storm of restarts
    #[arg(long)]
    pub(crate) no_backoff: bool,
    /// Hold the gateway.lock of this directory as well, so that older programs respect this one
    #[arg(long, value_name = "DIR")]
    pub(crate) legacy_home: Option<PathBuf>,
    /// Words in the process list by which newer versions of the older gateway recognise this run; added by itself
    #[arg(long, value_name = "WORD", num_args = 1..=3, requires = "legacy_home")]
    pub(crate) known_as: Vec<OsString>,
    /// Exit with this code when the start is refused [default: 75]
    #[arg(short = 'E', value_name = "CODE")]
    pub(crate) refused_exit_code: Option<u8>,
    /// Exit with this code for this cause: planned_stop, taken_over, supervisor_stop, signalled,
    /// start_interrupted, desired_stopped, refused or exited; `own` is that of CMD [default: by supervisor, see
    /// below]
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
pub(crate) struct Status {
    /// Every office of the store, or those of --profile and --kind; exits with 0
    #[arg(long)]
    pub(crate) all: bool,
    /// Print Prometheus' text format, e.g. for a node exporter's textfile directory
    #[arg(long)]
    pub(crate) metrics: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusSet {
    /// The process that holds the office [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// starting, running, draining, degraded, stopped, startup_failed, or a word of your own
    #[arg(long, value_name = "S")]
    pub(crate) state: Option<String>,
    /// Why it ends
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) exit_reason: Option<String>,
    /// Whether it wants to be started again
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    pub(crate) restart_requested: Option<bool>,
    /// How many agents work for it just now; below 0 counts as 0
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) active_agents: Option<i64>,
    /// Whatever else is to be said; it is stored, so never a secret
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) extra: Option<String>,
    /// A sign of life; with =DUR it promises the next one within that time, and who breaks that is
    /// shown as unresponsive
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = parse_cadence
    )]
    pub(crate) heartbeat: Option<Cadence>,
    /// The platform that the following options are about
    #[arg(long, value_name = "P")]
    pub(crate) platform: Option<String>,
    /// connected, retrying, fatal, or a word of your own
    #[arg(long, value_name = "S", requires = "platform")]
    pub(crate) platform_state: Option<String>,
    /// Its last error, for programs
    #[arg(long, value_name = "C", requires = "platform", allow_hyphen_values = true)]
    pub(crate) error_code: Option<String>,
    /// Its last error, for people; what looks like a token is taken out
    #[arg(long, value_name = "M", requires = "platform", allow_hyphen_values = true)]
    pub(crate) error_message: Option<String>,
    /// Whether a person has to do something
    #[arg(long, value_name = "BOOL", requires = "platform", value_parser = parse_bool)]
    pub(crate) needs_attention: Option<bool>,
    /// Since when it tries to connect again: RFC 3339, Unix seconds, or `now`
    #[arg(long, value_name = "T", requires = "platform", value_parser = parse_time)]
    pub(crate) retrying_since: Option<Time>,
    /// Whatever else is to be said of it
    #[arg(long, value_name = "JSON", requires = "platform", allow_hyphen_values = true)]
    pub(crate) platform_extra: Option<String>,
    /// Forget a field: state, exit-reason, restart-requested, active-agents, extra, serves, heartbeat
    /// (the promise), platforms (all of them); with --platform also platform (as a whole), platform-state, error-code,
    /// error-message, needs-attention, retrying-since, platform-extra
    #[arg(long, value_name = "FIELD", value_parser = parse_status_field)]
    pub(crate) clear: Vec<StatusField>,
    /// A profile that it serves beside its own; name all of them in one call, it serves no others then
    #[arg(long, value_name = "PROFILE", value_parser = parse_profile)]
    pub(crate) serves: Vec<ProfileName>,
}

/// A sign of life, and the promise that may come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cadence {
    Unsaid,
    Every(Duration),
}

/// A moment, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    Now,
    At { ms: i64 },
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
    /// The profile is set to stay stopped (see `desired`)
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
pub(crate) struct Doctor {
    /// Repair what can be repaired safely, and say what was done
    #[arg(long)]
    pub(crate) fix: bool,
    /// Only say what --fix would do
    #[arg(long, requires = "fix")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The directory with gateway.pid, gateway.lock and gateway_state.json
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The directory with the *.lock files [default: `$HERMES_GATEWAY_LOCK_DIR`, else
    /// hermes/gateway-locks in the user's state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) lock_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The directory to write gateway.pid, gateway.lock and gateway_state.json to
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The directory to write the *.lock files to [default: gateway-locks in DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) lock_dir: Option<PathBuf>,
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
    /// What others should be told about the holder; it is stored, so never a secret
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
#[command(override_usage = "incumbent lock release [OPTIONS] <SCOPE> <ID|--identity-env <VAR>>
       incumbent lock release [OPTIONS] --all")]
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
#[command(
    override_usage = "incumbent unlock [OPTIONS] <SCOPE> <ID|--identity-env <VAR>|--hash <H>>
       incumbent unlock [OPTIONS] --stale"
)]
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

fn parse_cadence(text: &str) -> Result<Cadence, String> {
    if text.is_empty() {
        return Ok(Cadence::Unsaid);
    }
    parse_duration(text).map(Cadence::Every)
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("it is `true` or `false`".to_owned()),
    }
}

fn parse_time(text: &str) -> Result<Time, String> {
    /// A number from here on counts milliseconds: as seconds it is after the year 5138.
    const MS_MIN: f64 = 1e11;
    let refused = || {
        format!(
            "{text:?} is no time: `2026-11-22T08:15:00Z`, Unix seconds (`1795334400`), or `now`"
        )
    };
    if text == "now" {
        return Ok(Time::Now);
    }
    let ms = match text.parse::<f64>() {
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the next check")]
        Ok(number) if number.is_finite() => {
            (if number < MS_MIN { number * 1_000.0 } else { number }) as i64
        }
        Ok(_) => return Err(refused()),
        Err(_) => {
            chrono::DateTime::parse_from_rfc3339(text).map_err(|_| refused())?.timestamp_millis()
        }
    };
    if crate::clock::rfc3339(ms).is_none() {
        return Err(refused());
    }
    Ok(Time::At { ms })
}

fn parse_status_field(text: &str) -> Result<StatusField, String> {
    let wanted = text.replace('_', "-");
    StatusField::ALL.iter().find(|(name, _)| *name == wanted).map(|(_, field)| *field).ok_or_else(
        || {
            let names: Vec<&str> = StatusField::ALL.iter().map(|(name, _)| *name).collect();
            format!("there is no such field: one of {}", names.join(", "))
        },
    )
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

fn parse_profile(text: &str) -> Result<ProfileName, String> {
    ProfileName::new(text).map_err(|error| explain(&error))
}

fn explain(error: &crate::error::Error) -> String {
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

fn parse_signal(word: &str) -> Result<i32, String> {
    sys::signal_number(word).ok_or_else(|| "name one as 15, TERM or SIGTERM".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        crate::cli::args::Cli::command().debug_assert();
    }
}
