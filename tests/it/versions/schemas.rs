//! A store of each schema version, as the program of its time has made it
//! (`tests/fixtures/schema/README.md`): questions leave it as it is, a claim brings it up to date,
//! and what it told of the past is told afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::support::{
    LIMIT, Process, START, Sandbox, assert_untouched, fingerprint, keys, set_mode,
};

/// The version that closed the store to programs of version 0.1, and from which on a row says
/// which file its anchor is: a copy of one is none.
const KNOWS_ITS_ANCHORS: i64 = 7;

/// Everything that asks.
const QUESTIONS: &[&[&str]] = &[
    &["status"],
    &["--profile", "dead", "status"],
    &["status", "--all"],
    &["history"],
    &["--profile", "dead", "history"],
    &["locks"],
    &["events"],
    &["marker", "peek", "--pid", "1"],
    &["desired"],
    &["doctor"],
    &["sql", "SELECT * FROM incarnations"],
];

/// What is told of the past. A row of it does not go, nor change.
const PAST: &[(&str, &str)] = &[
    ("meta", "key IN ('store_uuid', 'created_at_ms')"),
    ("profiles", "profile <> 'dead'"),
    ("instances", "ended_at_ms IS NOT NULL"),
    ("starts", "true"),
    ("conflicts", "true"),
    ("events", "true"),
    ("lock_conflicts", "true"),
    // That of the dead holder goes with it.
    ("scoped_locks", "instance_id IN (SELECT id FROM instances WHERE kind IS NULL)"),
    ("markers", "closed_at_ms IS NOT NULL"),
    ("superseded", "true"),
    ("runtime_status", "true"),
    ("platform_status", "true"),
    ("serves", "true"),
    ("shutdowns", "true"),
];

fn fixture(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema/v{version}.db"))
}

/// A new store of this program.
fn new_store() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    sandbox
}

/// The schema version that this program writes.
fn newest() -> i64 {
    new_store().number("PRAGMA user_version")
}

/// A database that nobody writes, without a file beside it.
fn untouched(database: &Path) -> Connection {
    let uri = format!("file:{}?immutable=1", database.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).unwrap()
}

fn strings(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection.prepare(query).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// A sandbox whose store is a copy of that version's, as it was left when its machine went down:
/// anchors are empty files, and nobody holds one any more.
fn store_of(version: i64) -> Sandbox {
    let sandbox = Sandbox::new();
    for directory in [sandbox.file("store"), sandbox.anchors()] {
        std::fs::create_dir(&directory).unwrap();
        set_mode(&directory, 0o700);
    }
    std::fs::copy(fixture(version), sandbox.db()).unwrap();
    let named = "SELECT DISTINCT anchor FROM instances
                 WHERE anchor IS NOT NULL AND ended_at_ms IS NULL";
    let anchors = strings(&untouched(&sandbox.db()), named);
    let anchors = anchors.iter().map(|name| sandbox.anchors().join(name));
    for file in anchors.chain([sandbox.db()]) {
        std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        set_mode(&file, 0o600);
    }
    sandbox
}

/// The rows of `table` of which `condition` is true, in `columns`.
fn rows(
    connection: &Connection,
    table: &str,
    columns: &[String],
    condition: &str,
) -> BTreeSet<String> {
    let query = format!("SELECT {} FROM {table} WHERE {condition}", columns.join(", "));
    let mut statement = connection.prepare(&query).unwrap();
    let rows = statement.query_map([], |row| {
        let value = |column| row.get::<_, rusqlite::types::Value>(column);
        Ok(format!("{:?}", (0..columns.len()).map(value).collect::<Result<Vec<_>, _>>()?))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Every object of a schema, without what does not matter: white space, and what SQLite keeps for
/// itself where a table once had counted.
fn schema(sandbox: &Sandbox) -> BTreeSet<String> {
    let connection = Connection::open(sandbox.db()).unwrap();
    let sql = "SELECT type || ' ' || name || ' on ' || tbl_name || ': ' || coalesce(sql, '')
               FROM sqlite_schema WHERE name <> 'sqlite_sequence'";
    let objects = strings(&connection, sql);
    objects.iter().map(|sql| sql.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// `history --json` of a profile, as far as it is over.
fn ended(sandbox: &Sandbox, profile: &str) -> Vec<Value> {
    let (code, history) = sandbox.json(["--profile", profile, "history"]);
    assert_eq!(code, 0, "{profile}: {history:#}");
    let all = history.as_array().unwrap().iter();
    all.filter(|row| row["ended_at"].is_string()).cloned().collect()
}

#[test]
fn there_is_a_store_of_each_schema_version() {
    let newest = newest();
    for version in 1..=newest {
        let found: i64 = untouched(&fixture(version))
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap_or_else(|error| panic!("{}: {error}", fixture(version).display()));
        assert_eq!(found, version, "{}", fixture(version).display());
    }
    assert!(!fixture(newest + 1).exists(), "of a version that is not there yet");
}

#[test]
fn a_question_of_an_older_store_changes_nothing() {
    for version in 1..=newest() {
        let sandbox = store_of(version);
        let before = fingerprint(sandbox.path());
        for question in QUESTIONS {
            for options in [&[][..], &["--json"]] {
                let words = [options, question].concat();
                let what = format!("version {version}: {words:?}");
                let answer = Process::start(sandbox.incumbent(&words)).finish(LIMIT);
                assert!([0, 1, 3, 4].contains(&answer.code()), "{what}: {answer:#?}");
                let says = format!("{}{}", answer.out, answer.err);
                for word in ["no such table", "no such column", "panicked"] {
                    assert!(!says.contains(word), "{what}: {answer:#?}");
                }
                assert_untouched(&before, sandbox.path(), &what);
            }
        }
        // Who was there is told, also by a file that has no columns for all that there is to tell.
        let reasons: Vec<_> =
            ended(&sandbox, "default").iter().map(|row| row["end_reason"].clone()).collect();
        assert_eq!(json!(reasons), json!(["signalled", "exited", "exited"]), "version {version}");
        let (code, dead) = sandbox.json(["--profile", "dead", "status"]);
        let expected = if version < KNOWS_ITS_ANCHORS { (3, "dead") } else { (4, "unknown") };
        assert_eq!((code, dead["verdict"].as_str()), (expected.0, Some(expected.1)), "{dead:#}");
        assert_untouched(&before, sandbox.path(), "the last question");
    }
}

#[test]
fn a_claim_brings_an_older_store_up_to_date_and_keeps_what_it_tells() {
    let new = new_store();
    for version in 1..=new.number("PRAGMA user_version") {
        let sandbox = store_of(version);
        let profiles = strings(&untouched(&sandbox.db()), "SELECT profile FROM profiles");
        let before: Vec<_> = profiles.iter().map(|profile| ended(&sandbox, profile)).collect();
        let dead = "SELECT id FROM instances WHERE profile = 'dead' AND kind IS NOT NULL
                    AND ended_at_ms IS NULL";
        let dead: i64 = untouched(&sandbox.db()).query_row(dead, [], |row| row.get(0)).unwrap();

        let claim = ["--profile", "dead", "run", "--no-backoff", "--", "true"];
        if version < KNOWS_ITS_ANCHORS {
            sandbox.cli(claim).assert_code(0);
        } else {
            // Of that machine nothing can be known here: who claims is told so.
            let (code, refused) = sandbox.json(claim);
            assert_eq!(code, 75, "{refused:#}");
            assert_eq!(refused["holder"]["verdict"], "unknown", "{refused:#}");
            sandbox.cli(["--profile", "dead", "evict", "--force"]).assert_code(0);
            sandbox.cli(claim).assert_code(0);
        }

        let what = format!("version {version}");
        let (migrated, made) = (schema(&sandbox), schema(&new));
        let different: Vec<_> = migrated.symmetric_difference(&made).collect();
        assert!(different.is_empty(), "{what}: {different:#?}");
        for pragma in ["PRAGMA user_version", "PRAGMA application_id"] {
            assert_eq!(sandbox.number(pragma), new.number(pragma), "{what}: {pragma}");
        }
        let min_writer = "SELECT value FROM meta WHERE key = 'min_writer'";
        assert_eq!(sandbox.number(min_writer), new.number(min_writer), "{what}");
        let check = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
        assert_eq!(sandbox.number(check), 0, "{what}");
        assert_eq!(sandbox.number("SELECT count(*) FROM pragma_foreign_key_check"), 0, "{what}");

        assert_past_is_kept(version, &sandbox);
        for (profile, before) in profiles.iter().zip(&before) {
            let after = ended(&sandbox, profile);
            for row in before {
                let id = &row["instance"];
                let kept = after.iter().find(|it| it["instance"] == *id);
                let kept = kept.unwrap_or_else(|| panic!("{what}: {profile} {id} is not told"));
                for key in keys(row) {
                    assert_eq!(kept[key], row[key], "{what}: {profile} {id} {key}");
                }
            }
        }
        // The dead one has an end, which is told by the history and by an event.
        let reason = format!("SELECT end_reason FROM instances WHERE id = {dead}");
        let connection = Connection::open(sandbox.db()).unwrap();
        let reason = strings(&connection, &reason).remove(0);
        let told = ended(&sandbox, "dead");
        let told = told.iter().find(|row| row["instance"] == dead).unwrap();
        assert_eq!(told["end_reason"], reason.as_str(), "{what}: {told:#}");
        let expected = if version < KNOWS_ITS_ANCHORS { "anchor_released" } else { "evicted" };
        assert_eq!(reason, expected, "{what}");
        let events = format!(
            "SELECT count(*) FROM events WHERE event = 'office_ended' AND instance_id = {dead}"
        );
        assert_eq!(sandbox.number(&events), 1, "{what}");
        let (code, locks) = sandbox.json(["locks"]);
        assert_eq!(code, 0, "{locks:#}");
        let of_dead = locks.as_array().unwrap().iter().find(|lock| lock["instance"] == dead);
        assert_eq!(of_dead, None, "{what}");
    }
}

/// An end is recorded also where the store has no place for when it was seen: `evict` migrates
/// nothing.
#[test]
fn the_dead_of_an_older_store_are_evicted() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.age_to(10);
    sandbox.cli(["evict"]).assert_code(0);
    assert_eq!(sandbox.number("PRAGMA user_version"), 10);
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["end_reason"], "anchor_released", "{end:#}");
    assert!(end["ended_at"].is_string() && end["exit_seen_at"].is_null(), "{end:#}");
    let status = sandbox.cli(["status"]).assert_code(3).out;
    assert!(status.contains("(killed or crashed; found dead "), "{status}");
}

/// Of every table that the older store has, and in the columns that it has them.
fn assert_past_is_kept(version: i64, sandbox: &Sandbox) {
    let old = untouched(&fixture(version));
    let new = Connection::open(sandbox.db()).unwrap();
    for (table, condition) in PAST {
        let columns = strings(&old, &format!("SELECT name FROM pragma_table_info('{table}')"));
        if columns.is_empty() {
            continue;
        }
        let (before, after) =
            (rows(&old, table, &columns, condition), rows(&new, table, &columns, "true"));
        assert!(!before.is_empty(), "version {version}: {table}: nothing is there to be lost");
        let lost: Vec<_> = before.difference(&after).collect();
        assert!(lost.is_empty(), "version {version}: {table}: {lost:#?}");
    }
}
