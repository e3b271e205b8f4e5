//! What a claim and an update do beside many rows: they are done with some at a time, and none is
//! out of reach.

use std::fs::File;

use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::support::{LIMIT, Process, Sandbox, eventually};

/// Copies the row of `instances` that `which` selects, for each number of `numbers`, which `set`
/// gives values to as `(columns, values)`, with `?1` for the number. Ids are drawn downwards from
/// that of the row: these are older.
fn copy(sandbox: &Sandbox, which: &str, numbers: std::ops::Range<i64>, set: &[(&str, &str)]) {
    let mut connection = Connection::open(sandbox.db()).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    let id = format!("SELECT max(id) FROM instances WHERE {which}");
    let id: i64 = connection.query_row(&id, [], |row| row.get(0)).unwrap();
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_info('instances') WHERE name <> 'id'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let value_of = |column: &String| {
        let given = set.iter().find(|(name, _)| name == column);
        given.map_or(column.clone(), |(_, value)| (*value).to_owned())
    };
    let values: Vec<String> = columns.iter().map(value_of).collect();
    let sql = format!(
        "INSERT INTO instances (id, {}) SELECT id - 100000 + ?1, {} FROM instances WHERE id = ?2",
        columns.join(", "),
        values.join(", ")
    );
    let transaction = connection.transaction().unwrap();
    for number in numbers {
        assert_eq!(transaction.execute(&sql, [number, id]).unwrap(), 1, "{sql}");
    }
    transaction.commit().unwrap();
}

/// Symptom: each claim looked for the dead without an office from the oldest row on, for 10 ms:
/// behind many that live nobody ever ended them. It holds because each claim goes on where the last
/// one came to.
#[test]
fn the_dead_behind_many_that_live_are_swept() {
    const LIVE: i64 = 500;
    let sandbox = Sandbox::new();
    let mut alive = Process::start(sandbox.program("cat"));
    let acquire = |identity: &str, pid: u32| {
        let pid = pid.to_string();
        let words = ["lock", "acquire", "s", identity, "--no-keeper", "--pid", &pid];
        sandbox.cli(words).assert_code(0);
    };
    acquire("of-the-living", alive.pid());
    copy(&sandbox, "kind IS NULL AND ended_at_ms IS NULL", 0..LIVE, &[]);
    // All of them first: an acquisition sweeps as well.
    let mut dead: Vec<Process> = (0..3)
        .map(|number| {
            let process = Process::start(sandbox.program("cat"));
            acquire(&format!("of-the-dead-{number}"), process.pid());
            process
        })
        .collect();
    dead.iter_mut().for_each(Process::kill);
    let locked = || sandbox.number("SELECT count(*) FROM scoped_locks");
    assert_eq!(locked(), 4);
    // However slow the machine, each looks at one more at least.
    let claims = (1..=LIVE).find(|_| {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        locked() == 1
    });
    assert!(claims.is_some(), "the dead are not ended");
    let live = "SELECT count(*) FROM instances WHERE ended_at_ms IS NULL AND kind IS NULL";
    assert_eq!(sandbox.number(live), LIVE + 1, "after {claims:?} claims");
    alive.kill();
}

/// Symptom: each pruning looked at the 500 oldest rows only: where as many had to stay, for an
/// anchor that is still held, nothing was deleted any more, and the history grew. It holds because
/// those do not count that stay.
#[test]
fn history_is_pruned_behind_many_rows_that_have_to_stay() {
    const KEPT: i64 = 510;
    const OVER: i64 = 300;
    let sandbox = Sandbox::new();
    sandbox.sick("anchors that others can read are made by hand");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    // Of processes that hold an anchor for a row that has ended. This one holds all of them.
    let connection = Connection::open(sandbox.db()).unwrap();
    let last = "SELECT anchor FROM instances ORDER BY id DESC LIMIT 1";
    let anchor: String = connection.query_row(last, [], |row| row.get(0)).unwrap();
    let store = anchor.split('-').next().unwrap();
    let name_of = format!("{store}-{}-", std::process::id());
    let held: Vec<File> = (0..KEPT)
        .map(|number| {
            let path = sandbox.anchors().join(format!("{name_of}{number:06x}.lock"));
            let file = File::create(path).unwrap();
            flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
            file
        })
        .collect();
    let name = format!("printf('{name_of}%06x.lock', ?1)");
    let original = "end_reason = 'exited'";
    copy(&sandbox, original, KEPT..KEPT + OVER, &[("anchor", "NULL")]);
    copy(&sandbox, original, 0..KEPT, &[("anchor", &name)]);
    let of_held = format!("anchor LIKE '{name_of}%'");
    let rows =
        |which: &str| sandbox.number(&format!("SELECT count(*) FROM instances WHERE {which}"));
    assert_eq!((rows(&of_held), rows("anchor IS NULL")), (KEPT, OVER));
    eventually("the history is pruned", LIMIT, || {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        (rows("anchor IS NULL") <= 200).then_some(())
    });
    assert_eq!(rows(&of_held), KEPT);
    drop(held);
}

/// Symptom: what is locked was read up to 10,000 rows, by each update of a platform: the identities
/// behind those stood in the store in clear. It holds because the words of an update are looked up,
/// scope by scope.
#[test]
fn an_update_knows_what_is_locked_beside_many_locks_and_scopes() {
    const TOKEN: &str = "zebra-of-mine";
    for (scopes, locks) in [(2, 12_000), (100, 1_000)] {
        let sandbox = Sandbox::new();
        let mut owner = Process::start(sandbox.program("cat"));
        let pid = owner.pid().to_string();
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        sandbox.cli(["lock", "acquire", "zzz", TOKEN, "--pid", &pid]).assert_code(0);
        sandbox.forge(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {locks})
             INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
             SELECT 'scope-' || (i % {scopes}), printf('%016x', i), l.instance_id, l.fence,
                    l.acquired_at_ms
             FROM n, scoped_locks AS l WHERE l.scope = 'zzz'"
        ));
        let extra = json!({"of": [{"token": TOKEN}]}).to_string();
        let update = ["status-set", "--pid", &pid].map(str::to_owned);
        let words = [
            &["--platform", "telegram", "--platform-state", TOKEN][..],
            &[
                "--platform",
                "mail",
                "--error-message",
                &format!("conflict for token={TOKEN}, again"),
            ],
            &["--state", TOKEN, "--exit-reason", &format!("{TOKEN} is revoked"), "--extra", &extra],
        ];
        for more in words {
            let more = more.iter().map(|word| (*word).to_owned());
            sandbox.cli(update.iter().cloned().chain(more)).assert_code(0);
        }
        let (_, status) = sandbox.json(["status"]);
        let telegram = &status["platforms"]["telegram"]["state"];
        assert!(telegram.is_string(), "{status:#}");
        assert!(!status.to_string().contains(TOKEN), "{scopes} {status:#}");
        let words = status["platforms"]["mail"]["error_message"].as_str().unwrap();
        assert!(words.starts_with("conflict for token="), "{words}");
        // A usual word stays one.
        let usual = ["--platform", "mail", "--platform-state", "connected"].map(str::to_owned);
        sandbox.cli(update.iter().cloned().chain(usual)).assert_code(0);
        let (_, status) = sandbox.json(["status"]);
        assert_eq!(status["platforms"]["mail"]["state"], "connected", "{status:#}");
        owner.kill();
    }
}

/// Symptom: where `doctor --fix` could not go on after some transactions (the store stayed busy),
/// it did not tell of the records that it had ended by then. It holds because what was committed is
/// told in any case.
#[test]
fn a_repair_that_cannot_go_on_tells_what_it_has_done() {
    const DEAD: i64 = 100;
    let sandbox = Sandbox::new();
    let mut dead = Process::start(sandbox.program("cat"));
    let pid = dead.pid().to_string();
    let acquire = ["lock", "acquire", "s", "of-the-dead", "--no-keeper", "--pid", &pid];
    sandbox.cli(acquire).assert_code(0);
    dead.kill();
    copy(&sandbox, "kind IS NULL AND ended_at_ms IS NULL", 0..DEAD, &[]);
    // The youngest, which comes last.
    sandbox.forge(
        "CREATE TRIGGER no_further BEFORE UPDATE ON instances
         WHEN OLD.id = (SELECT instance_id FROM scoped_locks)
         BEGIN SELECT RAISE(FAIL, 'no further'); END",
    );
    let (code, document) = sandbox.json(["doctor", "--fix"]);
    assert_eq!(code, 1, "{document:#}");
    let ended = sandbox
        .number("SELECT count(*) FROM instances WHERE ended_at_ms IS NOT NULL AND kind IS NULL");
    assert!(ended > 0, "all were ended in one transaction");
    let finding = document.as_array().unwrap().iter().find(|it| it["id"] == "stale_rows").unwrap();
    let acts = finding["acts"].as_array().unwrap();
    let came_to = |outcome: &str| acts.iter().filter(|act| act["outcome"] == outcome).count();
    assert_eq!(i64::try_from(came_to("done")).unwrap(), ended, "{acts:?}");
    assert_eq!(came_to("failed"), 1, "{acts:?}");
}
