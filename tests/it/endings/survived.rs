//! Signals that were survived, and other words that explain no end.

use std::time::Duration;

use rustix::process::Signal;

use super::us;
use crate::support::{
    LIMIT, Process, Run, Sandbox, Stat, ask, eventually, kill, pid_namespace, skipped, tagged,
};

/// Last words that no end is by.
pub const SURVIVED: &str = "SELECT count(*) FROM shutdowns WHERE survived_at_ms IS NOT NULL";

/// A signal that was survived explains no later end: the process was there for longer than a stop
/// may take, and that is on record. A shorter life after it proves nothing, nor does a sign of
/// life.
#[test]
fn a_signal_that_was_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    assert_eq!(ask(&mut gateway, "claim 300"), "granted");
    ask(&mut gateway, "catch");
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    eventually("its survival on record", LIMIT, || (sandbox.number(SURVIVED) == 1).then_some(()));
    gateway.kill();
    sandbox.end_now().assert("anchor_released", None, None, None).assert_last();
    sandbox.end_settled().assert("anchor_released", None, None, None);

    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    assert_eq!(ask(&mut gateway, "beat"), "said");
    gateway.kill();
    sandbox.end_settled().assert("signalled", Some(&us()), None, Some(15));
}

/// What systemd does: it kills when the stop budget is over, or a moment later. The signal before
/// that was not survived: it was followed in vain.
#[test]
fn a_kill_at_the_end_of_the_stop_budget_is_by_the_signal_before_it() {
    for after_ms in [0, 50, 400] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.newcomer();
        assert_eq!(ask(&mut gateway, "claim 300"), "granted");
        ask(&mut gateway, "catch");
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        // Not a synchronisation: the time is what it is about.
        std::thread::sleep(Duration::from_millis(300 + after_ms));
        gateway.kill();
        sandbox.end_now().assert("signalled", Some(&us()), None, Some(15));
        sandbox.end_settled().assert("signalled", Some(&us()), None, Some(15));
    }
}

/// The same of a run, which knows itself how long it has waited.
#[test]
fn a_signal_that_a_command_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    for (signal, reason, code, number) in [
        (Signal::USR1, "exited", Some(7), None),
        (Signal::ABORT, "crashed", None, Some(6)),
        (Signal::KILL, "signalled", None, Some(9)),
    ] {
        let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
        run.process.signal(Signal::TERM);
        run.process.line_with("TERM");
        run.let_time_pass(Duration::from_millis(500));
        kill(run.command.pid, signal);
        run.process.wait(LIMIT);
        sandbox.end_now().assert(reason, None, code, number).assert_last();
    }
    // Whoever sends the same signal to the command itself is not whom the run heard of before.
    let script = "trap 'echo TERM; trap - TERM' TERM; echo $$
                  while :; do sleep 0.05 > /dev/null 2>&1; done";
    let verb = ["run", "--no-backoff", "--stop-budget", "300ms", "--", "/bin/sh", "-c", script];
    let mut run = Run::start(sandbox.incumbent(verb));
    run.process.signal(Signal::TERM);
    run.process.line_with("TERM");
    // Not a synchronisation: the time is what it is about.
    std::thread::sleep(Duration::from_millis(600));
    kill(run.command.pid, Signal::TERM);
    run.process.wait(LIMIT);
    sandbox.end_now().assert("signalled", None, None, Some(15)).assert_last();
    // The run itself dies long afterwards: it had noted that the command goes on.
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    run.process.signal(Signal::TERM);
    run.process.line_with("TERM");
    let survived =
        "SELECT count(*) FROM shutdowns AS s JOIN gateways AS g ON g.instance = s.instance_id
                    WHERE s.survived_at_ms IS NOT NULL";
    eventually("the survival on record", LIMIT, || (sandbox.number(survived) == 1).then_some(()));
    run.kill();
    // The kernel ends it with its `run`, a moment later.
    run.command.wait_gone(LIMIT);
    sandbox.end_now().assert("anchor_released", None, None, None);
    sandbox.end_settled().assert("anchor_released", None, None, None);
}

/// A release long after a signal is no answer to it.
#[test]
fn a_release_long_after_a_signal_is_a_release() {
    let sandbox = Sandbox::new();
    for (ago_ms, reason) in [(60_000, "signalled"), (3_600_000, "released")] {
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        sandbox.forge(&format!("UPDATE shutdowns SET at_boot_ms = at_boot_ms - {ago_ms}"));
        assert_eq!(ask(&mut gateway, "release"), "Free");
        let told = sandbox.end_now();
        assert_eq!(told.end["end_reason"], reason, "{ago_ms} ms: {told:#?}");
        told.assert_last();
        gateway.finish(LIMIT).assert_code(0);
    }
}

/// SIGHUP from a person is a request to read the configuration again.
#[test]
fn a_hangup_explains_no_end() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::HUP);
    gateway.err_line_with("caught 1:");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.end_now().assert("released", None, None, None).assert_last();
    assert_eq!(sandbox.last_words(), 1, "it is on record all the same");
    gateway.finish(LIMIT).assert_code(0);

    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::HUP);
    gateway.err_line_with("caught 1:");
    gateway.kill();
    sandbox.end_now().assert("anchor_released", None, None, None);
    sandbox.end_settled().assert("anchor_released", None, None, None);

    // One after a SIGTERM takes nothing back.
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    for (signal, caught) in [(Signal::TERM, "caught 15"), (Signal::HUP, "caught 1:")] {
        gateway.signal(signal);
        gateway.err_line_with(caught);
    }
    gateway.kill();
    let told = sandbox.end_settled();
    told.assert("signalled", Some(&us()), None, Some(15));
}

/// What goes on after a SIGHUP, until the test lets it end.
const RELOADS: &str = "trap 'echo HUP' HUP; echo $$
    while ! test -e enough; do sleep 0.05 > /dev/null 2>&1; done
    exit 3";

/// The same for a run: its command reads its configuration again, and ends by itself later. A
/// sender that no pid is known of, because it lives outside of the pid namespace, is a sender all
/// the same: it was taken for a terminal that has gone, and so for the one who had ended the
/// command.
#[test]
fn a_hangup_that_a_command_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", RELOADS]);
    run.process.signal(Signal::HUP);
    run.process.line_with("HUP");
    std::fs::write(sandbox.file("enough"), "").unwrap();
    run.process.finish_with_stdin_open(LIMIT).assert_code(3);
    assert_eq!(sandbox.last_words(), 1, "it is on record all the same");
    sandbox.end_now().assert("exited", None, Some(3), None).assert_last();

    let Some(namespace) = pid_namespace() else {
        return skipped("the half that needs a pid namespace");
    };
    std::fs::remove_file(sandbox.file("enough")).unwrap();
    let verb = ["run", "--no-backoff", "--", "/bin/sh", "-c", RELOADS];
    let mut outer = Process::start(sandbox.incumbent_under(namespace, &verb));
    outer.line();
    let is_first = |pid: &u32| Stat::of(*pid).is_some_and(|stat| stat.parent == outer.pid());
    let first = tagged("IT_SANDBOX", sandbox.path()).into_iter().find(is_first);
    kill(first.expect("PID 1 of the namespace"), Signal::HUP);
    outer.line_with("HUP");
    std::fs::write(sandbox.file("enough"), "").unwrap();
    outer.finish_with_stdin_open(LIMIT).assert_code(3);
    assert_eq!(sandbox.last_words(), 2, "it is on record all the same");
    sandbox.end_now().assert("exited", None, Some(3), None).assert_last();
}
