//! The arguments: one struct per verb, in the words of the design.

#![allow(clippy::doc_markdown, reason = "these comments are shown in a terminal")]

pub(crate) mod forensics;
pub(crate) mod lock;
pub(crate) mod marker;
pub(crate) mod past;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod unit;
pub(crate) mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::status::Desired;

pub(super) use self::forensics::{
    Forensics, ForensicsDiagnose, ForensicsSnapshot, ForensicsSystemd,
};
pub(super) use self::lock::{Lock, LockAcquire, LockRef, LockRelease, Locks, Unlock};
pub(super) use self::marker::{Marker, MarkerClear, MarkerRead, MarkerWrite};
pub(super) use self::past::{Events, History};
pub(super) use self::run::{Restart, Run, Signal, Stop};
pub(super) use self::status::{Status, StatusField, StatusSet, Wait};
pub(super) use self::unit::Unit;
pub(super) use self::values::{Cadence, Time};

/// One live owner per gateway and per token, decided by the kernel
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

supervisor_stop: the supervisor or Ctrl-C sent the signal; signalled: another process sent it.
start_interrupted: a signal in state starting, except a stop by systemd or launchd.
refused: also when the office was lost.";

/// How several answers are one exit code.
const WORST_OF_ALL: &str = "\
With --all the exit code is the worst of all offices, in this order, the worst first: 70 and 78 \
an error, 4 unknown, 1 not done, 75 not now, 3 not running, 0 done.";

const RESTART_CODES: &str = "\
Exit codes: 0 restarted, 1 not done (its new command has ended at once, or another gateway only \
serves the profile), 3 not running, 4 unknown, 75 not restarted in time. With --all it is the \
worst of all offices, in this order, the worst first: 70 and 78 an error, 4, 1, 75, 3, 0.";

/// How one lock is asked about.
const ONE_LOCK: &str = "\
Exit codes: 0; of one lock that is asked about: 0 held, 3 not held, 4 unknown.";

/// What `wait` waits for.
const WAITED: &str = "\
Exit codes: 0 it is ready, or reports the state; 1 not in time; 3 the holder that was seen has \
ended.

A gateway is not ready if it reports starting, draining, degraded, stopped or startup_failed, or \
if it is unresponsive, stopped by a signal, frozen, or between two commands. A gateway that \
reports nothing is ready as soon as it runs: let it report `starting` first, or wait with --state \
running.";

/// What a probe wants to know of `doctor`.
const DOCTOR: &str = "\
Exit codes: 0 no action needed; 1 act now, or a repair failed; 75 try again. With --json all \
findings are listed; their ids are stable.";

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
    /// Print what is being waited for, even without a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) progress: bool,
    /// Trust the locks of a filesystem type that is refused otherwise, at your own risk
    #[arg(long, global = true, value_name = "TYPE", help_heading = "Global options")]
    pub(crate) allow_filesystem: Vec<String>,
}

// The options of a verb are made when it is met: all of them together take longer than to parse.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Verb {
    /// Claim the office and run a command; it ends when `run` ends
    #[command(after_long_help = EXIT_CODES)]
    Run(Run),
    /// Show whether the office's holder is running, and how we know
    Status(Status),
    /// Wait until the gateway is ready, or reports a given state
    #[command(after_help = WAITED)]
    Wait(Wait),
    /// Publish the gateway's own status. Only the office's holder may; inside a `run` that is the
    /// run
    StatusSet(Box<StatusSet>),
    /// Claim the office for a process that does not link the library
    Claim(Claim),
    /// Release an office that `claim` recorded
    Release(Release),
    /// End the record of a dead holder; of a live or unknown one only with --force
    Evict(Evict),
    /// Stop the office's holder, recorded as a planned stop
    #[command(after_help = WORST_OF_ALL)]
    Stop(Stop),
    /// Restart the office's holder
    #[command(after_help = RESTART_CODES)]
    Restart(Restart),
    /// Send a signal to the holder's command: to reload, to rotate its log, to dump its state
    Signal(Signal),
    /// Show or set whether the profile should run; obeyed by `run --respect-desired`
    Desired {
        /// running or stopped
        #[arg(value_name = "running|stopped", value_parser = values::parse_desired)]
        desired: Option<Desired>,
    },
    /// Leave a message for a process, or read one
    #[command(subcommand)]
    Marker(Marker),
    /// Hold a token, an account or a port for a process, so that no other process has it on this
    /// machine
    #[command(subcommand)]
    Lock(Lock),
    /// Show who holds which lock, whether it is alive, who waits and who was refused
    #[command(after_help = ONE_LOCK)]
    Locks(Locks),
    /// Remove the lock of a dead holder; of a live or unknown one only with --force
    Unlock(Unlock),
    /// Show who held the office, and how each holder ended
    History(History),
    /// Show what happened in the store: in all of it, unless --profile or --kind is given
    Events(Events),
    /// Print a unit, a property list, a run script or the end of a Dockerfile for a command
    Unit(Box<Unit>),
    /// Find out who stops a gateway, and whether it gets enough time to stop
    #[command(subcommand)]
    Forensics(Forensics),
    /// Check for anything that blocks a start or lets two gateways run
    #[command(after_help = DOCTOR)]
    Doctor(Doctor),
    /// Take over what an older program left in its files
    Import(Import),
    /// Write the files that an older program's scripts read, once. The gateway.lock is not locked:
    /// to keep an older program out, use `run --legacy-home`
    Export(Export),
    /// Copy the store to a new file, even while gateways run
    Backup(Backup),
    /// Print the path of the store
    Path,
    /// Query the store in SQL, read-only
    Sql(Sql),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Print the help of a verb; `words` explains the words that have a special meaning here
    Help {
        /// A verb, or `words` [default: the program itself]
        #[arg(value_name = "VERB")]
        topic: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Claim {
    /// The process to record [default: the run we are in, else the parent process; in a script say
    /// `--pid $$`, because inside `$(...)` or a pipe the parent is a subshell that ends at once]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Record it without a keeper process: only pid and start time will show whether it is alive
    #[arg(long)]
    pub(crate) no_keeper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The recorded process [default: the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Evict {
    /// Even if the holder is alive or unknown; no signal is sent
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Repair what can be repaired safely, and say what was done
    #[arg(long)]
    pub(crate) fix: bool,
    /// Only show what --fix would do
    #[arg(long, requires = "fix")]
    pub(crate) dry_run: bool,
    /// Also show what needs no action, what is in order, and what cannot be seen from here
    #[arg(long)]
    pub(crate) verbose: bool,
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
pub(crate) struct Backup {
    /// The file to make; an existing one is never overwritten
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
#[command(override_usage = "incumbent sql [OPTIONS] <QUERY|->
       incumbent sql [OPTIONS] --file <FILE>")]
pub(crate) struct Sql {
    /// A SELECT, or several, with comments; `-` reads it from standard input
    #[arg(required_unless_present = "file", allow_hyphen_values = true)]
    pub(crate) query: Option<String>,
    /// Read it from this file
    #[arg(long, value_name = "FILE", conflicts_with = "query")]
    pub(crate) file: Option<PathBuf>,
    /// Print comma-separated values
    #[arg(long)]
    pub(crate) csv: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        crate::cli::args::Cli::command().debug_assert();
    }
}
