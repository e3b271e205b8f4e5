//! The arguments of `forensics`.

use crate::cli::args::values;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Forensics {
    /// Show what a signal handler would see: who sent the signal, and the state of the process
    Snapshot(ForensicsSnapshot),
    /// Check whether systemd gives a gateway enough time to stop
    Systemd(ForensicsSystemd),
    /// Start a detailed diagnostic of the machine in its own process, and print its pid
    Diagnose(ForensicsDiagnose),
}

#[derive(Debug, Args)]
pub(crate) struct ForensicsSnapshot {
    /// The signal that was received, by number or name
    #[arg(long, value_name = "N", value_parser = values::parse_signal)]
    pub(crate) signal: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct ForensicsSystemd {
    /// How long the gateway drains its work before it stops [default: what the office's holder
    /// published]
    #[arg(long, value_name = "DUR", value_parser = values::parse_duration)]
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
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = values::parse_duration)]
    pub(crate) timeout: Duration,
    /// The process that is ending [default: the run we are in, else the parent process]
    #[arg(long, value_name = "PID", allow_hyphen_values = true, value_parser = values::parse_pid)]
    pub(crate) pid: Option<u32>,
    /// The signal that it received, by number or name
    #[arg(long, value_name = "N", value_parser = values::parse_signal)]
    pub(crate) signal: Option<i32>,
}
