//! Which ends, where each start has one, are a storm.

use std::path::Path;

use rustix::process::Signal;

use super::cgroup::{UNCOUNTED, can_forge_log, log_line, log_now_us};
use super::gateway::{GATEWAY, ROLE_TEST, last_order};
use crate::support::{LIMIT, Process, Run, Sandbox, ask, kill, skipped, wait_ended};

/// Seven starts of a party that end by `end`; whether the eighth waits.
fn is_a_storm(sandbox: &Sandbox, log: Option<&Path>, end: impl Fn(Process)) -> bool {
    let start = || {
        let mut command = sandbox.role_command(ROLE_TEST, GATEWAY);
        command.env("INCUMBENT_PARTY", "red");
        Process::start(command)
    };
    for _ in 0..7 {
        let mut gateway = start();
        assert_eq!(ask(&mut gateway, "claim"), "granted");
        for order in ["record", "catch"] {
            ask(&mut gateway, order);
        }
        end(gateway);
    }
    let script = ["run", "--", "/bin/sh", "-c", "echo started >&2"];
    let mut next = sandbox.seeing_log(log, &script);
    next.env("INCUMBENT_PARTY", "red");
    let mut next = Process::start(next);
    loop {
        let line = next.err_line();
        if line.contains("failed starts in a row") {
            next.signal(Signal::TERM);
            next.finish_with_stdin_open(LIMIT).assert_code(143);
            return true;
        }
        if line == "started" {
            next.finish(LIMIT).assert_code(0);
            return false;
        }
    }
}

/// FIELD-BUGS row 46: a gateway that panics at each start is slowed down, also where its end was
/// told only by the next one.
#[test]
fn panics_at_each_start_are_a_storm() {
    let sandbox = Sandbox::new();
    assert!(is_a_storm(&sandbox, None, |mut gateway| {
        last_order(&mut gateway, "panic");
    }));
    let sandbox = Sandbox::new();
    assert!(is_a_storm(&sandbox, None, |mut gateway| {
        ask(&mut gateway, "panic text");
        last_order(&mut gateway, "abort");
    }));
}

/// One that its supervisor stops again and again is none: nobody is at fault.
#[test]
fn signals_at_each_start_are_no_storm() {
    for lets_go in [true, false] {
        let sandbox = Sandbox::new();
        let is_storm = is_a_storm(&sandbox, None, |mut gateway| {
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15");
            if lets_go {
                ask(&mut gateway, "release");
            }
            gateway.kill();
        });
        assert!(!is_storm, "lets go: {lets_go}");
    }
}

/// A command that is killed for memory at each start counts as one that crashes.
#[test]
fn kills_for_memory_at_each_start_are_a_storm() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    std::fs::write(&log, "").unwrap();
    let start = |script: &str| {
        let mut command = sandbox.seeing_log(Some(&log), &["run", "--", "/bin/sh", "-c", script]);
        command.env("INCUMBENT_PARTY", "red");
        command
    };
    for number in 1..=7 {
        let run = Run::start(start("echo $$; exec cat"));
        sandbox.forge(UNCOUNTED);
        std::fs::write(&log, log_line(log_now_us(), run.command.pid)).unwrap();
        kill(run.command.pid, Signal::KILL);
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(128 + 9);
        assert!(!answer.err.contains("failed starts in a row"), "start {number}: {answer:#?}");
        sandbox.end_now().assert("oom_suspected", None, None, Some(9));
    }
    let mut next = Process::start(start("echo started >&2"));
    let line = next.err_line();
    assert!(line.contains("failed starts in a row"), "{line}");
    next.signal(Signal::TERM);
    assert!(wait_ended(next.pid(), LIMIT));
}
