//! Waiting for a gateway, signalling it, stopping all of them: does each verb say what is so?

mod all;
mod drain;
mod frozen;
mod restart_exec;
mod signal;
mod supervisors;
mod wait;

use std::process::Command;

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

/// The same command as a child of a program that is called `systemd`.
fn below_systemd(sandbox: &Sandbox, command: &Command) -> Command {
    let script = sandbox.write_script("manager/systemd", "#!/bin/sh\n\"$@\"\nexit $?\n");
    let mut below = sandbox.program(script);
    below.arg(command.get_program()).args(command.get_args());
    below
}

/// The same command, which finds programs in `bin` of the sandbox first; see
/// [`Sandbox::among_fakes`].
fn with_fakes_first(sandbox: &Sandbox, mut command: Command) -> Command {
    let mut path = sandbox.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.env("PATH", path);
    command
}
