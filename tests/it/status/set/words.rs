//! What is said comes back: times, JSON, long messages, writers.

use std::time::Duration;

use incumbent::status::{Field, PlatformUpdate};
use incumbent::{StatusUpdate, Store};
use serde_json::{Value, json};

use super::{TOKEN, claimed, report_of, with_clock, write_for};
use crate::support::{LIMIT, Process, Sandbox, WALL_MS, tenure_of, unix_ms};

/// A counter that went wrong is no number of agents.
#[test]
fn fewer_than_no_agents_are_none() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &["--profile", "default"]);
    write_for(&sandbox, script.pid(), &["--state", "running", "--active-agents", "2"]);
    assert_eq!(sandbox.status().1["busy"], true);
    for count in ["-1", "-5", "-9223372036854775808", "0"] {
        write_for(&sandbox, script.pid(), &["--active-agents", count]);
        let status = sandbox.status().1;
        assert_eq!(status["runtime"]["active_agents"], 0, "{count}: {status:#}");
        assert_eq!((&status["busy"], &status["drainable"]), (&json!(false), &json!(true)));
    }
    write_for(&sandbox, script.pid(), &["--active-agents", "9223372036854775807"]);
    let status = sandbox.status().1;
    assert_eq!(status["runtime"]["active_agents"], i64::MAX, "{status:#}");
}

#[test]
fn a_time_is_understood_in_every_form() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let since = |word: &str| {
        write_for(&sandbox, script.pid(), &["--platform", "p", "--retrying-since", word]);
        sandbox.status().1["platforms"]["p"]["retrying_since"].as_str().unwrap().to_owned()
    };
    for (word, shown) in [
        ("0", "1970-01-01T00:00:00.000Z"),
        ("1795305600", "2026-11-22T00:00:00.000Z"),
        ("1795305600.25", "2026-11-22T00:00:00.250Z"),
        ("1795305600123", "2026-11-22T00:00:00.123Z"),
        ("2026-11-22T00:00:00Z", "2026-11-22T00:00:00.000Z"),
        ("2026-11-22T00:00:00.5Z", "2026-11-22T00:00:00.500Z"),
        ("2026-11-22T05:30:00+05:30", "2026-11-22T00:00:00.000Z"),
        ("2026-11-21T20:00:00-04:00", "2026-11-22T00:00:00.000Z"),
    ] {
        assert_eq!(since(word), shown, "{word}");
    }
    let before = unix_ms();
    let now = since("now");
    let after = unix_ms();
    let row = sandbox.number("SELECT retrying_since_at_ms FROM platform_status");
    assert!((before..=after).contains(&row), "{before} {now} {after}");
}

/// JSON of the caller's own comes back as it was, up to 64 KiB of it, of the gateway and of each
/// platform.
#[test]
fn extra_json_comes_back_as_it_was_said() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let largest = format!("\"{}\"", "x".repeat(64 * 1_024 - 2));
    assert_eq!(largest.len(), 65_536);
    for extra in [
        "{}",
        "[]",
        "null",
        "true",
        "-1.5",
        "18446744073709551615",
        "\"\\u0000 \\u001b[31m \\ud83d\\ude00 \u{fc}\"",
        r#"{"b": 1, "a": {"nested": [null, false, "x"]}, "": 0}"#,
        &largest,
    ] {
        let expected: Value = serde_json::from_str(extra).unwrap();
        let options =
            ["--extra", extra, "--platform", "p", "--platform-extra", extra, "--exit-reason", "e"];
        write_for(&sandbox, script.pid(), &options);
        let status = sandbox.status().1;
        let head: String = extra.chars().take(40).collect();
        assert!(status["runtime"]["extra"] == expected, "{head}");
        assert!(status["platforms"]["p"]["extra"] == expected, "{head}");
        assert_eq!(status["runtime"]["damaged"], json!([]), "{head}");
        assert_eq!(sandbox.cli(["status"]).code(), 0, "{head}");
    }
}

/// FIELD-BUGS row 87. Symptom: a status with the bot's token in it was pasted into a public issue:
/// libraries like to repeat the URL in an error. A text is bounded as well: the write matters more
/// than the end of a stack trace.
#[test]
fn long_messages_are_cut_and_tokens_are_taken_out() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let message = format!("GET https://api.example.org/bot{TOKEN}/getMe: 401 Unauthorized");
    let options = [
        "--exit-reason",
        &message,
        "--platform",
        "p",
        "--error-message",
        &message,
        "--error-code",
        "http_401",
    ];
    write_for(&sandbox, script.pid(), &options);
    let status = sandbox.status().1;
    for shown in [&status["runtime"]["exit_reason"], &status["platforms"]["p"]["error_message"]] {
        let shown = shown.as_str().unwrap();
        assert!(shown.contains("getMe: 401 Unauthorized"), "{shown}");
        assert!(shown.contains("https://api.example.org/"), "{shown}");
    }
    let password = "cannot reach postgres://bot:hunter2swordfish@db.example.org/main";
    write_for(&sandbox, script.pid(), &["--platform", "q", "--error-message", password]);
    let secret = TOKEN.split(':').nth(1).unwrap();
    for verb in [
        &["status"][..],
        &["--json", "status"],
        &["status", "--all"],
        &["status", "--metrics"],
        &["events"],
        &["--json", "events"],
        &["sql", "SELECT * FROM runtime_status"],
        &["sql", "SELECT * FROM platform_status"],
        &["sql", "SELECT * FROM events"],
    ] {
        let said = sandbox.cli(verb).assert_code(0);
        for secret in [secret, "hunter2swordfish"] {
            assert!(
                !said.out.contains(secret) && !said.err.contains(secret),
                "{verb:?}: {said:#?}"
            );
        }
    }

    for character in ["x", "\u{fc}", "\u{1f600}", "line\n"] {
        let long = character.repeat(20_000 / character.len());
        let options = ["--exit-reason", &long, "--platform", "p", "--error-message", &long];
        write_for(&sandbox, script.pid(), &options);
        let status = sandbox.status().1;
        for shown in [&status["runtime"]["exit_reason"], &status["platforms"]["p"]["error_message"]]
        {
            let shown = shown.as_str().unwrap();
            assert!(shown.len() <= 4_096 && shown.len() > 4_000, "{character:?}: {}", shown.len());
            assert!(shown.ends_with('\u{2026}'), "{character:?}: {shown}");
            assert!(long.starts_with(shown.trim_end_matches('\u{2026}')), "{character:?}");
        }
    }
    // A text may be empty, and have several lines: it is shown as one.
    for text in ["one\ntwo", "", "-bash: bot: command not found", "- a list"] {
        let options = [
            "--exit-reason",
            text,
            "--platform",
            "p",
            "--error-message",
            text,
            "--error-code",
            "E",
        ];
        write_for(&sandbox, script.pid(), &options);
        let status = sandbox.status().1;
        assert_eq!(status["runtime"]["exit_reason"], text, "{status:#}");
        assert_eq!(status["platforms"]["p"]["error_message"], text, "{status:#}");
    }
}

/// Who said so: by process, or by the name that a wrapper gives.
#[test]
fn writers_are_named() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let update = StatusUpdate::new().state("a").platform(PlatformUpdate::new("p").state("up"));
    tenure.update_status(&update).unwrap();
    let said = report_of(&store);
    let here = std::process::id();
    let runtime = said.runtime.unwrap();
    for (writer, pid) in [
        (runtime.writer.unwrap(), runtime.writer_pid),
        (said.platforms[0].writer.clone().unwrap(), said.platforms[0].writer_pid),
    ] {
        assert!(writer.starts_with(&format!("pid {here} (")), "{writer}");
        assert_eq!(pid, Some(here));
    }
    // Only the rows that are written name the new writer.
    tenure.update_status(&StatusUpdate::new().state("b").by("the scheduler")).unwrap();
    let said = report_of(&store);
    assert_eq!(said.runtime.unwrap().writer.as_deref(), Some("the scheduler"));
    assert!(said.platforms[0].writer.as_ref().unwrap().starts_with(&format!("pid {here} (")));
    tenure.release().unwrap();

    let script = claimed(&sandbox, &[]);
    let set = Process::start(sandbox.incumbent([
        "status-set",
        "--pid",
        &script.pid().to_string(),
        "--platform",
        "p",
        "--error-code",
        "E",
    ]));
    let pid = set.pid();
    set.finish(LIMIT).assert_code(0);
    let said = sandbox.status().1["platforms"]["p"].clone();
    assert_eq!(said["writer_pid"], pid, "{said:#}");
    let writer = said["writer"].as_str().unwrap();
    assert!(writer.starts_with(&format!("incumbent status-set (pid {pid}")), "{writer}");
    assert_eq!(sandbox.status().1["runtime"], json!(null), "only a platform was spoken of");
}

/// A state that is said again is as old as it was; the row is as young as its last write.
#[test]
fn a_state_is_as_old_as_its_last_change() {
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let tenure = tenure_of(&store, "default");
    let say = |update: StatusUpdate| {
        clock.advance(Duration::from_secs(1));
        tenure.update_status(&update).unwrap();
        let said = report_of(&store);
        let after = |at_ms: Option<i64>| at_ms.map(|ms| (ms - WALL_MS) / 1_000);
        let runtime = said.runtime.unwrap_or_default();
        let platform = said.platforms.first().cloned().unwrap_or_default();
        (
            [after(runtime.state_since_ms), after(runtime.updated_at_ms)],
            [after(platform.state_since_ms), after(platform.updated_at_ms)],
        )
    };
    let state = |word: &str| StatusUpdate::new().state(word);
    let platform = |word: &str| StatusUpdate::new().platform(PlatformUpdate::new("p").state(word));
    assert_eq!(say(state("running")), ([Some(1), Some(1)], [None, None]));
    assert_eq!(say(state("running")), ([Some(1), Some(2)], [None, None]));
    assert_eq!(say(StatusUpdate::new().active_agents(1)), ([Some(1), Some(3)], [None, None]));
    assert_eq!(say(platform("up")), ([Some(1), Some(3)], [Some(4), Some(4)]));
    assert_eq!(say(platform("up")), ([Some(1), Some(3)], [Some(4), Some(5)]));
    let error = StatusUpdate::new().platform(PlatformUpdate::new("p").error_code("E"));
    assert_eq!(say(error), ([Some(1), Some(3)], [Some(4), Some(6)]));
    assert_eq!(say(state("draining")), ([Some(7), Some(7)], [Some(4), Some(6)]));
    assert_eq!(say(state("running")), ([Some(8), Some(8)], [Some(4), Some(6)]));
    let cleared = StatusUpdate::new().state(Field::Clear);
    assert_eq!(say(cleared.clone()), ([None, Some(9)], [Some(4), Some(6)]));
    assert_eq!(say(cleared), ([None, Some(10)], [Some(4), Some(6)]));
    assert_eq!(say(platform("down")), ([None, Some(10)], [Some(11), Some(11)]));
    tenure.release().unwrap();
}
