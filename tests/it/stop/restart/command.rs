//! How the command is stopped before it is started again.

use rustix::process::Signal;
use serde_json::json;

use super::{is_done, next_start};
use crate::stop::{reloaded, terms};
use crate::support::{LIMIT, Process, Sandbox, pid_namespace, rounds, skipped, wait_stopped};

/// By the rules of a stop: asked once, given its time, then killed. How the one before ended says
/// nothing of how the run ends.
#[test]
fn a_command_that_ignores_term_is_killed_and_started_again() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    let instance = sandbox.status().1["instance"].clone();
    let first = run.command;
    let document = sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
    is_done(&document, &instance);
    assert!(first.is_gone());
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    let told = run.process.err_line_with("restarted the command");
    assert!(told.contains("SIGKILL") && told.contains("incumbent restart"), "{told}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["child_pid"], run.command.pid, "{status:#}");
    run.let_end();
    let answer = run.ended().assert_code(7);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    let end = sandbox.history().swap_remove(0);
    assert_eq!((&end["end_reason"], &end["exit_code"]), (&json!("exited"), &json!(7)), "{end:#}");
    assert!(end["signal"].is_null() && end["ended_by"].is_null(), "{end:#}");
}

/// After a restart a person wants to see that it is a new command, and since when.
#[test]
fn the_command_that_was_started_is_told() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let document = sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
    let pid = next_start(&mut run);
    assert_eq!((&document["child_pid"], &document["restarts"]), (&json!(pid), &json!(1)));
    assert_eq!(document["command_since"], sandbox.status().1["command_since"]);
    let told = sandbox.cli(["restart"]).assert_code(0);
    let pid = next_start(&mut run);
    let begins = format!("default/gateway: restarted, its command is pid {pid}, started 20");
    assert!(told.out.starts_with(&begins), "{told:#?}");
    run.end().assert_code(0);
}

/// Symptom: "not running", as if there had been nothing to restart. What becomes of a command that
/// was executed is not waited for.
#[test]
fn a_new_command_that_cannot_be_executed_is_told() {
    let spoiled = || {
        let sandbox = Sandbox::new();
        // Another process makes it: one that is open for writing cannot be executed.
        let make = r"printf '#!/bin/sh\necho $$\nexec sleep 1000\n' > gateway.sh
            chmod +x gateway.sh";
        Process::start(sandbox.shell(make)).finish(LIMIT).assert_code(0);
        let run = sandbox.hold_with(&[sandbox.file("gateway.sh").to_str().unwrap()]);
        Process::start(sandbox.shell("chmod -x gateway.sh")).finish(LIMIT).assert_code(0);
        (sandbox, run)
    };
    let crashed = "crashed: exit code 126 (the command cannot be executed)";
    let (sandbox, run) = spoiled();
    let instance = sandbox.status().1["instance"].clone();
    let document = sandbox.cli(["--json", "restart"]).assert_code(1).json();
    assert_eq!((&document["restarted"], &document["instance"]), (&json!(false), &instance));
    assert_eq!(document["end"]["summary"], crashed, "{document:#}");
    run.end().assert_code(126);
    let (sandbox, run) = spoiled();
    let told = sandbox.cli(["restart"]).assert_code(1);
    told.assert_complains(&[&format!("default/gateway: restarted, and {crashed}")]);
    run.end().assert_code(126);
}

/// The command may want to know why it is being stopped; that it reads the marker, and so consumes
/// it, does not lose the restart.
#[test]
fn a_command_that_consumes_the_marker_is_started_again() {
    let sandbox = Sandbox::new();
    let script = "
        trap 'incumbent marker consume > why.txt; kill -KILL $sleeper; exit 0' TERM
        sleep 1000 > /dev/null 2>&1 &
        sleeper=$!
        echo $$
        while :; do wait $sleeper; done";
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    for round in 1..=rounds(5, 100) {
        let reason = format!("round {round}");
        let restart = sandbox.begin(&["restart", "--reason", &reason]);
        let asker = restart.pid();
        restart.finish(LIMIT).assert_code(0);
        next_start(&mut run);
        let why = std::fs::read_to_string(sandbox.file("why.txt")).unwrap();
        assert!(why.starts_with("restart by ") && why.ends_with(&format!(": {reason}\n")), "{why}");
        assert!(why.contains(&format!("pid {asker}")), "{why}");
        assert_eq!(sandbox.served(), i64::try_from(round).unwrap());
    }
    assert_eq!(sandbox.restarts_asked_for(), sandbox.served());
    run.process.signal(Signal::TERM);
    run.ended().assert_code(0);
}

/// A reload of long ago does not make a run deaf.
#[test]
fn a_run_that_was_told_to_reload_can_still_be_restarted() {
    let sandbox = Sandbox::new();
    let mut run = reloaded(&sandbox, &[]);
    let restart = sandbox.begin(&["restart", "--timeout", "10s"]);
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    next_start(&mut run);
    restart.finish(LIMIT).assert_code(0);
    run.let_end();
    run.ended().assert_code(7);
}

/// A run that cannot look just now serves what was asked of it as soon as it can.
#[test]
fn a_stopped_run_serves_a_restart_when_it_goes_on() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let answer = sandbox.cli(["restart", "--timeout", "300ms"]).assert_code(75);
    answer.assert_complains(&["not restarted in time", "the request stands"]);
    let second = sandbox.begin(&["restart"]);
    run.process.signal(Signal::CONT);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    second.finish(LIMIT).assert_code(0);
    assert_eq!((sandbox.restarts_asked_for(), sandbox.served()), (1, 1));
    run.let_end();
    run.ended().assert_code(7);
}

/// R:PIDNS: a request is a row, which has no pid namespace.
#[test]
fn a_run_in_another_pid_namespace_is_restarted() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    let inside = sandbox.in_namespace(namespace, "incumbent restart; exit $?");
    inside.finish(LIMIT).assert_code(0);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    run.let_end();
    run.ended().assert_code(7);
}
