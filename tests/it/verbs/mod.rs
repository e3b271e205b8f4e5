//! Waiting for a gateway, signalling it, stopping all of them: does each verb say what is so?

mod all;
mod drain;
mod frozen;
mod signal;
mod supervisors;
mod wait;

use crate::support::{Run, Sandbox};

/// A command that obeys: a line of shell on its standard input, the exit code as the answer.
const OBEYING: &[&str] = &[
    "--",
    "/bin/sh",
    "-c",
    "echo $$; while read -r line; do eval \"$line\"; echo \"=> $?\"; done",
];

/// A `run` whose command is ordered about by [`obey`].
#[track_caller]
fn obeying(sandbox: &Sandbox, options: &[&str]) -> Run {
    Run::start(sandbox.incumbent([options, &["run", "--no-backoff"], OBEYING].concat()))
}

/// Has the command of a run execute `line`; returns the exit code.
#[track_caller]
fn obey(run: &mut Run, line: &str) -> i32 {
    run.process.say(line);
    run.process.line_with("=> ").trim_start_matches("=> ").parse().unwrap()
}

/// Has it say how it is.
#[track_caller]
fn say(run: &mut Run, state: &str) {
    assert_eq!(obey(run, &format!("incumbent status-set --state {state} > said")), 0);
}
