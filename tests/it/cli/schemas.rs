//! Every document that a verb prints is as `docs/schema/` says: with its format, with every field
//! that is promised, and with none that is not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::every_verb;
use crate::support::{LIMIT, Process, Sandbox, eventually, sleeper};

/// What these print is for a shell, and for a reader of manuals.
const WITHOUT_DOCUMENT: [&str; 3] = ["completions", "man", "help"];

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")
}

fn schema(name: &str) -> Value {
    let path = place().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap()
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{kind} is no type of JSON"),
    }
}

/// What is wrong with `value`. Stricter than the schema: a field that it does not name is wrong.
fn wrong_with(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(forms) = schema["anyOf"].as_array() {
        let all: Vec<_> = forms.iter().map(|form| wrong_with(form, value, at)).collect();
        if all.iter().all(|wrong| !wrong.is_empty()) {
            wrong.push(format!("{at}: none of its forms fits: {all:#?}"));
        }
        return wrong;
    }
    if schema.get("const").is_some_and(|only| only != value) {
        wrong.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong.push(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    let fits = match &schema["type"] {
        Value::String(kind) => is_of(kind, value),
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind.as_str().unwrap(), value)),
        _ => true,
    };
    if !fits {
        wrong.push(format!("{at}: {value} is not of the type {}", schema["type"]));
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, field) in fields {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(of_field), _) | (None, Some(of_field)) => {
                    wrong.extend(wrong_with(of_field, field, &at));
                }
                // Somebody else's.
                (None, None) if schema.get("properties").is_none() => {}
                (None, None) => wrong.push(format!("{at}: no schema names it")),
            }
        }
    }
    if let (Some(elements), Some(of_element)) = (value.as_array(), schema.get("items")) {
        for (nth, element) in elements.iter().enumerate() {
            wrong.extend(wrong_with(of_element, element, &format!("{at}[{nth}]")));
        }
    }
    wrong
}

/// The verbs, held against their schemas.
struct Held<'a> {
    sandbox: &'a Sandbox,
    seen: BTreeSet<String>,
}

impl Held<'_> {
    #[track_caller]
    fn check(&mut self, name: &str, said: &str, what: &str) {
        let document: Value = serde_json::from_str(said)
            .unwrap_or_else(|error| panic!("{what}: not one JSON document: {error}: {said}"));
        let wrong = wrong_with(&schema(name), &document, name);
        assert!(wrong.is_empty(), "{what}: {wrong:#?}: {document:#}");
        self.seen.insert(name.to_owned());
    }

    /// `words`, of which the first `of_name` are the verb's name.
    #[track_caller]
    fn says(&mut self, code: i32, of_name: usize, words: &[&str]) {
        let name = words[..of_name].join("-");
        let mut command = self.sandbox.incumbent(["--json"]);
        command.args(words);
        let answer = Process::start(command).finish(LIMIT);
        assert_eq!(answer.code(), code, "{words:?}: {answer:#?}");
        self.check(&name, &answer.out, &format!("{words:?}"));
    }

    #[track_caller]
    fn fails(&mut self, code: i32, words: &[&str]) {
        let mut command = self.sandbox.incumbent(["--json"]);
        command.args(words);
        let answer = Process::start(command).finish(LIMIT).assert_code(code);
        self.check("error", &answer.out, &format!("{words:?}"));
    }

    /// What `script`, which ends with `code`, has written to `said.json`.
    #[track_caller]
    fn writes(&mut self, code: i32, name: &str, script: &str) -> Value {
        let said = self.sandbox.file("said.json");
        let _ = std::fs::remove_file(&said);
        Process::start(self.sandbox.shell(script)).finish(LIMIT).assert_code(code);
        let text = eventually("a document", LIMIT, || {
            let text = std::fs::read_to_string(&said).ok()?;
            serde_json::from_str::<Value>(&text).ok().map(|_| text)
        });
        self.check(name, &text, script);
        serde_json::from_str(&text).unwrap()
    }

    /// What a doctor finds hangs on the machine.
    #[track_caller]
    fn examines(&mut self, words: &[&str]) {
        let mut command = self.sandbox.incumbent(["--json", "doctor"]);
        command.args(words);
        let answer = Process::start(command).finish(LIMIT);
        assert!(matches!(answer.code(), 0 | 1), "{answer:#?}");
        self.check("doctor", &answer.out, &format!("doctor {words:?}"));
    }
}

/// Where there is no store yet.
fn of_nobody(held: &mut Held<'_>) {
    held.says(0, 1, &["path"]);
    held.says(3, 1, &["status"]);
    held.says(0, 1, &["status", "--all"]);
    held.says(0, 1, &["locks"]);
    held.says(3, 1, &["locks", "token", "a"]);
    held.says(0, 1, &["history"]);
    held.says(0, 1, &["events"]);
    held.says(0, 1, &["desired"]);
    held.says(1, 1, &["wait", "--timeout", "0"]);
    held.says(1, 2, &["marker", "peek", "--pid", "1"]);
    held.says(0, 1, &["unit", "systemd", "--", "true"]);
    held.says(4, 2, &["forensics", "systemd", "--unit", "incumbent-it.service"]);
    held.examines(&[]);
    held.fails(2, &["sql", "SELECT 1"]);
    held.fails(2, &["backup", "copy.db"]);
    held.fails(2, &["nonsense"]);
    held.fails(3, &["status", "--pid", "1"]);
    std::fs::write(held.sandbox.file("list.txt"), "not a store\n").unwrap();
    held.fails(78, &["--db", "list.txt", "status"]);
}

/// With a limit on the size of a file, which stands for a disk that is full.
fn of_what_cannot_be_written(held: &mut Held<'_>) {
    const FULL: &str = "ulimit -f 1; incumbent --json";
    let run = held.sandbox.hold(&[]);
    let answer = "2> /dev/null | cat > said.json; exit ${PIPESTATUS[0]}";
    held.writes(70, "error", &format!("bash -c '{FULL} restart {answer}'"));
    let all = held.writes(70, "restart", &format!("bash -c '{FULL} restart --all {answer}'"));
    assert_eq!(all[0]["error"]["kind"], "cannot_write", "{all:#}");
    run.end().assert_code(0);
}

/// What a program reads that is told of an end.
fn of_an_end(held: &mut Held<'_>) {
    let run = "incumbent run --no-backoff --on-end 'cat > said.new; mv said.new said.json'";
    for (code, options, command) in
        [(0, "", "true"), (7, "--keep-stderr", "sh -c 'echo why >&2; exit 7'")]
    {
        held.writes(code, "on-end", &format!("{run} {options} -- {command}"));
    }
}

/// A script that is on record, with all that it can say and hold.
fn of_a_script(held: &mut Held<'_>, pid: &str, other: &str) {
    held.says(0, 1, &["claim", "--pid", pid]);
    held.says(0, 1, &["claim", "--pid", pid]);
    held.says(75, 1, &["claim", "--pid", other]);
    let set = ["status-set", "--pid", pid, "--state", "running", "--heartbeat=1h", "--extra", "{}"];
    let platform = ["--platform", "p", "--platform-state", "fatal", "--error-code", "401"];
    held.says(0, 1, &[&set[..], &platform, &["--serves", "blue"]].concat());
    held.says(0, 1, &["status"]);
    held.says(0, 1, &["status", "--profile", "blue"]);
    held.says(0, 1, &["status", "--pid", pid]);
    let acquire = ["lock", "acquire", "token", "a", "--ttl", "1h", "--metadata", "{}", "--pid"];
    held.says(0, 2, &[&acquire[..], &[pid]].concat());
    held.says(0, 2, &[&acquire[..], &[pid]].concat());
    held.says(75, 2, &[&acquire[..], &[other]].concat());
    held.says(0, 2, &["lock", "verify", "token", "a", "--pid", pid]);
    held.says(1, 2, &["lock", "verify", "token", "a", "--pid", other]);
    held.says(0, 2, &["lock", "renew", "token", "a", "--pid", pid]);
    held.says(0, 1, &["locks"]);
    held.says(0, 1, &["locks", "token", "a"]);
    held.says(75, 1, &["unlock", "token", "a"]);
    held.says(0, 1, &["unlock", "token", "a", "--force"]);
    held.says(0, 1, &["unlock", "--stale"]);
    held.says(0, 2, &[&acquire[..], &[pid]].concat());
    held.says(0, 2, &["lock", "release", "token", "a", "--pid", pid]);
    held.says(0, 2, &["lock", "release", "--all", "--pid", pid]);
    held.says(0, 2, &["marker", "write", "word", "--pid", pid, "--reason", "why"]);
    held.says(0, 2, &["marker", "peek", "word", "--pid", pid]);
    held.says(0, 1, &["status"]);
    held.says(0, 2, &["marker", "consume", "word", "--pid", pid]);
    held.says(1, 2, &["marker", "clear", "word", "--pid", pid]);
    held.says(0, 2, &["forensics", "snapshot", "--signal", "TERM"]);
    let diagnose = ["forensics", "diagnose", "--log", "log", "--timeout", "1s", "--pid", pid];
    held.says(0, 2, &diagnose);
    held.says(0, 1, &["export", "exported"]);
    let old = held.sandbox.file("old");
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("gateway.pid"), "{\"pid\": 1}").unwrap();
    held.says(0, 1, &["import", "old", "--profile", "red"]);
    held.says(75, 1, &["evict"]);
    held.says(0, 1, &["release", "--pid", pid]);
    held.says(1, 1, &["release", "--pid", pid]);
    held.says(0, 1, &["evict"]);
}

/// A `run` that others want as well.
fn of_a_run(held: &mut Held<'_>) {
    let run = held.sandbox.hold(&["--lock", "telegram-bot-token=123:abc"]);
    held.says(75, 1, &["run", "--no-backoff", "--", "true"]);
    let waiter = ["run", "--no-backoff", "--wait", "--", "true"];
    let mut waiter = Process::start(held.sandbox.incumbent(waiter));
    let waiting = "SELECT count(*) FROM waiters";
    eventually("it waits", LIMIT, || (held.sandbox.number(waiting) == 1).then_some(()));
    held.says(0, 1, &["status"]);
    held.says(0, 1, &["status", "--all"]);
    held.says(0, 1, &["locks"]);
    held.says(0, 1, &["wait", "--timeout", "0"]);
    held.says(0, 1, &["desired", "running"]);
    held.says(0, 1, &["signal", "WINCH"]);
    held.says(0, 1, &["restart"]);
    held.says(0, 1, &["restart", "--all"]);
    waiter.kill();
    held.says(0, 1, &["stop"]);
    drop(run);
    held.says(3, 1, &["status"]);
    held.says(3, 1, &["restart"]);
    held.says(3, 1, &["signal", "HUP"]);
    let second = held.sandbox.hold(&[]);
    held.says(0, 1, &["stop", "--all"]);
    drop(second);
}

/// Symptom: a program that had been written against one version broke with the next one, and
/// nobody had noticed that a field had gone. It holds because every document is held against a
/// file that a change of it has to change as well.
#[test]
fn every_document_is_as_its_schema_says() {
    let sandbox = Sandbox::new();
    let mut held = Held { sandbox: &sandbox, seen: BTreeSet::new() };
    of_nobody(&mut held);
    let (script, other) = (sleeper(&sandbox), sleeper(&sandbox));
    of_a_script(&mut held, &script.pid().to_string(), &other.pid().to_string());
    of_a_run(&mut held);
    of_what_cannot_be_written(&mut held);
    of_an_end(&mut held);
    held.says(0, 1, &["history"]);
    held.says(0, 1, &["history", "--all", "--since", "1h", "--limit", "3"]);
    held.says(0, 1, &["events", "--event", "office_claimed"]);
    let mut follower = Process::start(sandbox.incumbent(["--json", "events", "--follow"]));
    let line = follower.line();
    held.check("events", &line, "events --follow");
    held.says(0, 1, &["sql", "SELECT 1 AS a, 1.5 AS b, 'c' AS c, NULL AS d, x'00' AS e"]);
    held.says(0, 1, &["backup", "copy.db"]);
    held.examines(&[]);
    held.examines(&["--fix", "--dry-run"]);

    let verbs: Vec<String> = every_verb(&sandbox).iter().map(|words| words.join("-")).collect();
    let is_leaf = |verb: &&String| {
        let below = format!("{verb}-");
        let has_below = verbs.iter().any(|other| {
            // `status-set` is no verb of `status`.
            other.starts_with(&below) && ["lock", "marker", "forensics"].contains(&verb.as_str())
        });
        !verb.is_empty() && !has_below
    };
    for verb in verbs.iter().filter(is_leaf) {
        let is_known = held.seen.contains(verb) || WITHOUT_DOCUMENT.contains(&verb.as_str());
        assert!(is_known, "no document of {verb} was held against a schema");
    }
    for entry in std::fs::read_dir(place()).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(held.seen.contains(&name), "docs/schema/{name}.json is the schema of nothing");
    }
}

/// The test itself: what is wrong is found.
#[test]
fn a_document_that_does_not_fit_is_found() {
    let schema = schema("desired");
    for (document, complaint) in [
        (r#"{"format": 1, "profile": "work", "desired": null}"#, None),
        (r#"{"format": 2, "profile": "work", "desired": null}"#, Some("format")),
        (r#"{"profile": "work", "desired": null}"#, Some("missing")),
        (r#"{"format": 1, "profile": 7, "desired": null}"#, Some("type")),
        (r#"{"format": 1, "profile": "work", "desired": "soon"}"#, Some("none of")),
        (r#"{"format": 1, "profile": "work", "desired": null, "new": 1}"#, Some("no schema")),
        ("[]", Some("type")),
    ] {
        let wrong = wrong_with(&schema, &serde_json::from_str(document).unwrap(), "desired");
        match complaint {
            None => assert_eq!(wrong, [""; 0], "{document}"),
            Some(words) => assert!(wrong.iter().any(|it| it.contains(words)), "{wrong:?}"),
        }
    }
}
