//! What is said is true, and says what, where and what to do.

use std::process::Command;

use rustix::process::Signal;

use crate::support::{LIMIT, Process, Sandbox, eventually};

/// Somebody to record, who does nothing.
fn sleeper(sandbox: &Sandbox) -> Process {
    let mut sleep: Command = sandbox.program("sleep");
    sleep.arg("1000");
    Process::start(sleep)
}

// -- many locks ---------------------------------------------------------------------------------

/// A process with this many locks of scope `s`, killed and on record as if it lived.
fn leave_locks(sandbox: &Sandbox, count: usize) {
    let mut owner = sleeper(sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "first", "id", "--pid", &pid]).assert_code(0);
    sandbox.forge(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
         SELECT 's', printf('%016x', i), (SELECT max(id) FROM instances), i, 1 FROM n"
    ));
    owner.kill();
    let keepers = || sandbox.keepers().is_empty().then_some(());
    eventually("the keepers have ended", LIMIT, keepers);
}

fn locks_left(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM scoped_locks")
}

/// Issue 16: `unlock --stale` with 100,000 locks kept every start waiting for 7.5 s, because all of them
/// ended in one transaction. Now others can write in between, and what was done stays done when it is
/// killed.
#[test]
fn others_can_write_while_many_locks_are_removed() {
    const LOCKS: usize = 20_000;
    let sandbox = Sandbox::new();
    leave_locks(&sandbox, LOCKS);
    let mut sweep = Process::start(sandbox.incumbent(["unlock", "--stale"]));
    let writer = rusqlite::Connection::open(sandbox.db()).unwrap();
    writer.busy_timeout(LIMIT).unwrap();
    // As whoever claims: each look has the write lock.
    let look = || {
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let left = locks_left(&sandbox);
        writer.execute_batch("ROLLBACK").unwrap();
        left
    };
    let mut seen = Vec::new();
    eventually("three looks in between", LIMIT, || {
        let left = look();
        assert!(left > 0, "all at once, after {seen:?}");
        if left <= i64::try_from(LOCKS).unwrap() && seen.last() != Some(&left) {
            seen.push(left);
        }
        (seen.len() == 3).then_some(())
    });
    assert!(
        seen.windows(2).all(|pair| pair[0] > pair[1] && pair[0] - pair[1] < 10_000),
        "{seen:?}"
    );
    sweep.kill();
    let left = locks_left(&sandbox);
    let answer = sandbox.cli(["unlock", "--stale"]).assert_code(0);
    assert_eq!(i64::try_from(answer.out.lines().count()).unwrap(), left);
    assert_eq!(locks_left(&sandbox), 0);
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
}

/// The same kind: whoever takes one lock of a dead process with many does not wait for the end of all
/// of them. The others are free at once, whether or not they are deleted yet.
#[test]
fn one_lock_of_a_dead_owner_with_many_is_granted_without_waiting_for_all() {
    const LOCKS: usize = 20_000;
    let sandbox = Sandbox::new();
    leave_locks(&sandbox, LOCKS);
    let mut mine = sleeper(&sandbox);
    let pid = mine.pid().to_string();
    let acquire = |scope: &str, id: &str| {
        let (code, answer) = sandbox.json(["lock", "acquire", scope, id, "--pid", &pid]);
        assert_eq!((code, &answer["granted"]), (0, &true.into()), "{answer:#}");
        answer["fence"].as_i64().unwrap()
    };
    let fence = acquire("first", "id");
    assert!(locks_left(&sandbox) > 1_000, "it did not wait for all of them");
    let (_, locks) = sandbox.json(["locks"]);
    assert_eq!(locks.as_array().unwrap().len(), 1, "the others are nobody's");
    assert!(acquire("other", "id") > fence);
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
    assert_eq!(locks_left(&sandbox), 2);
    mine.signal(Signal::KILL);
    mine.wait(LIMIT);
}
