//! What is true of a gateway, what did it say, and is that one answer on every surface?

mod all;
mod contention;
mod instance;
mod light;
mod people;
mod quick;
mod set;
mod surfaces;
mod truth;

use crate::support::Sandbox;

/// Every surface that answers "is it up?", but for the library.
const SURFACES: [&[&str]; 6] = [
    &["status"],
    &["--json", "status"],
    &["status", "--all"],
    &["--json", "status", "--all"],
    &["status", "--metrics"],
    &["status", "--all", "--metrics"],
];

/// What a gateway says that has a lot to do.
const AT_WORK: &[&str] = &[
    "--state",
    "running",
    "--active-agents",
    "3",
    "--heartbeat=1h",
    "--serves",
    "other",
    "--platform",
    "telegram",
    "--platform-state",
    "connected",
];

fn shown_by(sandbox: &Sandbox, surface: &[&str]) -> String {
    let answer = sandbox.cli(surface);
    assert_eq!(answer.err, "", "{surface:?}");
    answer.out
}

/// The line of `status --all` for the default office.
fn row_of_the_table(text: &str) -> String {
    let row = text.lines().find(|line| line.starts_with("default "));
    row.unwrap_or_else(|| panic!("{text}")).to_owned()
}
