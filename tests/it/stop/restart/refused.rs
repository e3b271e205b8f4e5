//! Whom there is to restart, and when it cannot be done.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{is_done, next_start, starts};
use crate::stop::PATIENT;
use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, eventually, kill, wait_ended, wait_stopped, writer,
};

#[test]
fn where_nobody_runs_there_is_nothing_to_restart() {
    let sandbox = Sandbox::new();
    let refused = || {
        let answer = sandbox.cli(["restart"]).assert_code(3);
        assert_eq!(answer.out, "default/gateway: not running\n", "{answer:#?}");
        let (code, document) = sandbox.json(["restart"]);
        assert_eq!((code, &document["restarted"]), (3, &json!(false)), "{document:#}");
        assert!(document["instance"].is_null() && document["holder"].is_null(), "{document:#}");
    };
    refused();
    assert!(!sandbox.file("store").exists(), "it made a store");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    refused();
    let run = sandbox.hold(&[]);
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
    run.command.wait_gone(LIMIT);
    refused();
    assert_eq!(sandbox.restarts_asked_for(), 0);
}

/// An owner that is no `run` serves it itself, or does not.
#[test]
fn a_linked_gateway_serves_a_restart_itself() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(30_000);
    let first = sandbox.status().1["instance"].clone();
    let (code, document) = sandbox.json(["restart", "--timeout", "300ms"]);
    assert_eq!((code, &document["restarted"]), (75, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["pid"], owner.pid(), "{document:#}");
    let answer = sandbox.cli(["restart", "--timeout", "0"]).assert_code(75);
    answer.assert_complains(&["not restarted in time", "the request stands", "not a `run`"]);
    assert_eq!(sandbox.restarts_asked_for(), 1, "what was asked for stays asked for");
    // It looks now and then, and begins anew by itself.
    let mut waiting = sandbox.begin(&["--json", "restart"]);
    eventually("an answer", LIMIT, || {
        owner.say("look");
        owner.err_line_with("=> ");
        waiting.has_ended().then_some(())
    });
    is_done(&waiting.finish(LIMIT).assert_code(0).json(), &first);
    let asked = sandbox.restarts_asked_for();
    assert!((1..=2).contains(&asked), "{asked}");
    // What it served then says nothing of what it is asked for now.
    sandbox.cli(["restart", "--timeout", "300ms"]).assert_code(75);
    assert_eq!(sandbox.restarts_asked_for(), asked + 1);

    owner.say("look");
    owner.err_line_with("=> incumbent restart (pid ");

    // One that executes itself anew is another generation.
    let waiting = sandbox.begin(&["--json", "restart"]);
    eventually("the request", LIMIT, || (sandbox.restarts_asked_for() == asked + 2).then_some(()));
    owner.say("again");
    owner.err_line_with("=> owns");
    let second = sandbox.status().1["instance"].clone();
    assert_ne!(first, second);
    is_done(&waiting.finish(LIMIT).assert_code(0).json(), &second);
    let history = sandbox.history();
    assert_eq!(history[1]["end_reason"], "re_executed", "{history:#?}");
    let answer = owner.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("TERM"), "nobody is signalled: {answer:#?}");
}

/// The upgrade went wrong: there is nothing left to start. The office is free, and nobody is told
/// that it was restarted.
#[test]
fn a_command_that_cannot_be_executed_any_more_ends_the_run() {
    for (spoil, code, why) in
        [("rm gateway.sh", 127, "No such file"), ("chmod -x gateway.sh", 126, "denied")]
    {
        let sandbox = Sandbox::new();
        let file = sandbox.file("gateway.sh");
        let script = format!("#!/bin/sh\n{PATIENT}");
        // Another process makes it: one that is open for writing cannot be executed.
        let mut make = sandbox.shell("cat > gateway.sh; chmod +x gateway.sh");
        make.env("LC_ALL", "C");
        let mut make = Process::start(make);
        make.write(&script);
        make.finish(LIMIT).assert_code(0);
        let run = sandbox.hold_with(&[file.to_str().unwrap()]);
        let restart = sandbox.begin(&["--json", "restart", "--timeout", "2s"]);
        let mut run = run;
        assert_eq!(run.process.line(), "TERM");
        Process::start(sandbox.shell(spoil)).finish(LIMIT).assert_code(0);
        run.let_end();
        let answer = run.ended().assert_code(code);
        let answer = answer.assert_complains(&["cannot execute", "gateway.sh", why]);
        assert_eq!(starts(&answer.out), 1, "{answer:#?}");
        assert_eq!(sandbox.status().0, 3, "{spoil}: the office is free");
        let end = sandbox.history().swap_remove(0);
        assert_eq!(end["exit_code"], code, "{end:#}");
        assert!(end["detail"].as_str().unwrap().contains("cannot execute"), "{end:#}");
        let told = restart.finish(LIMIT);
        assert_ne!(told.code(), 0, "{spoil}: nothing was restarted: {told:#?}");
    }
}

/// FIELD-BUGS row 77: a store that is busy delays the start, and does not end the tenure.
#[test]
fn a_busy_store_delays_a_restart() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart"]);
    assert_eq!(run.process.line(), "TERM");
    let writer = writer(&sandbox);
    writer.signal(Signal::STOP);
    wait_stopped(writer.pid());
    run.let_end();
    // Longer than any one write waits for its turn.
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until && !run.process.has_ended() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!run.process.has_ended(), "it gave up its office: {:#?}", run.ended());
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    next_start(&mut run);
    restart.finish(LIMIT).assert_code(0);
    run.let_end();
    run.ended().assert_code(7);
}

/// FIELD-BUGS row 74: `rm` of the store under a live run. What is asked for in the new store is
/// served in the new store.
#[test]
fn a_restart_after_the_store_was_replaced() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    run.process.err_line_with("is claimed again in the new one");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    let document = sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
    is_done(&document, &status["instance"]);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    // The command's own verbs know the new store.
    let child = sandbox.status().1["child_pid"].clone();
    assert_eq!(child, run.command.pid);
    let environ = std::fs::read(format!("/proc/{}/environ", run.command.pid)).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let named = format!("INCUMBENT_INSTANCE={}\0", status["instance"]);
    assert!(environ.contains(&named), "{named}");
    run.let_end();
    run.ended().assert_code(7);
    assert_eq!(sandbox.served(), 1);
}

/// The program itself may have been replaced by an upgrade, which is what most restarts are for.
#[test]
fn a_run_whose_own_program_was_replaced_restarts_its_command() {
    let sandbox = Sandbox::new();
    let copy = sandbox.copy_program("upgraded");
    let mut command = sandbox.program(&copy);
    command.args(["run", "--no-backoff", "--stop-budget", "300ms", "--"]);
    command.args(["/bin/sh", "-c", PATIENT]);
    let mut run = Run::start(command);
    let replace = format!("rm '{0}' && cp '{BINARY}' '{0}'", copy.display());
    Process::start(sandbox.shell(&replace)).finish(LIMIT).assert_code(0);
    sandbox.cli(["restart"]).assert_code(0);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    run.let_end();
    run.ended().assert_code(7);
}
