//! Every surface gives the same answer, and none writes.

use incumbent::Store;
use serde_json::{Value, json};

use super::set::{obeying, say};
use super::truth::metric;
use super::{AT_WORK, SURFACES, row_of_the_table, shown_by};
use crate::status::set::damage::damage;
use crate::support::{LIMIT, Sandbox};

/// FIELD-BUGS rows 38, 39 and 63. Whoever asks changes nothing, whatever there is to be said.
#[test]
fn questions_write_nothing() {
    let sandbox = Sandbox::new();
    sandbox.sick("it damages the store");
    for verb in SURFACES {
        let code = sandbox.cli(verb).code();
        assert_eq!(
            code,
            if verb.contains(&"--all") || verb.contains(&"--metrics") { 0 } else { 3 },
            "{verb:?}"
        );
    }
    assert!(!sandbox.file("store").exists(), "a question made a store");

    let mut run = obeying(&sandbox, &["--lock", "scope=1"]);
    say(&sandbox, &mut run, AT_WORK);
    sandbox.cli(["desired", "running"]).assert_code(0);
    let ask_all = || {
        for verb in SURFACES {
            sandbox.cli(verb);
        }
        for verb in [&["events"][..], &["--json", "events"], &["status", "--profile", "other"]] {
            sandbox.cli(verb);
        }
        let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
        store.status_of_all().unwrap();
        store.profile("default").unwrap().status().unwrap();
    };
    let rows = || {
        ["instances", "runtime_status", "platform_status", "serves", "events", "scoped_locks"]
            .map(|table| sandbox.json(["sql", &format!("SELECT * FROM {table}")]).1)
    };
    let before = rows();
    ask_all();
    assert_eq!(before, rows(), "with a live one");
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    damage(&sandbox, "UPDATE runtime_status SET state = CAST(x'ff' AS TEXT), active_agents = -1");
    // Our own connection was the last one, and took SQLite's log away with it: the next one to come
    // makes it anew, whatever it came for.
    sandbox.status();
    let before = sandbox.picture();
    ask_all();
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a question wrote to {}", path.display());
    }
}

/// What the clock and the machine say anew with each look.
fn without_what_moves(mut document: Value) -> Value {
    for key in ["evidence", "unresponsive_ms"] {
        document[key] = Value::Null;
    }
    document
}

/// FIELD-BUGS row 63.
///
/// Symptom: four surfaces, four answers. Cause: each had a probe of its own. It holds because one
/// function answers for all of them: what is true, what was said, what is wanted, what is held,
/// what was asked, and how the last one ended.
#[test]
fn every_surface_gives_the_same_answer() {
    let sandbox = Sandbox::new();
    obeying(&sandbox, &[]).process.finish(LIMIT).assert_code(0);
    let first = sandbox.history()[0].clone();
    let mut run = obeying(&sandbox, &["--lock", "scope=1", "--lock", "scope=2"]);
    say(&sandbox, &mut run, AT_WORK);
    say(&sandbox, &mut run, &["--extra", r#"{"a": 1}"#, "--exit-reason", "none yet"]);
    sandbox.cli(["desired", "stopped"]).assert_code(0);
    let pid = run.pid().to_string();
    sandbox.cli(["marker", "write", "note", "--pid", &pid, "--reason", "why"]).assert_code(0);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    for (pointer, value) in [
        ("/running", json!(true)),
        ("/pid", json!(run.pid())),
        ("/child_pid", json!(run.command.pid)),
        ("/state", json!("running")),
        ("/desired", json!("stopped")),
        ("/busy", json!(true)),
        ("/drainable", json!(true)),
        ("/stale", json!(false)),
        ("/unresponsive_ms", json!(null)),
        ("/serves", json!(["other"])),
        ("/served_by", json!(null)),
        ("/runtime/state", json!("running")),
        ("/runtime/active_agents", json!(3)),
        ("/runtime/extra", json!({"a": 1})),
        ("/runtime/exit_reason", json!("none yet")),
        ("/platforms/telegram/state", json!("connected")),
        ("/locks/0/scope", json!("scope")),
        ("/locks/1/scope", json!("scope")),
        ("/markers/0/name", json!("note")),
        ("/markers/0/reason", json!("why")),
        ("/last_end/reason", json!("exited")),
        ("/last_end/at", first["ended_at"].clone()),
        ("/evidence/anchor", json!("held")),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value), "{pointer}: {status:#}");
    }
    let text = shown_by(&sandbox, &["status"]);
    for words in [
        "running, ",
        "3 agents at work",
        "telegram",
        "connected",
        "lock ",
        "asked ",
        "note by ",
        "desired ",
        "stopped",
        "last end ",
        "ended: exit code 0",
        "other",
        "none yet",
    ] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    assert_same_everywhere(&sandbox, "alive");
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    assert_same_everywhere(&sandbox, "dead");
    sandbox.cli(["evict"]).assert_code(0);
    assert_same_everywhere(&sandbox, "ended");
    let status = sandbox.status().1;
    assert_eq!(status["desired"], "stopped", "{status:#}");
    assert_eq!(status["last_end"]["reason"], status["reason"], "{status:#}");
}

#[track_caller]
fn assert_same_everywhere(sandbox: &Sandbox, when: &str) {
    let expected = without_what_moves(sandbox.status().1);
    let of_default = |documents: Vec<Value>| {
        let found = documents.into_iter().find(|document| document["profile"] == "default");
        without_what_moves(found.unwrap())
    };
    let (_, all) = sandbox.json(["status", "--all"]);
    assert_eq!(of_default(all.as_array().unwrap().clone()), expected, "{when}: --all");
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    let profile = store.profile("default").unwrap();
    let report = profile.status().unwrap();
    assert_eq!(without_what_moves(json!(report)), expected, "{when}: the library");
    let all = json!(store.status_of_all().unwrap());
    assert_eq!(of_default(all.as_array().unwrap().clone()), expected, "{when}: the library, all");
    let running = profile.running_pid(&incumbent::Kind::default()).unwrap();
    assert_eq!(running, report.pid.filter(|_| report.running), "{when}");
    let up = if report.running { 1.0 } else { 0.0 };
    for surface in [&["status", "--metrics"][..], &["status", "--all", "--metrics"]] {
        let metrics = shown_by(sandbox, surface);
        assert_eq!(metric(&metrics, "incumbent_gateway_up", ""), Some(up), "{when}: {metrics}");
        let verdict = format!(",verdict=\"{}\"", report.verdict);
        assert_eq!(metric(&metrics, "incumbent_gateway_verdict", &verdict), Some(1.0), "{when}");
    }
    let text = shown_by(sandbox, &["status"]);
    let word = if report.running { "running" } else { "not running" };
    assert!(text.starts_with(&format!("default/gateway: {word}")), "{when}: {text}");
    let row = row_of_the_table(&shown_by(sandbox, &["status", "--all"]));
    let word = if report.running { "yes" } else { "no" };
    assert_eq!(row.split_whitespace().nth(2), Some(word), "{when}: {row}");
}
