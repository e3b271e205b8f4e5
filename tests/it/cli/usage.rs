//! Wrong questions and bad places: what, where and what to do, a code of its own kind, and nothing
//! made on the way.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    LIMIT, Process, Sandbox, another_user, assert_untouched, fingerprint, skipped,
};

const START: &[&str] = &["run", "--no-backoff", "--", "echo", "started"];

/// The error document, which is all that standard output holds, and complete.
#[track_caller]
fn error_of(command: Command, code: i32, what: &str) -> Value {
    let answer = Process::start(command).finish(LIMIT);
    assert_eq!(answer.code(), code, "{what}: {answer:#?}");
    let document = answer.json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), ["error"], "{what}: {document:#}");
    let error = &document["error"];
    let expected = ["kind", "message", "path", "hint", "retry_after_ms"];
    assert_eq!(keys(error), expected, "{what}: {document:#}");
    assert!(error["kind"].is_string(), "{what}: {document:#}");
    let message = error["message"].as_str().unwrap();
    // A placeholder such as `<CMD>...` may end it; a sentence may not.
    let is_sentence = message.ends_with('.') && !message.ends_with("...");
    assert!(!message.is_empty() && !is_sentence, "{what}: {message:?}");
    assert!(error["path"].is_string() || error["path"].is_null(), "{what}: {document:#}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: {document:#}");
    assert!(
        error["retry_after_ms"].is_u64() || error["retry_after_ms"].is_null(),
        "{what}: {document:#}"
    );
    error.clone()
}

/// As a person sees it.
#[track_caller]
fn assert_text(command: Command, code: i32, words: &[&str], what: &str) {
    let answer = Process::start(command).finish(LIMIT);
    assert_eq!(answer.code(), code, "{what}: {answer:#?}");
    assert_eq!(answer.out, "", "{what}: data where there is none");
    assert!(!answer.err.contains("panicked"), "{what}: {answer:#?}");
    for word in words {
        assert!(answer.err.contains(word), "{what}: no {word:?}: {answer:#?}");
    }
}

/// Bad places for a store: made by `make` in the sandbox, named by `INCUMBENT_DB`.
#[test]
fn bad_places_are_refused_with_a_remedy() {
    type Make = fn(&Sandbox);
    // What lies there, what `--db` names, the codes and the kinds that are right.
    type Case<'a> = (&'a str, Make, Option<&'a str>, &'a [i32], &'a [&'a str]);
    let nothing: Make = |_| {};
    let directory: Make = |sandbox| std::fs::create_dir_all(sandbox.db()).unwrap();
    let text: Make = |sandbox| {
        std::fs::create_dir(sandbox.file("store")).unwrap();
        std::fs::write(sandbox.db(), "shopping list\n").unwrap();
    };
    let dangling: Make = |sandbox| {
        std::fs::create_dir(sandbox.file("store")).unwrap();
        symlink("nowhere", sandbox.db()).unwrap();
    };
    let in_a_file: Make = |sandbox| std::fs::write(sandbox.file("store"), "a file").unwrap();
    let open: Make = |sandbox| {
        let store = sandbox.file("store");
        std::fs::create_dir(&store).unwrap();
        std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    let corrupt: Make = |sandbox| {
        std::fs::create_dir(sandbox.file("store")).unwrap();
        let header = b"SQLite format 3\0";
        std::fs::write(sandbox.db(), [header.as_slice(), &[0xff; 9_000]].concat()).unwrap();
    };
    let cases: [Case; 9] = [
        ("no name", nothing, Some(""), &[2], &["invalid_input"]),
        ("the root directory", nothing, Some("/"), &[2], &["invalid_input"]),
        ("a directory", directory, None, &[2], &["invalid_input"]),
        ("a text", text, None, &[78], &["not_ours"]),
        ("a link to nowhere", dangling, None, &[2, 70, 78], &[]),
        ("below a file", in_a_file, None, &[2, 70, 78], &[]),
        ("a directory open to all", open, None, &[78], &["permission"]),
        ("a corrupt file", corrupt, None, &[70, 78], &["corrupt", "not_ours"]),
        ("below /proc", nothing, Some("/proc/store/state.db"), &[70, 78], &[]),
    ];
    for (what, make, db, codes, kinds) in cases {
        let sandbox = Sandbox::new();
        make(&sandbox);
        let before = fingerprint(sandbox.path());
        // Before the verb: what follows `--` is the command's.
        let global: Vec<&str> = db.map_or_else(Vec::new, |db| vec!["--db", db]);
        let text = sandbox.incumbent([&global, START].concat());
        let start = sandbox.incumbent([&["--json"], global.as_slice(), START].concat());
        let answer = Process::start(text).finish(LIMIT);
        let code = answer.code();
        assert!(codes.contains(&code), "{what}: {answer:#?}");
        assert_eq!(answer.out, "", "{what}");
        // What to do: our own words, or where to look the usage up.
        assert!(answer.err.contains("try"), "{what}: {answer:#?}");
        let error = error_of(start, code, what);
        let kind = error["kind"].as_str().unwrap();
        assert!(kinds.is_empty() || kinds.contains(&kind), "{what}: {error:#}");
        if db.is_none() {
            let message = error["message"].as_str().unwrap();
            let place = sandbox.file("store").to_str().unwrap().to_owned();
            assert!(message.contains(&place), "{what}: {error:#}");
        }
        assert_untouched(&before, sandbox.path(), what);
    }
}

/// R:UID. FIELD-BUGS row 29: a place that may not be written is named, with who we are.
#[test]
fn an_unwritable_directory_is_named() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    for (place, owner, mode) in [("roots", 0, 0o755), ("closed", 65534, 0o555), ("shut", 0, 0o700)]
    {
        let directory = sandbox.file(place);
        std::fs::create_dir(&directory).unwrap();
        chown(&directory, Some(owner), Some(owner)).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let before = fingerprint(sandbox.path());
    for place in ["roots", "closed", "shut"] {
        for below in ["state.db", "deeper/state.db"] {
            let db = sandbox.file(place).join(below);
            let what = db.display().to_string();
            let verb = |json: &'static [&'static str]| {
                let mut command = sandbox.under(nobody, &binary, json);
                command.arg("--db").arg(&db).args(START);
                command
            };
            let error = error_of(verb(&["--json"]), 78, &what);
            let kind = error["kind"].as_str().unwrap();
            assert!(matches!(kind, "permission" | "cannot_read"), "{what}: {error:#}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(sandbox.file(place).to_str().unwrap()), "{what}: {error:#}");
            assert!(error["hint"].as_str().unwrap().contains("65534"), "{what}: {error:#}");
            assert_text(verb(&[]), 78, &["incumbent: run: ", "try:"], &what);
        }
    }
    assert_untouched(&before, sandbox.path(), "unwritable");
}

/// Wrong words. Nothing is made, not even the store's directory, before they are all right.
#[test]
fn wrong_words_are_usage_errors_and_make_nothing() {
    let long = "x".repeat(65);
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["--profile", "", "run", "--", "true"], "profile"),
        (vec!["--profile", "../x", "run", "--", "true"], "../x"),
        (vec!["--profile", "a b", "run", "--", "true"], "a b"),
        (vec!["--profile=-x", "run", "--", "true"], "-x"),
        (vec!["--profile", ".x", "run", "--", "true"], ".x"),
        (vec!["--profile", "\u{e9}", "run", "--", "true"], "\u{e9}"),
        (vec!["--profile", &long, "run", "--", "true"], "xxx"),
        (vec!["--kind", "a/b", "run", "--", "true"], "a/b"),
        (vec!["--kind", "", "claim"], "kind"),
        (vec!["--profile", "a\nb", "status"], "profile"),
        (vec!["--home", "/nowhere/at/all", "run", "--", "true"], "/nowhere/at/all"),
        (vec!["--home", "/dev/null", "run", "--", "true"], "/dev/null"),
        (vec!["run"], "CMD"),
        (vec!["run", "--"], "CMD"),
        (vec!["run", "--", ""], "command"),
        (vec!["run", "--nonsense", "true"], "--nonsense"),
        (vec!["run", "--stop-budget", "2h", "--", "true"], "7200 s"),
        (vec!["run", "--stop-budget", "soon", "--", "true"], "soon"),
        (vec!["run", "--stop-budget", "-1", "--", "true"], "-1"),
        (vec!["run", "--wait=later", "--", "true"], "later"),
        (vec!["run", "-E", "256", "--", "true"], "256"),
        (vec!["claim", "--pid", "0"], "0"),
        (vec!["claim", "--pid", "-1"], "-1"),
        (vec!["claim", "--pid", "x"], "x"),
        (vec!["release", "--pid", "0"], "0"),
        (vec!["sql"], "QUERY"),
        (vec!["sql", "SELECT 1"], "state.db"),
        (vec!["status", "--wat"], "--wat"),
        (vec!["dance"], "dance"),
        (vec![], "Usage"),
    ];
    for (arguments, named) in cases {
        let sandbox = Sandbox::new();
        let before = fingerprint(sandbox.path());
        let what = format!("{arguments:?}");
        if !arguments.is_empty() {
            let mut command = sandbox.incumbent(["--json"]);
            command.args(&arguments);
            let error = error_of(command, 2, &what);
            assert_eq!(error["kind"], "invalid_input", "{what}: {error:#}");
            assert!(error["message"].as_str().unwrap().contains(named), "{what}: {error:#}");
        }
        assert_text(sandbox.incumbent(&arguments), 2, &[named], &what);
        assert_untouched(&before, sandbox.path(), &what);
    }
    // The words are right, and the process is not there.
    let sandbox = Sandbox::new();
    let before = fingerprint(sandbox.path());
    let error =
        error_of(sandbox.incumbent(["--json", "claim", "--pid", "4194304"]), 3, "no process");
    assert_eq!(error["kind"], "not_running", "{error:#}");
    assert_untouched(&before, sandbox.path(), "no process");
}

/// The environment is input as well.
#[test]
fn wrong_words_in_the_environment_are_usage_errors() {
    for (name, value) in [
        ("INCUMBENT_PROFILE", "../x"),
        ("INCUMBENT_PROFILE", "a b"),
        ("INCUMBENT_HOME", "/nowhere/at/all"),
    ] {
        let sandbox = Sandbox::new();
        let before = fingerprint(sandbox.path());
        let mut command = sandbox.incumbent(["--json"]);
        command.args(START).env(name, value);
        let error = error_of(command, 2, name);
        assert!(error["message"].as_str().unwrap().contains(value), "{error:#}");
        assert_untouched(&before, sandbox.path(), name);
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.incumbent(["--json"]);
    command.args(START).env_remove("INCUMBENT_DB").env("HOME", "not/absolute");
    let before = fingerprint(sandbox.path());
    let error = error_of(command, 2, "HOME");
    assert!(error["hint"].as_str().unwrap().contains("--db"), "{error:#}");
    assert_untouched(&before, sandbox.path(), "HOME");
}

/// FIELD-BUGS row 60: a question of a store that is not there is answered, and makes none.
#[test]
fn questions_of_no_store_are_answered_and_make_none() {
    let sandbox = Sandbox::new();
    let before = fingerprint(sandbox.path());
    let (code, status) = sandbox.status();
    assert_eq!((code, &status["reason"]), (3, &json!("never_claimed")), "{status:#}");
    assert_eq!((&status["running"], &status["pid"]), (&json!(false), &Value::Null));
    assert_eq!(sandbox.json(["history"]), (0, json!([])));
    assert_eq!(sandbox.json(["events"]).0, 0);
    assert_eq!(sandbox.cli(["evict"]).code(), 0);
    assert_eq!(sandbox.cli(["release"]).code(), 1);
    let path = sandbox.cli(["path"]).assert_code(0).out;
    assert_eq!(Path::new(path.trim_end()), sandbox.db());
    assert_untouched(&before, sandbox.path(), "questions");
}

/// A reader that goes away is no error, and no panic.
#[test]
fn a_closed_pipe_is_no_error() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    for verb in ["status", "history", "events", "completions bash", "sql 'SELECT 1'"] {
        let script = format!("exec 3>&1; {{ incumbent {verb}; echo $? >&3; }} | :");
        let answer = Process::start(sandbox.shell(&script)).finish(LIMIT);
        assert!(matches!(answer.out.trim(), "0" | "3"), "{verb}: {answer:#?}");
        assert_eq!(answer.err, "", "{verb}");
    }
}

/// Symptom: `incumbent man` ended in a panic (in a build with debug assertions). Cause: each verb's
/// page was made without the global options that the verb's own options refer to.
#[test]
fn the_manual_and_the_completions_can_be_printed() {
    let sandbox = Sandbox::new();
    let before = fingerprint(sandbox.path());
    let answer = sandbox.cli(["man"]).assert_code(0);
    assert_eq!(answer.err, "");
    for verb in ["run", "status", "claim", "release", "evict", "history", "events", "path", "sql"] {
        assert!(answer.out.contains(&format!("incumbent\\-{verb}")), "no {verb} in the manual");
    }
    for shell in ["bash", "zsh", "fish"] {
        let answer = sandbox.cli(["completions", shell]).assert_code(0);
        assert!(answer.out.contains("no-backoff"), "{shell}: {answer:#?}");
    }
    assert_untouched(&before, sandbox.path(), "printing");
}
