//! The arguments of `marker`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::values;
use crate::marker::MarkerName;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Marker {
    /// Leave a marker for a process: takeover, planned_stop, restart, or any other word
    Write(MarkerWrite),
    /// Show the marker that is open for a process, and leave it open
    Peek(MarkerRead),
    /// Show the marker that is open for a process, and close it; only one consumer gets it
    Consume(MarkerRead),
    /// Close the markers of this name, read or unread, even if the process has ended
    Clear(MarkerClear),
}

#[derive(Debug, Args)]
pub(crate) struct MarkerWrite {
    /// The marker's name
    #[arg(value_name = "NAME", value_parser = values::parse_marker)]
    pub(crate) name: MarkerName,
    /// The process it is for
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: u32,
    /// How long it lives, at most 30 days [default: 60s; takeover, planned_stop and restart: the
    /// stop budget of the process plus 75s]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Why; shown with the marker
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MarkerRead {
    /// The marker's name [default: any; takeover, planned_stop and restart come first]
    #[arg(value_name = "NAME", value_parser = values::parse_marker)]
    pub(crate) name: Option<MarkerName>,
    /// The process it is for [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct MarkerClear {
    /// The marker's name
    #[arg(value_name = "NAME", value_parser = values::parse_marker)]
    pub(crate) name: MarkerName,
    /// The process it is for [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
}
