//! Ctrl-C while a verb waits for somebody else.
//!
//! Symptom: it ended without a word, and nobody knew whether the gateway had been asked to stop. It
//! holds because the signal ends the wait alone: what stands then is said in a line, and the
//! process ends by the signal, as ever.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use serde_json::Value;

use super::PATIENT;
use crate::support::{
    Answer, LIMIT, Process, Run, Sandbox, eventually, kill, sleeper, stopped_writer,
};

/// Interrupts a verb, and hears what it says. It ends by the signal: a shell that started it in a
/// script ends as well then.
#[track_caller]
fn interrupted(verb: Process) -> Answer {
    verb.signal(Signal::INT);
    let answer = verb.finish_with_stdin_open(LIMIT);
    assert_eq!(answer.status.signal(), Some(Signal::INT.as_raw()), "{answer:#?}");
    answer
}

/// The line that says how things stand.
#[track_caller]
fn assert_says(answer: &Answer, words: &[&str]) {
    let line = answer.err.lines().find(|line| line.contains(words[0]));
    let line = line.unwrap_or_else(|| panic!("no {:?} in {answer:#?}", words[0]));
    assert!(words.iter().all(|words| line.contains(words)), "{words:?}: {line}");
}

/// A gateway that was asked to stop, has said so, and goes on.
fn asked_in_vain(sandbox: &Sandbox, verb: &[&str]) -> (Run, Process) {
    let mut run = sandbox.patient(&["--stop-budget", "1h"]);
    let verb = sandbox.begin(verb);
    assert_eq!(run.process.line(), "TERM");
    (run, verb)
}

#[test]
fn a_stop_says_that_the_gateway_was_asked() {
    let sandbox = Sandbox::new();
    let (mut run, stop) = asked_in_vain(&sandbox, &["stop"]);
    let told = interrupted(stop);
    let pid = format!("pid {}", run.pid());
    assert_says(&told, &["interrupted", &pid, "was asked to stop and still runs"]);
    assert_eq!(sandbox.status().0, 0);
    // In JSON, too.
    let told = interrupted(begun(&sandbox, &["--json", "stop"]));
    assert_eq!(
        (&told.json()["stopped"], &told.json()["still_runs"]),
        (&false.into(), &true.into())
    );
    // It ends a moment later, and the request is remembered.
    kill(run.command.pid, Signal::USR1);
    run.process.wait(LIMIT);
    sandbox.assert_status(3, "dead", "planned_stop");
}

/// The verb, once it waits for somebody who was asked before.
#[track_caller]
fn begun(sandbox: &Sandbox, verb: &[&str]) -> Process {
    let mut verb = sandbox.begin(&[&["--progress"], verb].concat());
    verb.err_line_with("waiting for ");
    verb
}

#[test]
fn a_stop_of_all_says_it_of_each() {
    let sandbox = Sandbox::new();
    let runs = ["a", "b"].map(|it| sandbox.patient(&["--profile", it, "--stop-budget", "1h"]));
    let stop = sandbox.begin(&["stop", "--all"]);
    let runs = runs.map(|mut run| {
        assert_eq!(run.process.line(), "TERM");
        run
    });
    let told = interrupted(stop);
    for (office, run) in ["a/gateway: ", "b/gateway: "].iter().zip(&runs) {
        assert_says(&told, &[office, "interrupted", &format!("pid {}", run.pid())]);
    }
}

#[test]
fn a_restart_says_that_the_request_stands() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let restart = sandbox.begin(&["restart"]);
    let asked = ["marker", "peek", "restart", "--pid", &pid];
    eventually("the request", LIMIT, || (sandbox.cli(asked).code() == 0).then_some(()));
    let told = interrupted(restart);
    let who = format!("pid {pid} was asked to restart");
    assert_says(&told, &["interrupted", &who, "the request stands"]);
    sandbox.cli(asked).assert_code(0);
}

#[test]
fn a_wait_for_a_lock_says_who_holds_it() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "s", "i", "--pid", &pid]).assert_code(0);
    let own = std::process::id().to_string();
    let words = ["lock", "acquire", "s", "i", "--wait", "--no-keeper", "--pid", &own];
    let acquire = sandbox.begin(&words);
    sandbox.wait_for_waiters(1);
    let told = interrupted(acquire);
    assert_says(&told, &["interrupted", "nothing was acquired", &format!("pid {pid}")]);
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    sandbox.cli(["lock", "verify", "s", "i", "--pid", &pid]).assert_code(0);
}

/// A `run` ends with 128 and the signal, as it does whenever its command was not started.
#[test]
fn a_start_that_waits_says_that_nothing_was_started() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let wait = ["run", "--no-backoff", "--wait", "--supervisor", "none", "--", "true"];
    let waiter = sandbox.begin(&wait);
    sandbox.wait_for_waiters(1);
    waiter.signal(Signal::INT);
    let told = waiter.finish_with_stdin_open(LIMIT).assert_code(130);
    let who = format!("held by pid {}", run.pid());
    assert_says(&told, &["SIGINT ended the wait", "nothing was started", &who]);
    run.end().assert_code(0);
}

#[test]
fn a_takeover_says_that_the_gateway_was_asked() {
    let sandbox = Sandbox::new();
    let words = ["run", "--no-backoff", "--replace", "--supervisor", "none", "--", "true"];
    let (run, taker) = asked_in_vain(&sandbox, &words);
    taker.signal(Signal::INT);
    let told = taker.finish_with_stdin_open(LIMIT).assert_code(130);
    let who = format!("pid {} was asked to stop", run.pid());
    assert_says(&told, &["SIGINT ended the wait", "nothing was started", &who]);
    assert_eq!(sandbox.status().0, 0);
    drop(run);
}

/// Whether a process has a handler for a signal, as the kernel says it.
fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// Nobody could be asked: the store is busy all the time, which Ctrl-C does not have to sit out.
#[test]
fn a_stop_that_has_asked_nobody_says_so() {
    let sandbox = Sandbox::new();
    let mut run =
        Run::start(sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", PATIENT]));
    let writer = stopped_writer(&sandbox);
    let stop = sandbox.begin(&["stop"]);
    eventually("it catches Ctrl-C", LIMIT, || catches(stop.pid(), Signal::INT).then_some(()));
    let told = interrupted(stop);
    assert_says(&told, &["interrupted, and nobody was asked to stop"]);
    assert!(told.out.is_empty(), "{told:#?}");
    drop(writer);
    kill(run.command.pid, Signal::USR1);
    run.process.wait(LIMIT);
    let end: Value = sandbox.history().swap_remove(0);
    assert_eq!(end["exit_code"], 7, "{end:#}");
}
