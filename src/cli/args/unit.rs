//! The arguments of `unit`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::args::values;
use crate::cli::args::values::StartType;
use crate::exit::Supervisor;

#[derive(Debug, Args)]
pub(crate) struct Unit {
    /// systemd, launchd, s6 or docker
    #[arg(value_name = "SUPERVISOR", value_parser = values::parse_unit_supervisor)]
    pub(crate) supervisor: Supervisor,
    /// What the supervisor calls it [default: incumbent-PROFILE, and the kind if it is another]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How systemd learns that CMD has started: `simple` (it assumes so) or `notify` (CMD says
    /// READY=1; `run --exec` starts it)
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "simple",
        value_parser = values::parse_start_type
    )]
    pub(crate) start_type: StartType,
    /// A socket that systemd makes for CMD: a port, an address with one, a path; prints a .socket
    /// file as well, and `run --exec` starts CMD
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// How long CMD may take to stop, at most 1h
    #[arg(long, value_name = "DUR", default_value = "90s", value_parser = values::parse_duration)]
    pub(crate) stop_budget: Duration,
    /// The incumbent program where the unit is used [default: this one; in an image the one on the
    /// path]
    #[arg(long, value_name = "PATH")]
    pub(crate) program: Option<PathBuf>,
    /// An option for `run`, as it is, e.g. --run-option=--lock-env=telegram-bot-token=BOT_TOKEN
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) run_option: Vec<OsString>,
    /// Print this one of several files alone, e.g. finish
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
