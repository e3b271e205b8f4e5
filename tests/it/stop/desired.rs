//! `desired`: what is wished, and who respects it.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{LIMIT, Sandbox, kill};

#[test]
fn what_is_desired_is_shown_and_set() {
    let sandbox = Sandbox::new();
    let desired = |words: &[&str]| {
        let (code, document) = sandbox.json([&["desired"], words].concat());
        assert_eq!(code, 0, "{document:#}");
        document
    };
    assert_eq!(desired(&[]), json!({"profile": "default", "desired": null}));
    assert!(!sandbox.file("store").exists(), "a question made a store");
    let answer = sandbox.cli(["desired"]).assert_code(0);
    assert_eq!(answer.out, "default: no desired state is set\n");
    sandbox.cli(["desired", "paused"]).assert_code(2).assert_complains(&["paused", "running"]);

    assert_eq!(desired(&["stopped"]), json!({"profile": "default", "desired": "stopped"}));
    assert_eq!(sandbox.status().1["desired"], "stopped");
    assert_eq!(sandbox.cli(["desired"]).out, "default: stopped\n");
    // It is a fact of one profile.
    assert!(desired(&["--profile", "work"])["desired"].is_null());
    assert!(sandbox.json(["status", "--profile", "work"]).1["desired"].is_null());
    assert_eq!(desired(&["running"]), json!({"profile": "default", "desired": "running"}));
    assert_eq!(sandbox.status().1["desired"], "running");
    // Said twice, it is noted once.
    desired(&["running"]);
    let (_, events) = sandbox.json(["events"]);
    let changes: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"] == "desired_changed")
        .map(|event| event["detail"]["desired"].clone())
        .collect();
    assert_eq!(changes, ["stopped", "running"], "{events:#}");
}

#[test]
fn a_stop_may_say_that_it_shall_stay_stopped() {
    let sandbox = Sandbox::new();
    // Also of nobody, also in no store: what is wished for has to be kept somewhere.
    sandbox.cli(["stop", "--desired"]).assert_code(0);
    assert_eq!(sandbox.status().1["desired"], "stopped");
    sandbox.cli(["desired", "running"]).assert_code(0);
    let run = sandbox.polite("0", &["--respect-desired"]);
    sandbox.cli(["stop"]).assert_code(0);
    run.ended().assert_code(0);
    assert_eq!(sandbox.status().1["desired"], "running", "nobody has said otherwise");
    let run = sandbox.polite("0", &["--respect-desired"]);
    sandbox.cli(["stop", "--desired"]).assert_code(0);
    run.ended().assert_code(0);
    let status = sandbox.assert_status(3, "dead", "planned_stop");
    assert_eq!(status["desired"], "stopped", "{status:#}");
    assert_eq!(status["last_end"]["reason"], "planned_stop", "{status:#}");
}

#[test]
fn a_run_that_respects_what_is_desired_does_not_start_what_shall_stay_stopped() {
    let sandbox = Sandbox::new();
    let start = |options: &[&str]| {
        sandbox.cli([&["run", "--no-backoff"], options, &["--", "echo", "started"]].concat())
    };
    let respect = "--respect-desired";
    assert_eq!(start(&[respect]).assert_code(0).out, "started\n", "nobody has said anything");
    sandbox.cli(["desired", "stopped"]).assert_code(0);
    let before = sandbox.history().len();
    let refused = start(&[respect]).assert_code(75);
    assert_eq!(refused.out, "");
    refused
        .assert_complains(&["profile default is set to stay stopped", "incumbent desired running"]);
    let (code, document) = sandbox.json(["run", respect, "--", "echo", "started"]);
    assert_eq!((code, &document["reason"]), (75, &json!("desired_stopped")), "{document:#}");
    assert_eq!(document["granted"], false, "{document:#}");
    // For a supervisor this is success: it is not to try again.
    for (supervisor, code) in
        [("systemd", 0), ("launchd", 0), ("s6", 0), ("docker", 0), ("none", 75)]
    {
        let answer = start(&[respect, "--supervisor", supervisor]).assert_code(code);
        assert_eq!(answer.out, "", "{supervisor}");
    }
    assert_eq!(start(&[respect, "--exit-code", "desired_stopped=9"]).assert_code(9).out, "");
    assert_eq!(sandbox.history().len(), before, "something was claimed");
    // A person starts it all the same, and that changes no wish.
    assert_eq!(start(&[]).assert_code(0).out, "started\n");
    assert_eq!(start(&[respect, "--profile", "work"]).assert_code(0).out, "started\n");
    assert_eq!(sandbox.status().1["desired"], "stopped");
    sandbox.cli(["desired", "running"]).assert_code(0);
    assert_eq!(start(&[respect]).assert_code(0).out, "started\n");
}

/// A person may have made up their mind while a standby waited.
#[test]
fn a_wish_that_changes_during_the_wait_is_respected() {
    let sandbox = Sandbox::new();
    let run = sandbox.polite("0", &[]);
    let wait = ["run", "--no-backoff", "--wait", "--respect-desired", "--", "/bin/echo", "started"];
    let waiter = sandbox.begin(&wait);
    sandbox.wait_for_waiters(1);
    sandbox.cli(["stop", "--desired"]).assert_code(0);
    run.ended().assert_code(0);
    let answer = waiter.finish(LIMIT).assert_code(75);
    assert_eq!(answer.out, "");
    answer.assert_complains(&["is set to stay stopped"]);
    assert_eq!(sandbox.status().0, 3);
}

/// FIELD-BUGS row 56.
///
/// Symptom: the restart of a container wrote `stopped`, or a kill left `draining`, and the next
/// boot kept the gateway dark. It holds because what is desired, what is observed and how the last
/// one ended are three facts, and only an operator's verb writes the first.
#[test]
fn however_it_ends_what_is_desired_stays() {
    let sandbox = Sandbox::new();
    sandbox.cli(["desired", "running"]).assert_code(0);
    for (phase, reason) in [
        ("TERM", "signalled"),
        ("killed", "anchor_released"),
        ("killed while it drains", "anchor_released"),
        ("command killed", "signalled"),
        ("evicted", "evicted"),
        ("stopped by a person", "planned_stop"),
        ("exited", "exited"),
    ] {
        let mut run = sandbox.patient(&["--respect-desired"]);
        assert_eq!(sandbox.status().1["desired"], "running");
        match phase {
            "TERM" | "killed while it drains" => {
                run.process.signal(Signal::TERM);
                assert_eq!(run.process.line(), "TERM");
                assert_eq!(sandbox.status().1["desired"], "running");
                if phase == "TERM" {
                    run.let_end();
                } else {
                    run.kill();
                }
            }
            "killed" => run.kill(),
            "command killed" => kill(run.command.pid, Signal::KILL),
            "evicted" => {
                sandbox.cli(["evict", "--force"]).assert_code(0);
                assert_eq!(run.process.line(), "TERM");
                run.let_end();
            }
            "stopped by a person" => {
                let stop = sandbox.begin(&["stop", "--force", "--timeout", "0"]);
                stop.finish(LIMIT).assert_code(0);
            }
            "exited" => run.let_end(),
            other => panic!("{other}"),
        }
        run.process.wait(LIMIT);
        run.command.wait_gone(LIMIT);
        let status = sandbox.assert_status(3, "dead", reason);
        assert_eq!(status["desired"], "running", "{phase}: {status:#}");
        assert_eq!(status["running"], false, "{phase}: {status:#}");
        let start = ["run", "--no-backoff", "--respect-desired", "--", "echo", "started"];
        assert_eq!(sandbox.cli(start).assert_code(0).out, "started\n", "{phase}");
    }
}
