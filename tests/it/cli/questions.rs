//! Questions that people ask after an incident: what happened at that time, whose is this pid, who
//! has this token, who stopped it; and the answers of one store to all of them.

use serde_json::{Value, json};

use crate::support::{Answer, LIMIT, Process, START, Sandbox, bystander};

/// 2024-11-22, midnight.
const MIDNIGHT_MS: i64 = 1_732_233_600_000;

const HOUR_MS: i64 = 3_600_000;

/// Three incarnations of that night, an hour each: from one o'clock, three, five. Their ids.
fn a_night(sandbox: &Sandbox) -> Vec<i64> {
    [1, 3, 5]
        .into_iter()
        .map(|hour| {
            sandbox.cli(START).assert_code(0);
            let newest = "(SELECT max(id) FROM instances)";
            let started_ms = MIDNIGHT_MS + hour * HOUR_MS;
            let ended_ms = started_ms + HOUR_MS;
            let is_it = format!("WHERE id = {newest}");
            let times = format!("started_at_ms = {started_ms}, ended_at_ms = {ended_ms}");
            assert_eq!(sandbox.forge(&format!("UPDATE instances SET {times} {is_it}")), 1);
            let of_events = format!("UPDATE events SET at_ms = {started_ms}");
            sandbox.forge(&format!("{of_events} WHERE instance_id = {newest}"));
            sandbox.number(&format!("SELECT {newest}"))
        })
        .collect()
}

fn ids(answer: &(i32, Value), name: &str) -> Vec<i64> {
    let (code, document) = answer;
    assert_eq!(*code, 0, "{document:#}");
    document.as_array().unwrap().iter().map(|it| it[name].as_i64().unwrap()).collect()
}

/// "What ran between two and four?" Whoever held it for a part of that time.
#[test]
fn the_history_of_a_time() {
    let sandbox = Sandbox::new();
    let night = a_night(&sandbox);
    let [one, three, five] = night[..] else { panic!("{night:?}") };
    for (words, expected) in [
        (&[][..], &[five, three, one][..]),
        (&["--since", "2024-11-22"], &[five, three, one]),
        (&["--since", "2024-11-22 03:30"], &[five, three]),
        (&["--until", "2024-11-22T03:30:00Z"], &[three, one]),
        (&["--since", "2024-11-22 02:30", "--until", "2024-11-22 02:45"], &[]),
        (&["--since", "2024-11-22 01:30", "--until", "2024-11-22 03:30"], &[three, one]),
        (&["--limit", "1"], &[five]),
        (&["--since", "1732249800", "--limit", "1"], &[five]),
        (&["--since", "1h"], &[]),
        // As in a duration: seconds ago, and not 1970.
        (&["--since", "12"], &[]),
        (&["--since", "3600"], &[]),
        (&["--until", "3600"], &[five, three, one]),
        (&["--since", "00:00"], &[]),
        (&["--until", "00:00:01"], &[five, three, one]),
        (&["--since", "1h ago"], &[]),
        (&["--since", "today"], &[]),
    ] {
        let found = ids(&sandbox.json([&["history"], words].concat()), "instance");
        assert_eq!(found, expected, "{words:?}");
    }
    let text = sandbox.cli(["history", "--since", "now"]).assert_code(0).out;
    assert_eq!(text, "nothing on record matches\n");
    for time in ["soon", "2024-13-01", "25:00", ""] {
        sandbox.cli(["history", "--since", time]).assert_code(2).assert_complains(&["time"]);
    }
    let wrong = ["history", "--since", "2024-11-22 03:00", "--until", "2024-11-22 02:00"];
    sandbox.cli(wrong).assert_code(2).assert_complains(&["`--since` (2024-11-22T03:00", "later"]);
    sandbox.cli(["history", "--limit", "0"]).assert_code(2).assert_complains(&["at least 1"]);
}

/// Of all offices, each named in its line.
#[test]
fn the_history_of_all_offices() {
    let sandbox = Sandbox::new();
    for profile in ["home", "work"] {
        sandbox.cli([&["--profile", profile], START].concat()).assert_code(0);
    }
    let profiles = |words: &[&str]| {
        let (code, all) = sandbox.json([&["history"], words].concat());
        assert_eq!(code, 0, "{all:#}");
        let rows = all.as_array().unwrap().clone();
        rows.iter().map(|it| it["profile"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(profiles(&["--all"]), ["work", "home"]);
    assert_eq!(profiles(&["--all", "--profile", "home"]), ["home"]);
    assert_eq!(profiles(&["--all", "--kind", "other"]), [""; 0]);
    assert_eq!(profiles(&[]), [""; 0]);
    let text = sandbox.cli(["history", "--all"]).assert_code(0).out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("  work/gateway: pid ") && lines.len() == 2, "{text}");
}

/// Events of a name, of a time, and the newest of them; a follower begins with those, and goes on
/// with nothing else.
#[test]
fn events_of_a_name_and_of_a_time() {
    let sandbox = Sandbox::new();
    let night = a_night(&sandbox);
    let of = |words: &[&str]| ids(&sandbox.json([&["events"], words].concat()), "instance");
    assert_eq!(of(&["--event", "office_claimed"]), night);
    assert_eq!(of(&["--event", "office_claimed", "--limit", "2"]), night[1..]);
    assert_eq!(of(&["--event", "office_ended", "--since", "2024-11-22 02:00"]), night[1..]);
    assert_eq!(of(&["--event", "lock_ended"]), [0_i64; 0]);
    // Nothing, and exit code 0, would look like a quiet night.
    let unknown = sandbox.cli(["events", "--event", "office_started_again"]).assert_code(2);
    unknown.assert_complains(&["no such event", "lock_ended, ", "office_ended, "]);
    let both = of(&["--event", "office_claimed", "--event", "office_ended"]);
    assert_eq!(both.len(), 2 * night.len(), "{both:?}");

    let follow = ["--json", "events", "--follow", "--event", "office_ended", "--limit", "1"];
    let mut follower = Process::start(sandbox.incumbent(follow));
    let next =
        |follower: &mut Process| -> Value { serde_json::from_str(&follower.line()).unwrap() };
    assert_eq!(next(&mut follower)["instance"], night[2]);
    sandbox.cli(START).assert_code(0);
    let event = next(&mut follower);
    assert_eq!(event["event"], "office_ended", "{event:#}");
    assert!(event["instance"].as_i64().unwrap() > night[2], "{event:#}");
}

/// "Who has this token?", asked by the token, from a pipe, from a variable, by its hash.
#[test]
fn one_lock_is_held_or_not() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock=telegram-bot-token=123:abc", "--lock=port=80"]);
    let scope = "telegram-bot-token";
    let hash = sandbox.json(["locks", scope]).1[0]["identity_hash"].as_str().unwrap().to_owned();
    let ask = |words: &[&str], code: i32| {
        let mut command = sandbox.incumbent([&["--json", "locks", scope], words].concat());
        command.env("BOT_TOKEN", "123:abc");
        let answer = Process::start(command).finish(LIMIT).assert_code(code);
        answer.json().as_array().unwrap().clone()
    };
    for words in [&["123:abc"][..], &["--identity-env", "BOT_TOKEN"], &["--hash", &hash]] {
        let held = ask(words, 0);
        assert_eq!(held.len(), 1, "{words:?}: {held:#?}");
        assert_eq!(held[0]["pid"], run.pid(), "{words:?}");
    }
    let mut piped = Process::start(sandbox.incumbent(["locks", scope, "-"]));
    piped.write("123:abc");
    piped.finish(LIMIT).assert_code(0);

    assert!(ask(&["another"], 3).is_empty());
    assert_eq!(ask(&[], 0).len(), 1, "of one scope");
    let nobody = sandbox.cli(["locks", scope, "another"]).assert_code(3).out;
    assert!(nobody.ends_with(": nobody holds it\n"), "{nobody}");
    let none = sandbox.cli(["locks", "account"]).assert_code(0).out;
    assert_eq!(none, "nobody holds a lock of account\n");
    run.end().assert_code(0);
    assert!(ask(&["123:abc"], 3).is_empty());
}

/// "What is pid 4711?" Both pids of a `run` lead to its office; one that ended is told as it was.
#[test]
fn a_pid_leads_to_its_office() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--profile", "work"]);
    let stranger = bystander(&sandbox);
    let (of_run, of_command) = (run.pid().to_string(), run.command.pid.to_string());
    for pid in [&of_run, &of_command] {
        let (code, status) = sandbox.json(["status", "--pid", pid]);
        assert_eq!((code, &status["profile"]), (0, &json!("work")), "{status:#}");
        let (code, all) = sandbox.json(["status", "--all", "--pid", pid]);
        assert_eq!((code, all.as_array().unwrap().len()), (0, 1), "{all:#}");
    }
    let stranger = stranger.pid().to_string();
    let nobody = sandbox.cli(["status", "--pid", &stranger]).assert_code(3);
    nobody.assert_complains(&["holds no office", "try:", "status --all"]);
    assert_eq!(sandbox.json(["status", "--all", "--pid", &stranger]), (0, json!([])));
    sandbox.cli(["status", "--pid", &of_run, "--profile", "home"]).assert_code(3);
    run.end().assert_code(0);
    let past = sandbox.cli(["status", "--pid", &of_run]).assert_code(3);
    past.assert_complains(&["holds no office", "held work/gateway until"]);
    sandbox.cli(["status", "--pid", "0"]).assert_code(2);
}

fn sql_from(sandbox: &Sandbox, words: &[&str], input: &str) -> Answer {
    let mut process = Process::start(sandbox.incumbent([&["sql"], words].concat()));
    process.write(input);
    process.finish(LIMIT)
}

/// Symptom: what README shows as SQL failed when it was pasted: a comment in front was taken for an
/// option, and several statements were refused. It holds because they are cut into statements
/// before SQLite sees the first.
#[test]
fn sql_is_taken_as_it_is_pasted() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block = readme.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0;
    let statements = block.matches(';').count();
    let file = sandbox.file("questions.sql");
    std::fs::write(&file, block).unwrap();
    let answers = [
        sandbox.cli(["sql", block]),
        sandbox.cli(["sql", "--file", file.to_str().unwrap()]),
        sql_from(&sandbox, &["-"], block),
    ];
    for answer in answers {
        let answer = answer.assert_code(0);
        assert_eq!(answer.err, "", "{answer:#?}");
        let headers = answer.out.lines().filter(|line| line.contains("profile")).count();
        assert!(headers >= statements - 1, "{answer:#?}");
    }
    let with_comments = ["-- a; comment\nSELECT 7 AS n; -- done", "/* ; */ SELECT 8 AS n;"];
    for (query, n) in with_comments.into_iter().zip(7..) {
        assert_eq!(sandbox.json(["sql", query]), (0, json!([{"n": n}])), "{query}");
        let csv = sql_from(&sandbox, &["--csv", "-"], query).assert_code(0);
        assert_eq!(csv.out.replace("\r\n", "\n"), format!("n\n{n}\n"), "{query}");
    }
    let two = sandbox.cli(["sql", "--csv", "SELECT 1; SELECT 2"]).assert_code(2);
    two.assert_complains(&["2 statements", "try:"]);
    // The second one is not even compiled before the first was answered.
    let second = sandbox.cli(["sql", "SELECT 1; DELETE FROM events"]).assert_code(2);
    assert!(second.out.contains('1') && second.err.contains("would write"), "{second:#?}");
    let events = sandbox.number("SELECT count(*) FROM events");
    assert!(events > 0);
    sandbox.cli(["sql", "--file", "nowhere.sql"]).assert_code(2).assert_complains(&["nowhere.sql"]);
    sql_from(&sandbox, &["-"], "").assert_code(2);
}

/// Symptom: whatever was wrong, "use one SELECT" was the advice; a place counted from the
/// statement, and what had been answered before was not told.
#[test]
fn wrong_sql_is_told_with_its_place_and_what_helps() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    for (query, words) in [
        ("SELECT 1,\n  FROM gateways", ["at line 2, column 3", "check the SQL there"]),
        ("SELECT datum(1)", ["no such function: datum", "pragma_function_list"]),
        (".tables", ["only the program sqlite3", "sqlite3 -readonly \"$(incumbent"]),
        (".schema instances", ["only the program sqlite3", "sqlite_schema"]),
        ("WITH x AS (SELECT 1 AS a) SELECT b FROM x", ["no such column: b", "the query itself"]),
        ("DELETE FROM events", ["would write", "use one SELECT"]),
    ] {
        sandbox.cli(["sql", query]).assert_code(2).assert_complains(&words);
    }
    let text = "-- one\nSELECT 7 AS seven;\n\n-- two\nSELECT nine FORM x;\nSELECT 8 AS eight;\n";
    let told = sql_from(&sandbox, &["-"], text).assert_code(2);
    assert!(told.out.contains("seven") && !told.out.contains("eight"), "{told:#?}");
    told.assert_complains(&["near \"x\"", "at line 5, column 18"]);
}

/// A name that is wrong is answered by those that there are.
#[test]
fn an_unknown_name_is_answered_by_the_known_ones() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let hint = |query: &str| {
        let (code, document) = sandbox.json(["sql", query]);
        assert_eq!(code, 2, "{document:#}");
        document["error"]["hint"].as_str().unwrap().to_owned()
    };
    let tables = hint("SELECT * FROM gateway");
    for name in ["gateways", "incarnations", "lock_holders", "events", "instances"] {
        assert!(tables.contains(name), "no {name} in {tables}");
    }
    let columns = hint("SELECT reason FROM incarnations");
    assert!(columns.contains("incarnations has ") && columns.contains("end_reason"), "{columns}");
    assert!(!columns.contains("nonce_hash"), "of the table that is asked: {columns}");
    let of_two = hint("SELECT s.missing FROM starts AS s JOIN conflicts AS c USING (profile)");
    assert!(of_two.contains("starts has ") && of_two.contains("conflicts has "), "{of_two}");
}
