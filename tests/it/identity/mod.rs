//! Who is on record, is it that process, and does it live?
//!
//! The decision table itself is tested over its whole product beside the code. Here it is shown
//! that what the table is fed is true.

mod boot_ids;
mod clocks;
mod containers;
mod doubt;
pub mod forked;
mod namespaces;
mod pids;
mod reboot;
mod users;

use serde_json::Value;

use crate::support::{LIMIT, Sandbox};

/// Asserts that nobody is kept out, and that the start says whom it replaced.
fn assert_free(sandbox: &Sandbox, reason: &str) {
    sandbox.assert_status(3, "dead", reason);
    let answer = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    answer.assert_complains(&["took the place of", &reason.replace('_', " ")]);
    assert_eq!(sandbox.history()[1]["end_reason"], reason);
}

/// Asserts that the office is refused to others, and why; that only force ends it.
fn assert_office_refused(sandbox: &Sandbox, code: i32, verdict: &str, reason: &str) -> Value {
    let status = sandbox.assert_status(code, verdict, reason);
    let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    assert_eq!(answer["holder"]["verdict"], verdict, "{answer:#}");
    assert_eq!(answer["holder"]["reason"], reason, "{answer:#}");
    sandbox.cli(["evict"]).assert_code(75);
    status
}

/// A sandbox with the record of a killed run, whose pid is then forged to be `decoy`'s.
fn killed_run(sandbox: &Sandbox) {
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.forge("UPDATE instances SET child_pid = NULL, child_start_time = NULL");
}
