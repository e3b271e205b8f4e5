//! The arguments of `history` and `events`.

use clap::Args;

use crate::cli::args::values;

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Every office of the store, or those of --profile and --kind
    #[arg(long)]
    pub(crate) all: bool,
    /// Only those that held it then, or later: `2h` (that long ago; a number alone is seconds),
    /// `13:59` (today), `yesterday`, `2026-11-22`, `2026-11-22 03:00` (all UTC), RFC 3339 or Unix
    /// seconds
    #[arg(long, value_name = "T", value_parser = values::parse_moment)]
    pub(crate) since: Option<i64>,
    /// Only those that held it then, or earlier
    #[arg(long, value_name = "T", value_parser = values::parse_moment)]
    pub(crate) until: Option<i64>,
    /// Only the newest N
    #[arg(long, value_name = "N", value_parser = values::parse_limit)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on printing events as they are committed
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only those of this time or later: `2h` (that long ago; a number alone is seconds),
    /// `13:59` (today), `yesterday`, `2026-11-22`, `2026-11-22 03:00` (all UTC), RFC 3339 or Unix
    /// seconds
    #[arg(long, value_name = "T", value_parser = values::parse_moment)]
    pub(crate) since: Option<i64>,
    /// Only the newest N of the past ones [default: 1000; with --follow 10]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Only events of this name, e.g. office_ended; can be given several times
    #[arg(long, value_name = "E", value_parser = values::parse_event)]
    pub(crate) event: Vec<String>,
}
