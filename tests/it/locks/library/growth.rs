//! What is taken, released or refused often leaves nothing that grows.

use serde_json::json;

use super::{fences, lock_granted, lock_report, request};
use crate::support::Sandbox;

/// A gateway that takes and releases its lock for every message leaves the rows that are kept, and
/// those since they were pruned. One grant of eight does that, by chance and in a limited time: how
/// many come in between has no bound that a test could name, and how many are left then has one.
#[test]
fn taking_and_releasing_leaves_nothing_that_grows() {
    const KEPT: i64 = 200;
    /// None of so many prunes: not in the life of this machine.
    const GRANTS_MAX: usize = 1_000;
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut last = 0;
    let mut take_and_release = || {
        let lock = lock_granted(store.try_acquire(&request("token")));
        assert!(lock.fence() > last);
        last = lock.fence();
    };
    (0..2 * KEPT).for_each(|_| take_and_release());
    let rows = || sandbox.number("SELECT count(*) FROM instances");
    let pruned = (0..GRANTS_MAX).find(|_| {
        take_and_release();
        rows() <= KEPT
    });
    let anchors = sandbox.anchor_names().len();
    assert!(pruned.is_some() && anchors <= 2, "{anchors} anchors, {} rows", rows());
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// FIELD-BUGS row 67. Symptom: 333 conflicts over a token in a week that nobody saw, and a
/// contender that leaked a descriptor with each. A conflict is one counted row.
#[test]
fn a_hundred_refusals_are_one_conflict_and_cost_no_descriptors() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&request("token")));
    let mut contender = sandbox.party();
    let answer = contender.ask(&json!({"do": "contend", "ids": ["token"], "count": 100}));
    assert_eq!(answer["before"], answer["after"], "descriptors: {answer}");
    let conflicts = lock_report(&store, "token").conflicts;
    let [conflict] = conflicts.as_slice() else { panic!("{conflicts:?}") };
    assert_eq!((conflict.count, conflict.pid), (100, Some(contender.pid())));
    assert_eq!(conflict.profile, None);
    assert!(conflict.first_at_ms <= conflict.last_at_ms);
    let refused = "SELECT count(*) FROM events WHERE event = 'lock_refused'";
    assert_eq!(sandbox.number(refused), 1, "one event, too");
    assert_eq!(json!(lock_report(&store, "token"))["conflicts"][0]["count"], 100);
    // A contender with an office is named by it. A wait is none, however often it looks.
    contender.claim("work");
    contender.try_acquire(&["token"]);
    let conflicts = lock_report(&store, "token").conflicts;
    assert_eq!(conflicts.len(), 2, "{conflicts:?}");
    assert!(conflicts.iter().any(|conflict| conflict.profile.as_deref() == Some("work")));
    contender.0.kill();
    let mut waiter = sandbox.party();
    waiter.wait(&["token"]);
    sandbox.wait_for_lock_waiters(1);
    drop(lock);
    fences(&waiter.ask(&json!({"do": "waited"})));
    let total = sandbox.number("SELECT sum(count) FROM lock_conflicts");
    assert_eq!(total, 101, "a wait that ended well is no refusal");
    assert!(lock_report(&store, "token").conflicts.is_empty(), "the next holder's own begin anew");
}
