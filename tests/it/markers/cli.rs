//! The `marker` verbs.

use incumbent::marker::MarkerRequest;
use serde_json::{Value, json};

use super::{FIELDS, boot_ms, word};
use crate::support::{
    LIMIT, Sandbox, assert_time, assert_untouched, eventually, fingerprint, keys, sleeper,
};

/// FIELD-BUGS row 53: probe and consumption were one (a watcher took the marker that the handler
/// needed), or the probe fired on a file's existence. Here a probe changes nothing, byte for byte,
/// and a consumption is one statement.
#[test]
fn a_marker_is_looked_at_at_will_and_consumed_once() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    let run = sandbox.hold(&[]);
    let script = sandbox.stranger();
    sandbox.cli(["claim", "--profile", "other", "--pid", &script.pid().to_string()]).assert_code(0);
    for (pid, is_on_record) in [(pid, false), (run.pid(), true), (script.pid(), true)] {
        let written = sandbox.leave(pid, &["note", "--reason", "mind the gap"]);
        assert_eq!(written["written"], true, "{written:#}");
        for field in FIELDS {
            assert!(keys(&written).contains(&field), "no {field}: {written:#}");
        }
        assert_eq!(written["name"], "note", "{written:#}");
        assert_eq!(written["pid"], pid, "{written:#}");
        assert_eq!(written["instance"].is_i64(), is_on_record, "{written:#}");
        assert_eq!(written["reason"], "mind the gap", "{written:#}");
        assert_eq!(written["by_uid"], rustix::process::geteuid().as_raw(), "{written:#}");
        let by = written["by"].as_str().unwrap();
        let by_pid = written["by_pid"].as_i64().unwrap();
        assert!(by.starts_with(&format!("incumbent marker write (pid {by_pid}, uid ")), "{by}");
        assert_time(&written["written_at"]);
        assert_time(&written["expires_at"]);

        let before = fingerprint(&sandbox.file("store"));
        let mut seen = Vec::new();
        for words in [&["peek"][..], &["peek", "note"], &["peek"]] {
            let (code, peeked) = sandbox.marker(pid, words);
            assert_eq!(code, 0, "{peeked:#}");
            assert_eq!(keys(&peeked), [&["found"], &FIELDS[..]].concat(), "{peeked:#}");
            seen.push(peeked);
        }
        let as_text = sandbox.cli(["marker", "peek", "--pid", &pid.to_string()]).assert_code(0);
        let (what, rest) = as_text.out.split_once(", ").unwrap();
        assert_eq!(what, format!("note by {}", by.split_once(',').unwrap().0), "{as_text:#?}");
        assert!(rest.ends_with(" ago: mind the gap\n"), "{as_text:#?}");
        assert_eq!(as_text.err, "");
        assert_eq!(sandbox.marker(pid, &["peek", "word"]), (1, json!({"found": false})));
        assert_untouched(&before, &sandbox.file("store"), "peek");
        for peeked in &seen {
            for field in FIELDS {
                assert_eq!(peeked[field], written[field], "{field}: {peeked:#}");
            }
        }
        let (code, other) = sandbox.marker(pid, &["consume", "word"]);
        let none = json!({"found": false, "consumed": false, "recorded": true});
        assert_eq!((code, &other), (1, &none));
        assert_eq!(sandbox.closed_how(&written), None);

        let (code, consumed) = sandbox.marker(pid, &["consume", "note"]);
        assert_eq!(code, 0, "{consumed:#}");
        let expected = [&["found"], &FIELDS[..], &["consumed", "recorded"]].concat();
        assert_eq!(keys(&consumed), expected, "{consumed:#}");
        assert_eq!((&consumed["consumed"], &consumed["recorded"]), (&json!(true), &json!(true)));
        assert_eq!(consumed["id"], written["id"], "{consumed:#}");
        for words in [&["consume"][..], &["consume", "note"]] {
            assert_eq!(sandbox.marker(pid, words), (1, none.clone()), "{words:?}");
        }
        assert_eq!(sandbox.peek(pid), None);
        let gone = sandbox.cli(["marker", "peek", "--pid", &pid.to_string()]).assert_code(1);
        assert_eq!((gone.out.as_str(), gone.err.as_str()), ("", ""));
        // What was said stays on record, with who took notice of it.
        let row = sandbox.marker_rows().pop().unwrap();
        assert_eq!(row["id"], written["id"], "{row:#}");
        assert_eq!(row["closed_how"], "consumed", "{row:#}");
        assert!(row["closed_by"].as_str().unwrap().contains("pid "), "{row:#}");
        assert!(row["closed_at_ms"].is_i64() && row["reason"] == "mind the gap", "{row:#}");
    }
    let events = sandbox.json(["events"]).1;
    let about: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["event"].as_str().filter(|name| name.starts_with("marker_")))
        .collect();
    assert_eq!(about, ["marker_written", "marker_consumed"].repeat(3), "{events:#}");
}

/// FIELD-BUGS row 57: there is always one command that ends it, and it says how many it ended.
#[test]
fn what_is_cleared_stays_on_record() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    let note = sandbox.leave(pid, &["note"]);
    let other = sandbox.leave(pid, &["other"]);
    assert_eq!(sandbox.marker(pid, &["clear", "note"]), (0, json!({"cleared": 1})));
    assert_eq!(sandbox.marker(pid, &["clear", "note"]), (1, json!({"cleared": 0})));
    assert_eq!(sandbox.closed_how(&note).as_deref(), Some("cleared"));
    let row = &sandbox.marker_rows()[0];
    assert!(row["closed_by"].as_str().unwrap().starts_with("incumbent marker clear (pid "));
    assert_eq!(sandbox.closed_how(&other), None, "another name is another marker");

    // Also when nobody is left to consume it; and then it is over.
    stranger.finish(LIMIT).assert_code(0);
    let words = ["marker", "clear", "other", "--pid", &pid.to_string()];
    let cleared = sandbox.cli(words).assert_code(0);
    assert_eq!((cleared.out.as_str(), cleared.err.as_str()), ("other: cleared\n", ""));
    let again = sandbox.cli(words).assert_code(1);
    assert_eq!((again.out.as_str(), again.err.as_str()), ("other: none is open\n", ""));
}

/// The last word counts: of each name one is open for a process, and of the three requests one.
#[test]
fn a_marker_replaces_its_like_and_a_request_every_request() {
    let sandbox = Sandbox::new();
    let script = sandbox.stranger();
    let pid = script.pid();
    sandbox.cli(["claim", "--pid", &pid.to_string()]).assert_code(0);
    let note = sandbox.leave(pid, &["note", "--reason", "one"]);
    let again = sandbox.leave(pid, &["note", "--reason", "two"]);
    assert_eq!(sandbox.closed_how(&note).as_deref(), Some("replaced"));
    assert_eq!(sandbox.marker(pid, &["peek"]).1["reason"], "two");

    let requests = ["planned_stop", "restart", "takeover", "planned_stop"];
    let mut before: Option<Value> = None;
    for name in requests {
        let request = sandbox.leave(pid, &[name]);
        if let Some(before) = before {
            assert_eq!(sandbox.closed_how(&before).as_deref(), Some("replaced"), "by {name}");
        }
        assert_eq!(sandbox.closed_how(&again), None, "{name} is no note");
        // Whatever is older: a request is what a handler wants to know first.
        assert_eq!(sandbox.peek(pid).as_deref(), Some(name));
        before = Some(request);
    }
    let consume = || sandbox.marker(pid, &["consume"]).1["name"].clone();
    assert_eq!(
        [consume(), consume(), consume()],
        [json!("planned_stop"), json!("note"), json!(null)]
    );

    // For a stranger as well.
    let stranger = sandbox.stranger();
    let one = sandbox.leave(stranger.pid(), &["note"]);
    let two = sandbox.leave(stranger.pid(), &["note"]);
    assert_eq!(sandbox.closed_how(&one).as_deref(), Some("replaced"));
    assert_eq!(sandbox.closed_how(&two), None);
}

/// Requests come first whatever is older; the rest comes in the order it was written in.
#[test]
fn without_a_name_requests_come_first_and_then_the_oldest() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    for is_on_record in [false, true] {
        let process = sandbox.stranger();
        let pid = process.pid();
        if is_on_record {
            sandbox.cli(["claim", "--pid", &pid.to_string()]).assert_code(0);
        }
        for name in ["zebra", "ant", "restart", "mole"] {
            sandbox.leave(pid, &[name]);
        }
        let mut order = Vec::new();
        while let Some(name) = sandbox.peek(pid) {
            let (code, consumed) = sandbox.marker(pid, &["consume"]);
            assert_eq!((code, &consumed["name"]), (0, &json!(name)), "{consumed:#}");
            order.push(name);
        }
        assert_eq!(order, ["restart", "zebra", "ant", "mole"], "on record: {is_on_record}");
    }
}

/// Any word may be used, of those that are safe in a file name, a shell and a log.
#[test]
fn any_name_is_allowed_and_a_malformed_one_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    let longest = "x".repeat(64);
    for name in ["a", "0", "_", "a.b-c_d", "Reload.Config", "takeover-2", "takeover_", &longest] {
        assert_eq!(sandbox.leave(pid, &[name])["name"], *name);
        assert_eq!(sandbox.marker(pid, &["consume", name]).0, 0, "{name}");
    }
    let rows = sandbox.marker_rows().len();
    let too_long = "x".repeat(65);
    let bad =
        ["", " ", "a b", ".hidden", "a/b", "../x", "a\nb", "caf\u{e9}", "a'b", "%s", &too_long];
    for name in bad {
        for verb in ["write", "peek", "consume", "clear"] {
            let words = ["marker", verb, name, "--pid", &pid.to_string()];
            let refused = sandbox.cli(words).assert_code(2);
            assert_eq!(refused.out, "", "{verb} {name:?}");
            refused.assert_complains(&["invalid marker", "1 to 64 characters"]);
            let (code, refused) = sandbox.json(words);
            assert_eq!(code, 2, "{verb} {name:?}: {refused:#}");
            assert_eq!(refused["error"]["kind"], "invalid_input", "{verb} {name:?}: {refused:#}");
        }
    }
    // One that clap takes for an option.
    sandbox.cli(["marker", "write", "-x", "--pid", &pid.to_string()]).assert_code(2);
    sandbox.cli(["marker", "write", "--pid", &pid.to_string()]).assert_code(2);
    sandbox.cli(["marker", "write", "note"]).assert_code(2).assert_complains(&["--pid"]);
    for bad in ["0", "1", "-1", "abc", "4294967296", "99999999999999999999", "1.5", ""] {
        // Init is a process like any other; there is no marker for it.
        let code = if bad == "1" { 1 } else { 2 };
        sandbox.cli(["marker", "peek", "--pid", bad]).assert_code(code);
    }
    assert_eq!(sandbox.marker_rows().len(), rows);
}

/// What somebody wrote is shown to somebody else: it moves no cursor, colours no terminal and makes
/// up no second line. A program reads it as it is.
#[test]
fn a_reason_is_one_line_of_text_for_people() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    let reason = "deploy\u{1b}[2J\u{1b}[31m\r\nplanned_stop by root, 0 ms ago\u{7}\u{9b}1A";
    sandbox.leave(pid, &["note", "--reason", reason]);
    assert_eq!(sandbox.marker(pid, &["peek"]).1["reason"], reason);
    for verb in ["peek", "consume"] {
        let told = sandbox.cli(["marker", verb, "--pid", &pid.to_string()]).assert_code(0);
        let line = told.out.strip_suffix('\n').unwrap();
        assert!(!line.contains(char::is_control), "{verb}: {told:#?}");
        assert!(line.starts_with("note by ") && line.contains(": deploy"), "{verb}: {told:#?}");
    }
}

/// How long a marker lives: from a millisecond to 30 days, by the clock that does not step.
#[test]
fn a_ttl_is_a_span_from_a_millisecond_to_thirty_days() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    for (ttl, ms) in [("90", 90_000), ("1min 30s", 90_000), ("30d", 2_592_000_000_i64)] {
        let before = boot_ms();
        sandbox.leave(pid, &["note", "--ttl", ttl]);
        let after = boot_ms();
        let until = sandbox.number("SELECT max(expires_boot_ms) FROM markers WHERE name = 'note'");
        let wall = sandbox
            .number("SELECT expires_at_ms - written_at_ms FROM markers WHERE closed_at_ms IS NULL");
        assert!((before + ms..=after + ms).contains(&until), "{ttl}: {until}");
        assert_eq!(wall, ms, "{ttl}");
        assert_eq!(sandbox.peek(pid).as_deref(), Some("note"));
    }
    for (ttl, words) in [
        ("0", &["cannot live for 0 ms", "at least 1 ms, at most 30 days"][..]),
        ("1us", &["cannot live for 0 ms", "at least 1 ms"]),
        ("31d", &["cannot live for 2678400000 ms", "at most 30 days"]),
        ("584000000years", &[]),
        ("infinity", &["it must be finite"]),
        ("soon", &["\"soon\" is not a time span", "write e.g. 90s"]),
        ("", &["is not a time span"]),
        ("-5", &[]),
    ] {
        let words_of = ["marker", "write", "bad", "--pid", &pid.to_string(), "--ttl", ttl];
        let refused = sandbox.cli(words_of).assert_code(2);
        assert_eq!(refused.out, "", "{ttl}");
        refused.assert_complains(words);
        assert_eq!(sandbox.json(words_of).1["error"]["kind"], "invalid_input", "{ttl}");
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM markers WHERE name = 'bad'"), 0);

    // One that is over before anybody looks.
    let short = sandbox.leave(pid, &["short", "--ttl", "1ms"]);
    eventually("it is over", LIMIT, || {
        (sandbox.marker(pid, &["peek", "short"]).0 == 1).then_some(())
    });
    assert_eq!(sandbox.marker(pid, &["consume", "short"]).0, 1);
    sandbox.leave(pid, &["next"]);
    assert_eq!(sandbox.closed_how(&short).as_deref(), Some("expired"));
}

/// A question makes nothing; and who writes is told what there is to write to.
#[test]
fn where_there_is_no_store_there_is_no_marker() {
    let sandbox = Sandbox::new();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    assert_eq!(sandbox.marker(pid, &["peek"]), (1, json!({"found": false})));
    assert_eq!(sandbox.marker(pid, &["consume"]).0, 1);
    assert_eq!(sandbox.marker(pid, &["clear", "note"]), (1, json!({"cleared": 0})));
    assert!(!sandbox.file("store").exists(), "a question makes none");
    let gone = sandbox.stranger();
    let gone_pid = gone.pid();
    gone.finish(LIMIT).assert_code(0);
    let write = |pid: u32| sandbox.cli(["marker", "write", "note", "--pid", &pid.to_string()]);
    write(gone_pid).assert_code(3).assert_complains(&["no process with pid"]);
    assert!(!sandbox.file("store").exists(), "nor does a mistake");
    write(pid).assert_code(0);
    assert_eq!(sandbox.marker(pid, &["consume"]).0, 0);
    sandbox.forge("DELETE FROM markers");

    stranger.finish(LIMIT).assert_code(0);
    let (code, refused) = sandbox.marker(pid, &["write", "note"]);
    assert_eq!((code, &refused["error"]["kind"]), (3, &json!("not_running")), "{refused:#}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert_eq!(message, format!("there is no process with pid {pid}"));
    assert!(refused["error"]["hint"].is_string(), "{refused:#}");
    assert_eq!(sandbox.marker_rows(), [] as [Value; 0]);
}

/// Markers are few, and what became of the old ones is kept for a while only; an open one is never
/// thrown away for that.
#[test]
fn the_history_of_markers_is_bounded() {
    let sandbox = Sandbox::new();
    // A clock whose every moment is one at which the past is pruned.
    let (store, _clock) = sandbox.with_clock(1_800_000_000_000, 1_000);
    let me = std::process::id();
    let oldest = store.write_marker(me, &MarkerRequest::new(word("kept"))).unwrap().marker;
    for _ in 0..1_200 {
        store.write_marker(me, &MarkerRequest::new(word("note"))).unwrap();
    }
    let rows = sandbox.number("SELECT count(*) FROM markers");
    assert!((1_000..=1_002).contains(&rows), "{rows} rows");
    assert_eq!(store.peek_marker(me, None).unwrap().unwrap().id, oldest.id);
}

/// A second intent takes the place of the first one, which its writer believes to be open: it is
/// said which, by whom and why, in text and in JSON.
#[test]
fn a_marker_that_replaces_an_open_intent_says_so() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let pid = run.pid().to_string();
    let write = |name: &str, more: &[&str]| {
        let words = [&["marker", "write", name, "--pid", &pid], more].concat();
        sandbox.json(words)
    };
    let (code, first) = write("planned_stop", &["--reason", "an upgrade"]);
    assert_eq!((code, &first["replaced"]), (0, &json!([])), "{first:#}");
    // Of another name, but a request as well.
    let (_, second) = write("restart", &[]);
    let replaced = &second["replaced"][0];
    assert_eq!(replaced["id"], first["id"], "{second:#}");
    assert_eq!(
        (&replaced["name"], &replaced["reason"]),
        (&json!("planned_stop"), &json!("an upgrade"))
    );
    assert!(replaced["by"].as_str().unwrap().starts_with("incumbent marker write"), "{second:#}");
    // A note is no intent.
    assert_eq!(write("note", &[]).1["replaced"], json!([]));
    sandbox.cli(["marker", "write", "note", "--pid", &pid]).assert_code(0);
    let told = sandbox.cli(["marker", "write", "note", "--pid", &pid]).assert_code(0);
    assert!(told.out.contains("replaced note by incumbent marker write"), "{told:#?}");
    drop(run);
}

/// A process that has just ended does not run (3), which is not a mistake of the caller (2):
/// scripts race with it. A number that names no process is one.
#[test]
fn a_process_that_has_just_ended_does_not_run() {
    let sandbox = Sandbox::new();
    let mut gone = sleeper(&sandbox);
    let pid = gone.pid().to_string();
    gone.kill();
    for verb in ["marker write note", "claim", "lock acquire scope id"] {
        let words = || verb.split(' ').chain(["--pid"]);
        let (code, answer) = sandbox.json(words().chain([pid.as_str()]));
        assert_eq!(
            (code, &answer["error"]["kind"]),
            (3, &json!("not_running")),
            "{verb}: {answer:#}"
        );
        sandbox
            .cli(words().chain([pid.as_str()]))
            .assert_code(3)
            .assert_complains(&[&format!("there is no process with pid {pid}"), "try:"]);
        for wrong in ["0", "-1", "4711x"] {
            sandbox.cli(words().chain([wrong])).assert_code(2);
        }
    }
    // A caller who asks about it is told what was asked: nobody, nothing, not the holder.
    sandbox.cli(["claim", "--pid", &std::process::id().to_string()]).assert_code(0);
    for (verb, code) in [("release", 1), ("marker peek", 1), ("status-set --state x", 1)] {
        sandbox.cli(verb.split(' ').chain(["--pid", &pid])).assert_code(code);
    }
}
