//! Waits end by deadline or cancel, and evicted owners learn it.

use std::time::{Duration, Instant};

use crate::lost_store::fates::NOTICED_WITHIN;
use crate::support::{LIMIT, Sandbox, ask, assert_within, eventually};

#[test]
fn a_wait_in_the_library_ends_by_deadline_or_cancel_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut gateway = sandbox.gateway();
    let waiters = || sandbox.number("SELECT count(*) FROM waiters");
    let mut ask = |order: &str| ask(&mut gateway, order);

    let asked = Instant::now();
    ask("wait default 300");
    assert_eq!(ask("waited"), "held anchor_held");
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_within(NOTICED_WITHIN, took, "the wait");
    assert_eq!(waiters(), 0);

    ask("wait default forever");
    eventually("it waits", LIMIT, || (waiters() == 1).then_some(()));
    ask("cancel");
    let asked = Instant::now();
    assert_eq!(ask("waited"), "held anchor_held");
    assert_within(NOTICED_WITHIN, asked.elapsed(), "it");
    assert_eq!(waiters(), 0);

    ask("wait default forever");
    eventually("it waits", LIMIT, || (waiters() == 1).then_some(()));
    run.end().assert_code(0);
    assert_eq!(ask("waited"), "granted");
    assert_eq!(waiters(), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 0);
    sandbox.assert_free();
}

#[test]
fn an_evicted_owner_learns_it() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    assert_eq!(ask(&mut owner, "watch"), "watching");
    sandbox.cli(["evict"]).assert_code(75);
    assert_eq!(ask(&mut owner, "verify"), "Held");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let verdict = ask(&mut owner, "verify");
    assert!(verdict.contains("Ended") && verdict.contains("Evicted"), "{verdict}");
    assert!(verdict.contains("incumbent evict --force (pid "), "{verdict}");
    let next = sandbox.hold(&[]);
    assert_eq!(ask(&mut owner, "release"), "WasLost");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    next.end().assert_code(0);
}

/// The command of an evicted run is asked to end, not killed.
#[test]
fn the_command_of_an_evicted_run_is_asked_to_end() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo asked; exit 3' TERM; echo $$; while :; do sleep 0.05; done";
    let run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    let command = run.command;
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    assert_eq!(answer.out.lines().last(), Some("asked"), "{answer:#?}");
    answer.assert_complains(&["was lost", "evicted", "ending the command"]);
    assert!(command.is_gone());
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "evicted", "{history:#?}");
}

/// There is always a verb that a person can use to end it, also for an owner whose record is gone
/// with its store.
#[test]
fn an_orphan_can_be_evicted() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    sandbox.remove_store();
    sandbox.assert_held("orphaned_anchor");
    sandbox.cli(["evict"]).assert_code(75);
    sandbox.assert_held("orphaned_anchor");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let next = sandbox.hold(&[]);
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    next.end().assert_code(0);
}
