//! `forensics snapshot`: for a handler that is not a program of ours, and for a person who wants to
//! see one.
//!
//! It describes its own process, as the older program's does; the gateway whose handler calls it is
//! the `parent`.

use std::time::Duration;

use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::output::{Answer, Outcome, exit};
use crate::forensics;
use crate::forensics::Snapshot;
use crate::keeper::Whom;
use crate::patience::with_budget;
use crate::{Office, Store};
use serde_json::json;

/// How long the store may keep us: whoever asks is being stopped.
const STORE_WITHIN: Duration = Duration::from_millis(50);

pub(crate) fn snapshot(global: &Global, arguments: &args::ForensicsSnapshot) -> Outcome {
    // Before the store is opened: what is seen now counts.
    let seen = forensics::snapshot(arguments.signal);
    let office = global.office()?;
    let snapshot = with_budget(STORE_WITHIN, || match global.existing() {
        Ok(Some(store)) => record(&store, office, seen),
        Ok(None) => seen.without_store("there is no store"),
        Err(error) => seen.without_store(error.to_string()),
    });
    Ok(Answer::new(exit::OK, snapshot.to_log_line() + "\n", json!(snapshot)))
}

/// Leaves it on record for the run that we are in, or for the process that started us if it is on
/// record.
fn record(store: &Store, office: Office, seen: Snapshot) -> Snapshot {
    let (instance, office) = match store.kept(Whom::Caller).instance() {
        Ok(Some((instance, own))) => (Some(instance), own.unwrap_or(office)),
        Ok(None) => (None, office),
        Err(error) => return seen.without_store(error.to_string()),
    };
    seen.recorded_in(store, instance, &office)
}
