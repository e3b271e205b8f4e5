//! What cannot be meant is refused, and makes nothing.

use rustix::process::Signal;
use serde_json::json;

use super::{ID, LOCK, SCOPE, acquire, locks};
use crate::support::{
    Answer, LIMIT, Process, Run, Sandbox, another_user, assert_untouched, bystander, fingerprint,
    keys, kill, skipped, wait_ended,
};

/// Refused as text and as JSON, with exit code 2, and nothing is made.
#[track_caller]
fn assert_usage_error(sandbox: &Sandbox, arguments: &[&str], stdin: &str, words: &str) {
    let before = fingerprint(sandbox.path());
    let what = format!("{arguments:?}").chars().take(200).collect::<String>();
    let ask = |first: &[&str]| -> Answer {
        let mut command = sandbox.incumbent(first);
        command.args(arguments).env("IT_EMPTY", "").env("IT_BLANK", " \n").env("IT_BOT_TOKEN", ID);
        let mut process = Process::start(command);
        if !stdin.is_empty() {
            process.write(stdin);
        }
        process.finish(LIMIT)
    };
    let text = ask(&[]);
    assert_eq!(text.code(), 2, "{what}: {text:#?}");
    assert_eq!(text.out, "", "{what}");
    assert!(text.err.contains(words), "{what}: no {words:?}: {text:#?}");
    assert!(!text.err.contains("panicked"), "{what}: {text:#?}");
    // One message: what clap says ends with the usage, what we say with a hint.
    let complaints = text
        .err
        .lines()
        .filter(|line| line.starts_with("incumbent:") || line.starts_with("error:"));
    assert_eq!(complaints.count(), 1, "{what}: {text:#?}");
    let json = ask(&["--json"]);
    assert_eq!(json.code(), 2, "{what}: {json:#?}");
    assert_eq!(json.err, "", "{what}");
    let document = json.json();
    assert_eq!(keys(&document), ["error"], "{what}: {document:#}");
    let error = &document["error"];
    assert_eq!(keys(error), ["kind", "message", "path", "hint", "retry_after_ms"], "{what}");
    assert_eq!(error["kind"], "invalid_input", "{what}: {document:#}");
    assert!(error["message"].as_str().unwrap().contains(words), "{what}: {document:#}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: {document:#}");
    assert_untouched(&before, sandbox.path(), &what);
}

/// FIELD-BUGS row 66: no identity is no lock, loudly; and so with whatever cannot be meant.
#[test]
fn what_cannot_be_meant_is_refused_and_makes_nothing() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let long = "x".repeat(65);
    let take = |words: &[&'static str]| [&["lock", "acquire", "--pid", "PID"], words].concat();
    let run = |words: &[&'static str]| [&["run"], words, &["--", "touch", "started"]].concat();
    let empty = "identity to lock is empty";
    let unset = "is not set, or empty";
    let cases: Vec<(Vec<&str>, &str, &str)> = vec![
        (take(&["", ID]), "", "scope"),
        (take(&["a b", ID]), "", "scope"),
        (take(&["a/b", ID]), "", "scope"),
        (take(&["a\nb", ID]), "", "scope"),
        (take(&[".a", ID]), "", "scope"),
        (take(&["\u{e9}", ID]), "", "scope"),
        (take(&["a=b", ID]), "", "scope"),
        (vec!["lock", "acquire", &long, ID], "", "scope"),
        (take(&[SCOPE]), "", "ID"),
        (take(&[SCOPE, ""]), "", empty),
        (take(&[SCOPE, "  \t\n"]), "", empty),
        (take(&[SCOPE, "-"]), "", empty),
        (take(&[SCOPE, "-"]), "\n", empty),
        (take(&[SCOPE, "--identity-env", "IT_EMPTY"]), "", unset),
        (take(&[SCOPE, "--identity-env", "IT_UNSET"]), "", unset),
        (take(&[SCOPE, "--identity-env", "IT_BLANK"]), "", empty),
        (take(&[SCOPE, "--identity-env", ""]), "", "variable"),
        (take(&[SCOPE, "--identity-env", "A=B"]), "", "variable"),
        (take(&[SCOPE, ID, "--identity-env", "IT_BOT_TOKEN"]), "", "cannot be used with"),
        (take(&[SCOPE, ID, "--metadata", "{bot: 1}"]), "", "not JSON"),
        (take(&[SCOPE, ID, "--metadata", ""]), "", "not JSON"),
        (take(&[SCOPE, ID, "--metadata", "{} {}"]), "", "not JSON"),
        (take(&[SCOPE, ID, "--ttl", "0"]), "", "0 s"),
        (take(&[SCOPE, ID, "--ttl=-1"]), "", "-1"),
        (take(&[SCOPE, ID, "--ttl", "-1"]), "", "-1"),
        (take(&[SCOPE, ID, "--ttl", "31d"]), "", "2678400 s"),
        (take(&[SCOPE, ID, "--ttl", "999999999999999999d"]), "", "999999999999999999d"),
        (take(&[SCOPE, ID, "--ttl", "infinity"]), "", "infinity"),
        (take(&[SCOPE, ID, "--ttl", "soon"]), "", "soon"),
        (take(&[SCOPE, ID, "--ttl", "1us"]), "", "time to live"),
        (take(&[SCOPE, ID, "--wait=later"]), "", "later"),
        (vec!["lock", "acquire", SCOPE, ID, "--pid", "0"], "", "above 0"),
        (vec!["lock", "acquire", SCOPE, ID, "--pid", "-1"], "", "-1"),
        (vec!["lock", "acquire", SCOPE, ID, "--pid=-1"], "", "above 0"),
        (vec!["lock", "verify", SCOPE, ID, "--fence", "x"], "", "fence"),
        (vec!["lock", "verify", "", ID], "", "scope"),
        (vec!["lock", "release", SCOPE], "", "ID"),
        (vec!["lock", "release", "--all", SCOPE, ID], "", "--all"),
        (vec!["unlock", SCOPE], "", "ID"),
        (vec!["unlock", SCOPE, "--hash", "12"], "", "hash"),
        (vec!["unlock", SCOPE, "--hash", "zzzzzzzzzzzzzzzz"], "", "hash"),
        (vec!["unlock", SCOPE, ""], "", empty),
        (vec!["unlock", "--stale", "--force"], "", "--stale"),
        (run(&["--lock", SCOPE]), "", "SCOPE=IDENTITY"),
        (run(&["--lock", "telegram-bot-token="]), "", empty),
        (run(&["--lock", "=x"]), "", "scope"),
        (run(&["--lock", "a b=x"]), "", "scope"),
        (run(&["--lock-env", SCOPE]), "", "SCOPE=VAR"),
        (run(&["--lock-env", "s=IT_UNSET"]), "", unset),
        (run(&["--lock-env", "s=IT_EMPTY"]), "", unset),
        (run(&["--lock-env", "s="]), "", "variable"),
        (run(&["--lock=s=x", "--lock=s=x"]), "", "named twice"),
        (run(&["--lock-env=s=IT_BOT_TOKEN", "--lock=s=123456:AAbb-cc_dd"]), "", "named twice"),
        (run(&["--metadata", "{}"]), "", "no lock is named"),
        (run(&["--lock=s=x", "--metadata", "{"]), "", "not JSON"),
    ];
    for (arguments, stdin, words) in cases {
        let arguments: Vec<&str> =
            arguments.into_iter().map(|word| if word == "PID" { &pid } else { word }).collect();
        assert_usage_error(&sandbox, &arguments, stdin, words);
    }
    assert_eq!(sandbox.keepers(), [] as [u32; 0]);
}

/// 64 KiB of metadata exactly, and one byte more.
#[test]
fn metadata_has_a_limit() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let too_long = text(64 * 1024 + 1);
    let pid = script.pid().to_string();
    let words = ["lock", "acquire", SCOPE, ID, "--pid", &pid, "--metadata", &too_long];
    assert_usage_error(&sandbox, &words, "", "65537 bytes");
    let words = ["run", "--metadata", &too_long, LOCK, "--", "true"];
    assert_usage_error(&sandbox, &words, "", "65537 bytes");
    let fits = text(64 * 1024);
    let (code, answer) = acquire(&sandbox, &script, &["--metadata", &fits]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(locks(&sandbox)[0]["metadata"].as_str().unwrap().len(), 64 * 1024 - 2);
    // Whitespace does not count: it is not stored.
    let spaced = format!("[{}]", " ".repeat(100_000));
    assert_eq!(acquire(&sandbox, &script, &["--metadata", &spaced]).0, 0);
    assert_eq!(locks(&sandbox)[0]["metadata"], json!([]));
    let run = sandbox.hold(&["--lock=port=80", "--metadata", &fits]);
    assert_eq!(sandbox.status().1["locks"][0]["metadata"], fits.trim_matches('"'));
    run.end().assert_code(0);
}

/// A pid that has just ended, and that of a zombie: nobody is recorded for them.
#[test]
fn a_dead_process_holds_nothing() {
    let sandbox = Sandbox::new();
    let mut gone = bystander(&sandbox);
    let zombie = bystander(&sandbox);
    gone.kill();
    kill(zombie.pid(), Signal::KILL);
    assert!(wait_ended(zombie.pid(), LIMIT));
    for process in [&gone, &zombie] {
        let pid = process.pid().to_string();
        let words = ["lock", "acquire", SCOPE, ID, "--pid", &pid];
        sandbox
            .cli(words)
            .assert_code(3)
            .assert_complains(&[&format!("there is no process with pid {pid}")]);
    }
}

/// A process of another user's is not ours to record, and not ours to look into.
#[test]
fn a_process_of_another_user_is_refused() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let before = fingerprint(sandbox.path());
    let words = ["lock", "acquire", SCOPE, ID, "--pid", &pid];
    let told = Process::start(sandbox.under(nobody, &binary, &words)).finish(LIMIT);
    let told = told.assert_code(78);
    told.assert_complains(&[&format!("pid {pid} belongs to another user"), "try:"]);
    let json = [&words[..], &["--json"]].concat();
    let told = Process::start(sandbox.under(nobody, &binary, &json)).finish(LIMIT);
    assert_eq!(told.assert_code(78).json()["error"]["kind"], "permission");
    assert_untouched(&before, sandbox.path(), "another user's process");
    // Root may record anybody's.
    let mut command = sandbox.within(nobody);
    command.args(["/bin/sh", "-c", "echo $$; exec cat"]);
    let theirs = Run::start(command);
    let theirs_pid = theirs.command.pid.to_string();
    sandbox.cli(["lock", "acquire", SCOPE, ID, "--pid", &theirs_pid]).assert_code(0);
    assert_eq!(locks(&sandbox)[0]["pid"], theirs.command.pid);
    theirs.end().assert_code(0);
}
