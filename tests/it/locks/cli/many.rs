//! Many locks: they are removed a few at a time, and others can write meanwhile.

use rustix::process::Signal;

use crate::support::{LIMIT, Sandbox, eventually, sleeper};

/// A process with this many locks of scope `s`, killed and on record as if it lived.
pub fn leave_locks(sandbox: &Sandbox, count: usize) {
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

/// Issue 16: `unlock --stale` with 100,000 locks kept every start waiting for 7.5 s, because all of
/// them ended in one transaction. It holds because there are many: others can write in between, and
/// what was done stays done when it is killed.
#[test]
fn others_can_write_while_many_locks_are_removed() {
    const LOCKS: usize = 20_000;
    /// As many as one transaction may end.
    const BATCH: usize = 500;
    let sandbox = Sandbox::new();
    leave_locks(&sandbox, LOCKS);
    // An empty log, and a reader that stays: what is written to it is not taken out again.
    let reader = rusqlite::Connection::open(sandbox.db()).unwrap();
    let begin = "PRAGMA wal_checkpoint(TRUNCATE); BEGIN; SELECT * FROM meta";
    reader.execute_batch(begin).unwrap();
    let answer = sandbox.cli(["unlock", "--stale"]).assert_code(0);
    let commits = commits(&sandbox);
    assert!(commits >= LOCKS / BATCH, "{LOCKS} locks in {commits} transactions");
    assert_eq!(answer.out.lines().count(), LOCKS + 1);
    assert_eq!(locks_left(&sandbox), 0);
}

/// How many transactions the log holds: the frame at the end of each has the size of the database
/// after it.
fn commits(sandbox: &Sandbox) -> usize {
    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4096;
    let log = std::fs::read(sandbox.file("store/state.db-wal")).unwrap();
    let salts = &log[16..24];
    let frames = log[HEADER..].chunks_exact(FRAME).take_while(|frame| &frame[8..16] == salts);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

/// The same kind: a process that takes one lock of a dead process with many does not wait for the
/// end of all of them. The others are free at once, whether or not they are deleted yet.
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
