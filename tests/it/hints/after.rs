//! Hints of what comes next: after a crash, and after a copy was made.

use super::{hint, paste};
use crate::support::{LIMIT, Sandbox};

/// A command that crashed, and nobody knows what it wrote.
#[test]
pub(super) fn run_with_its_last_words() {
    let sandbox = Sandbox::new();
    let crash = ["run", "--no-backoff", "--", "sh", "-c", "echo no chat >&2; exit 1"];
    sandbox.cli(crash).assert_code(1);
    let told = sandbox.cli(["status"]).assert_code(3);
    let command = hint(&told, "run --keep-stderr");
    let start = command.strip_suffix("-- CMD").unwrap().to_owned();
    paste(&sandbox, &(start + "-- sh -c 'echo no chat >&2; exit 1'")).assert_code(1);
    let told = sandbox.cli(["status"]).assert_code(3);
    assert!(told.out.contains("exit code 1: no chat"), "{told:#?}");
}

/// A copy is put back when no gateway runs, of whatever profile.
#[test]
pub(super) fn stop_of_all() {
    let sandbox = Sandbox::new();
    let runs = ["work", "home"].map(|profile| sandbox.hold(&["--profile", profile]));
    let told = sandbox.cli(["--profile", "work", "backup", "copy.db"]).assert_code(0);
    paste(&sandbox, &hint(&told, "stop --all --desired")).assert_code(0);
    for mut run in runs {
        run.process.wait(LIMIT);
        assert!(run.command.is_gone());
    }
}

/// Symptom: `status --pid` of a dead gateway of another profile advised to start the default one.
#[test]
fn what_is_told_of_a_pid_is_about_its_own_office() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "work"]);
    let pid = run.pid().to_string();
    run.kill();
    run.command.wait_gone(LIMIT);
    let told = sandbox.cli(["status", "--pid", &pid]).assert_code(3);
    let command = hint(&told, "run");
    assert!(command.contains("--profile work --kind gateway"), "{command}");
    paste(&sandbox, &command.replace("-- CMD", "-- true")).assert_code(0);
    let history = sandbox.json(["--profile", "work", "history"]).1;
    assert_eq!(history.as_array().unwrap().len(), 2, "{history:#}");
}
