//! Two versions of the program on one store: a migration of the future is applied under this one.

use std::collections::BTreeMap;

use serde_json::json;

use crate::store::{QUESTIONS, START, as_json, assert_error};
use crate::support::{LIMIT, Process, Sandbox, assert_untouched, eventually, fingerprint};

/// Additive, as all migrations are that leave `min_writer` as it is: a column, a table that leans
/// on ours, a trigger that fills it, an index, a view.
const OF_THE_FUTURE: &str = "
    ALTER TABLE instances ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm';
    CREATE TABLE greetings (
        instance_id INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
        words       TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER greets AFTER INSERT ON instances BEGIN
        INSERT INTO greetings VALUES (NEW.id, 'hello');
    END;
    CREATE INDEX moods ON instances (mood);
    CREATE VIEW moods_of_gateways AS SELECT profile, mood FROM instances WHERE kind IS NOT NULL;";

/// One more than this program knows.
fn version_of_the_future(sandbox: &Sandbox) -> i64 {
    sandbox.number("PRAGMA user_version") + 1
}

impl Sandbox {
    /// What a newer program does when it opens the store for owning.
    fn migrate_to_the_future(&self) -> i64 {
        let version = version_of_the_future(self);
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        let script =
            format!("BEGIN EXCLUSIVE; {OF_THE_FUTURE} PRAGMA user_version = {version}; COMMIT");
        connection.execute_batch(&script).unwrap();
        version
    }

    /// Every row of every table, as text.
    fn every_row(&self) -> BTreeMap<String, Vec<String>> {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        let tables: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let rows_of = |table: &String| {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let count = statement.column_count();
            let rows = statement.query_map([], |row| {
                let value = |index| row.get::<_, rusqlite::types::Value>(index);
                Ok(format!("{:?}", (0..count).map(value).collect::<Result<Vec<_>, _>>()?))
            });
            rows.unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        };
        tables.iter().map(|table| (table.clone(), rows_of(table))).collect()
    }
}

/// FIELD-BUGS row 81. Symptom elsewhere: an update while the gateway ran, and the old process wrote
/// what the new one could not read. It holds because a migration only adds, because no statement
/// here takes the number of columns for granted, and because the older program leaves the version
/// alone.
#[test]
fn the_old_program_works_on_beside_a_newer_one() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "token=one"]);
    let version = sandbox.migrate_to_the_future();
    let whole = ["instances", "greetings"].map(|table| format!("SELECT count(*) FROM {table}"));

    // Who held it before goes on, and can be asked, told and stopped.
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], run.pid());
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    sandbox.cli(["restart"]).assert_code(0);
    let set = ["status-set", "--pid", &run.pid().to_string(), "--state", "running"];
    assert!(matches!(sandbox.cli(set).code(), 0 | 1));
    sandbox.cli(["stop", "--timeout", "20s"]).assert_code(0);
    run.end();
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    // Everything else as ever.
    let inside = "incumbent status-set --state running --platform irc \
                      --platform-state connected && \
                  incumbent lock acquire account two && incumbent marker write note --pid $$ && \
                  incumbent marker consume note --pid $$ && \
                  incumbent forensics snapshot --signal 15";
    sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", inside]).assert_code(0);
    for verb in [
        &["status", "--all"][..],
        &["locks"],
        &["history"],
        &["events"],
        &["desired", "running"],
        &["unlock", "--stale"],
        &["evict"],
        &["sql", "SELECT * FROM moods_of_gateways"],
    ] {
        sandbox.cli(verb).assert_code(0);
    }

    // And the newer one finds its own as it left it.
    assert_eq!(sandbox.number("PRAGMA user_version"), version);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE mood <> 'calm'"), 0);
    // All but the first, which was there before there were greetings.
    let [instances, greetings] = whole.map(|query| sandbox.number(&query));
    assert_eq!(instances, greetings + 1);
    let check = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
    assert_eq!(sandbox.number(check), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

/// The newer one closes the store to writers as old as this: whoever holds something keeps it as
/// long as it lives, nobody of this version gets anything more, and not a row is written.
#[test]
fn the_old_program_says_why_it_does_not_work_and_writes_nothing() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--lock", "token=one"]);
    let version = sandbox.migrate_to_the_future();
    sandbox.forge(&format!("UPDATE meta SET value = {version} WHERE key = 'min_writer'"));
    let before = sandbox.every_row();
    let pid = std::process::id().to_string();
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["claim", "--pid", &pid, "--no-keeper"],
        &["lock", "acquire", "a", "b", "--pid", &pid, "--no-keeper"],
        &["desired", "stopped"],
        &["evict", "--force"],
        &["unlock", "--stale"],
        &["marker", "write", "note", "--pid", &run.pid().to_string()],
        &["status-set", "--pid", &run.pid().to_string(), "--state", "running"],
    ] {
        let answer = sandbox.cli(verb);
        // The run is not a record by `--pid`: some are refused before they would write.
        assert!(matches!(answer.code(), 1 | 75 | 78), "{verb:?}: {answer:#?}");
        if answer.code() == 78 {
            assert!(answer.err.contains("newer incumbent"), "{verb:?}: {answer:#?}");
            assert!(answer.err.contains("upgrade"), "{verb:?}: {answer:#?}");
        }
    }
    // Questions have answers.
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    for verb in [&["status", "--all"][..], &["locks"], &["history"], &["events"], &["doctor"]] {
        assert!(matches!(sandbox.cli(verb).code(), 0 | 1), "{verb:?}");
    }
    let fixed = sandbox.cli(["doctor", "--fix"]);
    assert!(matches!(fixed.code(), 0 | 1), "{fixed:#?}");
    assert_eq!(sandbox.every_row(), before, "something was written");
    // It is killed: the office is free, whoever may write finds out.
    run.kill();
    eventually("it is gone", LIMIT, || {
        (sandbox.status().1["verdict"] == json!("dead")).then_some(())
    });
    assert_eq!(sandbox.every_row(), before, "something was written");
    sandbox.forge("UPDATE meta SET value = 1 WHERE key = 'min_writer'");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// A store of each older version, and two first starts of this one at once under a question that
/// goes on: one migrates, nobody is refused or loses a row, and the question never sees half of it.
#[test]
fn each_older_store_is_brought_up_to_date_once() {
    for version in 1..6 {
        let sandbox = Sandbox::new();
        for _ in 0..3 {
            sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        }
        let newest = sandbox.number("PRAGMA user_version");
        sandbox.age_to(version);
        sandbox.forge("DELETE FROM events WHERE event = 'store_migrated'");
        sandbox.assert_status(3, "dead", "exited");
        assert_eq!(sandbox.number("PRAGMA user_version"), version, "a question migrated");
        let profiles = ["a", "b", "c"];
        let starts: Vec<_> = profiles
            .iter()
            .map(|profile| {
                let run = ["--profile", profile, "run", "--no-backoff", "--", "true"];
                Process::start(sandbox.incumbent(run))
            })
            .collect();
        while sandbox.number("PRAGMA user_version") == version {
            let code = sandbox.status().0;
            assert!(matches!(code, 3 | 75), "version {version}: {code}");
        }
        for start in starts {
            start.finish(LIMIT).assert_code(0);
        }
        assert_eq!(sandbox.number("PRAGMA user_version"), newest);
        let migrated = "SELECT count(*) FROM events WHERE event = 'store_migrated'";
        assert_eq!(sandbox.number(migrated), 1, "version {version}");
        assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE kind IS NOT NULL"), 6);
    }
}

/// FIELD-BUGS row 81. An older program goes on beside a newer one, until the newer one says that
/// it may not: then it refuses to write, and still answers.
#[test]
fn a_newer_schema_stops_only_writers_and_only_when_told_so() {
    let sandbox = Sandbox::new();
    sandbox.make_store();
    sandbox.forge("PRAGMA user_version = 99");
    let run = sandbox.hold(&[]);
    sandbox.assert_status(0, "alive", "anchor_held");
    sandbox.cli(START).assert_code(75);
    run.end().assert_code(0);
    assert_eq!(sandbox.number("PRAGMA user_version"), 99);

    sandbox.forge("UPDATE meta SET value = 99 WHERE key = 'min_writer'");
    let before = fingerprint(sandbox.path());
    for verb in [START, &["claim"], &["evict"]] {
        let command = sandbox.incumbent(as_json(verb));
        let error = assert_error(command, 78, "too_new");
        assert!(error["message"].as_str().unwrap().contains("99"), "{error:#}");
        assert!(error["hint"].as_str().unwrap().contains("upgrade"), "{error:#}");
    }
    sandbox.assert_status(3, "dead", "exited");
    for verb in &QUESTIONS[1..] {
        sandbox.cli(*verb).assert_code(0);
    }
    assert_untouched(&before, sandbox.path(), "too new");
}
