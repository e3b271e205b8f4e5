//! Seen from a gateway: a command, a script, and what the next owner shows.

use serde_json::{Value, json};

use super::{claimed, in_run, obey, obeying, say, write_for};
use crate::support::{LIMIT, Process, Sandbox};

/// Symptom: a script had to find out and pass on the pid of its supervisor, and got it wrong in a
/// subshell. It holds because `run` tells its command, and whatever that starts, whose it is.
#[test]
fn the_command_of_a_run_speaks_without_naming_a_pid() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &["--profile", "work"]);
    let (pid, command) = (run.pid(), run.command.pid);
    let look = || sandbox.json(["status", "--profile", "work"]).1;
    assert_eq!(look()["runtime"], json!(null));
    let (code, answer) = in_run(&sandbox, &mut run, &["status-set", "--state", "running"]);
    assert_eq!(code, 0, "{answer:#}");
    let status = look();
    assert_eq!(answer["instance"], status["instance"], "{answer:#}");
    assert_eq!(answer["profile"], "work", "{answer:#}");
    let said = &status["runtime"];
    assert_eq!((&status["state"], &said["last_state"]), (&json!("running"), &json!("running")));
    let writer = said["writer"].as_str().unwrap();
    assert!(writer.starts_with("incumbent status-set (pid "), "{writer}");
    assert!(writer.contains(&format!("pid {}", said["writer_pid"])), "{said:#}");
    // In a subshell, behind a pipe, in the background, from a grandchild, in text.
    for (at, line) in [
        "(incumbent status-set --exit-reason 0 > /dev/null)",
        "echo $(incumbent status-set --exit-reason 1) | cat",
        "incumbent status-set --exit-reason 2 & wait $!",
        "sh -c 'sh -c \"incumbent status-set --exit-reason 3; true\"; true'",
        "setsid -w incumbent status-set --exit-reason 4",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(obey(&mut run, line), 0, "{line}");
        assert_eq!(look()["runtime"]["exit_reason"], at.to_string(), "{line}");
    }
    // By a pid all the same: that of the run, that of its command.
    for pid in [pid, command] {
        say(&sandbox, &mut run, &["--pid", &pid.to_string(), "--exit-reason", &pid.to_string()]);
        assert_eq!(look()["runtime"]["exit_reason"], pid.to_string());
    }
    // The last word of a command stays.
    say(&sandbox, &mut run, &["--state", "stopped", "--exit-reason", "done"]);
    run.end().assert_code(0);
    let status = look();
    assert_eq!((&status["state"], &status["reason"]), (&json!("stopped"), &json!("exited")));
    assert_eq!(status["runtime"]["exit_reason"], "done", "{status:#}");
}

/// A script claims for itself, and speaks for itself: naming its pid, or as the parent.
#[test]
fn a_script_speaks_through_the_pid_that_it_claimed() {
    let sandbox = Sandbox::new();
    let script = "
        incumbent claim --pid $$ > /dev/null || exit 9
        incumbent status-set --pid $$ --state running > /dev/null; echo \"named $?\"
        incumbent status-set --active-agents 2 > /dev/null; echo \"parent $?\"
        incumbent --json status > inside.json; echo \"status $?\"
        (incumbent status-set --state subshell 2> /dev/null; echo \"subshell $?\"; true)
        (incumbent status-set --pid $$ --exit-reason sub > /dev/null; echo \"named $?\"; true)
        incumbent release --pid $$ > /dev/null; echo \"release $?\"
        incumbent status-set --pid $$ --state running 2> after.txt; echo \"after $?\"";
    let answer = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(
        lines,
        ["named 0", "parent 0", "status 0", "subshell 1", "named 0", "release 0", "after 1"],
        "{answer:#?}"
    );
    let inside = std::fs::read_to_string(sandbox.file("inside.json")).unwrap();
    let inside: Value = serde_json::from_str(&inside).unwrap();
    assert_eq!(inside["busy"], true, "{inside:#}");
    let after = std::fs::read_to_string(sandbox.file("after.txt")).unwrap();
    assert!(after.contains("nobody does"), "{after}");
    let status = sandbox.assert_status(3, "dead", "released");
    assert_eq!(status["runtime"]["last_state"], "running", "{status:#}");
    assert_eq!(status["runtime"]["exit_reason"], "sub", "{status:#}");
}

/// Symptom: an error from last week stayed on the screen beside "connected". Clear removes what is
/// old, keep leaves it, and removing a platform leaves the others.
#[test]
fn an_explicit_clear_removes_an_old_error_and_keep_leaves_it() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    for platform in ["telegram", "discord", "slack"] {
        let error = ["--error-code", "E401", "--error-message", "bad token"];
        say(&sandbox, &mut run, &[&["--platform", platform], &error[..]].concat());
    }
    let platforms = || sandbox.status().1["platforms"].clone();
    say(&sandbox, &mut run, &["--platform", "telegram", "--platform-state", "connected"]);
    let kept = platforms();
    assert_eq!(kept["telegram"]["error_code"], "E401", "{kept:#}");
    assert_eq!(kept["telegram"]["error_message"], "bad token", "{kept:#}");
    let clear = ["--platform", "telegram", "--clear", "error-code", "--clear", "error-message"];
    say(&sandbox, &mut run, &clear);
    let cleared = platforms();
    assert_eq!(cleared["telegram"]["state"], "connected", "{cleared:#}");
    assert_eq!(cleared["telegram"]["error_code"], json!(null), "{cleared:#}");
    assert_eq!(cleared["telegram"]["error_message"], json!(null), "{cleared:#}");
    assert_eq!(cleared["discord"], kept["discord"], "another platform was touched");
    say(&sandbox, &mut run, &["--platform", "discord", "--clear", "platform"]);
    let left = platforms();
    let names: Vec<&String> = left.as_object().unwrap().keys().collect();
    assert_eq!(names, ["slack", "telegram"], "{left:#}");
    assert_eq!(left["slack"], kept["slack"], "another platform was touched");
    say(&sandbox, &mut run, &["--clear", "platforms", "--platform", "irc", "--error-code", "new"]);
    let last = platforms();
    let names: Vec<&String> = last.as_object().unwrap().keys().collect();
    assert_eq!(names, ["irc"], "{last:#}");
    say(&sandbox, &mut run, &["--clear", "platforms"]);
    assert_eq!(platforms(), json!({}));
    run.end().assert_code(0);
}

pub const EVERYTHING: &[&str] = &[
    "--state",
    "running",
    "--exit-reason",
    "none",
    "--restart-requested",
    "true",
    "--active-agents",
    "3",
    "--extra",
    "{}",
    "--heartbeat=1h",
    "--serves",
    "other",
    "--platform",
    "telegram",
    "--platform-state",
    "connected",
    "--error-code",
    "E1",
];

#[track_caller]
fn assert_nothing_is_said(sandbox: &Sandbox, when: &str) {
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    for (key, nothing) in [
        ("state", json!(null)),
        ("runtime", json!(null)),
        ("platforms", json!({})),
        ("serves", json!([])),
        ("heartbeat_at", json!(null)),
        ("unresponsive_ms", json!(null)),
        ("busy", json!(false)),
        ("drainable", json!(false)),
        ("stale", json!(false)),
    ] {
        assert_eq!(status[key], nothing, "{when}: {key}: {status:#}");
    }
    let other = sandbox.json(["status", "--profile", "other"]);
    assert_eq!((other.0, &other.1["served_by"]), (3, &json!(null)), "{when}: {:#}", other.1);
    let text = sandbox.cli(["status"]).assert_code(0).out;
    for word in ["telegram", "connected", "E1", "agents"] {
        assert!(!text.contains(word), "{when}: {word}: {text}");
    }
    let metrics = sandbox.cli(["status", "--all", "--metrics"]).assert_code(0).out;
    assert!(!metrics.contains("telegram"), "{when}: {metrics}");
}

/// FIELD-BUGS row 60.
///
/// Symptom: after a restart the dashboard showed the platforms, the agents and the state of the
/// owner before. Cause: one file for all of them. It holds because what was said belongs to one
/// instance.
#[test]
fn whoever_comes_next_shows_nothing_of_the_owner_before() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, EVERYTHING);
    assert_eq!(sandbox.json(["status", "--profile", "other"]).0, 0);
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    let dead = sandbox.assert_status(3, "dead", "anchor_released");
    assert_eq!((&dead["state"], &dead["serves"]), (&json!(null), &json!([])), "{dead:#}");
    assert_eq!(dead["runtime"]["last_state"], "running", "{dead:#}");
    assert_eq!(dead["platforms"]["telegram"]["state"], json!(null), "{dead:#}");
    assert_eq!(dead["platforms"]["telegram"]["error_code"], "E1", "{dead:#}");

    let mut run = obeying(&sandbox, &[]);
    assert_nothing_is_said(&sandbox, "after a kill");
    say(&sandbox, &mut run, EVERYTHING);
    let answer = sandbox.cli(["run", "--no-backoff", "--replace", "--", "/bin/sh", "-c", "exit 4"]);
    answer.assert_code(4);
    run.process.wait(LIMIT);
    let ended = sandbox.assert_status(3, "dead", "exited");
    assert_eq!((&ended["runtime"], &ended["platforms"]), (&json!(null), &json!({})), "{ended:#}");

    let script = claimed(&sandbox, &[]);
    write_for(&sandbox, script.pid(), EVERYTHING);
    sandbox.cli(["release", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    assert_nothing_is_said(&sandbox, "claimed again by the same process");
}

/// The same, where the instance stays: `restart` inside a `run` is another command.
#[test]
fn a_restart_inside_a_run_forgets_what_the_last_command_said() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, EVERYTHING);
    let before = sandbox.status().1;
    let restart = Process::start(sandbox.incumbent(["restart"]));
    let next: u32 = run.process.line().parse().unwrap();
    restart.finish(LIMIT).assert_code(0);
    assert_ne!(next, run.command.pid);
    assert_nothing_is_said(&sandbox, "restarted");
    let after = sandbox.status().1;
    assert_eq!(before["instance"], after["instance"], "the office was never free");
    say(&sandbox, &mut run, &["--state", "running"]);
    assert_eq!(sandbox.status().1["state"], "running");
    run.process.close_stdin();
    run.process.wait(LIMIT);
}
