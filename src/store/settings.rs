//! How a store is worked with, by whatever handle.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::process::command_line::matcher::CommandLineMatcher;
use crate::store::location::AllowedFilesystems;
use crate::store::pragmas::Durability;

/// What every handle of a store has from who opened it.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) busy_budget: Duration,
    pub(super) durability: Durability,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) matcher: Arc<dyn CommandLineMatcher>,
    pub(super) allowed_filesystems: AllowedFilesystems,
    /// Says a line to the person who starts us, where there is one.
    pub(super) tell: fn(&str),
}
