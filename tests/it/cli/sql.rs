//! The tables that people read after an incident, by `sqlite3 -readonly` and by `incumbent sql`.

use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::support::{
    Answer, LIMIT, Process, Sandbox, assert_untouched, assert_within, fingerprint, has, rounds,
    skipped,
};

impl Sandbox {
    fn sqlite3(&self, query: &str) -> Vec<Value> {
        let mut command = self.program("sqlite3");
        // Patience: for an instant the last one to close a store keeps everybody out, and the shell
        // has none of its own.
        command.args(["-readonly", "-json", "-cmd", ".timeout 5000"]).arg(self.db()).arg(query);
        let answer = Process::start(command).finish(LIMIT).assert_code(0);
        assert_eq!(answer.err, "", "{query}");
        if answer.out.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&answer.out).unwrap()
    }

    fn sql(&self, query: &str) -> Answer {
        self.cli(["sql", query])
    }
}

/// A time as the views show it: RFC 3339, UTC, with milliseconds, and of today.
#[track_caller]
fn time_of(value: &Value, row: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("not a time: {row:#}"));
    assert!(text.len() == 24 && text.ends_with('Z'), "not ISO with milliseconds: {text}");
    let time = DateTime::parse_from_rfc3339(text).unwrap().to_utc();
    let away = (DateTime::<Utc>::from(SystemTime::now()) - time).abs();
    assert!(away < chrono::TimeDelta::minutes(10), "{text} is not near now: {row:#}");
    time
}

fn check_gateways(rows: &[Value]) {
    for row in rows {
        time_of(&row["since"], row);
        assert_eq!((&row["profile"], &row["kind"]), (&json!("default"), &json!("gateway")));
        assert!(row["pid"].as_i64().unwrap() > 0, "{row:#}");
        let anchor = row["anchor"].as_str().unwrap();
        assert!(anchor.contains(&format!("-{}-", row["pid"])), "named for its owner: {row:#}");
        let command: Value = serde_json::from_str(row["command"].as_str().unwrap()).unwrap();
        assert!(command.is_array(), "{row:#}");
    }
    assert!(rows.len() <= 1, "two live holders: {rows:#?}");
}

fn check_incarnations(rows: &[Value]) {
    let mut newer = i64::MAX;
    for row in rows {
        let instance = row["instance"].as_i64().unwrap();
        assert!(instance < newer, "newest first: {rows:#?}");
        newer = instance;
        let started = time_of(&row["started"], row);
        if row["ended"].is_null() {
            assert!(row["end_reason"].is_null(), "{row:#}");
            continue;
        }
        let ended = time_of(&row["ended"], row);
        assert!(started <= ended, "{row:#}");
        let lasted = row["lasted_s"].as_f64().unwrap();
        let between = (ended - started).as_seconds_f64();
        assert!((lasted - between).abs() < 0.0015, "{row:#}");
        assert!(row["end_reason"].is_string(), "{row:#}");
    }
}

/// Read with a tool that is not ours while owners come and go, killed ones as well: every look is
/// one consistent picture, and keeps nobody from starting.
#[test]
fn sqlite3_reads_sensible_times_while_owners_come_and_go() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let count = rounds(12, 200);
    let (mut looks, mut seen_live) = (0, 0);
    std::thread::scope(|scope| {
        let owners = scope.spawn(|| {
            for round in 0..count {
                let mut run = sandbox.hold(&[]);
                match round % 3 {
                    0 => run.kill(),
                    _ => drop(run.end().assert_code(0)),
                }
            }
        });
        while !owners.is_finished() {
            let gateways = sandbox.sqlite3("SELECT * FROM gateways");
            check_gateways(&gateways);
            check_incarnations(&sandbox.sqlite3("SELECT * FROM incarnations"));
            looks += 1;
            seen_live += gateways.len();
        }
        owners.join().unwrap();
    });
    let rows = sandbox.sqlite3("SELECT * FROM incarnations");
    check_incarnations(&rows);
    assert_eq!(rows.len(), count + 1);
    assert!(looks > 2 && seen_live > 0, "{looks} looks, {seen_live} of them at an owner");
    let ends: Vec<_> = rows.iter().map(|row| row["end_reason"].as_str().unwrap_or("")).collect();
    assert!(ends.contains(&"exited") && ends.contains(&"anchor_released"), "{ends:?}");
}

/// The row of `gateways` says what `status` says.
#[test]
fn the_views_agree_with_the_verbs() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--profile", "work"]);
    let (code, rows) = sandbox.json(["sql", "SELECT * FROM gateways"]);
    assert_eq!(code, 0, "{rows:#}");
    let status = sandbox.json(["status", "--profile", "work"]).1;
    assert_eq!(rows[0]["pid"], status["pid"]);
    assert_eq!(rows[0]["child_pid"], status["child_pid"]);
    assert_eq!(rows[0]["instance"], status["instance"]);
    assert_eq!(rows[0]["since"], status["since"]);
    assert_eq!(rows[0]["profile"], "work");
    run.end().assert_code(0);
    assert_eq!(sandbox.json(["sql", "SELECT * FROM gateways"]), (0, json!([])));
    let (_, rows) = sandbox.json(["sql", "SELECT * FROM incarnations"]);
    let history = sandbox.json(["history", "--profile", "work"]).1;
    assert_eq!(rows[0]["started"], history[0]["started_at"]);
    assert_eq!(rows[0]["ended"], history[0]["ended_at"]);
    assert_eq!(rows[0]["exit_code"], 0);
    assert_eq!(rows[0]["summary"], history[0]["summary"]);
}

/// Questions never write, whatever they are called.
#[test]
fn sql_refuses_whatever_would_write() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let before = fingerprint(sandbox.path());
    for query in [
        "DELETE FROM instances",
        "UPDATE instances SET pid = 1",
        "INSERT INTO meta VALUES ('a', 'b')",
        "INSERT INTO meta VALUES ('a', 'b') RETURNING key",
        "DELETE FROM events RETURNING id",
        "WITH x AS (SELECT 1) DELETE FROM events",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "DROP TABLE events",
        "ALTER TABLE events ADD COLUMN a",
        "ATTACH 'other.db' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "SAVEPOINT a",
        "PRAGMA user_version = 5",
        "PRAGMA application_id = 5",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA writable_schema = ON",
        "PRAGMA incremental_vacuum",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM events",
        "SELECT 1; SELECT 2",
        "DELETE FROM events; SELECT 1",
        "SELECT",
        "SELECT * FROM nowhere",
        "not SQL at all",
        ";",
        " ",
        "",
        "-- nothing",
    ] {
        let mut command = sandbox.incumbent(["--json", "sql"]);
        command.arg(query);
        let answer = Process::start(command).finish(LIMIT);
        assert_eq!(answer.code(), 2, "{query:?}: {answer:#?}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["kind"], "invalid_input", "{query:?}: {error:#}");
        assert!(error["hint"].is_string(), "{query:?}: {error:#}");
        assert_untouched(&before, sandbox.path(), query);
    }
    sandbox.assert_status(3, "dead", "exited");
}

/// What asks, and only looks like more, is answered.
#[test]
fn sql_answers_whatever_asks() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    for (query, first) in [
        ("SELECT count(*) AS n FROM instances", json!({"n": 1})),
        ("SELECT count(*) AS n FROM instances;", json!({"n": 1})),
        ("  WITH x(n) AS (SELECT 7) SELECT n FROM x -- done", json!({"n": 7})),
        ("VALUES (1)", json!({"column1": 1})),
        ("SELECT 'DELETE FROM events; --' AS text", json!({"text": "DELETE FROM events; --"})),
        ("SELECT NULL AS a, 1.5 AS b, x'00ff' AS c", json!({"a": null, "b": 1.5, "c": "00ff"})),
    ] {
        let (code, rows) = sandbox.json(["sql", query]);
        assert_eq!((code, &rows[0]), (0, &first), "{query:?}: {rows:#}");
    }
    assert_eq!(sandbox.json(["sql", "SELECT 1 WHERE 0"]), (0, json!([])));
}

const COUNT: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)";

#[test]
fn sql_is_bounded_in_rows() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let (code, rows) = sandbox.json(["sql", &format!("{COUNT} SELECT n FROM c LIMIT 10000")]);
    assert_eq!((code, rows.as_array().unwrap().len()), (0, 10_000));
    let answer = sandbox.sql(&format!("{COUNT} SELECT n FROM c LIMIT 10001")).assert_code(2);
    assert_eq!(answer.out, "", "half an answer is none");
    answer.assert_complains(&["10000 rows", "try:", "LIMIT"]);
    let answer = sandbox.sql(&format!("{COUNT} SELECT n FROM c")).assert_code(2);
    answer.assert_complains(&["10000 rows"]);
}

/// A query that never ends would hold the write-ahead log back; it is ended, and keeps nobody from
/// working meanwhile.
#[test]
fn sql_is_bounded_in_time() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let asked = Instant::now();
    let query = format!("{COUNT} SELECT count(*) FROM c, instances");
    let endless = Process::start(sandbox.incumbent(["sql", query.as_str()]));
    sandbox.hold(&[]).end().assert_code(0);
    assert_within(Duration::from_secs(9), asked.elapsed(), "the owner waited for the question");
    let answer = endless.finish(Duration::from_secs(25)).assert_code(2);
    assert!(asked.elapsed() >= Duration::from_secs(9), "{answer:#?}");
    assert_eq!(answer.out, "");
    answer.assert_complains(&["was ended after", " s", "try:"]);
}

/// Three ways to show it; what needs quotes gets them.
#[test]
fn sql_prints_tables_csv_and_json() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let query = "SELECT 'a,b' AS x, 'say \"hi\"' AS \"the y\", NULL AS z, 'two
lines' AS w UNION ALL SELECT 1, 2.5, x'0a', ''";
    let csv = sandbox.cli(["sql", "--csv", query]).assert_code(0).out;
    let expected =
        "x,the y,z,w\n\"a,b\",\"say \"\"hi\"\"\",,\"two\nlines\"\n1,2.5,0a,\n".to_owned();
    assert_eq!(csv.replace("\r\n", "\n"), expected);
    let (code, rows) = sandbox.json(["sql", query]);
    let expected = json!([
        {"x": "a,b", "the y": "say \"hi\"", "z": null, "w": "two\nlines"},
        {"x": 1, "the y": 2.5, "z": "0a", "w": ""},
    ]);
    assert_eq!((code, rows), (0, expected));
    let table = sandbox.sql("SELECT 'left' AS first, 'right' AS second").assert_code(0).out;
    let lines: Vec<_> = table.lines().collect();
    let place = |word: &str| lines.iter().position(|line| line.contains(word)).unwrap();
    assert!(place("first") < place("left"), "{table}");
    assert_eq!((place("first"), place("left")), (place("second"), place("right")), "{table}");
    assert!(!table.contains('\u{1b}'), "{table:?}");
}

/// Symptom: a column that was called like the format of a row took its place, and of two columns
/// with one name the first was not there.
#[test]
fn a_column_that_json_would_lose_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    for query in ["SELECT 'x' AS format", "SELECT 1 AS a, 2 AS a", "SELECT 1 AS format WHERE 0"] {
        let (code, refused) = sandbox.json(["sql", query]);
        assert_eq!((code, &refused["error"]["kind"]), (2, &json!("invalid_input")), "{query}");
        let hint = refused["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("name it with AS"), "{hint}");
        // Where columns stand next to each other, none is lost.
        sandbox.sql(query).assert_code(0);
        sandbox.cli(["sql", "--csv", query]).assert_code(0);
    }
    assert_eq!(sandbox.json(["sql", "SELECT 1 AS a, 2 AS A"]), (0, json!([{"a": 1, "A": 2}])));
}

/// One document or one table of values, not a guess at which; wherever the option stands.
#[test]
fn sql_prints_in_one_way_at_a_time() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    sandbox.cli(["sql", "--csv", "--json", "SELECT 1"]).assert_code(2);
    sandbox.cli(["--json", "sql", "--csv", "SELECT 1"]).assert_code(2);
}

/// The queries of the README, each with the question above it.
fn questions() -> Vec<(String, String)> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block = readme.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0;
    let statements = block.split(';').map(str::trim).filter(|text| !text.is_empty());
    statements
        .map(|text| {
            let (question, query) = text.split_once('\n').unwrap();
            (question.strip_prefix("-- ").unwrap().to_owned(), query.to_owned())
        })
        .collect()
}

/// What a person asks at three in the morning, in the words of the README, by both tools.
/// Everything that is asked about has really happened: a token that changed hands, a crash, a
/// takeover, a platform that failed, starts that were refused.
#[test]
fn the_five_questions_of_the_readme_have_answers() {
    let sandbox = Sandbox::new();
    let said = "incumbent status-set --state running --platform telegram --platform-state fatal \
                --error-code 401 --error-message 'the token is revoked' && kill -9 $PPID";
    let lock = ["--lock", "telegram-bot-token=123:abc"];
    let first =
        [&["--profile", "home", "run", "--no-backoff"], &lock[..], &["--", "sh", "-c", said]];
    sandbox.cli(first.concat()).assert_code(137);
    let old = sandbox.hold(&["--profile", "work", "--lock", "telegram-bot-token=123:abc"]);
    let refused = ["--profile", "work", "run", "--no-backoff", "--", "true"];
    sandbox.cli(refused).assert_code(75);
    let new = sandbox.hold(&["--profile", "work", "--replace"]);
    let (old_pid, new_pid) = (old.pid(), new.pid());
    old.end();
    // Whoever is killed is settled by the next one.
    sandbox.cli(["--profile", "home", "run", "--no-backoff", "--", "true"]).assert_code(0);

    let questions = questions();
    assert_eq!(questions.len(), 5, "{questions:#?}");
    let digest = Process::start(sandbox.shell("printf %s 123:abc | sha256sum | cut -c1-16"));
    let digest = digest.finish(LIMIT).out.trim().to_owned();
    for (question, query) in questions {
        let query = query.replace("5d1cd3a09a34a2f1", &digest);
        let (code, answer) = sandbox.json(["sql", &query]);
        assert_eq!(code, 0, "{question}: {answer:#}");
        let rows = answer.as_array().unwrap().clone();
        if has("sqlite3") {
            assert_eq!(sandbox.sqlite3(&query), rows, "{question}");
        } else {
            skipped("half of it needs sqlite3");
        }
        let find = |wanted: Value| {
            let is_it = |row: &&Value| {
                wanted.as_object().unwrap().iter().all(|(key, value)| row[key] == *value)
            };
            assert!(rows.iter().any(|row| is_it(&row)), "{question} {wanted}: {rows:#?}");
        };
        match question.split(' ').take(3).collect::<Vec<_>>().join(" ").as_str() {
            "who held this" => {
                find(json!({"event": "lock_acquired", "profile": "home"}));
                find(json!({"event": "lock_ended", "profile": "home"}));
                find(json!({"event": "lock_acquired", "profile": "work", "pid": old_pid}));
            }
            // A crash is told from a success.
            "how did they" => {
                let crash = "crashed: exit code 137 (as after SIGKILL)";
                let ends = ["killed or crashed", "killed: SIGKILL", crash];
                let summary = rows.iter().find(|row| {
                    row["profile"] == "home" && ends.iter().any(|end| row["summary"] == *end)
                });
                assert!(summary.is_some(), "{rows:#?}");
                find(json!({"profile": "home", "summary": "ended: exit code 0", "times": 1}));
            }
            "who took over" => {
                find(json!({"profile": "work", "of": old_pid, "by": new_pid}));
            }
            "what was the" => find(json!({
                "profile": "home", "platform": "telegram", "error_code": "401",
                "error_message": "the token is revoked",
            })),
            "which starts were" => find(json!({"profile": "work", "holder": old_pid})),
            other => panic!("what is asked here? {other}"),
        }
    }
    new.end();
}
