//! A store that was closed for a fork (FIELD-BUGS row 70): held by the parent, opened by both.

use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;

use super::ask_child;
use crate::support::{Identity, Process, Sandbox, ask, has, kill, rounds, skipped, told};

fn assert_child(gateway: &mut Process, orders: &str, expected: &str) {
    let (said, end) = ask_child(gateway, orders);
    let is_as_expected = match expected.strip_suffix("...") {
        Some(begin) => said.starts_with(begin),
        None => said == expected,
    };
    assert!(is_as_expected, "{orders}: {said}; {end}");
    assert_eq!(end, "the child ended with code 0", "{orders}");
}

/// A server that forks its workers: before, a worker could never open its parent's store.
#[test]
fn a_store_closed_for_a_fork_is_opened_by_the_child_and_held_by_the_parent() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    assert_eq!(ask(&mut gateway, "watch"), "watching");
    assert_eq!(ask(&mut gateway, "events"), "listening");
    for (orders, expected) in [
        // What it inherited is the parent's, before and after it has a handle of its own.
        ("closed verify+open+verify+release", "Err(Forked), opened, Err(Forked), Err(Forked)"),
        ("closed open+status default+claim default", "opened, alive anchor_held, held anchor_held"),
        (
            "closed drop+drop watch+drop events+open+status default",
            "dropped, dropped, dropped, opened, alive anchor_held",
        ),
        ("closed open+claim work+release", "opened, granted ..."),
        ("leaked open+claim work+verify", "opened, granted ..."),
        // Although it never opens the gate that its parent had closed.
        ("leaked query+status default+verify", "Err(Forked), Err(Forked), Err(Forked)"),
    ] {
        assert_child(&mut gateway, orders, expected);
        assert_eq!(ask(&mut gateway, "verify"), "Held", "after {orders:?} in a child");
        sandbox.assert_held("anchor_held");
    }
    // What its workers did, it sees as that of others.
    assert_eq!(ask(&mut gateway, "next"), "office_refused");
    while ask(&mut gateway, "next") != "office_claimed" {}
    assert_eq!(ask(&mut gateway, "claim work").split(' ').next(), Some("granted"));
    assert_eq!(ask(&mut gateway, "release"), "Free");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.assert_free();
}

/// A child of a child; and one that was forked without a word, in between.
#[test]
fn a_worker_may_fork_in_its_turn() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    assert_child(
        &mut gateway,
        "closed open+claim work+fork closed open+claim work+drop",
        "opened, granted ...",
    );
    assert_child(&mut gateway, "open", "Err(Forked)");
    assert_child(&mut gateway, "closed open+claim default", "opened, held anchor_held");
    assert_eq!(ask(&mut gateway, "verify"), "Held");
}

/// A worker that inherits the open file of the anchor would hold the office of a gateway that was
/// killed, for everybody who cannot see its process.
#[test]
fn the_office_of_a_killed_parent_is_free_although_its_workers_live() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    gateway.say("fork closed open+status default+stay");
    gateway.err_line_with("child: opened, alive anchor_held");
    let worker: u32 = told(&mut gateway).parse().unwrap();
    let worker = (worker, Identity::of(worker).unwrap());
    gateway.kill();
    let (_, status) = sandbox.status();
    assert_eq!(status["reason"], "anchor_released", "{status:#}");
    sandbox.assert_free();
    assert!(!worker.1.is_gone());
    kill(worker.0, Signal::KILL);
}

/// Threads of the parent are at work in SQLite, in our mutexes, in the allocator, when it forks.
#[test]
fn threads_that_are_at_work_do_not_hang_a_child() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    assert_eq!(ask(&mut gateway, "watch"), "watching");
    assert_eq!(ask(&mut gateway, "busy"), "busy");
    for _ in 0..rounds(40, 1_000) {
        assert_child(
            &mut gateway,
            "closed open+status default+claim work+release",
            "opened, alive anchor_held, granted ...",
        );
    }
    assert_eq!(ask(&mut gateway, "verify"), "Held");
}

/// Who forgets that it has closed them is told, and not hung.
#[test]
fn calls_of_the_thread_that_closed_are_refused() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    assert_eq!(ask(&mut gateway, "close-for-fork"), "closed");
    sandbox.assert_held("anchor_held");
    for order in ["verify", "status default", "open", "close-for-fork"] {
        assert_eq!(ask(&mut gateway, order), "Err(Busy)", "{order}");
    }
    assert_eq!(ask(&mut gateway, "reopen"), "reopened");
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    // A guard that goes meanwhile lets go for good.
    assert_eq!(ask(&mut gateway, "close-for-fork"), "closed");
    assert_eq!(ask(&mut gateway, "release"), "Pending(Busy)");
    assert_eq!(ask(&mut gateway, "reopen"), "reopened");
    assert_eq!(ask(&mut gateway, "status default"), "dead released");
    sandbox.assert_free();
}

/// The last program that closes a database deletes its `-wal`. While the gateway has nothing open,
/// that is any `sqlite3` beside it: then the gateway took its store for lost, and let go.
#[test]
fn a_program_that_closes_the_store_meanwhile_does_not_take_its_files_away() {
    if !has("sqlite3") {
        return skipped("there is no sqlite3");
    }
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    let inodes = || ["", "-wal", "-shm"].map(|it| sandbox.sidecar(it).metadata().unwrap().ino());
    let before = inodes();
    assert_eq!(ask(&mut gateway, "close-for-fork"), "closed");
    let script = "sqlite3 state.db 'PRAGMA user_version; PRAGMA wal_checkpoint(TRUNCATE);
        INSERT INTO events (at_ms, event) VALUES (0, \"of_a_test\")'";
    let mut beside = sandbox.shell(script);
    assert!(beside.current_dir(sandbox.db().parent().unwrap()).status().unwrap().success());
    assert_eq!(ask(&mut gateway, "reopen"), "reopened");
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    assert_eq!(inodes(), before);
    assert_eq!(ask(&mut gateway, "release"), "Free");
}
