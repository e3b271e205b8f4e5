//! `lock acquire --wait`: deadlines, wake-ups, waiters that are killed or stopped.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::run::waiter;
use super::{
    ID, LOCK, SCOPE, acquire, answer_of, code_of, holder, locks, verb, wait_for_keepers, waiters,
};
use crate::support::{
    LIMIT, SOON, Sandbox, assert_time, assert_within, bystander, eventually, keys, kill,
    wait_stopped,
};

#[test]
fn the_deadline_of_a_wait_is_kept() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let other = bystander(&sandbox);
    let started = Instant::now();
    let answer = waiter(&sandbox, &other, &["--wait=300ms"]).finish(LIMIT).assert_code(75);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "gave up after {took:?}");
    assert_within(Duration::from_millis(300) + SOON, took, "giving up");
    answer.assert_complains(&["is held by profile default", &format!("pid {} (", script.pid())]);
    assert_eq!(waiters(&sandbox), 0);
    // 0 is to try once, as without it.
    for options in [&["--wait=0"][..], &[]] {
        assert_eq!(acquire(&sandbox, &other, options).0, 75);
    }
    wait_for_keepers(&sandbox, 1);
}

/// By the holder's release, by its end, and by a person.
#[test]
fn a_waiter_is_woken_and_owns() {
    let sandbox = Sandbox::new();
    for how in ["release", "kill", "zombie", "end", "unlock"] {
        let mut script = holder(&sandbox, &[]);
        let other = bystander(&sandbox);
        let waiter = waiter(&sandbox, &other, &["--wait", "--json"]);
        sandbox.wait_for_waiters(1);
        let seen = &locks(&sandbox)[0]["waiters"];
        assert_eq!(seen.as_array().unwrap().len(), 1, "{how}: {seen:#}");
        assert_eq!(
            keys(&seen[0]),
            ["profile", "pid", "instance", "lock", "since"],
            "{how}: {seen:#}"
        );
        assert_eq!(seen[0]["pid"], waiter.pid(), "{how}: {seen:#}");
        assert_eq!(seen[0]["profile"], "default", "{how}: {seen:#}");
        assert_time(&seen[0]["since"]);
        match how {
            "release" => assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0),
            "kill" => script.kill(),
            "zombie" => kill(script.pid(), Signal::KILL),
            "end" => script.close_stdin(),
            _ => drop(sandbox.cli(["unlock", SCOPE, ID, "--force"]).assert_code(0)),
        }
        let woken = Instant::now();
        let answer = waiter.finish_with_stdin_open(LIMIT).assert_code(0).json();
        assert_within(SOON, woken.elapsed(), &format!("{how}: the grant"));
        assert_eq!(answer["granted"], true, "{how}: {answer:#}");
        let held = &locks(&sandbox)[0];
        assert_eq!(held["pid"], other.pid(), "{how}: {held:#}");
        assert_eq!(held["fence"], answer["fence"], "{how}: {held:#}");
        assert_eq!(held["waiters"], json!([]), "{how}: {held:#}");
        assert_eq!(waiters(&sandbox), 0, "{how}");
    }
}

/// A waiter has no rights: one that is killed or stopped blocks nobody, is not shown once it is
/// dead, and is gone from the store with the next grant.
#[test]
fn killed_and_stopped_waiters_block_nobody() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let (one, two, next) = (bystander(&sandbox), bystander(&sandbox), bystander(&sandbox));
    let mut killed = waiter(&sandbox, &one, &["--wait"]);
    sandbox.wait_for_waiters(1);
    let stopped = waiter(&sandbox, &two, &["--wait"]);
    sandbox.wait_for_waiters(2);
    killed.kill();
    kill(stopped.pid(), Signal::STOP);
    wait_stopped(stopped.pid());
    let seen = &locks(&sandbox)[0]["waiters"];
    let pids: Vec<&Value> = seen.as_array().unwrap().iter().map(|it| &it["pid"]).collect();
    assert_eq!(pids, [&json!(stopped.pid())], "{seen:#}");
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0);
    let (code, answer) = acquire(&sandbox, &next, &[]);
    assert_eq!(code, 0, "{answer:#}");
    // One grant looks for the dead for 10 ms, which a busy machine may take for nothing at all.
    eventually("the end of the killed one's row", LIMIT, || {
        assert_eq!(code_of(verb(&sandbox, "release", next.pid(), &[])), 0);
        let (code, answer) = acquire(&sandbox, &next, &[]);
        assert_eq!(code, 0, "{answer:#}");
        (waiters(&sandbox) == 1).then_some(())
    });
    // It may go on: it is too late, and gets it when it is free again.
    kill(stopped.pid(), Signal::CONT);
    assert_eq!(code_of(verb(&sandbox, "release", next.pid(), &[])), 0);
    stopped.finish(LIMIT).assert_code(0);
    assert_eq!(locks(&sandbox)[0]["pid"], two.pid());
    assert_eq!(waiters(&sandbox), 0);
}

/// A stopped owner keeps its lock, unless a contender asks not to respect that.
#[test]
fn an_owner_that_is_stopped_is_evicted_only_where_asked_for() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let other = bystander(&sandbox);
    assert_eq!(acquire(&sandbox, &other, &["--evict-stopped"]).0, 75, "it runs");
    let (_, before) = answer_of(verb(&sandbox, "verify", script.pid(), &[]));
    kill(script.pid(), Signal::STOP);
    wait_stopped(script.pid());
    let (code, refused) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 75, "{refused:#}");
    assert_eq!(refused["holder"]["flags"], json!(["stopped"]), "{refused:#}");
    let started = Instant::now();
    let (code, answer) = acquire(&sandbox, &other, &["--evict-stopped"]);
    assert_eq!(code, 0, "{answer:#}");
    assert!(started.elapsed() >= Duration::from_millis(200), "looked at only once");
    let expected = json!({"pid": script.pid(), "profile": "default", "reason": "evicted"});
    assert_eq!(answer["evicted"], expected, "{answer:#}");
    assert!(answer["fence"].as_i64() > before["fence"].as_i64(), "{answer:#}");
    // On SIGCONT the old owner learns it.
    kill(script.pid(), Signal::CONT);
    let fence = before["fence"].to_string();
    assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &["--fence", &fence])), 1);
    assert_eq!(code_of(verb(&sandbox, "renew", script.pid(), &[])), 1);
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 1);
    assert_eq!(code_of(verb(&sandbox, "verify", other.pid(), &[])), 0);

    // Somebody who waits already takes it as well.
    let waiter = waiter(&sandbox, &script, &["--wait", "--evict-stopped", "--json"]);
    sandbox.wait_for_waiters(1);
    kill(other.pid(), Signal::STOP);
    let answer = waiter.finish(LIMIT).assert_code(0).json();
    assert_eq!(answer["evicted"]["reason"], "evicted", "{answer:#}");
    assert_eq!(answer["evicted"]["pid"], other.pid(), "{answer:#}");
}

/// A stopped `run` does not stop what it started: while the command acts, the lock is its own.
#[test]
fn a_stopped_run_with_a_command_that_runs_is_not_evicted() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[LOCK]);
    let other = bystander(&sandbox);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let (code, refused) = acquire(&sandbox, &other, &["--evict-stopped"]);
    assert_eq!(code, 75, "{refused:#}");
    kill(run.command.pid, Signal::STOP);
    wait_stopped(run.command.pid);
    let (code, answer) = acquire(&sandbox, &other, &["--evict-stopped"]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["evicted"]["reason"], "evicted", "{answer:#}");
    // It learns it, and ends its command.
    kill(run.command.pid, Signal::CONT);
    run.process.signal(Signal::CONT);
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    answer.assert_complains(&["was lost", "found it stopped"]);
}
