//! What the doctor advises.

use super::{hint, paste};
use crate::support::{Answer, LIMIT, Process, START, Sandbox, set_mode, sleeper};

/// What it says, notes included.
fn said(sandbox: &Sandbox) -> Answer {
    let mut command = sandbox.incumbent(["doctor", "--verbose"]);
    command.env_remove("HERMES_HOME");
    Process::start(command).finish(LIMIT)
}

/// Whether a check finds nothing any more.
#[track_caller]
fn assert_in_order(sandbox: &Sandbox, check: &str) {
    let answer = said(sandbox);
    let ok = answer.out.lines().find_map(|line| line.strip_prefix("ok: ")).unwrap().to_owned();
    assert!(ok.split(", ").any(|id| id == check), "{check}: {answer:#?}");
}

#[test]
pub(super) fn fix() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    said(&sandbox);
    set_mode(&sandbox.db(), 0o644);
    let told = said(&sandbox).assert_code(1);
    paste(&sandbox, &hint(&told, "doctor --fix")).assert_code(0);
    assert_in_order(&sandbox, "modes");
}

#[test]
pub(super) fn evict() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let told = said(&sandbox).assert_code(0);
    paste(&sandbox, &hint(&told, "evict")).assert_code(0);
    assert_in_order(&sandbox, "stale_rows");
}

/// A dead holder of locks, without an office.
#[test]
pub(super) fn unlock_stale() {
    let sandbox = Sandbox::new();
    let mut owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "s", "i", "--no-keeper", "--pid", &pid]).assert_code(0);
    owner.kill();
    let told = said(&sandbox).assert_code(0);
    paste(&sandbox, &hint(&told, "unlock --stale")).assert_code(0);
    assert_eq!(sandbox.json(["locks"]).1, serde_json::json!([]));
}

/// A gateway that hangs.
#[test]
pub(super) fn restart() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET heartbeat_every_ms = 1000, heartbeat_at_ms = 1000000");
    let told = said(&sandbox).assert_code(1);
    paste(&sandbox, &hint(&told, "restart")).assert_code(0);
    assert!(run.command.is_gone(), "the command that hung was left");
    assert_eq!(sandbox.status().0, 0);
    drop(run);
}

/// A party whose starts fail again and again, and one that was refused.
fn stormy() -> (Sandbox, crate::support::Run) {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for _ in 0..6 {
        let mut start = sandbox.incumbent(START);
        start.env("INCUMBENT_PARTY", "red");
        Process::start(start).finish(LIMIT).assert_code(75);
    }
    (sandbox, run)
}

#[test]
pub(super) fn history() {
    let (sandbox, run) = stormy();
    let told = said(&sandbox).assert_code(1);
    // Why they fail: somebody has held it all the time.
    let history = paste(&sandbox, &hint(&told, "history")).assert_code(0);
    assert!(history.out.contains(&format!("pid {}", run.pid())), "{history:#?}");
    run.end().assert_code(0);
}

#[test]
pub(super) fn status_of_all() {
    let (sandbox, run) = stormy();
    let told = said(&sandbox).assert_code(1);
    let all = paste(&sandbox, &hint(&told, "status --all")).assert_code(0);
    assert!(all.out.contains(&run.pid().to_string()), "{all:#?}");
    run.end().assert_code(0);
}

/// A shell of SQLite's that may damage what it writes.
#[test]
pub(super) fn sql() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.cli(START).assert_code(0);
    sandbox.write_script("bin/sqlite3", "#!/bin/sh\necho '3.45.1 2024-01-30'\n");
    let mut command = sandbox.incumbent(["doctor", "--verbose"]);
    let mut path = sandbox.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.env("PATH", path).env_remove("HERMES_HOME");
    let told = Process::start(sandbox.among_fakes(command)).finish(LIMIT).assert_code(0);
    let rows = paste(&sandbox, &hint(&told, "sql")).assert_code(0);
    assert!(rows.out.contains("gateway"), "{rows:#?}");
}
