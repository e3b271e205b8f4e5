//! The arguments: one struct per verb, in the words of the design.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

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
pub(crate) struct Run {
    /// Wait for the office while another one holds it [without =DUR: without limit]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "infinity",
        value_parser = parse_wait
    )]
    pub(crate) wait: Option<Wait>,
    /// How long CMD may take to stop, at most 1h
    #[arg(long, value_name = "DUR", default_value = "90s", value_parser = parse_duration)]
    pub(crate) stop_budget: Duration,
    /// Claim at once, also in a storm of restarts
    #[arg(long)]
    pub(crate) no_backoff: bool,
    /// Exit with this code when the office is not to be had
    #[arg(short = 'E', value_name = "CODE", default_value_t = 75)]
    pub(crate) refused_exit_code: u8,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Claim {
    /// The process to record [default: the run we are in, else the parent process; in a script say
    /// `--pid $$`, because inside `$(...)` or a pipe the parent is a subshell that ends at once]
    #[arg(long, value_name = "PID", value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
    /// Record it without a keeper process: only pid and start time will tell whether it lives
    #[arg(long)]
    pub(crate) no_keeper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The recorded process [default: the parent process]
    #[arg(long, value_name = "PID", value_parser = parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Evict {
    /// Also when its holder lives or cannot be told dead; nothing is signalled
    #[arg(long)]
    pub(crate) force: bool,
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
